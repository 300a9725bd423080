"""Checkpoints: what a training needs to go on, in folders that are there whole or not at all.

    checkpoint-120/
      tensors.safetensors    weights, AdamW's numbers, masks, random states
      trainer_state.json     transformers' Trainer's own
      told.json              all else
      sha256                 the hash of these three

Two stay at the most: the newest, and the newest one that a lost training rolls back to. Nothing in them is pickled.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerState

from kfp_bonsai.shared.core.documents import ABOVE_ZERO, COUNT, FLAG, NUMBER, TEXT, Kind, kept_document, read_document
from kfp_bonsai.shared.core.errors import BonsaiError, PassingError, in_words, kind_of
from kfp_bonsai.shared.core.files import sha256
from kfp_bonsai.shared.core.progress import say

NAME, HALF, FIRM = "checkpoint-", ".half", "firm"
TENSORS, STATE, TOLD, HASH = "tensors.safetensors", "trainer_state.json", "told.json", "sha256"
_LIST = Kind("a list", lambda value: isinstance(value, list))
SHAPE = {
    FIRM: FLAG,
    "done": FLAG,
    "best_score?": NUMBER,
    "random": [[_LIST, _LIST]],
    "rate": ABOVE_ZERO,
    "at_once": COUNT,
    "bf16": FLAG,
    "spent?": {
        **dict.fromkeys(("seconds", "joules", "cpu_joules", "gpu_joules", "ram_joules"), NUMBER),
        **dict.fromkeys(("label", "source"), TEXT),
    },
}


class Checkpoint(NamedTuple):
    """A checkpoint as it was read."""

    folder: Path
    step: int
    tensors: dict[str, torch.Tensor]
    told: dict[str, Any]


def write(
    folder: Path, state: TrainerState, tensors: Mapping[str, torch.Tensor], told: Mapping[str, Any], firm: bool
) -> None:
    """Write a checkpoint and remove those that it replaces.

    Args:
        folder: where they are.
        state: the Trainer's.
        tensors: by name; those that share memory are written once each.
        told: what else there is, as JSON of `SHAPE`.
        firm: whether a lost training rolls back to it.

    Raises:
        OSError: it cannot be written, as where the disk is full; then those before it are still there.
    """
    half, whole = folder / HALF, folder / f"{NAME}{state.global_step}"
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        try:
            save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, half / TENSORS)
        except Exception as error:  # safetensors has errors of its own for what the system refuses
            raise OSError(in_words(error)) from error
        state.save_to_json(str(half / STATE))
        (half / TOLD).write_text(json.dumps({**told, FIRM: firm}), encoding="utf-8")
        (half / HASH).write_text(_hash(half), encoding="utf-8")
        for file in (*half.iterdir(), half):
            _settle(file)
        shutil.rmtree(whole, ignore_errors=True)
        half.rename(whole)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    kept = {whole} if firm else {whole, *[one for one in _all(folder) if _is_firm(one)][-1:]}
    for other in _all(folder):
        if other not in kept:
            shutil.rmtree(other, ignore_errors=True)


def newest(folder: Path, firm: bool = False) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or the newest firm one; None if there is none.

    Raises:
        PassingError: the storage does not answer for one, which is no reason to begin anew.
    """
    for one in reversed(_all(folder)):
        if firm and not _is_firm(one):
            continue
        try:
            if not (one / HASH).is_file() or (one / HASH).read_text(encoding="utf-8") != _hash(one):
                raise ValueError("it was changed")
            told = read_document(one / TOLD, "an earlier attempt", shape=SHAPE)
            step = TrainerState.load_from_json(str(one / STATE)).global_step
            return Checkpoint(one, step, load_file(one / TENSORS), told)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, BonsaiError) as error:
            if kind_of(error) is PassingError:
                raise PassingError(
                    f"the checkpoint {one} cannot be read now ({in_words(error)}): look at the storage and run again, "
                    "or remove that folder to go on without it"
                ) from error
            say(f"note: the checkpoint {one} is damaged ({in_words(error)}): goes on from an earlier one, or anew")
            shutil.rmtree(one, ignore_errors=True)
    return None


def remove(folder: Path) -> None:
    """Remove all checkpoints."""
    for one in (*_all(folder), folder / HALF):
        shutil.rmtree(one, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    found = [one for one in folder.glob(f"{NAME}*") if one.name.removeprefix(NAME).isdecimal()]
    return sorted(found, key=lambda one: int(one.name.removeprefix(NAME)))


def _hash(folder: Path) -> str:
    return sha256([folder / TENSORS, folder / STATE, folder / TOLD])


def _is_firm(folder: Path) -> bool:
    told = kept_document(folder / TOLD)
    return isinstance(told, dict) and bool(told.get(FIRM))


def _settle(path: Path) -> None:
    """Have the system write a file or folder to the disk: else a crash of the machine leaves names without content."""
    with suppress(OSError):  # not on every file system
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
