"""Make the folder that is passed on: the chosen model, its card, the numbers, and checksums."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.checkpoint import RECORD, read_record, weights_sha256
from kfp_bonsai.shared.documents import read_document
from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.files import new_folder
from kfp_bonsai.shared.progress import say


def package_model(
    model: Path, results: Path, output: Path, *, name: str = "", license: str = ""
) -> dict[str, str | int | float | bool]:
    """Put the chosen model into one folder with a model card that says what was measured.

    Args:
        model: the chosen model's folder, or its quantized form.
        results: results.json of `bonsai report`; it is copied into the folder.
        output: the folder to make.
        name: what the model is called; by default the data set and the level.
        license: the license's identifier on the Hugging Face hub, such as apache-2.0; "" leaves it open.

    Returns:
        name, files and bytes.

    Raises:
        BonsaiError: the folder is no model of ours, or results.json does not hold its measurement.

    Example:
        bonsai package-model --model best --results results.json --output package --license apache-2.0
    """
    from kfp_bonsai.package_model.card import model_card

    record = {**read_record(Path(model)), "pad_token_id": _pad_token_id(Path(model))}
    document = read_document(results, "bonsai report", "rows", "task")
    row = _row(document, record, Path(model), Path(results))
    _check_weights(Path(model), record)
    name = name or _default_name(document, row)
    card = model_card(name, license, record, document, row)
    with new_folder(Path(output)) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True)
        (folder / "README.md").write_text(card, encoding="utf-8")
        shutil.copyfile(results, folder / "results.json")
        files = write_checksums(folder)
    size = sum((Path(output) / file).stat().st_size for file in files)
    say(f"package-model  {name}: {len(files)} files, {size / 1e6:.1f} MB, in {output}")
    return {"name": name, "files": len(files), "bytes": size}


def write_checksums(folder: Path) -> list[str]:
    """Write SHA256SUMS over all other files (check it with `sha256sum -c`), and return their names."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = []
    for path in paths:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    return [path.relative_to(folder).as_posix() for path in paths]


def _check_weights(model: Path, record: dict[str, Any]) -> None:
    """Refuse weights that are not those that were measured, such as a copy that broke off."""
    found = weights_sha256(model)
    if found != record["sha256"]:
        raise BonsaiError(
            f"the weights in {model} are not those that its {RECORD} tells of (sha256 {found[:12]}, not "
            f"{record['sha256'][:12]}): copy the folder again, or make the model again"
        )


def _row(document: dict[str, Any], record: dict[str, Any], model: Path, results: Path) -> dict[str, Any]:
    """Return the model's own measurement: by the hash of its weights, the chosen one first."""
    rows = [row for row in document["rows"] if row.get("sha256") == record["sha256"] and not row.get("error")]
    rows.sort(key=lambda row: not row.get("chosen"))
    if not rows:
        raise BonsaiError(
            f"{results} has no measurement of {model} (weights {record['sha256'][:12]}): give the results of the "
            "report that this model was chosen by"
        )
    return rows[0]


def _pad_token_id(model: Path) -> int:
    config = model / "config.json"
    return (read_document(config, "save_pretrained").get("pad_token_id") or 0) if config.is_file() else 0


def _default_name(document: dict[str, Any], row: dict[str, Any]) -> str:
    parts = [document["task"]["name"], row["level"], "int8" if row["stage"] == "quantized" else ""]
    text = "-".join(part for part in parts if part).lower()
    return "-".join(filter(None, "".join(sign if sign.isalnum() else "-" for sign in text).split("-")))
