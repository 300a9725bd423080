"""What the matrix of versions tells: nothing that was not run is told as passed, and no bound as held that was not."""

import os
import sys

import matrix
import pytest


def test_a_python_that_is_not_there_is_not_run(tmp_path, monkeypatch):
    """A Python that nobody has, in a table among those that passed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert matrix.found_python("3.14") == ("", "not found")
    (tmp_path / "python3.14").write_text("#!/bin/sh\necho python3.14: command not found >&2\nexit 127\n")
    os.chmod(tmp_path / "python3.14", 0o755)
    path, why = matrix.found_python("3.14")
    assert not path and "python3.14: command not found" in why
    (tmp_path / "python3.13").symlink_to(sys.executable)  # by its name of another version
    other = "3.13" if sys.version_info[:2] != (3, 13) else "3.12"
    assert other != "3.13" or matrix.found_python("3.13")[0] == ""
    assert matrix.found_python(sys.executable)[0] == sys.executable


def test_what_was_not_run_is_told_as_that():
    """A row that says passed, where nothing could be installed."""
    row = matrix.Row("3.14", matrix.NEWEST, "cannot be installed: there is no torch")
    assert "not run: cannot be installed" in matrix.told(row) and "passed" not in matrix.told(row)
    row = matrix.Row("3.11", matrix.LOWEST, versions={"python": "3.11.7", **dict.fromkeys(matrix.SHOWN, "1")})
    row.tests, row.failed = {"families": "1 failed, 3 passed"}, ["FAILED a::b"]
    assert "FAILED" in matrix.told(row) and "a::b" in matrix.told(row)


def test_bounds_that_other_packages_do_not_allow_are_told():
    """A least version in pyproject.toml that nobody can have, or has ever run."""
    found = {matrix.canonicalize_name(one.name): matrix.least(one) for one in matrix.requirements()}
    assert matrix.raised(found) == []
    assert matrix.raised(found | {"numpy": "99"}) == ["numpy>=2: 99"]


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ("....\n12 passed, 3 deselected in 4.20s\n", "12 passed, 3 deselected"),
        ("=== 1 failed, 2 passed in 63.10s (0:01:03) ===\n", "1 failed, 2 passed"),
        ("no tests ran in 0.01s\n", None),
    ],
)
def test_what_pytest_counts_is_read(said, counted):
    """A run without a single test, or one that ended before its end, counted as one that passed."""
    found = matrix.SUMMARY.search(said)
    assert (found and found[1]) == counted
