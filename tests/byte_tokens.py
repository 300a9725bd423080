"""A small byte-level BPE tokenizer, such as GPT-2, Llama 3, Qwen and SmolLM2 have."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast


def tokenizer(folder, ignore_merges=False, processor=True, unknown_bytes=0):
    """A byte-level BPE tokenizer of some words, with special tokens before and after them, as transformers reads it."""
    made = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words = ["low", "lowest", "lowlands", "newer", "newest", "wider", "widest", "wholly", "otherwise", "zebras", "the"]
    special = ["<|end|>", "<|start|>", "<|pad|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: 256 - unknown_bytes]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator([" ".join(words[at % 11 :] + words[: at % 7]) for at in range(200)], trainer)
    if processor:
        pairs = {"single": "<|start|> $A", "pair": "<|start|> $A $B"}
        made.post_processor = processors.TemplateProcessing(**pairs, special_tokens=[("<|start|>", 1)])
    names = {"eos_token": "<|end|>", "bos_token": "<|start|>", "pad_token": "<|pad|>"}
    found = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    found.add_tokens(["<|turn|>"], special_tokens=True)
    found.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)
