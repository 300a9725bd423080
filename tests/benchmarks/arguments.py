"""What the benchmarks' command lines share."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def json_file(text: str) -> Path:
    """Return a file to write to, in a folder that is there: an error in it is told before hours of work."""
    path = Path(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def add_tasks(parser: Any, tasks: Iterable[str]) -> None:
    """Add the options of a benchmark that makes models of several tasks, bit by bit."""
    names = [*tasks]
    parser.add_argument("--data", type=Path, required=True, help="where the real data are")
    parser.add_argument("--work", type=Path, required=True, help="folder for models, kept from run to run")
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="these tasks alone")
    parser.add_argument("--json", type=json_file, help="file to write the figures to, and to go on from")


def found_before(file: Path | None) -> dict[str, Any]:
    """Return the figures of each task that a file holds already, to which new ones are added."""
    found: dict[str, Any] = json.loads(file.read_text() or "{}").get("found", {}) if file else {}
    return found


def write_json(file: Path | None, found: Any) -> None:
    """Write figures, if a file was asked for; what is no number is null there."""
    if file:
        file.write_text(json.dumps(_plain(found), indent=1, default=str) + "\n", encoding="utf-8")


def same_arguments(file: Path, own: dict[str, Any]) -> None:
    """Refuse a folder whose models were made from other data, for another time or with other settings."""
    if file.exists() and json.loads(file.read_text()) != own:
        raise SystemExit(f"{file} says {file.read_text()}, not {json.dumps(own)}: give another --work")
    file.write_text(json.dumps(own))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
