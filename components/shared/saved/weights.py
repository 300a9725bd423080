"""A model folder's files of weights, tokens and code: their names, sizes and hashes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.documents import RECORD
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import sha256

ONNX_FILE, DECODER_FILE = "model.onnx", "openvino_model.xml"  # of quantized models; what writes is the second
ENCODER_FILE = "openvino_encoder_model.xml"  # beside it, where an encoder reads for it
CODE_FILE = "modeling_bonsai.py"  # of free shapes that are to load without kfp_bonsai
PARTS = ("model.onnx*", "openvino_model.*", "openvino_encoder_model.*")  # of them


def weights_sha256(folder: Path) -> str:
    """Return the hash of a model folder's weights file(s)."""
    return sha256(sorted(Path(folder).glob("*.safetensors")) or _parts(folder))


def is_quantized(folder: Path) -> bool:
    """Say whether a folder holds a quantized model."""
    return any((Path(folder) / name).is_file() for name in (ONNX_FILE, DECODER_FILE))


def _parts(folder: Path) -> list[Path]:
    return sorted(path for name in PARTS for path in Path(folder).glob(name))


def tokenizer_sha256(folder: Path) -> str:
    """Return the hash of a model folder's tokenizer.json."""
    return sha256(Path(folder).glob("tokenizer.json"))


def code_sha256(folder: Path) -> str:
    """Return the hash of the code that a model folder carries; "" if it carries none."""
    file = Path(folder) / CODE_FILE
    return sha256([file]) if file.exists() else ""


def check_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Check that a folder's weights, tokenizer and code are those that its record speaks of, as far as it does.

    Raises:
        BonsaiError: they are others, or damaged.
    """
    for what, key, digest in (("weights", "sha256", weights_sha256), ("tokens", "tokenizer_sha256", tokenizer_sha256)):
        if record.get(key) is not None and record[key] != digest(folder):
            raise BonsaiError(
                f"the {what} in {folder} are not those that its {RECORD} speaks of: they were changed or damaged: "
                "copy the folder again, or make the model again"
            )
    if code_sha256(folder) != record.get("code_sha256", ""):
        raise BonsaiError(
            f"{Path(folder) / CODE_FILE} is not the code that {RECORD} speaks of: it was changed, added or lost, and "
            "would be run where the model is loaded with trust_remote_code=True: copy the folder again, or package "
            "the model again"
        )


def size_bytes(folder: Path) -> int:
    """Return the bytes on disk of a model folder's weights."""
    files = [*Path(folder).glob("*.safetensors"), *_parts(folder)]
    return sum(path.stat().st_size for path in files)
