"""Write the options of stages into their component.py: KFP runs a component's text alone, signature and all.

`make format` does it: the options of the stage that a component calls come last in its signature, in the stage's order
and with its types and defaults, and after them what only the component has. A line with a comment stays as it is: there
a component differs from its stage on purpose.
"""

import ast
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

COMPONENTS = sorted((Path(__file__).parents[1] / "components").glob("*/component.py"))


def filled_in(text: str) -> str:
    """Return the text of a component.py with the options as its stages have them."""
    lines = text.splitlines(keepends=True)
    for function in reversed([node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]):
        parameters = function.args.args
        optional = parameters[len(parameters) - len(function.args.defaults) :]
        written = {one.arg: lines[one.lineno - 1] for one in optional}
        artifacts = {one.arg for one in parameters if isinstance(one.annotation, ast.Subscript)}
        wanted = {
            name: written[name] if "#" in written.get(name, "") else line
            for name, line in declared(_stage(function)).items()
            if name not in artifacts
        }
        own = {name: line for name, line in written.items() if name not in wanted}
        lines[optional[0].lineno - 1 : optional[-1].lineno] = [
            *(line for name, line in own.items() if name in artifacts),
            *wanted.values(),
            *(line for name, line in own.items() if name not in artifacts),
        ]
    return "".join(lines)


def declared(stage: Callable[..., Any]) -> dict[str, str]:
    """Return a line for each keyword option of a stage."""
    source, values = inspect.getsource(stage), inspect.signature(stage).parameters
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    found = {}
    for one, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        try:
            ast.literal_eval(default)
            text = ast.get_source_segment(source, default)
        except ValueError:  # a module's constant, which the component's text has not
            text = ast.unparse(ast.Constant(values[one.arg].default)).replace("'", '"')
        found[one.arg] = f"    {one.arg}: {ast.unparse(one.annotation)} = {text},\n"
    return found


def _stage(function: ast.FunctionDef) -> Callable[..., Any]:
    """Return the stage that a component imports by that name."""
    for node in ast.walk(function):
        if isinstance(node, ast.ImportFrom) and node.module and node.names[0].asname == "stage":
            return getattr(import_module(node.module), node.names[0].name)
    raise ValueError(f"{function.name} imports no function `as stage`")


if __name__ == "__main__":
    for path in COMPONENTS:
        path.write_text(filled_in(path.read_text(encoding="utf-8")), encoding="utf-8")
