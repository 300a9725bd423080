"""Files in YAML, which people write or send on: options of a cluster, a study, a compiled pipeline."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from kfp_bonsai.shared.core.errors import BonsaiError

MOST_VALUES = 100_000
FLOAT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")


class Loader(yaml.SafeLoader):
    """Reads values as YAML 1.2 does: true and false are booleans, yes, no, on and off texts, 1e-4 is a number."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as PyYAML has it)
        first: [one for one in found if not one[0].endswith(":bool") or first in "tTfF"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_document(self) -> Any:
        """Refuse aliases in which a document holds itself, or that make millions of values of a few lines."""
        found = super().compose_document()
        if _size(found, {}) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"it stands for itself, or for over {MOST_VALUES:,} values", found.start_mark
            )
        return found

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice, of which YAML would forget the first."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and keys[key.value] > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
        return super().construct_mapping(node, deep)


def _size(node: Any, known: dict[int, float]) -> float:
    """Return how many values a node stands for, each alias counted as often as it is there."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until its parts are counted: it is one of them
        parts = node.value if isinstance(node.value, list) else ()
        known[id(node)] = 1 + sum(_size(one, known) for part in parts for one in _nodes(part))
    return known[id(node)]


def _nodes(part: Any) -> tuple[Any, ...]:
    return part if isinstance(part, tuple) else (part,)


Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, [*"-+.0123456789"])


def read_mapping(file: str, flag: str, example: str) -> dict[Any, Any]:
    """Read a file that holds one mapping.

    Args:
        file: where it is.
        flag: what names it, for messages.
        example: a line of such a file.

    Raises:
        BonsaiError: it cannot be read, or holds something else.
    """
    if not Path(file).is_file():
        raise BonsaiError(f"{flag} {file}: there is no such file: write one 'option: value' a line, as '{example}'")
    found = read_first(Path(file), f"{flag} {file}")
    if not isinstance(found or {}, dict):
        raise BonsaiError(f"{flag} {file}: write one 'option: value' a line, such as '{example}'")
    return found or {}


def read_first(file: Path, what: str, advice: str = "", more: bool = False) -> Any:
    """Read the first document of a file; None if there is none.

    Args:
        file: where it is.
        what: what it is, for the message.
        advice: what to do, as the message ends.
        more: whether others may follow.

    Raises:
        BonsaiError: it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
        found = [*yaml.load_all(text, Loader), None][0] if more else yaml.load(text, Loader)
        json.dumps(found, default=str, skipkeys=True, ensure_ascii=False).encode()  # no halves of signs
    except Exception as error:  # of the library, a dozen kinds
        mark = getattr(error, "problem_mark", None)
        said = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else " ".join(str(error).split())
        raise BonsaiError(f"{what} cannot be read ({said}){advice}") from error
    return found
