"""All that is known of the model families: which modules they have and what each axis of a weight means.

The words are those of axes.py; what a model's configuration says by them is read in configuration.py. A new family is
one entry in ``FAMILIES``: see CONTRIBUTING.md.
"""

from kfp_bonsai.shared.models.axes import GATED, QKV, Axes, Family, Places, Stack

_BERT_REST: Axes = {
    "attention.output.dense": ("hidden", "heads"),
    "attention.output.LayerNorm": ("hidden",),
    "intermediate.dense": ("ffn", "hidden"),
    "output.dense": ("hidden", "ffn"),
    "output.LayerNorm": ("hidden",),
}

_BERT_LAYER: Axes = {
    "attention.self.query": ("heads", "hidden"),
    "attention.self.key": ("heads", "hidden"),
    "attention.self.value": ("heads", "hidden"),
    **_BERT_REST,
}

_BERT_CONFIG = {"heads": "num_attention_heads", "ffn": "intermediate_size", "hidden": "hidden_size"}


def _bert_embeddings(base: str, width: str) -> Axes:
    return {
        f"{base}.embeddings.word_embeddings": (None, width),
        f"{base}.embeddings.position_embeddings": (None, width),
        f"{base}.embeddings.token_type_embeddings": (None, width),
        f"{base}.embeddings.LayerNorm": (width,),
    }


def _bert_stack(base: str) -> tuple[Stack]:
    return (Stack(f"{base}.encoder.layer", "num_hidden_layers", _BERT_LAYER, query="attention.self.query"),)


_BERT_FIXED = {
    "position_embedding_type": "absolute",  # transformers 5 has no other, and drops their weights
    "is_decoder": False,  # it would see the text before each token only
    "add_cross_attention": False,
}
_DENSE_HEAD: Axes = {"classifier.dense": ("hidden", "hidden"), "classifier.out_proj": (None, "hidden")}

_TOKEN_HEAD: Axes = {"score": (None, "hidden"), "lm_head": (None, "hidden")}

_T5_SELF: Axes = {
    "layer.0.layer_norm": ("hidden",),
    "layer.0.SelfAttention.q": ("heads", "hidden"),
    "layer.0.SelfAttention.k": ("heads", "hidden"),
    "layer.0.SelfAttention.v": ("heads", "hidden"),
    "layer.0.SelfAttention.o": ("hidden", "heads"),
    "layer.0.SelfAttention.relative_attention_bias": (None, "each_head"),
}

_T5_CROSS: Axes = {
    "layer.1.layer_norm": ("hidden",),
    "layer.1.EncDecAttention.q": ("cross_heads", "hidden"),
    "layer.1.EncDecAttention.k": ("cross_heads", "memory"),
    "layer.1.EncDecAttention.v": ("cross_heads", "memory"),
    "layer.1.EncDecAttention.o": ("hidden", "cross_heads"),
}

_T5_SIZES = {"layer.0.SelfAttention.n_heads": "each_head", "layer.0.SelfAttention.inner_dim": "heads"}
_T5_CROSS_SIZES = {
    "layer.1.EncDecAttention.n_heads": "each_cross_head",
    "layer.1.EncDecAttention.inner_dim": "cross_heads",
}


def _t5_network(number: int) -> Axes:
    """Return the feed-forward part, plain (wi) or gated (wi_0, wi_1)."""
    part = f"layer.{number}"
    return {
        f"{part}.layer_norm": ("hidden",),
        f"{part}.DenseReluDense.wi": ("ffn", "hidden"),
        f"{part}.DenseReluDense.wi_0": ("ffn", "hidden"),
        f"{part}.DenseReluDense.wi_1": ("ffn", "hidden"),
        f"{part}.DenseReluDense.wo": ("hidden", "ffn"),
    }


_T5_BIAS = "layer.0.SelfAttention.relative_attention_bias"


def _llama(more_norms: tuple[str, ...] = (), heads_divide_hidden: bool = False) -> Family:
    """Return the layout that Llama has, and Qwen, Mistral and Gemma took over."""
    layer: Axes = {
        "input_layernorm": ("hidden",),
        "self_attn.q_proj": ("heads", "hidden"),
        "self_attn.k_proj": ("kv_heads", "hidden"),
        "self_attn.v_proj": ("kv_heads", "hidden"),
        "self_attn.o_proj": ("hidden", "heads"),
        "post_attention_layernorm": ("hidden",),
        "mlp.gate_proj": ("ffn", "hidden"),
        "mlp.up_proj": ("ffn", "hidden"),
        "mlp.down_proj": ("hidden", "ffn"),
        **dict.fromkeys(more_norms, ("hidden",)),
    }
    return Family(
        stacks=(Stack("model.layers", "num_hidden_layers", layer, query="self_attn.q_proj"),),
        tokens={"model.embed_tokens": (None, "hidden"), "model.norm": ("hidden",)},
        head=_TOKEN_HEAD,
        reads="last",
        config={**_BERT_CONFIG, "kv_heads": "num_key_value_heads", "head_dim": "head_dim"},
        per_layer=("layer_types",),
        heads_divide_hidden=heads_divide_hidden,
    )


FAMILIES: dict[str, Family] = {
    "bert": Family(
        stacks=_bert_stack("bert"),
        tokens=_bert_embeddings("bert", "hidden"),
        head={"bert.pooler.dense": ("hidden", "hidden"), "classifier": (None, "hidden")},
        config=_BERT_CONFIG,
        reads="first",
        full_attention=True,
        token_types=True,
        fixed=_BERT_FIXED,
    ),
    "roberta": Family(
        stacks=_bert_stack("roberta"),
        tokens=_bert_embeddings("roberta", "hidden"),
        head=_DENSE_HEAD,
        config=_BERT_CONFIG,
        reads="first",
        full_attention=True,
        positions_after="pad",
        fixed=_BERT_FIXED,
    ),
    "electra": Family(
        stacks=_bert_stack("electra"),
        tokens={**_bert_embeddings("electra", "embedding"), "electra.embeddings_project": ("hidden", "embedding")},
        head=_DENSE_HEAD,
        config={**_BERT_CONFIG, "embedding": "embedding_size"},
        reads="first",
        full_attention=True,
        token_types=True,
        fixed=_BERT_FIXED,
    ),
    "distilbert": Family(
        stacks=(
            Stack(
                "distilbert.transformer.layer",
                "n_layers",
                {
                    "attention.q_lin": ("heads", "hidden"),
                    "attention.k_lin": ("heads", "hidden"),
                    "attention.v_lin": ("heads", "hidden"),
                    "attention.out_lin": ("hidden", "heads"),
                    "sa_layer_norm": ("hidden",),
                    "ffn.lin1": ("ffn", "hidden"),
                    "ffn.lin2": ("hidden", "ffn"),
                    "output_layer_norm": ("hidden",),
                },
                query="attention.q_lin",
            ),
        ),
        tokens={
            "distilbert.embeddings.word_embeddings": (None, "hidden"),
            "distilbert.embeddings.position_embeddings": (None, "hidden"),
            "distilbert.embeddings.LayerNorm": ("hidden",),
        },
        head={"pre_classifier": ("hidden", "hidden"), "classifier": (None, "hidden")},
        config={"heads": "n_heads", "ffn": "hidden_dim", "hidden": "dim"},
        reads="first",
        full_attention=True,
    ),
    "mpnet": Family(
        stacks=(
            Stack(
                "mpnet.encoder.layer",
                "num_hidden_layers",
                {
                    "attention.attn.q": ("heads", "hidden"),
                    "attention.attn.k": ("heads", "hidden"),
                    "attention.attn.v": ("heads", "hidden"),
                    "attention.attn.o": ("hidden", "heads"),
                    "attention.attn.relative_attention_bias": (None, "each_head"),
                    "attention.LayerNorm": ("hidden",),
                    "intermediate.dense": ("ffn", "hidden"),
                    "output.dense": ("hidden", "ffn"),
                    "output.LayerNorm": ("hidden",),
                },
                sizes={"attention.attn.num_attention_heads": "each_head", "attention.attn.all_head_size": "heads"},
                shared_bias="attention.attn.relative_attention_bias",
                bias_of_all="mpnet.encoder.relative_attention_bias",
                query="attention.attn.q",
            ),
        ),
        tokens={
            "mpnet.embeddings.word_embeddings": (None, "hidden"),
            "mpnet.embeddings.position_embeddings": (None, "hidden"),
            "mpnet.embeddings.LayerNorm": ("hidden",),
        },
        head=_DENSE_HEAD,
        config=_BERT_CONFIG,
        reads="first",
        full_attention=True,
        positions_after=1,  # its code counts from there, whichever token pads
        fixed={"relative_attention_num_buckets": 32},  # its code knows no other number
    ),
    "modernbert": Family(
        stacks=(
            Stack(
                "model.layers",
                "num_hidden_layers",
                {
                    "attn_norm": ("hidden",),
                    "attn.Wqkv": (QKV, "hidden"),
                    "attn.Wo": ("hidden", "heads"),
                    "mlp_norm": ("hidden",),
                    "mlp.Wi": (GATED, "hidden"),
                    "mlp.Wo": ("hidden", "ffn"),
                },
                first_stays=True,  # it has no norm before its attention
            ),
        ),
        tokens={
            "model.embeddings.tok_embeddings": (None, "hidden"),
            "model.embeddings.norm": ("hidden",),
            "model.final_norm": ("hidden",),
        },
        head={"head.dense": ("hidden", "hidden"), "head.norm": ("hidden",), "classifier": (None, "hidden")},
        config=_BERT_CONFIG,
        reads="first",
        per_layer=("layer_types",),
    ),
    "deberta-v2": Family(
        stacks=(
            Stack(
                "deberta.encoder.layer",
                "num_hidden_layers",
                {
                    "attention.self.query_proj": ("heads", "hidden"),
                    "attention.self.key_proj": ("heads", "hidden"),
                    "attention.self.value_proj": ("heads", "hidden"),
                    "attention.self.pos_key_proj": ("heads", "hidden"),
                    "attention.self.pos_query_proj": ("heads", "hidden"),
                    **_BERT_REST,
                },
                sizes={"attention.self.num_attention_heads": "each_head", "attention.self.all_head_size": "heads"},
                places=Places(
                    "deberta.encoder.rel_embeddings",
                    kinds="pos_att_type",
                    readers={"c2p": "attention.self.pos_key_proj", "p2c": "attention.self.pos_query_proj"},
                    shared="share_att_key",
                    sharing=("attention.self.query_proj", "attention.self.key_proj"),
                ),
            ),
        ),
        tokens={
            **_bert_embeddings("deberta", "embedding"),
            "deberta.embeddings.LayerNorm": ("hidden",),
            "deberta.embeddings.embed_proj": ("hidden", "embedding"),
            "deberta.encoder.rel_embeddings": (None, "hidden"),
            "deberta.encoder.LayerNorm": ("hidden",),
        },
        head={"pooler.dense": ("hidden", "hidden"), "classifier": (None, "hidden")},
        config={**_BERT_CONFIG, "embedding": "embedding_size", "pooled": "pooler_hidden_size"},
        reads="first",
        token_types=True,
        fixed={"conv_kernel_size": 0},  # a convolution of the embeddings is added to what the first layer gives
    ),
    "gpt2": Family(
        stacks=(
            Stack(
                "transformer.h",
                "n_layer",
                {
                    "ln_1": ("hidden",),
                    "attn.c_attn": (QKV, "hidden"),
                    "attn.c_proj": ("hidden", "heads"),
                    "ln_2": ("hidden",),
                    "mlp.c_fc": ("ffn", "hidden"),
                    "mlp.c_proj": ("hidden", "ffn"),
                },
                sizes={"attn.split_size": "heads", "attn.num_heads": "each_head"},
            ),
        ),
        tokens={
            "transformer.wte": (None, "hidden"),
            "transformer.wpe": (None, "hidden"),
            "transformer.ln_f": ("hidden",),
        },
        head=_TOKEN_HEAD,
        reads="last",
        config={"heads": "n_head", "ffn": "n_inner", "hidden": "n_embd"},
        fixed={"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    ),
    "gpt_neox": Family(
        stacks=(
            Stack(
                "gpt_neox.layers",
                "num_hidden_layers",
                {
                    "input_layernorm": ("hidden",),
                    "attention.query_key_value": ("qkv_heads", "hidden"),
                    "attention.dense": ("hidden", "heads"),
                    "post_attention_layernorm": ("hidden",),
                    "mlp.dense_h_to_4h": ("ffn", "hidden"),
                    "mlp.dense_4h_to_h": ("hidden", "ffn"),
                },
            ),
        ),
        tokens={"gpt_neox.embed_in": (None, "hidden"), "gpt_neox.final_layer_norm": ("hidden",)},
        head=_TOKEN_HEAD,
        reads="last",
        config=_BERT_CONFIG,
    ),
    "opt": Family(
        stacks=(
            Stack(
                "model.decoder.layers",
                "num_hidden_layers",
                {
                    "self_attn_layer_norm": ("hidden",),
                    "self_attn.q_proj": ("heads", "hidden"),
                    "self_attn.k_proj": ("heads", "hidden"),
                    "self_attn.v_proj": ("heads", "hidden"),
                    "self_attn.out_proj": ("hidden", "heads"),
                    "final_layer_norm": ("hidden",),
                    "fc1": ("ffn", "hidden"),
                    "fc2": ("hidden", "ffn"),
                },
                sizes={"self_attn.num_heads": "each_head"},
                query="self_attn.q_proj",
            ),
        ),
        tokens={
            "model.decoder.embed_tokens": (None, "embedding"),
            "model.decoder.embed_positions": (None, "hidden"),
            "model.decoder.project_in": ("hidden", "embedding"),
            "model.decoder.final_layer_norm": ("hidden",),
            "model.decoder.project_out": ("embedding", "hidden"),
        },
        head={"score": (None, "embedding"), "lm_head": (None, "embedding")},
        reads="last",
        config={
            "heads": "num_attention_heads",
            "ffn": "ffn_dim",
            "hidden": "hidden_size",
            "embedding": "word_embed_proj_dim",
        },
    ),
    "t5": Family(
        stacks=(
            Stack("encoder.block", "num_layers", {**_T5_SELF, **_t5_network(1)}, sizes=_T5_SIZES, shared_bias=_T5_BIAS),
            Stack(
                "decoder.block",
                "num_decoder_layers",
                {**_T5_SELF, **_T5_CROSS, **_t5_network(2)},
                sizes={**_T5_SIZES, **_T5_CROSS_SIZES},
                answers=True,
                shared_bias=_T5_BIAS,
            ),
        ),
        tokens={
            "shared": (None, "hidden"),
            "encoder.embed_tokens": (None, "hidden"),
            "encoder.final_layer_norm": ("hidden",),
            "decoder.embed_tokens": (None, "hidden"),
            "decoder.final_layer_norm": ("hidden",),
        },
        head={"lm_head": (None, "hidden")},
        config={"heads": "num_heads", "ffn": "d_ff", "hidden": "d_model", "head_dim": "d_kv"},
        answers_in_text=True,
        fixed={"is_decoder": False},
    ),
    "llama": _llama(heads_divide_hidden=True),
    "mistral": _llama(),
    "qwen2": _llama(),
    "qwen3": _llama(),
    "gemma3_text": _llama(("pre_feedforward_layernorm", "post_feedforward_layernorm"), heads_divide_hidden=True),
}

REFUSED = {  # which cannot be families, and why
    "albert": "its layers are one set of weights that runs many times, so that what is pruned of one goes from all; "
    "layers of their own would make the file larger: give a BERT or ELECTRA of its width",
    "gemma3": "it reads images too: give its text model, saved with "
    "AutoModel.from_pretrained('MODEL').language_model.save_pretrained('NEW_FOLDER'), and its tokenizer beside it",
}
