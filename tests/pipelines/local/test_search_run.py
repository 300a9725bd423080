"""`bonsai search` on one's own machine: what it finds, goes on with, contains and refuses."""

import json
import shutil
import signal
from types import SimpleNamespace

import byte_tokens
import pytest
import tiny
from propose_ground import GROUND
from transformers import LlamaConfig, LlamaForCausalLM
from writers_made import split

from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.pipelines.local import search_budget, search_run
from kfp_bonsai.pipelines.local.search_run import search
from kfp_bonsai.pipelines.search import bench, earlier, finish, groundwork, trial
from kfp_bonsai.propose import goals
from kfp_bonsai.propose.ground import write_ground
from kfp_bonsai.propose.trials import Trial, model_in, read_trials, write_trial
from kfp_bonsai.shared.core import stopping
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.energy.cpu_estimate import watts_per_thread
from kfp_bonsai.shared.inference import cost_table
from kfp_bonsai.shared.models import shapes
from kfp_bonsai.shared.models.costs import Costs, Priced, Request, features
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

FEW = {"epochs": 4, "learning_rate": 3e-3, "augmentations": 0, "pairs": 2, "block_seconds": 0.3, "precision": 0.0}
FEW |= {"prune_steps": 8, "distill_epochs": 4.0, "validation_rows": 80, "test_rows": 80}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A random BERT of 3 layers, and a CSV."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny.pretrained(folder / "model")
    tiny.reviews(folder / "reviews.csv", 420, 1)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of these tests alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(earlier, "cached", lambda name: folder / name)
        patch.setattr(bench, "PAIRS", 2)
        patch.setattr(bench, "BLOCK_SECONDS", 0.3)
        yield folder


def files(inputs):
    return str(inputs / "model"), str(inputs / "reviews.csv")


@pytest.fixture(scope="module")
def found(inputs, cache, tmp_path_factory):
    """A search that is stopped at its third job, and gone on with: what was there then, and in the end."""
    output = tmp_path_factory.mktemp("found") / "search"
    asked = {"min_accuracy": 0.9, "budget": "2 trials", **FEW}
    done = []

    def until_the_third(job, *given, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job["number"])
        return real(job, *given, **options)

    def the_second_breaks(job, *given, **options):
        with pytest.MonkeyPatch.context() as patch:
            if job["number"] == 1:
                patch.setattr(trial, "layer_remove", lambda *_, **__: 1 / 0)
            return real(job, *given, **options)

    def removes(folder, *given, **options):
        if folder == output / "work" / "taught":
            states.append(json.loads((output / "run.json").read_text())["state"])
        remove(folder, *given, **options)

    real, remove, states = trial.run_trial, shutil.rmtree, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "run_trial", until_the_third)
        with pytest.raises(KeyboardInterrupt):
            search(*files(inputs), output, **asked)
    shutil.copytree(output, output.parent / "stopped")
    stopped = json.loads((output / "search.json").read_text())
    best = (output / "best" / "config.json").is_file()
    before = json.loads((output / "energy.json").read_text())
    made = {path: path.stat().st_mtime_ns for path in (output / "work" / "baseline").iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "run_trial", the_second_breaks)
        patch.setattr(shutil, "rmtree", removes)
        result = search(*files(inputs), output, **asked)
    again = {path: path.stat().st_mtime_ns for path in (output / "work" / "baseline").iterdir()}
    return output, result, stopped, best, before, made == again, states


def test_a_search_that_was_stopped_keeps_the_best_and_goes_on(found):
    """Hours that are lost to Ctrl-C: the best so far, the trials, the baseline, and what all of it cost."""
    output, _, stopped, best, before, same, states = found
    assert stopped["state"] == "stopped" and best and same
    assert states == ["finished"]  # else a kill has all that the baseline says made again
    assert len(before) == 1
    sessions = json.loads((output / "energy.json").read_text())
    document = json.loads((output / "search.json").read_text())
    assert len(sessions) == 2 and sessions[0] == before[0]
    assert document["energy"]["joules"] == pytest.approx(sum(one["joules"] for one in sessions), rel=0.02)
    assert not (output / "best").exists() and document["state"] == "finished"


def test_a_search_that_is_stopped_late_is_ended_with_what_it_has(found, inputs, monkeypatch):
    """Two hours that give no model, as the minutes that are left are too few for one trial more."""
    output = found[0].parent / "stopped"
    sessions = json.loads((output / "energy.json").read_text())
    spent = 22 * 60 - sum(one["seconds"] for one in sessions)
    (output / "energy.json").write_text(json.dumps([*sessions, {**sessions[0], "seconds": spent}]))
    rates = json.loads((output / "work" / "rates.json").read_text())
    (output / "work" / "rates.json").write_text(json.dumps({**rates, "measuring": 600.0}))
    ends = []
    monkeypatch.setattr(search_run.Search, "_finish", lambda *given: ends.append(given[-1]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        search(*files(inputs), output, min_accuracy=0.9, budget="25m", **FEW)
    assert ends == ["the budget of 25m is spent"]


def test_the_chosen_model_is_measured_on_test_rows_beside_the_baseline(found):
    """A winner whose figures are those of the rows that chose it."""
    output, result, *_ = found
    document = json.loads((output / "search.json").read_text())
    results = json.loads((output / "results.json").read_text())
    chosen = [row for row in results["rows"] if row["chosen"]]
    assert [row["level"] for row in chosen] == [document["chosen"]["name"]] == [result["level"]]
    assert chosen[0]["relative_accuracy"] == pytest.approx(document["test"]["relative_accuracy"])
    assert document["test"]["rows"] == 80 and 0 <= document["test"]["probability"] <= 1
    low, high = document["test"]["relative_accuracy_ci"]
    assert low <= document["test"]["relative_accuracy"] <= high
    assert (output / "model" / "bonsai.json").is_file()


def test_a_finished_search_leaves_no_models_that_were_not_measured(tmp_path):
    """Half a gigabyte for each trial of a model of 135 million parameters, for ever."""
    trials = tmp_path / "pool" / "trials"
    for name in ("000-2/model", "000-2/int8", "001-0/model", "002-2/model"):
        (trials / name).mkdir(parents=True)
    write_trial(trials / "001-0", tried(rung=0))
    search_run._tidy(tmp_path, {"front": [{"number": 0}]})
    assert {str(one.relative_to(trials)) for one in trials.rglob("*")} == {
        *("000-2", "000-2/model", "000-2/int8", "001-0", "001-0/record.json", "002-2"),
    }


def test_no_probability_is_told_as_certain():
    """On 500 rows a target would be met with a probability of 100 %, and then it is missed."""
    assert [finish._likely(one) for one in (1.0, 0.996, 0.994, 0.5, 0.001)] == [
        "more than 99 %", "more than 99 %", "99 %", "50 %", "less than 1 %",
    ]  # fmt: skip


def test_the_report_shows_all_trials(found):
    """A front of what went well: dropped and broken trials are part of what was searched."""
    output, *_ = found
    page = (output / "report.html").read_text()
    document = json.loads((output / "search.json").read_text())
    assert "What was searched" in page and (output / "figures" / "searched.svg").is_file()
    for one in document["trials"]:
        assert one["name"] in page
    assert "search.json" not in page or "http" not in page.partition("What was searched")[0][-50:]


def test_a_trial_that_breaks_is_told_of_and_the_others_go_on(found):
    """One broken trial that ends a search, or that nobody hears of."""
    output, *_ = found
    document = json.loads((output / "search.json").read_text())
    failed = [one for one in document["trials"] if one["state"] == "failed"]
    assert any("ZeroDivisionError" in one["error"] for one in failed)
    assert any(one["state"] == "healed" for one in document["trials"])


def test_its_energy_is_that_of_all_cpu_time(found):
    """Joules that leave out imports, tables, measurements, or a session before: an outside reading finds more."""
    output, *_ = found
    energy = json.loads((output / "search.json").read_text())["energy"]
    if energy["label"] != "estimated":
        pytest.skip("a counter reads the energy here")
    session = json.loads((output / "energy.json").read_text())[0]
    watts = watts_per_thread()[0]
    assert session["joules"] == pytest.approx(session["cpu_seconds"] * watts, rel=0.05)


def test_the_next_search_learns_from_it(found, cache, inputs):
    """A second search of the family that begins as if nothing were known; or one that is misled by another family's."""
    (left,) = (cache / earlier.SEARCHES).glob("*.json")
    known = earlier.earlier_searches("bert")
    assert known.count >= 1 and known.seen and len(known.gains) == 2 and known.begin
    assert earlier.earlier_searches("gpt2").count == 0
    assert earlier.earlier_searches("bert", str(left)).seen == known.seen
    with pytest.raises(BonsaiError, match=r"--before .*no file of an earlier search"):
        earlier.earlier_searches("bert", str(cache / "nowhere"))


def test_its_table_of_costs_serves_a_later_search(found, inputs):
    """A table that only its own search can read, or that is taken for one of other shapes."""
    model, asked = str(inputs / "model"), {"edge": False, "shape": "free", "device": "auto"}
    search_run._check_costs(str(found[0]), model, asked)
    search_run._check_costs(str(found[0] / "work" / "pool"), model, asked)
    with pytest.raises(BonsaiError, match=r"no file at .*costs-stock.json"):
        search_run._check_costs(str(found[0]), model, {**asked, "shape": "stock"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_accuracy": 0.8}, "holds a finished run"),
        ({"min_accuracy": 0.9}, "holds a finished run"),
    ],
)
def test_a_finished_search_is_not_gone_on_with(found, inputs, options, said):
    """Test rows that are looked at again and again, until a model meets the target on them."""
    with pytest.raises(BonsaiError, match=said):
        search(*files(inputs), found[0], budget="2 trials", **{**FEW, **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no target is stated"),
        ({"max_size_mb": 0.001}, r"--max-size-mb 0.001 cannot be met: the embeddings.*--edge"),
        ({"max_emission": 0.0001}, "--max-emission 0.0001 cannot be met"),
        ({"min_accuracy": 0.9, "budget": "soon"}, "--budget 'soon'"),
        ({"min_accuracy": 0.9, "budget": "0h"}, "--budget 0h: nothing can be tried"),
        ({"min_accuracy": 0.9, "budget": "1.5 trials"}, "a whole number of trials"),
        ({"min_accuracy": 0.9, "shape": "round"}, "--shape 'round'"),
        ({"min_accuracy": 0.9, "costs": "nowhere"}, "--costs nowhere"),
        ({"min_accuracy": 0.9, "rival": ["nowhere/at-all"]}, "^--rival .*nowhere/at-all"),
        ({"min_accuracy": 0.9, "epochs": -1.0}, "--epochs is -1.0"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_made(inputs, tmp_path, options, said):
    """Hours of training, and then the refusal."""
    with pytest.raises(BonsaiError, match=said):
        search(*files(inputs), tmp_path / "search", **options)
    assert not (tmp_path / "search").exists()


def test_a_trial_of_a_model_that_writes_is_of_answers_in_the_words_of_its_task(cache, tmp_path, monkeypatch):
    """Costs of a prompt alone; a table of other tokens than go out; or a trial that no teacher reaches any more."""
    model, sizes = tmp_path / "model", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    byte_tokens.tokenizer(model)
    ids = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 0, "max_position_embeddings": 64}
    LlamaForCausalLM(LlamaConfig(vocab_size=2000, intermediate_size=64, **sizes, **ids)).save_pretrained(model)
    texts = {"train": byte_tokens.TEXTS, "validation": byte_tokens.TEXTS[:8], "unlabelled": byte_tokens.TEXTS[:2]}
    made = {}
    for name, one in texts.items():
        columns = {"text": [text[:40] for text in one], "label": [f"the newest {text[:3]}" for text in one]}
        made[name] = split(tmp_path / f"{name}.parquet", columns, metric="rouge_l")
    base, taught, pool = tmp_path / "base", tmp_path / "taught", tmp_path / "pool"
    fine_tune(str(model), made["train"], made["validation"], base, epochs=4, learning_rate=0.02, batch_size=16)
    teacher_outputs(base, made["train"], made["unlabelled"], taught)

    def timed(config, whole, wanted, rows, tokens, device, kind, written, vocabulary):
        asked.append((written, vocabulary))
        seconds = [0.1 + sum(features(shape, False).values()) / 1000 for shape in (whole, *wanted)]
        return 2 * seconds[0], [Priced(one, False, took) for one, took in zip(wanted, seconds[1:], strict=True)]

    asked = []
    monkeypatch.setenv("BONSAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cost_table, "_timed", timed)
    ground = groundwork.lay_ground(base, made["train"], made["validation"], pool)
    assert asked == [(ground.rest["written"], ground.vocabulary)] and ground.rest["written"] > 2
    assert 256 < ground.vocabulary < 400 and ground.bounds("free", 2)[1] < 0.6
    point = ground.settled({"layers": 2, "share": 0.9 * ground.bounds("free", 2)[1], "shape": "free"})
    for rung in range(2):
        job = {"number": 0, "rung": rung, "order": rung, "point": point, "parent": -1, "share": 0.1}
        folder = pool / "trials" / f"000-{rung}"
        done = trial.run_trial(job, pool, base, taught, made, folder, prune_steps=4, distill_epochs=1)
        assert not done.error and 0.8 * point["share"] < done.predicted <= point["share"]
        kept = read_record(model_in(folder))["vocabulary"]["kept"]
        assert (kept, read_config(folder / "model")) == (ground.vocabulary, 2000)
        assert done.figures["latency_ms"] > 0 < done.figures["emission"] and done.facts["parameters"] < 20_000


def read_config(folder):
    """How many tokens a saved model has."""
    return json.loads((folder / "config.json").read_text())["vocab_size"]


def test_a_budget_too_small_for_one_trial_says_what_one_takes(inputs, tmp_path):
    """A baseline that is fine-tuned for nothing, as no time is left for a trial."""
    with pytest.raises(
        BonsaiError, match=r"too small for one trial: the baseline about .*, one trial about .*give .* or"
    ):
        search(*files(inputs), tmp_path / "search", min_accuracy=0.9, budget="20s", **FEW)
    assert not (tmp_path / "search" / "work" / "baseline").exists()


def test_the_folder_of_another_search_or_run_is_refused(inputs, tmp_path):
    """Two searches in one folder, whose trials are mixed."""
    folder = tmp_path / "search"
    with pytest.raises(BonsaiError, match="too small"):
        search(*files(inputs), folder, min_accuracy=0.9, budget="20s", **FEW)
    with pytest.raises(BonsaiError, match="differs in --min-accuracy"):
        search(*files(inputs), folder, min_accuracy=0.8, budget="1h", **FEW)
    with pytest.raises(BonsaiError, match="differs in --edge"):
        search(*files(inputs), folder, min_accuracy=0.9, budget="1h", edge=True, **FEW)
    record = json.loads((folder / "run.json").read_text())
    del record["arguments"]["search"]
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(BonsaiError, match="holds a run, and no search"):
        search(*files(inputs), folder, min_accuracy=0.9, budget="1h", **FEW)


def test_a_table_of_another_device_is_refused():
    """A target that is held against the costs of a machine that is not this one."""
    a = "cpu (A, threads: 2), float32, torch 2.13"
    groundwork.check_table(a, "cpu (A, threads: 2), float32, torch 2.14", "x", "wait")
    with pytest.raises(BonsaiError, match=r"holds costs of another device, cpu .B.*: wait"):
        groundwork.check_table("cpu (B), threads: 2, float32, torch 2", a, "x", "wait")


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"device": "cpu (another), threads: 1, torch 2"}, {}, "another device, cpu .another.*leave --costs out"),
        ({"model_type": "gpt2"}, {}, r"costs-free.json is a table of costs of another model \(gpt2, here bert\)"),
        ({"whole": {"hidden": 7}}, {}, "of another model: other widths"),
        ({"model_type": None}, {}, "of another model"),
        ({}, {"shape": "stock"}, r"of another shape \(free, here stock\)"),
        ({}, {"shape": "any"}, r"of another shape \(free, here stock\)"),
    ],
)
def test_a_table_of_another_model_is_refused_before_anything_is_made(change, options, said, inputs, tmp_path):
    """Shapes that are priced by what those of another model cost, or an hour of training and then the refusal."""
    network = pretrained.blank(pretrained.read(str(inputs / "model")).config)
    costs = Costs({"model": 1.0}, 1.0, 0.01, cost_table.device_words("cpu"))
    key = cost_table.described_model(network.config, shapes.shape_of(network), "free", Request(20.0))
    file = tmp_path / "costs-free.json"
    cost_table.write_costs(costs, file, key)
    asked = {"edge": False, "shape": "free", "device": "cpu"}
    search_run._check_costs(str(file), str(inputs / "model"), asked)
    written = json.loads(file.read_text())
    written["key"] |= {name: value for name, value in change.items() if name in key}
    written["costs"] |= {name: value for name, value in change.items() if name == "device"}
    file.write_text(json.dumps(written))
    with pytest.raises(BonsaiError, match=said):
        search(*files(inputs), tmp_path / "search", min_accuracy=0.9, costs=str(file), **{**asked, **options})
    assert not (tmp_path / "search").exists()
    with pytest.raises(BonsaiError, match=r"another length of texts \(20, here 40\)"):
        cost_table.read_costs(file, {"length": 40})
    assert cost_table.read_costs(file, {"length": 21}).baseline == 1


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("90m", "time", 5400),
        ("2h", "time", 7200),
        ("1h30m", "time", 5400),
        ("0.5h", "time", 1800),
        ("20 trials", "trials", 20),
        ("1trial", "trials", 1),
        ("300kJ", "energy", 3e5),
        ("2MJ", "energy", 2e6),
        ("0.1kWh", "energy", 3.6e5),
        ("5000J", "energy", 5000),
    ],
)
def test_budgets_are_read_as_people_write_them(text, kind, amount):
    """Two hours that are two trials, or megajoules that are millijoules."""
    found = search_budget.budget_of(text)
    assert (found.kind, found.amount) == (kind, pytest.approx(amount))


def test_a_job_that_kills_its_process_again_and_again_is_a_trial_that_failed(tmp_path, monkeypatch):
    """A search that dies of one trial's memory each time it is started again."""
    one = object.__new__(search_run.Search)
    one.work, one.pool = tmp_path, tmp_path / "pool"
    (tmp_path / "pool" / "trials").mkdir(parents=True)
    job = {"number": 0, "rung": 0, "order": 0, "point": {"layers": 1, "share": 1.0, "shape": "free"}, "parent": -1}
    (tmp_path / search_run.AT_WORK).write_text(json.dumps({"job": [0, 0], "tries": search_run.TRIES}))
    one._do(job)
    (made,) = read_trials(one.pool)
    assert "its process died" in made.error and not made.is_usable
    assert not (tmp_path / search_run.AT_WORK).exists()


@pytest.mark.parametrize("dies", [True, False])
def test_what_was_healed_before_a_rung_that_failed_stays(dies, tmp_path, monkeypatch):
    """Minutes of healing, and a model that might be chosen, gone with a step that ran out of memory."""
    one = object.__new__(search_run.Search)
    one.work, one.pool, one.baseline, one.taught, one.splits, one.seed = tmp_path, tmp_path, tmp_path, tmp_path, {}, 0
    one.options = {"device": "cpu", "edge": False, "prune_steps": 1, "distill_epochs": 1.0, "block_seconds": 0.3}
    one.targets = goals.targets_of({"min_accuracy": 0.9})
    write_ground(tmp_path, GROUND)
    (tmp_path / "trials" / "000-0" / "model").mkdir(parents=True)
    (tmp_path / "trials" / "000-0" / "model" / "weights").write_text("healed")
    write_trial(tmp_path / "trials" / "000-0", tried(rung=0))
    job = {"number": 0, "rung": 1, "order": 5, "point": tried().point, "parent": -1, "share": 0.25}
    if dies:
        (tmp_path / search_run.AT_WORK).write_text(json.dumps({"job": [0, 1], "tries": search_run.TRIES}))
    one._do(job)
    assert [folder.name for folder in (tmp_path / "trials").iterdir()] == ["000-1"]
    assert (tmp_path / "trials" / "000-1" / "model" / "weights").read_text() == "healed"
    (made,) = read_trials(tmp_path)
    assert made.is_usable and made.rung == 0 and made.cost == tried(rung=0).cost
    assert made.error.startswith("healing it further failed") and not made.may_go_on


@pytest.mark.parametrize(
    ("edge", "quantized", "said"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_model_that_is_not_quantized_yet_is_said_to_be_none(edge, quantized, said, tmp_path, monkeypatch, capsys):
    """Float weights carried to an edge device, as the search that was stopped was asked for int8."""
    one = object.__new__(search_run.Search)
    one.pool, one.output, one.options, one.command = tmp_path / "pool", tmp_path, {"edge": edge}, []
    one.targets, one.ledger = goals.targets_of({"min_accuracy": 0.5}), SimpleNamespace(total=dict)
    folder = one.pool / "trials" / "000-0"
    for name in ("model", *(["int8"] if quantized else [])):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_text(name)
    write_ground(one.pool, GROUND)
    write_trial(folder, tried(rung=1))
    one._keep_best()
    assert (tmp_path / "best" / "weights").read_text() == ("int8" if quantized else "model")
    assert ("not quantized yet" in capsys.readouterr().out) == said


@pytest.mark.parametrize(("left", "most"), [(60.0, 3), (600.0, 5)])
@pytest.mark.parametrize("budget", ["1h", "9kJ"])
def test_as_many_models_are_measured_as_the_budget_has_room_for(budget, left, most, tmp_path, monkeypatch):
    """A budget in joules that is overrun at its end, as more is measured than was put aside for that."""
    one = object.__new__(search_run.Search)
    one.budget, one.options, one.work, one.seed = search_budget.budget_of(budget), {"edge": False}, tmp_path, 0
    one.pool = one.baseline = one.splits = one.targets = one.command = None
    spent = one.budget.amount - left * one.budget.a_second
    one.ledger = SimpleNamespace(total=lambda: {"seconds": spent, "joules": spent})
    rates = search_budget.Rates(0.01, 100, 10, 1.0, 60.0, 12.0, 60.0)
    found = []
    monkeypatch.setattr(finish, "finish", lambda *_, most, **__: found.append(most) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one._finish(GROUND, rates, "")
    assert found == [most]


def test_notes_of_a_killed_process_that_are_damaged_are_taken_for_none(tmp_path, monkeypatch):
    """A file that a full disk cut off, and that ends each later start."""
    one = object.__new__(search_run.Search)
    one.work, one.pool, one.baseline, one.taught, one.splits, one.seed = tmp_path, tmp_path, tmp_path, tmp_path, {}, 0
    one.options = {"device": "cpu", "edge": False, "prune_steps": 1, "distill_epochs": 0.0, "block_seconds": 0.3}
    one.targets = goals.targets_of({"min_accuracy": 0.9})
    job = {"number": 0, "rung": 0, "order": 0, "point": {"layers": 1, "share": 1.0, "shape": "free"}, "parent": -1}
    done = []
    monkeypatch.setattr(trial, "run_trial", lambda job, *_, **__: done.append(job))
    for damaged in ('{"job": [0,', '{"job": [0, 0], "tries": "two"}', "3"):
        (tmp_path / search_run.AT_WORK).write_text(damaged)
        one._do(job)
        (tmp_path / search_run.RATES).write_text(damaged)
        assert search_budget.read_rates(tmp_path / search_run.RATES) is None
    assert done == 3 * [job]


@pytest.mark.parametrize("odd", ['{"format": 1, "model_type": "bert", "chosen": {}, "trials": [{"kept": [1]}]}', "[]"])
def test_an_odd_file_of_an_earlier_search_is_left_out(odd, tmp_path, monkeypatch, capsys):
    """One odd file in the cache that ends all later searches of its family; one that was asked for is refused."""
    monkeypatch.setattr(earlier, "cached", lambda name: tmp_path)
    earlier.leave([tried()], tried(), "bert", "a search")
    (tmp_path / "odd.json").write_text(odd)
    assert earlier.earlier_searches("bert").count == 1
    assert "an earlier search is left out" in capsys.readouterr().out
    with pytest.raises(BonsaiError, match=r"odd\.json"):
        earlier.earlier_searches("bert", str(tmp_path))


def tried(rung=2, **others):
    """A trial that was healed as far as this rung."""
    told = {"relative_accuracy": 0.95, "score": 0.8, "draws": [0.94, 0.96], "seconds": 9.0, "joules": 90.0}
    healed = [{"rung": at, "order": at, **told} for at in range(rung + 1)]
    point = {"layers": 1, "share": 0.5, "shape": "free"}
    return Trial(0, point, healed=healed, figures={"emission": 0.5, "emission_ci": [0.4, 0.6]}, **others)


ODD = ("none", [], {"seconds": "1"}, {"seconds": None}, {"label": "guessed"}, {"label": []})


@pytest.mark.parametrize("change", ODD, ids=range(len(ODD)))
def test_what_earlier_sessions_left_is_added_up_where_it_can_be(tmp_path, change):
    """A search that cannot go on for a file that is there for the sum alone."""
    whole = {"seconds": 10.0, "joules": 20.0, "cpu_seconds": 5.0, "label": "estimated", "source": "CPU"}
    odd = {**whole, **change} if isinstance(change, dict) else change
    (tmp_path / "energy.json").write_text(json.dumps([whole, odd]))
    with search_budget.kept_ledger(tmp_path / "energy.json") as ledger:
        assert ledger.total()["sessions"] == 2 and 10 <= ledger.total()["seconds"] < 20


@pytest.mark.parametrize("ignored", [False, True])
def test_a_search_that_is_asked_to_end_lets_its_training_keep_where_it_is(ignored):
    """A node that is taken away would cost the training since its last checkpoint, which Ctrl-C does not."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    kept = False
    try:
        with pytest.raises(KeyboardInterrupt), search_run._interruptible(), stopping.heeded():
            signal.raise_signal(signal.SIGTERM)
            kept = stopping.asked()
    finally:
        signal.signal(signal.SIGINT, before)
    assert kept != ignored and not stopping.asked()
