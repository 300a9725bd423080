"""`bonsai search`: state a target, get the model, on one's own machine."""

import json
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.local.folder import RECORD, check_free, run_folder
from kfp_bonsai.pipelines.local.search_budget import (
    TRIALS as OF_TRIALS,
)
from kfp_bonsai.pipelines.local.search_budget import (
    Budget,
    Ledger,
    Rates,
    budget_of,
    check_budget,
    kept_ledger,
    learnt,
    rates_of,
    read_rates,
)
from kfp_bonsai.pipelines.options import EDGE, MEASURING, PACKING, PIPELINES, PREPARING, SEARCH, TEACHING, TUNING
from kfp_bonsai.propose.goals import Targets, targets_of
from kfp_bonsai.propose.ground import Ground, check_possible, read_ground
from kfp_bonsai.propose.trials import FEWER_TOKENS, INT8, MODEL, TRIALS, Trial, folder_name, folder_of, read_trials
from kfp_bonsai.shared.core.documents import COUNT, kept_document, read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_file, new_folder, put_copy, remove_whole
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.signatures import takes
from kfp_bonsai.shared.data.tasks import SPLITS

ASKED = {name: one for name, one in PIPELINES[SEARCH].items() if name != "rivals"}  # given as --rival here
ENERGY, RATES, AT_WORK, BEGUN = "energy.json", "rates.json", "at-work.json", "finished/data.json"
TRIES = 3  # of a job whose process died in it
WHAT = "search"


@takes(ASKED)
def search(
    model: str,
    data: str,
    output: Path,
    *,
    budget: str = "2h",
    rival: Sequence[str] = (),
    before: str = "",
    costs: str = "",
    overwrite: bool = False,
    **options: Any,
) -> dict:
    """Find the model that meets a target: state what it must keep and may cost, and how long to look for it.

    Fine-tunes the model, times what smaller shapes of it cost here, and tries some: many are healed shortly, few to the
    end, each starting from the nearest that is there. Trials are compared on validation rows; the one that is best
    among those likely to meet the target is measured on test rows once, with its neighbours and the baseline. An
    interrupted search keeps the best so far, and goes on when it is started again in the same way, or with more budget.
    A model that writes is measured as everywhere: by answers, all of the baseline's mean length.

    Args:
        model: Model folder, hub name, or embedded:minilm, as for `bonsai run`.
        data: The rows, as for `bonsai run`.
        output: Folder for the report, the numbers and the models.
        budget: What it may take in all: a time (90m, 2h), trials ('20 trials'), or energy (300kJ, 0.1kWh).
        rival: A ready-made model to try too: a folder, a hub name or embedded:NAME; may be given again.
        before: Earlier searches to learn from: a file or a folder of them; by default those that were made on this
            machine, of models of the same family.
        costs: A table of costs that an earlier search of this model timed on this device (its folder); by default it is
            timed.
        edge: Search among int8 models for CPUs, and hold their figures against the targets.
        overwrite: Start over, whatever is in the output folder of an earlier search.
        **options: The others are those of its stages (pipelines/options.py).

    Returns:
        Where the report is, and what was found.

    Raises:
        BonsaiError: something given cannot be used, the targets cannot be met, or the budget is too small.

    Example:
        bonsai search --model embedded:minilm --data embedded:movie-reviews --min-accuracy 0.98 --budget 25m --output runs/found
        bonsai search --model ./my-bert --data reviews.csv --max-emission 0.1 --max-size-mb 20 --edge --output runs/edge
    """  # noqa: E501
    targets, allowed = targets_of(options), budget_of(budget)
    output = Path(output)
    _check_folder(output)
    check_free(output, overwrite)

    from kfp_bonsai.pipelines.local.inputs import check_room, fingerprint  # loads torch, after what is quickly refused
    from kfp_bonsai.pipelines.values import check_search, check_within_reach

    check_search(options)
    kind = _check(model, data, rival, costs, options)
    check_within_reach(model, kind, targets.max_emission, targets.max_size_mb, bool(rival), options[EDGE])
    if not (output / "work").exists():
        check_room(output / "work", model, options["epochs"], options["freeze_embeddings"])
    files = fingerprint(model, data, *rival, options["test_data"], options["validation_data"])
    files |= fingerprint(*options["unlabelled_data"].split(","))
    told = {**options, "model": model, "data": data, "rival": [*rival], WHAT: True, "files": files}
    with _interruptible(), run_folder(output, told, overwrite, late=[*PACKING]) as work:
        work.mkdir(exist_ok=True)
        with kept_ledger(output / ENERGY) as ledger:
            one = Search(output, work, model, data, tuple(rival), before, costs, targets, allowed, options, ledger)
            document = one.run()
    _tidy(output / "work", document)
    found = document["test"]
    return {
        "report": str(output / "report.html"),
        "model": str(output / "model"),
        "level": document["chosen"]["name"],
        "relative_accuracy": found["relative_accuracy"],
        "relative_emission": found["figures"]["emission"],
        "met": found["met"],
        "probability": found["probability"],
        "joules": document["energy"]["joules"],
    }


def _check(model: str, data: str, rivals: Sequence[str], costs: str, options: Mapping[str, Any]) -> str:
    """Refuse a model, data, rivals and values that a stage would refuse; return the kind of task."""
    from kfp_bonsai.pipelines.local.inputs import check_inputs
    from kfp_bonsai.pipelines.values import check_model, check_taught, kind_of_rows, rivals_of

    with _of_rivals():
        levels = rivals_of(",".join(rivals))
        check_model(model, levels, options["max_length"])
    arguments = {**options, "model": model, "data": data}
    check_inputs(arguments)
    kind = kind_of_rows(arguments)
    with _of_rivals():
        check_taught(model, levels, options["max_length"], kind)
    if costs:
        _check_costs(costs, model, options)
    return kind


@contextmanager
def _of_rivals() -> Iterator[None]:
    """Let what is said of a level name the option by which a search is given ready-made models."""
    try:
        yield
    except BonsaiError as error:
        raise type(error)(str(error).replace("--level '", "--rival '")) from error


def _check_costs(costs: str, model: str, options: Mapping[str, Any]) -> None:
    """Refuse a table of another device, model or shape before the baseline is made."""
    from kfp_bonsai.evaluate_emissions.given import check_device
    from kfp_bonsai.pipelines.search.groundwork import kinds_of, stated_costs
    from kfp_bonsai.shared.saved.pretrained import blank, read

    if not Path(costs).expanduser().exists():
        raise BonsaiError(f"--costs {costs}: there is no such file or folder: give that of an earlier search")
    network = blank(read(model).config)
    device = check_device("cpu" if options[EDGE] else options["device"], [])
    for kind in kinds_of(network.config, options["shape"]):
        stated_costs(costs, network, kind, device)


def _check_folder(output: Path) -> None:
    """Refuse the folder of a run that is no search."""
    if (output / RECORD).is_file():
        found = kept_document(output / RECORD)
        known = found.get("arguments") if isinstance(found, dict) else None
        if isinstance(known, dict) and WHAT not in known:  # of other things run_folder says what is wrong
            raise BonsaiError(f"{output} holds a run, and no search: name another --output")


def _tidy(work: Path, document: Mapping[str, Any]) -> None:
    """Remove what is large, and of no use once a search is finished, such as models that were not measured."""
    measured = [folder_of(work / "pool", one["number"]) for one in document["front"]]
    others = [one for one in (work / "pool" / TRIALS).iterdir() if one not in measured]
    for folder in (
        work / "taught",
        work / "end",
        *(each / name for each in others for name in (MODEL, FEWER_TOKENS, INT8)),
    ):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the request to end (SIGTERM) be as Ctrl-C: a training keeps where it is, and the best so far is kept."""

    def stop(signum: int, frame: Any) -> None:
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Search:
    """One session of a search."""

    def __init__(
        self,
        output: Path,
        work: Path,
        model: str,
        data: str,
        rivals: tuple[str, ...],
        before: str,
        costs: str,
        targets: Targets,
        budget: Budget,
        options: Mapping[str, Any],
        ledger: Ledger,
    ) -> None:
        self.output, self.work, self.model, self.data, self.rivals = output, work, model, data, rivals
        self.before, self.costs, self.targets, self.budget = before, costs, targets, budget
        self.options, self.ledger = options, ledger
        self.pool = work / "pool"
        self.splits = {name: work / "data" / f"{name}.parquet" for name in SPLITS}
        self.baseline, self.taught = work / "baseline", work / "taught"
        self.seed = options["seed"]
        self.command = " ".join(["bonsai", *map(shlex.quote, sys.argv[1:])]) if sys.argv[1:2] == ["search"] else ""

    def run(self) -> dict[str, Any]:
        """Prepare, try as long as the budget allows, choose and measure; what is there already is taken."""
        self._prepare_data()
        rates = self._rates()
        if not any(each.is_usable for each in read_trials(self.pool)):  # else there is something to end with
            check_budget(self.budget, rates, self.ledger.total(), self.taught.exists())
        try:
            self._make_baseline()
            ground = self._ground()
            check_possible(ground, self.targets)
            ended = self._try_all(ground, rates)
            return self._finish(ground, rates, ended)
        except KeyboardInterrupt:
            self._keep_best()
            raise

    def _prepare_data(self) -> None:
        from kfp_bonsai.prepare_data.prepare import prepare_data

        if not (self.work / "data").is_dir():
            with new_folder(self.work / "data") as folder:
                paths = {name: folder / f"{name}.parquet" for name in SPLITS}
                prepare_data(self.data, **paths, **self._given(PREPARING), seed=self.seed)
        (self.work / BEGUN).parent.mkdir(exist_ok=True)
        (self.work / BEGUN).write_text("{}", encoding="utf-8")  # what tells an interrupted run from one that was none

    def _given(self, names: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.options[name] for name in names if name in self.options}

    def _rates(self) -> Rates:
        known = read_rates(self.work / RATES)
        if known:
            return known
        found = rates_of(self.model, self.splits, self.options)
        with new_file(self.work / RATES) as path:
            path.write_text(json.dumps(found.__dict__), encoding="utf-8")
        return found

    def _make_baseline(self) -> None:
        from kfp_bonsai.fine_tune.train import fine_tune
        from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

        splits = self.splits
        if not self.baseline.is_dir():
            say("\nsearch  the baseline is fine-tuned")
            tuning = self._given(TUNING)
            fine_tune(self.model, splits["train"], splits["validation"], self.baseline, **tuning, seed=self.seed)
        if not self.taught.is_dir():
            say("\nsearch  what the baseline says of all text is kept for the trials")
            given = self._given(TEACHING)
            teacher_outputs(self.baseline, splits["train"], splits["unlabelled"], self.taught, **given, seed=self.seed)

    def _ground(self) -> Ground:
        from kfp_bonsai.evaluate_emissions.given import check_device
        from kfp_bonsai.pipelines.search.groundwork import check_table, lay_ground
        from kfp_bonsai.shared.inference.cost_table import device_words

        if self.pool.is_dir():
            ground = read_ground(self.pool)
            here = device_words(check_device("cpu" if self.options[EDGE] else self.options["device"], []))
            do = "go on where that device is, or start over here with --overwrite"
            check_table(ground.device, here, str(self.pool), do)
            return ground
        say("\nsearch  what shapes cost here is timed")
        return lay_ground(
            self.baseline,
            self.splits["train"],
            self.splits["validation"],
            self.pool,
            shape=self.options["shape"],
            device=self.options["device"],
            edge=self.options[EDGE],
            with_memory=bool(self.targets.max_memory_mb) or self.targets.cost == "memory_mb",
            rivals=self.rivals,
            costs=self.costs,
            before=self.before,
            block_seconds=self.options["block_seconds"],
            seed=self.seed,
        )

    def _try_all(self, ground: Ground, rates: Rates) -> str:
        """Try what is proposed until nothing is left to try, or of the budget; return why it ended."""
        from kfp_bonsai.propose.choose import impossible
        from kfp_bonsai.propose.next import next_jobs

        (self.pool / TRIALS).mkdir(exist_ok=True)
        spent = False
        while True:
            trials = read_trials(self.pool)
            self._tell(ground, trials, rates)
            cannot = impossible(ground, trials, self.targets)
            if cannot:
                return f"the targets cannot be met: {cannot}"
            jobs = next_jobs(ground, trials, self.targets, 1, self.seed)
            fresh = bool(jobs) and jobs[0].number not in {each.number for each in trials}
            if fresh and not self._affords(ground, rates, trials, jobs[0]):
                jobs, fresh, spent = next_jobs(ground, trials, self.targets, 1, self.seed, fresh=False), False, True
            if not jobs and spent:
                return f"the budget of {self.budget.text} is spent"
            if jobs and not fresh and not self._affords(ground, rates, trials, jobs[0], alone=True):
                return f"the budget of {self.budget.text} is spent"
            if not jobs:
                return "nothing is left to try that could be better"
            self._do(jobs[0].as_record())

    def _affords(self, ground: Ground, rates: Rates, trials: Sequence[Trial], job: Any, alone: bool = False) -> bool:
        """Return whether the budget has room for a job, for what would heal its model to the end, and for measuring."""
        left = self.budget.left(self.ledger.total(), len({each.number for each in trials}))
        if self.budget.kind == OF_TRIALS:
            return left >= (0 if alone else 1)
        emission = _emission(ground, job.point)
        slower = learnt(rates, trials, lambda one: _emission(ground, one.point))
        needed = rates.job(job, emission) * slower + rates.measuring
        if not alone:
            needed += rates.job(replace(job, rung=1, share=1 - job.share), emission) * slower
        return left >= needed * self.budget.a_second

    def _do(self, job: Mapping[str, Any]) -> None:
        """Do a job; one in which the process died again and again is a trial that failed."""
        from kfp_bonsai.pipelines.search.trial import give_up, run_trial

        target = self.pool / TRIALS / folder_name(job["number"], job["rung"])
        at_work = self.work / AT_WORK
        this = [job["number"], job["rung"]]
        tries = 1
        with suppress(BonsaiError):  # there is none, or it is damaged
            known = read_document(at_work, "bonsai search", shape={"job": [COUNT, COUNT], "tries": COUNT})
            tries += known["tries"] if known["job"] == this else 0
        before = folder_of(self.pool, job["number"])
        if tries > TRIES:
            with new_folder(target) as folder:
                give_up(job, self.pool, folder, "its process died, as when memory runs out")
        else:
            with new_file(at_work) as path:
                path.write_text(json.dumps({"job": this, "tries": tries}), encoding="utf-8")
            try:
                run_trial(
                    job,
                    self.pool,
                    self.baseline,
                    self.taught,
                    self.splits,
                    target,
                    device=self.options["device"],
                    edge=self.options[EDGE],
                    with_memory=bool(self.targets.max_memory_mb) or self.targets.cost == "memory_mb",
                    prune_steps=self.options["prune_steps"],
                    distill_epochs=self.options["distill_epochs"],
                    block_seconds=self.options["block_seconds"],
                    seed=self.seed,
                )
            except KeyboardInterrupt:
                at_work.unlink(missing_ok=True)  # it was asked to stop: nothing is wrong with the trial
                raise
        at_work.unlink(missing_ok=True)
        if before and before != target:
            shutil.rmtree(before)

    def _tell(self, ground: Ground, trials: Sequence[Trial], rates: Rates) -> None:
        """Say the best so far, what was spent and what is left, and write it down."""
        from kfp_bonsai.pipelines.search.finish import RUNNING, words_of
        from kfp_bonsai.propose.choose import choose

        spent = self.ledger.total()
        choice = choose(ground, trials, self.targets)
        if choice is not None:
            left = self.budget.left(spent, len(trials))
            took = f"{spent['seconds'] / 60:.0f} min, {spent['joules'] / 1e3:,.1f} kJ" if spent else ""
            so_far = words_of(choice, self.targets)
            say(f"search  best so far, after {took}, with {self.budget.shown(left)} left: {so_far}\n")
        self._write(ground, trials, choice, RUNNING)

    def _write(self, ground: Ground, trials: Sequence[Trial], choice: Any, state: str) -> None:
        from kfp_bonsai.pipelines.search.finish import SEARCH as FILE
        from kfp_bonsai.pipelines.search.finish import described

        document = described(ground, trials, self.targets, choice, state, self.ledger.total(), self.command)
        with new_file(self.output / FILE) as path:
            path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def _keep_best(self) -> None:
        """Leave the best model so far where a user finds it, and say how to go on."""
        from kfp_bonsai.pipelines.search.finish import STOPPED, keep_best, words_of
        from kfp_bonsai.propose.choose import choose

        if not self.pool.is_dir():
            say("\nsearch  stopped before a trial: start it again in the same way to go on")
            return
        ground, trials = read_ground(self.pool), read_trials(self.pool)
        choice = choose(ground, trials, self.targets)
        self._write(ground, trials, choice, STOPPED)
        if choice is None:
            say("\nsearch  stopped before a trial was healed: start it again in the same way to go on")
            return
        quantized = keep_best(self.pool, choice, self.output / "best")
        yet = ", not quantized yet" if self.options[EDGE] and not quantized else ""
        say(
            f"\nsearch  stopped; the best so far is in {self.output / 'best'}{yet}, which no test row has met: "
            f"{words_of(choice, self.targets)}\nsearch  start it again in the same way to go on, or with more --budget"
        )

    def _finish(self, ground: Ground, rates: Rates, ended: str) -> dict[str, Any]:
        """Measure the front on test rows, and put what users want into the folder."""
        from kfp_bonsai.pipelines.search.earlier import leave
        from kfp_bonsai.pipelines.search.finish import SEARCH as FILE
        from kfp_bonsai.pipelines.search.finish import finish

        say(f"\nsearch  {ended}")
        end = self.work / "end"
        remove_whole(end)
        most = 5
        if self.budget.kind != OF_TRIALS:
            left = self.budget.left(self.ledger.total(), 0) / self.budget.a_second
            most = max(3, min(most, int(3 * left / rates.measuring)))
        document = finish(
            self.pool,
            self.baseline,
            self.splits,
            end,
            self.targets,
            measuring={**self._given(MEASURING), "seed": self.seed},
            packing=self._given(PACKING),
            edge=self.options[EDGE],
            most=most,
            energy=self.ledger.total(),
            command=self.command,
            ended=ended,
        )
        for name in ("report.html", "report.md", "results.json", "figures", "model", "edge-model"):
            if (end / name).exists():
                put_copy(end / name, self.output / name)
        remove_whole(self.output / "best")
        trials = read_trials(self.pool)
        chosen = next(each for each in trials if each.number == document["chosen"]["number"])
        leave(trials, chosen, ground.rest["model_type"], str(self.output.resolve()), ground.int8.get("emission", 1.0))
        document["energy"] = self.ledger.total()
        with new_file(self.output / FILE) as path:
            path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        energy = document["energy"]
        say(
            f"search  it took {energy['seconds'] / 60:.1f} min, {energy['cpu_seconds']:,.0f} s of CPU time and "
            f"{energy['joules'] / 1e3:,.2f} kJ ({energy['label']})"
        )
        return document


def _emission(ground: Ground, point: Mapping[str, Any]) -> float:
    """Return what a point is predicted to emit as a float model; of a ready-made model a third."""
    return ground.emission(point) if "share" in point else 1 / 3


os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # before torch is loaded: threads that spin burn what nobody asked for
