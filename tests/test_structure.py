"""The rules of the house, kept by reading the source."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
import signatures
import yaml
from kfp.dsl.types.type_annotations import OutputAnnotation

from kfp_bonsai.cli import STAGES
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.models.families import FAMILIES

COMPONENTS = Path(__file__).parents[1] / "components"
FOLDERS = [name.replace("-", "_") for name in STAGES]
TOPS = ("advise", "cli", "doctor", "serve")  # what stands on stages and rooms
SOURCES = [path for path in sorted(COMPONENTS.rglob("*.py")) if path.name != "component.py"]
ROOMS = ("core", "storage", "energy", "metrics", "kinds", "data", "models", "saved", "training", "inference")
ROOT = COMPONENTS.parent
PIPELINES = ROOT / "pipelines"
FILES = sorted([*COMPONENTS.rglob("*.py"), *PIPELINES.rglob("*.py")])
PLAIN = {"str": str, "int": int, "float": float, "bool": bool}


def names(path: Path) -> str:
    return str(path.relative_to(COMPONENTS))


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{names(path)}: a relative import hides where it points"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module(path: Path) -> str:
    """Return the name by which a file is imported."""
    parts = path.relative_to(COMPONENTS if path.is_relative_to(COMPONENTS) else ROOT).with_suffix("").parts
    return ".".join(["kfp_bonsai", *parts]).removesuffix(".__init__")


def stage_function(stage: str):
    module, _, name = STAGES[stage].partition(":")
    return getattr(import_module(module), name)


def is_output(parameter: inspect.Parameter) -> bool:
    """Return whether a component's parameter is an artifact that it makes."""
    return OutputAnnotation in getattr(parameter.annotation, "__metadata__", ())


def test_every_folder_of_a_stage_is_a_command():
    """A stage that the command line does not know."""
    folders = {path.parent.name for path in COMPONENTS.glob("*/component.py")}
    assert folders == set(FOLDERS)


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_nothing_below_a_component_imports_kfp(path):
    """A stage that cannot run where KFP is not installed."""
    assert not [name for name in imported(path) if name.split(".")[0] in ("kfp", "kfp_kubernetes")]


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_imports_point_one_way(path):
    """A stage that imports another stage, a command or a pipeline, or a shared module that imports a stage."""
    own = path.relative_to(COMPONENTS).parts[0].removesuffix(".py")
    if own == "cli":
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "kfp_bonsai" or len(parts) == 1:
            continue
        assert parts[1] != "pipelines", f"{names(path)} imports {name}"
        assert parts[1] not in (*FOLDERS, *TOPS) or parts[1] == own, f"{names(path)} imports {name}"


def test_no_room_holds_more_than_a_fifth():
    """A room for everything, in which nobody finds anything."""
    lines = {
        room: sum(len(path.read_text().splitlines()) for path in (COMPONENTS / "shared" / room).glob("*.py"))
        for room in ROOMS
    }
    assert max(lines.values()) < sum(lines.values()) / 5, lines


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_before_it(room):
    """A change of models that moves how rows are read, as both know each other."""
    later = ROOMS[ROOMS.index(room) + 1 :]
    for path in sorted((COMPONENTS / "shared" / room).glob("*.py")):
        wrong = [name for name in imported(path) if name.startswith(tuple(f"kfp_bonsai.shared.{one}" for one in later))]
        assert not wrong, f"{names(path)} imports {wrong}"


def test_every_shared_module_has_a_room():
    """A leaf beside the rooms, of which nobody knows what it may import."""
    shared = COMPONENTS / "shared"
    assert {path.parent.name for path in shared.rglob("*.py") if path.parent != shared} == set(ROOMS)
    assert [path.name for path in shared.glob("*.py")] == ["__init__.py"]


def test_no_module_imports_itself_through_others():
    """Two files that import each other are one file in two places."""
    known = {module(path): imported(path) for path in FILES}
    graph = {name: {one for one in found if one in known and one != name} for name, found in known.items()}
    while leaves := [name for name, found in graph.items() if not found & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph


@pytest.mark.parametrize(
    ("room", "unknown"), [("", ("local", "cluster")), ("local", ("cluster",)), ("cluster", ("local",))]
)
def test_a_pipeline_does_not_know_where_it_runs(room, unknown):
    """A definition that knows the cluster's form, or a run here that asks how a cluster places tasks."""
    for path in sorted((PIPELINES / room).glob("*.py")):
        wrong = [name for name in imported(path) for one in unknown if name.startswith(f"kfp_bonsai.pipelines.{one}")]
        assert not wrong, f"{path.name} imports {wrong}"


def test_placing_knows_no_form():
    """A change of what a person is asked that moves where a task runs."""
    assert not [name for name in imported(PIPELINES / "cluster" / "placing.py") if re.search(r"\bform\b", name)]


def test_a_files_name_says_what_it_is():
    """Two files of one name that mean different things."""
    found = [path.name for path in FILES if path.name not in ("__init__.py", "component.py")]
    assert sorted(found) == sorted(set(found))


def test_the_map_has_every_module_once():
    """A newcomer who looks for where a change belongs, and a module that nobody can find."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The map")[2].partition("\n## ")[0]
    parts = re.split(r"^### `(.+?)/`", text, flags=re.MULTILINE)[1:]
    told = [f"{folder}/{name}" for folder, part in zip(parts[::2], parts[1::2], strict=True) for name in _modules(part)]
    there = [str(path.relative_to(ROOT)) for path in FILES if path.name not in ("__init__.py", "component.py")]
    assert sorted(name for name in told if not name.startswith("tests/")) == sorted(there)


def _modules(part: str) -> list[str]:
    return re.findall(r"`([\w/]+\.py)`", part)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_stage_names_a_family(folder):
    """A stage that works for the models it knows by name only."""
    families = {name.lower() for name in FAMILIES} | {name.lower().partition("-")[0] for name in FAMILIES}
    for path in sorted((COMPONENTS / folder).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        for node in [each for each in ast.walk(tree) if isinstance(each, documented) and ast.get_docstring(each)]:
            node.body[0] = ast.Pass()  # a docstring may cite a paper or show an example
        words = set(re.findall(r"[a-z0-9]+", ast.unparse(tree).lower()))
        assert not words & families, f"{folder}/{path.name} names {sorted(words & families)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_asks_for_a_kind_of_task_by_name(path):
    """What works for the kinds it knows by name only: what differs is asked of the kind."""
    if path.parent == COMPONENTS / "shared" / "kinds":
        return
    asked = imported(path) & {kind.targets.__module__ for kind in KINDS.values()}
    hubs = {name for kind in KINDS.values() for name in kind.hub}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        of_kinds = isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("KINDS")
        constants = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
        if of_kinds or isinstance(node, ast.Compare | ast.match_case):
            asked |= constants & KINDS.keys()
        if isinstance(node, ast.Dict):
            keys = {each.value for each in node.keys if isinstance(each, ast.Constant)}
            asked |= keys & (hubs | KINDS.keys() - {"tokens"})  # a key of much else, too
    assert not asked, f"{path.relative_to(ROOT)} asks for {sorted(asked)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_stage_explains_itself(folder):
    """A folder that cannot be read alone, or a metadata.yaml that says something else."""
    assert (COMPONENTS / folder / "README.md").stat().st_size > 200
    metadata = yaml.safe_load((COMPONENTS / folder / "metadata.yaml").read_text(encoding="utf-8"))
    assert metadata["name"] == folder.replace("_", "-")
    assert metadata["stability"] in ("alpha", "beta", "stable")
    assert metadata["dependencies"]["kubeflow"][0] == {"name": "Pipelines", "version": ">=2.17"}
    assert metadata["description"] and metadata["tags"] and metadata["lastVerified"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_component_has_the_options_of_its_stage(stage):
    """An option that exists on the command line and not on a cluster, or with another default."""
    folder = stage.replace("-", "_")
    component = getattr(import_module(f"kfp_bonsai.{folder}.component"), folder).python_func
    own = inspect.signature(component).parameters
    wanted = dict(inspect.signature(stage_function(stage)).parameters)
    extra = set(own) - set(wanted) - {"metrics", "classification", "fingerprint"}
    if "output" in wanted:  # what Kubeflow's graph shows is named for what it is
        assert len(extra) == 1 and is_output(own[min(extra)]), f"{folder}/component.py: {sorted(extra)} for output"
        del wanted["output"], extra
    else:
        assert not extra, f"{folder}/component.py has {sorted(extra)}, which the stage has not"
    for name, parameter in wanted.items():
        assert name in own, f"{folder}/component.py lacks {name}"
        if own[name].annotation not in PLAIN.values():
            continue  # an artifact: where it lies is KFP's business
        assert own[name].annotation is parameter.annotation, f"{folder}/component.py: type of {name}"
        assert own[name].default == parameter.default, f"{folder}/component.py: default of {name}"


@pytest.mark.parametrize("path", signatures.COMPONENTS, ids=names)
def test_a_component_declares_nothing_by_itself(path):
    """An option that was changed where it is declared, and not where KFP reads it: `make format` writes it there."""
    text = path.read_text(encoding="utf-8")
    assert signatures.filled_in(text) == text


def test_an_option_that_a_stage_gains_is_written_into_its_component():
    """A new option for which each component is to be edited by hand, or one that differs on purpose and is undone."""
    path = COMPONENTS / "evaluate_emissions" / "component.py"
    text = path.read_text(encoding="utf-8")
    assert text.count("    pairs: int = 10,\n") == 4 and text.count('    device: str = "cpu",  # ') == 2
    without = text.replace("    pairs: int = 10,\n", "").replace("traffic: int = 0", "traffic: float = 1")
    assert without != text and signatures.filled_in(without) == text


@pytest.mark.parametrize("stage", STAGES)
def test_every_option_of_a_stage_is_of_a_plain_type(stage):
    """A parameter that neither the command line nor KFP can be derived from."""
    plain = {str, int, float, bool, Path, list[str], list[float], list[Path]}
    for name, parameter in inspect.signature(stage_function(stage)).parameters.items():
        assert parameter.annotation in plain, f"{stage}: {name}: {parameter.annotation}"
        assert parameter.default is not None, f"{stage}: {name}: None is no default, use '', 0 or -1"


def test_no_two_stages_share_an_option_of_a_pipeline_by_accident():
    """An option that a stage gains under a name that another one has: one value would then serve both."""
    from kfp_bonsai.pipelines import options

    stages = (
        "PREPARING",
        "TUNING",
        "TEACHING",
        "MEASURING",
        "QUANTIZING",
        "TARGET",
        "PACKING",
        "DRIFTING",
        "PROMOTING",
    )
    asked = [name for each in stages for name in getattr(options, each)]
    meant = {"margin", "max_emission"}  # what may be lost and emitted, of drift, target and promotion
    assert {name for name in asked if asked.count(name) > 1} == meant


def test_the_pipeline_has_the_defaults_of_its_stages():
    """A pipeline that does something else than its stages do by themselves."""
    from kfp_bonsai.pipelines.compress import compress_pipeline

    inputs = compress_pipeline().pipeline_spec.root.input_definitions.parameters
    sources = ("prepare-data", "fine-tune", "teacher-outputs", "evaluate-emissions", "select-model")
    for stage in sources:
        for name, parameter in inspect.signature(stage_function(stage)).parameters.items():
            if name not in inputs or parameter.default is inspect.Parameter.empty or name == "batch_size":
                continue
            value = inputs[name].default_value
            assert getattr(value, value.WhichOneof("kind")) == parameter.default, f"compress: {name} of {stage}"


@pytest.mark.parametrize(
    ("first", "pipeline"),
    [("check_inputs", "compress"), ("check_retraining", "retrain"), ("check_search", "search")],
)
def test_the_first_task_gives_every_argument_its_value(first, pipeline):
    """An argument that is read from the form, checked, and never heeded."""
    from kfp_bonsai.pipelines.cluster import first as tasks
    from kfp_bonsai.pipelines.cluster.form import FORMS
    from kfp_bonsai.pipelines.options import FINGERPRINTS, arguments

    function = getattr(tasks, first).python_func
    kinds = {name: one.annotation for name, one in arguments(pipeline).items()}
    prints = FINGERPRINTS[pipeline]
    assert inspect.signature(function).return_annotation.__annotations__ == kinds | dict.fromkeys(prints, str)
    asked = {name: one.annotation for name, one in inspect.signature(function).parameters.items()}
    fields = {name: kinds.get(name, dict) for name in FORMS[pipeline]}
    assert asked == fields | {"fixed": dict}


def _reads_json(node: ast.AST) -> bool:
    names = [f"{one.func.value.id}.{one.func.attr}" for one in ast.walk(node) if _is_call_of_module(one)]
    return bool({"json.loads", "json.load"} & {*names})


def _is_call_of_module(node: ast.AST) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_json_that_is_too_deep_is_damage_too(path):
    """A file of 100,000 brackets is a traceback, where every other damage is told in words."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        caught: list[str] = []
        if isinstance(node, ast.Try) and any(map(_reads_json, node.body)):
            caught = [ast.unparse(handler.type) for handler in node.handlers if handler.type]
        elif isinstance(node, ast.With) and any(map(_reads_json, node.body)):
            caught = [text for one in node.items if (text := ast.unparse(one.context_expr)).startswith("suppress(")]
        if any("ValueError" in one for one in caught):
            assert any("RecursionError" in one for one in caught), f"line {node.lineno}: catch RecursionError too"
