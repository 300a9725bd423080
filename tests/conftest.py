"""What many tests start from, made once a run: data, a fine-tuned baseline and its outputs."""

import gc
import inspect
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


# Files that take longest, which begin first, so that no worker waits for another at the end.
LONGEST = (
    "test_families_in_stages.py",
    "test_run_of_writers.py",
    "test_compress.py",
    "test_study_run.py",
    "test_kinds_in_stages.py",
    "test_retrain.py",
    "test_families.py",
    "test_store.py",
    "test_onnx_export.py",
    "test_retrain_int8.py",
    "test_quantize.py",
    "test_search_pipeline.py",
    "test_compile.py",
    "test_lengths.py",
    "test_secrets.py",
    "test_resumable.py",
    "test_soft_answers.py",
    "test_evaluate.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; a file's tests stay together, in their order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="module", autouse=True)
def what_is_imported_is_no_garbage():
    """Leave what a file's tests begin with out of collections of garbage: each training makes some, through it all."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A folder with splits, a pretrained model, the baseline fine-tuned from it, and its transfer set."""
    import tiny

    from kfp_bonsai.fine_tune.train import fine_tune
    from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

    folder = tmp_path_factory.mktemp("made")
    data = tiny.splits(folder / "data")
    model = tiny.pretrained(folder / "pretrained")
    tuned = fine_tune(
        str(model), data["train"], data["validation"], folder / "baseline", epochs=6, learning_rate=3e-3, seed=1
    )
    outputs = teacher_outputs(
        folder / "baseline", data["train"], data["unlabelled"], folder / "transfer", augmentations=1
    )
    return SimpleNamespace(
        folder=folder,
        **data,
        pretrained=model,
        baseline=folder / "baseline",
        transfer=folder / "transfer",
        tuned=tuned,
        outputs=outputs,
    )


@pytest.fixture(scope="session", autouse=True)
def no_sources_of_frames():
    """Give KFP stacks without sources here too, 60 frames deep below pytest."""
    from kfp_bonsai.pipelines.lean_kfp import stack

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", stack)
        yield


@pytest.fixture(scope="session", autouse=True)
def yaml_is_read_by_libyaml():
    """Read YAML by PyYAML's C code where a test looks at it: Python's takes as long as the compilation of a pipeline.

    Ours has a loader of its own (yaml_file.py), and KFP writes by Python's.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "safe_load", lambda text: yaml.load(text, loader))
        patch.setattr(yaml, "safe_load_all", lambda text: yaml.load_all(text, loader))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_evidence_of_others(tmp_path_factory: pytest.TempPathFactory):
    """A cache folder of its own for evidence and orders of layers: tests heed none of this machine's, nor add to it."""
    from kfp_bonsai.layer_remove import kept_order
    from kfp_bonsai.shared.metrics import evidence

    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for module in (evidence, kept_order):
            patch.setattr(module, "cached", lambda name: folder / name)
        patch.setattr(kept_order, "alone", lambda _: nullcontext())  # whose locks are in the user's
        yield


@pytest.fixture(scope="module")
def memory_too():
    """Memory is measured as it is for users (see short_looks.py)."""
    import short_looks

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(short_looks.MEMORY, "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def short_looks_everywhere():
    """Short looks at speed here (short_looks.py), and in all processes that tests start (started/sitecustomize.py)."""
    import short_looks

    short_looks.shorten()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE / "started"), os.environ.get("PYTHONPATH")])))
        yield
