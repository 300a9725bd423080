"""`bonsai logs`: the log of a run's tasks; and what it says of why one failed, and whether another try may help."""

import base64
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kfp_bonsai.pipelines.cluster.endpoint import ACCESS, Access, ask, ask_text
from kfp_bonsai.pipelines.cluster.runs import look, run_id
from kfp_bonsai.pipelines.cluster.workflow import Stage
from kfp_bonsai.shared.core.errors import BonsaiError, listed, nearest
from kfp_bonsai.shared.core.faults import in_plain_words
from kfp_bonsai.shared.core.signatures import takes

LAST_LINES = 12
SOURCES = {"minio": "minio", "s3": "s3", "gs": "gcs"}  # of artifacts, as KFP's UI calls them

ERROR = re.compile(r"^(?:\w+\.)*(?P<kind>BonsaiError|PassingError): (?P<said>.*)$", re.MULTILINE)
LAUNCHER = re.compile(r"^([IWEF]\d{4} \d\d:\d\d:\d\d|time=\S+ level=|\[KFP Executor )")
STATUS = re.compile(r"exit (?:status|code) (\d+)|signal: (killed|terminated)")
SIGNALS = {"killed": 137, "terminated": 143}
GONE = re.compile(
    r"OOMKilled|evict|low on resource|preempt|pod deleted|pod was (deleted|terminated)|node (was|is) (lost|not ready)"
    r"|NodeLost|Shutdown|imminent|connection refused|connection reset|i/o timeout|no such host|TLS handshake timeout"
    r"|code = Unavailable|503 Service Unavailable|ErrImagePull|ImagePullBackOff",
    re.IGNORECASE,
)
PASSING = (137, 143)


@takes(ACCESS)
def logs(
    run: str,
    /,
    *,
    stage: str = "",
    level: str = "",
    **access: str,
) -> dict:
    """Print the logs of a run's tasks: of those that failed, or of one stage.

    Args:
        run: The run's id or address, as `bonsai submit` prints them.
        stage: Name of a stage, such as distill or "Fine-tune"; else those that failed.
        level: Label of the level whose logs are wanted, such as tiny; else all.
        **access: The others say how the API is reached (endpoint.py).

    Returns:
        Where no log was asked for and nothing failed: the stages, and how they stand.

    Raises:
        BonsaiError: there is no such run, stage or level, no log is kept of it, or the endpoint refuses or is down.

    Example:
        bonsai logs 2f6d1c1e-8a57-4a4e-9d0b-3c1f5a1f7e11 --stage distill --level tiny --endpoint https://kubeflow.example/pipeline
    """
    run = run_id(run)
    client = Access(**access).client
    stages = look(client, run).stages
    chosen = _choose(stages, stage, level)
    if not chosen and not (stage or level):
        return {each.title: each.state for each in stages} or {"run": run, "state": "no task has begun"}
    missing = []
    for each in chosen:
        text = read_log(client, run, each)
        if not text:
            missing.append(each.title)
            continue
        print(f"--- {each.title}: {each.state}")
        print(text.rstrip("\n"))
    if missing:
        raise BonsaiError(
            f"the cluster has no log of {listed(missing)}: it may not have begun to write one, or its pod is gone and "
            "the logs are not kept (Argo's archiveLogs)"
        )
    return {}


def _choose(stages: list[Stage], stage: str, level: str) -> list[Stage]:
    if not stage and not level:
        return [each for each in stages if each.state in ("failed", "again")]
    of_stage = [each for each in stages if not stage or _plain(stage) in (_plain(each.name), _plain(each.task))]
    if not of_stage:
        names = [*dict.fromkeys(each.name for each in stages)]
        raise BonsaiError(f"--stage '{stage}': no such task has begun{nearest(stage, names)} (begun: {listed(names)})")
    found = [each for each in of_stage if not level or each.level == level]
    if not found:
        names = [*dict.fromkeys(each.level for each in of_stage if each.level)]
        raise BonsaiError(f"--level '{level}': no such task has begun{nearest(level, names)} (begun: {listed(names)})")
    return found


def _plain(name: str) -> str:
    """Return a stage's name as it is compared: without case, signs, and the number that tells two of a name apart."""
    return re.sub(r"\W|_", "", re.sub(r"-\d+$", "", name.lower()))


def read_log(client: Any, run: str, stage: Stage) -> str:
    """Return a task's log from wherever it is kept: Argo's archive, the pod, or KFP's `executor-logs`; else ""."""
    if not stage.node:
        return ""
    node, pod = quote(stage.node, safe=""), quote(stage.pod, safe="")
    try:
        kept = ask(client, f"/apis/v2beta1/runs/{quote(run, safe='')}/nodes/{node}/artifacts/main-logs:read")
        if text := base64.b64decode(str(kept.get("data") or "")).decode("utf-8", "replace"):
            return text
    except (BonsaiError, ValueError):
        pass
    where = {"podname": stage.pod, "runid": run, "podnamespace": stage.namespace}
    return (
        ask_text(client, "/k8s/pod/logs", where)  # through the UI's address
        or ask_text(client, f"/apis/v1alpha1/runs/{quote(run, safe='')}/nodes/{pod}/log", {})  # the API server's
        or _published(client, stage)
    )


def _published(client: Any, stage: Stage) -> str:
    """Return what KFP's launcher published as an artifact, which the UI's address hands out."""
    try:
        uri = stage.given["outputs"]["artifacts"]["executor-logs"]["artifacts"][0]["uri"]
        found = re.fullmatch(r"(\w+)://([^/]+)/(.+?)(-\d+)?", uri)
    except (KeyError, IndexError, TypeError):
        return ""
    if not found or found[1] not in SOURCES:
        return ""
    where = {"source": SOURCES[found[1]], "bucket": found[2], "namespace": stage.namespace}
    return ask_text(client, "/artifacts/get", {**where, "key": f"{found[3]}-{stage.attempt}"})


@dataclass(frozen=True)
class Failure:
    """Why a task failed in words, whether another try may help, its log's end, and whether it refused its input."""

    words: str
    passing: bool
    tail: tuple[str, ...] = ()
    refused: bool = False


def diagnose(stage: Stage, log: str) -> Failure:
    """Say why a task failed, by the end of its log, by how its process ended, or by what Argo says."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    tail = tuple([line for line in lines if not LAUNCHER.match(line)][-LAST_LINES:] or lines[-LAST_LINES:])
    if said := [*ERROR.finditer("\n".join(lines))]:
        passing = said[-1]["kind"] == "PassingError"
        return Failure(said[-1]["said"], passing, tail, refused=not passing)
    ended = STATUS.search(stage.message) if "OOM" in stage.message else None
    ended = ended or next(filter(None, (STATUS.search(line) for line in reversed(lines[-LAST_LINES:]))), None)
    ended = ended or STATUS.search(stage.message)
    status = (int(ended[1]) if ended[1] else SIGNALS[ended[2]]) if ended else 0
    if status == 137 or "OOMKilled" in stage.message:
        had = f" (it had {stage.memory})" if stage.memory else ""
        return Failure(
            f"it was killed (exit status 137), most often because its memory did not suffice{had}: `bonsai compile "
            "--memory` gives more, a smaller batch_size or max_length needs less",
            True,
            tail,
        )
    if status == 143:
        return Failure("it was ended from outside (exit status 143), as when its node is taken away", True, tail)
    argo = stage.message if not STATUS.search(stage.message) or not lines else ""
    last = tail[-1] if tail else "its log cannot be had"
    words = argo or in_plain_words(last) or last
    return Failure(words, bool(GONE.search(f"{stage.message}\n" + "\n".join(lines[-3:]))), tail)
