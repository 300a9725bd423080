"""Make a pretrained model and its tokenizer fit each other and the task, whatever they came with."""

from typing import Any

from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.families import inputs_of
from kfp_bonsai.shared.progress import say


def settle(tokenizer: Any, config: Any, *, pairs: bool) -> None:
    """Settle padding, separators and inputs, in place; both are saved with the model.

    Padding goes to the right, so that the last real token, which decoders classify by, is where padding begins. A
    tokenizer without a padding token (GPT-2, Llama) pads with its end token, so that the vocabulary stays as it is.
    Pairs are told apart by that token where the tokenizer would just join them.

    Raises:
        BonsaiError: no fast tokenizer, no token to pad with, or more tokens than the model has embeddings (tokens that
            were added later are no error: see `make_room`).
    """
    if not tokenizer.is_fast:
        raise BonsaiError(
            f"{tokenizer.name_or_path} has no fast tokenizer (tokenizer.json): save one with AutoTokenizer first"
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise BonsaiError(
            f"the tokenizer of {tokenizer.name_or_path} has {tokenizer.vocab_size} tokens, the model "
            f"{config.vocab_size} embeddings: give a model folder whose two parts belong together"
        )
    end = tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        if end is None:
            raise BonsaiError(
                f"the tokenizer of {tokenizer.name_or_path} has no token to pad with: set its pad_token and save it"
            )
        tokenizer.pad_token = end
    pad = tokenizer.pad_token_id
    config.pad_token_id = pad if pad < config.vocab_size else None
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.model_input_names = list(inputs_of(config))
    if pairs and end is not None and _joins(tokenizer):
        from tokenizers.processors import TemplateProcessing

        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A", pair=f"$A {end} $B", special_tokens=[(end, tokenizer.convert_tokens_to_ids(end))]
        )


def make_room(tokenizer: Any, model: Any) -> None:
    """Give a model embeddings for tokens that were added to its tokenizer, such as a padding token."""
    more = len(tokenizer) - model.config.vocab_size
    if more > 0:
        say(f"the tokenizer has {more} added token{'s' if more > 1 else ''}: the model gets new embeddings for them")
        model.resize_token_embeddings(len(tokenizer))
        model.config.pad_token_id = tokenizer.pad_token_id


def _joins(tokenizer: Any) -> bool:
    """Say whether a tokenizer puts nothing at all between two texts."""
    return tokenizer.num_special_tokens_to_add(pair=True) == 0
