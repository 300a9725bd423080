"""What a run's tasks are doing, in the user's terms: a stage, its level, and how it stands.

KFP 2.17 hands out Argo's workflow (v1beta1's `workflow_manifest`), a tree of nodes of which three make one task:
`...distill-driver` prepares it, `...distill` holds `...distill.executor`, the pod that works. Each may stand within
a node that tries it again, `executor(0)`; a loop's turns are called `iteration-iterations(0:0)`. What a task was given
(a level's label, a model's figures) is in the patch of its pod that the driver wrote.
"""

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

ATTEMPT = re.compile(r"(\(\d+\))+$")
TURN = re.compile(r"\((\d+):[^)]*\)$")
INNER = re.compile(r"\(|-driver$|^(executor|root|iteration.*|condition-.*|for-loop-.*)$")
DONE = ("succeeded", "cached", "failed")
PHASES = {"Pending": "waiting", "Running": "running", "Succeeded": "succeeded", "Failed": "failed", "Error": "failed"}


@dataclass(frozen=True)
class Stage:
    """One task of a run.

    Args:
        key: what tells it from the others.
        name: its display name.
        level: the label of the level that it works on, or "".
        state: waiting, running, again (failed, and tried again by the cluster), succeeded, cached or failed.
        seconds: how long it took, or 0.
        message: what Argo says of its pod, such as why it waits.
        node: Argo's id of the pod's node.
        pod: the pod's name; namespace: where it is.
        attempt: how often it was tried before.
        given: KFP's executor input: parameters, and artifacts with their metadata.
        memory: the limit of its memory, or "".
    """

    key: str
    name: str
    level: str = ""
    state: str = ""
    seconds: float = 0.0
    message: str = ""
    node: str = ""
    pod: str = ""
    namespace: str = "kubeflow"
    attempt: int = 0
    given: Mapping[str, Any] = field(default_factory=dict)
    memory: str = ""

    @property
    def title(self) -> str:
        """The stage as it is spoken of, such as "tiny · Distill"."""
        return f"{self.level} · {self.name}" if self.level else self.name

    @property
    def task(self) -> str:
        """KFP's name of the task, such as "distill-2"."""
        return self.key.rpartition(".")[2]


def read_stages(workflow: Any, levels: Sequence[str] = ()) -> list[Stage]:
    """Return the tasks of a workflow that have begun, in that order; what is not understood is left out.

    Args:
        workflow: Argo's document.
        levels: the labels of the levels in their order, for turns of the loop in which the cache answered for all.
    """
    about = _dict(_dict(workflow).get("metadata"))
    drivers: dict[str, list[dict]] = {}
    executors: dict[str, list[dict]] = {}
    for node in _nodes(workflow):
        *path, last = [ATTEMPT.sub("", part) for part in str(node.get("name", "")).split(".")]
        if last == "executor" and path:
            executors.setdefault(".".join(path), []).append(node)
        elif last.endswith("-driver"):
            drivers.setdefault(".".join([*path, last.removesuffix("-driver")]), []).append(node)
    found = [
        (_begun(nodes, executors.get(key, [])), _stage(key, nodes, executors.get(key, []), about))
        for key, nodes in drivers.items()
    ]
    stages = [stage for _, stage in sorted(found, key=lambda each: each[0]) if stage]
    labels = {_turn(stage.key): label for stage in stages if (label := _level(stage))}
    return [
        replace(stage, level=labels.get(turn) or _number(turn, levels)) if (turn := _turn(stage.key)) else stage
        for stage in stages
    ]


def stages_of_details(details: Any, pipeline: Any = None) -> list[Stage]:
    """Return the tasks as KFP's own list has them, without levels: its entries do not say which belongs to which.

    Args:
        details: the list.
        pipeline: the run's, which says what its tasks are called, and which of them are no loops or conditions.
    """
    titles = _titles(pipeline)
    stages = []
    for one in _list(details):
        name, state = (_dict(one).get(each) for each in ("display_name", "state"))
        known_as = titles.get(name, "" if titles else name) if isinstance(name, str) else ""
        if known_as and isinstance(state, str) and not INNER.search(str(name)):
            states = {**{phase.upper(): known for phase, known in PHASES.items()}, "CACHED": "cached"}
            if known := states.get(state):
                took = _seconds(one.get("start_time"), one.get("end_time"))
                stages.append(Stage(str(one.get("task_id") or name), known_as, state=known, seconds=took))
    return stages


def _titles(pipeline: Any) -> dict[str, str]:
    """Return the display names of a pipeline's tasks that work, by KFP's names."""
    spec = _dict(_dict(pipeline).get("pipeline_spec") or pipeline)
    components = _dict(spec.get("components"))
    found = {}
    for one in (spec.get("root"), *components.values()):
        for name, each in _dict(_dict(_dict(one).get("dag")).get("tasks")).items():
            component = components.get(str(_dict(_dict(each).get("componentRef")).get("name")))
            if _dict(component).get("executorLabel"):
                found[name] = str(_dict(_dict(each).get("taskInfo")).get("name") or name)
    return found


def said_of(workflow: Any) -> str:
    """Return what Argo says of the workflow as a whole, such as why it was ended."""
    return str(_dict(_dict(workflow).get("status")).get("message") or "")


def _nodes(workflow: Any) -> Iterable[dict]:
    status = _dict(_dict(workflow).get("status"))
    nodes = status.get("nodes")
    if not nodes and isinstance(packed := status.get("compressedNodes"), str):  # as Argo stores a large workflow
        try:
            nodes = json.loads(gzip.decompress(base64.b64decode(packed)))
        except (ValueError, OSError, EOFError, RecursionError):
            nodes = None
    return [{"id": key, **node} for key, node in _dict(nodes).items() if isinstance(node, dict)]


def _stage(key: str, drivers: list[dict], executors: list[dict], about: Mapping[str, Any]) -> Stage | None:
    driver, executor = _last(drivers), _last(executors)
    of_dag = "dag-driver" in str(driver.get("templateName"))
    cached = _parameters(driver, "outputs").get("cached-decision") == "true"
    node, siblings = (executor, executors) if executor else (driver, drivers)
    state = PHASES.get(str(node.get("phase")), "")
    if state == "failed" and any(each.get("type") == "Retry" and each.get("phase") == "Running" for each in siblings):
        state = "again"
    if node is driver and state == "running":
        state = "waiting"
    if node is driver and state == "succeeded":
        state = "cached" if cached else "" if any(each.get("phase") == "Skipped" for each in executors) else "waiting"
    if _parameters(driver, "outputs").get("condition") == "false":
        return None
    if not state or (of_dag and state != "failed"):
        return None
    patch = _json(
        _parameters(node, "inputs").get("pod-spec-patch") or _parameters(driver, "outputs").get("pod-spec-patch")
    )
    container = next((each for each in _list(patch.get("containers")) if isinstance(each, dict)), {})
    command = [*_list(container.get("command")), *_list(container.get("args"))]
    after = dict(pairwise(command)) if all(isinstance(each, str) for each in command) else {}
    name = _dict(_json(_parameters(driver, "inputs").get("task")).get("taskInfo")).get("name")
    limits = _dict(_dict(container.get("resources")).get("limits"))
    return Stage(
        key=key,
        name=str(name or key.rpartition(".")[2]),
        state=state,
        seconds=_seconds(node.get("startedAt"), node.get("finishedAt")) if state in DONE else 0.0,
        message=" ".join(str(node.get("message") or "").split()),
        node=str(node.get("id")),
        pod=_pod(node, about),
        namespace=str(about.get("namespace") or "kubeflow"),
        attempt=int(found[1]) if (found := re.search(r"\((\d+)\)$", str(node.get("name")))) else 0,
        given=_json(after.get("--executor_input")),
        memory=str(limits.get("memory") or ""),
    )


def _pod(node: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return the name of a node's pod, as Argo makes it of workflow, template, and the hash in the node's id."""
    if _dict(about.get("annotations")).get("workflows.argoproj.io/pod-name-format") == "v1":
        return str(node.get("id"))
    return f"{about.get('name')}-{node.get('templateName')}-{str(node.get('id')).rpartition('-')[2]}"


def _last(nodes: list[dict]) -> dict:
    """Return the pod that was started last: earlier ones are attempts that failed."""
    pods = [each for each in nodes if each.get("type") == "Pod"]
    return max(pods, key=lambda each: (_begun([each], []), str(each.get("name"))), default={})


def _begun(nodes: list[dict], _: list[dict]) -> str:
    return min((str(each.get("startedAt") or "9") for each in nodes), default="9")


def _turn(key: str) -> str:
    """Return the part of a key up to the loop's turn that it is in, or ""."""
    parts = key.split(".")
    inside = [at for at, part in enumerate(parts) if TURN.search(part)]
    return ".".join(parts[: inside[-1] + 1]) if inside else ""


def _number(turn: str, levels: Sequence[str]) -> str:
    found = TURN.search(turn)
    number = int(found[1]) if found else 0
    return levels[number] if number < len(levels) else f"level {number + 1}"


def _level(stage: Stage) -> str:
    found = _dict(_dict(stage.given.get("inputs")).get("parameterValues")).get("level")
    return found if isinstance(found, str) else ""


def _parameters(node: Mapping[str, Any], side: str) -> dict[str, Any]:
    listed = _list(_dict(node.get(side)).get("parameters"))
    return {str(each.get("name")): each.get("value") for each in listed if isinstance(each, dict)}


def _seconds(start: Any, end: Any) -> float:
    try:
        return max((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _json(text: Any) -> dict[str, Any]:
    try:
        return _dict(json.loads(text))
    except (TypeError, ValueError, RecursionError):
        return {}


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _dict(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}
