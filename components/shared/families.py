"""All that is known of the model families: which modules they have and what each axis of a weight means.

A family is data. It names the axes of its weight matrices, and everything else (counting FLOPs, scoring
heads, cutting matrices) is done once, for all of them, from those names. An axis is one of

* ``hidden``: the residual stream, the same index set throughout the model;
* ``heads``: the attention heads of one layer, ``head_dim`` rows each;
* ``ffn``: the neurons of one layer's feed-forward network;
* ``embedding``: the width of the embeddings where it may differ from ``hidden``;
* ``None``: never cut (vocabulary, positions, labels).

For a matrix the order is (output, input), however the module stores it. A new family is one entry in
``FAMILIES``; see CONTRIBUTING.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bonsai.shared.errors import BonsaiError, nearest

Axes = Mapping[str, tuple[str | None, ...]]


@dataclass(frozen=True)
class Family:
    """One family of language models.

    Attributes:
        layers: path of the list of transformer layers, from the model with its head.
        layer: modules of one layer and their axes.
        embeddings: modules outside the layers that work on every token, and their axes.
        head: modules that work once a sequence (pooler, classifier), and their axes.
        config: the configuration's names for the number of layers, heads, neurons, and the widths.
    """

    layers: str
    layer: Axes
    embeddings: Axes
    head: Axes
    config: Mapping[str, str]


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

_BERT_CONFIG = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "hidden": "hidden_size",
}


def _bert_embeddings(base: str, width: str) -> Axes:
    return {
        f"{base}.embeddings.word_embeddings": (None, width),
        f"{base}.embeddings.position_embeddings": (None, width),
        f"{base}.embeddings.token_type_embeddings": (None, width),
        f"{base}.embeddings.LayerNorm": (width,),
    }


_DENSE_HEAD: Axes = {"classifier.dense": ("hidden", "hidden"), "classifier.out_proj": (None, "hidden")}

FAMILIES: dict[str, Family] = {
    "bert": Family(
        layers="bert.encoder.layer",
        layer=_BERT_LAYER,
        embeddings=_bert_embeddings("bert", "hidden"),
        head={"bert.pooler.dense": ("hidden", "hidden"), "classifier": (None, "hidden")},
        config=_BERT_CONFIG,
    ),
    "roberta": Family(
        layers="roberta.encoder.layer",
        layer=_BERT_LAYER,
        embeddings=_bert_embeddings("roberta", "hidden"),
        head=_DENSE_HEAD,
        config=_BERT_CONFIG,
    ),
    "electra": Family(
        layers="electra.encoder.layer",
        layer=_BERT_LAYER,
        embeddings={
            **_bert_embeddings("electra", "embedding"),
            "electra.embeddings_project": ("hidden", "embedding"),
        },
        head=_DENSE_HEAD,
        config={**_BERT_CONFIG, "embedding": "embedding_size"},
    ),
    "distilbert": Family(
        layers="distilbert.transformer.layer",
        layer={
            "attention.q_lin": ("heads", "hidden"),
            "attention.k_lin": ("heads", "hidden"),
            "attention.v_lin": ("heads", "hidden"),
            "attention.out_lin": ("hidden", "heads"),
            "sa_layer_norm": ("hidden",),
            "ffn.lin1": ("ffn", "hidden"),
            "ffn.lin2": ("hidden", "ffn"),
            "output_layer_norm": ("hidden",),
        },
        embeddings={
            "distilbert.embeddings.word_embeddings": (None, "hidden"),
            "distilbert.embeddings.position_embeddings": (None, "hidden"),
            "distilbert.embeddings.LayerNorm": ("hidden",),
        },
        head={"pre_classifier": ("hidden", "hidden"), "classifier": (None, "hidden")},
        config={"layers": "n_layers", "heads": "n_heads", "ffn": "hidden_dim", "hidden": "dim"},
    ),
}

FREE_PREFIX = "bonsai-"


def family_name(model_type: str) -> str:
    """Return the family of a model type: free shapes ("bonsai-bert") belong to their stock family ("bert").

    Raises:
        BonsaiError: the model type is unknown; the message lists the known ones.
    """
    name = model_type.removeprefix(FREE_PREFIX)
    if name not in FAMILIES:
        raise BonsaiError(
            f"model_type '{model_type}' is not supported (known: {', '.join(FAMILIES)})"
            f"{nearest(name, list(FAMILIES))}; CONTRIBUTING.md shows how to add a family"
        )
    return name


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration."""
    return FAMILIES[family_name(config.model_type)]


def head_dim(config: Any) -> int:
    """Return the width of one attention head, which compression never changes."""
    names = family_of(config).config
    return getattr(config, names["hidden"]) // getattr(config, names["heads"])
