"""Processes of Python that a run starts of its own code, as forks that find imported what each would import anew.

A run, its tasks' process and each cell of a study import torch and transformers for some 5 seconds of CPU time each.
Where FORKS is set, the first process that is about to start another imports them, and all that come after have them.
Each is a process still, with the pipes, the session, the signals and the environment that it was to have.
"""

import atexit
import os
import runpy
import signal
import subprocess
import sys
import traceback
from importlib import import_module

FORKS = "BONSAI_TESTS_FORK"
OURS = ("kfp_bonsai.pipelines.local.", "from kfp_bonsai.cli ")


def switch_on() -> None:
    """Let this process and those that it starts fork."""
    if FORKS in os.environ and sys.platform == "linux":
        subprocess.Popen = Forking


class Forking(subprocess.Popen):
    """A process that is a fork where it would run code of ours: `python -c CODE ...` or `python -m MODULE ...`."""

    def __init__(self, args, *, preexec_fn=None, env=None, **options):
        if len(args) > 2 and args[0] == sys.executable and str(args[2]).startswith(OURS):
            import_all()
            before, arguments, environment = preexec_fn, args[1:], dict(os.environ if env is None else env)

            def preexec_fn():
                become(before, *arguments, environment=environment)

        super().__init__(args, preexec_fn=preexec_fn, env=env, **options)


def import_all() -> None:
    """Import what tasks find imported, without KFP's client of clusters."""
    from kfp_bonsai.pipelines.lean_kfp import import_kfp

    import_kfp()
    from kfp_bonsai.pipelines.local import warm

    for name in warm.TRAINING:
        import_module(name)


def become(before, kind, what, *arguments, environment):
    """Do in this fork, whose pipes are in place, what a new interpreter would; never return."""
    status = 1
    try:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if before:
            before()
        atexit._clear()
        os.environ.clear()
        os.environ.update(environment)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False, buffering=1 if "PYTHONUNBUFFERED" in environment else -1)
        sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
        status = ended(kind, what, arguments)
        atexit._run_exitfuncs()
        sys.stdout.flush()
    finally:
        os._exit(status)


def ended(kind, what, arguments) -> int:
    """Run code or a module as the main one; return the exit status."""
    sys.argv = [kind, *arguments]
    try:
        if kind == "-m":
            sys.modules.pop(what, None)
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
