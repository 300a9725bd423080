"""One fault in one file, as disks, cut-off copies, editors and other programs make them."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2.5,
    10**400,
    "",
    "text",
    "../x",
    [],
    [None],
    ["a", 1],
    {},
    {"a": {"b": []}},
)


def mutate(target: Path, chance: random.Random) -> str:
    """Change one file of a folder (or the file itself) in place; return what was done, in words."""
    files = sorted(path for path in target.rglob("*") if path.is_file()) if target.is_dir() else [target]
    file = chance.choice(files)
    kinds: list[Callable[[Path, random.Random], str]] = [truncated, flipped, zeroed, doubled]
    if target.is_dir():
        kinds.append(removed)
    if file.suffix in (".json", ".jsonl"):
        kinds += [retyped] * 6  # most of what is wrong with JSON is well-formed
    return f"{file.relative_to(target.parent)} {chance.choice(kinds)(file, chance)}"


def truncated(file: Path, chance: random.Random) -> str:
    """Cut the file off."""
    content = file.read_bytes()
    length = chance.choice((0, 1, len(content) // 2, max(0, len(content) - 1), chance.randrange(len(content) + 1)))
    file.write_bytes(content[:length])
    return f"truncated to {length} of {len(content)} bytes"


def flipped(file: Path, chance: random.Random) -> str:
    """Flip one to eight bits."""
    content = bytearray(file.read_bytes())
    places = [chance.randrange(len(content)) for _ in range(chance.randint(1, 8))] if content else []
    for place in places:
        content[place] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return f"with flipped bits at {places}"


def zeroed(file: Path, chance: random.Random) -> str:
    """Fill a block with zeros, as a crashed file system does."""
    content = bytearray(file.read_bytes())
    start = chance.randrange(len(content) + 1)
    length = min(len(content) - start, chance.choice((1, 16, 512, 4096)))
    content[start : start + length] = bytes(length)
    file.write_bytes(content)
    return f"with {length} zeros at {start}"


def doubled(file: Path, chance: random.Random) -> str:
    """Repeat a block, as a copy that was tried again does."""
    content = file.read_bytes()
    start = chance.randrange(len(content) + 1)
    end = min(len(content), start + chance.choice((1, 16, 512)))
    file.write_bytes(content[:end] + content[start:end] + content[end:])
    return f"with bytes {start} to {end} twice"


def removed(file: Path, chance: random.Random) -> str:
    """Remove the file."""
    file.unlink()
    return "removed"


def retyped(file: Path, chance: random.Random) -> str:
    """Give one value of a JSON file another type, or remove an entry."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.suffix == ".jsonl" else []
    at = chance.randrange(len(lines)) if lines else 0
    document = json.loads(lines[at] if lines else file.read_text(encoding="utf-8"))
    holder, key, name = chance.choice([*_places(document)] or [({"": document}, "", "")])
    if isinstance(holder, dict) and chance.random() < 0.2:
        del holder[key]
        what = "removed"
    else:
        before = holder[key]
        holder[key] = chance.choice([each for each in STRANGE if type(each) is not type(before)])
        what = f"{json.dumps(before)[:30]} -> {json.dumps(holder[key])[:30]}"
    text = json.dumps(document)
    file.write_text("\n".join([*lines[:at], text, *lines[at + 1 :]]) if lines else text, encoding="utf-8")
    return f"{name or 'all'}: {what}"


def _places(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Yield every place of a document, a long list's first and last alone: its holder, its key and its path."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = [*range(min(2, len(value))), *range(max(2, len(value) - 1), len(value))]
    else:
        return
    for key in keys:
        yield value, key, f"{path}.{key}"
        yield from _places(value[key], f"{path}.{key}")
