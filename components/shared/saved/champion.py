"""The champion: the model in use, which a retrained one must not be worse than.

A location, a folder or a place in a bucket, holds `champion.json`, which names the version in use; `versions/`, every
package that ever was it; and `decisions/`, what was decided on which data. Only `champion.json` ever changes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import RECORD, fitted
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.saved.records import checked
from kfp_bonsai.shared.storage import store
from kfp_bonsai.shared.storage.manifest import MANIFEST

POINTER = "champion.json"
FLOAT, INT8 = "float", "int8"  # what a champion is, and of which models' emission a target is


def find(location: str) -> tuple[dict[str, Any], Any]:
    """Return the champion's document and its token.

    Raises:
        BonsaiError: there is no champion, or it cannot be read.
    """
    document, token = store.read_pointer(pointer_at(location))
    if document is None:
        raise BonsaiError(
            f"there is no champion at {location} (no {POINTER}): correct the location, or make the first one with "
            "`bonsai promote --first`"
        )
    _check(document, written.CHAMPION, pointer_at(location))
    return document, token


def decided_on(location: str, data: str) -> dict[str, Any] | None:
    """Return what was decided on data with this hash; None if nothing was.

    Raises:
        BonsaiError: it cannot be read.
    """
    where = decision_at(location, data)
    found, _ = store.read_pointer(where)
    if found is not None:
        _check(found, written.DECISION, where)
    return found


def _check(document: Mapping[str, Any], shape: Mapping[str, Any], where: str) -> None:
    fitted(document, shape, where, "bonsai promote", "restore it, or remove it")


def read_champion_record(location: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a champion's model, without fetching the model.

    Raises:
        BonsaiError: its package is gone, or its record is damaged.
    """
    package = package_at(location, document["version"])
    record, _ = store.read_pointer(f"{package}/{RECORD}")
    if record is None or not isinstance(record.get("lineage"), list):
        raise BonsaiError(
            f"the champion at {location} is version {document['version']}, and {package} has no {RECORD} that says how "
            "it was made: publish it there again, or make a first champion elsewhere with `bonsai promote --first`"
        )
    return checked(f"{package}/{RECORD}", record)


def made_from(record: Mapping[str, Any]) -> str:
    """Return the pretrained model that a model's record says it was made from; "" if it does not say."""
    tuned = [entry["arguments"] for entry in record.get("lineage") or [] if entry.get("stage") == "fine-tune"]
    return str(tuned[0].get("model", "")) if tuned else ""


def form_of(record: Mapping[str, Any]) -> str:
    """Return what a model is, by its record: int8 for CPUs, or as it was trained."""
    return INT8 if record.get("stage") == "quantize" else FLOAT


def target(document: Mapping[str, Any]) -> tuple[float, str]:
    """Return a champion's target, the largest emission as a share of the baseline's (0: none), and what it is of."""
    return float(document.get("max_emission") or 0), document.get("max_emission_of") or FLOAT


def holds(of: str, form: str) -> bool:
    """Say whether a model of this form is held against a target: int8 models against any, others not against int8's."""
    return of in (FLOAT, form)


def target_in_words(limit: float, of: str, form: str) -> str:
    """Return what becomes of a target that a new model is not held against; "" if it is, or there is none."""
    if not limit or holds(of, form):
        return ""
    return (
        f"the champion's target, at most {100 * limit:g} % of the baseline's emission, is of int8 models (`bonsai run "
        "--edge`), and the champion is none: the target is kept, and the new model's emission is held against the "
        "champion's own. With --edge the new model is int8, and held against it; --max-emission states another one"
    )


def pointer_at(location: str) -> str:
    """Return where the champion's document is."""
    return f"{_checked(location)}/{POINTER}"


def package_at(location: str, version: str) -> str:
    """Return where a version's package is."""
    return f"{_checked(location)}/versions/{version}"


def decision_at(location: str, data: str) -> str:
    """Return where it is written what was decided on data with this hash."""
    return f"{_checked(location)}/decisions/{data[:16]}.json"


def _checked(location: str) -> str:
    """Return a location without the slash at its end; refuse what names no place, such as "" or gs://."""
    store.check_location(location)
    return location.rstrip("/")


def version_of(package: Path) -> str:
    """Return the version of a package: a hash of the hashes of its files.

    Raises:
        BonsaiError: the folder is no package.
    """
    if not (Path(package) / MANIFEST).is_file():
        raise BonsaiError(f"{package} has no {MANIFEST}: give a folder that `bonsai package-model` made")
    return store.content_sha256(package)[:16]


def data_sha256(splits: Sequence[Path]) -> str:
    """Return one hash of all rows of some splits."""
    return hashlib.sha256("\n".join(tasks.read_task(path).sha256 for path in splits).encode()).hexdigest()
