"""Model types for free shapes: a stock model whose layers differ in their heads and neurons.

The constructors of stock models tie the hidden width to heads x head_dim, so a free shape needs a
type of its own: `bonsai-bert` is BERT with a list of widths in its configuration. The types are made from
the stock classes, so everything else (forward, generate, heads for other tasks) is theirs, and they are
registered with transformers' Auto classes when kfp_bonsai is imported: no remote code.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from kfp_bonsai.shared.kinds.kind import WRITTEN
from kfp_bonsai.shared.models import heads
from kfp_bonsai.shared.models.configuration import FREE_PREFIX, family_name, family_of, is_free, token_read
from kfp_bonsai.shared.models.families import FAMILIES

AUTO_CLASSES = ("AutoModel", *heads.AUTO.values(), heads.IN_TEXT)


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
def free_class(stock: type) -> type:
    """Return the free-shaped subclass of a stock model class (or the class itself if it is one)."""
    register()  # some classes ask the Auto classes for their own body
    if getattr(stock, "stock_class", None):
        return stock

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        from kfp_bonsai.shared.models import biases, one_token
        from kfp_bonsai.shared.models.narrow import resize
        from kfp_bonsai.shared.models.shapes import LayerShape, stacks_of

        stock.__init__(self, config, *args, **kwargs)  # type: ignore[misc]
        for stack, layers in stacks_of(self):
            if stack.shared_bias:
                biases.part(self, stack, layers)
        resize(self, [LayerShape(*widths) for widths in config.layer_shapes])
        if one_token.leaves_out(self):
            one_token.install(self)

    return type(
        f"Bonsai{stock.__name__}",
        (stock,),
        {
            "__module__": __name__,
            "__doc__": f"{stock.__name__} whose layers have the widths in its configuration.",
            "__init__": __init__,
            "stock_class": stock,
            "config_class": free_config_class(stock.config_class.model_type),  # type: ignore[attr-defined]
        },
    )


def variant(model_class: Any, free: bool) -> Any:
    """Return the free or the stock class beside a model class; one that answers in text stays one."""
    plain = getattr(model_class, "plain_class", model_class)
    stock = getattr(plain, "stock_class", plain)
    found: Any = free_class(stock) if free else stock
    return found if plain is model_class else heads.wrapped(found, found.config_class)


def task_class(config: Any, head: str = "") -> Any:
    """Return the class of the models that the stages train.

    Args:
        config: its configuration.
        head: what it gives logits for; empty for what the configuration says.
    """
    head = head or heads.head_of(config)
    stock = heads.stock_class(stock_config_class(family_name(config.model_type)), family_of(config), head)
    found = free_class(stock) if is_free(config) else stock
    return found if head == WRITTEN else heads.wrapped(found, config)


def free_config(config: Any, layers: Sequence[Any]) -> Any:
    """Return a configuration of the family's free type with these layers' widths."""
    shapes = [[one.heads, one.ffn, *([one.cross_heads] if one.cross_heads else [])] for one in layers]
    values = {**_values(config), "layer_shapes": shapes}
    return free_config_class(config.model_type)(**values, one_token=bool(token_read(config)))


def stock_config(config: Any) -> Any:
    """Return a copy of a configuration as its family's stock type."""
    return stock_config_class(family_name(config.model_type))(**_values(config))


def _values(config: Any) -> dict[str, Any]:
    values = config.to_dict()
    for name in ("model_type", "layer_shapes", "one_token", "architectures", "transformers_version"):
        values.pop(name, None)
    return values


@cache
def register() -> None:
    """Make transformers' Auto classes know the free types, without importing any model yet."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto as auto

    for family in FAMILIES:
        config_class = free_config_class(family)
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        for name in AUTO_CLASSES:
            auto_class = getattr(auto, name)
            if family in auto_class._model_mapping._model_mapping:
                auto_class.register(config_class, _loader(auto_class, family), exist_ok=True)


def _loader(auto_class: Any, family: str) -> type:
    """Return what an Auto class calls for a family: it makes the free class when a model is asked for.

    Making it at once would import the stock model in the midst of transformers' own imports.
    """

    def wanted() -> Any:
        return free_class(auto_class._model_mapping[stock_config_class(family)])

    return type(
        f"Bonsai{auto_class._model_mapping._model_mapping[family]}",  # which a pipeline looks for among its models
        (),
        {
            "config_class": free_config_class(family),
            "from_pretrained": staticmethod(lambda *args, **options: wanted().from_pretrained(*args, **options)),
            "_from_config": staticmethod(lambda config, **options: wanted()._from_config(config, **options)),
        },
    )
