"""The bill of materials: valid, complete, and the same for the same model."""

import hashlib
import json
from importlib import metadata
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from made_package import make_quantized, make_stock, write_record

from kfp_bonsai.package_model.package import package_model


def bill(package: Path) -> dict:
    """Read a package's bill, checked against CycloneDX' own schema."""
    text = (package / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    return json.loads(text)


def libraries(found: dict) -> dict[str, str]:
    return {each["name"]: each.get("version", "") for each in found["components"] if each["type"] == "library"}


@pytest.fixture
def stock(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny model's folder and its results."""
    return make_stock(tmp_path)


def test_the_model_and_what_it_was_made_of(stock: tuple[Path, Path], tmp_path: Path):
    """Nobody could tell which weights the bill is about, or what they came from."""
    folder, results = stock
    record = json.loads((folder / "bonsai.json").read_text())
    record["lineage"][0]["arguments"]["model"] = "google-bert/bert-base-uncased"
    (folder / "bonsai.json").write_text(json.dumps(record))
    package_model(folder, results, tmp_path / "package", license="Apache-2.0")
    found = bill(tmp_path / "package")
    model = found["metadata"]["component"]
    weights = hashlib.sha256((tmp_path / "package/model.safetensors").read_bytes()).hexdigest()
    assert model["type"] == "machine-learning-model" and model["hashes"] == [{"alg": "SHA-256", "content": weights}]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert [each["name"] for each in model["pedigree"]["ancestors"]] == ["google-bert/bert-base-uncased"]
    stages = [each["name"] for each in model["properties"]]
    assert "kfp-bonsai:stage:1:fine-tune" in stages and any(name.endswith(":distill") for name in stages)
    [data] = [each for each in found["components"] if each["type"] == "data"]
    assert data["name"] == "movie-reviews" and len(data["hashes"][0]["content"]) == 64


def test_what_it_takes_to_run(stock: tuple[Path, Path], tmp_path: Path):
    """A scanner would miss a library with a hole, or look for it in another version."""
    folder, results = stock
    package_model(folder, results, tmp_path / "package")
    found = bill(tmp_path / "package")
    names = libraries(found)
    assert names["torch"] == "2.12.1"  # as bonsai.json says, whatever is installed here
    assert names["tokenizers"] == metadata.version("tokenizers")
    assert names["huggingface-hub"] == metadata.version("huggingface-hub")  # which tokenizers asks for
    assert "codecarbon" not in names and "kfp-bonsai" not in names
    needs = {each["ref"]: each.get("dependsOn", []) for each in found["dependencies"]}
    assert "pypi:transformers" in needs[found["metadata"]["component"]["bom-ref"]]
    assert "pypi:huggingface-hub" in needs["pypi:tokenizers"]
    torch = next(each for each in found["components"] if each["name"] == "torch")
    assert torch["purl"] == "pkg:pypi/torch@2.12.1"


def test_a_free_shape_needs_us(stock: tuple[Path, Path], tmp_path: Path):
    """The library that the model cannot be loaded without would be left out."""
    folder, results = stock
    write_record(folder, results, shape={"kind": "free", "hidden": 8, "layers": [{"heads": 2, "ffn": 16}]})
    package_model(folder, results, tmp_path / "package")
    assert "kfp-bonsai" in libraries(bill(tmp_path / "package"))


def test_a_quantized_model_needs_no_torch(tmp_path: Path):
    """An edge device would be reported to run libraries that it does not have."""
    package_model(*make_quantized(tmp_path, "onnxruntime"), tmp_path / "package")
    names = libraries(bill(tmp_path / "package"))
    assert {"onnxruntime", "numpy", "tokenizers"} <= set(names) and not {"torch", "transformers"} & set(names)


def test_the_same_model_has_the_same_bill(stock: tuple[Path, Path], tmp_path: Path):
    """A version that is a hash of its content would change with each run."""
    folder, results = stock
    for name in ("one", "two"):
        package_model(folder, results, tmp_path / name)
    assert (tmp_path / "one/sbom.cdx.json").read_bytes() == (tmp_path / "two/sbom.cdx.json").read_bytes()
