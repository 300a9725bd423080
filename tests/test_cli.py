"""The command line: derived from the stage functions, quick to start, clear when it refuses."""

import inspect
import io
import itertools
import json
import os
import subprocess
import sys
import time
from importlib import import_module

import pytest
from typer.testing import CliRunner

from kfp_bonsai import cli
from kfp_bonsai.shared.core import progress
from kfp_bonsai.shared.core.errors import BonsaiError

runner = CliRunner()


def invoke(*arguments: str):
    return runner.invoke(cli.app, list(arguments), env={"TERMINAL_WIDTH": "200", "COLUMNS": "200"})


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_every_option_with_its_explanation(command):
    """An option that is missing, or that --help says nothing about."""
    import docstring_parser

    module, _, name = cli.COMMANDS[command].partition(":")
    function = getattr(import_module(module), name)
    explained = {each.arg_name: each.description for each in docstring_parser.parse(inspect.getdoc(function)).params}
    shown = invoke(command, "--help")
    assert shown.exit_code == 0, shown.output
    for name, parameter in inspect.signature(function).parameters.items():
        argument = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        assert (name.upper() if argument else f"--{name.replace('_', '-')}") in shown.output
        assert explained.get(name), f"{command}: Args does not explain {name}"
    assert "Example:" in shown.output and f"bonsai {command}" in shown.output


def test_help_lists_all_commands_with_one_line_each():
    """A command nobody finds."""
    lines = invoke("--help").output.splitlines()
    for command in cli.COMMANDS:
        assert any(line.strip().startswith(f"{command} ") and len(line.split()) > 3 for line in lines), command


def test_help_imports_nothing_heavy():
    """A --help that takes seconds, for it imports torch or KFP."""
    code = "import sys\nfrom kfp_bonsai.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'transformers', 'kfp', 'sklearn', 'matplotlib', 'datasets'} & set(sys.modules)))"
    began = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.splitlines()[-1] == "[]"
    assert time.perf_counter() - began < 10, "0.4 s on an idle machine"


def test_a_run_on_ones_own_machine_imports_no_client_of_clusters():
    """Seconds at each start of `bonsai run`, `search` and `study` for Kubernetes' API, which none of them asks."""
    code = "import sys\nfrom kfp_bonsai.cli import LazyGroup\nLazyGroup().get_command(None, 'run')\n"
    code += "from kfp import components, dsl, local\nprint({'kfp.client', 'kubernetes'} & {*sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out == "set()\n"


@pytest.mark.parametrize("command", ["run", "search"])
def test_a_finished_folder_is_refused_before_torch_is_loaded(tmp_path, command):
    """Seven seconds until a word is said of a command that was typed twice."""
    record = {"state": "finished", "started": "2026-01-01", "arguments": {"search": True}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    options = [command, "--model", "none", "--data", "none", "--output", str(tmp_path), "--min-accuracy", "0.9"]
    code = "import sys\nfrom kfp_bonsai.cli import app\ntry: app(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print({'torch', 'transformers'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, timeout=60)
    assert "holds a finished run: add --overwrite" in ended.stderr and ended.stdout == "set()\n"


def test_bad_input_exits_with_2_and_no_traceback(tmp_path):
    """A user's mistake that looks like ours."""
    options = ["--model", str(tmp_path / "none"), "--results", "none.json", "--output", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, "-c", "from kfp_bonsai.cli import main; main()", "package-model", *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={key: value for key, value in os.environ.items() if key != "BONSAI_DEBUG"},
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ") and "none" in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


def test_debugging_shows_the_traceback(tmp_path, monkeypatch):
    """A refusal whose place in the code cannot be found."""
    monkeypatch.setenv("BONSAI_DEBUG", "1")
    ended = invoke("package-model", "--model", str(tmp_path), "--results", "x", "--output", str(tmp_path / "out"))
    assert isinstance(ended.exception, BonsaiError)


def test_a_stage_stopped_by_the_user_exits_with_130(monkeypatch):
    """A script that takes Ctrl-C for success."""
    module = import_module("kfp_bonsai.package_model.package")

    def stopped(model: str):
        """Stop."""
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "package_model", stopped)
    assert invoke("package-model", "--model", "x").exit_code == 130


FAILING = """
import sys
from kfp_bonsai import cli
from kfp_bonsai.package_model import package
def package_model(model: str, token: str = "") -> dict:
    print("· ±")
    {body}
package.package_model = package_model
sys.argv = ["bonsai", "package-model", "--model", "gs://me:pass@x/y?X-Goog-Signature=abcd", "--token", "tok123"]
cli.main()
"""


def failing(body: str, **environment: str):
    here = {key: value for key, value in os.environ.items() if key != "BONSAI_DEBUG"}
    run = [sys.executable, "-c", FAILING.format(body=body)]
    return subprocess.run(run, capture_output=True, text=True, timeout=60, env=here | environment)


def test_a_fault_of_ours_ends_in_three_lines_and_a_file(tmp_path):
    """A page of traceback that looks like the user's mistake, or a bug that cannot be reported."""
    raised = "raise ZeroDivisionError(f'with {model} s3cr3t-value')"
    ended = failing(raised, BONSAI_CACHE=str(tmp_path), MY_API_KEY="s3cr3t-value", PYTHONIOENCODING="ascii")
    first, second, third = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert first.startswith("error: unexpected ZeroDivisionError: with gs://***@x/y") and cli.__version__ in second
    kept = next((tmp_path / "faults").iterdir())
    text = kept.read_text()
    assert str(kept) in third and "Traceback" in text and "raise ZeroDivisionError" not in ended.stderr
    assert "bonsai package-model --model" in text and "transformers 5" in text
    for secret in ("pass@", "abcd", "tok123", "s3cr3t-value"):
        assert secret not in text + ended.stderr


def test_debugging_shows_a_fault_where_it_is():
    """A developer who must look for a file."""
    ended = failing("1 / 0", BONSAI_DEBUG="1")
    assert ended.returncode == 1 and "Traceback" in ended.stderr and "ZeroDivisionError" in ended.stderr


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("raise MemoryError", "memory ran out"),
        ("import torch; raise torch.OutOfMemoryError('CUDA out of memory')", "smaller --batch-size"),
        ('raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory")', "memory ran out"),
        ("raise OSError(28, 'No space left on device')", "no space left on the disk"),
    ],
)
def test_the_machines_limits_are_no_fault(raised, said):
    """A bug report for a full disk."""
    ended = failing(raised)
    assert ended.returncode == 1 and said in ended.stderr and "this is a fault" not in ended.stderr


def test_nothing_is_said_where_nobody_reads(tmp_path):
    """`bonsai ... | head` ends in a traceback, or ends the work."""
    code = FAILING.format(
        body="from kfp_bonsai.shared.core.progress import say; say('x' * 99999); say('y'); return {'done': 1}"
    )
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    code = code.replace('print("· ±")', f"open({str(tmp_path / 'ran')!r}, 'w')")
    ended = subprocess.run([sys.executable, "-c", code], stdout=reader.stdin, stderr=subprocess.PIPE, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"") and (tmp_path / "ran").exists()


@pytest.mark.parametrize("stream", ["closed", "ascii", "none"])
def test_what_is_only_said_never_fails(stream, monkeypatch):
    """Hours of training lost for a line in a log."""
    below = io.BytesIO()
    output = None if stream == "none" else io.TextIOWrapper(below, encoding="ascii", write_through=True)
    if stream == "closed":
        output.close()
    monkeypatch.setattr(sys, "stdout", output)
    progress.say("1/3 · ±2 %")
    assert stream != "ascii" or below.getvalue() == b"1/3 ? ?2 %\n"


def test_runs_to_compare_are_arguments(tmp_path):
    """`bonsai compare RUN1 RUN2`, which people type, and an answer that asks for an option before each."""
    result = invoke("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "c"))
    assert result.exit_code == 2 and f"no file at {tmp_path / 'a'}" in result.output


def test_unknown_commands_and_missing_options_exit_with_2():
    """A typing error that is taken for a run."""
    unknown = invoke("distil")
    assert unknown.exit_code == 2 and "distill" in unknown.output
    missing = invoke("distill")
    assert missing.exit_code == 2 and "--model" in missing.output


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_that_numpy_does_not_take_is_refused(seed):
    """A traceback of numpy's, after the models are loaded."""
    inputs = ("--model", "m", "--train", "t", "--validation", "v", "--output", "o")
    found = invoke("fine-tune", *inputs, "--seed", seed)
    assert found.exit_code == 2 and f"--seed is {seed}: give a number from 0" in found.output


def test_version():
    """A bug report without a version."""
    assert invoke("--version").output.strip() == f"kfp-bonsai {cli.__version__}"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_an_example_of_several_lines_is_pasted_whole(command):
    """Its second line run as a command of its own, and the first without what is required."""
    lines = invoke(command, "--help").output.partition("Example:")[2].splitlines()
    lines = [line.rstrip() for line in lines if line.strip()]
    for before, line in itertools.pairwise(lines):
        assert line.split()[0] == "bonsai" or before.endswith("\\"), line


def test_transformers_bars_do_not_stand_among_a_commands_lines():
    """Tables of weights and half-written bars between the lines that people read, in a terminal and in a pod's log."""
    code = (
        "from kfp_bonsai.cli import _quieten_transformers as quieten; quieten()\n"
        "from transformers.utils import logging\n"
        "list(logging.tqdm(range(3), desc='Loading weights')); logging.get_logger('transformers.x').warning('report')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
