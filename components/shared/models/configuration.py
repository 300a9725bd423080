"""What a model's configuration says, by what is known of its family."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models.axes import Family, Stack
from kfp_bonsai.shared.models.families import FAMILIES, REFUSED

FREE_PREFIX = "bonsai-"
UNLIMITED = 1 << 20
MOST_LAYERS, FEWEST_POSITIONS = 1000, 4


def family_name(model_type: Any) -> str:
    """Return the family of a model type: free shapes ("bonsai-bert") belong to their stock family ("bert").

    Raises:
        BonsaiError: the model type is unknown; the message lists the known ones.
    """
    name = model_type.removeprefix(FREE_PREFIX) if isinstance(model_type, str) else ""
    if name in REFUSED:
        raise BonsaiError(f"model_type '{model_type}' is not supported: {REFUSED[name]} (known: {', '.join(FAMILIES)})")
    if name not in FAMILIES:
        raise BonsaiError(
            f"model_type '{model_type}' is not supported (known: {', '.join(FAMILIES)}); CONTRIBUTING.md shows how to "
            "add a family"
        )
    return name


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration."""
    return FAMILIES[family_name(config.model_type)]


def check_settings(config: Any) -> None:
    """Check that a configuration has no setting with which a model cannot be, cannot learn, or cannot be cut exactly.

    Raises:
        BonsaiError: it has one; the message names it.
    """
    family = family_of(config)
    layers, widths = [stack.count for stack in family.stacks], {**family.config, "tokens": "vocab_size"}
    for name in (*layers, *widths.values()):
        value = getattr(config, name, None)
        most = MOST_LAYERS if name in layers else math.inf
        if value is not None and not (isinstance(value, int) and 1 <= value <= most):
            raise BonsaiError(f"config.json sets {name} to {value}, of which there is no model: save the model again")
    positions = positions_of(config)
    if not (isinstance(positions, int) and positions >= FEWEST_POSITIONS):
        raise BonsaiError(f"config.json leaves {positions} positions for a text: save the model again")
    for name, value in vars(config).items():
        lacking = value is None and getattr(type(config), name, None) is not None
        number = isinstance(value, int | float)
        if "drop" in name and (lacking or (number and not 0 <= value < 1)):
            raise BonsaiError(f"config.json sets {name} to {value}, with which nothing can be learnt: set it below 1")
        if "_eps" in name and (lacking or (number and value < 0)):
            raise BonsaiError(f"config.json sets {name} to {value}, of which there is no model: save the model again")
    window = getattr(config, "sliding_window", None)
    if isinstance(window, int) and window < 1:
        raise BonsaiError(f"config.json sets sliding_window to {window}, with which no token sees any: write 1 or more")
    _check_rotations(getattr(config, "rope_parameters", None))
    for name, value in family.fixed.items():
        if getattr(config, name, value) != value:
            raise BonsaiError(
                f"config.json sets {name} to {getattr(config, name)}, with which a {config.model_type} model does not "
                f"run, or cannot be cut exactly: only models with {name} = {value} are supported"
            )


def _check_rotations(found: Any) -> None:
    """Check that positions can be turned by these numbers, which may be nested by kinds of layers."""
    for name, value in found.items() if isinstance(found, Mapping) else ():
        _check_rotations(value)
        if name in ("rope_theta", "factor") and isinstance(value, int | float) and value <= 0:
            raise BonsaiError(f"config.json sets {name} to {value}, with which no position can be told: write above 0")


def token_read(config: Any) -> str:
    """Return the token of the last layer that a classifier of this configuration reads: "first", "last", or ""."""
    pooled = getattr(config, "classifier_pooling", "cls") == "cls"  # ModernBERT may take the mean of all
    return family_of(config).reads if pooled else ""


def check_first(config: Any, stack: Stack, kept: Sequence[int]) -> None:
    """Check that a first layer that must stay is among the layers kept.

    Raises:
        BonsaiError: it is not.
    """
    if stack.first_stays and kept[0] != 0:
        raise BonsaiError(
            f"layer 0 of a {config.model_type} model is made unlike the others and cannot go: "
            f"keep it, as in 0,{','.join(map(str, kept[1:] or kept))}"
        )


def is_free(config: Any) -> bool:
    """Say whether a configuration is of a free shape."""
    return config.model_type.startswith(FREE_PREFIX)


def inputs_of(config: Any) -> tuple[str, ...]:
    """Return the names of the arrays that a model takes."""
    types = family_of(config).token_types and getattr(config, "type_vocab_size", 2) > 1  # one type says nothing
    return ("input_ids", "attention_mask", *(("token_type_ids",) if types else ()))


def check_depths(stacks: Sequence[int], what: str) -> None:
    """Refuse a decoder of more layers than its encoder, where it is to write.

    transformers keeps keys and values of as many layers of a decoder as its encoder has.

    Args:
        stacks: how many layers each stack has, an encoder's before its decoder's.
        what: what says so, for the message.

    Raises:
        BonsaiError: its decoder has more.
    """
    if stacks[-1] > stacks[0]:
        raise BonsaiError(
            f"{what}: a decoder of {stacks[-1]} layers cannot write behind an encoder of {stacks[0]}, as "
            "transformers keeps keys and values of as many layers as the encoder has: keep no more of the decoder"
        )


def positions_of(config: Any) -> int:
    """Return how many tokens of a text a model takes at the most; a very large number where there is no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    after = family_of(config).positions_after
    lost = (config.pad_token_id or 0) if after == "pad" else after
    return positions - (lost + 1 if isinstance(lost, int) else 0) if positions else UNLIMITED


def head_dim(config: Any) -> int:
    """Return the width of one attention head, which compression never changes."""
    names = family_of(config).config
    stated = getattr(config, names["head_dim"], None) if "head_dim" in names else None
    return stated or getattr(config, names["hidden"]) // getattr(config, names["heads"])


def heads_per_group(config: Any) -> int:
    """Return how many query heads share one key-value head (1 unless attention is grouped)."""
    names = family_of(config).config
    groups = getattr(config, names["kv_heads"], None) if "kv_heads" in names else None
    return getattr(config, names["heads"]) // groups if groups else 1
