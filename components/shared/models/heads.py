"""What a model gives logits for: transformers' classes for rows, tokens, spans and texts, behind one `logits`."""

from functools import cache
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.kind import IGNORED, NEVER, ROW, SPAN, TOKEN, WRITTEN
from kfp_bonsai.shared.models.axes import Axes, Family
from kfp_bonsai.shared.models.configuration import family_of

AUTO = {
    ROW: "AutoModelForSequenceClassification",
    TOKEN: "AutoModelForTokenClassification",
    SPAN: "AutoModelForQuestionAnswering",
    WRITTEN: "AutoModelForCausalLM",
}
IN_TEXT = "AutoModelForSeq2SeqLM"
WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # what their classes' names end with
ENDINGS = {TOKEN: "ForTokenClassification", SPAN: "ForQuestionAnswering"}
PLAIN: Axes = dict.fromkeys(("classifier", "score", "qa_outputs"), (None, "hidden"))  # a matrix and nothing else


def head_of(config: Any) -> str:
    """Return what a saved model gives logits for, by the class that its configuration names."""
    named = (getattr(config, "architectures", None) or [""])[0]
    if named.endswith(WRITERS) and not getattr(config, "label_tokens", None):
        return WRITTEN
    return next((head for head, ending in ENDINGS.items() if named.endswith(ending)), ROW)


def axes_of(family: Family) -> Axes:
    """Return the modules that a family's models may have as heads, and their axes."""
    return {**family.head, **{name: axes for name, axes in PLAIN.items() if name not in family.head}}


def writes(model: Any) -> bool:
    """Say whether a model writes texts: its class is one that does, and was not made to classify by them."""
    return type(model).__name__.endswith(WRITERS) and not hasattr(model, "plain_class")


def is_of_tokens(model: Any) -> bool:
    """Say whether a model answers for every token."""
    return type(model).__name__.endswith(tuple(ENDINGS.values()))


def stock_class(config_class: Any, family: Family, head: str) -> Any:
    """Return transformers' class of a family's models with a head.

    Raises:
        BonsaiError: the family has none.
    """
    from transformers.models.auto import modeling_auto as auto

    in_text = family.answers_in_text
    mapping = getattr(auto, IN_TEXT if in_text and head in (ROW, WRITTEN) else AUTO[head])._model_mapping
    able = head in (ROW, WRITTEN) if in_text else head != WRITTEN or family.reads == "last"
    found = mapping[config_class] if config_class in mapping and able else None
    # Classes for spans of Llama and Qwen name their body otherwise than what is published, of which they load nothing.
    if found is None or (head == SPAN and not family.stacks[0].layers.startswith(found.base_model_prefix)):
        what = {TOKEN: "tags tokens", SPAN: "finds answers in texts", WRITTEN: "writes texts"}.get(head, "classifies")
        other = "llama or t5" if head == WRITTEN else "bert"
        raise BonsaiError(f"no {config_class.model_type} model {what}: use another family, such as {other}")
    return found


@cache
def spanning(model_class: Any) -> Any:
    """Return a class that finds a span, and gives one `logits` (rows, tokens, 2): where it begins, and where it ends.

    With labels (the two places, shape (rows, 2)) it gives the mean loss of both. It is saved as the class that it was
    made from.
    """
    if hasattr(model_class, "plain_class"):
        return model_class

    import torch
    from torch.nn import functional
    from transformers.modeling_outputs import TokenClassifierOutput

    def forward(
        self: Any, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **options: Any
    ) -> Any:
        found = model_class.forward(self, input_ids=input_ids, attention_mask=attention_mask, **options)
        logits = torch.stack([found.start_logits, found.end_logits], dim=-1)
        loss = None
        if labels is not None:
            ends = logits.float().masked_fill(~attention_mask.bool()[..., None], NEVER)
            loss = functional.cross_entropy(ends, labels.long(), ignore_index=IGNORED)
        return TokenClassifierOutput(loss=loss, logits=logits, hidden_states=found.hidden_states)

    return type(
        model_class.__name__,
        (model_class,),
        {"__module__": __name__, "__doc__": spanning.__doc__, "forward": forward, "plain_class": model_class},
    )


def wrapped(model_class: Any, config: Any) -> Any:
    """Return a class whose models give one `logits`: one that answers in text, or finds spans, is made to."""
    from kfp_bonsai.shared.models.answers import answering

    if model_class.__name__.endswith(ENDINGS[SPAN]):
        return spanning(model_class)
    return answering(model_class) if family_of(config).answers_in_text else model_class
