"""A measurement must find ratios that are known, keep what it has when a model fails, and refuse nonsense early."""

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import short_looks

from kfp_bonsai.evaluate_emissions import machine, protocol, results, rounds, speed
from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.energy import energy

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "about", "people", "very", "long"]
LABELS = ("no", "yes")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set, a random model of six layers, and one with two of its layers."""
    root = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    for name, split, count in (("train", "train", 60), ("test", "test", 96), ("empty", "test", 0)):
        texts = [" ".join(random.choice(WORDS[5:], random.integers(3, 24))) for _ in range(count)]
        rows = {"text": texts, "label": [i % 2 for i in range(count)]}
        task = tasks.Task("made", "classification", ("text",), LABELS, "accuracy", "made", split, count, "0")
        pq.write_table(pa.table(rows, schema=tasks.schema(task)), root / f"{name}.parquet")
    model(root / "baseline", 6)
    model(root / "short", 2, parent=root / "baseline")
    model(root / "broken", 1, parent=root / "baseline")
    return root


@pytest.fixture(scope="module")
def measurement(made):
    """One whole measurement, of a shorter model and of one that fails half-way; memory is measured as for users."""
    from kfp_bonsai.shared.inference import runtimes

    load, calls = runtimes.load_predictor, []

    def failing(folder, device="cpu", **options):
        predictor = load(folder, device, **options)

        def run(batch):
            calls.append(1)
            if len(calls) > 8:
                raise RuntimeError("out of memory")
            return predictor.predict(batch)

        return SimpleNamespace(runtime="torch", predict=run) if folder.name == "broken" else predictor

    asked = {"pairs": 3, "precision": 0.0, "country": "FRA", "traffic": 1000, "embodied": 36, "block_seconds": 0.6}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(short_looks.MEMORY, "1")
        patch.setattr(runtimes, "load_predictor", failing)
        told = measure(made, ["short", "broken"], **asked)
    return json.loads((made / "out.json").read_text()), told


def test_a_third_of_the_layers_costs_about_a_third(measurement):
    """Layers are all that differs, so a ratio far from 1/3 is a wrong measurement."""
    row = measurement[0]["models"][1]
    assert 0.2 < row["relative_emission"] < 0.55
    assert row["relative_emission_ci"][0] < row["relative_emission"] < row["relative_emission_ci"][1]
    assert row["flops_ratio"] == pytest.approx(1 / 3, abs=0.02) and row["layers"] == pytest.approx(1 / 3)
    assert row["family"] == "bert"


def test_the_file_holds_what_readers_take_from_it(measurement):
    """select-model, report and package-model fail on a missing field."""
    found, told = measurement
    base, row = found["models"][:2]
    assert (base["level"], base["stage"], base["relative_emission"], base["relative_accuracy"]) == ("baseline",) * 2 + (
        1,
        1,
    )
    assert (row["level"], row["stage"], row["runtime"], row["error"]) == ("2/6 layers", "compressed", "torch", "")
    assert len(row["pairs"]) == found["protocol"]["pairs"] == len(found["control"]["pairs"]) == 3
    assert row["model"] == "tiny" and row["emission_label"] == found["energy"]["label"] == energy.ESTIMATED
    assert row["accuracy_ci"][0] <= row["accuracy"] <= row["accuracy_ci"][1]
    assert sum(map(sum, row["confusion"])) == found["rows"] == 96
    (_, false), (missed, hit) = row["confusion"]
    assert row["scores"]["f1"] == pytest.approx(2 * hit / max(1, 2 * hit + missed + false))
    assert row["scores"]["accuracy"] == row["accuracy"] and "matthews_correlation" in row["scores"]
    assert 0 < row["latency_ms_p50"] <= row["latency_ms_p95"] <= row["latency_ms_p99"]
    assert 5e7 < row["peak_memory_bytes"] < 4e9 and row["peak_memory_problem"] == ""
    assert row["best_batch_size"] in (1, 8, 32, 64) and row["throughput_rows_per_s"] > 1000 / row["latency_ms_p95"]
    assert row["making"]["joules"] == 50 and row["payback_inferences"] > 0 and base["payback_inferences"] is None
    assert row["grams_co2_per_1000"] == pytest.approx(
        row["joules_per_1000"] / 3.6e6 * found["carbon"]["intensity_g_per_kwh"]
    )
    sci = row["sci_per_1000"]
    assert sci["sci_g"] == pytest.approx(sci["E_kwh"] * sci["I_g_per_kwh"] + sci["M"])
    assert 0 < sci["M"] < base["sci_per_1000"]["M"] and found["embodied_g_per_hour"] == 36
    assert row["saved_kwh_per_year"] == pytest.approx(row["saved_kwh_per_million"] * 365 / 1000)
    assert row["saved_kwh_per_year_ci"][0] < row["saved_kwh_per_year"] < row["saved_kwh_per_year_ci"][1]
    grams = row["saved_kwh_per_year"] * found["carbon"]["intensity_g_per_kwh"]
    assert row["saved_kg_co2_per_year"] == pytest.approx(grams / 1000) and found["traffic_per_day"] == 1000
    assert base["saved_kwh_per_year"] is None
    assert len(row["roc"]["fpr"]) <= 50 and 0 <= row["roc"]["auc"] <= 1
    assert "3 pairs" in found["protocol"]["stopped_because"] and "codecarbon" in found["energy"]["source"]
    assert told["2/6 layers: relative emission"] == row["relative_emission"]
    assert all(isinstance(value, str | int | float | bool) for value in told.values())


def test_numbers_are_finite(made, measurement):
    """NaN and Infinity are not JSON, and browsers refuse the whole file."""
    text = (made / "out.json").read_text()
    assert "NaN" not in text and "Infinity" not in text


def test_a_candidate_that_fails_keeps_the_others(measurement):
    """Hours of the other models' measurement must not be lost to one crash."""
    found, told = measurement
    broken = found["models"][2]
    assert "out of memory" in broken["error"] and broken["relative_emission"] is None and broken["pairs"] == []
    assert "out of memory" in told["1/6 layers: error"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pairs": 1}, "--pairs"),
        ({"block_seconds": 0.2}, "--block-seconds"),
        ({"batch_size": 0}, "--batch-size"),
        ({"max_rows": -1}, "--max-rows"),
        ({"traffic": -5}, "--traffic"),
        ({"embodied": -1.0}, "--embodied"),
        ({"device": "gpu"}, "--device"),
        ({"country": "Narnia"}, "--country"),
        ({"test": "empty.parquet"}, "no rows"),
        ({"test": "nowhere.parquet"}, "nowhere"),
        ({"baseline": "nowhere"}, "nowhere"),
        ({"candidates": ["nowhere"]}, "nowhere"),
        ({"candidates": ["labels"]}, "labels"),
        ({"candidates": ["words"]}, "tokenizer"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(made, changes, said):
    """A mistake must be told in seconds, not after the measurement, and leave no file."""
    if not (made / "labels").exists():
        model(made / "labels", 1, labels=("red", "green"))
        model(made / "words", 1, words=[*WORDS, "extra"])
    started = time.monotonic()
    out = made / "refused.json"
    with pytest.raises(BonsaiError, match=said):
        measure(made, **{"candidates": ["short"], "output": out, **changes})
    assert not out.exists() and time.monotonic() - started < 5


def test_cuda_without_a_gpu_is_refused(made):
    """Falling back to the CPU in silence would report a CPU's ratio as a GPU's."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BonsaiError, match="no GPU"):
        measure(made, ["short"], device="cuda")


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_gpu_without_a_counter_is_refused_before_anything_runs(made, monkeypatch, device):
    """A GPU's ratios that are made of its CPU's joules, or hours of work before it is said that there are none."""
    import pynvml
    import torch

    def no_driver():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    out = made / "refused.json"
    with pytest.raises(BonsaiError, match="NVIDIA_DRIVER_CAPABILITIES=compute,utility"):
        measure(made, ["short"], device=device, output=out)
    assert not out.exists()


@pytest.fixture
def another(tmp_path, monkeypatch):
    """Another process that measures until it is told to end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import sys, tempfile\nfrom kfp_bonsai.evaluate_emissions import machine\ntempfile.tempdir = sys.argv[1]\n"
    code += "with machine.alone():\n    print('measuring', flush=True)\n    sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) as process:
        assert process.stdout.readline() == "measuring\n"
        yield process
        process.stdin.close()


def test_a_second_measurement_refuses_at_once_if_it_shall_not_wait(made, another):
    """Two measurements at once would disturb each other, and a scheduler that cannot wait would hang."""
    started = time.monotonic()
    with pytest.raises(BonsaiError, match=r"another measurement runs.*--wait"):
        measure(made, ["short"], wait=False, output=made / "second.json")
    assert time.monotonic() - started < 5 and not (made / "second.json").exists()


def test_a_second_measurement_waits_and_says_so(another, capfd):
    """A command that hangs without a word looks like a fault; one that does not wait measures noise."""
    threading.Timer(0.5, another.stdin.close).start()
    with machine.alone():
        assert another.wait(5) == 0
    said = capfd.readouterr().out
    assert said.index("waiting: another") < said.index("going on")


def test_every_model_runs_after_every_other():
    """A model that always followed a small one, or itself, would pay or save what that one left in the caches."""
    ran = []
    subjects = [protocol.Subject(name, lambda _, name=name: ran.append(name)) for name in "abc"]
    batches = [{"input_ids": np.ones((4, 4))}] * 4
    source = SimpleNamespace(part=energy.CPU, label=energy.ESTIMATED, name="made", mark=lambda: None)
    source.between = lambda before, after: 1.0
    protocol.measure(subjects, batches, protocol.Plan(12, 0.001, 0), [source])
    turns = [name for at, name in enumerate(ran) if at == 0 or ran[at - 1] != name]
    assert set(itertools.pairwise(turns)) == set(itertools.permutations("abc", 2))


def test_every_model_is_at_every_place_of_a_request():
    """A model that always ran last would always find a hotter machine."""
    orders = [speed.order(4, done) for done in range(8)]
    assert all(sorted(one) == [0, 1, 2, 3] for one in orders)
    assert all({one[place] for one in orders} == {0, 1, 2, 3} for place in range(4))


def test_all_models_run_a_slice_before_any_runs_the_next():
    """What a neighbour does for some seconds would hit one model's whole block, and no other's."""
    ran = []

    def named(name):
        return lambda batch: ran.append((name, batch["input_ids"].shape[1])) or sum(range(20_000))

    def breaks(batch):
        if batch["input_ids"].shape[1] > 7:
            raise MemoryError

    subjects = [protocol.Subject("a", named("a")), protocol.Subject("b", named("b")), protocol.Subject("c", breaks)]
    batches = [{"input_ids": np.ones((8, length))} for length in (6, 7, 8, 9)]
    protocol.measure(subjects, batches, protocol.Plan(2, 0.2, 0), energy.find_sources())
    met = list(dict.fromkeys((length, name) for name, length in ran))
    assert [length for length, _ in met] == [6, 6, 7, 7, 8, 8, 9, 9]
    assert [len(one.joules) for one in subjects] == [2, 2, 0] and subjects[2].error.startswith("MemoryError")


def test_a_blocks_slices_count_by_their_rows():
    """A joule a row that was the plain mean over slices would overrate slices of few rows."""

    class Counter:
        part, label, name, value = energy.CPU, energy.MEASURED, "made", 0.0

        def mark(self):
            return self.value

        def between(self, before, after):
            return after - before

    source = Counter()

    def predict(batch):
        source.value += batch["input_ids"].size
        time.sleep(0.001)

    subject = protocol.Subject("a", predict)
    batches = [{"input_ids": np.ones((10, 4))}, {"input_ids": np.ones((30, 8))}]
    protocol.measure([subject], batches, protocol.Plan(2, 0.1, 0), [source])
    assert subject.joules == pytest.approx([(10 * 4 + 30 * 8) / 40] * 2)


@pytest.mark.parametrize(("precision", "budget", "said"), [(1e-9, 0, "2 times"), (1e-9, 2.5, "time budget")])
def test_rounds_stop_for_a_reason_that_is_told(precision, budget, said):
    """A reader must know whether the interval is as narrow as it was asked to be."""
    subjects = [protocol.Subject(str(i), lambda _: time.sleep(0.001) or sum(range(20_000))) for i in range(2)]
    plan = protocol.Plan(3 if budget else 2, 0.1 if not budget else 0.3, precision, budget)
    found = protocol.measure(subjects, [{"input_ids": np.ones((4, 4))}], plan, energy.find_sources())
    assert said in found.stopped and found.done >= 2


class _Failing:
    """A counter of the CPU that works for some readings only, and stands still or cannot be read after that."""

    part, label, name = energy.CPU, energy.MEASURED, "made counter"

    def __init__(self, readings):
        self.left = readings

    def mark(self):
        self.left -= 1
        if self.left < 0:
            raise energy.CounterError("the counter cannot be read")
        return time.process_time()

    def between(self, before, after):
        return 50 * (after - before)


def test_a_counter_that_fails_is_no_models_fault():
    """A candidate given up, or half a round kept, for a counter that ended in its turn."""
    subjects = [protocol.Subject(name, lambda _: sum(range(20_000))) for name in "ab"]
    batches, plan = [{"input_ids": np.ones((4, 4))}], protocol.Plan(2, 0.02, 1e-9, 60)
    with pytest.raises(energy.CounterError):
        protocol.measure(subjects, batches, plan, [_Failing(2 * 3 + 4)])
    assert [one.error for one in subjects] == ["", ""]
    for subject in subjects:
        protocol.forget(subject)
    found = protocol.measure(subjects, batches, plan, [_Failing(5 * 2 * 3 + 4)])
    assert found.done == 5 == len(subjects[1].joules) == len(found.again.joules) and "counter failed" in found.stopped


def test_a_measurement_whose_counter_fails_is_done_anew_with_the_estimate(made, monkeypatch, capsys):
    """Hours of training without a measurement, or pairs of two kinds of joules under one label."""
    monkeypatch.setattr(energy, "find_sources", lambda device: (_Failing(7), energy.Memory()))
    measure(made, ["short"], pairs=2, precision=0.0)
    found = json.loads((made / "out.json").read_text())
    assert found["energy"]["label"] == "estimated" and "made counter" not in json.dumps(found)
    assert {row["emission_label"] for row in found["models"]} == {"estimated"} and found["protocol"]["pairs"] == 2
    assert [len(row["pairs"]) for row in found["models"]] == [0, 2], "and none of the rounds before"
    assert "done anew with codecarbon" in capsys.readouterr().out


@pytest.mark.parametrize(("noise", "wanted"), [(0.0, 3), (0.3, 6)])
def test_rounds_go_on_until_the_control_proves_something(noise, wanted):
    """Narrow ratios beside a baseline that differs from itself by a third, and nothing done about it."""

    class Scripted:
        part, label, name, turn = energy.CPU, energy.MEASURED, "made", {"base": 0}

        def mark(self):
            return None

        def between(self, before, after):
            return self.joules

    source = Scripted()

    def base(batch):
        source.turn["base"] += 1
        source.joules = 1 + noise * (source.turn["base"] % 4 < 2)

    def level(batch):
        source.joules = 0.5 * (1 + noise / 2)

    subjects = [protocol.Subject("base", base), protocol.Subject("level", level)]
    plan = protocol.Plan(3, 1e-9, 2.0, seed=1)
    found = protocol.measure(subjects, [{"input_ids": np.ones((4, 4))}], plan, [source])
    assert found.done == wanted and ("asked for" in found.stopped) is (wanted == 3)
    assert ("the control has not passed" in found.stopped) is (wanted == 6)


def test_a_baseline_that_fails_ends_the_measurement():
    """Without a baseline there is nothing to be relative to."""
    subject = protocol.Subject("b", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        protocol.measure([subject], [{"input_ids": np.ones((1, 1))}], protocol.Plan(2, 0.1, 0), energy.find_sources())


def test_sleeping_is_no_energy_but_is_latency(monkeypatch):
    """A model that waits costs no more process energy; only its requests take longer."""

    def work(_):
        return sum(range(200_000))

    def sleepy(batch):
        time.sleep(0.03)
        return work(batch)

    subjects = [protocol.Subject("b", work), protocol.Subject("s", sleepy)]
    batches = [{"input_ids": np.ones((4, 4))}]
    found = protocol.measure(subjects, batches, protocol.Plan(4, 0.4, 0), energy.find_sources())
    monkeypatch.setattr(speed, "SINGLE_SECONDS", 60)
    speed.single_rows(subjects, batches * 9)
    pairs = protocol.pairs_of(subjects[1], subjects[0], found.again)
    # ten times if the clock were counted; other work on the machine makes tens of percent
    assert 0.5 < np.median([theirs / ours for ours, theirs in pairs]) < 2
    assert np.min(subjects[1].latency) > np.min(subjects[0].latency) + 0.02
    assert len(subjects[0].latency) == len(subjects[1].latency) == 9 * speed.SINGLE_PASSES


def sized(*rows):
    return [{"input_ids": np.ones((each, 4))} for each in rows]


def test_throughput_is_that_of_the_best_batch():
    """The largest batch need not be the fastest: with caches too small for it, it is not."""
    calls = []

    def predict(batch):
        rows = len(batch["input_ids"])
        calls.append(rows)
        time.sleep(0.002 + 0.0002 * rows + 0.001 * max(0, rows - 32))

    subject = protocol.Subject("s", predict)
    speed.best_batches([subject], sized(1, 8, 32, 64), seconds=0.05)
    assert subject.best_batch == 32 and 0.5 < subject.rows_per_second / (32 / 0.0084) <= 1.01  # sleep may be longer
    assert set(calls) == {1, 8, 32, 64}


def test_a_batch_that_is_too_slow_or_too_big_is_not_tried():
    """A slow model would hold up the measurement for minutes; one out of memory would lose all its results."""

    def slow(batch):
        assert len(batch["input_ids"]) <= 8
        time.sleep(0.02 * len(batch["input_ids"]))

    def small(batch):
        if len(batch["input_ids"]) > 8:
            raise MemoryError

    def never(_batch):
        raise AssertionError

    subjects = [protocol.Subject("a", slow), protocol.Subject("b", small), protocol.Subject("c", never, error="x")]
    started = time.monotonic()
    speed.best_batches(subjects, sized(1, 8, 32), seconds=0.1)
    assert time.monotonic() - started < 2
    assert subjects[0].best_batch in (1, 8) and not any(subject.error for subject in subjects[:2])
    assert subjects[1].best_batch and subjects[2].best_batch == 0


def test_blocks_take_batches_of_all_lengths():
    """Only short rows in the blocks would flatter models that are weak on long ones."""
    batches = [{"input_ids": np.ones((2, length))} for length in range(1, 101)]
    chosen, seconds = protocol.block_batches(batches, [0.1] * 100, 2.0)
    assert seconds == pytest.approx(2) and all(len(batch["input_ids"]) == 2 for batch in chosen)
    lengths = [batch["input_ids"].shape[1] for batch in chosen]
    assert len(chosen) == 20 and np.mean(lengths) == pytest.approx(50, abs=3)


@pytest.mark.parametrize(("seconds", "rows", "slices"), [(0.2, 32, 9), (1.0, 16, 4), (8.0, 2, 4), (90.0, 1, 4)])
def test_a_batch_that_takes_long_is_cut_to_fewer_rows(seconds, rows, slices):
    """Models that take turns every second or minute do not share what a neighbour does; and rounds take hours."""
    batches = [{"input_ids": np.ones((32, 512)), "attention_mask": np.ones((32, 512))}] * 30
    took = [seconds] * 29 + [50 * seconds]  # a neighbour's burst
    chosen, whole = protocol.block_batches(batches, took, 2.0)
    assert {one.shape for batch in chosen for one in batch.values()} == {(rows, 512)}
    assert len(chosen) <= slices and (seconds * rows / 32 <= 0.5 or rows == 1)
    assert whole == pytest.approx(sum(took) / 30 * rows / 32 * len(chosen))


def test_shorter_blocks_take_fewer_of_the_same_batches():
    """Trials of a search measured with nine rows at once, by which small models are dearer than in the verdict."""
    batches = [{"input_ids": np.ones((32, length))} for length in range(1, 31)]
    usual, _ = protocol.block_batches(batches, [0.36] * 30, 2.0)
    shorter, _ = protocol.block_batches(batches, [0.36] * 30, 0.4, 2.0)
    assert {len(one["input_ids"]) for one in shorter} == {len(one["input_ids"]) for one in usual}
    assert len(shorter) == 4 <= len(usual)
    assert {len(one["input_ids"]) for one in protocol.block_batches(batches, [0.36] * 30, 0.4)[0]} != {32}


def test_a_batch_of_fewer_rows_keeps_all_windows_of_each():
    """A row's energy would be that of a part of its windows."""
    row_of = np.repeat(np.arange(10, 14), [1, 3, 2, 1])
    batch = {"input_ids": np.arange(7)[:, None] * np.ones((1, 8)), protocol.ROW_OF: row_of}
    (found, *_), _ = protocol.block_batches([batch] * 4, [1.0] * 4, 2.0)
    assert found[protocol.ROW_OF].tolist() == [10, 11, 11, 11] and found["input_ids"][:, 0].tolist() == [0, 1, 2, 3]


def test_rounds_of_slow_models_take_no_longer_than_was_said(capsys):
    """A measurement of long texts that goes on for hours, and nobody knew."""

    def slow(name, each):
        return protocol.Subject(name, lambda batch: time.sleep(each * len(batch["input_ids"])) or sum(range(9_000)))

    subjects = [slow("base", 0.002), slow("small", 0.001)]
    batches = [{"input_ids": np.ones((32, 512))}] * 6
    plan = protocol.Plan(2, 0.1, 0)
    _, seconds = protocol.run_all(subjects[0], batches)
    chosen, whole = protocol.block_batches(batches, seconds, plan.block_seconds)
    assert len(chosen) == 4 and 8 <= len(chosen[0]["input_ids"]) <= 12
    rounds.announce(2, chosen, whole, plan)
    least, most = protocol.longest_seconds(2, chosen, whole, plan)
    found = protocol.measure(subjects, chosen, plan, energy.find_sources())
    assert least == most and 0.3 * most < found.seconds < 2 * most  # sleep takes longer on a busy machine
    assert "2 rounds or more of 3 blocks (the baseline's twice), each of at least 0.1s in 4 slices of " in (
        capsys.readouterr().out
    )


def test_few_single_rows_are_asked_where_each_takes_long():
    """Sixty requests of a second, by each of nine models, are half an hour for a percentile."""
    met = []
    subject = protocol.Subject("s", lambda batch: met.append(batch["input_ids"].shape[1]) or time.sleep(0.01))
    batches = [{"input_ids": np.ones((1, length))} for length in range(1, 61)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "PASS_SECONDS", 0.2)
        patch.setattr(speed, "SINGLE_SECONDS", 0.1)
        asked = speed.single_rows([subject], batches)
    assert 12 <= asked <= 20 and len(set(met[2:])) == asked and {1, 60} <= set(met)
    assert len(subject.latency) == asked


def test_flags_stand_flops_that_are_not_known():
    """A baseline without counted FLOPs would end the measurement in its last second, by a division."""
    row = {"level": "half", "stage": "compressed", "error": "", "relative_emission": 0.5, "flops_ratio": None}
    row["peak_memory_problem"] = ""
    again = protocol.Subject("again", lambda _: None)
    rounds = protocol.Rounds(again)
    common = SimpleNamespace(rounds=rounds, baseline=again)
    assert results.flags([row, row], common) == []
    assert "FLOPs" in results.flags([row, row | {"flops_ratio": 0.1}], common)[0]


def test_a_flag_tells_of_models_that_were_made_from_different_ones():
    """A champion's emission read as a share of a baseline that is not the one it was made from, without a word."""

    def row(level, model):
        lineage = [{"stage": "fine-tune", "arguments": {"model": model}}]
        return {"level": level, "stage": "compressed", "error": "", "flops_ratio": None, "lineage": lineage} | none

    none = {"peak_memory_problem": "", "relative_emission": 0.5}
    again = protocol.Subject("again", lambda _: None)
    common = SimpleNamespace(rounds=protocol.Rounds(again), baseline=again)
    rows = [row("baseline", "bert-base"), row("small", "bert-base"), row("champion (small)", "bert-large")]
    [said] = results.flags(rows, common)
    assert said.startswith("champion (small) was made from bert-large, and the baseline from bert-base")
    assert results.flags(rows[:2], common) == []


def test_payback_is_the_making_over_the_saving_and_none_without_one():
    """A model that saves nothing is never paid back, and must not be after -3 inferences."""
    assert results.payback({"joules": 10.0}, 3.0) == 4
    assert results.payback({"joules": 10.0}, -3.0) is None
    shared = {"stage": "fine-tune", "sha256": "a", "seconds": 9, "joules": 900, "energy_label": "measured"}
    stage = {"stage": "distill", "sha256": "b", "seconds": 2, "joules": 7, "energy_label": "estimated"}
    assert results.making({"lineage": [shared, stage]}, {"lineage": [shared]}) == {
        "seconds": 2,
        "joules": 7,
        "label": "estimated",
    }


def measure(made, candidates, baseline="baseline", test="test.parquet", output=None, **options):
    return evaluate_emissions(
        made / baseline,
        [made / name for name in candidates],
        made / "train.parquet",
        made / test,
        output or made / "out.json",
        **{"block_seconds": 0.3, "device": "cpu", **options},
    )


def model(folder, layers, parent=None, labels=LABELS, words=None):
    """Write a random BERT with a word-level tokenizer; with a parent, one with its first layers."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from kfp_bonsai.shared.saved import checkpoint, records

    words = words or WORDS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    inner = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=64,
        num_labels=len(labels),
    )
    network = BertForSequenceClassification(config).eval()
    task = tasks.Task("made", "classification", ("text",), tuple(labels), "accuracy", "made", "train", 60, "0")
    above = records.read_record(parent) if parent else None
    record = records.extend_record(
        above,
        stage="distill" if parent else "fine-tune",
        arguments={"model": "/models/tiny"},
        reading=energy.Reading(3, 50, 50, 0, 0, energy.ESTIMATED, "made"),
        task=task.__dict__,
        level=f"{layers}/6 layers" if parent else "baseline",
        max_length=32,
        validation={},
    )
    checkpoint.save(network, tokenizer, folder, record)


def test_a_baseline_that_learnt_nothing_is_refused_before_the_rounds(made, monkeypatch):
    """The whole measurement would be spent before the reason is told."""
    from kfp_bonsai.evaluate_emissions import accuracy

    def measured(*arguments):
        raise AssertionError("rounds have begun")

    monkeypatch.setattr(accuracy, "score_of", lambda *_: -0.1)
    monkeypatch.setattr(protocol, "measure", measured)
    with pytest.raises(BonsaiError, match="nothing can be relative to it"):
        measure(made, ["short"])
