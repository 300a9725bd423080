"""A look at a cell before anything is trained: model, levels and data as its run takes them, and whether they fit."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kfp_bonsai.pipelines.local.inputs import check_inputs
from kfp_bonsai.pipelines.local.run import settled
from kfp_bonsai.pipelines.options import LEVELS, PREPARING
from kfp_bonsai.pipelines.values import check_model, check_taught
from kfp_bonsai.shared.data.tasks import SPLITS, read_task
from kfp_bonsai.shared.kinds.task import Task


def rehearse(model: str, data: str, level: Sequence[str], distill_epochs: float, options: Mapping[str, Any]) -> int:
    """Refuse what the run would refuse, as far as that can be told without training; return its training rows.

    Args:
        model: as `bonsai run` takes it, and the others too.
        data: the rows.
        level: levels as texts.
        distill_epochs: of the levels that do not state them.
        options: all others.

    Raises:
        BonsaiError: something cannot be had, or the model cannot do the task.
    """
    from kfp_bonsai.shared.saved.fitted import settle
    from kfp_bonsai.shared.saved.pretrained import blank

    arguments, _ = settled(model, data, level, distill_epochs, options)
    source = _checked(model, json.dumps(arguments[LEVELS]), arguments["max_length"])
    check_inputs(arguments)
    chosen = {name: arguments[name] for name in ("data", *PREPARING, "seed")}
    task = _prepared(json.dumps(chosen))
    own = deepcopy(source)
    blank(own.config, settle(own, task).head)
    check_taught(model, arguments[LEVELS], arguments["max_length"], task.kind)
    return task.rows


@cache
def _checked(model: str, levels: str, max_length: int) -> Any:
    """Check a model and levels of it, and read it."""
    from kfp_bonsai.shared.saved.pretrained import read

    check_model(model, json.loads(levels), max_length)
    return read(model)


@cache
def _prepared(given: str) -> Task:
    """Prepare data, and return the task of its training split."""
    from kfp_bonsai.prepare_data.prepare import prepare_data

    with TemporaryDirectory() as folder:
        paths = {split: Path(folder) / f"{split}.parquet" for split in SPLITS}
        prepare_data(**paths, **json.loads(given))
        return read_task(paths["train"])
