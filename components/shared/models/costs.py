"""What a shape costs on one device: a line through the seconds that a few shapes of the same model took there.

FLOPs say how much is multiplied; what a device takes also depends on how well small matrices keep it busy, and on what
every inference needs beside them (embeddings, norms, calls). A table has seconds a batch for the model as such, for
each layer, and for each head and neuron; the last layer of a free shape, which computes one token, has seconds of its
own. Where a model may be narrower, each grows with the hidden width. It is fitted to shapes that were timed
(inference/cost_table.py), and how far it is off is said by others that were not used for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bonsai.shared.models.shapes import LayerShape, Shape

LAST, WIDE = "last", "wide"
Features = dict[str, float]


@dataclass(frozen=True)
class Request:
    """What is asked of a model, as far as costs depend on it.

    Attributes:
        length: tokens of a text.
        written: tokens of an answer that a model writes; 0 where it writes none.
        vocabulary: how many tokens the smaller ones have; 0 for as many as the baseline.
    """

    length: float
    written: float = 0
    vocabulary: int = 0


@dataclass(frozen=True)
class Priced:
    """A shape, and the seconds that a batch took it.

    Attributes:
        shape: its widths.
        one_token: its last layer computes only the token that is read.
        seconds: what a batch takes.
    """

    shape: Shape
    one_token: bool
    seconds: float


@dataclass(frozen=True)
class Costs:
    """A table of costs.

    Attributes:
        seconds: by feature.
        baseline: seconds of the model that shares are of, as it was timed.
        error: largest error of the shapes that were held out, as a fraction.
        device: the device in words.
    """

    seconds: Mapping[str, float]
    baseline: float
    error: float
    device: str

    def of(self, shape: Shape, one_token: bool) -> float:
        """Return the seconds of a batch that a shape is predicted to take."""
        return sum(self.seconds.get(name, 0.0) * count for name, count in features(shape, one_token).items())

    def share(self, shape: Shape, one_token: bool) -> float:
        """Return what a shape is predicted to take as a share of the baseline."""
        return self.of(shape, one_token) / self.baseline

    def units(self, shape: Shape, one_token: bool) -> dict[str, float]:
        """Return the seconds of one unit of each kind of each layer, by mask name: "heads.0", "ffn.0"."""
        found = {}
        for index, (place, layer) in enumerate(_placed(shape, one_token)):
            for unit, count in shape.units(layer).items():
                if count:
                    own = _widened(Features({f"{unit}.{place}": 1.0}), shape.hidden)
                    found[f"{unit}.{index}"] = sum(self.seconds.get(name, 0.0) * each for name, each in own.items())
        return found


def features(shape: Shape, one_token: bool) -> Features:
    """Return how many there are in a shape of all that is priced."""
    found: Features = {"model": 1.0}
    for place, layer in _placed(shape, one_token):
        for name, count in {"layer": 1, **shape.units(layer)}.items():
            if count:
                found[f"{name}.{place}"] = found.get(f"{name}.{place}", 0.0) + count
    return _widened(found, shape.hidden)


def fitted(timed: Sequence[Priced], held_out: Sequence[Priced], baseline: float, device: str) -> Costs:
    """Fit a table to timed shapes, no price below zero, so that the errors are small as shares of what each took.

    Args:
        timed: shapes to fit to.
        held_out: shapes to tell the error by.
        baseline: seconds of the model that shares are of.
        device: in words.
    """
    import numpy as np
    from scipy.optimize import nnls

    rows = [features(one.shape, one.one_token) for one in timed]
    names = sorted({name for row in rows for name in row})
    counts = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    counts /= np.array([[one.seconds] for one in timed])
    scale = counts.max(axis=0)
    prices, _ = nnls(counts / scale, np.ones(len(rows)))
    made = Costs({name: float(price) for name, price in zip(names, prices / scale, strict=True)}, baseline, 0.0, device)
    errors = [abs(made.of(one.shape, one.one_token) / one.seconds - 1) for one in held_out]
    return Costs(made.seconds, baseline, max(errors, default=0.0), device)


def _placed(shape: Shape, one_token: bool) -> list[tuple[str, LayerShape]]:
    """Return the layers, each with what it is priced as: one of its stack, or the last one of one token."""
    places = [str(stack) for stack, count in enumerate(shape.stacks or (len(shape.layers),)) for _ in range(count)]
    if one_token:
        places[-1] = LAST
    return list(zip(places, shape.layers, strict=True))


def _widened(found: Features, hidden: int) -> Features:
    """Return features with those beside them that grow with the hidden width."""
    return {**found, **{f"{name}.{WIDE}": count * hidden for name, count in found.items()}}


def shape_in(record: Mapping[str, Any], like: Shape) -> Shape:
    """Return the widths that a model's record states; what it does not state is as in another shape of the model."""
    stated = record["shape"]
    layers = tuple(LayerShape(one["heads"], one["ffn"], one.get("cross_heads", 0)) for one in stated["layers"])
    return Shape(
        stated["hidden"],
        like.head_dim,
        layers,
        tuple(stated["stacks"]),
        group=like.group,
        tied=like.tied,
        divided=like.divided,
    )
