"""A small random model of every family, some with the odd settings that real checkpoints have."""

from typing import Any

import tiny
import torch
from transformers import CONFIG_MAPPING

from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.models.free_models import task_class

DEBERTA = tiny.AS_PUBLISHED["deberta-v2"]
ODD: dict[str, tuple[str, dict[str, Any]]] = {
    "bert with 3 heads": ("bert", {"num_attention_heads": 3}),
    "gpt2 with n_inner": ("gpt2", {"n_inner": 52}),
    "gpt2 of the default width": ("gpt2", {"n_inner": None}),
    "serial gpt_neox": ("gpt_neox", {"use_parallel_residual": False, "rotary_pct": 1.0, "attention_bias": False}),
    "deberta-v2 of version 3": ("deberta-v2", {**DEBERTA, "position_buckets": 4}),
    "deberta-v2 with keys of places": (
        "deberta-v2",
        {**DEBERTA, "share_att_key": False, "pos_att_type": "c2p", "embedding_size": 32},
    ),
    "projected opt": ("opt", {"word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    "gated t5": ("t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 2}),
    "t5 with wide heads": ("t5", {"d_kv": 20}),
    "gemma3_text near and far": (
        "gemma3_text",
        {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "gemma3_text of both sides": ("gemma3_text", {"sliding_window": 6, "use_bidirectional_attention": True}),
    "llama with wide heads": ("llama", {"head_dim": 20}),
}
NAMES = [*FAMILIES, *ODD]
# Those whose stock shapes narrow the hidden width with the heads.
TIED = [name for name in NAMES if "head_dim" not in FAMILIES[ODD.get(name, (name,))[0]].config]


def made(name: str, head: Any = None) -> Any:
    """A random float64 model with every weight away from its initial value, so that no bias or norm hides a mistake.

    Args:
        name: one of NAMES.
        head: an Auto class for another head than the task's.
    """
    family, odd = ODD.get(name, (name, {}))
    names = FAMILIES[family].config
    widths = {"heads": 4, "kv_heads": 2, "head_dim": 12, "hidden": 48, "ffn": 64, "embedding": 48}
    if family == "electra":
        widths["embedding"] = 32
    if family == "gemma3_text":
        widths["hidden"] = 64  # whose root scales the embeddings: in float32, whatever the weights are
    values = {names[key]: value for key, value in widths.items() if key in names}
    values |= {stack.count: 3 for stack in FAMILIES[family].stacks}
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "cls_token_id": 3, "sep_token_id": 4}
    config = CONFIG_MAPPING[family](vocab_size=90, max_position_embeddings=40, **special, **{**values, **odd})
    if FAMILIES[family].answers_in_text:
        config.decoder_start_token_id, config.label_tokens = 0, [[7], [8, 9]]
    model = head.from_config(config) if head else task_class(config)(config)
    if odd.get("tie_word_embeddings") is False:  # as from_pretrained unties them, where a checkpoint has two matrices
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model
