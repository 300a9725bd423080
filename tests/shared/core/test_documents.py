"""JSON documents are read whole, or refused with what to do."""

import json
import os
import pickle

import pytest

from kfp_bonsai.shared.core.documents import COUNT, NUMBER, TEXT, kept_document, read_document, read_object
from kfp_bonsai.shared.core.errors import BonsaiError, PassingError
from kfp_bonsai.shared.core.files import sha256


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no file at .*d.json: make it with `bonsai report`"),
        (b"", "d.json is not JSON, or is cut off"),
        (b'{"rows": [', "d.json is not JSON, or is cut off"),
        (b"\xff\xfe\x00", "d.json is not JSON, or is cut off"),
        (b"[1]", "d.json was not written by `bonsai report`.*'rows'"),
        (b"{}", "d.json was not written by `bonsai report`.*'rows'"),
        (b'{"rows": 3}', "d.json was not written by `bonsai report`.*'rows'"),
        (b'{"rows": [], "format": 2}', "d.json has format 2"),
    ],
)
def test_what_is_wrong_and_what_to_do(tmp_path, content, said):
    """Else a damaged file ends in a traceback that does not name it."""
    path = tmp_path / "d.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BonsaiError, match=said):
        read_document(path, "bonsai report", "rows")


def test_what_is_not_a_number_is_not_known(tmp_path):
    """Else NaN goes into results.json, which programs other than Python's cannot read."""
    (tmp_path / "d.json").write_text('{"rows": [NaN]}')
    assert json.dumps(read_document(tmp_path / "d.json", "bonsai report", "rows")) == '{"rows": [null]}'


SHAPE = {"name": TEXT, "rows": [{"level": TEXT, "share?": NUMBER, "size?": COUNT, "ends?": [NUMBER, NUMBER]}]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"rows": []}, "it has no 'name'"),
        ({"name": None, "rows": []}, "'name' is null, not text"),
        ({"name": "half \ud800", "rows": []}, r"'name' is .*, not text"),
        ({"name": "a", "rows": {}}, "'rows' is {}, not a list"),
        ({"name": "a", "rows": [{"level": "x"}, 3]}, r"'rows\[1\]' is 3, not an object"),
        ({"name": "a", "rows": [{"share": 1}]}, r"it has no 'rows\[0\].level'"),
        ({"name": "a", "rows": [{"level": "x", "share": "1"}]}, r"'rows\[0\].share' is \"1\", not a number"),
        ({"name": "a", "rows": [{"level": "x", "share": True}]}, r"'rows\[0\].share' is true, not a number"),
        ({"name": "a", "rows": [{"level": "x", "share": 10**400}]}, r"'rows\[0\].share' is 1000.* ..., not a number"),
        ({"name": "a", "rows": [{"level": "x", "size": -1}]}, r"'rows\[0\].size' is -1, not a whole number"),
        ({"name": "a", "rows": [{"level": "x", "ends": [1]}]}, r"'rows\[0\].ends' is \[1\], not a list of 2"),
        ({"name": "a", "rows": [{"level": "x", "ends": [1, None]}]}, r"'rows\[0\].ends\[1\]' is null, not a number"),
    ],
)
def test_the_entry_that_is_not_as_it_was_written_is_named(tmp_path, document, said):
    """Else a value of another type ends in a traceback of whatever reads it first."""
    (tmp_path / "d.json").write_text(json.dumps(document))
    with pytest.raises(BonsaiError, match=f"d.json is not as `bonsai report` wrote it.*{said}"):
        read_document(tmp_path / "d.json", "bonsai report", shape=SHAPE)


def test_what_may_be_missing_is_not_known_and_what_is_not_read_is_left_alone(tmp_path):
    """Else a file of a newer version is refused, or a reader asks for a key that an older one lacks."""
    (tmp_path / "d.json").write_text('{"name": "a", "rows": [{"level": "x", "size": 1e999, "new": [{}]}], "more": 1}')
    found = read_document(tmp_path / "d.json", "bonsai report", shape=SHAPE)
    row = {"level": "x", "size": None, "new": [{}], "share": None, "ends": None}
    assert found == {"name": "a", "rows": [row], "more": 1}


def test_nesting_without_end_is_no_document(tmp_path):
    """Else Python's own limit ends the stage."""
    (tmp_path / "d.json").write_text("[" * 100_000)
    with pytest.raises(BonsaiError, match="is not JSON"):
        read_document(tmp_path / "d.json", "bonsai report")


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"", b"9" * 5000, b'{"a":' * 100_000], ids=range(5))
def test_odd_json_beside_a_model_is_an_error_in_words(tmp_path, content):
    """A traceback of Python's parser, of a file that came with somebody's model; what is only kept is forgotten."""
    (tmp_path / "d.json").write_bytes(content)
    with pytest.raises(BonsaiError, match=r"d\.json"):
        read_object(tmp_path / "d.json")
    with pytest.raises(BonsaiError, match=r"d\.json"):
        read_document(tmp_path / "d.json", "bonsai report")
    assert kept_document(tmp_path / "d.json") is None


def test_a_pipe_is_not_waited_for(tmp_path):
    """A run that hangs for ever, at a pipe that lies among a model's files."""
    os.mkfifo(tmp_path / "d.json")
    with pytest.raises(BonsaiError, match="no file at"):
        read_document(tmp_path / "d.json", "bonsai report")
    with pytest.raises(BonsaiError, match="is no file"):
        sha256([tmp_path / "d.json"])
    assert kept_document(tmp_path / "d.json") is None and read_object(tmp_path / "d.json") == {}


def test_a_message_does_not_quote_megabytes():
    """A log of which one line has the four million letters of a cell, and no editor opens it."""
    said = str(BonsaiError(f"the label '{'x' * 4_000_000}' is none: correct it"))
    assert len(said) < 4000 and said.startswith("the label 'xxx") and said.endswith("xxx' is none: correct it")
    assert str(BonsaiError("short")) == "short"
    assert isinstance(pickle.loads(pickle.dumps(PassingError("away"))), PassingError)
