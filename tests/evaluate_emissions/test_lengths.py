"""Models that write are compared at one length, and at their own beside it; what is said of them is of answers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import yaml
from kinds_made import rows_of
from transformers import AutoModelForCausalLM
from writers_made import TEMPLATE, split, tuned

from kfp_bonsai.evaluate_emissions import given, lengths, protocol, speed
from kfp_bonsai.evaluate_emissions.common import Scored
from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.promote import promote as promoting
from kfp_bonsai.report.report import report
from kfp_bonsai.select_model.select import select_model
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import prompts, tasks
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.inference.asking import predictions
from kfp_bonsai.shared.inference.writers import OWN, TO_WRITE, Written, torch_writer
from kfp_bonsai.shared.models.flops import Flops
from kfp_bonsai.shared.saved.records import read_record


@pytest.fixture(scope="module", params=["llama", "t5"])
def measured(request, memory_too, tmp_path_factory):
    """A folder with a model that learnt to write and one with fewer layers, its test split, and their measurement."""
    folder = tmp_path_factory.mktemp(request.param)
    base, _, validation = tuned(folder, request.param, count=480, epochs=5)
    columns = rows_of("generation", 40, 9)
    if request.param == "llama":  # which has 64 positions
        columns = {"text": [*columns["text"], "the film"], "label": [*columns["label"], "good " * 70]}
    test = split(folder / "test.parquet", columns)
    layer_remove(base, validation, folder / "small", keep="1/2")
    options = {"pairs": 2, "block_seconds": 0.3, "precision": 0.0, "device": "cpu", "country": "FRA"}
    evaluate_emissions(base, [folder / "small"], folder / "train.parquet", test, folder / "measurement.json", **options)
    return folder, test, json.loads((folder / "measurement.json").read_text())


def test_all_models_are_compared_at_the_baselines_length_and_measured_at_their_own(measured):
    """A model that stops at once, for the cheapest; joules a token of tokens that were never written."""
    folder, test, found = measured
    base, small = found["models"]
    assert not base["error"] and not small["error"]
    assert base["peak_memory_bytes"] > small["peak_memory_bytes"] > 1e8
    length = found["protocol"]["written_tokens"]
    assert length == round(base["writing"]["mean_tokens"]) == small["writing"]["tokens"] > 1
    assert base["writing"]["relative_tokens"] == base["writing"]["own"]["relative_emission"] == 1
    for row in (base, small):
        told = row["writing"]
        assert told["joules_per_token"] * length == pytest.approx(row["joules_per_1000"] / 1000)
        assert told["sci_per_1000_tokens"]["sci_g"] * length == pytest.approx(row["sci_per_1000"]["sci_g"])
        assert row["sci_per_1000"]["R"] == f"1,000 answers of {length} tokens"
        assert 0 < told["first_token_ms_p50"] < row["latency_ms_p50"]
        assert told["tokens_per_s_p50"] == pytest.approx(1000 * length / row["latency_ms_p50"])
        assert told["tokens_per_s_p95"] < told["tokens_per_s_p50"]
        assert told["perplexity_ci"][0] < told["perplexity"] < told["perplexity_ci"][1]
        assert row["scores"].keys() >= {"exact_text"} and len(row["accuracy_ci"]) == 2
    assert small["writing"]["perplexity"] > base["writing"]["perplexity"] and small["writing"]["likelihood_p"] < 0.01
    assert len(small["writing"]["own"]["pairs"]) == found["own_length"]["pairs"] and found["own_length"]["control"]
    record, reads = read_record(folder / "small"), found["protocol"]["mean_length"]
    assert small["flops"] == Flops.from_record(record).at(reads, length)
    said = predictions(folder / "base", tasks.read_task(test), tasks.batches(test))
    right = tasks.read_columns(test)["label"]
    hits = [one == other for one, other in zip(said, right, strict=True)][: found["rows"]]
    assert base["accuracy"] == pytest.approx(np.mean(hits))
    assert found["rows"] == 40 and found["protocol"].get("rows_left_out", 0) == len(right) - 40


def test_what_is_told_of_a_model_that_writes_is_of_answers_and_tokens(measured, tmp_path):
    """A report of inferences that are no answers, a card whose code does not write, a manifest of a classifier."""
    folder, _, found = measured
    found["control"] |= {"ci": [0.99, 1.01], "ratio": 1.0}
    found["models"][1] |= {"relative_emission": 0.5, "relative_emission_ci": [0.49, 0.51]}
    names = ("measurement.json", "selection.json", "r.html", "r.md", "results.json")
    files = [tmp_path / name for name in names]
    files[0].write_text(json.dumps(found | {"traffic_per_day": 1000}))
    select_model(files[0], [folder / "small"], tmp_path / "best", files[1], max_emission=0.9)
    report(files[0], files[1], *files[2:], tmp_path / "figures")
    page, lines = files[2].read_text(), files[3].read_text()
    assert "1,000 answers" in page and "1,000 inferences" not in page and "J a token" in page
    assert "### Writing" in lines and "inferences" not in lines
    assert ("1 of 41 test rows were left out" in lines) == (found["models"][0]["family"] == "llama")
    assert json.loads(files[4].read_text())["rows"][1]["writing"]["tokens"] == found["protocol"]["written_tokens"]
    settings = tmp_path / "best" / "generation_config.json"
    right = settings.read_text()
    settings.write_text(json.dumps(json.loads(right) | {"max_new_tokens": 0}))
    with pytest.raises(BonsaiError, match="does not say how long answers may be"):  # and no package of it
        package_model(tmp_path / "best", files[4], tmp_path / "package")
    settings.write_text(right)
    package_model(tmp_path / "best", files[4], tmp_path / "package")
    card = (tmp_path / "package/README.md").read_text()
    of_text = found["models"][0]["family"] == "t5"
    assert "energy of a written token" in card and "inference" not in card.split("## Files")[0]
    assert ("AutoModelForSeq2SeqLM" if of_text else "AutoModelForCausalLM") in card and "Classification" not in card
    service = next(yaml.safe_load_all((tmp_path / "package/kserve-gpu.yaml").read_text()))
    arguments = service["spec"]["predictor"]["model"]["args"]
    assert (
        f"--task={'text2text' if of_text else 'text'}_generation" in arguments
        and "--return_probabilities" not in arguments
    )


def test_rows_that_a_baseline_cannot_be_asked_are_left_out_of_all_models(tmp_path, capsys):
    """One conversation of a test split ends a measurement after hours of training, or the likelihoods crash."""
    tiny.pretrained(tmp_path, layers=1, family="gpt2", writes=True)
    tokenizer = tiny.tokenizer("gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = "{% if 'dull' in messages[0].content %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "bonsai.json").write_text(json.dumps({"max_length": 24}))
    texts, answers = ["the film"] * 40, ["good"] * 40
    texts[3], texts[5], answers[7] = "dull", "film " * 30, "good " * 64

    def read(texts):
        chats = [json.dumps([{"role": "user", "content": text}]) for text in texts]
        test = split(tmp_path / "test.parquet", {"text": chats, "label": answers}, "chat")
        task = tasks.read_task(test)
        rows = given.read_test_rows([(tmp_path, 24)], task, test, 8, 0, 4, (1,), 0)
        return rows, promoting._askable((tmp_path, tmp_path), tasks.read_columns(test), test, task)

    rows, compared = read(texts)
    assert (rows.rows, rows.left_out) == (37, 3) == (len(rows.right), 40 - len(compared["label"]))
    said = capsys.readouterr().out
    assert "3 of 40 rows are left out" in said and "test.parquet, row 4: the chat template" in said
    writer = torch_writer(AutoModelForCausalLM.from_pretrained(tmp_path), tokenizer)
    for part, labels in zip(rows.batches, rows.labels, strict=True):
        assert len(writer.likelihoods(part.batch, prompts.answers(tokenizer, labels, "", 1))) == len(labels)
    with pytest.raises(BonsaiError, match=r"6 of 40 rows, and a tenth .*test.parquet, row 1: the chat template"):
        read(["dull"] * 3 + texts[3:])


def test_lengths_out_of_the_usual_and_answers_without_an_end_are_pointed_out():
    """A level that saves by saying less, or one that never ends, believed."""

    def flags(share, ended=1.0):
        told = {"relative_tokens": share, "mean_tokens": 5.0, "tokens": 5, "ended": ended}
        return lengths.flags([{"level": "small", "writing": told | {"own": {"relative_emission": 0.4}}}])

    assert flags(0.9) == flags(1.1) == flags(1.0) == lengths.flags([{"level": "a"}]) == []
    assert "120 % of the baseline's, and take 40.0 % of its energy" in flags(1.2)[0] and flags(0.89)
    assert "ended 50 % of its answers by itself" in flags(1.0, 0.5)[0]


def test_rounds_run_the_length_that_they_are_told_and_warm_up_with_less():
    """Energy of forced answers measured on others, or half of the time spent on warming up."""
    asked = []
    subject = protocol.Subject("a", lambda batch: asked.append((len(batch["input_ids"]), int(batch[TO_WRITE][0]))))
    batch = {"input_ids": np.ones((8, 3), int), "attention_mask": np.ones((8, 3), int), TO_WRITE: np.zeros(8, int)}
    source = SimpleNamespace(part=energy.CPU, label=energy.ESTIMATED, name="made", mark=lambda: None)
    source.between = lambda before, after: 1.0
    taken = SimpleNamespace(sources=[source])
    plan = protocol.Plan(2, 0.001, 0)
    protocol.measure([subject], lengths.at(7, [batch]), plan, taken.sources)
    assert {*asked} == {(8, 7), (protocol.WARM_ROWS, protocol.WARM_TOKENS)}
    asked.clear()
    found = lengths.own(7, [subject], lengths.at(7, [batch]), 0.001, plan, taken)
    assert {*asked} == {(8, OWN), (protocol.WARM_ROWS, protocol.WARM_TOKENS)}
    assert found.tokens == 7 and len(found.own[0].joules) == found.rounds.done == len(subject.joules) == 2
    assert lengths.at(7, [{"input_ids": batch["input_ids"]}])[0].keys() == {"input_ids"}


def test_seconds_of_batches_are_those_of_the_length_they_are_measured_at():
    """Blocks planned by answers that are longer than those they run."""
    scored = Scored([], [], tokens=np.array([2, 4, 8]))
    batches = [{"input_ids": np.ones((2, 1))}, {"input_ids": np.ones((1, 1))}]
    assert lengths.seconds_at(4, scored, batches, [1.0, 1.0]) == [1.0, 0.5]
    assert lengths.of_baseline(scored) == 5 and lengths.of_baseline(Scored([], [])) == 0


def test_the_first_token_of_single_requests_is_noted():
    """A time to first token of batches, or of requests that were not timed."""
    subject = protocol.Subject("a", lambda _: Written([[1]], 0.25, 0.5))
    speed.single_rows([subject], [{"input_ids": np.ones((1, 2))}] * 12)
    assert len(subject.first_token) == len(subject.latency) and {*subject.first_token} == {0.25}
