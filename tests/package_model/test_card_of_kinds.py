"""Card, manifest and registry of every kind of task: the hub's names, code that runs, and who can serve it."""

import contextlib
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny
import torch
import transformers
from made_package import made_selection, write

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_kinds import LABELS, TASKS, measurement_of

from kfp_bonsai.package_model.card import model_card
from kfp_bonsai.package_model.kserve import manifest, not_for_kserve
from kfp_bonsai.package_model.register import facts_of
from kfp_bonsai.report.report import report
from kfp_bonsai.shared.inference.asking import asked, together
from kfp_bonsai.shared.inference.onnx_export import export
from kfp_bonsai.shared.inference.runtimes import load_predictor
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.models.heads import AUTO
from kfp_bonsai.shared.models.tokens import settle
from kfp_bonsai.shared.saved.checkpoint import save

HUB = {
    "multi-label": "text-classification",
    "tokens": "token-classification",
    "questions": "question-answering",
    "ranking": "text-ranking",
}


def task_of(kind: str) -> Task:
    """A task of a kind, with the labels of the made results."""
    values = TASKS[kind]
    columns, labels = tuple(values["columns"]), tuple(values["labels"])
    return Task("made", kind, columns, labels, values["metric"], "made", "test", 1, "", "words" * (kind == "tokens"))


def folder_of(kind: str, folder: Path) -> Path:
    """Save a random model of a kind, as fine-tune does, whose longest input is 16 tokens."""
    task = task_of(kind)
    names = kinds.kind_of(task).outputs(task)
    config = transformers.AutoConfig.from_pretrained(tiny.pretrained(folder, layers=1))
    config.id2label, config.label2id = dict(enumerate(names)), {name: at for at, name in enumerate(names)}
    torch.manual_seed(1)
    model = getattr(transformers, AUTO[kinds.kind_of(task).head]).from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    record = {"max_length": 16, "task": {**task.__dict__, "notes": []}, "lineage": [{"stage": "fine-tune"}]}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    settle(tokenizer, model.config)
    save(model, tokenizer, folder, record)
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of each kind."""
    found = {}
    for kind in TASKS:
        folder, measurement = tmp_path_factory.mktemp(kind), measurement_of(kind)
        outputs = [folder / name for name in ("r.html", "r.md", "results.json", "figures")]
        report(write(folder / "m.json", measurement), write(folder / "s.json", made_selection(measurement)), *outputs)
        found[kind] = json.loads(outputs[2].read_text())
    return found


RECORD = {"max_length": 16, "model_type": "bert", "shape": {"kind": "stock"}, "sha256": "0" * 64}


def card_of(results: dict, **changes) -> str:
    """The card of the chosen model."""
    row = next(row for row in results["rows"] if row["chosen"]) | changes
    return model_card("made", "mit", RECORD, results, row)


def run(card: str, folder: Path, texts: dict[str, str]) -> str:
    """Run a card's code in a folder, on texts of ours in place of its own, and return what it prints."""
    [code] = re.findall(r"```python\n(.*?)```", card, re.S)
    for old, new in texts.items():
        assert old in code
        code = code.replace(old, new)
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    return printed.getvalue()


def ours(folder: Path, kind: str, *texts: str) -> dict:
    """What our server tells of a row."""
    task = task_of(kind)
    part = asked(folder, [[text] for text in texts], task)
    return kinds.tell(task, *together([load_predictor(folder).predict(part.batch)], [part]))[0]


@pytest.mark.parametrize("kind", TASKS)
def test_the_hub_is_told_the_task(results, kind):
    """A tagger that the hub lists as a classifier, with a widget that fails."""
    from huggingface_hub import ModelCard

    data = ModelCard(card_of(results[kind])).data
    assert data.pipeline_tag == HUB[kind] and data.eval_results[0].task_type == HUB[kind]
    assert facts_of({**RECORD, "lineage": []}, results[kind], results[kind]["rows"][1])["task"] == HUB[kind]


def test_taggers_are_used_by_the_stock_pipeline(results, tmp_path):
    """Code that runs on nobody's machine, or tags other stretches than were scored."""
    folder, text = folder_of("tokens", tmp_path / "model"), "the film was great and the plot was awful music " * 3
    printed = run(card_of(results["tokens"]), folder, {"a text": text.strip()})
    found = [(int(a), int(b)) for a, b in re.findall(r"'start': (\d+), 'end': (\d+)", printed)]
    spans = ours(folder, "tokens", text.strip())["spans"]
    assert spans and {one["label"] for one in spans} <= set(LABELS)
    inside = [one for one in spans if one["end"] < 30]  # both read the first window alone there
    assert [(one["begin"], one["end"]) for one in inside] == [one for one in found if one[1] < 30]


def test_answers_are_found_by_the_stock_class(results, tmp_path):
    """Other logits than were scored, as plain transformers has two outputs and ours has one."""
    folder = folder_of("questions", tmp_path / "model")
    row = "what film", "the plot was great and awful"
    printed = run(card_of(results["questions"]), folder, {"a question": row[0], "a text": row[1]})
    part = asked(folder, [[text] for text in row], task_of("questions"))
    logits = load_predictor(folder).predict(part.batch)[0]
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)
    stock = model(
        **{name: torch.from_numpy(part.batch[name]) for name in ("input_ids", "attention_mask", "token_type_ids")}
    )
    both = np.stack([one[0].detach().numpy() for one in (stock.start_logits, stock.end_logits)], axis=-1)
    assert np.allclose(logits, both, atol=1e-5)
    assert printed.strip() == ours(folder, "questions", *row)["answer"]


def test_pairs_are_ranked_by_a_cross_encoder(results, tmp_path, monkeypatch):
    """Code for a class that reads pairs otherwise. The library is not needed: a stand-in is given them."""
    folder, given = folder_of("ranking", tmp_path / "model"), []

    class CrossEncoder:
        def __init__(self, name: str, max_length: int) -> None:
            given.append((name, max_length))

        def predict(self, pairs: list) -> list:
            return pairs

    stand_in = ModuleType("sentence_transformers")
    stand_in.CrossEncoder = CrossEncoder
    monkeypatch.setitem(sys.modules, "sentence_transformers", stand_in)
    assert "another text" in run(card_of(results["ranking"]), folder, {})
    assert given == [(".", 16)]


def test_labels_have_a_chance_each(results, tmp_path):
    """Logits printed as they are, of which a reader takes the largest."""
    folder = folder_of("multi-label", tmp_path / "model")
    printed = run(card_of(results["multi-label"]), folder, {"a fine film": "the film", "a dull one": "the film"})
    chances = ours(folder, "multi-label", "the film")["probabilities"].values()
    assert [float(one) for one in re.findall(r"0\.\d+", printed)[:2]] == pytest.approx([*chances], abs=1e-3)


@pytest.mark.parametrize("kind", TASKS)
def test_an_onnx_file_is_used_by_its_snippet(results, tmp_path, kind):
    """Code of an edge device that prints logits of a token as if they were a row's."""
    folder = folder_of(kind, tmp_path / "model")
    texts = {"a first text": "what film", "a second text": "the plot was great and awful"}
    texts = texts if kind == "questions" else {}
    expected = ours(folder, kind, *texts.values()) if texts else {}
    export(folder, folder / "model.onnx")
    printed = run(card_of(results[kind], stage="quantized", runtime="onnxruntime"), folder, texts)
    assert printed.strip()
    if kind == "questions":
        assert printed.strip() == expected["answer"]
    if kind == "multi-label":
        assert all(0 < float(one) < 1 for one in re.findall(r"0\.\d+", printed))


def test_the_card_is_of_labels(results):
    """Weakest classes of a table that there is none of, or limits that are not so."""
    text = card_of(results["tokens"]).replace("\u00a0", " ")
    assert "marking LOC, PER, in texts" in text and "Weakest label: `LOC`, with an F1 of 0.0 %." in text
    assert "`LOC` 85.0 → 0.0 %, `PER` 85.0 → " in text
    assert "were read in parts that overlap" in text and "tokens are cut" not in text
    assert "tokens are cut" in card_of(results["ranking"]) and ", 125 queries, of" in card_of(results["ranking"])
    assert "a list of words reaches" in text and "bag of words" not in text


def test_a_number_with_names_is_not_for_kserves_own_server(results, monkeypatch):
    """Classes in order that a model tells by one number, and a server that names the likeliest of one."""
    names = {"task": {**results["multi-label"]["task"], "kind": "stars"}}
    monkeypatch.setitem(kinds.KINDS, "stars", replace(kinds.KINDS["regression"], named=True))
    assert "it predicts a number" in not_for_kserve(RECORD, names)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("tokens", "without its place"),
        ("questions", "no questions"),
        ("multi-label", "names one"),
        ("ranking", "a score"),
    ],
)
def test_what_kserves_own_server_cannot_answer_is_served_by_ours(results, tmp_path, kind, why):
    """A manifest that starts, and answers the likeliest label of a row for each of its tokens."""
    assert why in not_for_kserve(RECORD, results[kind])
    row = next(row for row in results[kind]["rows"] if row["chosen"])
    _, text = manifest(tmp_path, "made", {**RECORD}, results[kind], row, "", "registry/kfp-bonsai")
    assert "kind: ServingRuntime" in text and why in text and "sequence_classification" not in text
