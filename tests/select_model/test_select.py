"""select-model: the right model, for the reason it states, and nothing half-written."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kfp_bonsai.select_model.select import select_edge_model, select_model
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.metrics.target import shortfall

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_measurement import lineage, made_measurement, sha, write


@pytest.fixture
def run(tmp_path: Path):
    """Return a function that selects among made candidates: (level, relative accuracy, relative emission)."""

    def call(figures: list[tuple[str, float | None, float | None]], error: str = "", **target: float) -> dict[str, Any]:
        measurement = made_measurement(levels=(), rows=50)
        folders = []
        for at, (level, accuracy, emission) in enumerate(figures):
            model = measurement["models"][0] | {
                "level": level,
                "stage": "compressed",
                "sha256": sha(f"{level}{at}"),
                "relative_accuracy": accuracy,
                "relative_emission": emission,
                "relative_emission_ci": emission and [emission - 0.02, emission + 0.02],
                "error": error if level == "broken" else "",
            }
            measurement["models"].append(model)
            folder = tmp_path / f"model-{at}"
            folder.mkdir()
            record = {"format": 1, "level": level, "sha256": model["sha256"], "lineage": lineage("1/3 layers", 5, 5)}
            write(folder / "bonsai.json", record)
            (folder / "model.safetensors").write_text(level)
            folders.append(folder)
        found = select_model(
            write(tmp_path / "m.json", measurement), folders, tmp_path / "out", tmp_path / "s.json", **target
        )
        return {
            "returned": found,
            "document": json.loads((tmp_path / "s.json").read_text()),
            "weights": (tmp_path / "out" / "model.safetensors").read_text(),
        }

    return call


def model_folder(path: Path, name: str, parent: str = "") -> Path:
    """Make a model's folder, its weights' hash made of its name."""
    path.mkdir()
    record = {"format": 1, "level": name, "sha256": sha(name), "lineage": lineage("1/3 layers", 5, 5)}
    write(path / "bonsai.json", record | {"parent": {"sha256": sha(parent)} if parent else None})
    (path / "model.bin").write_text(name)
    return path


def test_int8_figures_choose_where_int8_is_handed_over(tmp_path: Path):
    """A level that meets the target as float and loses it as int8, or the int8 form of another level."""
    measurement = made_measurement(levels=(), rows=50)
    for level, accuracy, emission in (("large", 0.99, 0.2), ("small", 0.93, 0.05)):
        row = {"level": level, "stage": "quantized", "sha256": sha(f"{level}8"), "error": ""}
        measured = {"relative_accuracy": accuracy, "relative_emission": emission, "relative_emission_ci": None}
        measurement["models"].append(measurement["models"][0] | row | measured)
    floats = [model_folder(tmp_path / name, name) for name in ("small", "large")]
    quantized = [model_folder(tmp_path / f"{name}8", f"{name}8", parent=name) for name in ("large", "small")]
    path = write(tmp_path / "m.json", measurement)
    out, out8 = tmp_path / "out", tmp_path / "out8"
    found = select_edge_model(path, floats, quantized, out, out8, tmp_path / "s.json")
    assert found["level"] == "large"
    assert [(folder / "model.bin").read_text() for folder in (out, out8)] == ["large", "large8"]
    assert json.loads((tmp_path / "s.json").read_text())["chosen"]["sha256"] == sha("large8")

    stranger = model_folder(tmp_path / "other", "other8", parent="another")
    with pytest.raises(BonsaiError, match="made of none of the candidates"):
        select_edge_model(path, floats, [*quantized, stranger], tmp_path / "o", tmp_path / "p", tmp_path / "t.json")
    assert not (tmp_path / "o").exists() and not (tmp_path / "p").exists()


LEVELS: list[tuple[str, float | None, float | None]] = [
    ("large", 0.995, 0.68),
    ("middle", 0.98, 0.35),
    ("small", 0.96, 0.1),
]


@pytest.mark.parametrize(
    ("target", "chosen", "meets"),
    [
        ({"min_accuracy": 0.97}, "middle", True),
        ({"min_accuracy": 0.98}, "middle", True),
        ({"max_emission": 0.5}, "middle", True),
        ({"max_emission": 0.1}, "small", True),
        ({"min_accuracy": 0.95, "max_emission": 0.5}, "small", True),
        ({}, "small", True),
        ({"min_accuracy": 0.999}, "large", False),
        ({"max_emission": 0.05}, "small", False),
        ({"min_accuracy": 0.97, "max_emission": 0.3}, "small", False),
        ({"min_accuracy": 0.99, "max_emission": 0.3}, "small", False),
    ],
)
def test_the_target_decides(run, target: dict[str, float], chosen: str, meets: bool):
    """A wrong model would be handed over, or a missed target be called met."""
    found = run(LEVELS, **target)
    assert found["returned"]["level"] == found["weights"] == found["document"]["chosen"]["level"] == chosen
    assert found["returned"]["meets_target"] is found["document"]["meets_target"] is meets
    assert (found["document"]["nearest"] is None) is meets
    assert ("No model meets" in found["document"]["reason"]) is not meets


@pytest.mark.parametrize("rows", [500, 1000, 2000])
def test_a_share_that_is_met_exactly_is_met(rows: int):
    """360 of 400 right answers are a bit less than 0.9 in floating point, and a larger model is handed over."""
    exact = [(round(share * right), right, share) for share in (0.9, 0.95, 0.98) for right in range(1, rows + 1)]
    exact = [(mine, right, share) for mine, right, share in exact if mine == round(share * right, 9)]
    assert len(exact) > 50
    for mine, right, share in exact:
        assert shortfall((mine / rows) / (right / rows), 0.5, share, 0.5) == 0
        assert shortfall((mine - 1) / right, 0.5, share, 0.5) > 0


def test_no_target_is_said(run):
    """The user would not know that 95 % was our choice, not theirs."""
    found = run(LEVELS)["document"]
    assert found["target"] == {"min_accuracy": 0.95, "max_emission": None}
    assert found["target_is_default"] and "default" in found["reason"] and "95 %" in found["reason"]


def test_reason_names_the_second_best_in_one_sentence(run):
    """The reason would not let a reader weigh the choice."""
    reason = run(LEVELS, min_accuracy=0.95)["document"]["reason"]
    assert reason.startswith("small (96 % of the accuracy at 10 % of the emission)") and "before middle" in reason
    assert reason.endswith(".") and ". " not in reason


def test_overlapping_intervals_are_said(run):
    """A difference within the noise would look like a real one."""
    reason = run([("a", 0.97, 0.30), ("b", 0.98, 0.31)], min_accuracy=0.95)["document"]["reason"]
    assert reason.startswith("a ") and "intervals overlap" in reason


def test_equal_emission_goes_to_the_better_accuracy(run):
    """A tie would be broken against the user's interest, or by chance."""
    assert run([("worse", 0.96, 0.3), ("better", 0.97, 0.3)], min_accuracy=0.95)["weights"] == "better"


def test_equal_in_all_goes_to_the_first(run):
    """The same run would choose differently from time to time."""
    assert run([("one", 0.96, 0.3), ("two", 0.96, 0.3)], min_accuracy=0.95)["returned"]["index"] == 0


def test_failed_and_unmeasured_candidates_are_never_chosen(run):
    """A model that crashed, or that has no emission, would be delivered."""
    found = run([("broken", 0.99, 0.01), ("unknown", 0.99, None), ("good", 0.9, 0.5)], error="out of memory")
    assert found["weights"] == "good"
    assert [bool(entry["why_not"]) for entry in found["document"]["candidates"]] == [True, True, False]


def test_all_failed_is_an_error_and_leaves_nothing(run, tmp_path: Path):
    """A run in which nothing works would look like a success."""
    with pytest.raises(BonsaiError, match="out of memory"):
        run([("broken", 0.99, 0.01)], error="out of memory")
    assert not (tmp_path / "out").exists() and not (tmp_path / "s.json").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"min_accuracy": 98}, "--min-accuracy is 98: .*0.98 for 98 %"),
        ({"min_accuracy": -0.1}, "--min-accuracy"),
        ({"max_emission": -1}, "--max-emission"),
        ({"max_emission": 20}, "0.2 for 20 %"),
        ({"min_accuracy": float("nan")}, "--min-accuracy"),
    ],
)
def test_targets_that_are_no_fractions(run, target: dict[str, float], words: str):
    """A percentage taken for a fraction would quietly never be met."""
    with pytest.raises(BonsaiError, match=words):
        run(LEVELS, **target)


def test_a_folder_that_was_not_measured(run, tmp_path: Path):
    """Another model's figures would be put on this one."""
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    write(stranger / "bonsai.json", {"sha256": "f" * 64, "level": "x", "lineage": []})
    measurement = write(tmp_path / "n.json", made_measurement(rows=50))
    with pytest.raises(BonsaiError, match=r"stranger \(weights ffffffffffff\) is not in .*n.json"):
        select_model(measurement, [stranger], tmp_path / "o", tmp_path / "t.json")
    with pytest.raises(BonsaiError, match=r"no file at .*none\.json: make it with `bonsai evaluate-emissions`"):
        select_model(tmp_path / "none.json", [stranger], tmp_path / "o", tmp_path / "t.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BonsaiError, match=r"broken\.json is not JSON, or is cut off"):
        select_model(tmp_path / "broken.json", [stranger], tmp_path / "o", tmp_path / "t.json")
    with pytest.raises(BonsaiError, match="no model is given"):
        select_model(measurement, [], tmp_path / "o", tmp_path / "t.json")


def test_the_reason_names_what_was_measured(tmp_path, monkeypatch, run):
    """Else a regression is said to keep so much of an accuracy that it has not."""
    make = made_measurement
    monkeypatch.setattr(sys.modules[__name__], "made_measurement", lambda **options: as_regression(make(**options)))
    reason = run([("small", 0.96, 0.1)], min_accuracy=0.95)["document"]["reason"]
    assert "96 % of the Pearson correlation" in reason and "accuracy" not in reason


def as_regression(measurement: dict[str, Any]) -> dict[str, Any]:
    return {**measurement, "task": {**measurement["task"], "metric": "pearson"}}
