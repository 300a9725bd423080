"""Free shapes without kfp_bonsai: one file of code beside the weights, as custom models of the hub have it.

The file is gathered from our own modules: what makes the family's free classes, and all that this calls, each as it
stands there. transformers runs it where it is told `trust_remote_code=True`; we never do, as we have the originals.
"""

import ast
import json
import pprint
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

from kfp_bonsai import __version__
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.models.configuration import family_name
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.models.free_models import AUTO_CLASSES
from kfp_bonsai.shared.saved.stored import SAVED_BY
from kfp_bonsai.shared.saved.weights import CODE_FILE, code_sha256

PACKAGE = "kfp_bonsai"
SHARED = f"{PACKAGE}.shared."
MODULES = (  # that code is taken from, each importing only from those before it
    "core.errors",
    "models.axes",
    "models.families",
    "models.configuration",
    "models.heads",
    "models.shapes",
    "models.narrow",
    "models.biases",
    "models.one_token",
    "models.free_types",
)
ROOTS = ("free_config_class", "free_class")
HEADER = '''\
"""{family} models whose layers differ in their heads and neurons, for transformers' `trust_remote_code=True`.

Made from the source of kfp-bonsai {version}, which compressed the model beside it; it needs torch and transformers.
License: Apache-2.0.
"""

'''


def ship(folder: Path) -> str:
    """Write a free model's code into its folder, and the names of its classes into config.json; return the hash."""
    config = read_document(folder / "config.json", SAVED_BY)
    family = family_name(config["model_type"])
    (folder / CODE_FILE).write_text(code_of(family), encoding="utf-8")
    names = {"AutoConfig": _config_of(family), **_models_of(family)}
    config["auto_map"] = {auto: f"{Path(CODE_FILE).stem}.Bonsai{stock}" for auto, stock in names.items()}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return code_sha256(folder)


@cache
def code_of(family: str) -> str:
    """Return a file of code that has a family's free classes, and imports nothing of ours."""
    taken = _taken()
    data = pprint.pformat(FAMILIES[family], width=110, sort_dicts=False)
    parts, imports = [], set()
    for name in MODULES:
        module = _module(name)
        for statement in module.order(taken[name]):
            own = any(each in ("FAMILIES", "REFUSED") for each in _bound(statement))
            parts.append("" if own else module.text(statement))
            imports |= set() if own else {module.outside[each] for each in _names(statement) & module.outside.keys()}
        if name == "models.families":
            parts.append(f"FAMILIES = {{{family!r}: {data}}}\nREFUSED: dict[str, str] = {{}}")
    config, models = _config_of(family), _models_of(family)
    made = [f"Bonsai{config} = free_config_class({family!r})"]
    for auto, stock in models.items():
        made += [f"Bonsai{stock} = free_class({stock})", f"Bonsai{stock}.register_for_auto_class({auto!r})"]
    imports.add(f"from transformers import {', '.join(models.values())}")
    head = HEADER.format(family=family, version=__version__) + "\n".join(sorted(imports))
    return "\n\n\n".join([head, *filter(None, parts), "\n".join(made)]) + "\n"


def _config_of(family: str) -> str:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return str(CONFIG_MAPPING_NAMES[family])


def _models_of(family: str) -> dict[str, str]:
    """Return the stock classes that a family has, by the Auto classes."""
    from transformers.models.auto import modeling_auto as auto

    names = {each: getattr(auto, each)._model_mapping._model_mapping for each in AUTO_CLASSES}
    return {each: found[family] for each, found in names.items() if family in found}


@dataclass(frozen=True)
class _Module:
    """One of our source files.

    Attributes:
        lines: its text.
        defined: the statement at its top that defines a name.
        effects: statements at its top that define nothing, such as the call of a function.
        ours: names that it takes from other files of ours: module and name.
        outside: the import at its top of each name that is not ours.
    """

    lines: list[str]
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)
    ours: dict[str, tuple[str, str]] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)

    def order(self, names: set[str]) -> list[ast.stmt]:
        """Return the statements of some names, and those that define none, as they stand in the file."""
        if not names:
            return []
        found = {id(each): each for each in (*(self.defined[name] for name in names), *self.effects)}
        return sorted(found.values(), key=lambda statement: statement.lineno)

    def text(self, statement: ast.stmt) -> str:
        """Return a statement's text with the comments above it, without what it imports from files of ours."""
        inner = [each for each in ast.walk(statement) if _is_ours(each)]
        without = {at for each in inner for at in range(each.lineno, (each.end_lineno or 0) + 1)}
        first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", ()))])
        while self.lines[first - 2].startswith("#"):
            first -= 1
        return "\n".join(
            self.lines[at - 1] for at in range(first, (statement.end_lineno or 0) + 1) if at not in without
        )


@cache
def _module(name: str) -> _Module:
    spec = find_spec(SHARED + name)
    assert spec is not None and spec.origin is not None
    text = Path(spec.origin).read_text(encoding="utf-8")
    tree, found = ast.parse(text), _Module(text.splitlines())
    for node in filter(_is_ours, ast.walk(tree)):
        found.ours.update({each.name: (str(node.module).removeprefix(SHARED), each.name) for each in node.names})
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for each in () if _is_ours(statement) else statement.names:
                start = f"from {statement.module} " if isinstance(statement, ast.ImportFrom) else ""
                found.outside[each.asname or each.name] = f"{start}import {ast.unparse(each)}"
        elif names := list(_bound(statement)):
            found.defined.update(dict.fromkeys(names, statement))
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            found.effects.append(statement)
    return found


def _taken() -> dict[str, set[str]]:
    """Return what is taken of each module: the roots, and whatever is named in what is taken."""
    taken: dict[str, set[str]] = {name: set() for name in MODULES}
    left = [(MODULES[-1], each) for each in ROOTS]
    while left:
        name, wanted = left.pop()
        module = _module(name)
        if wanted in taken[name]:
            continue
        statements = [module.defined[wanted], *([] if taken[name] else module.effects)]
        taken[name].add(wanted)
        if wanted in ("FAMILIES", "REFUSED"):
            continue
        for each in set().union(*map(_names, statements)):
            if each in module.defined:
                left.append((name, each))
            elif each in module.ours:
                left.append(module.ours[each])
    return taken


def _is_ours(node: ast.AST) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE)


def _names(statement: ast.stmt) -> set[str]:
    return {each.id for each in ast.walk(statement) if isinstance(each, ast.Name)}


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))
