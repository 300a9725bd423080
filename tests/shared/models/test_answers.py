"""Classification by the label's text: the scores are the texts' probabilities, however long the texts are."""

import subprocess
import sys
from types import SimpleNamespace

import models
import pytest
import torch

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models.answers import decoder_inputs, label_tokens

LABELS = {
    "one token": [[7], [8]],
    "several tokens": [[7, 9, 11], [7, 10], [12]],
    "one begins another": [[7, 1], [7, 8, 1]],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("name", ["t5", "gated t5"])
def test_a_score_is_the_log_probability_of_the_text(name, labels):
    """Else classes are compared by something else than what the decoder would write."""
    model = models.made(name)
    model.config.label_tokens = labels
    torch.manual_seed(3)
    ids, mask = torch.randint(5, 90, (4, 7)), torch.ones(4, 7).long()
    mask[2, 4:], ids[2, 4:] = 0, 0
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask).logits
        for number, tokens in enumerate(labels):
            read = torch.tensor([[0, *tokens[:-1]]] * 4)
            written = model.plain_class.forward(model, input_ids=ids, attention_mask=mask, decoder_input_ids=read)
            each = written.logits.log_softmax(-1).gather(2, torch.tensor([[[token] for token in tokens]] * 4))
            torch.testing.assert_close(found[:, number], each[..., 0].sum(1), rtol=0, atol=1e-9)


def test_the_loss_is_that_of_the_text_and_its_end():
    """Else training lets the decoder forget how to write the label, or when to stop."""
    model = models.made("t5")
    model.config.label_tokens = [[7], [8, 9]]
    ids = torch.randint(5, 90, (2, 7))
    loss = model(input_ids=ids, labels=torch.tensor([0, 1])).loss
    texts = torch.tensor([[7, 1, -100], [8, 9, 1]])
    torch.testing.assert_close(loss, model.plain_class.forward(model, input_ids=ids, labels=texts).loss)


def test_training_computes_the_written_text_alone():
    """Of 20 labels the others would take several times the memory of a step, and change nothing."""
    model = models.made("t5").train()
    model.config.label_tokens = [[7], [8, 9], [10, 11, 12]]
    rows = []
    model.lm_head.register_forward_hook(lambda _module, given, _found: rows.append(len(given[0])))
    found = model(input_ids=torch.randint(5, 90, (2, 7)), labels=torch.tensor([0, 1]))
    assert found.logits is None and found.loss.requires_grad and rows == [2]


def test_the_decoder_reads_each_beginning_once():
    """Else the decoder's work, and its emission, grows with the classes for nothing."""
    assert decoder_inputs([[7], [8], [9]]) == [[0]]
    assert decoder_inputs([[7, 9, 11], [7, 10], [12]]) == [[0, 7, 9]]
    assert decoder_inputs([[7, 9], [8, 9]]) == [[0, 7], [0, 8]]
    assert decoder_inputs([[7, 9, 3], [8, 9]], start=5) == [[5, 7, 9], [5, 8, 5]]


def tokenizer(**vocabulary: list[int]):
    found = SimpleNamespace(eos_token_id=1)
    return type("Tokenizer", (), {"__call__": lambda self, text, **_: {"input_ids": vocabulary[text]}, **vars(found)})()


def test_a_label_that_begins_another_gets_its_end():
    """Else the shorter one always scores at least as high as the longer one."""
    assert label_tokens(tokenizer(good=[7], very=[7, 8]), ["good", "very"]) == [[7, 1], [7, 8, 1]]
    assert label_tokens(tokenizer(good=[7], bad=[8]), ["good", "bad"]) == [[7], [8]]


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [({"a": [2], "b": [2]}, "'b' has the same tokens as 'a'"), ({"a": [], "b": [2]}, "'a' has no tokens")],
)
def test_labels_that_cannot_be_told_apart_are_refused(vocabulary, message):
    """Else two classes share a score, and one of them is never predicted."""
    with pytest.raises(BonsaiError, match=message):
        label_tokens(tokenizer(**vocabulary), ["a", "b"])


@pytest.mark.parametrize("module", ["models.shapes", "models.free_models", "models.answers", "saved.checkpoint"])
def test_modules_can_be_imported_in_any_order(module):
    """Else registering the free types, which importing transformers does, finds a half-imported module."""
    code = f"import kfp_bonsai.shared.{module}; from transformers import AutoModelForSequenceClassification"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
