"""All that is known of the model families: which modules they have and what each axis of a weight means.

A family is data. It names the axes of its weight matrices, and everything else (counting FLOPs, scoring
heads, cutting matrices) is done once, for all of them, from those names. An axis is one of

* ``hidden``: the residual stream, the same index set throughout the model;
* ``memory``: the same features where a decoder reads them from its encoder;
* ``heads``: the query heads of one layer, ``head_dim`` rows each; ``kv_heads``: its key-value heads;
* ``each_head``: one entry a head;
* ``cross_heads``, ``each_cross_head``: those of the attention that reads the encoder;
* ``ffn``: the neurons of one layer's feed-forward network;
* ``embedding``: the width of the embeddings where it may differ from ``hidden``;
* ``None``: never cut (vocabulary, positions, labels).

For a matrix the order is (output, input), however the module stores it; a tuple of names stands for blocks that lie
one after the other in one matrix, such as a fused query, key and value. A new family is one entry in ``FAMILIES``;
see CONTRIBUTING.md.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError

Axis = str | None | tuple[str, ...]
Axes = Mapping[str, tuple[Axis, ...]]

_QKV, _GATED = ("heads", "heads", "heads"), ("ffn", "ffn")
_OF_ONE_TOKEN = ("hidden", "ffn", _GATED)


@dataclass(frozen=True)
class Stack:
    """Layers that run one after the other, all made alike.

    Attributes:
        layers: path of the list of layers, from the model with its head.
        count: the configuration's name for how many there are.
        layer: modules of one layer and their axes; a module that a model or a layer lacks is passed over.
        sizes: attributes of a layer's modules that repeat the width of an axis, and the axis.
        answers: the layers compute the tokens of the answer instead of those of the text.
        shared_bias: a module that the first layer has for all of them, so that they need the same heads.
        first_stays: the first layer is made unlike the others and cannot be removed.
        query: the module that makes a layer's queries, where it makes nothing else.
    """

    layers: str
    count: str
    layer: Axes
    sizes: Mapping[str, str] = field(default_factory=dict)
    answers: bool = False
    shared_bias: str = ""
    first_stays: bool = False
    query: str = ""

    def of_one_token(self) -> set[str]:
        """Return a layer's matrices that need no other token than the one whose output is read.

        Those are all but keys and values, as the one token attends to every token.
        """
        matrices = {path: axes[0] for path, axes in self.layer.items() if len(axes) == 2}
        return {path for path, written in matrices.items() if path == self.query or written in _OF_ONE_TOKEN}


@dataclass(frozen=True)
class Family:
    """One family of language models.

    Attributes:
        stacks: its layers: one stack, or an encoder's and a decoder's.
        tokens: modules outside the layers that work on every token, and their axes.
        head: modules that give the answer (pooler, classifier), once a sequence, or once a token of an answer in text.
        config: the configuration's names for the widths: heads, ffn, hidden; where there are such, kv_heads, head_dim
            (else hidden / heads) and embedding.
        per_layer: names of lists in the configuration that have an entry a layer.
        reads: the token of the last layer's output that a classifier reads: "first", or "last" (that is no padding; its
            head works on every token all the same); "" if it reads more.
        full_attention: every token attends to every token that is no padding, before it or after, near or far.
        answers_in_text: classifies by writing the label's text (sequence to sequence).
        token_types: takes token_type_ids.
        positions_after_pad: positions count from the padding token's number on, so that those before are lost.
        fixed: settings of the configuration that surgery rests on; models that have them otherwise are refused.
    """

    stacks: tuple[Stack, ...]
    tokens: Axes
    head: Axes
    config: Mapping[str, str]
    per_layer: tuple[str, ...] = ()
    reads: str = ""
    full_attention: bool = False
    answers_in_text: bool = False
    token_types: bool = False
    positions_after_pad: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def is_of_layer(self, name: str) -> bool:
        """Say whether a tensor of this name, with or without the name of the body, is in a layer."""
        paths = (stack.layers.partition(".")[2] or stack.layers for stack in self.stacks)
        return any(re.search(rf"(^|\.){re.escape(path)}\.\d+\.", name) for path in paths)


_BERT_LAYER: Axes = {
    "attention.self.query": ("heads", "hidden"),
    "attention.self.key": ("heads", "hidden"),
    "attention.self.value": ("heads", "hidden"),
    "attention.output.dense": ("hidden", "heads"),
    "attention.output.LayerNorm": ("hidden",),
    "intermediate.dense": ("ffn", "hidden"),
    "output.dense": ("hidden", "ffn"),
    "output.LayerNorm": ("hidden",),
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


def _llama() -> Family:
    """Return the layout that Llama has, and Qwen and Mistral took over."""
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
    }
    return Family(
        stacks=(Stack("model.layers", "num_hidden_layers", layer, query="self_attn.q_proj"),),
        tokens={"model.embed_tokens": (None, "hidden"), "model.norm": ("hidden",)},
        head=_TOKEN_HEAD,
        reads="last",
        config={**_BERT_CONFIG, "kv_heads": "num_key_value_heads", "head_dim": "head_dim"},
        per_layer=("layer_types",),
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
        positions_after_pad=True,
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
    "modernbert": Family(
        stacks=(
            Stack(
                "model.layers",
                "num_hidden_layers",
                {
                    "attn_norm": ("hidden",),
                    "attn.Wqkv": (_QKV, "hidden"),
                    "attn.Wo": ("hidden", "heads"),
                    "mlp_norm": ("hidden",),
                    "mlp.Wi": (_GATED, "hidden"),
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
    "gpt2": Family(
        stacks=(
            Stack(
                "transformer.h",
                "n_layer",
                {
                    "ln_1": ("hidden",),
                    "attn.c_attn": (_QKV, "hidden"),
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
    "llama": _llama(),
    "mistral": _llama(),
    "qwen2": _llama(),
    "qwen3": _llama(),
}

FREE_PREFIX = "bonsai-"
UNLIMITED = 1 << 20
MOST_LAYERS, FEWEST_POSITIONS = 1000, 4


def family_name(model_type: Any) -> str:
    """Return the family of a model type: free shapes ("bonsai-bert") belong to their stock family ("bert").

    Raises:
        BonsaiError: the model type is unknown; the message lists the known ones.
    """
    name = model_type.removeprefix(FREE_PREFIX) if isinstance(model_type, str) else ""
    if name not in FAMILIES:
        raise BonsaiError(
            f"model_type '{model_type}' is not supported (known: {', '.join(FAMILIES)}); CONTRIBUTING.md shows how to "
            "add a family"
        )
    return name


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration."""
    return FAMILIES[family_name(config.model_type)]


def check_settings(config: Any) -> None:
    """Check that a configuration has no setting with which a model cannot be, cannot learn, or cannot be cut exactly.

    Raises:
        BonsaiError: it has one; the message names it.
    """
    family = family_of(config)
    layers, widths = [stack.count for stack in family.stacks], {**family.config, "tokens": "vocab_size"}
    for name in (*layers, *widths.values()):
        value = getattr(config, name, None)
        most = MOST_LAYERS if name in layers else math.inf
        if value is not None and not (isinstance(value, int) and 1 <= value <= most):
            raise BonsaiError(f"config.json sets {name} to {value}, of which there is no model: save the model again")
    positions = positions_of(config)
    if not (isinstance(positions, int) and positions >= FEWEST_POSITIONS):
        raise BonsaiError(f"config.json leaves {positions} positions for a text: save the model again")
    for name, value in vars(config).items():
        lacking = value is None and getattr(type(config), name, None) is not None
        number = isinstance(value, int | float)
        if "drop" in name and (lacking or (number and not 0 <= value < 1)):
            raise BonsaiError(f"config.json sets {name} to {value}, with which nothing can be learnt: set it below 1")
        if "_eps" in name and (lacking or (number and value < 0)):
            raise BonsaiError(f"config.json sets {name} to {value}, of which there is no model: save the model again")
    window = getattr(config, "sliding_window", None)
    if isinstance(window, int) and window < 1:
        raise BonsaiError(f"config.json sets sliding_window to {window}, with which no token sees any: write 1 or more")
    _check_rotations(getattr(config, "rope_parameters", None))
    for name, value in family.fixed.items():
        if getattr(config, name, value) != value:
            raise BonsaiError(
                f"config.json sets {name} to {getattr(config, name)}, with which layers and heads cannot be removed "
                f"exactly: only models with {name} = {value} are supported"
            )


def _check_rotations(found: Any) -> None:
    """Check that positions can be turned by these numbers, which may be nested by kinds of layers."""
    for name, value in found.items() if isinstance(found, Mapping) else ():
        _check_rotations(value)
        if name in ("rope_theta", "factor") and isinstance(value, int | float) and value <= 0:
            raise BonsaiError(f"config.json sets {name} to {value}, with which no position can be told: write above 0")


def token_read(config: Any) -> str:
    """Return the token of the last layer that a classifier of this configuration reads: "first", "last", or ""."""
    pooled = getattr(config, "classifier_pooling", "cls") == "cls"  # ModernBERT may take the mean of all
    return family_of(config).reads if pooled else ""


def check_first(config: Any, stack: Stack, kept: Sequence[int]) -> None:
    """Check that a first layer that must stay is among the layers kept.

    Raises:
        BonsaiError: it is not.
    """
    if stack.first_stays and kept[0] != 0:
        raise BonsaiError(
            f"layer 0 of a {config.model_type} model is made unlike the others and cannot go: "
            f"keep it, as in 0,{','.join(map(str, kept[1:] or kept))}"
        )


def is_free(config: Any) -> bool:
    """Say whether a configuration is of a free shape."""
    return config.model_type.startswith(FREE_PREFIX)


def inputs_of(config: Any) -> tuple[str, ...]:
    """Return the names of the arrays that a model takes."""
    types = family_of(config).token_types and getattr(config, "type_vocab_size", 2) > 1  # one type says nothing
    return ("input_ids", "attention_mask", *(("token_type_ids",) if types else ()))


def positions_of(config: Any) -> int:
    """Return how many tokens of a text a model takes at the most; a very large number where there is no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    lost = (config.pad_token_id or 0) + 1 if family_of(config).positions_after_pad else 0
    return positions - lost if positions else UNLIMITED


def head_dim(config: Any) -> int:
    """Return the width of one attention head, which compression never changes."""
    names = family_of(config).config
    stated = getattr(config, names["head_dim"], None) if "head_dim" in names else None
    return stated or getattr(config, names["hidden"]) // getattr(config, names["heads"])


def heads_per_group(config: Any) -> int:
    """Return how many query heads share one key-value head (1 unless attention is grouped)."""
    names = family_of(config).config
    groups = getattr(config, names["kv_heads"], None) if "kv_heads" in names else None
    return getattr(config, names["heads"]) // groups if groups else 1
