"""What earlier searches found of a family: left in the cache, or at a stated place."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from kfp_bonsai.propose.trials import LAST, Trial
from kfp_bonsai.shared.core.cache import cached
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError, in_words
from kfp_bonsai.shared.core.files import new_file
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.written import EARLIER_SEARCH

SEARCHES, MADE_BY = "searches", "bonsai search"
MOST_BEGUN = 2


@dataclass(frozen=True)
class Earlier:
    """What is known.

    Attributes:
        seen: (emission, relative accuracy) of what was healed to the end.
        gains: of relative accuracy from each rung to the last.
        begin: points that were chosen.
        count: trials.
    """

    seen: list[tuple[float, float]] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    begin: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0


def earlier_searches(model_type: str, stated: str = "") -> Earlier:
    """Return what earlier searches of a family found.

    Args:
        model_type: the family's.
        stated: a file, or a folder of them; "" for those that were left on this machine.

    Raises:
        BonsaiError: what is stated is not there, or is no search's.
    """
    documents = []
    for path in _files(stated):
        try:
            documents.append(read_document(path, MADE_BY, shape=EARLIER_SEARCH))
        except BonsaiError as error:
            if stated:
                raise
            say(f"note: an earlier search is left out: {error}")
    trials: list[dict[str, Any]] = []
    begin = []
    for document in documents:
        if document["model_type"] != model_type:
            continue
        trials += [one for one in document["trials"] if one["kept"]]
        chosen = document["chosen"]
        if "layers" in chosen and chosen not in begin:
            begin.append(chosen)
    whole = [one for one in trials if len(one["kept"]) == LAST + 1]
    gained = [[one["kept"][-1] - one["kept"][rung] for one in whole] for rung in range(LAST)]
    return Earlier(
        seen=[
            (min(float(one["emission"]), 1.0), float(one["kept"][-1])) for one in whole if "model" not in one["point"]
        ],
        gains=[median(one) for one in gained] if whole else [],
        begin=begin[-MOST_BEGUN:],
        count=len(trials),
    )


def leave(trials: Sequence[Trial], chosen: Trial | None, model_type: str, name: str, int8: float = 1.0) -> None:
    """Leave what a search found for the next ones; that it fails costs nothing.

    Args:
        trials: all of them.
        chosen: the one that was chosen.
        model_type: of the family.
        name: what tells the search from others.
        int8: the emission of an int8 model as a share of the float one's, if int8 was asked for.
    """
    usable = [each for each in trials if each.is_usable]
    document = {
        "format": 1,
        "model_type": model_type,
        "chosen": dict(chosen.point) if chosen else {},
        "trials": [
            {
                "point": dict(each.point),
                "kept": [one["relative_accuracy"] for one in each.healed],
                "emission": each.figures["emission"] / int8,
            }
            for each in usable
        ],
    }
    path = cached(SEARCHES) / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except (OSError, BonsaiError) as error:
        say(f"note: later searches will not know of this one: {in_words(error)}")


def _files(stated: str) -> list[Path]:
    if not stated:
        return sorted(cached(SEARCHES).glob("*.json"))
    path = Path(stated).expanduser()
    if path.is_file():
        return [path]
    found = sorted(path.glob("*.json")) if path.is_dir() else []
    if not found:
        raise BonsaiError(f"--before {stated}: no file of an earlier search is there: give one, or a folder of them")
    return found
