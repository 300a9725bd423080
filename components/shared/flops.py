"""FLOPs of one inference, counted from the weights' shapes.

The definition, used on every side of every ratio: two FLOPs a multiply-add of every matrix product, that is
all linear layers plus the two products of attention (query x key, weights x value). Embedding look-ups,
norms, softmax and activations are left out. Every layer computes every token, also the last layer's tokens
that a classifier never reads.
"""

from dataclasses import asdict, dataclass
from typing import Any

from kfp_bonsai.shared.errors import BonsaiError


@dataclass(frozen=True)
class Flops:
    """FLOPs of one sequence of L tokens: per_sequence + per_token * L + per_pair * L * L."""

    per_sequence: float
    per_token: float
    per_pair: float

    def at(self, length: float) -> float:
        """Return the FLOPs of one inference over a sequence of `length` tokens."""
        return self.per_sequence + self.per_token * length + self.per_pair * length * length

    def as_dict(self) -> dict[str, float]:
        """Return the three coefficients, as a model's record keeps them."""
        return asdict(self)

    @staticmethod
    def from_record(record: dict) -> "Flops":
        """Read the coefficients from a model's record (bonsai.json)."""
        return Flops(**record["flops"])


def layer_flops(hidden: int, head_dim: int, heads: int, ffn: int, length: float, matrices: int = 2) -> float:
    """Return the FLOPs a token of one layer with these widths, at sequences of `length` tokens.

    Args:
        hidden: width of the residual stream.
        head_dim: width of a head.
        heads: number of heads.
        ffn: number of feed-forward neurons.
        length: tokens in the sequence, for the products of attention.
        matrices: matrices of the feed-forward network (2, or 3 where it is gated).
    """
    return 2.0 * (4 * hidden * heads * head_dim + matrices * hidden * ffn + 2 * heads * head_dim * length)


def count(model: Any) -> Flops:
    """Count the FLOPs of a model of a known family from its weights."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from kfp_bonsai.shared.families import family_of
    from kfp_bonsai.shared.shapes import layers_of, module_at, shape_of

    def products(root: nn.Module, paths: Any) -> float:
        modules = [module_at(root, path) for path in paths]
        return sum(2.0 * one.weight.numel() for one in modules if isinstance(one, nn.Linear | Conv1D))  # type: ignore[union-attr,operator]

    family, shape = family_of(model.config), shape_of(model)
    return Flops(
        per_sequence=products(model, family.head),
        per_token=products(model, family.embeddings) + sum(products(layer, family.layer) for layer in layers_of(model)),
        per_pair=sum(4.0 * one.heads * shape.head_dim for one in shape.layers),
    )


def ratio(record: dict, baseline: dict, length: float) -> float:
    """Return a model's FLOPs as a fraction of the baseline's, both from their records, at `length` tokens."""
    below = Flops.from_record(baseline).at(length)
    if below <= 0:
        raise BonsaiError("the baseline's record counts no FLOPs: fine-tune it again with this version")
    return Flops.from_record(record).at(length) / below
