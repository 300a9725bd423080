"""Every component of every pipeline, run by KFP's own executor on what the launcher of a cluster hands over.

KFP's local runner hands over less and knows more: there each artifact has its class, and metadata keep their types.
The stages are replaced by recorders that check what they are called with against the stages' own signatures; the
components' bodies, the executor and the compiled pipelines are the real ones.
"""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kfp.dsl import executor_main
from kfp.dsl.types import artifact_types

from kfp_bonsai.pipelines.cluster.compile import compile_pipeline

SHAPES = (
    {"edge_at_run_time": True},
    {"fuse": True},
    {"pipeline": "retrain"},
    {"pipeline": "study"},
    {"pipeline": "search", "edge": True},
)  # all components there are
BUCKET = "mlpipeline/v2/artifacts/task"
VALUES = {"STRING": "text", "NUMBER_INTEGER": 3, "NUMBER_DOUBLE": 2, "BOOLEAN": True, "LIST": ["half:layers=1/2"]}
VALUES |= {"STRUCT": {"epochs": 1}}
KINDS = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool, "LIST": list}
STORED = {"accuracy": 0.68, "rows": 600, "whole": 1.0, "display_name": "output", "classes": "negative, positive"}
GIVEN, LEFT_OUT = "all given", "optional left out"


@pytest.fixture(scope="module")
def components(tmp_path_factory) -> dict[str, tuple[dict, str]]:
    """Interface and source of each component, as the compiled pipelines have them."""
    file, found = tmp_path_factory.mktemp("compiled") / "compiled.yaml", {}
    for options in SHAPES:
        compile_pipeline(output=str(file), **options)
        spec = next(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        for interface in spec["components"].values():
            if "executorLabel" in interface:
                container = spec["deploymentSpec"]["executors"][interface["executorLabel"]]["container"]
                found[container["args"][-1]] = (interface, container["command"][-1])
    return found


def handed_over(interface: dict, root: Path, optional: bool) -> dict[str, Any]:
    """Return what KFP's launcher hands to a component: artifacts without their class, some without any type."""
    inputs, outputs = interface.get("inputDefinitions", {}), interface.get("outputDefinitions", {})

    def wanted(what: str) -> dict:
        return {name: one for name, one in inputs.get(what, {}).items() if optional or not one.get("isOptional")}

    def input_artifacts(name: str, listed: bool) -> list[dict]:
        path = root / BUCKET / name
        path.mkdir(parents=True)
        (path / "bonsai.json").write_text("{}")
        found = {"name": "77", "uri": f"minio://{BUCKET}/{name}", "metadata": STORED}
        kinds = [{}, {"type": {"instanceSchema": ""}}]  # both occur, whatever comes from a list or goes into one
        return [{**found, **kind} for kind in kinds] if listed else [{**found, **kinds[optional]}]

    def output_artifact(name: str, title: str) -> dict:
        return {"name": name, "uri": f"minio://{BUCKET}/{name}", "type": {"schemaTitle": title}}

    made = {name: one["artifactType"]["schemaTitle"] for name, one in outputs.get("artifacts", {}).items()}
    made["executor-logs"] = "system.Artifact"  # which no component declares
    parameters = {name: {"outputFile": str(root / "outputs" / name)} for name in outputs.get("parameters", {})}
    return {
        "inputs": {
            "parameterValues": {name: VALUES[one["parameterType"]] for name, one in wanted("parameters").items()},
            "artifacts": {
                name: {"artifacts": input_artifacts(name, one.get("isArtifactList", False))}
                for name, one in wanted("artifacts").items()
            },
        },
        "outputs": {
            "parameters": parameters,
            "artifacts": {name: {"artifacts": [output_artifact(name, title)]} for name, title in made.items()},
            "outputFile": str(root / "output_metadata.json"),
        },
    }


def stages(source: str) -> list[tuple[str, str]]:
    """Return module and name of what a component's source calls beside what is shared, and what says its outputs."""
    called = re.compile(r"kfp_bonsai\.(?!shared|pipelines\.options)")
    return [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and called.match(node.module or "")
        for alias in node.names
    ]


def paths(value: Any) -> list[Path]:
    """Return the paths that a stage is given, alone, in a list or by name."""
    each = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [one for one in each if isinstance(one, Path)]


def recorder(stage: Callable, interface: dict, calls: list[str]) -> Callable:
    """Return what stands for a stage: it holds the call against the stage's signature, and leaves outputs there."""
    hints = inspect.signature(stage).parameters

    def record(*arguments: Any, **options: Any) -> dict[str, Any]:
        for name, value in inspect.signature(stage).bind(*arguments, **options).arguments.items():
            kind = hints[name].annotation
            for path in paths(value):
                assert path.parent.is_dir(), f"{name}: {path}"
                if not path.exists():  # an output
                    path.write_text('{"rows": []}')
            assert kind is not Path or isinstance(value, Path), f"{name}: {value!r}"
            if kind is float:
                kind = (int, float)
            if kind in (str, int, bool, (int, float)):
                assert isinstance(value, kind) and (kind is bool) == isinstance(value, bool), f"{name}: {value!r}"
        calls.append(stage.__name__)
        asked = interface.get("outputDefinitions", {}).get("parameters", {})
        given = {name: VALUES[one["parameterType"]] for name, one in asked.items() if name != "fingerprint"}
        given |= {"todo": given.pop("Output")} if "Output" in given else {}
        return given or {"level": "half", "ratio": float("nan"), "rows": 3, "good": True}

    return record


@pytest.mark.parametrize("optional", [True, False], ids=[GIVEN, LEFT_OUT])
def test_every_component_runs_on_what_a_cluster_hands_over(components, optional, tmp_path, monkeypatch):
    """A task that runs on one's own machine and on no cluster, after hours of training before it."""
    monkeypatch.setattr("kfp_bonsai.shared.saved.fingerprint.of_model", lambda _: "text")
    for name, (interface, source) in components.items():
        root = tmp_path / name
        root.mkdir()
        monkeypatch.setattr(artifact_types, "_MINIO_LOCAL_MOUNT_PREFIX", f"{root}/")
        calls: list[str] = []
        for module, stage in stages(source):
            there = import_module(module)
            real = inspect.unwrap(getattr(there, stage))  # what it is, under the recorder of the component before
            monkeypatch.setattr(there, stage, wraps(real)(recorder(real, interface, calls)))
        (root / "ephemeral_component.py").write_text(source, encoding="utf-8")
        given = handed_over(interface, root, optional)
        arguments = ["--executor_input", json.dumps(given), "--function_to_execute", name]
        module = str(root / "ephemeral_component.py")
        monkeypatch.setattr("sys.argv", ["executor_main", "--component_module_path", module, *arguments])
        try:
            executor_main.executor_main()
        except Exception as error:
            raise AssertionError(f"{name}, {GIVEN if optional else LEFT_OUT}: {error!r}") from error
        assert calls, f"{name} called no stage"
        check_left(interface, SimpleNamespace(name=name, root=root, given=given))


def check_left(interface: dict, task: SimpleNamespace) -> None:
    """Check that all outputs are there, as a launcher and a metadata store take them."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{task.name}: {constant} is no JSON")

    told = json.loads((task.root / "output_metadata.json").read_text(), parse_constant=refuse)
    outputs = interface.get("outputDefinitions", {})
    for name, one in outputs.get("parameters", {}).items():
        value = told["parameterValues"][name]
        assert isinstance(value, KINDS[one["parameterType"]]), f"{task.name}: {name} is {value!r}"
    for name in outputs.get("artifacts", {}):
        (found,) = told["artifacts"][name]["artifacts"]
        assert found["uri"] == task.given["outputs"]["artifacts"][name]["artifacts"][0]["uri"]
        path = task.root / found["uri"].removeprefix("minio://")
        assert path.exists(), f"{task.name} leaves nothing at {name}"


def test_every_component_there_is_belongs_to_a_pipeline(components):
    """A component that the test above does not know, as no shape of a pipeline that is compiled here has it."""
    folder = Path(__file__).parents[3]
    files = [*folder.glob("components/*/component.py"), folder / "pipelines" / "cluster" / "first.py"]
    files += [folder / "pipelines" / name for name in ("fused.py", "search_parts.py")]
    written = {
        node.name
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and (node.decorator_list or file.name == "search_parts.py")
    }
    assert set(components) == written


def test_the_first_task_ends_in_words_where_kfp_is_slim(tmp_path):
    """A module that needs all of KFP, which a task has not; or a traceback's end that names no field of the form."""
    compile_pipeline(output=str(tmp_path / "out.yaml"))
    spec = next(yaml.safe_load_all((tmp_path / "out.yaml").read_text(encoding="utf-8")))
    command = spec["deploymentSpec"]["executors"]["exec-check-inputs"]["container"]["command"]
    given = handed_over(spec["components"]["comp-check-inputs"], tmp_path, True)
    form = {"model": "my/bert", "data": "my/reviews", "test_data": "", "country": "", "upload": "", "edge": False}
    values = {**form, "options": {}, "fixed": {"device": "cpu"}, "min_accuracy": 0, "max_emission": 50}
    given["inputs"]["parameterValues"].update(values)
    arguments = ["--executor_input", json.dumps(given), "--function_to_execute", "check_inputs"]
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ended = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, "PATH": paths}
    )
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1].endswith(
        "BonsaiError: max_emission is 50: give a fraction such as 0.98 or 0.2 (0.5 for 50 %)"
    ), ended.stderr
