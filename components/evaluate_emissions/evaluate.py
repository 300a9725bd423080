"""Measure baseline and candidates side by side: energy, accuracy, speed, each with its interval."""

import json
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from kfp_bonsai.evaluate_emissions import given, machine
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import check_apart, check_writable, new_file
from kfp_bonsai.shared.core.progress import say

STAGE = "evaluate-emissions"
IDLE_SECONDS = 1.0


def evaluate_emissions(
    baseline: Path,
    candidates: list[Path],
    train: Path,
    test: Path,
    output: Path,
    *,
    device: str = "auto",
    batch_size: int = 32,
    pairs: int = 10,
    block_seconds: float = 2.0,
    precision: float = 0.02,
    time_budget: float = 0,
    country: str = "",
    intensity: float = 0,
    traffic: int = 0,
    embodied: float = 0,
    max_rows: int = 0,
    wait: bool = True,
    seed: int = 0,
) -> dict:
    """Measure how much less energy candidates use per inference than their baseline, and what accuracy they keep.

    All models run in one process on the same batches, in interleaved rounds of blocks in random order; the
    baseline runs twice a round, as a control. Ratios come from the rounds' pairs, by Hodges and Lehmann's
    estimate on their logarithms; accuracies with a paired bootstrap over rows. CO2 follows ISO/IEC 21031 (SCI).

    Args:
        baseline: The fine-tuned model: 100 % of accuracy and emission.
        candidates: Models made from it, compressed or quantized.
        train: Training split, for the floor that a bag of words reaches.
        test: Test split.
        output: Measurement file (JSON) to write.
        device: cpu, cuda, or auto (a GPU if there is one and no candidate is quantized).
        batch_size: Rows a batch.
        pairs: Rounds at the least.
        block_seconds: Seconds that each model runs in a round, at the least (5 on a GPU).
        precision: Stop once every ratio's 95 % interval is within plus or minus this fraction, and the control's within
            twice that of 1 (at most 0.1); 0 for `pairs` rounds.
        time_budget: Seconds for all rounds; 0 for twice `pairs` at the most.
        country: ISO 3166 code of three letters or English name of a country, for grams of CO2.
        intensity: Grams of CO2 per kWh, if you know them better than the country's table.
        traffic: Inferences a day, for what is saved in a year; 0 for not stated.
        embodied: Grams of CO2 that an hour's use of the hardware stands for by its making (SCI's M: what it embodies /
            its hours of life); 0 leaves it out.
        max_rows: Test rows to draw at most; 0 for all.
        wait: Wait while another measurement runs on this machine; --no-wait refuses instead.
        seed: Seed of the draw and of the bootstraps.

    Returns:
        For each model, relative accuracy and relative emission under its level's name; the control and the rounds.

    Raises:
        BonsaiError: models or splits that do not belong together, an unknown device or country, a GPU whose energy
            cannot be read, or too short blocks; without --wait, another measurement that runs.

    Example:
        bonsai evaluate-emissions --baseline baseline --candidates small --train data/train.parquet --test data/test.parquet --output measurement.json
        bonsai evaluate-emissions --baseline baseline --candidates small --candidates tiny --train data/train.parquet --test data/test.parquet --output measurement.json --country FRA --precision 0.01 --time-budget 600
    """  # noqa: E501
    waiting = machine.wait_without_spinning()
    folders = [Path(baseline), *map(Path, candidates)]
    check_apart([output], [*folders, train, test])
    check_writable(Path(output))
    given.check_numbers(pairs, block_seconds, batch_size, precision, time_budget, traffic, embodied)
    if max_rows < 0:
        raise BonsaiError(f"--max-rows {max_rows}: give a number of rows, or 0 for all")

    from kfp_bonsai.shared.energy import carbon

    grams = carbon.intensity_of(country, intensity)
    task = given.check_task(train, test)
    records = given.check_models(folders, task, test)
    device = given.check_device(device, folders)
    if device == "cuda":
        block_seconds = max(block_seconds, given.SHORTEST_GPU_BLOCK)

    from kfp_bonsai.evaluate_emissions import protocol, results
    from kfp_bonsai.shared.data.floor import floor_and_method
    from kfp_bonsai.shared.energy import energy
    from kfp_bonsai.shared.inference import runtimes
    from kfp_bonsai.shared.inference.asking import together
    from kfp_bonsai.shared.kinds import kinds
    from kfp_bonsai.shared.metrics import statistics
    from kfp_bonsai.shared.metrics.scores import score_predictions
    from kfp_bonsai.shared.models.records import versions

    sources = energy.find_sources(device)
    with machine.alone(wait):
        bag_of_words, floor_method = floor_and_method(Path(train), Path(test))
        threads = machine.threads()
        found = machine.environment(threads) | {"load_start": machine.load()}
        max_length = int(records[0].get("max_length") or 128)
        rows = given.read_test_rows(
            folders[0],
            task,
            Path(test),
            max_length,
            batch_size,
            max_rows,
            protocol.SINGLE_ROWS,
            protocol.BATCH_SIZES,
            seed,
        )
        longest = max((one.batch for one in rows.batches), key=lambda one: one["input_ids"].size)
        subjects, peaks = _subjects(folders, device, threads, longest)
        say(f"{STAGE}  {rows.rows} rows, {len(folders)} models, {threads} threads on {device}")
        scored: list[results.Scored | None] = []
        batch_seconds: list[float] = []
        for index, subject in enumerate(subjects):
            try:
                found_logits, seconds = protocol.run_all(subject, [one.batch for one in rows.batches])
                logits, windows = together(found_logits, rows.batches)
                outputs = len(kinds.kind_of(task).outputs(task))
                if any(one.shape[-1:] != (outputs,) for one in logits):
                    raise BonsaiError(f"{subject.name} gives outputs of shape {logits[0].shape}, not {outputs}")
                predicted = kinds.predict(task, logits, windows)
                score = score_predictions(task.metric, predicted, rows.right, classes=kinds.classes_of(task))
                if index == protocol.BASELINE:
                    statistics.check_baseline(score)
                scored.append(results.Scored(logits, predicted))
            except Exception as error:
                if index == protocol.BASELINE:
                    raise
                protocol.give_up(subject, error)
                scored.append(None)
                continue
            batch_seconds = batch_seconds or seconds
        batches = protocol.block_batches([one.batch for one in rows.batches], batch_seconds, block_seconds)
        sliced = device != "cuda"  # NVML's counter needs windows of seconds
        plan = protocol.Plan(pairs, block_seconds, precision, time_budget, sliced, seed)
        try:
            idle, rounds, checked = _measured(subjects, batches, plan, sources)
        except energy.CounterError as error:
            sources = energy.estimates(sources, error)
            say(f"{STAGE}  note: {error}; all rounds are done anew with {sources[0].name}")
            for subject in subjects:
                protocol.forget(subject)
            idle, rounds, checked = _measured(subjects, batches, plan, sources)
        protocol.single_rows(subjects, rows.singles)
        protocol.best_batches(subjects, rows.sizes)
        found["load_end"] = machine.load()

    assert scored[0] is not None
    common = results.Common(
        task=task,
        right=rows.right,
        mean_length=rows.mean_length,
        batch_size=batch_size,
        baseline=subjects[0],
        baseline_record=records[0],
        baseline_scored=scored[0],
        rounds=rounds,
        idle_watts=idle,
        intensity=grams,
        traffic=traffic,
        embodied=embodied,
        seed=seed,
    )
    models = [
        results.model_row(common, subject, record, folder, runtimes.runtime_of(folder), answers, peak)
        for subject, record, folder, answers, peak in zip(subjects, records, folders, scored, peaks, strict=True)
    ]
    control = results.control_row(subjects[0], rounds, precision)
    measurement = {
        "format": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": machine.device_name(device, found),
        "device_kind": device,
        "task": task.__dict__,
        "rows": rows.rows,
        "seed": seed,
        "versions": versions(),
        "environment": found | {"neighbours": rounds.neighbours},
        "floor": {"accuracy": bag_of_words, "method": floor_method},
        "protocol": {
            "pairs": rounds.done,
            "block_seconds": block_seconds,
            "slices_a_block": len(batches) if sliced else 1,
            "batch_size": batch_size,
            "max_length": max_length,
            "mean_length": rows.mean_length,
            "single_rows": len(rows.singles),
            "rows_a_pass": sum(len(batch["input_ids"]) for batch in batches),
            "threads": threads,
            "idle_threads": waiting,
            "bootstrap": statistics.RESAMPLES,
            "precision": precision,
            "order": "all models a slice each, in an order that is drawn anew for each slice",
            "interval": f"95 %, {statistics.method(rounds.done)} on the pairs' log ratios",
            "seconds": rounds.seconds,
            "stopped_because": rounds.stopped,
        },
        "energy": {
            "label": energy.weakest(sorted(rounds.labels)),
            "source": "; ".join(one.name for one in sources if one.part != energy.RAM),
            "detail": "; ".join(sorted(rounds.sources)) + ". RAM is told apart and is in no ratio" + checked,
            "idle_watts": idle,
        },
        "carbon": grams.as_dict() if grams else None,
        "traffic_per_day": traffic or None,
        "embodied_g_per_hour": embodied or None,
        "control": control,
        "flags": results.flags(models, common),
        "models": models,
    }
    with new_file(Path(output)) as path:
        path.write_text(json.dumps(measurement, indent=1, allow_nan=False) + "\n")
    return _told(measurement)


def _measured(subjects: list[Any], batches: Any, plan: Any, sources: Any) -> tuple[float, Any, str]:
    """Return the watts of idleness, the rounds, and what codecarbon's tracker says of them."""
    from kfp_bonsai.evaluate_emissions import protocol

    idle = protocol.idle_watts(sources, IDLE_SECONDS)
    with _Check(sources) as check:
        rounds = protocol.measure(subjects, batches, plan, sources, _say_round(plan))
    return idle, rounds, check.words


def _subjects(folders: list[Path], device: str, threads: int, batch: Any) -> tuple[list[Any], list[Any]]:
    """Load all models, and find the peak memory of each: before the others are loaded, or beside them on a GPU."""
    from kfp_bonsai.evaluate_emissions import memory, protocol

    def load(folder: Path) -> protocol.Subject:
        return protocol.Subject(str(folder), _loaded(folder, device, threads, needed=folder is folders[0]))

    if device == "cpu":
        peaks = memory.peaks(folders, batch, threads)
        return [load(folder) for folder in folders], peaks
    both = [memory.cuda_peak(partial(load, folder), batch) for folder in folders]
    return [subject for subject, _ in both], [peak for _, peak in both]


def _loaded(folder: Path, device: str, threads: int, needed: bool) -> Any:
    """Return what runs a batch on a model; for a candidate that does not load, what raises the reason."""
    from kfp_bonsai.shared.inference import runtimes

    try:
        return runtimes.load_predictor(folder, device, threads=threads).predict
    except Exception as error:
        if needed:
            raise
        reason = error

        def refuse(_batch: Any) -> Any:
            raise reason

        return refuse


class _Check:
    """codecarbon's own tracker over all rounds, beside our readings; it never ends a measurement."""

    def __init__(self, sources: Any) -> None:
        from kfp_bonsai.shared.energy import energy

        self.words, self._stack = "", ExitStack()
        self._sources = [one for one in sources if isinstance(one, energy.ProcessCpu)]

    def __enter__(self) -> "_Check":
        from kfp_bonsai.shared.energy import energy

        if self._sources:
            try:
                self._theirs = self._stack.enter_context(energy.codecarbon_tracker())
                self._ours = self._stack.enter_context(energy.track(self._sources))
            except Exception as problem:
                self._give_up(problem)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._stack.close()
            if self._sources and not kind:
                apart = self._ours.reading.cpu_joules / self._theirs.reading.cpu_joules - 1
                self.words = f". codecarbon's own tracker over all rounds: {100 * apart:+.1f} % apart"
        except Exception as problem:
            self._give_up(problem)

    def _give_up(self, problem: Exception) -> None:
        self.words, self._sources = f". codecarbon's own tracker made no reading to compare with ({problem})", []


def _say_round(plan: Any) -> Any:
    from kfp_bonsai.shared.core.progress import Ticker

    ticker = Ticker(STAGE, plan.pairs)

    def on_round(done: int, widest: float) -> None:
        if done > ticker.total:
            ticker.total = done
        ticker.step(done, **({"widest": widest} if widest < float("inf") else {}))

    return on_round


def _told(measurement: dict[str, Any]) -> dict:
    """Say the result line by line, and return it as flat scalars."""
    control = measurement["control"]
    told: dict[str, Any] = {
        "control": control["state"],
        "control_ratio": control["ratio"],
        "control_low": control["ci"][0],
        "control_high": control["ci"][1],
        "control_margin": control["margin"],
        "rounds": measurement["protocol"]["pairs"],
        "floor": measurement["floor"]["accuracy"],
    }
    for row in measurement["models"]:
        name = row["level"] + (f" ({row['runtime']})" if row["stage"] == "quantized" else "")
        while f"{name}: relative emission" in told:
            name += "'"
        if row["error"]:
            say(f"{STAGE}  {name}: given up ({row['error']})")
            told[f"{name}: error"] = row["error"]
            continue
        low, high = row["relative_emission_ci"]
        say(
            f"{STAGE}  {name}: accuracy {row['accuracy']:.4f} ({100 * row['relative_accuracy']:.1f} %), "
            f"energy {100 * row['relative_emission']:.1f} % ({100 * low:.1f} to {100 * high:.1f}), "
            f"{row['latency_ms_p50']:.2f} ms"
        )
        told[f"{name}: accuracy"] = row["accuracy"]
        told[f"{name}: relative accuracy"] = row["relative_accuracy"]
        told[f"{name}: relative emission"] = row["relative_emission"]
        told[f"{name}: latency ms p50"] = row["latency_ms_p50"]
    doubt = f": {control['what_to_do']}" if control["what_to_do"] else ""
    say(
        f"{STAGE}  control {control['state'].upper() if doubt else control['state']}: {control['ratio']:.3f} "
        f"({control['ci'][0]:.3f} to {control['ci'][1]:.3f}), where 1 ± {control['margin']:.3g} is asked{doubt}"
    )
    for sentence in measurement["flags"]:
        say(f"{STAGE}  note: {sentence}")
    say(f"{STAGE}  stopped: {measurement['protocol']['stopped_because']}")
    return told
