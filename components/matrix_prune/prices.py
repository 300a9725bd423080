"""What units cost, and how much they may cost together: by FLOPs, or by the seconds of a table timed on a device."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from kfp_bonsai.shared.kinds.kind import WRITTEN
from kfp_bonsai.shared.models import one_token
from kfp_bonsai.shared.models.costs import Costs, Request, shape_in
from kfp_bonsai.shared.models.flops import Flops, count, units
from kfp_bonsai.shared.models.shapes import Shape, shape_of
from kfp_bonsai.shared.saved import kept_tokens
from kfp_bonsai.shared.saved.pretrained import blank
from kfp_bonsai.shared.training.answer_batches import READ


@dataclass(frozen=True)
class Prices:
    """Prices of a model's units.

    Attributes:
        asked: the option and its value, for messages.
        whole: what the baseline costs.
        now: what the model costs as it is.
        target: what it is to cost.
        units: gives what one unit costs, by mask name; at a hidden width, the last layer of one token or of all.
        rest: gives what no unit costs, alike.
    """

    asked: str
    whole: float
    now: float
    target: float
    units: Callable[[int, bool], Mapping[str, float]]
    rest: Callable[[int, bool], float]

    def too_little(self, least: float, neurons: int) -> str:
        """Say that the target is below what the smallest shape costs."""
        return (
            f"{self.asked}: one head and {neurons} neurons a layer cost {least / self.whole:.3f} of the baseline: ask "
            "for that, or keep fewer layers"
        )


def spent(shape: Shape, costs: Mapping[str, float]) -> float:
    """Return what all units of a shape cost together."""
    counts = [shape.units(layer) for layer in shape.layers]
    return sum(cost * counts[int(name.partition(".")[2])][name.partition(".")[0]] for name, cost in costs.items())


def by_flops(
    network: Any, record: Mapping[str, Any], teacher: Mapping[str, Any], length: float, share: float, written: float = 1
) -> Prices:
    """Return prices in FLOPs of a text of `length` tokens, and so many that are written."""
    shape = shape_of(network)
    now, whole = (Flops.from_record(dict(one)).at(length, written) for one in (record, teacher))

    def each(hidden: int, single: bool) -> dict[str, float]:
        found = enumerate(units(network, hidden, single))
        return {f"{unit}.{index}": cost.at(length, written) for index, layer in found for unit, cost in layer.items()}

    rest = now - spent(shape, each(shape.hidden, one_token.leaves_out(network)))
    return Prices(f"--flops {share:g}", whole, now, share * whole, each, lambda hidden, _: rest * hidden / shape.hidden)


def tokens_needed(tokenizer: Any, data: Any) -> int:
    """Return how many tokens a model has once it has only those of a transfer set."""
    return len(kept_tokens.needed(tokenizer, [*data.inputs["input_ids"], *data.inputs.get(READ, ())]))


def with_fewer_tokens(record: Mapping[str, Any], network: Any, tokens: int) -> dict[str, Any]:
    """Return a model's record with the FLOPs that it has once it has so many tokens."""
    config = deepcopy(network.config)
    config.vocab_size = tokens
    return {**record, "flops": count(blank(config, WRITTEN)).as_dict()}


def by_table(costs: Costs, network: Any, share: float) -> Prices:
    """Return prices in seconds of a batch, by a table."""
    shape = shape_of(network)

    def each(hidden: int, single: bool) -> dict[str, float]:
        return costs.units(replace(shape, hidden=hidden), single)

    def rest(hidden: int, single: bool) -> float:
        narrow = replace(shape, hidden=hidden)
        return costs.of(narrow, single) - spent(narrow, each(hidden, single))

    now = costs.of(shape, one_token.leaves_out(network))
    return Prices(f"--emission {share:g}", costs.baseline, now, share * costs.baseline, each, rest)


def predicted(costs: Costs, network: Any) -> dict[str, Any]:
    """Return what a model is predicted to emit, for its record."""
    share = costs.share(shape_of(network), one_token.leaves_out(network))
    return {"share": share, "error": costs.error, "device": costs.device}


def table_for(
    network: Any,
    teacher: Mapping[str, Any],
    kind: str,
    asked: Request,
    device: str,
) -> Costs:
    """Return the table of the device that emissions are measured on; it is timed if there is none yet.

    Args:
        network: the model to prune.
        teacher: the baseline's record.
        kind: "free" or "stock", what is asked for.
        asked: what is asked of it.
        device: "auto", "cpu" or "cuda".
    """
    from kfp_bonsai.shared.inference.cost_table import cost_table

    shape = shape_of(network)
    whole = shape_in(teacher, shape)
    return cost_table(network.config, whole, shape.stacks, kind, asked, device, "matrix-prune")
