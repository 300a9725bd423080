"""Checkpoints: what a training needs to go on, in folders that are there whole or not at all.

    checkpoint-120/
      tensors.safetensors    weights, AdamW's numbers, masks, random states
      trainer_state.json     transformers' Trainer's own
      told.json              all else, and the hash of the tensors

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

from kfp_bonsai.shared.core.errors import BonsaiError, in_words
from kfp_bonsai.shared.core.files import sha256
from kfp_bonsai.shared.core.progress import say

NAME, HALF, FIRM = "checkpoint-", ".half", "firm"
TENSORS, STATE, TOLD = "tensors.safetensors", "trainer_state.json", "told.json"


class Checkpoint(NamedTuple):
    """A checkpoint as it was read."""

    folder: Path
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
        told: what else there is, as JSON.
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
        content = {**told, FIRM: firm, "sha256": sha256([half / TENSORS])}
        (half / TOLD).write_text(json.dumps(content), encoding="utf-8")
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
    """Return the newest checkpoint that is whole, or the newest firm one; None if there is none."""
    for one in reversed(_all(folder)):
        if firm and not _is_firm(one):
            continue
        try:
            told = json.loads((one / TOLD).read_text(encoding="utf-8"))
            if told["sha256"] != sha256([one / TENSORS]):
                raise ValueError("its tensors were changed")
            TrainerState.load_from_json(str(one / STATE))
            return Checkpoint(one, load_file(one / TENSORS), told)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, BonsaiError) as error:
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


def _is_firm(folder: Path) -> bool:
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        return bool(json.loads((folder / TOLD).read_text(encoding="utf-8")).get(FIRM))
    return False


def _settle(path: Path) -> None:
    """Have the system write a file or folder to the disk: else a crash of the machine leaves names without content."""
    with suppress(OSError):  # not on every file system
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
