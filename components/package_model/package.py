"""Make the folder that is passed on: the chosen model, its card, the numbers, what serves it, and checksums."""

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_bonsai.images import PREFIX
from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import check_apart, copy_folder, new_folder
from kfp_bonsai.shared.core.markup import readable
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.inference.writers import check_writing
from kfp_bonsai.shared.kinds.kinds import kind_in
from kfp_bonsai.shared.models.configuration import FREE_PREFIX
from kfp_bonsai.shared.saved.records import read_record, write_record
from kfp_bonsai.shared.saved.stored import check_config
from kfp_bonsai.shared.saved.weights import check_files, is_quantized
from kfp_bonsai.shared.storage.store import (
    check_location,
    content_sha256,
    storage_uri,
    upload_folder,
    version_at,
    write_manifest,
)

VERSION_DIGITS = 12


def package_model(
    model: Path,
    results: Path,
    output: Path,
    *,
    name: str = "",
    license: str = "",
    ship_code: bool = False,
    upload: str = "",
    register: str = "",
    fetch_as: str = "",
    images: str = "",
) -> dict[str, str | int | float | bool]:
    """Put the chosen model into one folder with all that it takes to trust and to serve it; publish and register it.

    Args:
        model: the chosen model's folder, or its quantized form.
        results: results.json of `bonsai report`; it is copied into the folder.
        output: the folder to make.
        name: what the model is called; by default the data set and the level.
        license: the license's identifier on the Hugging Face hub, such as apache-2.0; "" leaves it open.
        ship_code: put a free shape's own code beside it, so that transformers loads it without kfp-bonsai where it is
            told trust_remote_code=True; stock shapes and int8 models need none.
        upload: where to publish it, gs://bucket/prefix, s3://bucket/prefix, hf://owner/name (made private) or a
            folder; its version, a hash of its content, is added.
        register: the registry to tell of what was published: mlflow+URI, or the URL of Kubeflow Model Registry;
            its password or token goes in the environment, such as in MLFLOW_TRACKING_TOKEN.
        fetch_as: the Kubernetes service account by which KServe fetches what was published: one with a Secret that may
            read it, as the README has it; what is public needs none.
        images: where the manifests pull kfp-bonsai's images from; by default BONSAI_IMAGES, or kfp-bonsai.

    Returns:
        name, version, files and bytes; uri if it was published, registered if it was registered.

    Raises:
        BonsaiError: the folder is no model of ours or does not say how it writes, results.json does not hold its
            measurement, or the bucket refuses: then there is no output. If the registry refuses, output and what was
            published stay.

    Example:
        bonsai package-model --model best --results results.json --output package --license apache-2.0 --upload gs://bucket/models/reviews
    """
    from kfp_bonsai.package_model import register as registry
    from kfp_bonsai.package_model.card import model_card
    from kfp_bonsai.package_model.kserve import check_account, manifest
    from kfp_bonsai.package_model.sbom import bill_of_materials
    from kfp_bonsai.shared.saved.shipped_code import ship

    check_apart([output], [model, results])
    check_account(fetch_as)
    if upload:
        check_location(upload, hub=True)
    model, results, output, upload = Path(model), Path(results), Path(output), upload.rstrip("/")
    for needed in ("config.json", "tokenizer.json"):
        if not (model / needed).is_file():
            raise BonsaiError(f"{model} has no {needed}, without which nobody can load it: copy the folder again")
    record = {**read_record(model), "pad_token_id": _pad_token_id(model)}
    document = read_document(results, "bonsai report", "rows", "task", shape=written.RESULTS)
    row = _row(document, record, model, results)
    if register:
        registry.check_target(register)
        registry.check_published(register, upload)
    check_files(model, record)
    if kind_in(document["task"]).writes:
        check_writing(model)
    free = not is_quantized(model) and check_config(model / "config.json").startswith(FREE_PREFIX)
    if ship_code and not free:
        say("package-model  no code goes along: this model is not of a free shape, and loads without any of ours")
    name, license = readable(name or _default_name(document, row)), readable(license)
    found: dict[str, str | int | float | bool] = {"name": name}
    with new_folder(output) as folder:
        copy_folder(model, folder)
        if ship_code and free:
            record["code_sha256"] = ship(folder)
            write_record(folder, {**read_record(folder), "code_sha256": record["code_sha256"]})
        shutil.copyfile(results, folder / "results.json")
        (folder / "README.md").write_text(model_card(name, license, record, document, row), encoding="utf-8")
        bill = bill_of_materials(folder, name, record["sha256"][:VERSION_DIGITS], license, record, document)
        (folder / "sbom.cdx.json").write_text(bill, encoding="utf-8")

        def finish(uri: str) -> list[str]:
            file, text = manifest(folder, name, record, document, row, uri, images or PREFIX, fetch_as)
            (folder / file).write_text(text, encoding="utf-8")
            return write_manifest(folder)

        files = finish("")
        found["version"] = version = content_sha256(folder)[
            :VERSION_DIGITS
        ]  # of all content but the place that it will name
        if upload:
            found["uri"] = uri = version_at(upload, version)
            finish(storage_uri(uri))  # a cluster cannot fetch from a folder of this machine
            upload_folder(folder, uri)
            say(f"package-model  published as {uri}")
        size = sum((folder / file).stat().st_size for file in files)
    say(f"package-model  {name}: {len(files)} files, {size / 1e6:.1f} MB")
    if register:
        facts = registry.facts_of(record, document, row)
        try:
            found["registered"] = registry.register(register, name, version, str(found["uri"]), facts)
        except BonsaiError as error:
            again = ["bonsai", "package-model", "--model", model, "--results", results, "--output", f"{output}-again"]
            again += ["--name", name, *(["--license", license] if license else []), *["--ship-code"] * ship_code]
            again += ["--fetch-as", fetch_as] if fetch_as else []
            again += ["--upload", upload]
            later = shlex.join([*map(str, again), "--register", register])
            raise BonsaiError(
                f"{error}. The package is whole in {output}, and published as {found['uri']}: to register it later, "
                f"run `{later}`, which publishes nothing twice"
            ) from error
        say(f"package-model  registered as {found['registered']}")
    return {**found, "files": len(files), "bytes": size}


def _row(document: Mapping[str, Any], record: Mapping[str, Any], model: Path, results: Path) -> dict[str, Any]:
    """Return the model's own measurement: by the hash of its weights, the chosen one first."""
    rows = [row for row in document["rows"] if row.get("sha256") == record["sha256"] and not row.get("error")]
    rows.sort(key=lambda row: not row.get("chosen"))
    if not rows:
        raise BonsaiError(
            f"{results} has no measurement of {model} (weights {record['sha256'][:12]}): give the results of the "
            "report that this model was chosen by"
        )
    lacks = [name for name in ("accuracy", "relative_accuracy", "relative_emission") if rows[0][name] is None]
    if not any(one["stage"] == "baseline" for one in document["rows"]):
        lacks.append("baseline")
    if lacks:
        raise BonsaiError(
            f"{results} has no {lacks[0].replace('_', ' ')} of {model}: make it again with `bonsai report`"
        )
    return rows[0]


def _pad_token_id(model: Path) -> int:
    return read_document(model / "config.json", "save_pretrained").get("pad_token_id") or 0


def _default_name(document: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    parts = [document["task"]["name"], row["level"], "int8" if row["stage"] == "quantized" else ""]
    text = "-".join(part for part in parts if part).lower()
    return "-".join(filter(None, "".join(sign if sign.isalnum() else "-" for sign in text).split("-")))
