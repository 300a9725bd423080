"""Tasks as forks of one process that has imported what they need, so that each saves some 5 seconds of CPU time.

KFP's local runner starts an interpreter for every task, which imports torch and transformers anew. Here it asks a
process that has done so to fork. Nothing is computed before the fork, so that no thread and no random number is shared.
"""

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from kfp_bonsai.shared.core import stopping

TRAINING = (
    "kfp.dsl.executor_main",
    "kfp_bonsai.shared.training.trainer",
    "kfp_bonsai.shared.saved.checkpoint",
    "transformers.models.auto.modeling_auto",
    "kfp_bonsai.shared.models.free_models",
)
WRITING = ("rouge_score.rouge_scorer", "sacrebleu.metrics")
QUANTIZING = ("nncf.onnx.quantization.backend_parameters", "onnxruntime.quantization", "openvino")
ENDED = "\0task ended "
GPU = Path("/proc/driver/nvidia")  # its driver may be asked for on import, and does not outlive a fork


@contextmanager
def warm_tasks(imported: Sequence[str] = TRAINING) -> Iterator[None]:
    """Let KFP's SubprocessRunner fork its tasks, where that is safe: on Linux, without a GPU.

    Args:
        imported: the modules that tasks find imported.
    """
    if sys.platform != "linux" or GPU.exists():
        yield
        return
    from kfp.local import subprocess_task_handler

    server = subprocess.Popen(
        [sys.executable, "-m", __name__, *imported],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | {"_KFP_RUNTIME": "true"},
    )

    def run(full_command: Sequence[str], env_vars: dict[str, str] | None = None) -> int:
        """Run `sh -ec SCRIPT SOURCE ARGUMENTS...`, as KFP calls a component; return the exit status."""
        assert server.stdin and server.stdout
        task = {"source": full_command[3], "arguments": full_command[4:], "environment": os.environ | (env_vars or {})}
        with suppress(BrokenPipeError):
            server.stdin.write(json.dumps(task) + "\n")  # not print(), which KFP replaces by one that indents
            server.stdin.flush()
        for line in server.stdout:
            if line.startswith(ENDED):
                return int(line.removeprefix(ENDED))
            print(line, end="")
        return 1

    with server, mock.patch.object(subprocess_task_handler, "run_local_subprocess", run):
        yield


def main() -> None:
    """Import, then fork for each task that standard input asks for, one after the other."""
    stopping.end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which all of a terminal get: the run ends this process
    for name in sys.argv[1:]:
        with suppress(ImportError):  # the task says so, if it needs it
            import_module(name)
    if free_models := sys.modules.get("kfp_bonsai.shared.models.free_models"):
        with suppress(ImportError):
            free_models.register()  # which imports a module of each family
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(**json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        os.write(sys.stdout.fileno(), f"\n{ENDED}{os.waitstatus_to_exitcode(status)}\n".encode())


def _run(source: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
    """Do in this process what the component's command does in a new one."""
    from kfp.dsl.executor_main import executor_main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopping.heed()
    stopping.end_with_parent()
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.environ.update(environment)
    with TemporaryDirectory() as folder:
        program = Path(folder) / "ephemeral_component.py"
        program.write_text(source, encoding="utf-8")
        sys.argv[1:] = ["--component_module_path", str(program), *arguments]
        executor_main()


if __name__ == "__main__":
    main()
