"""What a data set looks like in a few numbers, and how far another one has moved from that."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.kinds.kinds import kind_of

MOST_TOKENS = 5000  # of a profile, the most frequent ones
LEAST_SHARE = 1e-4  # so that an empty class does not make the index infinite


def profile(train: Path, tokenizer: Any, edges: Sequence[float] | None = None) -> dict[str, Any]:
    """Return a training split's profile.

    Args:
        train: the split.
        tokenizer: the model's; token frequencies need no notion of a word, so any language will do.
        edges: between which numbers to count the labels of a regression, those of another profile; else their deciles.

    Returns:
        rows; what the labels look like in shares (see a kind's `shares`); tokens, the frequency of the most frequent
        ones by their number; and noise, the distance of one half of the rows' token frequencies from the other's, which
        is what chance gives.
    """
    task = tasks.read_task(train)
    halves: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    labels: list[Any] = []
    for batch in tasks.batches(train):
        encoded = tokenizer(*(batch[column] for column in task.columns), add_special_tokens=False)["input_ids"]
        for index, row in enumerate(encoded):
            halves[index % 2].update(row)
        labels += batch["label"]
    return {
        "rows": task.rows,
        **kind_of(task).shares(labels, task, edges),
        "tokens": _frequencies(halves[0] + halves[1]),
        "noise": token_distance(_frequencies(halves[0]), _frequencies(halves[1])),
    }


def check_profile(found: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuse what is no profile, or one of other labels than a new one.

    Raises:
        BonsaiError: an entry is missing, or of another type or length.
    """
    shares, tokens = found.get("shares"), found.get("tokens")
    whole = isinstance(shares, list) and isinstance(tokens, dict) and len(shares) == len(now["shares"])
    numbers = (
        [found.get("rows"), found.get("noise"), found.get("counted", 0), *(shares or ()), *(tokens or {}).values()]
        if whole
        else []
    )
    if not whole or not all(map(_is_share, numbers)) or not found["rows"]:
        raise BonsaiError(f"{where} holds no whole profile of the champion's data: fetch the champion again")


def check_edges(found: Mapping[str, Any], where: str) -> list[float] | None:
    """Return the edges between which a profile counts the labels of a regression, None for classes.

    Raises:
        BonsaiError: they are no rising numbers.
    """
    edges = found.get("edges")
    if edges is None:
        return None
    if not isinstance(edges, list) or not all(map(_is_number, edges)) or not edges or edges != sorted(edges):
        raise BonsaiError(f"{where} has no rising numbers as the edges of its profile: fetch the champion again")
    return edges


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)


def _is_share(found: Any) -> bool:
    return _is_number(found) and found >= 0


def label_shift(before: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """Return the population stability index of the labels: above 0.2 is commonly called a major shift.

    Args:
        before: the profile to compare with.
        now: that of new data, of the same labels or with the same edges.
    """
    old, new = (np.maximum(each["shares"], LEAST_SHARE) for each in (before, now))
    return float(((new - old) * np.log(new / old)).sum())


def label_noise(before: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """Return the population stability index that chance rarely exceeds for so many rows and classes.

    Without a shift it is distributed like chi squared times 1/rows + 1/rows: this is its mean and two deviations. Where
    rows have any number of labels, these are what is counted.
    """
    freedom = len(now["shares"]) - 1
    counted = [max(1, each.get("counted", each["rows"])) for each in (before, now)]
    return (freedom + 2 * math.sqrt(2 * freedom)) * sum(1 / each for each in counted)


def token_distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the Jensen-Shannon distance of two token frequencies: 0 where they are alike, 1 where nothing is shared.

    Tokens that neither has among its most frequent ones count as one.
    """
    from scipy.spatial.distance import jensenshannon

    names = sorted({*one, *other})
    rows = [[*(shares.get(name, 0.0) for name in names), max(0.0, 1 - sum(shares.values()))] for shares in (one, other)]
    distance = float(jensenshannon(*rows, base=2))
    return distance if math.isfinite(distance) else 0.0


def _frequencies(counts: Counter[int]) -> dict[str, float]:
    total = max(1, counts.total())
    return {str(token): round(count / total, 8) for token, count in counts.most_common(MOST_TOKENS)}
