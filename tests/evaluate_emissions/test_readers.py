"""A ready-made model beside the baseline runs the same rows, in tokens of its own."""

import json

import numpy as np
import pytest
from rivals import WORDS, letters, ready

from kfp_bonsai.evaluate_emissions import given, readers
from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.inference.asking import predictions
from kfp_bonsai.shared.models.flops import Flops
from kfp_bonsai.shared.saved.records import read_record, write_record

QUICK = {"pairs": 2, "block_seconds": 0.3, "time_budget": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def rivals(made, tmp_path_factory):
    """A level, and ready-made models: with the baseline's tokens, with other ones, and with letters, as int8 too."""
    folder = tmp_path_factory.mktemp("rivals")
    models = {"alike": ready(folder / "a"), "other": ready(folder / "o", WORDS[::-1]), "letters": letters(folder / "l")}
    layer_remove(made.baseline, made.validation, folder / "level", keep="1/3")
    for name, model in models.items():
        layer_remove(made.baseline, made.validation, folder / name, student=str(model), level=name)
    quantize(folder / "letters", made.train, folder / "int8", calibration_rows=16)
    return folder


def test_each_model_answers_what_it_answers_by_itself(made, memory_too, rivals):
    """A rival that is given the baseline's tokens answers nonsense, and looks worse than it is."""
    names = ["level", "alike", "other", "letters", "int8"]
    folders = [rivals / name for name in names]
    evaluate_emissions(made.baseline, folders, made.train, made.test, rivals / "m.json", **QUICK)
    found = json.loads((rivals / "m.json").read_text())["models"]
    right = np.array(tasks.read_columns(made.test)["label"])
    task = tasks.read_task(made.test)
    for folder, row in zip([made.baseline, *folders], found, strict=True):
        said = predictions(folder, task, tasks.batches(made.test))
        assert not row["error"] and row["peak_memory_bytes"]
        assert row["accuracy"] == pytest.approx(float((said == right).mean()), abs=0.02 if folder.name == "int8" else 0)
    assert [row.get("student") for row in found] == [None, None, *(str(rivals / one) for one in "aoll")]
    base, mine = (Flops.from_record(read_record(one)) for one in (made.baseline, rivals / "letters"))
    assert found[4]["flops_ratio"] > found[3]["flops_ratio"] * 2  # letters are more tokens
    assert found[3]["flops"] == pytest.approx(found[2]["flops"], rel=0.05) and mine.at(9) < base.at(9)


def test_all_run_the_same_rows(made, rivals):
    """A batch of one model's shortest rows against another's longest."""
    folders = [made.baseline, rivals / "level", rivals / "other", rivals / "letters"]
    records = [read_record(folder) for folder in folders]
    different, numbers = readers.readers_of(folders, records, records[0]["max_length"])
    assert numbers == [0, 0, 1, 2] and [one[0].name for one in different] == ["baseline", "other", "letters"]
    task = tasks.read_task(made.test)
    rows = given.read_test_rows(different, task, made.test, 32, 0, 4, (1, 8), 0)
    for one in (*(each.batch for each in rows.batches), *rows.singles, *rows.sizes):
        counts = {len(readers.read_by(number, one)["input_ids"]) for number in range(3)}
        assert len(counts) == 1
        words, spelt = (readers.read_by(number, one)["attention_mask"].sum(1) for number in (1, 2))
        assert (words < spelt).all() and (readers.read_by(1, one)["attention_mask"] == one["attention_mask"]).all()
    assert rows.mean_lengths[0] == rows.mean_lengths[1] < rows.mean_lengths[2] / 2


def test_another_tokenizer_is_still_refused_where_nobody_asked_for_it(made, rivals, tmp_path):
    """A candidate of another baseline, measured on other tokens without a word."""
    record = read_record(rivals / "other")
    del record["student"]
    (tmp_path / "odd").symlink_to(rivals / "other")
    write_record(rivals / "other", record)
    with pytest.raises(BonsaiError, match="has another tokenizer than"):
        given.check_models([made.baseline, tmp_path / "odd"], tasks.read_task(made.test), made.test)
