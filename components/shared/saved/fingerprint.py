"""What tells one content from another, so that a cache answers for the same data and model, and for no others."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from kfp_bonsai.shared.core.files import sha256
from kfp_bonsai.shared.core.hub import parted


def of_model(reference: str) -> str:
    """Return the commit of a hub's model as it is here, or a hash of a folder's files.

    Raises:
        BonsaiError: there is no such model here, and a hub's was not read before.
    """
    from huggingface_hub import hf_hub_download

    from kfp_bonsai.shared.saved.pretrained import find_model

    found = Path(find_model(reference))
    if found.is_dir():
        return of_folder(found)
    name, revision = parted(reference)
    return f"commit {Path(hf_hub_download(name, 'config.json', revision=revision)).parent.name}"


def of_folder(folder: Path) -> str:
    """Return a hash of the names and contents of all files in a folder but hidden ones; their times do not count.

    Raises:
        BonsaiError: a file cannot be read.
    """
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    seen = {name: path for name, path in files.items() if not any(part.startswith(".") for part in name.parts)}
    return of_parts((str(name), sha256([path])) for name, path in seen.items())


def of_parts(parts: Iterable[tuple[str, str]]) -> str:
    """Return one hash of names and hashes, in their order."""
    text = "\n".join(f"{name}\0{digest}" for name, digest in parts)
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"
