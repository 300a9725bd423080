"""Model types for free shapes: a stock model whose layers differ in their heads and neurons.

The constructors of stock models tie the hidden width to heads x head_dim, so a free shape needs a
type of its own: `bonsai-bert` is BERT with a list of widths in its configuration. The types are made from
the stock classes, so everything else (forward, generate, heads for other tasks) is theirs. What this needs can leave
the house as one file (shipped_code.py): its functions are imported by their own names, here and in what they call.
"""

from functools import cache
from typing import Any

from kfp_bonsai.shared.models.configuration import FREE_PREFIX


def stock_config_class(family: str) -> Any:
    """Return the configuration class of a family."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[family]


@cache
def free_config_class(family: str) -> Any:
    """Return the configuration class of a family's free shapes; `layer_shapes` lists [heads, ffn] a layer."""
    stock = stock_config_class(family)
    return type(
        f"Bonsai{stock.__name__}",
        (stock,),
        {
            "__module__": __name__,
            "__doc__": f"{stock.__name__} with `layer_shapes`: [heads, neurons] of each layer, and with an encoder "
            "to read also the heads that read it; an encoder's layers before its decoder's. `one_token`: a classifier "
            "computes of its last layer only the token that it reads, unless asked for hidden states or attentions.",
            "__annotations__": {"layer_shapes": list | None, "one_token": bool},
            "model_type": FREE_PREFIX + family,
            "layer_shapes": None,
            "one_token": False,
        },
    )


@cache
def free_class(stock: Any) -> Any:
    """Return the free-shaped subclass of a stock model class (or the class itself if it is one)."""
    from transformers import AutoModel

    if getattr(stock, "stock_class", None):
        return stock

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        from kfp_bonsai.shared.models.biases import part
        from kfp_bonsai.shared.models.narrow import resize
        from kfp_bonsai.shared.models.one_token import install, leaves_out
        from kfp_bonsai.shared.models.shapes import LayerShape, stacks_of

        stock.__init__(self, config, *args, **kwargs)
        for stack, layers in stacks_of(self):
            if stack.shared_bias:
                part(self, stack, layers)
        resize(self, [LayerShape(*widths) for widths in config.layer_shapes])
        if leaves_out(self):
            install(self)

    stock_config = stock.config_class
    made: Any = type(
        f"Bonsai{stock.__name__}",
        (stock,),
        {
            "__module__": __name__,
            "__doc__": f"{stock.__name__} whose layers have the widths in its configuration.",
            "__init__": __init__,
            "stock_class": stock,
            "config_class": free_config_class(stock_config.model_type),
        },
    )
    body = AutoModel._model_mapping[stock_config]  # for which some classes ask AutoModel
    AutoModel.register(made.config_class, made if stock is body else free_class(body), exist_ok=True)
    return made
