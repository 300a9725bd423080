"""Prompts and answers as tokens: what a model that writes is asked, and what it is to write, with its end."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.encoding import encode_rows
from kfp_bonsai.shared.kinds.task import CHAT, Task

NO_LIMIT = 1 << 20  # tokens


def asked(tokenizer: Any, texts: Sequence[str], task: Task, where: str, first: int, max_length: int) -> list[Any]:
    """Encode what a model is asked: texts as they are, conversations as the tokenizer's chat template puts them.

    Args:
        tokenizer: the model's tokenizer.
        texts: texts, or conversations as JSON.
        task: what is learnt.
        where: the file that the rows are from, for messages.
        first: the number of the first of them.
        max_length: tokens at which texts are cut, before the mark of their end; conversations are never cut.

    Returns:
        Encodings of the tokenizers library.

    Raises:
        BonsaiError: there is no chat template, it refuses a conversation, or one is too long.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    if task.setting != CHAT:
        backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
        return encode_rows(backend, texts)
    backend.no_truncation()
    backend.encode_special_tokens = False  # which a template writes
    told = [conversation(tokenizer, text, f"{where}, row {first + index}") for index, text in enumerate(texts)]
    found = encode_rows(backend, told, special=False)
    long = next((index for index, one in enumerate(found) if len(one.ids) > max_length), None)
    if long is not None:
        raise BonsaiError(
            f"{where}, row {first + long}: the conversation has {len(found[long].ids):,} tokens, and {max_length:,} "
            "are taken: shorten it or leave it out, for a conversation that is cut says something else"
        )
    return found


def conversation(tokenizer: Any, text: str, place: str) -> str:
    """Return a conversation as the model reads it, up to where the assistant begins to speak.

    Raises:
        BonsaiError: the text is no conversation, or the tokenizer has no template for it, or one that refuses it.
    """
    if not tokenizer.chat_template:
        raise BonsaiError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template (chat_template), and {place} is a "
            "conversation: use a model that was made for conversations, or give rows of prompt and completion"
        )
    try:
        messages = json.loads(text)
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program, and may raise anything
        said = " ".join(str(error).split())[:300]
        raise BonsaiError(
            f"{place}: the chat template of {tokenizer.name_or_path} refuses the conversation "
            f"({type(error).__name__}: {said}): correct its roles and their order, or the template"
        ) from error


def answers(tokenizer: Any, texts: Sequence[str], where: str, first: int) -> list[np.ndarray]:
    """Return the tokens of answers, each with the model's own end.

    Raises:
        BonsaiError: an answer has no tokens that the tokenizer knows.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    encoded = [one.ids for one in encode_rows(backend, texts, special=False)]
    silent = next((index for index, one in enumerate(encoded) if {*one} <= {tokenizer.unk_token_id}), None)
    if silent is not None:
        raise BonsaiError(
            f"{where}, row {first + silent}: the tokenizer of {tokenizer.name_or_path} has no tokens for the answer "
            f"{texts[silent][:40]!r}: use a model of this language, or leave the row out"
        )
    return [np.array([*one, tokenizer.eos_token_id], np.int32) for one in encoded]
