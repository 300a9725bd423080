"""What a search may take: hours, trials or joules; what it took; and what it is going to take."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bonsai.propose.next import Job
from kfp_bonsai.propose.trials import RUNGS, Trial
from kfp_bonsai.shared.core.documents import is_number, kept_document, read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_file
from kfp_bonsai.shared.core.progress import duration
from kfp_bonsai.shared.core.written import RATES
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.energy.cpu_estimate import cpu_seconds, watts_per_thread

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
JOULES = {"j": 1, "kj": 1e3, "mj": 1e6, "wh": 3600, "kwh": 3.6e6}
TIME, TRIALS, ENERGY = "time", "trials", "energy"
BEAT_SECONDS = 5.0
TABLE_SECONDS = 60.0
USUAL_PASSES = 1.75  # of a distillation, where nothing else is asked for
LOOK_SECONDS = 12.0  # to look at a trial's model, beside the rows that are run in turns:
TURN_ROWS, TURN_SECONDS = 12 * 4 * 32, 12 * 2.0  # 12 blocks of four batches, cut to what blocks have time for


@dataclass(frozen=True)
class Budget:
    """What a search may take: seconds, trials or joules."""

    kind: str
    amount: float
    text: str

    def left(self, spent: Mapping[str, Any], trials: int) -> float:
        """Return what is left of it."""
        used = {TIME: spent["seconds"], ENERGY: spent["joules"], TRIALS: trials}[self.kind]
        return float(self.amount - used)

    @property
    def a_second(self) -> float:
        """What a second of work on all threads takes of it; 0 of a number of trials."""
        from kfp_bonsai.shared.core.threads import threads

        return {TIME: 1.0, ENERGY: watts_per_thread()[0] * threads(), TRIALS: 0.0}[self.kind]

    def shown(self, value: float) -> str:
        """Return a part of it in words."""
        value = max(value, 0.0)
        if self.kind == TIME:
            return duration(value)
        return f"{value:.0f} trial{'s' * (value != 1)}" if self.kind == TRIALS else f"{value / 1e3:,.1f} kJ"


def budget_of(text: str) -> Budget:
    """Read a budget.

    Raises:
        BonsaiError: it is none, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    clock = re.fullmatch(r"(\d+)h(\d+)m?", text.strip().lower())
    if clock:
        return _above_zero(TIME, 3600 * int(clock[1]) + 60 * int(clock[2]), text)
    unit = found[2].lower() if found else ""
    if found and unit in ("trial", "trials"):
        if not float(found[1]).is_integer():
            raise BonsaiError(f"--budget {text}: give a whole number of trials, such as '20 trials'")
        return _above_zero(TRIALS, float(found[1]), text)
    if found and found[2] in ("MJ", "mJ"):
        if found[2] == "mJ":
            raise BonsaiError(f"--budget {text}: a millijoule is nothing: write MJ for megajoules, or kJ")
        return _above_zero(ENERGY, float(found[1]) * 1e6, text)
    for kind, units in ((TIME, SECONDS), (ENERGY, JOULES)):
        if found and unit in units:
            return _above_zero(kind, float(found[1]) * units[unit], text)
    raise BonsaiError(f"--budget '{text}': give a time (90m, 2h), trials ('20 trials') or energy (300kJ, 0.1kWh)")


def _above_zero(kind: str, amount: float, text: str) -> Budget:
    if not amount > 0:
        raise BonsaiError(f"--budget {text}: nothing can be tried with that: give more, such as 2h or '20 trials'")
    return Budget(kind, amount, text)


_told = [0.0]  # CPU seconds of this process that an earlier session in it has told of


class Ledger:
    """What a search took, in all its sessions: written every few seconds, so that a killed one's is known too."""

    def __init__(self, file: Path, before: Sequence[Mapping[str, Any]], meter: energy.Meter, started: float) -> None:
        self.file, self.before, self.meter = file, list(before), meter
        self.started, self.told = started, _told[0]
        self.lock = threading.Lock()

    def session(self) -> dict[str, Any]:
        """Return what this session took until now, what it took before it was counted included."""
        reading = self.meter.so_far()
        early = self.started - self.told if reading.label == energy.ESTIMATED else 0.0
        return {
            "seconds": reading.seconds,
            "joules": reading.joules + (early * watts_per_thread()[0] if early else 0.0),
            "cpu_seconds": cpu_seconds() - self.told,
            "label": reading.label,
            "source": reading.source,
        }

    def total(self) -> dict[str, Any]:
        """Return what all sessions took together."""
        every = [*self.before, self.session()]
        sums = {name: float(sum(one[name] for one in every)) for name in ("seconds", "joules", "cpu_seconds")}
        last = every[-1]
        label = energy.weakest([one["label"] for one in every])
        return {**sums, "label": label, "source": last["source"], "sessions": len(every)}

    def write(self) -> None:
        """Write it down."""
        with self.lock, new_file(self.file) as path:
            path.write_text(json.dumps([*self.before, self.session()], indent=1) + "\n", encoding="utf-8")


@contextmanager
def kept_ledger(file: Path) -> Iterator[Ledger]:
    """Count what a session takes, from the start of its process, and keep it in a file beside the earlier ones."""
    before = _sessions(file)
    started = cpu_seconds()
    ended = threading.Event()
    with energy.track() as meter:
        ledger = Ledger(file, before, meter, started)
        ledger.write()

        def beat() -> None:
            while not ended.wait(BEAT_SECONDS):
                try:
                    ledger.write()
                except (OSError, BonsaiError):
                    continue  # the next one may be written

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield ledger
        finally:
            ended.set()
            thread.join()
            if file.parent.is_dir():
                ledger.write()
            _told[0] = cpu_seconds()


def _sessions(file: Path) -> list[dict[str, Any]]:
    found = kept_document(file)
    return [one for one in (found if isinstance(found, list) else ()) if _is_session(one)]


def _is_session(found: Any) -> bool:
    """Say whether what a file of an earlier session holds can be added up."""
    if not isinstance(found, dict) or found.get("label") not in energy.LABELS:
        return False
    return all(is_number(found.get(name)) for name in ("seconds", "joules", "cpu_seconds"))


@dataclass(frozen=True)
class Rates:
    """What work takes here, in seconds.

    Attributes:
        row: to train on one row, of the whole model.
        transfer: rows of the transfer set.
        prune_rows: rows of pruning.
        whole_epochs: of a trial's whole distillation.
        baseline: to make the baseline, its outputs, and a table of costs.
        look: to look at a trial's model.
        measuring: of the measurement at the end.
    """

    row: float
    transfer: int
    prune_rows: int
    whole_epochs: float
    baseline: float
    look: float
    measuring: float

    def job(self, job: Job, emission: float) -> float:
        """To do a job, of a model of this emission."""
        pruning = self.prune_rows * self.row if job.rung == 0 and job.point.get("share", 1) < 1 else 0.0
        return self.look + pruning + self.row * self.transfer * self.whole_epochs * job.share * max(emission, 0.1)

    @property
    def trial(self) -> float:
        """To heal one trial of middle size to the end."""
        healed = self.row * self.transfer * self.whole_epochs * 0.4
        return len(RUNGS) * self.look + self.prune_rows * self.row + healed


def learnt(rates: Rates, trials: Sequence[Trial], emission_of: Any) -> float:
    """Return by what jobs took longer than the rates say, as a multiple; 1 until it is seen."""
    told, took = 0.0, 0.0
    for each in trials:
        for number, one in enumerate(each.healed):
            share = RUNGS[one["rung"]] - (RUNGS[one["rung"] - 1] if one["rung"] else 0.0)
            told += rates.job(Job(each.number, one["rung"], number, each.point, each.parent, share), emission_of(each))
            took += one["seconds"]
    return took / told if told and took else 1.0


def read_rates(file: Path) -> Rates | None:
    """Return the rates that an earlier session found; None, so that they are timed anew, if there are none whole."""
    with suppress(BonsaiError):
        found = read_document(file, "bonsai search", shape=RATES)
        return Rates(**{name: found[name] for name in RATES})
    return None


def rates_of(model: str, splits: Mapping[str, Path], options: Mapping[str, Any], front: int = 3) -> Rates:
    """Time a few steps of training, and where a model writes a few answers, and say what all work will take.

    Args:
        model: to fine-tune.
        splits: train, validation, test, and unlabelled texts.
        options: of the pipeline.
        front: how many models are measured at the end.

    Raises:
        BonsaiError: model and data do not fit each other.
    """
    from kfp_bonsai.distill.distill import FEWEST_STEPS, MOST_PASSES
    from kfp_bonsai.shared.data import tasks
    from kfp_bonsai.shared.inference.cost_table import FEWEST_ROUNDS, HELD_OUT, ROWS, TIMED
    from kfp_bonsai.shared.kinds.kinds import kind_of
    from kfp_bonsai.teacher_outputs.outputs import suggested_copies

    task, (validation, test, extra) = (
        tasks.read_task(splits["train"]),
        (tasks.read_task(splits[name]).rows for name in ("validation", "test", "unlabelled")),
    )
    writes = kind_of(task).writes
    row, answer, tokens = (_of_a_writer if writes else _of_a_reader)(model, task, splits, options["max_length"])
    copies = options["augmentations"]
    if copies < 0:
        copies = 0 if writes else suggested_copies(task.rows, tokens)
    used = extra if options["unlabelled_rows"] < 0 else min(extra, options["unlabelled_rows"])
    transfer = task.rows * (1 + copies) + used
    models = front + 2 + (2 if options.get("edge") else 0)
    rounds = 1.3 * models * options["pairs"] * options["block_seconds"]
    baseline = row * (task.rows * options["epochs"] + transfer / 3) + TABLE_SECONDS
    look = LOOK_SECONDS + min(TURN_ROWS * answer, TURN_SECONDS)
    passes = USUAL_PASSES
    if writes:  # to all rows, in training to choose by, and beside the baseline; a measurement has two sets of rounds
        baseline += answer * (used + FEWEST_ROUNDS * ROWS * (TIMED + HELD_OUT) / 2)
        look += 3 * validation * answer
        rounds *= 2
        passes = max(passes, min(MOST_PASSES, 16 * FEWEST_STEPS / transfer))
    return Rates(
        row=row,
        transfer=transfer,
        prune_rows=32 * options["prune_steps"],
        whole_epochs=options["distill_epochs"] or passes,
        baseline=baseline,
        look=look,
        measuring=test * answer * models + rounds + 40.0,
    )


def _of_a_reader(model: str, task: Any, splits: Mapping[str, Path], max_length: int) -> tuple[float, float, int]:
    """Return the seconds to train on one row, and to answer it, and the tokens of all training rows."""
    from kfp_bonsai.shared.data import rows
    from kfp_bonsai.shared.saved import pretrained
    from kfp_bonsai.shared.saved.fitted import fit
    from kfp_bonsai.shared.training.trainer import device

    network, tokenizer, _ = fit(pretrained.read(model, weights=True), task, "search")
    network.to(device())
    split = rows.read_rows(splits["train"], tokenizer, max_length or rows.LONGEST)

    def loss(batch: dict[str, Any]) -> Any:
        batch.pop("labels", None)
        return network(**batch).logits.float().square().mean()

    row = _step_seconds(network, split, lambda items: rows.pad(items, tokenizer.pad_token_id), loss)
    return row, row / 3, sum(split.lengths)


def _of_a_writer(model: str, task: Any, splits: Mapping[str, Path], max_length: int) -> tuple[float, float, int]:
    """Return the same of a model that writes, whose answers are as long as the training rows'."""
    import numpy as np

    from kfp_bonsai.fine_tune.learn import to_write
    from kfp_bonsai.shared.inference.cost_table import ROWS
    from kfp_bonsai.shared.inference.writers import padded, torch_writer
    from kfp_bonsai.shared.saved import pretrained
    from kfp_bonsai.shared.saved.fitted import fit
    from kfp_bonsai.shared.training import answer_batches, writing
    from kfp_bonsai.shared.training.trainer import device

    network, tokenizer, _ = fit(pretrained.read(model, weights=True), task, "search")
    network.to(device())
    _, split, _ = to_write(network, tokenizer, splits["train"], splits["validation"], max_length)
    start, pad_id = answer_batches.start_of(network), tokenizer.pad_token_id
    row = _step_seconds(
        network,
        split,
        lambda items: writing.collate(items, pad_id, start),
        lambda batch: writing.objective(network, batch, batch),
    )
    asked = split.inputs["input_ids"][:: max(1, len(split) // ROWS)][:ROWS]
    batch = padded(asked, pad_id, writing.reads_on(network))
    written = max(1, round(float(np.mean([len(one) for one in split.labels]))))
    writer = torch_writer(network, tokenizer, device())
    return row, _fastest(lambda: writer.write(batch, written)) / len(asked), sum(split.lengths)


def _step_seconds(network: Any, split: Any, collate: Callable[[Any], Any], loss: Callable[[Any], Any]) -> float:
    """Return the seconds of a row of a step of training, by a few."""
    import torch

    from kfp_bonsai.shared.training.trainer import bf16_is_faster, device

    network.train()
    step = max(1, len(split) // 96)
    items = [split[index] for index in range(0, len(split), step)]
    taken = []
    for batch in [items[at : at + 16] for at in range(0, len(items), 16)][:6]:
        padded = {name: value.to(device()) for name, value in collate(batch).items()}

        def go(given: dict[str, Any] = padded) -> None:
            with torch.autocast(device(), torch.bfloat16, enabled=bf16_is_faster()):
                loss(given).backward()

        taken.append(_fastest(go, 1) / len(batch))
    return min(taken)


def _fastest(work: Callable[[], Any], times: int = 3) -> float:
    """Return the seconds that work takes at the least."""
    import time

    import torch

    from kfp_bonsai.shared.training.trainer import device

    on_cpu = device() == "cpu"  # there, what others do on this machine is no part of it, as it may pass
    clock, width = (time.process_time, torch.get_num_threads()) if on_cpu else (time.perf_counter, 1)
    taken = []
    for _ in range(times):
        began = clock()
        work()
        taken.append((clock() - began) / width)
    return min(taken)


def check_budget(budget: Budget, rates: Rates, spent: Mapping[str, Any], made: bool) -> None:
    """Refuse a budget in which not even one trial can be made and measured.

    Args:
        budget: what is given.
        rates: what work takes.
        spent: until now.
        made: the baseline is there already.

    Raises:
        BonsaiError: it is too small; what one trial takes is said.
    """
    if budget.kind == TRIALS:
        return
    parts = {
        "the baseline": 0.0 if made else rates.baseline,
        "one trial": rates.trial,
        "the measurement at the end": rates.measuring,
    }
    needed = sum(parts.values()) * budget.a_second
    if needed <= budget.left(spent, 0):
        return
    told = ", ".join(f"{name} about {budget.shown(value * budget.a_second)}" for name, value in parts.items() if value)
    already = budget.amount - budget.left(spent, 0)
    raise BonsaiError(
        f"--budget {budget.text} is too small for one trial: {told}"
        + (f"; {budget.shown(already)} are spent" if already > 0.02 * budget.amount else "")
        + f": give {budget.shown(1.15 * (needed + already))} or more"
    )
