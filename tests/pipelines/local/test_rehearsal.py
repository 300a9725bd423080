"""What is looked at before a study's cells are made: which models can do which task, really read and prepared."""

import json
from types import SimpleNamespace

import pytest
import rivals
import tiny

from kfp_bonsai.pipelines.cells import Entry, Study, cells_of
from kfp_bonsai.pipelines.local import study_run
from kfp_bonsai.pipelines.local.rehearsal import rehearse
from kfp_bonsai.pipelines.local.standing import Standing

HALF = "half:layers=1/2"


@pytest.fixture(scope="module")
def standings(tmp_path_factory):
    """How the cells of a study stand after the look, by model and data."""
    folder = tmp_path_factory.mktemp("rehearsed")
    tiny.reviews(folder / "classes.csv", 60, 1, ("bad", "good"))
    spoken = [text for text, _ in tiny.texts(60, 1)]
    rows = {
        "words": [{"words": one.split(), "tags": ["B-x", *["O"] * (len(one.split()) - 1)]} for one in spoken],
        "writing": [{"prompt": one, "completion": one.split()[0]} for one in spoken],
    }
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in found))
    models = [Entry(str(tiny.pretrained(folder / name, layers=2, family=name)), name) for name in ("bert", "t5")]
    rival = f"rival:model={rivals.letters(folder / 'letters')}"
    data = [Entry(str(one), one.stem) for one in sorted([folder / "classes.csv", *folder.glob("*.jsonl")])]
    of_rival = [Entry(one.place, f"{one.name}, rival", levels=[rival]) for one in data if one.name != "writing"]
    cells = cells_of(Study(models, [*data, *of_rival], levels=[HALF]), study_run.DEFAULTS)
    found = [Standing(cell) for cell in cells]
    study_run._look(found, SimpleNamespace(call=lambda where, **given: rehearse(**given)))
    return {(each.cell.model_name, each.cell.data_name): each for each in found}


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ("t5", "words", "answers in text (t5), which cannot be"),
        ("bert", "writing", "no bert model writes texts"),
        ("bert", "words, rival", "has another tokenizer than the baseline"),
        ("t5", "words, rival", "answers in text (t5), which cannot be"),
    ],
)
def test_a_model_that_cannot_do_the_task_is_refused_before_anything_runs(standings, model, data, said):
    """Hours of training for which the last stage has no head, or a rival that cannot be taught what is to be learnt."""
    each = standings[model, data]
    assert each.state == "refused" and said in each.error, each.error


@pytest.mark.parametrize(
    ("model", "data"),
    [("bert", "classes"), ("bert", "words"), ("t5", "classes"), ("t5", "writing"), ("bert", "classes, rival")],
)
def test_the_others_are_to_be_made(standings, model, data):
    """A study that ends with the one cell that cannot be; or a rival refused whose tokens matter to nobody."""
    each = standings[model, data]
    assert each.state == "waiting" and 20 < each.rows < 60, each.error
