"""What the tests of submitting, following and reading logs start from."""

import threading
import time

import pytest

from kfp_bonsai.pipelines.cluster.compile import compile_pipeline


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The compress pipeline as a file."""
    file = tmp_path_factory.mktemp("compiled") / "compress.yaml"
    compile_pipeline(output=file, edge_at_run_time=True)
    return file


@pytest.fixture
def server():
    """A cluster with KFP 2.17's API."""
    from kubeflow import Kubeflow

    with Kubeflow().serving() as cluster:
        yield cluster


@pytest.fixture
def on_sleep(monkeypatch):
    """What is done where the code that is tested sleeps; the server's threads and others' sleep as before."""
    sleep, waits = time.sleep, threading.get_ident()

    def patch(do):
        monkeypatch.setattr("time.sleep", lambda s: do(s) if threading.get_ident() == waits else sleep(s))

    return patch


@pytest.fixture
def quick(monkeypatch, on_sleep):
    """A clock that sleeping moves on at once, between two looks at a run."""
    slept, clock = [0.0], time.monotonic
    on_sleep(slept.append)
    monkeypatch.setattr("time.monotonic", lambda: clock() + sum(slept))
