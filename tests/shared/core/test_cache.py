"""The cache always answers: it is only there to spare work."""

import os
import pwd

import pytest

from kfp_bonsai.shared.core import cache


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files of our own, and nothing remembered."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path / "temporary"))
    cache._temporary_folder.cache_clear()
    yield tmp_path / "temporary"
    cache._temporary_folder.cache_clear()


@pytest.mark.parametrize("stated", ["a file", "no home", "a home that is no folder"])
def test_what_cannot_be_kept_at_home_is_kept_in_a_temporary_folder(stated, tmp_path, temporary, monkeypatch):
    """No training where the home is read-only or missing, as under OpenShift, for the sake of a note."""
    monkeypatch.delenv(cache.CACHE_VARIABLE, raising=False)
    (tmp_path / "file").write_text("")
    if stated == "a file":
        monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "file"))
    elif stated == "no home":
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(pwd, "getpwuid", lambda _: {}["nobody"])
    else:
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
    found = cache.cached("downloads/x")
    assert found == cache.cached("downloads/x") == temporary / f"kfp-bonsai-{os.getuid()}" / "downloads" / "x"
    assert found.parent.parent.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_can_only_be_read_is_read(tmp_path, monkeypatch):
    """Downloads that an administrator has placed for all are downloaded again, or cannot be."""
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    (tmp_path / "there").write_text("x")
    monkeypatch.setattr(cache, "_takes_files", lambda folder: folder != tmp_path)
    assert cache.cached("there") == tmp_path / "there"
    assert cache.cached("new").parent != tmp_path


def test_a_name_that_another_user_has_taken_is_not_used(temporary, monkeypatch):
    """Another user's files are taken for our downloads."""
    monkeypatch.setenv(cache.CACHE_VARIABLE, os.devnull)
    (temporary / f"kfp-bonsai-{os.getuid()}").mkdir()
    (temporary / f"kfp-bonsai-{os.getuid()}").chmod(0o777)
    found = cache.cached("x").parent
    assert found.name != f"kfp-bonsai-{os.getuid()}" and found.parent == temporary
