"""Leave out what a classifier never reads: of the last layer's output it reads one token.

The other tokens' queries, attention outputs and feed-forward networks are computed for nothing; in a model of two
layers they are two fifths of the FLOPs. Their keys and values are needed. The logits are the same.

It is done by hooks on the matrices and norms of the last layer: they get the one token, and what they give is spread
over all places as a view, so that the layer's own code runs as it is, and is right at the token that is read. The
attention itself is no module: where the family's code asks transformers for the function that computes it, the last
layer is given one that asks for one query. (Of 28 tokens, all queries took two fifths of a small model's time, as
torch's kernel is slow on a view.)
"""

import copy
import sys
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from transformers import AttentionInterface

from kfp_bonsai.shared.models.configuration import token_read
from kfp_bonsai.shared.models.shapes import module_at, stacks_of

_OF_ALL_TOKENS = ("output_hidden_states", "output_attentions")
_OF_ONE_QUERY = f"one query by {__name__}"  # as transformers knows the attention of the last layer


def can(model_class: type, config: Any) -> bool:
    """Say whether models of a class and a configuration read one token only of their last layer."""
    in_chunks = getattr(config, "chunk_size_feed_forward", 0)
    return model_class.__name__.endswith("ForSequenceClassification") and bool(token_read(config)) and not in_chunks


def leaves_out(model: Any) -> bool:
    """Say whether a model computes only the token that it reads of its last layer."""
    return bool(getattr(model.config, "one_token", False)) and can(type(model), model.config)


def leave_out(model: Any) -> bool:
    """Make any classifier that reads one token compute only that of its last layer; return whether it now does."""
    if not leaves_out(model) and can(type(model), model.config):
        model.config.one_token = True
        install(model)
    return leaves_out(model)


def install(model: Any) -> None:
    """Make a classifier leave out, in inference, what it does not read of its last layer.

    Asked for its hidden states or attentions, and in training, it computes all.
    """
    reading = _Reading(model.config)
    model.register_forward_pre_hook(reading.begin, with_kwargs=True)
    model.register_forward_hook(reading.end, always_call=True)
    stack, layers = stacks_of(model)[-1]
    for path in stack.of_one_token():
        module = module_at(layers[-1], path)
        if module is None:
            continue
        axes = stack.layer[path]
        if axes[1:] != ("ffn",):  # the neurons are those of one token already
            module.register_forward_pre_hook(reading.pick)
        if axes[0] == "hidden" or path == stack.query:
            module.register_forward_hook(reading.spread)
    for module in attentions(layers[-1]):
        module.config = copy.copy(model.config)
        module.config._attn_implementation, module.config.reading = _OF_ONE_QUERY, reading


def attentions(layer: torch.nn.Module) -> list[Any]:
    """Return a layer's modules that ask transformers which function computes attention: their queries can be fewer."""
    return [
        module
        for module in layer.modules()
        if hasattr(module, "config") and hasattr(sys.modules[type(module).__module__], "ALL_ATTENTION_FUNCTIONS")
    ]


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
) -> tuple[torch.Tensor, Any]:
    """Attend as the model is set to, in a call that reads one token from that token only.

    Args:
        module: the last layer's attention.
        query: queries (rows, heads, tokens, width); `key` and `value` alike, of as many tokens.
        key: keys.
        value: values.
        mask: what each query sees, (rows, heads, queries, tokens) or one of it for all; None for all tokens, or where
            attention is causal for those before it.
        options: what else the layer's code gives.
    """
    source, reading = sys.modules[type(module).__module__], module.config.reading
    interface = source.ALL_ATTENTION_FUNCTIONS
    attend = interface.get_interface(reading.config._attn_implementation, source.eager_attention_forward)
    call = reading.calls.get(get_ident())
    if call is None:
        return attend(module, query, key, value, mask, **options)
    causal = options.pop("is_causal", None)
    if mask is None and (getattr(module, "is_causal", True) if causal is None else causal):
        places = torch.arange(key.shape[2], device=key.device)
        mask = (places <= (0 if call.at is None else call.at.to(key.device)[:, None]))[:, None, None]
    output, weights = attend(module, call.one_of(query), key, value, call.one_of(mask), **options)
    return output.expand(-1, query.shape[2], -1, -1), weights


AttentionInterface.register(_OF_ONE_QUERY, _attend)


@dataclass
class _Call:
    """One forward pass: the batch's shape (rows, tokens), and where each row's token is, if not first: (rows,)."""

    shape: Any
    at: torch.Tensor | None
    flat: bool = False

    def one_of(self, each: Any) -> Any:
        """Return of queries or a mask, (rows, heads, queries, ...), those of the token that is read."""
        if each is None or each.shape[2] == 1:
            return each
        if self.at is None:
            return each[:, :, :1]
        rows = self.at.shape[0]
        places = self.at.to(each.device)[:, None, None, None].expand(-1, each.shape[1], 1, each.shape[3])
        return each.expand(rows, -1, -1, -1).gather(2, places)


class _Reading:
    """The hooks of one model; each thread has a call of its own, and none while all tokens are computed."""

    def __init__(self, config: Any) -> None:
        self.config, self.last = config, token_read(config) == "last"
        self.calls: dict[int, _Call] = {}

    def begin(self, model: Any, arguments: tuple, options: dict) -> None:
        self.calls.pop(get_ident(), None)  # of a call that was broken off
        ids = options.get("input_ids", arguments[0] if arguments else None)
        asked = (options.get(name, getattr(self.config, name, False)) for name in _OF_ALL_TOKENS)
        if ids is None or model.training or any(asked):
            return
        at = last_token(ids, self.config.pad_token_id) if self.last else None
        self.calls[get_ident()] = _Call(ids.shape, at)

    def end(self, *_: Any) -> None:
        self.calls.pop(get_ident(), None)

    def pick(self, _module: Any, inputs: tuple) -> tuple | None:
        call = self.calls.get(get_ident())
        if call is None:
            return None
        states = inputs[0]
        call.flat = states.dim() == 2  # OPT's feed-forward network takes the tokens of all rows in one list
        if call.flat:
            states = states.view(*call.shape, -1)
        if call.at is None:
            return (states[:, :1], *inputs[1:])
        places = call.at.to(states.device)[:, None, None].expand(-1, 1, states.shape[-1])
        return (states.gather(1, places), *inputs[1:])

    def spread(self, _module: Any, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        call = self.calls.get(get_ident())
        if call is None:
            return output
        everywhere = output.expand(-1, call.shape[1], -1)
        if everywhere.is_cuda:
            everywhere = everywhere.contiguous()  # not every kernel of attention takes a stride of 0
        return everywhere.flatten(0, 1) if call.flat else everywhere


def last_token(ids: torch.Tensor, pad_id: int | None) -> torch.Tensor:
    """Return where each row's last token is that is no padding, as transformers finds it: (rows,)."""
    places = torch.arange(ids.shape[1], device=ids.device, dtype=torch.int32)
    return (places * (ids != (-1 if pad_id is None else pad_id))).argmax(-1)
