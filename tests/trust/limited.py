"""Do something in a process of its own, forked from one that has imported everything, within a time and a memory."""

import math
import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from kfp_bonsai.cli import COMMANDS

GIB = 1 << 30
PATIENCE = 6  # a machine is shared
MODELS = ("bert", "gpt2", "t5", "llama")
PRELOADED = [
    *("torch", "pandas", "datasets", "accelerate", "onnxruntime", "sklearn.linear_model", "cyclonedx.output.json"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.figure", "codecarbon"),
    *(f"transformers.models.{name}.modeling_{name}" for name in MODELS),
    *("transformers.tokenization_utils_tokenizers", "transformers.models.auto.modeling_auto", "transformers.trainer"),
    *sorted({where.partition(":")[0] for where in COMMANDS.values()}),
]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)


class Outcome(NamedTuple):
    """How it ended: "done" with a value; "refused", "raised", "hung" or "died" with words; what it took, in bytes."""

    ended: str
    value: Any
    memory: int = 0


def outcome(work: Callable[..., Any], *given: Any, seconds: float = 90.0, gib: float = 4.0) -> Outcome:
    """Do some work, and say how it ended.

    Args:
        work: what is done; its value must be picklable.
        given: what it is given.
        seconds: of a processor, after which it is ended; others may keep it busy for `PATIENCE` times as long.
        gib: memory that it may take beyond that of the process it is forked from, in GiB.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    child = CONTEXT.Process(target=_work, args=(theirs, gib, seconds, work, given), daemon=True)
    child.start()
    theirs.close()
    try:
        if ours.poll(PATIENCE * seconds):
            return Outcome(*ours.recv())
        return Outcome("hung", f"no end within {PATIENCE * seconds:.0f} s")
    except EOFError:
        child.join()
        if child.exitcode == -signal.SIGXCPU:
            return Outcome("hung", f"no end within {seconds:.0f} s of a processor")
        return Outcome("died", f"the process ended with {child.exitcode}")
    finally:
        child.kill()
        child.join()


def _work(answer: Any, gib: float, seconds: float, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    from kfp_bonsai.shared.core.errors import BonsaiError

    with open("/proc/self/statm") as file:
        most = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + int(gib * GIB)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (GIB, GIB))  # a link to a device without an end is copied for ever
    try:
        found = ("done", work(*given))
    except BonsaiError as error:
        found = ("refused", str(error))
    except BaseException:
        found = ("raised", traceback.format_exc())
    answer.send((*found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
    answer.close()
