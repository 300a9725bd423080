"""A run as the cluster sees it now: its state, and its tasks."""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kfp_bonsai.pipelines.cluster.endpoint import ask, given
from kfp_bonsai.pipelines.cluster.workflow import Stage, read_stages, said_of, stages_of_details
from kfp_bonsai.shared.core.errors import BonsaiError, PassingError

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
GOING = ("RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "PAUSED")


@dataclass(frozen=True)
class Run:
    """What the API says of a run: its state, what is said of it as a whole, when it ended, and its tasks."""

    state: str
    message: str
    finished: str
    stages: list[Stage]


def look(client: Any, run: str) -> Run:
    """Return how a run stands.

    Raises:
        PassingError: no answer.
        BonsaiError: there is no such run, or what is answered is not about it.
    """
    found = ask(client, f"/apis/v2beta1/runs/{quote(run, safe='')}")
    if given(found, "run_id") != run:
        raise BonsaiError(f"asked about run {run}, the endpoint answered about {found['run_id']}: look what it is")
    state = found.get("state")
    if not state:
        raise PassingError(f"the endpoint gives run {run} no state")
    if state not in (*ENDED, *GOING):
        raise BonsaiError(f"the endpoint gives run {run} the state '{state}', which Kubeflow Pipelines 2 does not know")
    workflow = _workflow(client, run)
    if workflow:
        stages = read_stages(workflow, _levels(found.get("runtime_config")))
    else:
        details = found.get("run_details")
        stages = stages_of_details(
            details.get("task_details") if isinstance(details, dict) else None, found.get("pipeline_spec")
        )
    error = found.get("error")
    message = error.get("message") if isinstance(error, dict) else ""
    return Run(state, str(message or said_of(workflow)), str(found.get("finished_at") or ""), stages)


def _workflow(client: Any, run: str) -> dict[str, Any]:
    """Return Argo's workflow, which the older API hands out; {} where it does not."""
    try:
        runtime = ask(client, f"/apis/v1beta1/runs/{quote(run, safe='')}").get("pipeline_runtime")
        found = json.loads(runtime["workflow_manifest"]) if isinstance(runtime, dict) else {}
    except PassingError:
        raise
    except (BonsaiError, KeyError, TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _levels(config: Any) -> list[str]:
    """Return the labels of the levels that a run was given; [] where it has those of its pipeline."""
    parameters = config.get("parameters") if isinstance(config, dict) else None
    levels = parameters.get("levels") if isinstance(parameters, dict) else None
    if not isinstance(levels, list):
        return []
    return [str(each.get("label") if isinstance(each, dict) else each).partition(":")[0] for each in levels]


def run_id(text: str) -> str:
    """Return the id of a run, which may be given as its address in the UI."""
    return re.split(r"[/#]", text.partition("?")[0].strip().rstrip("/"))[-1]


def start_again(client: Any, run: str) -> None:
    """Let KFP start again what failed in a run; what succeeded is kept.

    Raises:
        BonsaiError: it refuses, such as for a run that did not fail.
    """
    ask(client, f"/apis/v2beta1/runs/{quote(run, safe='')}:retry", "POST")
