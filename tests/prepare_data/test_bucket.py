import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3

from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.parquet import READ_BYTES

DENIED = b"may be listed, not read"


class Storage(BaseHTTPRequestHandler):
    """Enough of the Cloud Storage JSON API to list and to read objects: one bucket, named "bucket"."""

    objects: dict[str, bytes]
    generations: dict[str, str]
    changing: set[str]  # by whoever else writes, once they are read
    short: set[str]  # half of them can be had

    def do_GET(self) -> None:
        """Answer a list, an object's description, or a range of its content."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if not url.path.partition("/b/")[2].startswith("bucket/o"):
            return self._answer(404, b'{"error": {"message": "no such bucket"}}')
        key = unquote(url.path.partition("/o")[2].lstrip("/"))
        if not key:
            found = [name for name in self.objects if name.startswith(query.get("prefix", ""))]
            return self._answer(200, json.dumps({"items": [self._about(name) for name in found]}).encode())
        if query.get("alt") != "media":
            return self._answer(200, json.dumps(self._about(key)).encode())
        content = self.objects[key]
        if content == DENIED:
            return self._answer(403, b"")
        if query["generation"] != self.generations.get(key, "1"):
            return self._answer(404, b"")
        if key in self.changing:
            self.generations[key] = "2"
        if content.startswith(b"\x1f\x8b") and "gzip" not in self.headers.get("Accept-Encoding", ""):
            return self._answer(200, gzip.decompress(content))  # the range is ignored, as Google's servers do
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        if int(first) >= len(content):
            return self._answer(416, b"")
        part = content[int(first) : int(last) + 1 if last else None]
        place = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        return self._answer(206, part, {"Content-Range": place})

    def _about(self, name: str) -> dict:
        size = len(self.objects[name]) * (2 if name in self.short else 1)
        found = {"name": name, "bucket": "bucket", "size": str(size), "generation": self.generations.get(name, "1")}
        return found | ({"contentEncoding": "gzip"} if self.objects[name].startswith(b"\x1f\x8b") else {})

    def _answer(self, status: int, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Be quiet."""


@pytest.fixture
def bucket(monkeypatch):
    table = pa.table({"text": [f"text {i}" for i in range(30_000)], "label": [i % 2 for i in range(30_000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    lines = "text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(40))
    objects = {"a/data.parquet": sink.getvalue().to_pybytes(), "b/train.csv": lines.encode(), "b/test.csv": b""}
    objects["b/test.csv"] = lines.replace("row", "test").encode()
    objects["d/denied.csv"] = DENIED
    handler = type("Made", (Storage,), {"objects": objects, "generations": {}, "changing": set(), "short": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def of_s3():
    """A server of S3's kind."""
    with s3.server() as found:
        yield found


def test_rows_in_s3(of_s3, tmp_path, monkeypatch):
    """Data in MinIO would have to be copied to a volume first, or be read while somebody exchanges them."""
    for name, value in s3.KEYS.items():
        monkeypatch.setenv(name.upper().replace("REGION_NAME", "AWS_DEFAULT_REGION"), value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", of_s3.url)
    lines = "text,label\n" + "".join(f"{{0}} {i},{i % 2}\n" for i in range(40))
    for name in ("train", "test", "_old"):
        of_s3.put(f"rows/2026/{name}.csv", lines.format(name).encode())
    of_s3.put("rows/2026/packed/train-more.csv.gz", gzip.compress(lines.format("more").encode()))
    for text, rows in {
        "rows/2026/train.csv": 40,
        "rows": 120,
        "rows/2026/t*.csv": 80,
        "rows/**/*.csv": 80,
        "rows/**": 120,
        "rows/*": 0,
        "rows/20": 0,
        "rows/*/packed/train-more.csv.g[yz]": 40,
    }.items():
        folder = tmp_path / text.replace("/", "-").replace("*", "x")
        if rows:
            assert prepare(f"s3://bucket/{text}", folder)["read_rows"] == rows
        else:
            with pytest.raises(BonsaiError, match="no such object"):
                prepare(f"s3://bucket/{text}", folder)
    with pytest.raises(BonsaiError, match="no bucket 'nobody'"):
        prepare("s3://nobody/rows", tmp_path / "nobody")
    reads: list[str] = []

    def exchange(method: str, path: str) -> None:
        reads.extend([path] if method == "GET" and path.endswith("train.csv") else [])
        if len(reads) == 2:
            of_s3.put("rows/2026/train.csv", lines.format("other").encode())

    of_s3.hooks.append(exchange)
    with pytest.raises(BonsaiError, match=r"s3://bucket/rows/2026/train.csv changed or was removed while it was read"):
        prepare("s3://bucket/rows", tmp_path / "changed")


def prepare(data: str, folder, **options):
    return prepare_data(data, *(folder / f"{name}.parquet" for name in ("train", "validation", "test", "u")), **options)


def test_an_object_is_streamed(bucket, tmp_path):
    """On a cluster the data are in buckets."""
    outcome = prepare("gs://bucket/a/data.parquet", tmp_path)
    assert (outcome["train_rows"], outcome["test_rows"]) == (21_600, 6_000)
    assert tasks.read_task(tmp_path / "train.parquet").source == "gs://bucket/a/data.parquet"


def test_a_folder_of_a_bucket_with_named_splits(bucket, tmp_path):
    """A prefix must be read as a folder is."""
    assert prepare("gs://bucket/b", tmp_path)["test_rows"] == 40


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ("gs://bucket/c/none.csv", "no such object"),
        ("gs://bucket/d/denied.csv", "access is denied \\(403\\)"),
        ("gs://nobody/a.csv", "no bucket 'nobody'"),
        ("gs://", "names no bucket"),
    ],
)
def test_missing_objects_and_buckets(bucket, tmp_path, data, word):
    """The message must say whether the bucket or the object is wrong."""
    with pytest.raises(BonsaiError, match=word):
        prepare(data, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_an_object_that_is_stored_packed_is_read_whole(bucket, tmp_path, suffix):
    """Its size is that of what is stored: read by ranges of what the server unpacks, half of the rows were lost."""
    lines = "text,label\n" + "".join(f"{'word ' * 90}{i},{i % 2}\n" for i in range(20_000))
    bucket.objects[f"g/packed{suffix}"] = gzip.compress(lines.encode(), 1)
    assert len(lines) > READ_BYTES
    assert prepare(f"gs://bucket/g/packed{suffix}", tmp_path)["read_rows"] == 20_000


def test_an_object_that_changes_between_the_two_passes_is_refused(bucket, tmp_path):
    """Labels of the one and texts of the other."""
    bucket.changing.add("b/train.csv")
    with pytest.raises(BonsaiError, match=r"b/train.csv changed or was removed while it was read: run again"):
        prepare("gs://bucket/b", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_object_that_ends_early_is_refused(bucket, tmp_path):
    """Rows that are lost without a word."""
    bucket.short.add("b/train.csv")
    with pytest.raises(
        BonsaiError, match=r"b/train.csv: .* 0 bytes where it should have \d+ from \d+ on|b/train.csv cannot be read"
    ):
        prepare("gs://bucket/b", tmp_path)


def test_hidden_objects_of_a_prefix_and_a_glob_are_left_alone(bucket, tmp_path, capsys):
    """What Spark and notebooks keep beside the data has old rows."""
    for name in ("b/_temporary/0/train.csv", "b/.ipynb_checkpoints/train.csv", "b/_old.csv"):
        bucket.objects[name] = b"text,label\nold,0\n"
    assert prepare("gs://bucket/b", tmp_path)["read_rows"] == 80
    assert "3 data files with . or _ before the name" in capsys.readouterr().out


def test_a_table_of_a_bucket_whose_files_hold_deleted_rows_is_refused(bucket, tmp_path):
    """The log beside the files says which of them are no longer its rows."""
    log = "b/_delta_log/00000000000000000000.json"
    bucket.objects[log] = b'{"add": {"path": "train.csv"}}'
    assert prepare("gs://bucket/b", tmp_path)["read_rows"] == 80
    bucket.objects[log] += b'\n{"remove": {"path": "train.csv"}}'
    with pytest.raises(BonsaiError, match=r"gs://bucket/b is a Delta table"):
        prepare("gs://bucket/b", tmp_path)
