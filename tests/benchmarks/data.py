"""Reading text and label by our loader, from Parquet and from CSV: time, CPU, bytes, and memory that stays bounded.

    python tests/benchmarks/data.py [--rows 1000000] [--large 4] [--json FILE]

The rows are made: some 25 words drawn as often as words are, a label, and two columns that nobody asked for (an id and
a second text), as real tables have them. Every reading is a process of its own. Memory is bounded if a file `--large`
times as long needs no more of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from arguments import json_file, write_json

CHUNK, WORDS, MEAN_WORDS = 50_000, 20_000, 25


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file (1000000)")
    parser.add_argument("--large", type=int, default=4, help="how many times as long the second file is (4)")
    parser.add_argument("--json", type=json_file, help="file to write the figures to")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        print(json.dumps(read(given.read)))
        return
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for rows in (given.rows, given.rows * given.large):
            for suffix in ("parquet", "csv"):
                file = Path(scratch) / f"made.{suffix}"
                write(file, rows)
                command = [sys.executable, __file__, "--read", str(file)]
                ended = subprocess.run(command, capture_output=True, text=True, check=True)
                one = json.loads(ended.stdout.splitlines()[-1])
                found.append({"format": suffix, "file_bytes": file.stat().st_size, **one})
                file.unlink()
                if one["rows"] != rows:
                    raise SystemExit(f"{one['rows']} rows came back of {rows}")
    print(table(found))
    write_json(given.json, found)


def write(file: Path, rows: int) -> None:
    """Write made rows, a chunk at a time."""
    random = np.random.default_rng(0)
    words = np.array(["".join(chr(97 + one) for one in random.integers(0, 26, 3 + at % 7)) for at in range(WORDS)])
    often = 1 / np.arange(1, WORDS + 1)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("label", pa.string()), ("source", pa.string())])
    lengths = random.poisson(MEAN_WORDS, CHUNK) + 1
    drawn = np.split(random.choice(words, lengths.sum(), p=often / often.sum()), np.cumsum(lengths)[:-1])
    columns = [
        [" ".join(each) for each in drawn],
        np.array(["bad", "good"])[random.integers(0, 2, CHUNK)],
        [f"page {number % 977}, taken over from an older table" for number in range(CHUNK)],
    ]
    opened = pq.ParquetWriter if file.suffix == ".parquet" else pa_csv.CSVWriter
    with opened(file, schema) as writer:
        for start in range(0, rows, CHUNK):  # the same chunk again and again, with ids that go on
            arrays = [pa.array(one) for one in (np.arange(start, start + CHUNK), *columns)]
            writer.write_table(pa.table(arrays, schema=schema).slice(0, rows - start))


def read(file: Path) -> dict[str, float]:
    """Go through text and label of a file; return what that took, beyond what the imports had taken before."""
    from kfp_bonsai.prepare_data.read import open_source

    idle = status("VmRSS")
    bytes_before, started, used = psutil.Process().io_counters().read_chars, time.perf_counter(), time.process_time()
    batches = open_source(str(file), "--data").splits["train"].batches(["text", "label"])
    rows = sum(batch.rows for batch in batches)
    return {
        "rows": rows,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
        "bytes_read": psutil.Process().io_counters().read_chars - bytes_before,
        "memory_bytes": status("VmHWM") - idle,
    }


def status(field: str) -> int:
    """Return a size in bytes from what Linux tells of this process: VmRSS now, or VmHWM, the most so far."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[field].split()[0])


def table(found: list[dict[str, float]]) -> str:
    """Return the figures as lines."""
    lines = [f"{'format':8} {'rows':>10} {'file MB':>8} {'read MB':>8} {'seconds':>8} {'CPU s':>6} {'memory MB':>10}"]
    for one in found:
        lines.append(
            f"{one['format']:8} {one['rows']:10,} {one['file_bytes'] / 1e6:8.0f} {one['bytes_read'] / 1e6:8.0f} "
            f"{one['seconds']:8.2f} {one['cpu_seconds']:6.2f} {one['memory_bytes'] / 1e6:10.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
