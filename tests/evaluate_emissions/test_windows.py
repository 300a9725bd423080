"""Rows that are several inputs are measured as rows."""

import json

import numpy as np
import pytest
import tiny
from kinds_made import splits

from kfp_bonsai.evaluate_emissions import given, protocol, speed
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.inference.asking import rows_in


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Test rows of tags, read in windows of six tokens."""
    folder = tmp_path_factory.mktemp("windows")
    tiny.tokenizer().save_pretrained(folder)
    (folder / "bonsai.json").write_text(json.dumps({"max_length": 6}))
    test = splits(folder / "data", "tokens")["test"]
    return given.read_test_rows([(folder, 6)], tasks.read_task(test), test, 32, 0, 8, (1, 8), 0)


def test_rows_are_counted_and_not_their_windows(rows):
    """FLOPs of one input as long as all windows together, and a mean length that no input has."""
    inputs = sum(len(one.batch["input_ids"]) for one in rows.batches)
    assert rows.rows == 96 < inputs and sum(rows_in(one.batch) for one in rows.batches) == 96
    assert rows.inputs_a_row == pytest.approx(inputs / 96) and rows.mean_lengths[0] <= 6
    assert [rows_in(one) for one in rows.sizes] == [1, 8] and {rows_in(one) for one in rows.singles} == {1}


def test_throughput_is_of_rows(rows):
    """A tagger of long texts that seems to read three times as many as it does."""
    subject = protocol.Subject("made", lambda batch: np.zeros(len(batch["input_ids"])))
    speed.best_batches([subject], rows.sizes, seconds=0.02)
    assert subject.best_batch in (1, 8)
