"""The command `bonsai`: every stage, and the pipelines made of them.

Each command is derived from a plain function: its signature gives the options, its docstring the help.
A stage's module is imported when its command is asked for, so that `bonsai --help` is quick.
"""

import ast
import functools
import inspect
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperGroup
from wrapt import when_imported

from kfp_bonsai import __version__
from kfp_bonsai.shared.core import faults, parallel, ranks, stopping, temporary, threads
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import put
from kfp_bonsai.shared.core.ranges import SEED, check_ranges

PIPELINES = {
    "run": "kfp_bonsai.pipelines.local.run:run",
    "search": "kfp_bonsai.pipelines.local.search_run:search",
    "study": "kfp_bonsai.pipelines.local.study_run:study",
    "retrain": "kfp_bonsai.pipelines.local.retrain_run:retrain",
    "compile": "kfp_bonsai.pipelines.cluster.compile:compile_pipeline",
    "submit": "kfp_bonsai.pipelines.cluster.submit:submit",
    "schedule": "kfp_bonsai.pipelines.cluster.submit:schedule",
    "follow": "kfp_bonsai.pipelines.cluster.follow:follow",
    "logs": "kfp_bonsai.pipelines.cluster.logs:logs",
}
STAGES = {
    "prepare-data": "kfp_bonsai.prepare_data.prepare:prepare_data",
    "fine-tune": "kfp_bonsai.fine_tune.train:fine_tune",
    "teacher-outputs": "kfp_bonsai.teacher_outputs.outputs:teacher_outputs",
    "layer-remove": "kfp_bonsai.layer_remove.remove:layer_remove",
    "matrix-prune": "kfp_bonsai.matrix_prune.prune:matrix_prune",
    "distill": "kfp_bonsai.distill.distill:distill",
    "propose": "kfp_bonsai.propose.propose:propose",
    "quantize": "kfp_bonsai.quantize.quantize:quantize",
    "evaluate-emissions": "kfp_bonsai.evaluate_emissions.evaluate:evaluate_emissions",
    "select-model": "kfp_bonsai.select_model.select:select_model",
    "report": "kfp_bonsai.report.report:report",
    "package-model": "kfp_bonsai.package_model.package:package_model",
    "fetch-champion": "kfp_bonsai.fetch_champion.fetch:fetch_champion",
    "check-drift": "kfp_bonsai.check_drift.check:check_drift",
    "promote": "kfp_bonsai.promote.promote:promote",
}
OTHERS = {
    "advise": "kfp_bonsai.advise:advise",
    "compare": "kfp_bonsai.report.compare:compare",
    "doctor": "kfp_bonsai.doctor:doctor",
}
COMMANDS = PIPELINES | OTHERS | STAGES


def main() -> None:
    """Run the command line; an error that no stage explains ends in three lines, and status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where the locale has no signs but ASCII's
    _quieten_transformers()
    stopping.heed()
    threads.keep_to_quota()
    try:
        with temporary.own_folder():
            app()
    except Exception as error:
        if os.environ.get(faults.DEBUG):
            raise
        for line in faults.lines(error, ["bonsai", *sys.argv[1:]]):
            put(line, sys.stderr)
        sys.exit(1)


def _quieten_transformers() -> None:
    """Let transformers' reports and bars not stand among a command's lines; downloads from a hub keep theirs."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    when_imported("transformers.utils.logging")(
        lambda module: module.set_tqdm_hook(lambda bar, given, options: bar(*given, **{**options, "disable": True}))
    )


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command is asked for, and not to list it."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the commands' names, pipelines first."""
        return [*COMMANDS]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """Import the function of a command and derive the command from it."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in PIPELINES:
            import_module("kfp_bonsai.pipelines.lean_kfp").import_kfp()
        module, _, function = COMMANDS[cmd_name].partition(":")
        return _command(cmd_name, getattr(import_module(module), function))

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """List the commands with the first line of their docstrings."""
        for title, commands in (("Pipelines", PIPELINES), ("Before and after", OTHERS), ("Stages", STAGES)):
            with formatter.section(title):
                width = max(map(len, COMMANDS))
                formatter.write_dl([(name.ljust(width), _summary(where)) for name, where in commands.items()])

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Find the command, or suggest a near one."""
        self.commands = dict.fromkeys(COMMANDS, typer.core.TyperCommand(""))  # the names to suggest
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyGroup,
    help="Make fine-tuned language models smaller, and prove how much less CO2 each inference emits.",
    epilog="Start with: bonsai run --model embedded:minilm --data embedded:movie-reviews --output runs/demo --edge",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True, no_args_is_help=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"kfp-bonsai {__version__}")
        raise typer.Exit


def _summary(where: str) -> str:
    """Return the first line of a function's docstring without importing its module."""
    module, _, name = where.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _command(name: str, function: Callable[..., Mapping[str, Any] | None]) -> Any:
    """Derive a command from a plain function: options from its signature, help from its docstring.

    What is positional-only in Python is an argument on the command line, and all else an option. The function is called
    with what was given, so that it can tell that from its own defaults, whatever the values.
    """
    import docstring_parser

    described = docstring_parser.parse(inspect.getdoc(function) or "", docstring_parser.DocstringStyle.GOOGLE)
    texts = {each.arg_name: " ".join((each.description or "").split()) for each in described.params}
    hints = get_type_hints(function)
    parameters, positional = [], []
    for parameter in inspect.signature(function).parameters.values():
        help_text = texts.get(parameter.name, "")
        option: Any = typer.Option(help=help_text, show_default=parameter.default not in ("", (), []))
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(parameter.name)
            option = typer.Argument(help=help_text, metavar=parameter.name.upper())
        hint = hints[parameter.name]
        if get_origin(hint) is Sequence:
            hint = list[get_args(hint)[0]]  # type: ignore[misc]
        parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[hint, option]))

    @functools.wraps(function)
    def call(context: typer.Context, **arguments: Any) -> None:
        given = {name: value for name, value in arguments.items() if _is_given(context, name)}
        try:
            check_ranges({"seed": SEED}, given)
            result = function(*[given.pop(each) for each in positional if each in given], **given)
        except BonsaiError as error:
            if os.environ.get(faults.DEBUG):
                raise
            put(f"error: {error}", sys.stderr)
            raise typer.Exit(2) from error
        for line in table(result or {}) if ranks.is_first() else ():
            put(line, sys.stdout)
        parallel.end()

    asked = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    call.__signature__ = inspect.Signature([asked, *parameters])  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in (asked, *parameters)}
    command = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    command.command(
        name,
        help=f"{described.short_description}\n\n{described.long_description or ''}",
        epilog=_examples(described),
        context_settings=app.info.context_settings,
    )(call)
    return typer.main.get_command(command)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"  # whichever click typer has: its own, or the package


def _examples(described: Any) -> str:
    """Return a docstring's examples as an epilog whose lines are kept as they are."""
    lines = [line for each in described.examples for line in (each.description or "").splitlines()]
    for at, line in enumerate(lines[1:]):  # a command that goes on is pasted whole
        if not line.lstrip().startswith("bonsai") and lines[at].strip() and not lines[at].endswith("\\"):
            lines[at] += " \\"
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def table(result: Mapping[str, Any]) -> list[str]:
    """Return a result as aligned lines."""
    width = max(map(len, result), default=0)
    return [f"{key.ljust(width)}  {_shown(value)}" for key, value in result.items()]


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
