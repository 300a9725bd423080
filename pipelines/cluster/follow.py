"""`bonsai follow`, and `bonsai submit --wait`: what a run is doing, a line a stage, and what came of it."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp_bonsai.pipelines.cluster.checks import seconds
from kfp_bonsai.pipelines.cluster.endpoint import ACCESS, Access
from kfp_bonsai.pipelines.cluster.logs import Failure, diagnose, read_log
from kfp_bonsai.pipelines.cluster.printed import printed
from kfp_bonsai.pipelines.cluster.runs import ENDED, Run, look, run_id, start_again
from kfp_bonsai.pipelines.cluster.workflow import DONE, Stage
from kfp_bonsai.shared.core.errors import BonsaiError, PassingError
from kfp_bonsai.shared.core.progress import duration, say
from kfp_bonsai.shared.core.signatures import takes

POLL_SECONDS = 10.0
LOST_POLLS = 30  # in a row, until a run that cannot be asked about any more is given up
REFUSALS = 3  # in a row likewise, such as of a token that is being renewed
TELL_WAITING, TELL_RUNNING = 60.0, 900.0  # seconds; then after twice as long, and so on
FIRST_WAIT = 30.0  # before the first retry; then twice as long each time
MOST_RETRIES = 10
TIMEOUT = "8d"  # a day more than a run may take unless compiled otherwise


@takes(ACCESS)
def follow(
    run: str,
    /,
    *,
    retry: bool = False,
    retries: int = 0,
    timeout: str = TIMEOUT,
    json: bool = False,
    **access: str,
) -> dict:
    """Follow a run that was submitted: a line a stage, and at its end what came of it, or why it failed.

    Args:
        run: The run's id or address, as `bonsai submit` prints them.
        retry: First start again what failed in it; what succeeded is kept.
        retries: How often to do so by itself, after what may pass: a task that was killed or evicted, storage or a hub
            that was away; not after input that was refused.
        timeout: How long to follow, such as 90m, 24h or 7d; the run goes on after it. 0 for no limit.
        json: Print the result as JSON on the standard output, and the progress on the standard error.
        **access: The others say how the API is reached (endpoint.py).

    Returns:
        The run's id, address and state, the chosen model, its accuracy and emission relative to the baseline's, whether
        it meets the target, whether the control passed, and where the package lies.

    Raises:
        BonsaiError: there is no such run, it failed, the time is over, or the endpoint refuses or is down.

    Example:
        bonsai follow 2f6d1c1e-8a57-4a4e-9d0b-3c1f5a1f7e11 --retry --endpoint https://kubeflow.example/pipeline
    """
    run, limit = run_id(run), check_waiting(retries, timeout)
    with printed(json) as found:
        api = Access(**access)
        now = look(api.client, run)
        if retry and now.state != "FAILED":
            raise BonsaiError(f"--retry: run {run} is {now.state.lower()}, and only one that failed is started again")
        if retry:
            start_again(api.client, run)
        found |= {"run": run, "address": api.address(run)}
        found |= wait_for(api, run, retries=retries, limit=limit, before=now.finished if retry else "")
    return {} if json else found


def check_waiting(retries: int, timeout: str) -> int:
    """Return the seconds of a limit; refuse what is no number of retries and no duration."""
    if not 0 <= retries <= MOST_RETRIES:
        raise BonsaiError(f"--retries {retries}: give a number from 0 to {MOST_RETRIES}")
    return seconds(timeout, "--timeout")


def wait_for(access: Access, run: str, *, retries: int = 0, limit: int = 0, before: str = "") -> dict[str, Any]:
    """Follow a run to its end, and start again what failed for a reason that may pass.

    Args:
        access: the client.
        run: the run's id.
        retries: how often what failed is started again.
        limit: seconds to wait; 0 for no limit.
        before: when it had ended before it was started again, which an answer may still tell of.

    Returns:
        Its state, and what came of it.

    Raises:
        BonsaiError: it failed, the time is over, or the endpoint was lost for long or refuses.
    """
    until = time.monotonic() + limit if limit else float("inf")
    telling = Telling()
    for left in reversed(range(retries + 1)):
        seen = _to_its_end(access, run, telling, until, before)
        if seen.state == "SUCCEEDED":
            return {"state": "succeeded", **outcome(access, run, seen)}
        failed = [(stage, _diagnosed(access, run, stage)) for stage in seen.stages if stage.state == "failed"]
        passing = bool(failed) and all(failure.passing for _, failure in failed)
        if seen.state != "FAILED" or not passing or not left:
            raise BonsaiError(_why(access, run, seen, failed))
        pause = FIRST_WAIT * 2 ** (retries - left)
        say(f"submit  {_in_words(failed)}: retry {retries - left + 1} of {retries} in {duration(pause)}")
        time.sleep(pause)
        before = seen.finished
        _retry(access, run, seen, failed)
        telling.forget(stage for stage, _ in failed)
    raise AssertionError("unreachable")


def _retry(access: Access, run: str, seen: Run, failed: list[tuple[Stage, Failure]]) -> None:
    """Let KFP start again what failed; a refusal is told beside the failure."""
    try:
        start_again(access.client, run)
    except BonsaiError as error:
        raise BonsaiError(f"{_why(access, run, seen, failed)}; it could not be started again ({error})") from error


def _to_its_end(access: Access, run: str, telling: "Telling", until: float, before: str) -> Run:
    lost = 0
    try:
        while True:
            try:
                seen = look(access.client, run)
                telling.tell(seen)
                stale = seen.state == "FAILED" and bool(before) and seen.finished == before
                if seen.state in ENDED and not (stale and lost < LOST_POLLS):
                    return seen
                lost = lost + 1 if stale else 0
            except BonsaiError as error:
                lost += 1 if isinstance(error, PassingError) else LOST_POLLS // REFUSALS
                if lost >= LOST_POLLS:
                    raise BonsaiError(f"{error}; run {run} may go on: {_goes_on(access, run)}") from error
            if time.monotonic() >= until:
                raise BonsaiError(f"run {run} is not over within --timeout and goes on: {_goes_on(access, run)}")
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        say(f"submit  run {run} goes on: {_goes_on(access, run)}")
        raise


def _goes_on(access: Access, run: str) -> str:
    return f"follow it again with {access.command('follow', run)}"


@dataclass
class Telling:
    """What was told of each stage, so that it is told once."""

    told: dict[str, str] = field(default_factory=dict)
    since: dict[str, tuple[str, float, float]] = field(default_factory=dict)  # state, seen first, to be told at

    def tell(self, seen: Run) -> None:
        """Tell a stage when it ends, when it is tried again, and when it waits for a minute or runs for long."""
        now = time.monotonic()
        if not seen.stages and seen.state not in ENDED:
            self._tell_long(Stage("", "the first task", state="waiting", message=seen.message), now)
        for stage in seen.stages:
            if stage.state in (*DONE, "again"):
                mark = f"{stage.state} {stage.pod}"
                if self.told.get(stage.key) != mark:
                    self.told[stage.key] = mark
                    say(f"submit  {stage.title}  {_state(stage)}")
            else:
                self._tell_long(stage, now)

    def forget(self, stages: Any) -> None:
        """Tell these stages anew: they were started again."""
        for stage in stages:
            self.told.pop(stage.key, None)
            self.since.pop(stage.key, None)

    def _tell_long(self, stage: Stage, now: float) -> None:
        patience = TELL_WAITING if stage.state == "waiting" else TELL_RUNNING
        state, first, due = self.since.get(stage.key, ("", now, 0.0))
        if state != stage.state:
            first, due = now, now + patience
        if now >= due:
            why = f": {stage.message}" if stage.message and stage.state == "waiting" else ""
            say(f"submit  {stage.title}  {stage.state} for {duration(now - first)}{why}")
            due = now + 2 * max(now - first, patience)
        self.since[stage.key] = (stage.state, first, due)


def _state(stage: Stage) -> str:
    took = f"  {duration(stage.seconds)}" if stage.seconds else ""
    if stage.state == "again":
        return f"failed, the cluster tries again{f' ({stage.message})' if stage.message else ''}"
    return {"cached": "succeeded  from the cache"}.get(stage.state, f"{stage.state}{took}")


def _diagnosed(access: Access, run: str, stage: Stage) -> Failure:
    return diagnose(stage, read_log(access.client, run, stage))


def _in_words(failed: list[tuple[Stage, Failure]]) -> str:
    return "; ".join(f"{stage.title}: {failure.words}" for stage, failure in failed)


def _refused(failed: list[tuple[Stage, Failure]]) -> bool:
    return bool(failed) and all(failure.refused for _, failure in failed)


def _why(access: Access, run: str, seen: Run, failed: list[tuple[Stage, Failure]]) -> str:
    """Tell the end of the logs of what failed, and return why a run failed and what goes on."""
    for stage, failure in failed:
        if failure.tail:
            say(f"submit  {stage.title}: its log ends with")
            for line in failure.tail:
                say(f"    {line}")
    why = _in_words(failed) or seen.message or "the API does not say why"
    found = [stage for stage, _ in failed]
    level = ["--level", found[0].level] if len(found) == 1 and found[0].level else []
    stage = ["--stage", found[0].name] if len(found) == 1 and found[0].node else []
    more = f"; its whole log: {access.command('logs', run, *stage, *level)}" if stage else ""
    first = "; if it is an argument, correct it and submit again; else, once mended, " if _refused(failed) else "; "
    again = f"{first}start again what failed: {access.command('follow', run, '--retry')}"
    again = again if seen.state == "FAILED" else ""
    return f"run {run} ended as {seen.state.lower()}: {why}{more}{again}; its page: {access.address(run)}"


def outcome(access: Access, run: str, seen: Run) -> dict[str, Any]:
    """Return what came of a run: figures from what the packing task was given, places from what it made.

    Where the API does not hand this out, the run's page has it.
    """
    found: dict[str, Any] = {}
    for stage in seen.stages:
        if figures := _report_of(stage):
            found |= {
                "model": figures.get("level") or "none",
                "relative_accuracy": figures.get("relative_accuracy"),
                "relative_emission": figures.get("relative_emission"),
                "meets_target": bool(figures.get("meets_target")),
                "control": figures.get("control") or ("passed" if figures.get("believable") else "not passed"),
                "verdict": figures["verdict"],
            }
            places = [*filter(None, [found.get("package", ""), _package(access, run, stage)])]
            found["package"] = ", ".join(places)
        if {"champion", "margin"} <= _parameters(stage).keys():
            log = read_log(access.client, run, stage)
            if said := re.findall(r"^promote  ((?:promoted|the champion stays): .*)$", log, re.MULTILINE):
                found["promotion"] = said[-1]
    reporting = next((stage.name for stage in seen.stages if "html" in _artifacts(stage, "outputs")), "")
    found["report"] = access.address(run) + (f" (task {reporting}, tab Visualization)" if reporting else "")
    return {name: value for name, value in found.items() if value is not None and value != ""}


def _report_of(stage: Stage) -> Mapping[str, Any]:
    """Return the report's figures, if this task was given them."""
    for artifact in _artifacts(stage, "inputs").values():
        if isinstance(figures := artifact.get("metadata"), dict) and "verdict" in figures:
            return figures
    return {}


def _package(access: Access, run: str, stage: Stage) -> str:
    """Return where a packing task published the package, or else KFP's own storage."""
    if _parameters(stage).get("upload"):
        log = read_log(access.client, run, stage)
        if said := [line for line in log.splitlines() if line.startswith("package-model  published as ")]:
            return said[-1].rpartition(" ")[2]
    made = {name: one for name, one in _artifacts(stage, "outputs").items() if name != "executor-logs"}
    return next((str(one["uri"]) for one in made.values() if one.get("uri")), "")


def _parameters(stage: Stage) -> Mapping[str, Any]:
    inputs = stage.given.get("inputs")
    found = inputs.get("parameterValues") if isinstance(inputs, dict) else None
    return found if isinstance(found, dict) else {}


def _artifacts(stage: Stage, side: str) -> dict[str, Mapping[str, Any]]:
    """Return the first artifact of each name that a task was given or makes."""
    part = stage.given.get(side)
    listed = part.get("artifacts") if isinstance(part, dict) else None
    found: dict[str, Mapping[str, Any]] = {}
    for name, each in listed.items() if isinstance(listed, dict) else ():
        artifacts = each.get("artifacts") if isinstance(each, dict) else None
        if isinstance(artifacts, list) and artifacts and isinstance(artifacts[0], dict):
            found[name] = artifacts[0]
    return found
