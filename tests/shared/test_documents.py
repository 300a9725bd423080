"""JSON documents are read whole, or refused with what to do."""

import json

import pytest

from kfp_bonsai.shared.documents import read_document
from kfp_bonsai.shared.errors import BonsaiError


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
