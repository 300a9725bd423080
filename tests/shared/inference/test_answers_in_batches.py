"""What writes: forced lengths and its own, likelihood, and prompts as models were trained with them."""

import json

import numpy as np
import pytest
import tiny
import torch
from kinds_made import rows_of, task_of
from transformers import AutoTokenizer

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.inference import writers
from kfp_bonsai.shared.models import tokens
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.training import writing


def writer_of(folder, family):
    """A random model of a family that writes answers of up to 5 tokens, saved, and what writes with it."""
    model = tiny.pretrained(folder / "model", layers=2, family=family, writes=True)
    read = pretrained.read(model)
    tokens.settle_writing(read.tokenizer, read.config, mark=True)
    network = pretrained.load(model, read.config, "text").network
    writing.settle(network, read.tokenizer, 5)
    torch.manual_seed(0)
    with torch.no_grad():  # else a random model writes one word for ever
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    network.save_pretrained(folder / "saved")
    read.tokenizer.save_pretrained(folder / "saved")
    return network, read.tokenizer, writers.torch_writer(network, read.tokenizer)


@pytest.mark.parametrize("family", ["llama", "t5", "gpt2", "qwen3"])
def test_answers_have_their_own_length_or_that_which_is_asked_for(family, tmp_path):
    """Joules a token of models that stopped early, or whose answers are others than those that are scored."""
    network, tokenizer, writer = writer_of(tmp_path, family)
    texts = rows_of("generation", 12, 5)["text"]
    batch = writers.prompt_batch(tmp_path / "saved", texts, task_of("generation"))
    said = writer.write(batch)
    alone = writing.write(network, [np.array(tokenizer(text)["input_ids"]) for text in texts], tokenizer)
    assert writer.texts(said) == alone
    assert max(map(len, said.tokens)) <= 5 and 0 < said.first_seconds <= said.seconds
    forced = writer.predict({**batch, writers.TO_WRITE: np.full(len(texts), 9)})
    assert {len(one) for one in forced.tokens} == {9}
    assert not any(writer.end in one for one in forced.tokens)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_likelihoods_are_those_of_training_whatever_the_padding(family, tmp_path):
    """A perplexity that depends on the rows beside a row."""
    _, tokenizer, writer = writer_of(tmp_path, family)
    columns = rows_of("generation", 6, 1)
    answers = [np.array([*tokenizer(one, add_special_tokens=False)["input_ids"], 3]) for one in columns["label"]]
    batch = writers.prompt_batch(tmp_path / "saved", columns["text"], task_of("generation"))
    together = writer.likelihoods(batch, answers)
    for number, text in enumerate(columns["text"]):
        single = writers.prompt_batch(tmp_path / "saved", [text], task_of("generation"))
        np.testing.assert_allclose(writer.likelihoods(single, answers[number : number + 1])[0], together[number], 1e-4)
    assert together[:, 1].tolist() == [len(one) for one in answers]


def test_prompts_are_padded_where_the_model_reads_on_and_conversations_put_by_its_template(tmp_path):
    """Answers to padding, or to a conversation as raw JSON; a damaged one without a word of which row it is."""
    writer_of(tmp_path, "llama")
    own = AutoTokenizer.from_pretrained(tmp_path / "saved")
    own.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}is"
    own.save_pretrained(tmp_path / "saved")
    task = task_of("generation")
    chat = type(task)(**{**vars(task), "setting": "chat"})
    told = [json.dumps([{"role": "user", "content": text}]) for text in ("the film", "a")]
    batch = writers.prompt_batch(tmp_path / "saved", told, chat)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]
    assert batch["input_ids"][1, 1:].tolist() == own("a is", add_special_tokens=False)["input_ids"]
    with pytest.raises(BonsaiError, match=r"test\.parquet, row 8"):
        writers.prompt_batch(tmp_path / "saved", [told[0], "no JSON"], chat, where="test.parquet", first=7)
