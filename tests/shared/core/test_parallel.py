"""Several processes, as torchrun starts them, give what one process gives at the same global batch."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
import tiny
import torch
from safetensors.torch import load_file

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.shared.core import parallel, ranks
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.training import trainer
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

TUNING = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 32, "seed": 1}
PRUNING = {"flops": 0.4, "steps": 20, "learning_rate": 1e-3, "batch_size": 32}
DISTILLING = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 32}


def stages(world: Path, to: Path) -> None:
    """Run the three stages that train, from the same inputs; torchrun runs this file.

    In float32: bfloat16 rounds the gradients of half a batch by more than what is looked for.
    """
    given = {name: world / "data" / f"{name}.parquet" for name in ("train", "validation")}
    with patch.object(trainer, "bf16_is_faster", return_value=False):
        fine_tune(str(world / "baseline"), given["train"], given["validation"], to / "tuned", **TUNING)
        matrix_prune(world / "baseline", world / "transfer", to / "pruned", **PRUNING)
        distill(world / "short", world / "transfer", given["validation"], to / "distilled", **DISTILLING)


@dataclass
class Counter:
    """A source of energy that always reads the same."""

    part: str
    label: str
    joules: float
    name: str = "made"

    def mark(self) -> None:
        """Note nothing."""

    def between(self, before: None, after: None) -> float:
        """Return the joules."""
        return self.joules


def energy_of_both(file: Path) -> None:
    """Measure nothing, by a source that each process has for itself and by one of the whole machine."""
    own, machines = Counter(energy.CPU, energy.ESTIMATED, 3.0), Counter(energy.GPU, energy.MEASURED, 10.0)
    with energy.track([own, machines]) as meter:
        pass
    if ranks.is_first():
        file.write_text(json.dumps({"cpu": meter.reading.cpu_joules, "gpu": meter.reading.gpu_joules}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model without dropout, whose random numbers differ from process to process, and what is made of it."""
    folder = tmp_path_factory.mktemp("world")
    data = tiny.splits(folder / "data")
    config = tiny.pretrained(folder / "model") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | dict.fromkeys(DROPOUTS, 0.0)))
    learnt = {"epochs": 3, "learning_rate": 3e-3, "seed": 1}  # else gradients are as small as their rounding
    fine_tune(str(folder / "model"), data["train"], data["validation"], folder / "baseline", **learnt)
    teacher_outputs(folder / "baseline", data["train"], data["unlabelled"], folder / "transfer", augmentations=0)
    layer_remove(folder / "baseline", data["validation"], folder / "short", keep="2/3")  # not the teacher: see above
    return folder


DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


@pytest.fixture(scope="module")
def both(world):
    """The stages' results in one process and in two, and what the two printed."""
    stages(world, world / "one")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [*run, str(world), str(world / "two")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return world / "one", world / "two", done.stdout


@pytest.mark.parametrize("stage", ["tuned", "pruned", "distilled"])
def test_two_processes_give_what_one_gives(both, world, stage):
    """Processes that train on each other's rows, weigh a short batch like a long one, or keep scores of their own."""
    one, two, _ = both
    assert read_record(two / stage)["shape"] == read_record(one / stage)["shape"]
    ours, theirs, start = (
        load_file(folder / "model.safetensors")
        for folder in (one / stage, two / stage, world / ("short" if stage == "distilled" else "baseline"))
    )
    assert distance(ours, theirs) < 0.01 * distance(ours, {name: start[name] for name in ours if stage != "pruned"})


def distance(one: dict, other: dict) -> float:
    """Return how far two models' weights are apart; with nothing to compare to, how far from zero."""
    apart = [weight - other.get(name, torch.zeros(())) for name, weight in one.items()]
    return float(torch.cat([each.flatten() for each in apart]).norm())


def test_only_one_process_talks_and_writes(both):
    """Every line twice in a pod's log, or scratch folders left behind."""
    _, two, printed = both
    assert printed.count("matrix-prune  step 20/20") == 1
    assert sorted(path.name for path in two.iterdir()) == ["distilled", "joules.json", "pruned", "tuned"]


def test_the_energy_is_that_of_all_processes_and_a_machines_counter_counts_once(both):
    """A cost of which half is missing, or in which the GPUs count once a process."""
    _, two, _ = both
    assert json.loads((two / "joules.json").read_text()) == {"cpu": 2 * 3.0, "gpu": 10.0}


def test_a_batch_that_cannot_be_shared_is_refused(world, tmp_path, monkeypatch):
    """A step of other rows than were asked for."""
    group = {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in group.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BonsaiError, match=r"--batch-size 32 is shared by 3 processes"):
        fine_tune(str(world / "model"), *(world / "data" / f"{n}.parquet" for n in ("train", "validation")), tmp_path)


@pytest.mark.parametrize(
    "left",
    [
        {"WORLD_SIZE": "4", "RANK": "2"},
        {"WORLD_SIZE": "4", "RANK": "2", "MASTER_ADDR": "elsewhere"},
        {"WORLD_SIZE": "8", "MASTER_ADDR": "elsewhere", "MASTER_PORT": "1"},
        {"LOCAL_RANK": "1"},
        {"RANK": "", "WORLD_SIZE": "many"},
        {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "PMI_SIZE": "4", "PMI_RANK": "3"},
        {"RANK": "7", "WORLD_SIZE": "4", "MASTER_ADDR": "elsewhere", "MASTER_PORT": "1"},
    ],
)
def test_what_a_scheduler_left_in_the_environment_makes_no_group(left, monkeypatch):
    """A training that waits for processes nobody started, or writes nothing, as it takes itself for another."""
    for name in (*parallel.SIZES, *parallel.PLACES, *ranks.MEETING):
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    assert (ranks.processes(), ranks.is_first(), ranks.is_first_here()) == (1, True, True)
    parallel.begin()
    assert not {*parallel.SIZES, *parallel.PLACES} & {*os.environ}, "accelerate reads them too"
    for name in left:  # which monkeypatch would put back otherwise
        os.environ.setdefault(name, "")


if __name__ == "__main__":
    stages(Path(sys.argv[1]), Path(sys.argv[2]))
    energy_of_both(Path(sys.argv[2]) / "joules.json")
    parallel.end()


def test_a_task_that_was_given_a_gpu_does_not_train_on_the_cpu(monkeypatch):
    """A driver that is too old: three attempts of a day each, on the few cores of a GPU's node."""
    from kfp_bonsai.shared.core.errors import BonsaiError
    from kfp_bonsai.shared.training import trainer

    monkeypatch.setattr(trainer.torch.cuda, "is_available", lambda: False)
    assert trainer.device() == "cpu"
    monkeypatch.setenv(parallel.NEEDS_GPU, "1")
    with pytest.raises(BonsaiError, match="given a GPU that torch does not see"):
        trainer.device()
