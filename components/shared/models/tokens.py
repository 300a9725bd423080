"""Make a pretrained model and its tokenizer fit each other and the task, whatever they came with."""

import json
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.models.configuration import family_of, inputs_of

SHORTEST = 8  # tokens; what tokenizers give as their greatest length below that is no length
FEWEST_TOKENS = 3  # a word between the tokens for beginning and end
ODD_TEXTS = (
    "",
    " ",
    "[CLS] [SEP] [MASK] <s> </s> <|endoftext|>",
    "Éa ﬁ 中文 한국 ☃ 👩‍🔬 e\u0301 \u200b\u00a0x",
    "A  b\n\tC.d",
)


def settle(tokenizer: Any, config: Any) -> None:
    """Settle padding, ends and inputs, in place; all are saved with the model.

    Padding goes to the right, so that the last real token, which decoders classify by, is where padding begins. A
    tokenizer without a padding token (GPT-2, Llama) pads with its end token, so that the vocabulary stays as it is.

    Raises:
        BonsaiError: no fast tokenizer, no token to pad with, or tokens that the model has no embeddings for (tokens
            that were added last are no error: see `make_room`).
    """
    where, family = tokenizer.name_or_path, family_of(config)
    if not tokenizer.is_fast:
        raise BonsaiError(f"{where} has no fast tokenizer (tokenizer.json): save one with AutoTokenizer first")
    if tokenizer.pad_token is None:
        if end_token(tokenizer) is None:
            raise BonsaiError(f"the tokenizer of {where} has no token to pad with: set its pad_token and save it")
        tokenizer.pad_token = end_token(tokenizer)
    if not isinstance(tokenizer.model_max_length, int | float):
        raise BonsaiError(
            f"{where}/tokenizer_config.json sets model_max_length to {tokenizer.model_max_length!r}: write a number"
        )
    _check_numbers(tokenizer, config)
    pad = tokenizer.pad_token_id
    if family.positions_after == "pad" and config.pad_token_id != pad:
        raise BonsaiError(
            f"{where} pads with token {pad}, and config.json has pad_token_id {config.pad_token_id}, from which a "
            f"{config.model_type} model counts its positions: give a model folder whose two parts belong together"
        )
    config.pad_token_id = pad if pad < config.vocab_size else None
    if family.answers_in_text:
        if tokenizer.eos_token_id is not None:
            config.eos_token_id = tokenizer.eos_token_id
        if not isinstance(config.eos_token_id, int):
            raise BonsaiError(f"the tokenizer of {where} has no eos_token, with which answers end: set it and save it")
        if getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = pad
        _check_labels(config)
        if not 0 <= config.decoder_start_token_id < config.vocab_size:
            raise BonsaiError(
                f"config.json has decoder_start_token_id {config.decoder_start_token_id}, and the model "
                f"{config.vocab_size} embeddings: save the model again"
            )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.model_input_names = list(inputs_of(config))
    for name in ("padding_side", "truncation_side", "model_input_names"):
        tokenizer.init_kwargs[name] = getattr(tokenizer, name)  # which is what is saved; Llama's class pads left


def separate(tokenizer: Any, config: Any) -> None:
    """Tell the two texts of a pair apart by the end token where a tokenizer would just join them, in place."""
    end = end_token(tokenizer)
    if end is not None and tokenizer.num_special_tokens_to_add(pair=True) == 0:
        from tokenizers.processors import TemplateProcessing

        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A", pair=f"$A {end} $B", special_tokens=[(end, tokenizer.convert_tokens_to_ids(end))]
        )
    if family_of(config).token_types and "token_type_ids" not in inputs_of(config):
        say("the model knows one type of token: the two texts of a pair are told apart by what is between them alone")


def check_end(tokenizer: Any) -> None:
    """Refuse a tokenizer without a token to end an answer with.

    Raises:
        BonsaiError: it has none.
    """
    if not isinstance(tokenizer.eos_token_id, int):
        raise BonsaiError(
            f"the tokenizer of {tokenizer.name_or_path} has no eos_token, with which answers end: set it and save it"
        )


def settle_writing(tokenizer: Any, config: Any, *, mark: bool) -> None:
    """Settle how a model that writes is asked, in place: how prompts end and are padded, and that answers have an end.

    A decoder reads on from its prompt: padding goes before that, and a text is told from its answer by the end token,
    which every tokenizer that is read from the folder adds.

    Args:
        tokenizer: the tokenizer.
        config: the model's configuration.
        mark: whether texts are marked; nothing stands between texts and answers that were written to be joined.

    Raises:
        BonsaiError: there is no token to end an answer with.
    """
    check_end(tokenizer)
    if family_of(config).answers_in_text:
        return
    pad_before(tokenizer)
    backend, end = tokenizer.backend_tokenizer, tokenizer.eos_token
    if not mark or backend.encode("a").ids[-1:] == [tokenizer.eos_token_id]:
        return
    if {"add_bos_token", "add_eos_token"} & tokenizer.init_kwargs.keys():  # by which transformers makes its own
        tokenizer.add_eos_token = tokenizer.init_kwargs["add_eos_token"] = True
        return
    from tokenizers import Tokenizer
    from tokenizers.processors import Sequence, TemplateProcessing

    data = json.loads(backend.to_str())
    if template := _template(data["post_processor"]):  # two of them cannot follow one another for pairs
        for name in ("single", "pair"):
            template[name].append({"SpecialToken": {"id": end, "type_id": 0}})
        template["special_tokens"][end] = {"id": end, "ids": [tokenizer.eos_token_id], "tokens": [end]}
        backend.post_processor = Tokenizer.from_str(json.dumps(data)).post_processor
        return
    ended = TemplateProcessing(single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, tokenizer.eos_token_id)])
    backend.post_processor = Sequence([backend.post_processor, ended]) if backend.post_processor else ended


def _template(part: Any) -> dict[str, Any] | None:
    """Return the template with which a tokenizer marks texts, of its post-processor as JSON; nothing if it has none."""
    if not part or part["type"] == "TemplateProcessing":
        return part
    return next(filter(None, map(_template, part.get("processors", ()))), None)


def pad_before(tokenizer: Any) -> None:
    """Let padding go before what a decoder reads on from, in place."""
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"


def end_token(tokenizer: Any) -> str | None:
    """Return the token that marks an end, as far as there is one."""
    return tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token


def most_tokens(tokenizer: Any, positions: int) -> int:
    """Return how many tokens of a text to take at the most: what the tokenizer says, or the model has room for."""
    stated = tokenizer.model_max_length
    if isinstance(stated, int) and SHORTEST <= stated < positions:
        say(f"the tokenizer's model_max_length cuts texts at {stated} tokens (the model takes {positions})")
        return stated
    return positions


def make_room(tokenizer: Any, model: Any) -> None:
    """Give a model embeddings for tokens that were added to its tokenizer, such as a padding token."""
    more = max(tokenizer.get_vocab().values()) + 1 - model.config.vocab_size
    if more > 0:
        say(f"the tokenizer has {more} added token{'s' if more > 1 else ''}: the model gets new embeddings for them")
        model.resize_token_embeddings(model.config.vocab_size + more)
        model.config.pad_token_id = tokenizer.pad_token_id


def _check_labels(config: Any) -> None:
    """Check that the labels' texts are lists of tokens, where a model that answers in text was trained for some."""
    labels = getattr(config, "label_tokens", None)
    if labels is None:
        return
    lists = isinstance(labels, list) and all(isinstance(one, list) and one for one in labels)
    if not (lists and all(isinstance(at, int) and 0 <= at < config.vocab_size for one in labels for at in one)):
        raise BonsaiError("config.json has label_tokens that are no lists of tokens: make the model again")


def _check_numbers(tokenizer: Any, config: Any) -> None:
    """Check that every token has an embedding, but for those that were added last, one after the other."""
    added = tokenizer.get_added_vocab()
    beyond = {token: at for token, at in tokenizer.get_vocab().items() if at >= config.vocab_size}
    if beyond and not (beyond.keys() <= added.keys() and max(beyond.values()) < config.vocab_size + len(beyond)):
        token = max(beyond, key=beyond.__getitem__)
        raise BonsaiError(
            f"the tokenizer of {tokenizer.name_or_path} has '{token}' as token {beyond[token]}, and the model "
            f"{config.vocab_size} embeddings: give a model folder whose two parts belong together"
        )
    probes = [tokenizer("a ☃", *pair, return_token_type_ids=True) for pair in ((), ("b",))]
    highest = max([at for probe in probes for at in probe["input_ids"]] + tokenizer.all_special_ids, default=0)
    if highest not in tokenizer.get_vocab().values():
        raise BonsaiError(
            f"the tokenizer of {tokenizer.name_or_path} gives token {highest}, which its vocabulary does not have: "
            "save the model's tokenizer there again"
        )
    if "token_type_ids" in inputs_of(config):
        types = max((at for probe in probes for at in probe["token_type_ids"]), default=0)
        if types >= config.type_vocab_size:
            raise BonsaiError(
                f"the tokenizer of {tokenizer.name_or_path} gives tokens the type {types}, and the model knows "
                f"{config.type_vocab_size} types: give a model folder whose two parts belong together"
            )
