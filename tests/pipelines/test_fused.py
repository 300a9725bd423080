"""A level in one task: the same models, records and metrics as by three."""

from types import SimpleNamespace

import pytest

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.pipelines.fused import compress_level
from kfp_bonsai.shared.saved.records import read_record

MADE = ("shorter_model", "pruned_model", "distilled_model")


def artifact(path):
    """What KFP's executor gives a component for an artifact."""
    logged = {}
    return SimpleNamespace(path=str(path), metadata={}, logged=logged, log_metric=logged.__setitem__)


@pytest.mark.parametrize("flops", [0.4, 1.0], ids=["pruned", "whole"])
def test_one_task_makes_what_three_make(made, tmp_path, flops):
    """A search whose trials are other models than those of the pipeline that it is for."""
    short, pruned, done = (tmp_path / name for name in MADE)
    layer_remove(made.baseline, made.validation, short, keep="2", level="small")
    matrix_prune(short, made.transfer, pruned, flops=flops, steps=4)
    asked = distill(pruned, made.transfer, made.validation, done, epochs=1, learning_rate=3e-3)

    outputs = {name: artifact(tmp_path / "fused" / name) for name in MADE}
    (tmp_path / "fused").mkdir()
    inputs = {"model": made.baseline, "teacher_outputs": made.transfer, "validation": made.validation}
    metrics = artifact(tmp_path / "fused" / "metrics")
    options = {"keep": "2", "level": "small", "flops": flops, "steps": 4, "epochs": 1, "learning_rate": 3e-3}
    given = {name: artifact(path) for name, path in inputs.items()}
    compress_level.python_func(**given, **outputs, metrics=metrics, **options)
    for name in MADE:
        alone, fused = read_record(tmp_path / name), read_record(tmp_path / "fused" / name)
        assert (alone["sha256"], alone["level"], alone["stage"]) == (fused["sha256"], fused["level"], fused["stage"])
        steps = [[(entry["stage"], entry["arguments"]) for entry in each["lineage"]] for each in (alone, fused)]
        assert steps[0] == steps[1] and outputs[name].metadata
    assert metrics.logged["accuracy"] == asked["accuracy"] == outputs["distilled_model"].metadata["accuracy"]
