"""A vocabulary cut to a task: the same tokens and logits of covered text, bytes for all other, saved and read again."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from byte_tokens import falling_back, tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved import kept_tokens
from kfp_bonsai.shared.saved.checkpoint import check_tokenizer

TEXTS = ["the lowest newer wider lowlands", "  newest\n\n123 \u00e9 \u4e2d low"]
OTHER = "a wholly other zebra \u2603 F\u00fc\u00dfe"
SMALL = {"vocab_size": 500, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 0}
MADE = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SMALL, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
              intermediate_size=16, tie_word_embeddings=True)),
    "gpt2": (GPT2LMHeadModel, GPT2Config(**SMALL, n_embd=16, n_layer=1, n_head=2, n_positions=64)),
    "opt": (OPTForCausalLM, OPTConfig(**SMALL, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16,
            word_embed_proj_dim=8, max_position_embeddings=64)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SMALL, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
              num_key_value_heads=1, head_dim=8, intermediate_size=16, tie_word_embeddings=False)),
}  # fmt: skip
MADE["llama 2"] = MADE["llama"]


@pytest.mark.parametrize("family", MADE)
def test_covered_text_has_the_same_tokens_and_logits(family, tmp_path):
    """A model that says something else of the very texts that it was made for, or one that cannot be read again."""
    own = (falling_back if family == "llama 2" else tokenizer)(tmp_path / "whole")
    model_class, config = MADE[family]
    torch.manual_seed(0)
    model = model_class(deepcopy(config)).eval()
    before = [own(text)["input_ids"] for text in TEXTS]
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits[0] for ids in before]
    whole = sum(one.numel() for one in model.parameters())
    kept = kept_tokens.needed(own, [np.array(ids) for ids in before])
    assert 256 + 4 < len(kept) < len(own) - 20 and sum(one.numel() for one in model.parameters()) == whole
    kept_tokens.cut(model, own, kept).save_pretrained(tmp_path / "cut")
    model.save_pretrained(tmp_path / "cut")
    fewer = AutoTokenizer.from_pretrained(tmp_path / "cut")
    check_tokenizer(tmp_path / "cut", fewer)
    again, told = model_class.from_pretrained(tmp_path / "cut", output_loading_info=True)
    assert not any(told.values()) and len(fewer) == len(kept) == again.config.vocab_size
    assert sum(one.numel() for one in again.parameters()) < whole
    for text, ids, wanted in zip(TEXTS, before, logits, strict=True):
        found = fewer(text)["input_ids"]
        assert kept[found].tolist() == ids
        with torch.no_grad():
            torch.testing.assert_close(again(torch.tensor([found])).logits[0], wanted[:, kept], atol=1e-6, rtol=0)
    assert fewer.decode(fewer(OTHER)["input_ids"], skip_special_tokens=True) == OTHER
    assert len(fewer(OTHER)["input_ids"]) > len(own(OTHER)["input_ids"])
    assert fewer.convert_ids_to_tokens(again.generation_config.eos_token_id) == "<|end|>" == fewer.eos_token
    text = TEXTS[0] + "<|turn|>" + TEXTS[0]
    assert fewer(text)["input_ids"] == [numbered(kept, one) for one in own(text)["input_ids"]]


def numbered(kept, token):
    return int(np.flatnonzero(kept == token)[0])


@pytest.mark.parametrize(
    "make", [tokenizer, partial(tokenizer, ignore_merges=True), falling_back], ids=["bytes", "words", "letters"]
)
def test_every_text_of_kept_tokens_is_split_as_before(make, tmp_path):
    """A merge that is gone, or done out of its turn: other tokens of one text in a hundred."""
    own = make(tmp_path, processor=False)
    random = np.random.default_rng(0)
    words = [
        "low",
        "lowest",
        " lowlands",
        " newer",
        " wider",
        "zebras",
        " the",
        "er",
        "land",
        "st ",
        "w",
        "\n",
        "\u2603",
    ]
    for _ in range(20):
        texts = ["".join(random.choice(words, 12)) for _ in range(5)]
        ids = [own(text)["input_ids"] for text in texts]
        kept = kept_tokens.needed(own, [np.array(one) for one in ids])
        model = MADE["gpt2"][0](deepcopy(MADE["gpt2"][1]))
        fewer = kept_tokens.cut(model, own, kept)
        assert [kept[fewer(text)["input_ids"]].tolist() for text in texts] == ids


def test_tokenizers_without_bytes_are_refused(tmp_path):
    """Words that a model was never shown, without any token, read and written as unknown."""
    import tiny

    words = tiny.tokenizer("llama")
    with pytest.raises(BonsaiError, match=r"WordLevel.*does not fall back to bytes.*vocabulary=task"):
        kept_tokens.check(words)
    made = Tokenizer(models.BPE({"a": 0, "b": 1}, [], byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(BonsaiError, match="does not fall back to bytes"):
        kept_tokens.check(PreTrainedTokenizerFast(tokenizer_object=made))


def test_bytes_that_the_whole_vocabulary_lacks_are_no_reason_to_refuse(tmp_path):
    """SmolLM2's tokenizer, which lacks 21 bytes that no text of its training had, would keep 49,152 tokens."""
    own = tokenizer(tmp_path, unknown_bytes=30)
    texts = ["the lowest lowlands", "wider zebras \u0153\u0133"]
    ids = [own(text)["input_ids"] for text in texts]
    assert len(own(texts[1])["input_ids"]) < len(tokenizer(tmp_path / "all")(texts[1])["input_ids"])
    kept = kept_tokens.needed(own, [np.array(one) for one in ids])
    fewer = kept_tokens.cut(MADE["gpt2"][0](deepcopy(MADE["gpt2"][1])), own, kept)
    assert len(kept) < len(own) - 20
    assert [kept[fewer(text)["input_ids"]].tolist() for text in texts] == ids
