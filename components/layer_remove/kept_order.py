"""In which order layers go, kept in the cache: each level of a model asks for the beginning of one order.

It takes some hundred forward passes to find, and is the same for all levels that take layers from one stack. What is
kept is the state of the search, so that a level that asks for more goes on where the one before ended.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.cache import alone, cached
from kfp_bonsai.shared.core.documents import kept_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_file

Place = tuple[int, int]  # a stack, and a layer of it


@dataclass(frozen=True)
class Order:
    """How far the search for an order has come.

    Attributes:
        gone: the layers that go, in their order.
        waiting: a heap of the others: what the absence of each cost, among how many that were gone, and which it is.
        now: what the answers cost without those that are gone, as choice.py counts it.
    """

    gone: tuple[Place, ...]
    waiting: tuple[tuple[float, int, Place], ...]
    now: float


@contextmanager
def kept(key: Mapping[str, Any]) -> Iterator[tuple[Order | None, Callable[[Order], None]]]:
    """Yield what is kept for such a key, and what keeps more; another process that asks for it waits meanwhile."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    file = cached(f"layers/{digest}.json")
    with alone(file):
        yield _read(file, key), partial(_write, file, key)


def digest_of(rows: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Return a hash of rows as tokens."""
    told = [{name: np.asarray(row[name]).tolist() for name in sorted(row)} for row in rows]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _read(file: Path, key: Mapping[str, Any]) -> Order | None:
    """Return what is kept; None if nothing is, or it is damaged, or another key's."""
    asked = json.loads(json.dumps(key))
    with suppress(ValueError, KeyError, TypeError):
        found = kept_document(file)
        if found["key"] == asked:
            waiting = ((float(rise), int(when), _place(place)) for rise, when, place in found["waiting"])
            return Order(tuple(map(_place, found["gone"])), tuple(waiting), float(found["now"]))
    return None


def _write(file: Path, key: Mapping[str, Any], order: Order) -> None:
    """Keep what was found so far, where the cache takes files."""
    with suppress(OSError, BonsaiError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with new_file(file) as path:
            path.write_text(json.dumps({"key": key, **asdict(order)}), encoding="utf-8")


def _place(found: Sequence[int]) -> Place:
    stack, index = found
    return int(stack), int(index)
