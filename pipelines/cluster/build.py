"""The pipelines for a cluster: with its form, a first task that checks what was typed there, and every task placed."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kfp_bonsai.pipelines.cluster.first import check_inputs, check_retraining, check_search, check_study
from kfp_bonsai.pipelines.cluster.form import form
from kfp_bonsai.pipelines.cluster.placing import measuring_device, place
from kfp_bonsai.pipelines.cluster.resources import Cluster
from kfp_bonsai.pipelines.compress import SUMMARY, TITLE, compress_tasks
from kfp_bonsai.pipelines.options import COMPRESS, EDGE, RETRAIN, SEARCH, STUDY
from kfp_bonsai.pipelines.retrain import SUMMARY as RETRAIN_SUMMARY
from kfp_bonsai.pipelines.retrain import TITLE as RETRAIN_TITLE
from kfp_bonsai.pipelines.retrain import retrain_tasks
from kfp_bonsai.pipelines.search_pipeline import SEARCH_SUMMARY, SEARCH_TITLE, search_tasks
from kfp_bonsai.pipelines.steps import Tasks, a_pipeline
from kfp_bonsai.pipelines.study_pipeline import STUDY_SUMMARY, STUDY_TITLE, cell_pipeline, study_tasks


def compress_on(cluster: Cluster, parallel_levels: int, edge: bool | None, fuse: bool, fixed: Mapping[str, Any]) -> Any:
    """Return compress.

    Args:
        cluster: images, resources and retries of the tasks.
        parallel_levels: how many levels are trained at the same time; 0 for all.
        edge: build one branch, for an edge CPU or not; None for both, of which a run's `edge` takes one.
        fuse: run the three stages of a level in one task.
        fixed: arguments with other defaults than their own.
    """
    given = {"device": measuring_device(cluster), **({} if edge is None else {EDGE: edge}), **fixed}
    fields, described = form(COMPRESS, edge=edge is None, fixed=given)

    def from_the_form(filled: dict[str, Any]) -> None:
        tasks = _checked(cluster, check_inputs(**{EDGE: edge, **filled}, fixed=given), {EDGE: filled.get(EDGE)})
        compress_tasks(tasks, parallel_levels, edge, fuse)

    return a_pipeline(COMPRESS, TITLE, f"{SUMMARY}\n\n{described}", fields, from_the_form)


def retrain_on(cluster: Cluster, fuse: bool, fixed: Mapping[str, Any]) -> Any:
    """Return retrain.

    Args:
        cluster: images, resources and retries of the tasks.
        fuse: run the three stages of a level in one task.
        fixed: arguments with other defaults than their own.
    """
    given = {"device": measuring_device(cluster), **fixed}
    fields, described = form(RETRAIN, edge=True, fixed=given)

    def from_the_form(filled: dict[str, Any]) -> None:
        retrain_tasks(_checked(cluster, check_retraining(**filled, fixed=given), {}), "", fuse)

    return a_pipeline(RETRAIN, RETRAIN_TITLE, f"{RETRAIN_SUMMARY}\n\n{described}", fields, from_the_form)


def study_on(
    cluster: Cluster, parallel_cells: int, parallel_levels: int, edge: bool, fuse: bool, fixed: Mapping[str, Any]
) -> Any:
    """Return study.

    Args:
        cluster: images, resources and retries of the tasks.
        parallel_cells: how many cells are made at the same time; 0 for all.
        parallel_levels: how many levels of a cell; 0 for all.
        edge: make int8 models of every level too, and choose by their figures.
        fuse: run the three stages of a level in one task.
        fixed: arguments with other defaults than their own.
    """
    given = {"device": measuring_device(cluster), EDGE: edge, **fixed}
    fields, described = form(STUDY, edge=False, fixed=fixed)
    placed: Callable[..., Any] = partial(place, cluster=cluster)
    cell = cell_pipeline(placed, cluster.images, parallel_levels, edge, fuse)

    def from_the_form(filled: dict[str, Any]) -> None:
        first = placed(check_study(**filled, fixed=given).set_display_name("Check the study"), light=True)
        tasks = Tasks(filled, placed, cluster.images)
        study_tasks(tasks, first.outputs["cells"], first.outputs["described"], cell, parallel_cells)

    return a_pipeline(STUDY, STUDY_TITLE, f"{STUDY_SUMMARY}\n\n{described}", fields, from_the_form)


def search_on(cluster: Cluster, rounds: int, parallel_trials: int, edge: bool, fixed: Mapping[str, Any]) -> Any:
    """Return search.

    Args:
        cluster: images, resources and retries of the tasks.
        rounds: of proposing and trying.
        parallel_trials: how many trials a round has.
        edge: search among int8 models.
        fixed: arguments with other defaults than their own.
    """
    given = {"device": measuring_device(cluster), EDGE: edge, **fixed}
    fields, described = form(SEARCH, edge=False, fixed=given)

    def from_the_form(filled: dict[str, Any]) -> None:
        tasks = _checked(cluster, check_search(**filled, fixed=given), {})
        search_tasks(tasks, rounds, parallel_trials, edge)

    return a_pipeline(SEARCH, SEARCH_TITLE, f"{SEARCH_SUMMARY}\n\n{described}", fields, from_the_form)


def _checked(cluster: Cluster, first: Any, instead: Mapping[str, Any]) -> Tasks:
    """Place the first task; return what adds the others, with the values that it gives."""
    placed: Callable[..., Any] = partial(place, cluster=cluster)
    placed(first.set_display_name("Check the inputs"), light=True)
    return Tasks({**first.outputs, **instead}, placed, cluster.images)
