"""Parquet files as a stream."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_bonsai.shared.data import parquet


@pytest.mark.parametrize("stored", ["each", "once"])
def test_batches_of_long_rows_are_small(tmp_path, monkeypatch, stored):
    """A few thousand long documents, read at once, take gigabytes where their number says that they are few."""
    monkeypatch.setattr(parquet, "BATCH_BYTES", 1 << 16)
    texts = [f"{at if stored == 'each' else 0:05} {'a' * 4000}" for at in range(500)]
    pq.write_table(pa.table({"text": texts, "at": range(500)}), tmp_path / "d.parquet", use_dictionary=stored == "once")
    file = parquet.open_parquet(tmp_path / "d.parquet", "d", "")
    batches = [*parquet.stream(file, "d", ["text", "at"], 8192)]
    assert [text for batch in batches for text in batch["text"]] == texts
    assert [at for batch in batches for at in batch["at"]] == [*range(500)]
    assert max(sum(map(len, batch["text"])) for batch in batches) <= 1 << 16
    assert next(len(batch["at"]) for batch in parquet.stream(file, "d", ["at"], 100)) >= parquet.FEWEST_ROWS
