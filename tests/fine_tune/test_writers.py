"""Fine-tuning models that write: the answer alone is learnt, greedy answers are the same whoever asks, refusals."""

import json
import math

import byte_tokens
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from kinds_made import rows_of, task_of
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, LlamaConfig, LlamaTokenizerFast
from writers_made import TEMPLATE, split, tuned

from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.pipelines.values import check_values
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import prompts, rows
from kfp_bonsai.shared.kinds.kind import IGNORED
from kfp_bonsai.shared.models import tokens
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.training import answer_batches, sparing, writing


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama that was fine-tuned to write."""
    return tuned(tmp_path_factory.mktemp("llama"), "llama", count=640, epochs=8)


def test_a_decoder_learns_to_write(llama):
    """The loss on something else than the answers: of 8 words, chance has one in 8 of the first alone."""
    folder, told, _ = llama
    assert told["exact_text"] > 0.5 and 1 < told["perplexity"] < 2
    assert read_record(folder)["validation"] == {"exact_text": told["exact_text"], "perplexity": told["perplexity"]}


@pytest.mark.parametrize("family", ["llama", "t5", "gpt2", "mistral", "gpt_neox"])
def test_a_batch_is_answered_as_its_rows_are_one_by_one_and_in_plain_transformers(family, tmp_path):
    """An answer that depends on the rows beside it, or a model that writes rightly here and nowhere else.

    Then its prompts' end, its padding or its own end are not saved.
    """
    model = tiny.pretrained(tmp_path / "model", layers=2, family=family, writes=True)
    read = pretrained.read(model)
    config, tokenizer = read.config, read.tokenizer
    tokens.settle_writing(tokenizer, config, mark=True)
    network = pretrained.load(model, config, "text").network
    writing.settle(network, tokenizer, 5)
    torch.manual_seed(0)
    with torch.no_grad():  # else a random model writes one word for ever
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    network.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    texts = rows_of("generation", 24, 0)["text"]
    asked = [np.array(tokenizer(text)["input_ids"]) for text in texts]
    together = writing.write(network, asked, tokenizer)
    assert len({len(one) for one in asked}) > 2 and len(set(together)) > 3
    assert together == [writing.write(network, [one], tokenizer)[0] for one in asked]
    plain, auto = (
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM,
    )
    batch = plain(texts, return_tensors="pt", padding=True)
    said = auto.from_pretrained(tmp_path / "saved").generate(**batch)
    said = said if family == "t5" else said[:, batch["input_ids"].shape[1] :]
    assert plain.batch_decode(said, skip_special_tokens=True) == together


def test_the_answer_alone_is_learnt_with_its_end():
    """Prompts learnt by heart, or models that never stop."""
    items = [
        {"input_ids": np.array([5, 6]), "labels": np.array([7, 3])},
        {"input_ids": np.array([8]), "labels": np.array([3])},
    ]
    on = writing.collate(items, 0, None)
    assert on["input_ids"].tolist() == [[5, 6, 7, 3], [8, 3, 0, 0]]
    assert on["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert on["labels"].tolist() == [7, 3, 3] and on["told_at"].tolist() == [1, 2, 4]
    apart = writing.collate(items, 0, 9)
    assert apart["input_ids"].tolist() == [[5, 6], [8, 0]] and apart["decoder_input_ids"].tolist() == [[9, 7], [9, 0]]
    assert apart["labels"].tolist() == [7, 3, 3] and apart["told_at"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "family", [name for name, one in FAMILIES.items() if one.reads == "last" or one.answers_in_text]
)
def test_loss_and_likelihood_are_those_of_the_answers_tokens(family, tmp_path):
    """A loss or perplexity of prompts or padding, or of the token beside the right one; or other than the model's."""
    tiny.pretrained(tmp_path / "model", family=family, writes=True)
    kind = AutoModelForSeq2SeqLM if FAMILIES[family].answers_in_text else AutoModelForCausalLM
    model = kind.from_pretrained(tmp_path / "model").eval()
    chance = np.random.default_rng(0)
    items = [
        {"input_ids": chance.integers(5, 20, size), "labels": chance.integers(5, 20, told)}
        for size, told in ((4, 3), (9, 1), (2, 6))
    ]
    batch = writing.collate(items, 0, answer_batches.start_of(model))
    with torch.no_grad():
        found, loss = writing.log_likelihoods(model, batch), writing.objective(model, batch, batch)
        parts = [writing.objective(model, part, batch) for part in sparing.parts(batch, 2)]
    own = []
    for item in items:  # alone, by the model's own loss, which is a mean
        prompt, answer = (torch.tensor(item[name])[None] for name in ("input_ids", "labels"))
        on = answer_batches.start_of(model) is None
        ids = torch.cat([prompt, answer], 1) if on else prompt
        labels = torch.cat([torch.full_like(prompt, IGNORED), answer], 1) if on else answer
        with torch.no_grad():
            own.append(-float(model(input_ids=ids, labels=labels).loss) * answer.shape[1])
    np.testing.assert_allclose(found[:, 0], own, rtol=1e-4)
    assert found[:, 1].tolist() == [3, 1, 6]
    assert float(loss) == pytest.approx(-sum(own) / 10, rel=1e-4) == float(sum(parts))
    assert writing.likelihood(found.numpy()) == pytest.approx(math.exp(sum(own) / 10), rel=1e-4)


def test_conversations_are_put_as_the_models_own_template_puts_them(tmp_path):
    """A model asked in a form that it never saw, or special tokens of a template split into letters."""
    folder, _, validation = tuned(tmp_path, "llama", chat=True)
    _, tokenizer = load(folder)
    found = rows.read_rows(validation, tokenizer, 64)
    first = json.loads(pq.read_table(validation)["text"][0].as_py())
    wanted = tokenizer.apply_chat_template(first, add_generation_prompt=True)["input_ids"]
    assert found.inputs["input_ids"][0].tolist() == list(wanted)
    assert tokenizer.convert_ids_to_tokens(found.labels[0])[-1] == tokenizer.eos_token


def test_texts_that_go_on_in_their_answers_get_no_mark(tmp_path):
    """Completions that were written to follow their prompts learnt behind an end token."""
    columns = rows_of("generation", 48, 0)
    columns["label"] = [f" {one}" for one in columns["label"]]
    train, validation = (split(tmp_path / f"{name}.parquet", columns, "joined") for name in ("train", "validation"))
    model = tiny.pretrained(tmp_path / "model", family="llama", writes=True)
    fine_tune(str(model), train, validation, tmp_path / "base", epochs=1)
    assert AutoTokenizer.from_pretrained(tmp_path / "base")("the film")["input_ids"] == [
        *AutoTokenizer.from_pretrained(model)("the film")["input_ids"]
    ]


WAYS = [("llama", "importance"), ("t5", "lower-last"), ("t5", "importance"), ("t5", "auto")]


@pytest.mark.parametrize(("family", "scheme"), WAYS)
def test_a_model_that_writes_loses_layers_of_both_stacks_and_still_writes(family, scheme, tmp_path):
    """Layers removed of the classifier that it is not, or scored without the answer."""
    folder, _, validation = tuned(tmp_path, family, count=32)
    told = layer_remove(folder, validation, tmp_path / "short", keep="1/2", scheme=scheme)
    network, tokenizer = load(tmp_path / "short")
    assert told["layers_before"] == 2 * len(FAMILIES[family].stacks) and (";" in told["layers"]) == (family == "t5")
    assert (
        len(writing.write(network, rows.read_rows(validation, tokenizer, 64).inputs["input_ids"][:2], tokenizer)) == 2
    )
    assert network.generation_config.max_new_tokens == load(folder)[0].generation_config.max_new_tokens


def refused(folder, family="llama", columns=None, setting="", change=lambda _folder: None, **options):
    """Return why fine-tuning refuses, before it trains."""
    columns = columns or rows_of("generation", 24, 0)
    train, validation = (split(folder / f"{name}.parquet", columns, setting) for name in ("train", "validation"))
    model = tiny.pretrained(folder / "model", family=family, writes=family != "bert")
    change(model)
    with pytest.raises(BonsaiError) as caught:
        fine_tune(str(model), train, validation, folder / "base", **{"epochs": 100, **options})
    assert not (folder / "base").exists()
    return str(caught.value)


def with_row(text, label):
    columns = rows_of("generation", 24, 0)
    return {"text": [*columns["text"], text], "label": [*columns["label"], label]}


def test_what_cannot_be_learnt_is_refused_in_words_before_training(tmp_path):
    """Answers cut off, prompts that push their answers out, or a crash in the middle of a night."""
    long = " ".join(["film"] * 70)
    said = refused(tmp_path / "1", columns=with_row("the film", long))
    assert "train.parquet, row 25: the answer has 71 tokens with its end, and the model takes 64" in said
    said = refused(tmp_path / "2", columns=with_row(long, "good"))
    assert (
        "row 25: the text has 71 tokens, and 60 are taken beside answers of up to 4" in said
        and "--max-length 60" in said
    )
    assert "take" in refused(tmp_path / "3", max_length=62)
    assert "no bert model writes texts" in refused(tmp_path / "4", family="bert")
    assert "row 25: the tokenizer" in refused(tmp_path / "5", columns=with_row("the film", "☃"))
    no_end = lambda folder: tiny.tokenizer("opt").save_pretrained(folder)  # noqa: E731
    assert "has no eos_token, with which answers end" in refused(tmp_path / "6", family="opt", change=no_end)


def test_a_body_without_what_it_writes_with_is_refused(tmp_path):
    """A vocabulary drawn at random and trained on a few thousand rows, in silence."""
    classifier = lambda folder: tiny.pretrained(folder, family="llama")  # noqa: E731
    assert "lacks lm_head.weight, with which the model would write" in refused(tmp_path, change=classifier)


def test_chat_templates_that_are_missing_or_raise_are_refused_with_the_row(tmp_path):
    """A conversation learnt as raw JSON, or a template's error without a word of which row it was."""
    columns = rows_of("generation", 24, 0)
    columns["text"] = [json.dumps([{"role": "user", "content": text}]) for text in columns["text"]]
    assert "has no chat template" in refused(tmp_path / "1", columns=columns, setting="chat")

    def raising(folder):
        own = tiny.tokenizer("llama")
        own.chat_template = "{{ raise_exception('roles must alternate') }}"
        own.save_pretrained(folder)

    said = refused(tmp_path / "2", columns=columns, setting="chat", change=raising)
    assert "train.parquet, row 1: the chat template" in said and "roles must alternate" in said

    def long(folder):
        own = tiny.tokenizer("llama")
        own.chat_template = TEMPLATE * 20
        own.save_pretrained(folder)

    said = refused(tmp_path / "3", columns=columns, setting="chat", change=long, max_length=40)
    assert "row 1: the conversation has" in said and "40 are taken" in said


def test_the_mark_of_a_prompts_end_survives_every_class_of_tokenizer(tmp_path):
    """Prompts whose end is marked in training, and not where the model is served."""
    own = LlamaTokenizerFast(vocab={"<unk>": 0, "<s>": 1, "</s>": 2, "▁a": 3, "▁": 4, "a": 5}, merges=[("▁", "a")])
    own.save_pretrained(tmp_path / "first")
    read = AutoTokenizer.from_pretrained(tmp_path / "first")
    tokens.settle_writing(read, LlamaConfig(), mark=True)
    marked = read("a")["input_ids"]
    read.save_pretrained(tmp_path / "second")
    again = AutoTokenizer.from_pretrained(tmp_path / "second")
    assert marked[-1] == read.eos_token_id and again("a")["input_ids"] == marked
    tokens.settle_writing(again, LlamaConfig(), mark=True)
    assert again("a")["input_ids"] == marked


def test_a_tokenizer_that_marks_beginnings_marks_the_ends_of_prompts_too(tmp_path):
    """Llama 3's, whose texts begin with a mark: once it is saved, a pair of texts makes the library panic."""
    own = byte_tokens.tokenizer(tmp_path / "first")
    before = own("the low")["input_ids"]
    tokens.settle_writing(own, LlamaConfig(), mark=True)
    own.save_pretrained(tmp_path / "second")
    again = AutoTokenizer.from_pretrained(tmp_path / "second")
    assert own("the low")["input_ids"] == again("the low")["input_ids"] == [*before, own.eos_token_id]
    assert again("the", "low")["input_ids"][-1] == own.eos_token_id


def test_a_runtime_that_writes_nothing_is_refused_at_once():
    """Hours of a run for a stage at its end that fails."""
    check_values({"kind": "generation", "edge": True})
    with pytest.raises(BonsaiError, match="--runtime onnxruntime: models that write run on openvino"):
        check_values({"kind": "generation", "edge": True, "runtime": "onnxruntime"})


def test_prompts_are_cut_where_that_was_asked_for(tmp_path):
    """The mark of a prompt's end cut off with what is too long."""
    folder, _, _ = tuned(tmp_path, "llama", count=32, max_length=4)
    _, tokenizer = load(folder)
    task = task_of("generation")
    (found,) = prompts.asked(tokenizer, ["the film was very good and great"], task, "x", 1, 4)
    assert len(found.ids) == 4 and found.ids[-1] == tokenizer.eos_token_id
    assert read_record(folder)["max_length"] == 4
