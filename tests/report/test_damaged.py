"""A file that is not as its stage wrote it is refused with its name and the entry, and nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import make
from made_measurement import made_measurement, made_selection, write

from kfp_bonsai.report.compare import compare
from kfp_bonsai.report.report import report
from kfp_bonsai.shared.core.errors import BonsaiError


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy with another value at a path such as models.1.level."""
    copy = json.loads(json.dumps(document))
    *most, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = copy
    for part in most:
        place = place[part]
    place[last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("models", {"a": 1}, "'models' is .*, not a list"),
        ("models.1", "gone", r"'models\[1\]' is \"gone\", not an object"),
        ("models.1.sha256", ["a"], r"'models\[1\].sha256' is .*, not text"),
        ("models.1.relative_emission", "0.1", r"'models\[1\].relative_emission' is \"0.1\", not a number above zero"),
        ("models.1.relative_emission_ci", [0.2, 0.1], r"not two numbers, the smaller first"),
        ("models.1.confusion", [[1, 2], [3]], "not a table of whole numbers"),
        ("models.1.confusion", [[1]], "confusion table of 1 classes for 2/3 layers, and its task has 2 labels"),
        ("models.1.pairs", [[1.0]], r"'models\[1\].pairs\[0\]' is \[1.0\], not a list of 2"),
        ("models.1.lineage", {"stage": "distill"}, r"'models\[1\].lineage' is .*, not a list"),
        ("control.ci", 1.0, "'control.ci' is 1.0, not two numbers"),
        ("control", [], r"'control' is \[\], not an object"),
        ("task.labels", "yes", "'task.labels' is \"yes\", not a list"),
        ("task", "reviews", "'task' is \"reviews\", not an object"),
        ("environment", 3, "'environment' is 3, not an object"),
    ],
)
def test_a_damaged_measurement_is_named_with_its_entry(tmp_path: Path, path: str, value: Any, said: str):
    """A traceback after hours of training, that says nothing of the file."""
    measurement = made_measurement()
    broken = write(tmp_path / "m.json", changed(measurement, path, value))
    selection = write(tmp_path / "s.json", made_selection(measurement))
    out = [tmp_path / name for name in ("r.html", "r.md", "r.json", "figures")]
    with pytest.raises(BonsaiError, match=rf"m\.json .*{said}"):
        report(broken, selection, *out)
    assert not any(one.exists() for one in out)


def test_damaged_selections_and_results_are_named_with_their_entry(tmp_path: Path):
    """The same of what select-model and report write, for those who read it."""
    measurement = made_measurement()
    folder = make(tmp_path / "run", measurement, made_selection(measurement)).folder
    for at, (path, value, said) in enumerate(
        [
            ("chosen", "the third", "'chosen' is \"the third\", not an object"),
            ("target.min_accuracy", "95 %", "'target.min_accuracy' is .*, not a number"),
            ("reason", 3, "'reason' is 3, not text"),
        ]
    ):
        broken = write(tmp_path / "s.json", changed(made_selection(measurement), path, value))
        out = [tmp_path / str(at) / name for name in ("r.html", "r.md", "r.json", "figures")]
        with pytest.raises(BonsaiError, match=rf"s\.json is not as `bonsai select-model` wrote it.*{said}"):
            report(write(tmp_path / "m.json", measurement), broken, *out)
    results = json.loads((folder / "results.json").read_text())
    for path, value, said in (
        ("rows.1.relative_accuracy", [0.9], r"'rows\[1\].relative_accuracy' is \[0.9\], not a number"),
        ("energy", "none", "'energy' is \"none\", not an object"),
        ("control", 1, "'control' is 1, not text"),
    ):
        broken = write(tmp_path / "results.json", changed(results, path, value))
        with pytest.raises(BonsaiError, match=rf"results\.json is not as `bonsai run` wrote it.*{said}"):
            compare([folder, broken], tmp_path / "out")
