"""Small BPE tokenizers: of bytes, such as GPT-2, Llama 3, Qwen and SmolLM2 have, and of letters, as Llama 2 has."""

import json

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

WORDS = ["low", "lowest", "lowlands", "newer", "newest", "wider", "widest", "wholly", "otherwise", "zebras", "the"]
TEXTS = [" ".join(WORDS[at % 11 :] + WORDS[: at % 7]) for at in range(200)]
SPECIAL = ["<|end|>", "<|start|>", "<|pad|>"]


def tokenizer(folder, ignore_merges=False, processor=True, unknown_bytes=0):
    """A byte-level BPE tokenizer of some words, with special tokens before and after them, as transformers reads it."""
    made = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: 256 - unknown_bytes]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    made.train_from_iterator(TEXTS, trainer)
    return _saved(made, folder, processor)


def falling_back(folder, processor=True):
    """A BPE tokenizer of letters, which writes those that it lacks as bytes."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=140, special_tokens=[*SPECIAL, "<unk>"]))
    data = json.loads(made.to_str())
    vocabulary = data["model"]["vocab"]
    vocabulary |= {f"<0x{value:02X}>": len(vocabulary) + value for value in range(256)}
    data["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    made = Tokenizer.from_str(json.dumps(data))
    ends = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(ends)
    return _saved(made, folder, processor)


def _saved(made, folder, processor):
    if processor:
        pairs = {"single": "<|start|> $A", "pair": "<|start|> $A $B"}
        made.post_processor = processors.TemplateProcessing(**pairs, special_tokens=[("<|start|>", 1)])
    names = {"eos_token": "<|end|>", "bos_token": "<|start|>", "pad_token": "<|pad|>"}
    found = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    found.add_tokens(["<|turn|>"], special_tokens=True)
    found.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)
