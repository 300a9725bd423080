"""Model types for free shapes: a stock model whose layers differ in their heads and neurons.

The constructors of stock models tie the hidden width to heads x head_dim, so a free shape needs a
type of its own: `bonsai-bert` is BERT with a list of widths in its configuration. The types are made from
the stock classes, so everything else (forward, generate, heads for other tasks) is theirs, and they are
registered with transformers' Auto classes when kfp_bonsai is imported: no remote code.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from kfp_bonsai.shared.families import FAMILIES, FREE_PREFIX


@cache
def free_config_class(family: str) -> type[PreTrainedConfig]:
    """Return the configuration class of a family's free shapes; `layer_shapes` lists [heads, ffn] a layer."""
    stock = CONFIG_MAPPING[family]
    return type(
        f"Bonsai{stock.__name__}",
        (stock,),
        {
            "__module__": __name__,
            "__doc__": f"{stock.__name__} with `layer_shapes`: [heads, neurons] of each layer.",
            "__annotations__": {"layer_shapes": list | None},
            "model_type": FREE_PREFIX + family,
            "layer_shapes": None,
        },
    )


@cache
def free_class(stock: type) -> type:
    """Return the free-shaped subclass of a stock model class (or the class itself if it is one)."""
    from kfp_bonsai.shared.shapes import LayerShape, resize

    if getattr(stock, "stock_class", None):
        return stock

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        stock.__init__(self, config, *args, **kwargs)  # type: ignore[misc]
        resize(self, [LayerShape(*widths) for widths in config.layer_shapes])

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


def stock_class(model_class: type) -> type:
    """Return the stock class behind a model class."""
    return getattr(model_class, "stock_class", model_class)


def free_config(config: Any, layers: Sequence[Any]) -> PreTrainedConfig:
    """Return a configuration of the family's free type with these layers' widths."""
    values = {**_values(config), "layer_shapes": [[one.heads, one.ffn] for one in layers]}
    return free_config_class(config.model_type)(**values)


def stock_config(config: Any) -> PreTrainedConfig:
    """Return a copy of a configuration as its family's stock type."""
    return CONFIG_MAPPING[config.model_type.removeprefix(FREE_PREFIX)](**_values(config))


def _values(config: Any) -> dict[str, Any]:
    values = config.to_dict()
    for name in ("model_type", "layer_shapes", "architectures", "transformers_version"):
        values.pop(name, None)
    return values


def register() -> None:
    """Make transformers' Auto classes know the free types, without importing any model yet."""
    from transformers.models.auto import modeling_auto as auto

    for family in FAMILIES:
        config_class = free_config_class(family)
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        for auto_class in (auto.AutoModel, auto.AutoModelForSequenceClassification):
            auto_class.register(config_class, _loader(auto_class, family), exist_ok=True)


def _loader(auto_class: Any, family: str) -> type:
    """Return what an Auto class calls for a family: it makes the free class when a model is asked for.

    Making it at once would import the stock model in the midst of transformers' own imports.
    """

    def wanted() -> Any:
        return free_class(auto_class._model_mapping[CONFIG_MAPPING[family]])

    return type(
        f"Bonsai{auto_class.__name__}",
        (),
        {
            "config_class": free_config_class(family),
            "from_pretrained": staticmethod(lambda *args, **options: wanted().from_pretrained(*args, **options)),
            "_from_config": staticmethod(lambda config, **options: wanted()._from_config(config, **options)),
        },
    )
