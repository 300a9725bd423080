"""What a search may take: hours, trials or joules; what it took; and what it is going to take."""

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
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
        from kfp_bonsai.shared.inference.threads import threads

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
        labelled: training rows.
        transfer: rows of the transfer set.
        epochs: of fine-tuning.
        prune_rows: rows of pruning.
        measuring: of the measurement at the end.
        whole_epochs: of a trial's whole distillation.
    """

    row: float
    labelled: int
    transfer: int
    epochs: float
    prune_rows: int
    measuring: float
    whole_epochs: float

    @property
    def baseline(self) -> float:
        """To make the baseline, its outputs, and a table of costs."""
        return self.row * (self.labelled * self.epochs + self.transfer / 3) + 60.0

    def job(self, job: Job, emission: float) -> float:
        """To do a job, of a model of this emission."""
        pruning = self.prune_rows * self.row if job.rung == 0 and job.point.get("share", 1) < 1 else 0.0
        return self.look + pruning + self.row * self.transfer * self.whole_epochs * job.share * max(emission, 0.1)

    @property
    def look(self) -> float:
        """To look at a trial's model."""
        return LOOK_SECONDS + min(TURN_ROWS * self.row / 3, TURN_SECONDS)

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


def rates_of(
    model: str, train: Path, unlabelled: Path, test: Path, options: Mapping[str, Any], front: int = 3
) -> Rates:
    """Time a few steps of training, and say what all work will take.

    Args:
        model: to fine-tune.
        train: the training split.
        unlabelled: texts without labels.
        test: the test split.
        options: of the pipeline.
        front: how many models are measured at the end.
    """
    import time

    import torch

    from kfp_bonsai.shared.data import rows, tasks
    from kfp_bonsai.shared.saved import pretrained
    from kfp_bonsai.shared.saved.fitted import fit
    from kfp_bonsai.shared.training.trainer import bf16_is_faster, device
    from kfp_bonsai.teacher_outputs.outputs import suggested_copies

    task, extra = tasks.read_task(train), tasks.read_task(unlabelled).rows
    network, tokenizer, _ = fit(pretrained.read(model, weights=True), task, "search")
    network.to(device()).train()
    split = rows.read_rows(train, tokenizer, options["max_length"] or rows.LONGEST)
    step = max(1, len(split) // 96)
    items = [split[index] for index in range(0, len(split), step)]
    batches = [items[at : at + 16] for at in range(0, len(items), 16)][:6]
    on_cpu = device() == "cpu"  # there, what others do on this machine is no part of it, as it may pass
    clock, width = (time.process_time, torch.get_num_threads()) if on_cpu else (time.perf_counter, 1)
    taken = []
    for batch in batches:
        padded = {name: value.to(device()) for name, value in rows.pad(batch, tokenizer.pad_token_id).items()}
        padded.pop("labels", None)
        began = clock()
        with torch.autocast(device(), torch.bfloat16, enabled=bf16_is_faster()):
            network(**padded).logits.float().square().mean().backward()
        taken.append((clock() - began) / len(batch) / width)
    row = min(taken)
    copies = options["augmentations"]
    if copies < 0:
        copies = suggested_copies(task.rows, sum(split.lengths))
    used = extra if options["unlabelled_rows"] < 0 else min(extra, options["unlabelled_rows"])
    models = front + 2 + (2 if options.get("edge") else 0)
    answering = tasks.read_task(test).rows * row / 3 * models
    return Rates(
        row=row,
        labelled=task.rows,
        transfer=task.rows * (1 + copies) + used,
        epochs=options["epochs"],
        prune_rows=32 * options["prune_steps"],
        measuring=answering + 1.3 * models * options["pairs"] * options["block_seconds"] + 40.0,
        whole_epochs=options["distill_epochs"] or 1.75,
    )


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
