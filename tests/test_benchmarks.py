"""The benchmarks' own code, where a mistake would make a table wrong; they are run by hand."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if "argparse" in path.read_text())
EACH = """
import os, runpy, sys, traceback
import torch, transformers
from kfp_bonsai.distill import distill
from kfp_bonsai.evaluate_emissions import evaluate
from kfp_bonsai.fine_tune import train
from kfp_bonsai.layer_remove import remove
from kfp_bonsai.matrix_prune import prune
from kfp_bonsai.prepare_data import prepare
from kfp_bonsai.quantize import quantize
from kfp_bonsai.shared.data import floor
from kfp_bonsai.teacher_outputs import outputs

folder, benchmarks, *scripts = sys.argv[1:]
sys.path[0] = benchmarks
for script in scripts:
    if not os.fork():
        status, sys.stdout = 1, open(f"{folder}/{script}.txt", "w")
        sys.argv = [f"{benchmarks}/{script}", "--help"]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            status = ended.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)
    if os.wait()[1]:
        os.unlink(f"{folder}/{script}.txt")
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What each script says of itself, run by itself: as a fork of a process that has imported what most of them do."""
    folder = tmp_path_factory.mktemp("shown")
    ended = subprocess.run(
        [sys.executable, "-c", EACH, folder, BENCHMARKS, *SCRIPTS], capture_output=True, text=True, check=True
    )
    return {path.stem: path.read_text() for path in folder.iterdir()}, ended.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_its_options_can_be_listed(script, shown):
    """One that fails at its import, found by whoever wants to check a figure."""
    said, errors = shown
    assert script in said and "--json" in said[script], errors


def test_all_logits_are_learnt_by_the_divergence_of_all_tokens(monkeypatch):
    """Likely tokens compared with likely tokens, and nothing lost between them."""
    import numpy as np
    import top_k
    import torch
    from torch.nn import functional
    from transformers import GPT2Config, GPT2LMHeadModel

    from kfp_bonsai.shared.training import answer_batches, soft_answers

    torch.manual_seed(0)
    sizes = {"vocab_size": 90, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    teacher, student = (GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=1.0)).eval() for _ in range(2))
    monkeypatch.setattr(top_k.checkpoint, "load", lambda _: (teacher, None))
    monkeypatch.setattr(top_k, "bf16_is_faster", lambda: False)
    items = [{"input_ids": np.array([5, 6, 7, 8]), "labels": np.array([7, 8])}]
    with top_k.all_logits(Path()), torch.no_grad():
        batch = soft_answers.collate(items, 0)
        logits, wanted = (answer_batches.run(one, batch).logits for one in (student, teacher))
        found = soft_answers.divergence(logits, batch["teacher_logits"], 1.0)
    both = [functional.log_softmax(one, -1) for one in (logits, wanted)]
    torch.testing.assert_close(found, functional.kl_div(*both, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_where_time_goes_is_what_a_runtime_counts(tmp_path, runtime):
    """A table in which a softmax is a sum, or that leaves out what most of the time goes into."""
    import edge_parts
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    given, shape = [256, 4096], [256, 256]
    wide = onnx.numpy_helper.from_array(np.random.default_rng(0).random(given[::-1], np.float32), "weight")
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"]), helper.make_node("Softmax", ["y"], ["z"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, one) for name, one in (("x", given), ("z", shape))]
    graph = helper.make_graph(nodes, "made", ends[:1], ends[1:], [wide])
    file = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    found = edge_parts.shares(runtime, file, 1, {"x": np.ones(given, np.float32)}, 3)
    assert found["matrix products"] > found["attention, softmax"] > 0 and found["norms"] == found["activations"] == 0
    assert sum(found.values()) == pytest.approx(1)


def test_the_papers_study_makes_what_was_published_of_it():
    """A table whose command makes other levels, as the script has gone on since."""
    import paper_study

    cells = json.loads((BENCHMARKS / "results" / "paper.json").read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        asked = paper_study.DATA[cell["data_name"]]
        given = [f"--level={level}" for level in asked.get("levels", paper_study.LEVELS)]
        given += [f"--{name}={value}" for name, value in asked.items() if name not in ("levels", "group")]
        assert {*given} <= {*cell["flags"]}, cell["name"]
    assert len(cells) > 1


def test_every_ablation_has_outputs_of_its_own(tmp_path, monkeypatch):
    """Two ingredients that share a transfer set, so that one of them is measured twice."""
    import quality

    monkeypatch.setattr(quality, "made", lambda folder, _: folder)
    room = quality.Room(tmp_path, {"train": tmp_path, "unlabelled": tmp_path}, tmp_path, 0, 1)
    wanted = [change.outputs for change in quality.ABLATIONS.values()]
    folders = {room.outputs(**each).name for each in wanted}
    assert len(folders) == len({str(each) for each in wanted}) > 3


def test_figures_of_other_data_are_refused(tmp_path):
    """A table of yesterday's rows, under today's file."""
    import quality

    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n")
    given = {"data": str(file), "unlabelled": None, "test_rows": 9, "validation_rows": 500, "max_rows": 0}
    before = quality.asked(SimpleNamespace(**given, baseline_epochs=4, shorter=1))
    file.write_text("text,label\na,b\n")
    assert quality.asked(SimpleNamespace(**given, baseline_epochs=4, shorter=1)) != before
