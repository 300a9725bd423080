"""Options, declared once: by the signature and the docstring of the function that heeds them, and handed on by name."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """What an option is.

    Attributes:
        annotation: its type.
        default: its value if none is given, or REQUIRED.
        told: what users are told of it.
    """

    annotation: Any
    default: Any = REQUIRED
    told: str = ""

    def parameter(self, name: str) -> inspect.Parameter:
        """Return it as a function's parameter."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Parameter(name, kind, default=self.default, annotation=self.annotation)


def options_of(function: Callable[..., Any], *names: str, but: tuple[str, ...] = ()) -> dict[str, Option]:
    """Return options of a function or a dataclass: those of its parameters that have a default.

    Args:
        function: what declares them.
        names: those that are wanted; else all.
        but: those that are not.
    """
    told, hints = _told(function.__doc__), get_type_hints(function)
    found = {
        name: Option(hints.get(name, one.annotation), one.default, told.get(name, ""))
        for name, one in inspect.signature(function).parameters.items()
        if one.default is not REQUIRED and name not in but
    }
    return {name: found[name] for name in names or found}


def takes(options: Mapping[str, Option], filled: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a function's `**options` be these: in its signature and its docstring, and with their defaults when called.

    What the function declares or explains itself stands.

    Args:
        options: by their names.
        filled: whether the function gets the defaults of what is not given, or only what is.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        *own, rest = inspect.signature(function).parameters.values()
        names = {one.name for one in own}
        added = {name: one for name, one in options.items() if name not in names}
        signature = inspect.signature(function).replace(
            parameters=[
                *own,
                *(one.parameter(name).replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, one in added.items()),
            ]
        )

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            bound = signature.bind(*args, **given)
            if filled:
                bound.apply_defaults()
            for name in bound.arguments.keys() & added.keys():
                value = bound.arguments[name]
                if added[name].annotation is float and isinstance(value, int):  # of which KFP takes no other
                    bound.arguments[name] = float(value)
            return function(*bound.args, **bound.kwargs)

        call.__signature__ = signature  # type: ignore[attr-defined]
        hints = {name: one for name, one in function.__annotations__.items() if name != rest.name}
        call.__annotations__ = hints | {name: one.annotation for name, one in added.items()}
        told = _told(function.__doc__)
        lines = [f"    {name}: {one.told}\n" for name, one in added.items() if name not in told]
        call.__doc__ = (inspect.getdoc(function) or "").replace("Args:\n", "Args:\n" + "".join(lines), 1)
        return call

    return decorate


def chosen(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is given of a function's options; an artifact of KFP that has the name of one is none.

    Args:
        function: what declares them.
        given: the arguments of a component, by their names.
    """
    plain = (str, int, float, bool)
    optional = [name for name, one in inspect.signature(function).parameters.items() if one.default is not REQUIRED]
    return {name: given[name] for name in optional if isinstance(given.get(name), plain)}


def _told(docstring: str | None) -> dict[str, str]:
    """Return what a docstring tells of each parameter, on a line each."""
    import docstring_parser

    found = docstring_parser.parse(inspect.cleandoc(docstring or ""), docstring_parser.DocstringStyle.GOOGLE)
    return {each.arg_name: " ".join((each.description or "").split()) for each in found.params}
