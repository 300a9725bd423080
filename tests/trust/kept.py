"""What reads what runs, searches and promotions leave behind for later ones, and what clients and clusters hand in.

What is only kept for later, such as a cached table, may be left out where it is damaged, but must raise nothing.
KFP's own notes on finished tasks are KFP's to read: what is tried here is that a run with damaged ones begins.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from trust.world import Target

ARGUMENTS = {"model": "bert", "data": "reviews.csv", "epochs": 2.0}
POINTS = ({"layers": 3, "share": 0.4, "shape": "free"}, {"layers": 2, "share": 0.2, "shape": "free"})
SPENT = {"seconds": 9.0, "joules": 90.0, "cpu_seconds": 8.0, "label": "estimated", "source": "a table"}
RATES = {
    **{"row": 0.01, "labelled": 100, "transfer": 200, "epochs": 3.0, "prune_rows": 32},
    **{"measuring": 60.0, "whole_epochs": 2.0},
}
ASKED = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a good film", "a dull plot"]}]}
TASK_ENDED = {
    "rows": 40,
    "train": {
        **{"__kfp_artifact__": True, "schema_title": "system.Dataset", "schema_version": "0.0.1", "name": "train"},
        **{"uri": "gs://bucket/train.parquet", "metadata": {"rows": 40}},
    },
}


def make_kept(world: Path) -> None:
    """Make one of each, beside the stages' outputs."""
    from propose_ground import GROUND
    from trust.readers import EVIDENCE

    from kfp_bonsai.pipelines.cluster.compile import compile_pipeline
    from kfp_bonsai.pipelines.local.folder import RECORD, RUNNING, code
    from kfp_bonsai.pipelines.search import earlier
    from kfp_bonsai.propose.ground import write_ground
    from kfp_bonsai.propose.trials import TRIALS, Trial, folder_name, write_trial
    from kfp_bonsai.shared.core import cache
    from kfp_bonsai.shared.metrics import evidence
    from kfp_bonsai.shared.training import attempts

    kept = world / "kept"
    pool = kept / "pool"
    pool.mkdir(parents=True)
    write_ground(pool, GROUND)
    trials = []
    for number, point in enumerate(POINTS):
        healed = [
            {"rung": rung, "order": 3 * number + rung, "relative_accuracy": 0.95 + 0.01 * rung, **SPENT}
            | {"draws": [0.95, 0.96, 0.97]}
            for rung in range(3)
        ]
        figures = {"emission": point["share"], "latency_ms": 5.0, "size_mb": 60.0}
        trials.append(Trial(number, point, -1, healed, figures, point["share"]))
        folder = pool / TRIALS / folder_name(number, 2)
        folder.mkdir(parents=True)
        write_trial(folder, trials[-1])
    (kept / "rates.json").write_text(json.dumps(RATES))
    (kept / "at-work.json").write_text(json.dumps({"job": [2, 0], "tries": 1}))
    (kept / "energy.json").write_text(json.dumps([SPENT]))
    with _cache(kept / "cache"):
        earlier.leave(trials, trials[0], "bert", "one")
        evidence.leave({"format": 1, "evidence": [EVIDENCE]}, "one")
        shutil.copy(next(cache.cached(earlier.SEARCHES).glob("*.json")), kept / "search.json")
    (kept / "run" / "work" / "finished").mkdir(parents=True)
    record = {"format": 1, "version": "0", "code": code(), "arguments": ARGUMENTS, "started": "2026-11-29T08:00:00"}
    (kept / "run" / RECORD).write_text(json.dumps({**record, "state": RUNNING}))
    (kept / "run" / "work" / "finished" / "one.json").write_text(json.dumps(TASK_ENDED))
    attempts.Attempt(kept / "once").once("answers", lambda: [[1, 2], [3]])
    _taught(world, kept / "unfinished", end=True)
    _fetched(world, kept)
    compile_pipeline(output=str(kept / "compress.yaml"))
    (kept / "request.json").write_text(json.dumps(ASKED))
    (kept / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ASKED["inputs"][0]["data"]))


def _fetched(world: Path, to: Path) -> None:
    from kfp_bonsai.fetch_champion.fetch import fetch_champion

    fetch_champion(str(world / "champion"), to / "incumbent", to / "champion.json")
    splits = {name: str(world / f"{name}.parquet") for name in ("train", "validation", "test")}
    copy = to / "decided"
    shutil.copytree(world / "champion", copy)
    _promoted(world, copy, to / "champion.json", to / "incumbent", to / "decision.json", splits)


def _promoted(world: Path, champion: Path, document: Path, incumbent: Path, decision: Path, splits: Any) -> Any:
    from kfp_bonsai.promote.promote import promote

    given = {"document": str(document), "incumbent": str(incumbent), **splits}
    return promote(world / "package", str(champion), decision, **given)


@contextmanager
def _cache(folder: Path) -> Any:
    from kfp_bonsai.shared.core import cache

    with mock.patch.dict(os.environ, {cache.CACHE_VARIABLE: str(folder)}):
        yield


def _searched(pool: Path, world: Path, out: Path) -> Any:
    """Go on with a search: what was tried, what is chosen, and what is tried next."""
    from kfp_bonsai.propose.choose import choose, impossible
    from kfp_bonsai.propose.goals import Targets
    from kfp_bonsai.propose.ground import check_possible, read_ground
    from kfp_bonsai.propose.next import next_jobs
    from kfp_bonsai.propose.trials import read_trials

    targets = Targets(min_accuracy=0.95, max_size_mb=80)
    ground, trials = read_ground(pool), read_trials(pool)
    check_possible(ground, targets)
    impossible(ground, trials, targets)
    choose(ground, trials, targets)
    next_jobs(ground, trials, targets, 1, 0)
    return None


def _rated(file: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.pipelines.local.search_budget import budget_of, check_budget, read_rates

    rates = read_rates(file)
    if rates:
        check_budget(budget_of("10h"), rates, SPENT, True)
    return None


def _at_work(file: Path, world: Path, out: Path) -> Any:
    """Do a job that an earlier session may have died of."""
    from kfp_bonsai.pipelines.local import search_run
    from kfp_bonsai.pipelines.search import trial
    from kfp_bonsai.propose.goals import Targets

    one = SimpleNamespace(pool=out / "pool", work=out, baseline=None, taught=None, splits={}, targets=Targets(), seed=0)
    one.options = {"device": "auto", "edge": False, "prune_steps": 1, "distill_epochs": 0, "block_seconds": 0.4}
    (one.pool / "trials").mkdir(parents=True)
    _copy(file, out / search_run.AT_WORK)
    with mock.patch.object(trial, "run_trial", lambda *_, **__: None):
        search_run.Search._do(one, {"number": 2, "rung": 0, "point": POINTS[0], "parent": -1})
    return None


def _spent(file: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.pipelines.local.search_budget import kept_ledger

    _copy(file, out / "energy.json")
    with kept_ledger(out / "energy.json") as ledger:
        ledger.total()
    return None


def _learnt(file: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.pipelines.search.earlier import earlier_searches

    earlier_searches("bert", str(file))
    return None


def _known(folder: Path, world: Path, out: Path) -> Any:
    """What studies and searches left in the cache: damaged ones are left out."""
    from kfp_bonsai.advise import advise
    from kfp_bonsai.pipelines.search.earlier import earlier_searches

    with _cache(folder):
        earlier_searches("bert")
        advise("bert", rows=900)
    return None


def _begun(folder: Path, world: Path, out: Path) -> Any:
    """Go on with an interrupted run, and let KFP look for what is finished."""
    from kfp_bonsai.pipelines.lean_kfp import import_kfp
    from kfp_bonsai.pipelines.local.folder import run_folder

    import_kfp()
    from kfp.local.cache import LocalCache

    from kfp_bonsai.pipelines.local.runner import forget_damaged

    _copy(folder, out / "run")
    record = out / "run" / "run.json"
    if record.is_symlink():  # which a run writes through, into the input here
        whole = os.path.realpath(record) if record.is_file() else os.devnull
        record.unlink()
        record.write_bytes(Path(whole).read_bytes())
    with run_folder(out / "run", ARGUMENTS, False) as work:
        forget_damaged(work / "finished")
        LocalCache(str(work / "finished")).get("one")
    return None


def _once(folder: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.shared.training.attempts import Attempt

    _copy(folder, out / "once")
    return Attempt(out / "once").once("answers", lambda: [[1, 2], [3]])


def _gone_on(folder: Path, world: Path, out: Path) -> Any:
    """Go on with a transfer set."""
    _copy(folder, out / "scratch")
    return _taught(world, out / "scratch")


class _Ended(BaseException):
    """What no code catches."""


def _taught(world: Path, scratch: Path, end: bool = False) -> Any:
    """Let the teacher answer, and keep its blocks in a folder; end it after some if that is asked for."""
    from kfp_bonsai.shared.core import files
    from kfp_bonsai.shared.training import attempts, transfer
    from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

    keep, kept = transfer.Writer.keep, []

    def ending(self: Any, told: Any) -> None:
        keep(self, told)
        kept.append(told)
        if end and len(kept) == 3:
            raise _Ended

    made = scratch / "transfer"
    told = {files.SCRATCH: str(scratch), attempts.SECONDS: "0" if end else "1000"}
    with mock.patch.dict(os.environ, told), mock.patch.object(transfer.Writer, "keep", ending), suppress(_Ended):
        teacher_outputs(world / "baseline", world / "train.parquet", world / "unlabelled.parquet", made, **TEACHING)
    return None if end else [files.sha256([made / name]) for name in (transfer.ROWS, transfer.HIDDEN)]


TEACHING = {"augmentations": 0, "batch_size": 32}


def _drifted(document: Path, world: Path, out: Path, champion: Path | None = None) -> Any:
    from kfp_bonsai.check_drift.check import check_drift

    splits = [world / f"{name}.parquet" for name in ("train", "validation", "test")]
    kept = world / "kept"
    return check_drift(str(champion or kept / "decided"), document, kept / "incumbent", *splits, out / "drift.json")


def _decided(champion: Path, world: Path, out: Path) -> Any:
    """Ask whether data was decided on, and promote again."""
    copy = out / "champion"
    _copy(champion, copy)
    _drifted(world / "kept" / "champion.json", world, out, copy)
    _again(world / "kept" / "champion.json", world, out, copy)
    return None


def _again(document: Path, world: Path, out: Path, champion: Path | None = None) -> Any:
    if champion is None:
        champion = out / "champion"
        _copy(world / "kept" / "decided", champion)
    splits = {name: str(world / f"{name}.parquet") for name in ("train", "validation", "test")}
    _promoted(world, champion, document, world / "kept" / "incumbent", out / "decision.json", splits)
    return None


def _submitted(file: Path, world: Path, out: Path) -> Any:
    """Check a compiled pipeline's arguments, before anything is sent."""
    from kfp_bonsai.pipelines.cluster.arguments import read_arguments

    read_arguments(file, ["model=google-bert/bert-base-uncased", "data=gs://bucket/reviews/"])
    return None


def _answered(file: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.serve import open_inference, served

    open_inference.infer(served.load(world / "int8"), "model", open_inference.parse(file.read_bytes()))
    return None


def _scored(file: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.serve import lines, served

    with file.open(encoding="utf-8", errors="replace") as rows:
        [*lines.score(served.load(world / "int8"), rows, as_json=True)]
    return None


def _copy(path: Path, to: Path) -> None:
    """Copy a file or a folder with links and pipes as they are."""
    import subprocess

    subprocess.run(["cp", "-a", path, to], check=True)


KEPT: Mapping[str, Target] = {
    "search pool": Target("kept/pool", _searched, False),
    "rates.json": Target("kept/rates.json", _rated, False),
    "at-work.json": Target("kept/at-work.json", _at_work, False),
    "energy.json": Target("kept/energy.json", _spent, False),
    "earlier search": Target("kept/search.json", _learnt, False),
    "cache": Target("kept/cache", _known, False),
    "run": Target("kept/run", _begun, False),
    "found once": Target("kept/once", _once, True),
    "transfer set, unfinished": Target("kept/unfinished", _gone_on, True),
    "document for check-drift": Target("kept/champion.json", _drifted, False),
    "document for promote": Target("kept/champion.json", _again, False),
    "champion, decided": Target("kept/decided", _decided, False),
    "compiled pipeline": Target("kept/compress.yaml", _submitted, False),
    "request": Target("kept/request.json", _answered, False),
    "lines": Target("kept/rows.jsonl", _scored, False),
}
