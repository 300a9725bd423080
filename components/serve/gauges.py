"""What Prometheus is told of a server: requests, their time, rows, connections, and what the process takes."""

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

__all__ = ["CONTENT_TYPE_LATEST", "Gauges"]


class Gauges:
    """The figures of one server."""

    def __init__(self, name: str, runtime: str, kind: str) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("bonsai_requests", "Inference requests by status", ["code"], registry=self.registry)
        self.rows = Counter("bonsai_rows", "Rows that were answered", registry=self.registry)
        self.seconds = Histogram(
            "bonsai_request_seconds",
            "Time from a request's headers to its answer, waiting for others included",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.running = Gauge("bonsai_requests_running", "Requests that are waited for", registry=self.registry)
        self.connections = Gauge("bonsai_connections", "Connections that are open", registry=self.registry)
        self.refused = Counter("bonsai_connections_refused", "Connections beyond the most", registry=self.registry)
        model = Info("bonsai_model", "What is served", registry=self.registry)
        model.info({"name": name, "runtime": runtime, "kind": kind})
        processor = Gauge("bonsai_cpu_seconds", "Processor time of the process", registry=self.registry)
        processor.set_function(time.process_time)
        memory = Gauge("bonsai_memory_bytes", "Memory of the process, resident", registry=self.registry)
        memory.set_function(resident_bytes)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Time an inference request."""
        with self.running.track_inprogress(), self.seconds.time():
            yield

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self.registry)


def resident_bytes() -> int:
    """Return the memory that the process holds; where the system does not tell, the most that it held."""
    file = Path("/proc/self/statm")
    if file.exists():
        return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
