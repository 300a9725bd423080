"""Compression levels: what users write, and what the pipeline is given."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from kfp_bonsai.layer_remove.remove import stacks_asked
from kfp_bonsai.matrix_prune.prune import SHAPES
from kfp_bonsai.shared.core.errors import BonsaiError, nearest
from kfp_bonsai.shared.kinds.kind import ROW, SPAN, TOKEN, WRITTEN
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.models.configuration import check_first, family_of, is_free
from kfp_bonsai.shared.saved.kept_tokens import VOCABULARIES, WHOLE
from kfp_bonsai.shared.saved.records import short_name

DEFAULTS: dict[str, Any] = {
    "model": "",
    "layers": "1.0",
    "flops": 1.0,
    "emission": 1.0,
    "shape": "free",
    "epochs": 0.0,
    "rate": 0.0,
    "vocabulary": WHOLE,
}
SHARES = ("flops", "emission")  # of the baseline's, that matrices are pruned to
SYNTAX = (
    "write 'LABEL:layers=1/3,flops=0.1,shape=free,epochs=6,rate=3e-4', or emission=0.1 for flops=0.1, layers=6+2 of "
    "encoder and decoder, and of models that write vocabulary=task (all settings may be left out), or "
    "'LABEL:model=embedded:bert-tiny,epochs=6,rate=3e-4'"
)
OF_READY_MADE = ("model", "epochs", "rate")  # what can be said of a ready-made model
UNREADABLE = frozenset("'\"\\{}")  # signs in a text that break KFP's lists
SHORT = 8  # tokens of a text that is shorter than most tasks' are on average
ANY_LAYERS = 1_000_000  # as if the model, which is not known yet, had whatever is asked for

# The white paper's.
THREE_LEVELS = ("2/3 layers:layers=2/3", "1/3 layers:layers=1/3", "1/3 layers + matrix pruning:layers=1/3,flops=0.1")
# Of a run the last has more layers, as narrower ones keep more: measured by tests/benchmarks/quality.py.
OF_ROWS = (*THREE_LEVELS[:2], "1/2 layers + matrix pruning:layers=1/2,flops=0.1")
OF_LAYERS = ("2/3", "1/2", "1/3")
# Where tokens are answered for, more layers that are narrower keep more at equal FLOPs, and learn longer: measured by
# tests/benchmarks/kinds.py. Each with its passes over the transfer set; 0 leaves them to distill.
OF_TOKENS = (
    ("2/3 layers:layers=2/3", 0),
    ("2/3 layers + matrix pruning to 1/3:layers=2/3,flops=0.334", 4),
    ("2/3 layers + matrix pruning to 1/8:layers=2/3,flops=0.125", 6),
)
# What writes has an output matrix that no level prunes, which alone may be a tenth of the FLOPs.
OF_WRITERS = (
    "2/3 layers:layers=2/3",
    "1/2 layers:layers=1/2",
    "1/2 layers + matrix pruning to 1/3:layers=1/2,flops=0.334",
)


def parse_levels(texts: Sequence[str], epochs: float = 0.0) -> list[dict[str, Any]]:
    """Read levels, the white paper's three if there are none.

    Args:
        texts: levels such as "small:layers=1/3,flops=0.1"; without a label, the text itself is the label, or the name
            of a ready-made model.
        epochs: epochs of distillation of the levels that do not state them; 0 leaves them to distill.

    Raises:
        BonsaiError: a level cannot be read or reached, or two have one label.
    """
    levels = [_parse(text, epochs) for text in texts or THREE_LEVELS]
    labels = [level["label"] for level in levels]
    for label in labels:
        if labels.count(label) > 1:
            raise BonsaiError(f"--level: two levels are called '{label}': give each a label of its own")
        if label in ("", "baseline"):
            raise BonsaiError(f"--level '{label}:...': this label is taken or empty: choose another")
        if set(label) & UNREADABLE:
            raise BonsaiError(f"--level '{label}:...': leave quotes, backslashes and braces out of the label")
    return levels


def compressed(levels: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the levels that the baseline is made smaller to, without ready-made models."""
    return [level for level in levels if not level["model"]]


def usual_levels(kind: str, epochs: float = 0.0) -> list[str]:
    """Return the levels of a kind of task for which none are given.

    Args:
        kind: the kind of task; "" where it is not known yet whether rows have classes or numbers.
        epochs: epochs of distillation, where they are stated.
    """
    head = KINDS[kind].head if kind else ROW
    if head not in (TOKEN, SPAN):
        return [*(OF_WRITERS if head == WRITTEN else OF_ROWS)]
    return [text if epochs or not passes else f"{text},epochs={passes}" for text, passes in OF_TOKENS]


def with_fewer_layers(text: str) -> list[str]:
    """Return one of the usual levels as it is and, where matrices are pruned, with ever fewer layers.

    A small model cannot have half of its layers at a tenth of its FLOPs, but a third of them.
    """
    if "flops=" not in text:
        return [text]
    own = next(number for number, share in enumerate(OF_LAYERS) if f"layers={share}" in text)
    return [text.replace(OF_LAYERS[own], share) for share in OF_LAYERS[own:]]


def check_fit(levels: Sequence[Mapping[str, Any]], config: Any) -> None:
    """Refuse layers and shapes that a model of this configuration cannot have, before it is trained.

    Raises:
        BonsaiError: a level leaves out a first layer that must stay, or makes a free shape stock.
    """
    for level in levels:
        stacks = family_of(config).stacks
        totals = [getattr(config, stack.count) for stack in stacks]
        for stack, asked in zip(stacks, stacks_asked(level["layers"], totals, writes=False), strict=True):
            if isinstance(asked, list):
                try:
                    check_first(config, stack, asked)
                except BonsaiError as error:
                    reason = str(error).replace("as in ", "as in layers=")
                    raise BonsaiError(f"--level '{level['label']}': {reason}") from error
        if level["shape"] == "stock" and is_free(config):
            raise BonsaiError(
                f"--level '{level['label']}': a model of free shape cannot become stock: leave shape out, or start "
                "from a model with uniform layers"
            )


def check_shares(
    levels: Sequence[Mapping[str, Any]], config: Any, longest: int = 512, head: str = ROW, surely: bool = False
) -> None:
    """Refuse shares of the FLOPs or of the emission that matrix-prune would refuse after the training before it.

    The bounds hold for texts and answers of any length (the powers of two were tried), so that a share near them may
    still be refused there. What emits how much is known once it is timed, on texts of the task's length; that it is
    within a factor of the FLOPs is known here.

    Args:
        levels: what parse_levels gives.
        config: the model's configuration.
        longest: tokens that a text has at the most.
        head: what the model is to give logits for.
        surely: refuse too what is out of reach for texts of some lengths alone, from SHORT tokens on.

    Raises:
        BonsaiError: a level's share is below what its layers cost at the least, or above what they cost whole.
    """
    if all(level[key] == 1 for level in levels for key in SHARES):
        return

    from kfp_bonsai.matrix_prune.budget import STEP, step_of
    from kfp_bonsai.shared.models import flops, one_token, shapes
    from kfp_bonsai.shared.saved.pretrained import blank

    model = blank(config, head)
    shape, whole = shapes.shape_of(model), flops.count(model)
    layers = [_full(shape, costs, index) for index, costs in enumerate(flops.units(model))]
    smallest = {
        "free": flops.units(model, one_token=one_token.can(type(model), config)),
        "stock": flops.units(model, shape.head_dim if shape.tied else 0),
    }
    for level in levels:
        kept = []
        for number, asked in enumerate(stacks_asked(level["layers"], shape.stacks, head == WRITTEN)):
            kept += [sum(shape.stacks[:number])] * (asked if isinstance(asked, int) else len(asked))
        kept[-1] = len(shape.layers) - 1  # which may cost less than the others
        narrowest = shape.head_dim / shape.hidden if shape.tied and level["shape"] == "stock" else 1.0
        bounds = []
        for length, written in _lengths(longest, head == WRITTEN):
            at = partial(flops.Flops.at, length=length, written=written)
            rest = at(whole) - sum(map(at, layers))
            full = rest + sum(at(layers[index]) for index in kept)
            parts = [(cost, step_of(unit)) for index in kept for unit, cost in smallest[level["shape"]][index].items()]
            least = rest * narrowest + sum(at(cost) * step for cost, step in parts)
            if not surely or length >= SHORT:
                bounds.append((least / at(whole), full / at(whole)))
        worst, best = (max, min) if surely else (min, max)
        least, most = worst(low for low, _ in bounds), best(high for _, high in bounds)
        key = "emission" if level["emission"] < 1 else "flops"
        share, slack = level[key], flops.AGREEMENT if key == "emission" else 1.0
        if share < least / slack:
            raise BonsaiError(
                f"--level '{level['label']}': {key}={share:g} is less than one head and {STEP} "
                f"neurons in each of its {len(kept)} layers cost, about {least:.2g} of the model: ask for more, or "
                "keep fewer layers"
            )
        if most * slack < share < 1:
            raise BonsaiError(
                f"--level '{level['label']}': {key}={share:g} is more than its {len(kept)} of "
                f"{len(shape.layers)} layers cost as they are, about {most:.2g} of the model: ask for less, or leave "
                f"{key} out"
            )


def _lengths(longest: int, writes: bool) -> Iterator[tuple[int, int]]:
    """Yield how many tokens a text has, and how many are written: one, or as many where a model writes."""
    for length in {*(1 << power for power in range(longest.bit_length())), longest}:
        yield from ((length, written) for written in {1, length if writes else 1})


def _full(shape: Any, costs: Mapping[str, Any], index: int) -> Any:
    """Return the FLOPs of one whole layer, of whose units each costs so much."""
    counts = shape.units(shape.layers[index])
    first, *others = [cost * counts[unit] for unit, cost in costs.items()]
    return sum(others, first)


def _parse(text: str, epochs: float) -> dict[str, Any]:
    label, colon, settings = text.partition(":")
    if not colon or re.search(r"(^|,)\s*model\s*=", label):  # whose name may have a colon
        label, settings = text, text
    given = _settings(text, settings)
    if "model" in given:
        label = short_name(given["model"]) if label == text else label
        _check_ready_made(text, given)
    level = {"label": label.strip(), **DEFAULTS, "epochs": epochs, **given, "fingerprint": ""}
    for key in (*SHARES, "epochs", "rate"):
        try:
            level[key] = float(level[key])
        except ValueError as error:
            raise BonsaiError(f"--level '{text}': {key}={level[key]} is not a number") from error
    for key in SHARES:
        if not 0 < level[key] <= 1:
            raise BonsaiError(f"--level '{text}': {key}={level[key]:g} must be above 0 and at most 1")
    if all(level[key] < 1 for key in SHARES):
        raise BonsaiError(f"--level '{text}': flops and emission are two ways to say how small: give one of them")
    if not 0 <= level["epochs"] < math.inf:
        raise BonsaiError(f"--level '{text}': epochs={level['epochs']:g} must be a number such as 3, or 0")
    if not 0 <= level["rate"] < math.inf:
        raise BonsaiError(f"--level '{text}': rate={level['rate']:g} must be a learning rate such as 3e-4, or 0")
    if level["shape"] not in SHAPES:
        raise BonsaiError(f"--level '{text}': shape={level['shape']}: write {' or '.join(SHAPES)}")
    if level["vocabulary"] not in VOCABULARIES:
        raise BonsaiError(f"--level '{text}': vocabulary={level['vocabulary']}: write {' or '.join(VOCABULARIES)}")
    check_layers(level, [ANY_LAYERS] * len(level["layers"].split("+")), text)
    return level


def _check_ready_made(text: str, given: Mapping[str, str]) -> None:
    """Refuse settings of a ready-made model that it cannot have: it is what one would take without compressing."""
    spare = [key for key in given if key not in OF_READY_MADE]
    if spare:
        raise BonsaiError(
            f"--level '{text}': a ready-made model is taken as it is, so leave {', '.join(spare)} out, or compress it "
            "in a run of its own, with --model"
        )
    if not given["model"] or set(given["model"]) & UNREADABLE:
        raise BonsaiError(
            f"--level '{text}': model= names no model: give a folder, a hub name or embedded:NAME, without quotes, "
            "backslashes and braces"
        )


def check_layers(level: Mapping[str, Any], stacks: Sequence[int], text: str = "", writes: bool = False) -> None:
    """Refuse layers that a model of so many cannot give.

    Args:
        level: what parse_levels gives.
        stacks: how many layers each stack of the model has.
        text: how the level was written, if not as its label.
        writes: whether it is to write.

    Raises:
        BonsaiError: it cannot.
    """
    try:
        stacks_asked(level["layers"], stacks, writes)
    except BonsaiError as error:
        reason = str(error).replace("--keep ", "layers=")
        raise BonsaiError(f"--level '{text or level['label']}': {reason}") from error


def _settings(text: str, settings: str) -> dict[str, str]:
    """Split "layers=0,2,5,flops=0.1": a part without "=" belongs to the value before it."""
    found: dict[str, str] = {}
    key = ""
    for part in settings.split(",") if settings.strip() else ():
        name, equals, value = part.partition("=")
        if not equals and key:
            found[key] += "," + part.strip()
            continue
        key = name.strip()
        if not equals or key not in DEFAULTS:
            hint = nearest(key, [*DEFAULTS])
            raise BonsaiError(f"--level '{text}': '{part.strip()}' cannot be read{hint}: {SYNTAX}")
        if key in found:
            raise BonsaiError(f"--level '{text}': {key} is given twice: {SYNTAX}")
        found[key] = value.strip()
    return found
