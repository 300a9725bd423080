"""Fine-tuning: it learns, keeps its best epoch, resumes, and refuses what cannot work before it starts."""

import contextlib
import functools
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import rows, tasks
from kfp_bonsai.shared.saved import stored
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.training import attempts, checkpoints, trainer
from kfp_bonsai.shared.training.dropout import without_dropout

EMBEDDINGS = "bert.embeddings.word_embeddings.weight"


def tune(made, output, **options):
    return fine_tune(str(made.pretrained), made.train, made.validation, output, **{"epochs": 1, **options})


def test_the_baseline_learns_the_task(made):
    """Else the Trainer trains something else than the labels: chance is 0.5."""
    assert made.tuned["accuracy"] > 0.9


def test_the_baseline_loads_with_its_labels_and_record(made):
    """Else a server shows LABEL_0, and later stages know nothing of the task or the cost."""
    model, _ = load(made.baseline)
    record = read_record(made.baseline)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert record["task"]["labels"] == ["bad", "good"]
    assert record["lineage"][0]["joules"] > 0
    assert record["validation"]["accuracy"] == made.tuned["accuracy"]
    assert not list(made.folder.glob(".baseline*")), "checkpoints left behind"


def test_an_interrupted_run_goes_on(made, tmp_path, monkeypatch, capsys):
    """Else a killed pod loses its epochs, or what they cost is left out of what the report tells."""
    epochs = {"done": 0}
    evaluate = trainer._Trainer.evaluate

    def stop_after_first(self, *args, **options):
        epochs["done"] += 1
        if epochs["done"] == 2:
            raise KeyboardInterrupt
        return evaluate(self, *args, **options)

    monkeypatch.setattr(trainer._Trainer, "evaluate", stop_after_first)
    with pytest.raises(KeyboardInterrupt):
        tune(made, tmp_path / "model", epochs=3)
    assert not (tmp_path / "model").exists(), "a half-made model was left"
    monkeypatch.setattr(trainer._Trainer, "evaluate", evaluate)
    (note,) = tmp_path.glob(".model*/checkpoint-10/told.json")
    told = json.loads(note.read_text())
    first = told["spent"]
    assert first["joules"] > 0 and first["seconds"] > 0
    told["spent"] = {**first, "joules": 1e6 + first["joules"], "seconds": 1e6 + first["seconds"]}
    note.write_text(json.dumps(told))
    (note.parent / checkpoints.HASH).write_text(checkpoints._hash(note.parent))
    found = tune(made, tmp_path / "model", epochs=3)
    assert found["joules"] > 1e6 + first["joules"] and found["seconds"] > 1e6 + first["seconds"]
    assert "resuming" in capsys.readouterr().out
    assert not list(tmp_path.glob(".model*"))


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(
    ("bf16", "dropping", "during"),
    [
        (True, False, ["eager", "sdpa", "eager"]),
        (False, False, ["sdpa"] * 3),
        (True, True, ["eager"] * 3),
        (False, True, ["eager"] * 3),
    ],
)
def test_a_cpu_trains_with_plain_attention_where_it_is_faster(made, lost, bf16, dropping, during, monkeypatch):
    """Else training takes a third to twice as long, long rows take gigabytes, or the models it leaves are slow."""
    monkeypatch.setattr(trainer.torch.cuda, "is_available", lambda: False)
    model, _ = load(made.baseline)
    if not dropping:
        without_dropout(model)
    found = []
    with contextlib.suppress(KeyboardInterrupt), trainer._attention_for_training(model, bf16) as attend:
        for width in (26, 512, 128):
            attend(width)
            found.append(model.base_model.encoder.layer[0].attention.self.config._attn_implementation)
        if lost:
            raise KeyboardInterrupt
    assert found == during and model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("has", "seconds", "wanted"), [(True, 0.5, True), (True, 1.6, False), (False, 0.5, False)])
def test_bfloat16_is_used_where_a_cpu_gains_by_it(monkeypatch, has, seconds, wanted):
    """Training took half as long again on a processor that has the instructions, and computes slower by them."""
    clock = {"now": 0.0}

    class Product:
        def __init__(self, dtype):
            self.seconds = seconds if dtype is trainer.torch.bfloat16 else 1.0

        def __matmul__(self, other):
            clock["now"] += self.seconds

    monkeypatch.setattr(trainer.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(trainer.torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    monkeypatch.setattr(trainer.torch, "ones", lambda *_, dtype: Product(dtype))
    monkeypatch.setattr(trainer.time, "process_time", lambda: clock["now"])
    trainer._bf16_gains.cache_clear()
    assert trainer.bf16_is_faster() is wanted
    trainer._bf16_gains.cache_clear()


def test_rows_attend_by_their_length_while_a_model_trains(tmp_path, monkeypatch):
    """Else what sets the attention is never asked, and rows of 512 tokens take gigabytes of scores."""
    monkeypatch.setattr(trainer, "bf16_is_faster", lambda: True)
    monkeypatch.setattr(trainer, "device", lambda: "cpu")
    monkeypatch.setattr(trainer, "FUSED_FROM", 20)
    model = AutoModelForSequenceClassification.from_pretrained(tiny.pretrained(tmp_path / "model"))
    without_dropout(model)
    inputs = [np.full(length, 7, np.int32) for length in [8] * 3 + [24] * 3]
    given, met = rows.Rows({"input_ids": inputs}, np.zeros(6, np.int64)), set()

    def objective(network, batch, _whole):
        met.add((batch["input_ids"].shape[1], network.config._attn_implementation))
        return network(**batch).loss

    recipe = trainer.Recipe("fine-tune", 1, 1e-4, 1)
    trainer.train(model, given, recipe, attempts.Attempt(tmp_path / "scratch"), objective=objective)
    assert met == {(8, "eager"), (24, "sdpa")}


@pytest.mark.parametrize(("epochs", "frozen", "left"), [(1, False, 0), (3, False, 0), (9, True, 0), (9, False, 2)])
def test_checkpoints_that_have_no_room_are_refused_before_the_training(
    made, tmp_path, monkeypatch, epochs, frozen, left
):
    """Epochs are lost at the checkpoint that fills the disk; or one that has room is refused."""
    network, _ = load(made.baseline)
    whole, embeddings = network.num_parameters(), network.get_input_embeddings().weight.numel()
    for number in range(left):
        (tmp_path / "scratch" / f"checkpoint-{number}").mkdir(parents=True)
    needed = (3 - left) * (12 * whole - 8 * embeddings * frozen + 4 * whole * (epochs > 1))
    monkeypatch.setattr(attempts, "free_bytes", lambda folder: needed)
    attempts.check_room(tmp_path / "scratch", network, epochs, frozen)
    monkeypatch.setattr(attempts, "free_bytes", lambda folder: needed - 1)
    with pytest.raises(BonsaiError, match=rf"\({3 - left} times "):
        attempts.check_room(tmp_path / "scratch", network, epochs, frozen)
    with pytest.raises(BonsaiError, match="free, and fine-tuning's checkpoints"):
        monkeypatch.setattr(attempts, "free_bytes", lambda folder: 0)
        tune(made, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_rows_that_are_cut_are_counted_in_the_log(made, tmp_path, capsys):
    """Else most rows lose their ends, and nobody is told to give --max-length."""
    tune(made, tmp_path / "model", epochs=0.1, max_length=10)
    longer = sum(len(text.split()) > 8 for text in tasks.read_columns(made.train)["text"])
    assert f"{longer} of 320 training rows are longer than 10 tokens" in capsys.readouterr().out and 50 < longer < 320


@pytest.mark.parametrize(("rate", "warned"), [(1e-7, True), (3e-3, False)])
def test_a_model_that_answers_all_rows_alike_is_told_of(made, tmp_path, capsys, rate, warned):
    """An F1 of 0.81 by saying yes to everything, of which every smaller model would then keep 100 %."""
    fine_tune(str(made.pretrained), made.train, made.validation, tmp_path / "base", epochs=5, learning_rate=rate)
    assert ("one answer, as a model does that learnt nothing" in capsys.readouterr().out) == warned


def test_only_attempts_of_one_run_share_checkpoints(made, tmp_path, monkeypatch):
    """Else two runs are mixed, delete each other's checkpoints, or a best epoch is taken by another split's scores."""
    found = []

    def stop(_network, _rows, _recipe, attempt, **_options):
        found.append(attempt.folder)
        raise KeyboardInterrupt

    def attempt(validation=made.validation, **options):
        with pytest.raises(KeyboardInterrupt):
            fine_tune(str(made.pretrained), made.train, validation, tmp_path / "output", **options)
        return found[-1]

    monkeypatch.setattr(trainer, "train", stop)
    monkeypatch.setenv("BONSAI_RUN", "first")
    first = attempt()
    assert attempt() == first and ".first." in first.name
    others = {attempt(epochs=2), attempt(made.train)}
    with monkeypatch.context() as patch:
        patch.setattr("kfp_bonsai.shared.training.attempts.__version__", "another")
        others.add(attempt())
    monkeypatch.setenv("BONSAI_RUN", "second")
    others.add(attempt())
    assert len(others) == 4 and first not in others


def test_a_pipelines_second_attempt_resumes_though_its_output_is_elsewhere(made, tmp_path, monkeypatch, capsys):
    """Else `bonsai run`, whose tasks get a new folder at each start, trains an interrupted baseline all over again."""
    from kfp_bonsai.shared.core.files import SCRATCH

    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "predict", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(made, tmp_path / "first" / "model", epochs=2)
    (kept,) = (tmp_path / "scratch").iterdir()
    (kept / "checkpoint-999").mkdir()  # broken off while it was written
    tune(made, tmp_path / "second" / "model", epochs=2)
    assert "resuming" in capsys.readouterr().out
    assert not list((tmp_path / "scratch").iterdir())


def test_a_lost_loss_is_an_error(made, tmp_path):
    """Else an hour is spent on a model of NaNs."""
    with pytest.raises(BonsaiError, match=r"(loss became|NaN or infinity)"):
        tune(made, tmp_path / "model", learning_rate=1e20)
    assert not list(tmp_path.iterdir()), "checkpoints of a lost model were left"


@pytest.mark.parametrize(
    ("length", "said"),
    [(-5, "--max-length is -5: give 0 or more"), (2, "length 2: give 3 to 64"), (65, "length 65: give 3 to 64")],
)
def test_a_length_that_the_model_cannot_take_is_refused(made, tmp_path, length, said):
    """Else an index error in the embeddings, or texts cut to nothing."""
    with pytest.raises(BonsaiError, match=said):
        tune(made, tmp_path / "model", max_length=length)


@pytest.mark.parametrize(("family", "positions"), [("roberta", 63), ("mpnet", 62), ("bert", 64)])
def test_texts_longer_than_the_positions_are_cut(made, tmp_path, family, positions):
    """Else RoBERTa and MPNet, which lose the positions up to a token's number, fail on long texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    long = pq.read_table(made.train)
    texts = pa.array([" ".join([text] * 20) for text in long["text"].to_pylist()])
    pq.write_table(long.set_column(0, long.schema.field("text"), texts), tmp_path / "long.parquet")
    model = tiny.pretrained(tmp_path / "pretrained", family=family)
    fine_tune(str(model), tmp_path / "long.parquet", made.validation, tmp_path / "model", epochs=0.05)
    assert read_record(tmp_path / "model")["max_length"] == positions


def test_splits_without_labels_are_refused(made, tmp_path):
    """Else a KeyError after the model was loaded."""
    with pytest.raises(BonsaiError, match="has no labels"):
        fine_tune(str(made.pretrained), made.train, made.unlabelled, tmp_path / "model")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "mamba"}'), "'mamba' is not supported"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled weights"),
        (lambda folder: (folder / "config.json").write_text("[]"), "was not written by `save_pretrained`"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"broken"), "is cut off"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "is cut off"),
        (lambda folder: os.truncate(folder / "model.safetensors", 9000), "is cut off"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"a'), "is not JSON, or is cut off"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "b.safetensors"}}'
            ),
            "b.safetensors is missing",
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(made, tmp_path, spoil, message):
    """Else the user sees a stack trace of transformers, or unpickles a stranger's code."""
    folder = tmp_path / "model"
    shutil.copytree(made.pretrained, folder)
    spoil(folder)
    with pytest.raises(BonsaiError, match=message):
        fine_tune(str(folder), made.train, made.validation, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_body_with_missing_weights_is_refused(made, tmp_path):
    """Else a truncated checkpoint is filled up with random weights in silence."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(made.pretrained, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BonsaiError, match="lacks weights of the model's body"):
        fine_tune(str(folder), made.train, made.validation, tmp_path / "out")


def test_no_folder_and_bad_numbers_are_refused(made, tmp_path):
    """Else a typing mistake costs a download or a run."""
    with pytest.raises(BonsaiError, match=r"no model folder at \./nowhere"):
        fine_tune("./nowhere", made.train, made.validation, tmp_path / "out")
    with pytest.raises(BonsaiError, match="--epochs is 0"):
        tune(made, tmp_path / "out", epochs=0)
    with pytest.raises(BonsaiError, match="no data set at"):
        fine_tune(str(made.pretrained), tmp_path / "none.parquet", made.validation, tmp_path / "out")


def test_an_output_in_use_is_refused(made, tmp_path):
    """Else a second run overwrites the first."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "something").write_text("kept")
    with pytest.raises(BonsaiError, match="exists already"):
        tune(made, tmp_path / "out")


def test_who_may_read_the_configuration_may_read_the_weights(made):
    """By itself transformers writes weights for their owner alone: a server of another user would not start."""
    assert (made.baseline / "model.safetensors").stat().st_mode == (made.baseline / "config.json").stat().st_mode


def start_again(made, folder, names, **settings):
    """Return a copy of the baseline as a model to start from, whose classes have these names."""
    shutil.copytree(made.baseline, folder)
    file = folder / "config.json"
    config = json.loads(file.read_text()) | settings
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    file.write_text(json.dumps(config))
    return folder


def hardly(made, start, output):
    """Fine-tune so little that the result is what it began with."""
    options = {"epochs": 0.1, "learning_rate": 1e-9, "batch_size": 32}
    return fine_tune(str(start), made.train, made.validation, output, **options)["accuracy"]


@pytest.mark.parametrize(
    ("names", "kept", "said"),
    [
        (["bad", "good"], True, ""),
        (["LABEL_0", "LABEL_1"], True, ""),
        (["Good", "Bad"], False, "put into the data's order (bad, good)"),
        (["entailment", "contradiction"], None, "made for other classes (entailment, contradiction): a new head"),
    ],
)
def test_a_classifier_of_before_goes_on_by_its_classes_names(made, tmp_path, capsys, names, kept, said):
    """One that knows the classes in another order begins with every answer wrong; one of other classes misleads."""
    found = hardly(made, start_again(made, tmp_path / "start", names), tmp_path / "model")
    assert said in capsys.readouterr().out
    if kept is not None:
        assert found == pytest.approx(made.tuned["accuracy"] if kept else 1 - made.tuned["accuracy"], abs=0.02)
    else:
        weight = load(tmp_path / "model")[0].classifier.weight
        assert not weight.equal(load(made.baseline)[0].classifier.weight) and 0.001 < weight.std() < 0.1


@pytest.mark.parametrize(
    "setting", [{"output_hidden_states": True}, {"output_attentions": True}, {"return_dict": False}]
)
def test_what_a_model_is_set_to_return_is_of_no_matter(made, tmp_path, setting):
    """A whole epoch, and then a shape that cannot be stacked, or a tuple without logits."""
    start = start_again(made, tmp_path / "start", ["bad", "good"], **setting)
    assert hardly(made, start, tmp_path / "model") == pytest.approx(made.tuned["accuracy"], abs=0.02)


def test_another_model_or_metric_does_not_resume(made, tmp_path, monkeypatch):
    """A run that goes on from other weights, or keeps the best epoch by another metric's scores."""
    found = []

    def stop(_network, _rows, _recipe, attempt, **_options):
        found.append(attempt.folder)
        raise KeyboardInterrupt

    def attempt(train, validation):
        with pytest.raises(KeyboardInterrupt):
            fine_tune(str(start), train, validation, tmp_path / "model")
        return found[-1]

    start = start_again(made, tmp_path / "start", ["bad", "good"])
    monkeypatch.setattr(trainer, "train", stop)
    first = attempt(made.train, made.validation)
    assert attempt(made.train, made.validation) == first
    by_f1 = [with_metric(path, tmp_path / path.name, "f1") for path in (made.train, made.validation)]
    assert attempt(*by_f1) != first
    shutil.copy(made.pretrained / "model.safetensors", start)
    assert attempt(made.train, made.validation) != first


def with_metric(split, to, metric):
    task = tasks.read_task(split)
    table = pq.read_table(split)
    pq.write_table(table.cast(tasks.schema(replace(task, metric=metric))), to)
    return to


def test_relative_positions_are_refused(made, tmp_path):
    """Transformers would drop their weights without a word, and another model be trained."""
    start = start_again(made, tmp_path / "start", ["bad", "good"], position_embedding_type="relative_key")
    with pytest.raises(BonsaiError, match="position_embedding_type to relative_key"):
        hardly(made, start, tmp_path / "model")


def test_a_gpu_that_emulates_bfloat16_trains_without(monkeypatch):
    """On a T4 or V100 it is slower than float32."""
    monkeypatch.setattr(trainer.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(trainer.torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not trainer.bf16_is_faster()


def test_the_best_epoch_is_kept_of_a_model_with_old_names_too(made, tmp_path, monkeypatch):
    """bert-base-uncased calls its norms' weights gamma and beta: the last epoch's stay beside the best one's others."""
    start = shutil.copytree(made.pretrained, tmp_path / "start")
    weights = load_file(start / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    names = {name: functools.reduce(lambda text, pair: text.replace(*pair), old.items(), name) for name in weights}
    save_file({names[name]: value for name, value in weights.items()}, start / "model.safetensors", {"format": "pt"})
    seen, used = [], []
    evaluate = trainer._Trainer.evaluate

    def best_first(self, *args, **options):
        found = evaluate(self, *args, **options)
        seen.append({name: value.detach().clone() for name, value in self.model.state_dict().items()})
        used.append(self.model.get_input_embeddings().used)
        found["eval_accuracy"] = 1 / len(seen)
        return found

    monkeypatch.setattr(trainer._Trainer, "evaluate", best_first)
    fine_tune(str(start), made.train, made.validation, tmp_path / "model", epochs=3, learning_rate=3e-3)
    found = load_file(tmp_path / "model" / "model.safetensors")
    assert len(seen) == 3 and found.keys() == weights.keys()
    found[EMBEDDINGS] = found[EMBEDDINGS][used[0]]  # those of the tokens that occur
    assert all(value.equal(seen[0][name]) for name, value in found.items())
    assert not seen[0][EMBEDDINGS].equal(seen[-1][EMBEDDINGS])
    norm = next(name for name in found if "LayerNorm.weight" in name)
    assert not seen[0][norm].equal(seen[-1][norm])


def test_what_to_do_with_pickled_weights_keeps_the_head(made, tmp_path):
    """The class AutoModel, as was advised, leaves out a classifier, and T5's output matrix."""
    start = shutil.copytree(made.baseline, tmp_path / "start")
    (start / "model.safetensors").rename(start / "pytorch_model.bin")
    with pytest.raises(BonsaiError, match=r"transformers\.BertForSequenceClassification\.from_pretrained"):
        hardly(made, start, tmp_path / "model")


def test_a_tokenizer_that_needs_sentencepiece_says_so(made, tmp_path, monkeypatch):
    """Transformers asks for tiktoken, which is of no use."""
    start = shutil.copytree(made.pretrained, tmp_path / "start")
    (start / "tokenizer.json").rename(start / "spiece.model")
    monkeypatch.setattr(stored, "find_spec", lambda _: None)
    with pytest.raises(BonsaiError, match="pip install sentencepiece protobuf, or save tokenizer"):
        hardly(made, start, tmp_path / "model")


def test_a_t5_without_its_own_output_matrix_is_refused(made, tmp_path):
    """Saved by AutoModel, a T5 1.1 has lost it; its embeddings would answer in its place, without a word."""
    start = tiny.pretrained(tmp_path / "start", family="t5")
    file = start / "config.json"
    config = json.loads(file.read_text()) | {"tie_word_embeddings": False}
    config.pop("scale_decoder_outputs", None)
    file.write_text(json.dumps(config))
    with pytest.raises(BonsaiError, match="lacks the output matrix"):
        hardly(made, start, tmp_path / "model")
