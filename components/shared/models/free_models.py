"""The free types beside the stock ones: which class a model is of, and how transformers comes to know the free ones.

They are registered with transformers' Auto classes when kfp_bonsai is imported: no remote code.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from kfp_bonsai.shared.kinds.kind import WRITTEN
from kfp_bonsai.shared.models import heads
from kfp_bonsai.shared.models.configuration import family_name, family_of, is_free, token_read
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.models.free_types import free_class, free_config_class, stock_config_class

AUTO_CLASSES = ("AutoModel", *heads.AUTO.values(), heads.IN_TEXT)


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
