"""Measure baseline and candidates side by side: energy, accuracy, speed, each with its interval."""

import json
from pathlib import Path
from typing import Any

from kfp_bonsai.evaluate_emissions import given, lengths, machine, protocol, results, speed
from kfp_bonsai.evaluate_emissions.accuracy import answer_all
from kfp_bonsai.evaluate_emissions.loading import load_all
from kfp_bonsai.evaluate_emissions.measurement import Setting, document
from kfp_bonsai.evaluate_emissions.readers import readers_of
from kfp_bonsai.evaluate_emissions.rounds import STAGE, announce, measured
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import check_apart, check_writable, new_file
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.threads import threads as threads_here
from kfp_bonsai.shared.data.floor import floor_and_method
from kfp_bonsai.shared.energy import carbon, energy
from kfp_bonsai.shared.inference import runtimes
from kfp_bonsai.shared.metrics.scores import in_words


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
    grams = carbon.intensity_of(country, intensity)
    task = given.check_task(train, test)
    records = given.check_models(folders, task, test)
    device = given.check_device(device, folders)
    if device == "cuda":
        block_seconds = max(block_seconds, given.SHORTEST_GPU_BLOCK)
    sliced = device != "cuda"  # NVML's counter needs windows of seconds
    plan = protocol.Plan(pairs, block_seconds, precision, time_budget, sliced, seed)
    sources = energy.find_sources(device)
    max_length = int(records[0].get("max_length") or 128)
    readers, reader_of = readers_of(folders, records, max_length)
    with machine.alone(wait):
        floor = floor_and_method(Path(train), Path(test))
        threads = threads_here()
        found = machine.environment(threads) | {"load_start": machine.load()}
        rows = given.read_test_rows(
            readers,
            task,
            Path(test),
            batch_size,
            max_rows,
            speed.SINGLE_ROWS,
            speed.BATCH_SIZES,
            seed,
        )
        longest = max((one.batch for one in rows.batches), key=lambda one: one["input_ids"].size)
        subjects, peaks = load_all(folders, reader_of, device, threads, longest)
        say(f"{STAGE}  {rows.rows} rows, {len(folders)} models, {threads} threads on {device}")
        scored, batch_seconds = answer_all(subjects, task, rows)
        all_batches = [one.batch for one in rows.batches]
        length = lengths.of_baseline(scored[0])
        if length:
            plan = lengths.in_half_the_time(plan)
            batch_seconds = lengths.seconds_at(length, scored[0], all_batches, batch_seconds)
        batches, pass_seconds = protocol.block_batches(all_batches, batch_seconds, block_seconds)
        batches = lengths.at(length, batches)
        announce(len(folders), batches, pass_seconds, plan)
        taken = measured(subjects, batches, plan, sources)
        written = lengths.own(length, subjects, batches, pass_seconds, plan, taken) if length else None
        singles = speed.single_rows(subjects, lengths.at(length, rows.singles))
        speed.best_batches(subjects, lengths.at(length, rows.sizes), speed.SIZE_SECONDS)
        found["load_end"] = machine.load()
    assert scored[0] is not None
    common = results.Common(
        task=task,
        right=rows.right,
        mean_length=rows.mean_lengths[0],
        inputs_a_row=rows.inputs_a_row,
        batch_size=batch_size,
        baseline=subjects[0],
        baseline_record=records[0],
        baseline_scored=scored[0],
        rounds=taken.rounds,
        idle_watts=taken.idle_watts,
        intensity=grams,
        traffic=traffic,
        embodied=embodied,
        seed=seed,
        written=written,
    )
    none_writes: list[protocol.Subject | None] = [None] * len(subjects)
    models = [
        results.model_row(
            common, subject, record, folder, runtimes.runtime_of(folder), answers, peak, rows.mean_lengths[reader], own
        )
        for subject, record, folder, answers, peak, reader, own in zip(
            subjects, records, folders, scored, peaks, reader_of, written.own if written else none_writes, strict=True
        )
    ]
    setting = Setting(device, found, waiting, floor, max_length, rows.rows, rows.left_out, singles, batches)
    measurement = document(common, setting, plan, taken, models)
    with new_file(Path(output)) as path:
        path.write_text(json.dumps(measurement, indent=1, allow_nan=False) + "\n")
    return _told(measurement)


def _told(measurement: dict[str, Any]) -> dict:
    """Say the result line by line, and return it as flat scalars."""
    control = measurement["control"]
    metric = in_words(measurement["task"]["metric"])
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
            f"{STAGE}  {name}: {metric} {row['accuracy']:.4f} ({100 * row['relative_accuracy']:.1f} %), "
            f"energy {100 * row['relative_emission']:.1f} % ({100 * low:.1f} to {100 * high:.1f}), "
            f"{row['latency_ms_p50']:.2f} ms" + lengths.in_words(row)
        )
        told[f"{name}: accuracy"] = row["accuracy"]
        told[f"{name}: relative accuracy"] = row["relative_accuracy"]
        told[f"{name}: relative emission"] = row["relative_emission"]
        told[f"{name}: latency ms p50"] = row["latency_ms_p50"]
        if row.get("writing"):
            told[f"{name}: joules a token"] = row["writing"]["joules_per_token"]
            told[f"{name}: mean tokens"] = row["writing"]["mean_tokens"]
    doubt = f": {control['what_to_do']}" if control["what_to_do"] else ""
    say(
        f"{STAGE}  control {control['state'].upper() if doubt else control['state']}: {control['ratio']:.3f} "
        f"({control['ci'][0]:.3f} to {control['ci'][1]:.3f}), where 1 ± {control['margin']:.3g} is asked{doubt}"
    )
    for sentence in measurement["flags"]:
        say(f"{STAGE}  note: {sentence}")
    say(f"{STAGE}  stopped: {measurement['protocol']['stopped_because']}")
    return told
