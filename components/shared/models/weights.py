"""A model folder's files of weights and tokens: their names, sizes and hashes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.documents import RECORD
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import sha256

ONNX_FILE = "model.onnx"


def weights_sha256(folder: Path) -> str:
    """Return the hash of a model folder's weights file(s)."""
    return sha256(sorted(Path(folder).glob("*.safetensors")) or sorted(Path(folder).glob("model.onnx*")))


def tokenizer_sha256(folder: Path) -> str:
    """Return the hash of a model folder's tokenizer.json."""
    return sha256(Path(folder).glob("tokenizer.json"))


def check_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Check that a folder's weights and tokenizer are those that its record speaks of, as far as it does.

    Raises:
        BonsaiError: they are others, or damaged.
    """
    for what, key, digest in (("weights", "sha256", weights_sha256), ("tokens", "tokenizer_sha256", tokenizer_sha256)):
        if record.get(key) is not None and record[key] != digest(folder):
            raise BonsaiError(
                f"the {what} in {folder} are not those that its {RECORD} speaks of: they were changed or damaged: "
                "copy the folder again, or make the model again"
            )


def size_bytes(folder: Path) -> int:
    """Return the bytes on disk of a model folder's weights."""
    files = [*Path(folder).glob("*.safetensors"), *Path(folder).glob("model.onnx*")]
    return sum(path.stat().st_size for path in files)
