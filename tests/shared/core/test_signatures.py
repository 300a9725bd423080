"""Options that are declared once, and handed on by name."""

import inspect
from dataclasses import dataclass
from typing import Any, get_type_hints

import docstring_parser
import pytest

from kfp_bonsai.shared.core.signatures import REQUIRED, Option, chosen, options_of, takes


def train(data: str, *, epochs: float = 3, seed: int = 0) -> dict:
    """Train.

    Args:
        data: where the rows are.
        epochs: how often they
            are gone through.
        seed: of the draws.
    """
    return {"data": data, "epochs": epochs, "seed": seed}


@dataclass(frozen=True)
class Access:
    """How it is reached.

    Attributes:
        endpoint: its URL.
    """

    endpoint: str = ""


@takes({**options_of(train), **options_of(Access), "model": Option(str)})
def run(output: str, *, seed: int = 7, **options: Any) -> dict:
    """Run.

    Args:
        output: a folder.
        seed: of everything.
        **options: the others.

    Returns:
        All of it.
    """
    return {"output": output, "seed": seed, **options}


def test_what_is_declared_elsewhere_is_in_the_signature_and_in_the_help():
    """A command without its options, or one that says nothing about them."""
    parameters = inspect.signature(run).parameters
    assert {name: one.default for name, one in parameters.items()} == {
        "output": REQUIRED,
        "seed": 7,
        "epochs": 3,
        "endpoint": "",
        "model": REQUIRED,
    }
    assert get_type_hints(run)["epochs"] is float and "options" not in get_type_hints(run)
    told = {one.arg_name: one.description for one in docstring_parser.parse(inspect.getdoc(run)).params}
    assert (told["epochs"], told["endpoint"]) == ("how often they are gone through.", "its URL.")
    assert told["seed"] == "of everything.", "its own words stand"


def test_a_float_is_one_however_it_is_written():
    """A run from Python that KFP refuses for the type of `epochs=3`, or of a default that is written 0."""
    assert type(run("out", model="m")["epochs"]) is type(run("out", model="m", epochs=1)["epochs"]) is float


def test_what_is_not_given_can_be_told_from_what_is():
    """An option given as its default, which a file overrules as if nobody had given it."""

    def study(**options: Any) -> dict:
        return options

    asked = takes(options_of(train), filled=False)(study)
    assert asked(epochs=3) == {"epochs": 3.0} and asked() == {}
    assert inspect.signature(asked).parameters["epochs"].default == 3


def test_a_call_gets_defaults_and_refuses_what_is_unknown():
    """A misspelt option that is taken and not heeded, or a default that is lost on the way."""
    assert run("out", model="m", epochs=1) == {"output": "out", "seed": 7, "epochs": 1, "endpoint": "", "model": "m"}
    with pytest.raises(TypeError, match="epoch"):
        run("out", model="m", epoch=1)
    with pytest.raises(TypeError, match="model"):
        run("out")


def test_a_component_hands_on_its_stages_options_and_no_artifact():
    """An option that is set in the graph and not heeded, or an artifact taken for one."""
    given = {"data": "rows", "epochs": 2.0, "seed": object(), "metrics": object(), "fingerprint": "f"}
    assert chosen(train, given) == {"epochs": 2.0}
