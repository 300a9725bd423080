"""What leaves the machine that nobody sent."""

import os
import subprocess
import sys

import pytest

from kfp_bonsai.shared.core import telemetry

USED = """
import sys, kfp_bonsai

told = []
def hook(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect", "os.fork"):
        told.append(event)
sys.addaudithook(hook)
{use}
import time
time.sleep(1)  # it is sent by threads
print(told)
"""
OPENVINO = "import openvino, torch; openvino.convert_model(torch.nn.Linear(2, 2), example_input=torch.ones(1, 2))"


@pytest.mark.parametrize("use", [OPENVINO, "import nncf"])
def test_a_library_tells_its_maker_nothing(use):
    """Use that is told of without being asked, and a forked process that waits for ever, and the run with it."""
    ended = _python(USED.format(use=use))
    assert ended.stdout.strip().endswith("[]"), ended.stdout + ended.stderr


def test_what_sends_later_is_told_not_to():
    """What MLflow and Hugging Face's clients send in batches, or with requests, which one look would miss."""
    asked = "constants.HF_HUB_DISABLE_TELEMETRY, is_telemetry_disabled()"
    imported = "import kfp_bonsai; from huggingface_hub import constants; from mlflow.telemetry.utils import *"
    ended = _python(f"{imported}; print({asked})")
    assert ended.stdout.split() == ["True", "True"], ended.stderr


def _python(program: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in (*telemetry.OFF, "CI")}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
