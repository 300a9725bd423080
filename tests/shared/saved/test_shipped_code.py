"""Free shapes whose folders carry their own code: what plain transformers makes of them, and what we do."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import models
import pytest
import tiny
import torch
from transformers.models.auto import modeling_auto as auto

from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models import heads, shapes, surgery
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.saved import checkpoint, pretrained
from kfp_bonsai.shared.saved.records import read_record, write_record
from kfp_bonsai.shared.saved.shipped_code import code_of, ship
from kfp_bonsai.shared.saved.weights import CODE_FILE, code_sha256

WITHOUT_US = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "kfp_bonsai":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocker())
"""
LOADS = (
    WITHOUT_US
    + """
import torch, transformers
for folder in sys.argv[1:]:
    wanted = torch.load(f"{folder}/wanted.pt", weights_only=False)
    load = getattr(transformers, wanted["auto"]).from_pretrained
    model, said = load(folder, trust_remote_code=True, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), (folder, said)
    with torch.no_grad():
        found = model.eval()(**wanted["batch"])
    for name, tensor in wanted["outputs"].items():
        assert torch.equal(found[name], tensor), (folder, name, (found[name] - tensor).abs().max())
    if wanted["written"] is not None:
        said = model.generate(**{name: wanted["batch"][name] for name in ("input_ids", "attention_mask")},
                              do_sample=False, max_new_tokens=5)
        assert torch.equal(said, wanted["written"]), folder
    model.save_pretrained(f"{folder}/again")
    print(folder)
"""
)
IDS = torch.tensor([[3, 10, 11, 12, 13, 4], [3, 20, 21, 4, 0, 0]])


def narrowed(name: str, auto_class: str):
    """A random model with a head, whose layers have fewer heads and neurons, each other ones."""
    model = models.made(name, getattr(auto, auto_class))
    shape = shapes.shape_of(model)
    kept = [
        {
            unit: torch.arange(max(1, count - (3 + number if unit == "ffn" else number % 2)))
            for unit, count in shape.units(layer).items()
            if count
        }
        for number, layer in enumerate(shape.layers)
    ]
    return surgery.cut(model, kept, free=True).float().eval()


def keep(model, folder: Path, auto_class: str) -> Path:
    """Save a model with its code, and what it answers with ours; return the folder."""
    model.save_pretrained(folder)
    ship(folder)
    batch = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}
    written = None
    if heads.writes(model):
        written = model.generate(**batch, do_sample=False, max_new_tokens=5)
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = IDS
    with torch.no_grad():
        outputs = {key: found for key, found in model(**batch).items() if isinstance(found, torch.Tensor)}
    torch.save({"auto": auto_class, "batch": batch, "outputs": outputs, "written": written}, folder / "wanted.pt")
    return folder


# Of each way in which free types are made: tables of biases parted by a hook, and by a layer of its own; Conv1D; bodies
# for which the class asks AutoModel. tests/opens takes every family with every head.
MADE = {
    "bert": "AutoModelForTokenClassification",
    "mpnet": "AutoModelForSequenceClassification",
    "gpt2": "AutoModelForCausalLM",
    "llama": "AutoModelForSequenceClassification",
    "t5": "AutoModelForSeq2SeqLM",
}


def test_it_loads_and_answers_in_plain_transformers(tmp_path):
    """A folder handed over with its code that does not load, or answers otherwise, without kfp-bonsai."""
    folders = [keep(narrowed(name, auto_class), tmp_path / name, auto_class) for name, auto_class in MADE.items()]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOADS, *map(str, folders)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stdout.split() == [str(folder) for folder in folders]
    for folder in folders:  # as a user of it saves it: whole again
        assert (folder / "again" / CODE_FILE).read_bytes() == (folder / CODE_FILE).read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_code_is_one_file_of_our_own(family):
    """Code that asks for kfp-bonsai after all, for a name that was left behind, or takes one for another's."""
    code = code_of(family)
    assert "kfp_bonsai" not in code
    tree = ast.parse(code)
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert sorted(defined) == sorted(set(defined)), "two of one name: the second would be called for the first"
    top = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    top |= {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
    assert {name.partition(".")[0] for name in top} <= {"torch", "transformers", *sys.stdlib_module_names}


def test_all_that_the_code_names_is_in_it(tmp_path):
    """A NameError in a branch that only some users reach."""
    for family in FAMILIES:
        (tmp_path / f"{family.replace('-', '_')}.py").write_text(code_of(family))
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", str(tmp_path)]
    found = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.fixture
def free(made, tmp_path) -> Path:
    """A pruned model that carries its code, as package-model makes it."""
    folder = tmp_path / "free"
    matrix_prune(made.baseline, made.transfer, folder, flops=0.4, steps=4)
    write_record(folder, {**read_record(folder), "code_sha256": ship(folder)})
    return folder


def test_our_own_loader_runs_none_of_it_and_passes_none_on(made, free, tmp_path):
    """A stranger's code that runs as we load a folder, or a pruned-again model that names code which it lacks."""
    expected = checkpoint.load(free)[0]
    trap = "raise SystemExit('run')\n"
    (free / CODE_FILE).write_text(trap)
    record = read_record(free)
    write_record(free, {**record, "code_sha256": code_sha256(free)})
    model, _tokenizer = checkpoint.load(free)
    assert type(model) is type(expected) and type(model).__module__.startswith("kfp_bonsai.")
    matrix_prune(free, made.transfer, tmp_path / "again", flops=0.3, steps=2)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert not config.get("auto_map") and not (tmp_path / "again" / CODE_FILE).exists()
    assert "code_sha256" not in read_record(tmp_path / "again")
    checkpoint.load(tmp_path / "again")
    assert pretrained.read(free).config.model_type == "bonsai-bert"


def append(folder: Path) -> None:
    with (folder / CODE_FILE).open("a") as file:
        file.write("import os\n")


CHANGED = {
    "a line more": (append, "modeling_bonsai.py is not the code that bonsai.json speaks of"),
    "nothing left": (lambda folder: (folder / CODE_FILE).unlink(), "changed, added or lost"),
    "another file": (
        lambda folder: (folder / "config.json").write_text(
            (folder / "config.json").read_text().replace("modeling_bonsai.Bonsai", "other.Bonsai")
        ),
        "config.json has an auto_map: the model comes with code of its own, which is never run here",
    ),
    "of the hub": (
        lambda folder: (folder / "config.json").write_text(
            (folder / "config.json").read_text().replace("modeling_bonsai.Bonsai", "them/code--modeling_bonsai.Bonsai")
        ),
        "never run here",
    ),
    "not spoken of": (
        lambda folder: write_record(
            folder, {key: value for key, value in read_record(folder).items() if key != "code_sha256"}
        ),
        "is not the code that bonsai.json speaks of",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_code_that_was_tampered_with_is_refused(free, case):
    """Code that whoever gets the package runs, and nobody of us has written."""
    change, message = CHANGED[case]
    change(free)
    with pytest.raises(BonsaiError, match=message):
        checkpoint.load(free)


def test_code_for_a_stock_type_is_refused(tmp_path):
    """A plain model whose config.json names our file, which somebody else wrote."""
    folder = tiny.pretrained(tmp_path / "stock")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling_bonsai.Mine"}}))
    with pytest.raises(BonsaiError, match="never run here"):
        pretrained.read(folder)
