"""How the server bears many clients at the same time: errors, latency, throughput, and memory as it goes on.

    python tests/benchmarks/serving_load.py --clients 200 --seconds 600 --json load.json
    python tests/benchmarks/serving_load.py --model runs/demo/edge-model --threads 2

Each client holds a connection and asks again as soon as it is answered (a closed loop); its text is of 1 to 40 words.
The server is a process of its own, as in the images, by default with a small model that is made here. Of its memory,
that after the first tenth of the time is compared with that at the end. SIGTERM ends it in the midst of requests: those
at hand must be answered.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arguments import json_file, write_json

sys.path.insert(0, str(Path(__file__).parents[1]))

WARM_UP = 0.1  # of the time
WORDS = ("the", "a", "film", "plot", "cast", "was", "and", "very", "it", "music", "good", "fine", "bad", "awful")


def small_model(folder: Path) -> Path:
    """Make a small classifier, fine-tuned and quantized; return its folder."""
    import tiny

    from kfp_bonsai.fine_tune.train import fine_tune
    from kfp_bonsai.quantize.quantize import quantize

    data = tiny.splits(folder / "data")
    base = tiny.pretrained(folder / "pretrained")
    fine_tune(str(base), data["train"], data["validation"], folder / "tuned", epochs=1, learning_rate=3e-3)
    quantize(folder / "tuned", data["train"], folder / "int8", calibration_rows=16)
    return folder / "int8"


class Load:
    """What the clients saw.

    Attributes:
        latencies: seconds of each answer, with when it came.
        errors: what went wrong, and how often.
        ending: the server was told to end, so that a connection may be closed between two requests.
    """

    def __init__(self) -> None:
        self.latencies: list[tuple[float, float]] = []
        self.errors: dict[str, int] = {}
        self.ending = False

    def failed(self, what: str) -> None:
        """Count an error."""
        self.errors[what] = self.errors.get(what, 0) + 1


def request(chance: random.Random, pair: bool) -> bytes:
    """Return a request's bytes."""
    text = " ".join(chance.choices(WORDS, k=chance.randint(1, 40)))
    names = ["text", "text_pair"] if pair else ["text"]
    tensors = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]} for name in names]
    body = json.dumps({"inputs": tensors}).encode()
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def client(number: int, port: int, pair: bool, load: Load, stop: asyncio.Event) -> None:
    """Ask on and on, on one connection while it lasts."""
    chance, reader, writer = random.Random(number), None, None
    while not stop.is_set() and not load.ending:
        sent, start = False, time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert reader is not None
            writer.write(request(chance, pair))
            await writer.drain()
            sent = True
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            assert length is not None, head
            body = await reader.readexactly(int(length[1]))
            if not head.startswith(b"HTTP/1.1 200 ") or b'"outputs"' not in body:
                load.failed(head.partition(b"\r\n")[0].decode())
            now = time.perf_counter()
            load.latencies.append((now, now - start))
            if b"Connection: close" in head:
                writer.close()
                writer = None
        except (OSError, asyncio.IncompleteReadError) as error:
            refused = isinstance(error, ConnectionError) and not sent
            if not (load.ending and refused):
                load.failed(type(error).__name__)
            writer = None
    if writer is not None:
        writer.close()


async def figures(port: int) -> dict[str, float]:
    """Return what /metrics tells."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return {name: float(value) for name, value in re.findall(r"^(\w+) ([\d.e+-]+)$", text, re.M)}


async def watch(port: int, seconds: float, start: float, memory: list[tuple[float, float]]) -> None:
    """Note the server's memory while it is asked."""
    while time.perf_counter() - start < seconds:
        memory.append((time.perf_counter() - start, (await figures(port))["bonsai_memory_bytes"]))
        await asyncio.sleep(min(5.0, seconds / 20))


async def run(server: subprocess.Popen, port: int, clients: int, seconds: float, pair: bool) -> dict[str, Any]:
    """Let the clients ask for some time, end the server among them, and return what was seen."""
    load, stop, memory = Load(), asyncio.Event(), []
    start = time.perf_counter()
    asking = [asyncio.create_task(client(number, port, pair, load, stop)) for number in range(clients)]
    await watch(port, seconds, start, memory)
    found = await figures(port)
    load.ending = True
    server.send_signal(signal.SIGTERM)
    ended = time.perf_counter()
    await asyncio.gather(*asking)
    status = await asyncio.to_thread(server.wait, 60)
    steady = sorted(took for at, took in load.latencies if at - start > WARM_UP * seconds)
    early = [size for at, size in memory if at > WARM_UP * seconds]
    share = lambda part: 1000 * steady[min(len(steady) - 1, int(part * len(steady)))]  # noqa: E731
    return {
        "clients": clients,
        "seconds": round(ended - start, 1),
        "answers": len(load.latencies),
        "answers_per_s": round(len(load.latencies) / (ended - start), 1),
        "errors": load.errors,
        "p50_ms": round(share(0.5), 1),
        "p99_ms": round(share(0.99), 1),
        "max_ms": round(1000 * steady[-1], 1),
        "memory_mb": [round(size / 1e6, 1) for size in (early[0], early[len(early) // 2], early[-1])],
        "memory_growth_mb": round((early[-1] - early[0]) / 1e6, 1),
        "server_cpu_s": round(found["bonsai_cpu_seconds"], 1),
        "ended_in_s": round(time.perf_counter() - ended, 2),
        "exit_status": status,
    }


def main() -> int:
    """Run a load, print what was seen, and fail where there were errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder of quantize or package-model; by default a small one")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=1, help="of the server, for one batch")
    parser.add_argument("--json", type=json_file, help="file to write the figures to")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or small_model(Path(scratch))
        columns = json.loads((model / "bonsai.json").read_text())["task"].get("columns") or ["text"]
        command = [sys.executable, "-m", "kfp_bonsai.serve", "serve", str(model), "--host", "127.0.0.1", "--port", "0"]
        command += ["--name", "m", "--threads", str(options.threads)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            line = server.stdout.readline()
            port = re.search(r":(\d+)/v2/", line)
            if port is None:
                return 2
            print(line.strip(), flush=True)
            try:
                found = asyncio.run(run(server, int(port[1]), options.clients, options.seconds, len(columns) > 1))
            finally:
                server.kill()
    for name, value in found.items():
        print(f"{name:18} {value}")
    write_json(options.json, found)
    return 1 if found["errors"] or found["exit_status"] else 0


if __name__ == "__main__":
    sys.exit(main())
