"""The software bill of materials, CycloneDX 1.6: the model with what it was made of, and the libraries that run it."""

import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from kfp_bonsai import __version__
from kfp_bonsai.shared.core.files import sha256
from kfp_bonsai.shared.saved.weights import PARTS

PLAIN = ("transformers", "torch", "safetensors", "tokenizers")
WEIGHTS = ("*.safetensors", *PARTS)


def bill_of_materials(
    folder: Path, name: str, version: str, license: str, record: Mapping[str, Any], results: Mapping[str, Any]
) -> str:
    """Return the bill as JSON; the same input gives the same bytes.

    Libraries are those that running the model needs, with what they need in turn, as far as they are installed here.
    Their versions are those that the model was made with, or else those installed.

    Args:
        folder: the model's folder.
        name: what the model is called.
        version: its version.
        license: its license's SPDX identifier, or "".
        record: the model's bonsai.json.
        results: the report's results.json.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    model = _model(folder, name, version, license, record, results)
    libraries = {each: _library(each, record) for each in _needed(roots(record))}
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"kfp-bonsai:{name}:{record['sha256']}"))
    bom.metadata.timestamp = _created(results)
    bom.metadata.component = model
    bom.metadata.tools.components.add(
        Component(type=ComponentType.APPLICATION, name="kfp-bonsai", version=__version__, bom_ref="tool:kfp-bonsai")
    )
    data = _data(results)
    bom.components.update([*libraries.values(), data])
    bom.register_dependency(model, [data, *(libraries[each] for each in roots(record) if each in libraries)])
    for each, component in libraries.items():
        bom.register_dependency(component, [libraries[one] for one in _requirements(each) if one in libraries])
    made = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return made.output_as_string(indent=2) + "\n"


def roots(record: Mapping[str, Any]) -> list[str]:
    """Return the libraries that load a model, by their names in the package index."""
    if record.get("runtime"):
        return [str(record["runtime"]), "numpy", "tokenizers"]
    free = (record.get("shape") or {}).get("kind") == "free"
    return [*PLAIN, "kfp-bonsai"] if free and not record.get("code_sha256") else [*PLAIN]


def _model(
    folder: Path, name: str, version: str, license: str, record: Mapping[str, Any], results: Mapping[str, Any]
) -> Any:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    files = [path for pattern in WEIGHTS for path in sorted(folder.glob(pattern))]
    weights = [
        Component(
            type=ComponentType.FILE,
            name=path.name,
            bom_ref=f"file:{path.name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256([path]))],
        )
        for path in files
    ]
    task = results["task"]
    ancestor = _base(record)
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=version,
        bom_ref=f"model:{record['sha256']}",
        description=f"{task['name']}: {', '.join(task.get('labels') or ['a number'])}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=record["sha256"])],
        licenses=[LicenseFactory().make_from_string(license)] if license else [],
        components=weights if len(weights) > 1 else [],
        pedigree=Pedigree(ancestors=[ancestor], notes="compressed: see the properties kfp-bonsai:stage"),
        properties=[Property(name=f"kfp-bonsai:{key}", value=value) for key, value in _lineage(record)],
    )


def _base(record: Mapping[str, Any]) -> Any:
    """Return the model that it was made from."""
    from cyclonedx.model.component import Component, ComponentType

    first = (record.get("lineage") or [{}])[0]
    base = str((first.get("arguments") or {}).get("model") or "not recorded")
    return Component(type=ComponentType.MACHINE_LEARNING_MODEL, name=base, bom_ref=f"base:{base}")


def _data(results: Mapping[str, Any]) -> Any:
    """Return the data set that it was tested with, whose other splits it was trained with."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    task = results["task"]
    digest = str(task.get("sha256") or "")
    return Component(
        type=ComponentType.DATA,
        name=task["name"],
        bom_ref=f"data:{task['name']}",
        description=f"from {task.get('source') or 'a source not stated'}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if re.fullmatch("[0-9a-f]{64}", digest) else [],
        properties=[Property(name="kfp-bonsai:split", value=str(task.get("split") or "test"))],
    )


def _lineage(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for number, entry in enumerate(record.get("lineage") or [], 1):
        arguments = ", ".join(f"{key}={value}" for key, value in (entry.get("arguments") or {}).items())
        yield f"stage:{number}:{entry['stage']}", arguments or "-"
        if entry.get("sha256"):
            yield f"stage:{number}:sha256", entry["sha256"]
    for key in ("parameters", "seed", "level", "model_type"):
        if record.get(key) not in (None, ""):
            yield key, str(record[key])


def _library(name: str, record: Mapping[str, Any]) -> Any:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    found = _distribution(name)
    recorded = {_normal(key): value for key, value in (record.get("versions") or {}).items()}
    version = recorded.get(name) or (found.version if found else None)
    expression = found.metadata["License-Expression"] if found and "License-Expression" in found.metadata else None
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f"pypi:{name}",
        purl=PackageURL("pypi", name=name, version=version),
        licenses=[LicenseFactory().make_from_string(expression)] if expression else [],
    )


def _needed(roots: list[str]) -> list[str]:
    """Return packages and all that they need, as far as it is installed; the roots in any case."""
    found: list[str] = []
    ahead = list(roots)
    while ahead:
        name = ahead.pop(0)
        if name in found or (name not in roots and _distribution(name) is None):
            continue
        found.append(name)
        ahead += _requirements(name)
    return sorted(found)


def _requirements(name: str) -> list[str]:
    """Return what an installed package asks for on this machine, without its extras."""
    from packaging.requirements import Requirement

    found = _distribution(name)
    wanted = [Requirement(text) for text in (found.requires or ())] if found else []
    return sorted({_normal(one.name) for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})})


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _created(results: Mapping[str, Any]) -> Any:
    """Return when the model was measured, so that the same input gives the same bill."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(str(results.get("created")))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
