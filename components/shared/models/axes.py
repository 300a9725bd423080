"""The words for a model family: its stacks of layers, and the axes that each weight has.

A family is data. It names the axes of its weight matrices, and everything else (counting FLOPs, scoring
heads, cutting matrices) is done once, for all of them, from those names. An axis is one of

* ``hidden``: the residual stream, the same index set throughout the model;
* ``memory``: the same features where a decoder reads them from its encoder;
* ``heads``: the query heads of one layer, ``head_dim`` rows each; ``kv_heads``: its key-value heads;
* ``qkv_heads``: query, key and value of one head, then those of the next, in one matrix;
* ``each_head``: one entry a head;
* ``cross_heads``, ``each_cross_head``: those of the attention that reads the encoder;
* ``ffn``: the neurons of one layer's feed-forward network;
* ``embedding``: the width of the embeddings where it may differ from ``hidden``;
* ``None``: never cut (vocabulary, positions, labels).

For a matrix the order is (output, input), however the module stores it; a tuple of names stands for blocks that lie
one after the other in one matrix, such as a fused query, key and value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Axis = str | None | tuple[str, ...]
Axes = Mapping[str, tuple[Axis, ...]]

QKV, GATED = ("heads", "heads", "heads"), ("ffn", "ffn")
_OF_ONE_TOKEN = ("hidden", "ffn", GATED)


@dataclass(frozen=True)
class Places:
    """A table of relative positions, every row of which attention compares with every token.

    Attributes:
        table: its path, from the model with its head; a model that lacks it compares tokens with tokens only.
        kinds: the configuration's name for the list of comparisons.
        readers: a layer's matrix that reads the table for each kind of comparison.
        shared: the configuration's name for whether `sharing` reads the table instead.
        sharing: a layer's matrices that make queries and keys of the tokens.
    """

    table: str
    kinds: str
    readers: Mapping[str, str]
    shared: str
    sharing: tuple[str, ...]


@dataclass(frozen=True)
class Stack:
    """Layers that run one after the other, all made alike.

    Attributes:
        layers: path of the list of layers, from the model with its head.
        count: the configuration's name for how many there are.
        layer: modules of one layer and their axes; a module that a model or a layer lacks is passed over.
        sizes: attributes of a layer's modules that repeat the width of an axis, and the axis.
        answers: the layers compute the tokens of the answer instead of those of the text.
        shared_bias: a table of relative positions that the first layer has for all of them, so that they need the
            same heads; in free shapes each layer has its own.
        bias_of_all: where that table is, from the model with its head, if no layer but what holds them has it.
        first_stays: the first layer is made unlike the others and cannot be removed.
        query: the module that makes a layer's queries, where it makes nothing else.
        places: the relative positions that its attention reads, where those cost more than looking up a bias.
    """

    layers: str
    count: str
    layer: Axes
    sizes: Mapping[str, str] = field(default_factory=dict)
    answers: bool = False
    shared_bias: str = ""
    bias_of_all: str = ""
    first_stays: bool = False
    query: str = ""
    places: Places | None = None

    def of_one_token(self) -> set[str]:
        """Return a layer's modules that need no other token than the one whose output is read.

        Those are the matrix of the queries, and all that follows the attention: it reads keys and values of all tokens.
        """
        paths = list(self.layer)
        after = paths.index(next(path for path in paths if self.layer[path][1:] == ("heads",)))
        return {self.query} & {*paths} | {path for path in paths[after:] if self.layer[path][0] in _OF_ONE_TOKEN}


@dataclass(frozen=True)
class Family:
    """One family of language models.

    Attributes:
        stacks: its layers: one stack, or an encoder's and a decoder's.
        tokens: modules outside the layers that work on every token, and their axes.
        head: modules that give the answer (pooler, classifier), once a sequence, or once a token of an answer in text.
        config: the configuration's names for the widths: heads, ffn, hidden; where there are such, kv_heads, head_dim
            (else hidden / heads), embedding, and pooled (hidden, stated once more).
        per_layer: names of lists in the configuration that have an entry a layer.
        reads: the token of the last layer's output that a classifier reads: "first", or "last" (that is no padding; its
            head works on every token all the same); "" if it reads more.
        full_attention: every token attends to every token that is no padding, before it or after, near or far.
        answers_in_text: classifies by writing the label's text (sequence to sequence).
        token_types: takes token_type_ids.
        positions_after: the token from whose number on positions count, so that those before are lost: "pad", whatever
            its number, or a number; "" if none are.
        heads_divide_hidden: transformers builds stock models only of heads that divide the hidden width, whatever
            head_dim is.
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
    positions_after: str | int = ""
    heads_divide_hidden: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def is_of_layer(self, name: str) -> bool:
        """Say whether a tensor of this name, with or without the name of the body, is in a layer."""
        paths = (stack.layers.partition(".")[2] or stack.layers for stack in self.stacks)
        return any(re.search(rf"(^|\.){re.escape(path)}\.\d+\.", name) for path in paths)
