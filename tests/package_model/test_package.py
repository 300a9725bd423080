"""package-model: a folder that explains itself, whose snippets run as they are printed."""

import contextlib
import io
import json
import re
import subprocess
from pathlib import Path

import gcs
import pytest
import yaml
from made_package import make_quantized, make_results, make_stock, results_of, write_record

from kfp_bonsai.package_model.card import model_card
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.package_model.register import facts_of
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.storage.store import download_folder


def run_snippet(folder: Path) -> str:
    """Run the Python code of the packaged README.md as it is, in the folder, and return what it prints."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S))
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    return printed.getvalue()


@pytest.fixture
def stock(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny model folder and its results."""
    return make_stock(tmp_path)


def test_a_ready_made_model_is_called_what_it_is(stock: tuple[Path, Path], tmp_path: Path):
    """A card by which the hub, a registry and the license's reader take a TinyBERT for a smaller baseline."""
    from huggingface_hub import ModelCard

    folder, results = stock
    record = json.loads((folder / "bonsai.json").read_text())
    name = "huawei-noah/TinyBERT_General_4L_312D"
    next(one for one in record["lineage"] if one["stage"] == "layer-remove")["arguments"] = {"student": name}
    write_record(folder, results, lineage=record["lineage"], student=name)
    package_model(folder, results, tmp_path / "package")
    card = ModelCard.load(tmp_path / "package" / "README.md")
    assert card.data.base_model == name and "layer-remove" not in card.data.tags and "distill" in card.data.tags
    assert "the ready-made model `TinyBERT_General_4L_312D`, which kfp-bonsai taught what" in card.content
    assert "compressed by kfp-bonsai" not in card.content and f"student {name}" in card.content
    record, document = (
        json.loads((tmp_path / "package" / file).read_text()) for file in ("bonsai.json", "results.json")
    )
    assert facts_of(record, document, document["rows"][-1])["base_model"] == name


def test_stock_model(stock: tuple[Path, Path], tmp_path: Path):
    """The card would be refused by the hub, say other numbers than the report, or show code that does not run."""
    from huggingface_hub import ModelCard

    folder, results = stock
    found = package_model(folder, results, tmp_path / "package", license="apache-2.0")
    assert found["name"] == "movie-reviews-1-3-layers-matrix-pruning"
    package = tmp_path / "package"
    card = ModelCard.load(package / "README.md")
    row = next(row for row in json.loads(results.read_text())["rows"] if row["chosen"])
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    [result] = card.data.eval_results
    assert result.metric_value == row["accuracy"] and result.metric_type == "accuracy"
    grams = (2640 + 3420) / 3.6e6 * 463
    assert card.data.co2_eq_emissions["emissions"] == pytest.approx(grams, rel=1e-3)
    assert "estimated" in card.data.co2_eq_emissions["source"]
    body = card.content.replace("\u00a0", " ")
    assert f"{100 * row['relative_emission']:.1f} %" in body and "79.1 %" in body and "Weakest class" in body
    assert "longer than 16 tokens" in body and "| fine-tune |" in body
    assert (package / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=package, check=True)
    listed = {line.split("  ")[1] for line in (package / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in package.iterdir()} - {"SHA256SUMS"}
    assert {"sbom.cdx.json", "kserve-gpu.yaml", "results.json"} < listed and found["files"] == len(listed)
    assert "tensor" in run_snippet(package)


def test_free_shape_says_what_it_needs(stock: tuple[Path, Path], tmp_path: Path):
    """A free shape would fail to load, and the card would not say why."""
    folder, results = stock
    write_record(folder, results, shape={"kind": "free", "hidden": 8, "layers": [{"heads": 2, "ffn": 16}]})
    package_model(folder, results, tmp_path / "package", name="tiny")
    text = (tmp_path / "package/README.md").read_text()
    assert "import kfp_bonsai" in text.split("```python")[1] and "1 layer of width 8" in text
    assert "No license was stated" in text and "\n# tiny\n" in text


def test_a_free_shape_carries_its_code_where_that_is_asked_for(made, tmp_path: Path):
    """Code that nobody asked for, or of which neither card, record nor checksums say that it is there."""
    from kfp_bonsai.matrix_prune.prune import matrix_prune

    matrix_prune(made.baseline, made.transfer, tmp_path / "free", flops=0.4, steps=2)
    results = results_of(tmp_path / "free", tmp_path / "results")
    package_model(tmp_path / "free", results, tmp_path / "plain")
    assert not (tmp_path / "plain" / "modeling_bonsai.py").exists()
    assert "auto_map" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    package = tmp_path / "package"
    package_model(tmp_path / "free", results, package, ship_code=True)
    record = json.loads((package / "bonsai.json").read_text())
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=package, check=True)
    listed = (package / "SHA256SUMS").read_text()
    assert f"{record['code_sha256']}  modeling_bonsai.py" in listed
    text = (package / "README.md").read_text()
    code = text.split("```python")[1].split("```")[0]
    assert "kfp_bonsai" not in code and 'from_pretrained(".", trust_remote_code=True)' in code
    assert "with all rights of whoever runs it: read it first" in text and record["code_sha256"] in text
    assert "kfp-bonsai" not in [
        one["name"] for one in json.loads((package / "sbom.cdx.json").read_text())["components"]
    ]
    package_model(package, results, tmp_path / "again")  # which carries it on
    assert json.loads((tmp_path / "again" / "bonsai.json").read_text())["code_sha256"] == record["code_sha256"]
    with (package / "modeling_bonsai.py").open("a") as file:
        file.write("import os\n")
    with pytest.raises(BonsaiError, match=r"is not the code that bonsai\.json speaks of"):
        package_model(package, results, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_a_stock_shape_needs_no_code(stock: tuple[Path, Path], tmp_path: Path, capsys):
    """A run that ends after hours as its model needs no code; or a stranger's code, handed on with a plain model."""
    folder, results = stock
    package_model(folder, results, tmp_path / "package", ship_code=True)
    assert not (tmp_path / "package" / "modeling_bonsai.py").exists()
    assert "no code goes along" in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "theirs.Model"}}))
    with pytest.raises(BonsaiError, match="has an auto_map: the model comes with code of its own"):
        package_model(folder, results, tmp_path / "other")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_quantized_model_runs_by_its_snippet_without_torch(runtime: str, tmp_path: Path):
    """The printed code would not run, or would need torch after all."""
    folder, results = make_quantized(tmp_path, runtime)
    package_model(folder, results, tmp_path / "package")
    text = (tmp_path / "package/README.md").read_text()
    assert f"library_name: {runtime}" in text and "quantized to int8" in text
    code = text.split("```python")[1].split("```")[0]
    assert "torch" not in code and "transformers" not in code
    # a fine film = 2+3+5; a dull one = 2+4+6
    assert re.findall(r"[\d.]+", run_snippet(tmp_path / "package")) == ["10.", "12."]


def test_the_card_is_headed_by_its_own_figures(tmp_path: Path):
    """The model before int8 would claim the emission of the one after."""
    folder, results = make_quantized(tmp_path, "openvino")
    found = json.loads(results.read_text())
    row = next(each for each in found["rows"] if each["stage"] == "compressed" and each["measurement"] == "main")
    record = json.loads((folder / "bonsai.json").read_text())
    text = model_card("x", "", record, found, row)
    head = text.split("# x\n")[1].split("This is")[0]
    assert f"{100 * row['relative_emission']:.1f} % of the emission" in head and "int8" not in head


@pytest.mark.parametrize(
    ("source", "model", "named"),
    [
        ("data/reviews", "/home/me/models/bert", []),
        ("data/reviews.tsv", "embedded:minilm", []),
        (
            "Hugging Face stanfordnlp/imdb:plain_text",
            "google-bert/bert-base-uncased",
            ["base_model: google-bert/bert-base-uncased", "datasets: stanfordnlp/imdb"],
        ),
        ("Hugging Face glue:sst2", "gpt2", ["base_model: gpt2", "datasets: glue"]),
    ],
)
def test_the_card_names_what_is_on_the_hub_and_nothing_else(stock, source: str, model: str, named: list[str]):
    """A folder of one's own would be linked as somebody's repository; a data set of the hub would not be named."""
    folder, results = stock
    found, record = json.loads(results.read_text()), json.loads((folder / "bonsai.json").read_text())
    found["task"]["source"] = source
    record["lineage"][0]["arguments"] = {"model": model}
    head = model_card("x", "", record, found, found["rows"][-1]).split("---")[1]
    assert [line for line in named if line in head] == named
    assert ("base_model" in head, "datasets" in head) == (bool(named), bool(named))


@pytest.mark.parametrize(
    ("state", "said"), [("inconclusive", "the control is inconclusive"), ("failed", "the control failed")]
)
def test_a_control_that_has_not_passed_is_told_with_the_model(stock, state: str, said: str):
    """A model in a registry whose emission nobody should rely on, without a word of it."""
    folder, results = stock
    record, document = json.loads((folder / "bonsai.json").read_text()), json.loads(results.read_text())
    row = next(row for row in document["rows"] if row["chosen"])
    assert "do not rely" not in model_card("m", "", record, document, row)
    document["control"] = state
    card = model_card("m", "", record, document, row)
    assert f"**In its measurement {said}: do not rely on the emission figures.**" in card and "reliable" not in card
    assert facts_of(record, document, row)["emission_reliable"] == f"no: {said}"


def test_no_intensity_no_grams(stock: tuple[Path, Path], tmp_path: Path):
    """Grams of CO2 would be claimed without a known intensity."""
    folder, _ = stock
    (tmp_path / "second").mkdir()
    results = make_results(tmp_path / "second", carbon=False)
    write_record(folder, results)
    package_model(folder, results, tmp_path / "package")
    assert "co2_eq_emissions" not in (tmp_path / "package/README.md").read_text()


def test_bad_input(stock: tuple[Path, Path], tmp_path: Path):
    """Another model's numbers would be printed on this one, or half a package be left behind."""
    folder, results = stock
    with pytest.raises(BonsaiError, match=r"no file at .*none\.json: make it with `bonsai report`"):
        package_model(folder, tmp_path / "none.json", tmp_path / "package")
    with pytest.raises(BonsaiError, match=r"config\.json was not written by `bonsai report`"):
        package_model(folder, folder / "config.json", tmp_path / "package")
    write_record(folder, results, sha256="f" * 64)
    with pytest.raises(BonsaiError, match=r"no measurement of .* ffffffffffff"):
        package_model(folder, results, tmp_path / "package")
    (folder / "bonsai.json").unlink()
    with pytest.raises(BonsaiError, match=r"bonsai\.json"):
        package_model(folder, results, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_weights_that_broke_off(stock: tuple[Path, Path], tmp_path: Path):
    """A model that does not load would be passed on with checksums that say it is whole."""
    folder, results = stock
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BonsaiError, match=r"model are not those that its bonsai\.json speaks of"):
        package_model(folder, results, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_a_configuration_that_is_no_json(stock: tuple[Path, Path], tmp_path: Path):
    """A traceback of the JSON decoder, which names no file."""
    folder, results = stock
    (folder / "config.json").write_text('{"pad_token_id": ')
    with pytest.raises(BonsaiError, match=r"config\.json is not JSON, or is cut off"):
        package_model(folder, results, tmp_path / "package")


def test_what_is_published_is_the_package(stock: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The manifests would serve another folder than the one that was packed, or not say which."""
    folder, results = stock
    with gcs.server() as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        found = package_model(folder, results, tmp_path / "package", upload="gs://bucket/models/reviews/")
        fetched = download_folder(str(found["uri"]), tmp_path / "fetched")
    assert found["uri"] == f"gs://bucket/models/reviews/{found['version']}"
    for path in (tmp_path / "package").iterdir():
        assert (fetched / path.name).read_bytes() == path.read_bytes(), path.name
    [service] = yaml.safe_load_all((fetched / "kserve-gpu.yaml").read_text())
    assert service["spec"]["predictor"]["model"]["storageUri"] == found["uri"]


def test_the_version_is_that_of_the_content(stock: tuple[Path, Path], tmp_path: Path):
    """The same model would be published again and again by retries, or another one under the same version."""
    folder, results = stock
    versions = [
        package_model(folder, results, tmp_path / f"package{at}", upload=str(tmp_path / place), license=license)[
            "version"
        ]
        for at, (place, license) in enumerate([("a", ""), ("a", ""), ("b", ""), ("a", "mit")])
    ]
    assert versions[0] == versions[1] == versions[2] != versions[3]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted({versions[0], versions[3]})


def test_nothing_is_left_of_a_publication_that_failed(stock: tuple[Path, Path], tmp_path: Path):
    """A retry would find the output there and refuse, although nothing was published."""
    folder, results = stock
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BonsaiError, match="cannot be written"):
        package_model(folder, results, tmp_path / "package", upload=str(tmp_path / "file"))
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"upload": "minio://bucket/models"}, "minio:// is not known"),
        ({"upload": "gs://bucket"}, "whole bucket"),
        ({"upload": "here", "register": "mlflow"}, "give mlflow\\+URI"),
        ({"register": "http://registry:8080"}, "give --upload too"),
        ({"upload": "here", "register": "mlflow+https://mlflow:5000"}, "no model in a folder of this machine"),
    ],
)
def test_places_that_are_none(stock: tuple[Path, Path], tmp_path: Path, options: dict, said: str):
    """It would be found out after the work, or a local folder of that name be made."""
    folder, results = stock
    with pytest.raises(BonsaiError, match=said):
        package_model(folder, results, tmp_path / "package", **options)
    assert not (tmp_path / "package").exists()
