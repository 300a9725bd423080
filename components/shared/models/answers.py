"""Classification by writing the label's text, as sequence-to-sequence models do it (T5, arXiv 1910.10683, section 2.4).

A class scores the log-probability that the decoder writes its label's text. Every class is scored, so that an answer is
always one of the labels, which free generation does not guarantee. To everything else such a model looks like a
classifier: `model(**batch).logits` has a score for each class, and `loss` is that of the text.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError

IGNORED = -100


def label_tokens(tokenizer: Any, labels: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each label's text; with its end if one label is how another begins.

    Raises:
        BonsaiError: two labels have the same tokens, or a label has none.
    """
    found = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in labels]
    for label, tokens in zip(labels, found, strict=True):
        twin = labels[found.index(tokens)]
        if not tokens or twin != label:
            what = "has no tokens" if not tokens else f"has the same tokens as '{twin}'"
            raise BonsaiError(
                f"the label '{label}' {what} in the model's vocabulary, and the model answers in text: "
                "rename the labels in the data, such as 'negative' and 'positive'"
            )
    if any(one is not other and other[: len(one)] == one for one in found for other in found):
        found = [[*tokens, tokenizer.eos_token_id] for tokens in found]
    return found


def decoder_inputs(labels: Sequence[Sequence[int]], start: int = 0) -> list[list[int]]:
    """Return the rows that the decoder reads to score all labels, equally long, the start token first.

    A label's last token is never read, and a row that another one begins with is not needed: labels of one token
    need the start token alone.
    """
    before = dict.fromkeys(tuple(tokens[:-1]) for tokens in labels)
    rows = [one for one in before if not any(one != other and other[: len(one)] == one for other in before)]
    longest = max(map(len, rows))
    return [[start, *row, *([start] * (longest - len(row)))] for row in rows]


@cache
def answering(model_class: Any) -> Any:
    """Return a sequence-to-sequence class that classifies into `config.label_tokens`, or writes text as before.

    `model(input_ids, attention_mask, labels)` gives a score for each class, shape (rows, labels), as `logits`, the
    encoder's `hidden_states`, and with labels (classes, shape (rows,)) the `loss` of their texts. Called with inputs
    for the decoder, as `generate` does, it is the class that it was made from, as which it is saved too.
    """
    if hasattr(model_class, "plain_class"):
        return model_class

    import torch
    from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

    def forward(
        self: Any, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **options: Any
    ) -> Any:
        if options.keys() & {"encoder_outputs", "decoder_input_ids", "decoder_inputs_embeds"}:
            options |= {"input_ids": input_ids, "labels": labels}
            return model_class.forward(self, attention_mask=attention_mask, **options)
        states = bool(options.get("output_hidden_states"))
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        encoded = self.get_encoder()(input_ids=input_ids, attention_mask=mask, output_hidden_states=states)
        loss = None
        if labels is not None:
            texts = _padded(self.config).to(labels.device)[labels]
            written = model_class.forward(
                self, encoder_outputs=encoded, attention_mask=mask, labels=texts, use_cache=False
            )
            loss = written.loss
            if self.training:  # which needs no more, and the other texts would take several times the memory
                return SequenceClassifierOutput(loss=loss, hidden_states=encoded.hidden_states)
        read = torch.tensor(
            decoder_inputs(self.config.label_tokens, self.config.decoder_start_token_id), device=mask.device
        )
        again = BaseModelOutput(last_hidden_state=encoded.last_hidden_state.repeat_interleave(len(read), 0))
        found = model_class.forward(
            self,
            encoder_outputs=again,
            attention_mask=mask.repeat_interleave(len(read), 0),
            decoder_input_ids=read.repeat(mask.shape[0], 1),
            use_cache=False,
        ).logits
        written = found.to(torch.promote_types(found.dtype, torch.float32)).log_softmax(-1)
        row, place, token, there = _places(self.config.label_tokens, mask.device)
        scores = written.view(-1, *read.shape, written.shape[-1])[:, row, place, token]
        return SequenceClassifierOutput(loss=loss, logits=(scores * there).sum(-1), hidden_states=encoded.hidden_states)

    return type(
        model_class.__name__,
        (model_class,),
        {"__module__": __name__, "__doc__": answering.__doc__, "forward": forward, "plain_class": model_class},
    )


def _padded(config: Any) -> Any:
    """Return the labels' texts with their ends, as a decoder is taught them: shape (labels, tokens)."""
    import torch

    ended = [
        [*tokens, *([config.eos_token_id] if tokens[-1] != config.eos_token_id else [])]
        for tokens in config.label_tokens
    ]
    longest = max(map(len, ended))
    return torch.tensor([[*tokens, *([IGNORED] * (longest - len(tokens)))] for tokens in ended])


def _places(labels: Sequence[Sequence[int]], device: Any) -> tuple[Any, Any, Any, Any]:
    """Return where each label's tokens are scored: decoder row, position, token, and whether there is one.

    All have the shape (labels, tokens of the longest label).
    """
    import torch

    rows = decoder_inputs(labels, -1)
    longest = max(map(len, labels))
    found = torch.zeros(4, len(labels), longest, dtype=torch.long, device=device)
    for number, tokens in enumerate(labels):
        before = [-1, *tokens[:-1]]
        row = next(index for index, one in enumerate(rows) if one[: len(before)] == before)
        for place, token in enumerate(tokens):
            found[:, number, place] = torch.tensor([row, place, token, 1])
    return found[0], found[1], found[2], found[3]
