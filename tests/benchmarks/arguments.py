"""What the benchmarks' command lines share."""

import json
import math
from pathlib import Path
from typing import Any


def json_file(text: str) -> Path:
    """Return a file to write to, in a folder that is there: an error in it is told before hours of work."""
    path = Path(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


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
