"""FLOPs of one inference, counted from the weights' shapes.

The definition, used on every side of every ratio: two FLOPs a multiply-add of every matrix product, that is
all linear layers plus the two products of attention (query x key, weights x value). Embedding look-ups,
norms, softmax and activations are left out. What is computed counts: in its last layer a stock model computes
also the tokens that a classifier never reads, a free shape and any int8 model do not (one_token.py). A model that
answers in text computes the tokens of the answer too. One that writes reads its prompt once, keeps keys and values, and
then reads each token that it wrote but the last; its output matrix works once a token that it writes. Attention near a
token alone (a sliding window) is counted as if it reached everywhere.
"""

from dataclasses import asdict, astuple, dataclass
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError

AGREEMENT = 1.5  # emission and FLOPs that are further apart than by this factor are pointed out


@dataclass(frozen=True)
class Flops:
    """FLOPs of one sequence of L tokens: per_sequence + per_token * L + per_pair * L * L.

    To that come, where more than one token is written, for the n that are read again: per_written * n +
    per_written_read * n * L + per_written_own * n * (n + 1) / 2.
    """

    per_sequence: float = 0.0
    per_token: float = 0.0
    per_pair: float = 0.0
    per_written: float = 0.0
    per_written_read: float = 0.0
    per_written_own: float = 0.0

    def at(self, length: float, written: float = 1) -> float:
        """Return the FLOPs of one inference over a sequence of `length` tokens, and so many that are written."""
        again = max(0, written - 1)
        reading = self.per_sequence + self.per_token * length + self.per_pair * length * length
        writing = self.per_written + self.per_written_read * length + self.per_written_own * (again + 1) / 2
        return reading + again * writing

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> "Flops":
        return Flops(*(one * factor for one in astuple(self)))

    def as_dict(self) -> dict[str, float]:
        """Return the coefficients, as a model's record keeps them: of writing only where it writes."""
        return {name: value for name, value in asdict(self).items() if value or not name.startswith("per_written")}

    @staticmethod
    def from_record(record: dict) -> "Flops":
        """Read the coefficients from a model's record (bonsai.json)."""
        return Flops(**record["flops"])


def agree(emission: float, share: float) -> bool:
    """Return whether a relative emission is what a share of the FLOPs lets expect, within a factor of 1.5."""
    return 1 / AGREEMENT <= emission / share <= AGREEMENT


def count(model: Any) -> Flops:
    """Count the FLOPs of a model of a known family from its weights."""
    from kfp_bonsai.shared.models.configuration import family_of
    from kfp_bonsai.shared.models.heads import axes_of, is_of_tokens, writes
    from kfp_bonsai.shared.models.one_token import leaves_out
    from kfp_bonsai.shared.models.shapes import matrices, shape_of

    def products(paths: Any) -> float:
        return sum(2.0 * module.weight.numel() for module in matrices(model, paths))

    family, shape = family_of(model.config), shape_of(model)
    rows, tokens = _answers(model.config)
    head = Flops(per_sequence=rows * tokens if family.answers_in_text else 1)
    if family.reads == "last" or is_of_tokens(model):
        head = Flops(per_token=1)
    written = float(writes(model))
    if written:
        head = Flops(per_sequence=1, per_written=1)
    each = Flops(per_token=1, per_written=0 if family.answers_in_text else written)
    total = head * products(axes_of(family)) + each * products(family.tokens)
    for layer, costs in zip(shape.layers, units(model, one_token=leaves_out(model)), strict=True):
        for unit, cost in costs.items():
            total += cost * shape.units(layer)[unit]
    return total


def units(model: Any, hidden: int = 0, one_token: bool = False) -> list[dict[str, Flops]]:
    """Return what one unit of each kind (group of heads, neuron) costs in each layer.

    Args:
        model: a model of a known family.
        hidden: the width of the residual stream to reckon with; 0 for the model's.
        one_token: reckon that the last layer computes only the token that is read.
    """
    from kfp_bonsai.shared.models.configuration import family_of
    from kfp_bonsai.shared.models.heads import writes
    from kfp_bonsai.shared.models.one_token import attentions
    from kfp_bonsai.shared.models.shapes import layers_of, matrices, shape_of, unit_width

    shape, written, reads_on = shape_of(model), float(writes(model)), not family_of(model.config).answers_in_text
    width = hidden or shape.hidden
    rows, tokens = _answers(model.config)
    found = []
    layers = layers_of(model)
    for number, (stack, layer) in enumerate(layers, 1):
        single = stack.of_one_token() if one_token and number == len(layers) else set()
        own = Flops(per_sequence=rows * tokens) if stack.answers else Flops(per_token=1.0)
        pairs = Flops(per_sequence=rows * tokens * tokens) if stack.answers else Flops(per_pair=1.0)
        if stack.answers:  # its first token is among those of the sequence
            own += Flops(per_written=written)
            pairs += Flops(per_written=written, per_written_own=written)
        elif reads_on:
            own += Flops(per_written=written)
            pairs += Flops(per_written_read=written, per_written_own=written)
        if single and attentions(layer):
            pairs = Flops(per_token=1.0)
        places, compared, readers = _places(model, stack)
        attention = {
            "heads": pairs + Flops(per_token=places * compared / 2),
            "cross_heads": Flops(per_token=rows * tokens, per_written_read=written),
        }
        costs: dict[str, Flops] = {}
        for path, axes in stack.layer.items():
            if not list(matrices(layer, [path])):
                continue
            read = Flops(per_token=rows) if axes[1] == "memory" else own
            if path in single:
                read = Flops(per_sequence=1)
            if path in readers:
                read = Flops(per_sequence=places) + (read if readers[path] else Flops())
            for axis in axes:
                for unit, entries in unit_width(axis, shape).items():
                    costs[unit] = costs.get(unit, Flops()) + read * (2.0 * entries * width)
        for unit, products in attention.items():
            if unit in costs:
                group = shape.group if unit == "heads" else 1
                costs[unit] += products * (4.0 * group * shape.head_dim)
        found.append(costs)
    return found


def ratio(record: dict, baseline: dict, length: float) -> float:
    """Return a model's FLOPs as a fraction of the baseline's, both from their records, at `length` tokens.

    Those of models that write are at the mean tokens of what they read and write instead.
    """
    length, written = baseline.get("read_tokens", length), baseline.get("written_tokens", 1)
    below = Flops.from_record(baseline).at(length, written)
    if below <= 0:
        raise BonsaiError("the baseline's record counts no FLOPs: fine-tune it again with this version")
    return Flops.from_record(record).at(length, written) / below


def _places(model: Any, stack: Any) -> tuple[int, int, dict[str, bool]]:
    """Return how many relative positions attention has, how often it compares tokens with them, and what reads them.

    Those matrices come with whether they read the tokens too.
    """
    from kfp_bonsai.shared.models.shapes import module_at

    found = stack.places
    table = module_at(model, found.table) if found else None
    if table is None:
        return 0, 0, {}
    kinds = [kind for kind in found.readers if kind in (getattr(model.config, found.kinds) or ())]
    if getattr(model.config, found.shared, False):
        return len(table.weight), len(kinds), dict.fromkeys(found.sharing, True)
    return len(table.weight), len(kinds), dict.fromkeys(found.readers.values(), False)


def _answers(config: Any) -> tuple[int, int]:
    """Return how many rows of how many tokens a model that answers in text computes for one answer."""
    from kfp_bonsai.shared.models.answers import decoder_inputs

    inputs = decoder_inputs(getattr(config, "label_tokens", None) or [[0]])
    return len(inputs), max(map(len, inputs))
