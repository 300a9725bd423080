"""study: compress for every cell of models x data sets x seeds, and one page of what came of them.

For each cell {compress, as a pipeline of its own} -> study-report. On a cluster, check-study comes first, which gives
the cells. On one's own machine `bonsai study` makes each cell in a folder that can be gone on with, without KFP's loop.

A cell that fails ends the run. KFP's `ignore_upstream_failure` compiles, if the report's lists have defaults, but makes
a hook of the report that follows each task it waits for: it would run behind check-study, and never behind the loop.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from kfp import dsl
from kfp.dsl import Artifact

from kfp_bonsai.pipelines.compress import SUMMARY, TITLE, compress_tasks
from kfp_bonsai.pipelines.options import CALLED, COMPRESS, FINGERPRINTS, arguments
from kfp_bonsai.pipelines.steps import Tasks, a_pipeline
from kfp_bonsai.report.component import study_report
from kfp_bonsai.shared.core.signatures import Option

STUDY_TITLE = "Study models and data sets"
STUDY_SUMMARY = "Compress every model on every data set with every seed, and draw what came of it into one page."
# What a cell is beside compress's arguments: what the cache goes by, and its name, which finds its results again.
BESIDE = {name: Option(str, "") for name in (*FINGERPRINTS[COMPRESS], "title")}


def study_tasks(tasks: Tasks, cells: Any, described: Any, make_cell: Callable[..., Any], parallel_cells: int) -> None:
    """Add the tasks.

    Args:
        tasks: what adds them, with the values of all arguments.
        cells: a list of all arguments of compress, by name, for each cell.
        described: what study.json says of each cell, those that were refused too.
        make_cell: `cell_pipeline`.
        parallel_cells: how many cells are made at the same time; 0 for all.
    """
    fields = [*arguments(COMPRESS), *BESIDE]
    with dsl.ParallelFor(cells, name="Each cell", parallelism=parallel_cells) as cell:
        made = make_cell(**{name: getattr(cell, CALLED if name == "name" else name) for name in fields})
        made.set_display_name("Compress")
    reported = study_report(results=dsl.Collected(made.output), cells=described, **tasks.pick("title"))
    tasks.place(reported.set_display_name("Report on the study"), light=True)


def cell_pipeline(place: Callable[..., Any], images: str, parallel_levels: int, edge: bool, fuse: bool) -> Any:
    """Return compress as a part of another pipeline: one branch, whose results can leave it.

    Args:
        place: says where a task runs.
        images: where a cluster pulls its images from.
        parallel_levels: how many levels are trained at the same time; 0 for all.
        edge: make int8 models of every level too, and choose by their figures.
        fuse: run the three stages of a level in one task.
    """
    fields = [
        *arguments(COMPRESS).values(),
        *(one.parameter(name) for name, one in BESIDE.items()),
    ]
    add = partial(compress_tasks, parallel_levels=parallel_levels, edge=edge, fuse=fuse)
    return a_pipeline(
        "compress-cell", TITLE, SUMMARY, fields, lambda values: add(Tasks(values, place, images)), gives=Artifact
    )
