"""`bonsai study` on one's own machine: what it makes, goes on with, contains and refuses."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from kfp_bonsai.pipelines.local import study_run
from kfp_bonsai.pipelines.local.folder import run_folder
from kfp_bonsai.pipelines.local.run import run
from kfp_bonsai.pipelines.local.study_folder import study_folder
from kfp_bonsai.shared.core.cache import CACHE_VARIABLE
from kfp_bonsai.shared.core.errors import BonsaiError, PassingError

ROW = {"stage": "compressed", "measurement": "main", "relative_accuracy": 0.97, "relative_emission": 0.34}
RESULTS = {"task": {"name": "made", "metric": "accuracy"}, "cost": {"seconds": 4, "joules": 40.0}}
RESULTS |= {"rows": [{"level": "half", **ROW}]}


class World:
    """What stands for runs, and for the process that looks at models and draws the page: nothing is trained.

    Attributes:
        made: the folders' names of the cells that were run.
        looked: models and data that were looked at.
        drawn: how often the page was made.
        refused: what is said of models and data that cannot be had.
        fails: why a cell fails; an exception is raised, the cell left as an interrupted run leaves it.
        rows: training rows by data.
        away: data that cannot be had any more.
    """

    def __init__(self):
        self.made, self.looked, self.drawn = [], [], 0
        self.refused, self.fails, self.rows, self.page, self.away = {}, {}, {}, None, ()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def call(self, function, **given):
        """Answer as the process apart does."""
        if function == study_run.DRAW:
            self.drawn += 1
            if self.page:
                raise self.page
            return None
        if function == study_run.SETTLE:
            return self.settle(given)
        self.looked.append((given["model"], given["data"]))
        for name in (given["model"], given["data"]):
            if name in self.refused:
                raise PassingError(self.refused[name])
        return self.rows.get(given["data"], 100)

    def settle(self, given):
        """Return what a run would be given, where the usual levels are of another number for each model."""
        if given["data"] in self.away:
            raise PassingError("the hub is away")
        return study_run.settled(**{**given, "level": given["level"] or [f"usual {given['model']}:layers=1/2"]})

    def run_cell(self, flags):
        """Leave behind what a run leaves."""
        options = dict(each.removeprefix("--").partition("=")[::2] for each in flags[1:])
        output = Path(options["output"])
        self.made.append(output.name)
        said = self.fails.get(output.name, "")
        given = study_run._given(self.cells[output.name])
        arguments, files = self.settle(given)
        if isinstance(said, str) and said:
            return said
        with run_folder(output, {**arguments, "files": files}, "overwrite" in options) as work:
            (work / "finished").mkdir(parents=True, exist_ok=True)
            (work / "finished" / "task.json").write_text("{}")
            if said:
                raise said
            (output / "results.json").write_text(json.dumps(RESULTS))
        return ""


@pytest.fixture
def world(monkeypatch):
    """The world, in the study's place of runs."""
    made = World()
    monkeypatch.setattr(study_run, "Apart", lambda: made)
    monkeypatch.setattr(study_run, "run_cell", made.run_cell)
    plan = study_run.cells_of

    def cells_of(*arguments):
        cells = plan(*arguments)
        made.cells = {cell.name: cell for cell in cells}
        return cells

    monkeypatch.setattr(study_run, "cells_of", cells_of)
    return made


def states(output: Path) -> dict[str, str]:
    """Return the state of each cell by study.json."""
    return {one["name"]: one["state"] for one in record(output)["cells"]}


def record(output: Path) -> dict:
    return json.loads((output / "study.json").read_text(encoding="utf-8"))


TWO = {"model": ["m"], "data": ["d", "e"]}


def test_a_study_makes_its_cells_and_tells_of_them(world, tmp_path, capsys):
    """A cell that is not made, a page that is not drawn until the end, or numbers that are nobody's."""
    found = study_run.study(output=tmp_path / "out", model=["m", "n"], data=["glue:rte"], seed=[0, 1], title="T")
    names = ["m-rte-0", "m-rte-1", "n-rte-0", "n-rte-1"]
    assert found == {"cells": 4} and world.made == names and world.drawn == 5
    assert world.looked == [("m", "glue:rte"), ("n", "glue:rte")], "seeds draw, and change nothing that is looked at"
    document = record(tmp_path / "out")
    assert document["format"] == 1 and document["title"] == "T" and document["finished"] >= document["started"] > ""
    first = document["cells"][0]
    assert {**first, "seconds": 0} == {
        "name": "m-rte-0",
        "model": "m",
        "model_name": "m",
        "data": "glue:rte",
        "data_name": "rte",
        "group": "GLUE, below 10,000 rows",
        "seed": 0,
        "flags": ["--model=m", "--data=glue:rte", "--seed=0"],
        "rows": 100,
        "state": "done",
        "error": "",
        "results": "m-rte-0/results.json",
        "seconds": 0,
        "joules": 40.0,
    }
    lines = capsys.readouterr().out.splitlines()
    for told in (
        r"study  \[2/4\] m on rte, seed 1 · about \d+s left for all",
        r"study  m-rte-0 done in \d+s: half keeps 97.0% at 34.0% of the emission",
    ):
        assert any(re.fullmatch(told, line) for line in lines), told


def test_what_cannot_be_had_is_refused_before_anything_runs_and_the_others_run(world, tmp_path, capsys):
    """Hours, and then a typing error; or one typing error for which nothing runs."""
    world.refused = {"n": "no such model", "e": "the hub is away"}
    with pytest.raises(BonsaiError) as error:
        study_run.study(output=tmp_path / "out", model=["m", "n"], data=["d", "e"])
    assert world.made == ["m-d-0"]
    assert str(error.value).splitlines() == [
        "1 of 4 cells done, these are not:",
        "  m-e-0  refused  the hub is away",
        "  n-d-0  refused  no such model",
        "  n-e-0  refused  no such model",
    ]
    told = capsys.readouterr().out
    assert told.index("study  n-d-0 refused: no such model") < told.index("[1/1]")
    assert states(tmp_path / "out") == {"m-d-0": "done", "m-e-0": "refused", "n-d-0": "refused", "n-e-0": "refused"}


def test_a_study_of_which_nothing_can_be_made_leaves_nothing(world, tmp_path):
    """A folder that refuses the corrected command."""
    world.refused = {"m": "no such model"}
    with pytest.raises(BonsaiError, match="0 of 1 cell done"):
        study_run.study(output=tmp_path / "out", model=["m"], data=["d"])
    assert not (tmp_path / "out").exists()


def test_a_cell_that_fails_is_tried_again_and_the_finished_ones_are_not(world, tmp_path):
    """A night's cells lost to one of them, or made again."""
    world.fails = {"m-d-0": "distill: memory ran out"}
    with pytest.raises(BonsaiError, match="m-d-0  failed   distill: memory ran out"):
        study_run.study(output=tmp_path / "out", **TWO)
    assert world.made == ["m-d-0", "m-e-0"] and states(tmp_path / "out") == {"m-d-0": "failed", "m-e-0": "done"}
    began = record(tmp_path / "out")["started"]
    world.made, world.looked, world.fails = [], [], {}
    study_run.study(output=tmp_path / "out", **TWO)
    assert world.made == ["m-d-0"] and world.looked == [("m", "d")]
    assert states(tmp_path / "out") == {"m-d-0": "done", "m-e-0": "done"}
    assert record(tmp_path / "out")["started"] == began
    world.made, world.drawn = [], 0
    study_run.study(output=tmp_path / "out", **TWO)
    assert world.made == [] and world.drawn == 1, "a finished study is drawn anew, and nothing else"


def test_an_interrupted_study_says_how_to_go_on_and_does(world, tmp_path, capsys):
    """Ctrl-C that starts the next cell, or after which all is to be made again."""
    world.fails = {"m-e-0": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        study_run.study(output=tmp_path / "out", model=["m"], data=["d", "e", "f"])
    assert "study  stopped with 1 of 3 cells done: start it again in the same way" in capsys.readouterr().out
    assert states(tmp_path / "out") == {"m-d-0": "done", "m-e-0": "waiting", "m-f-0": "waiting"}
    assert record(tmp_path / "out")["finished"] == ""
    world.made, world.fails = [], {}
    study_run.study(output=tmp_path / "out", model=["m"], data=["d", "e", "f"])
    assert world.made == ["m-e-0", "m-f-0"]


def test_a_cell_that_other_code_began_starts_over(world, tmp_path, capsys):
    """A study that never ends after an upgrade, as its interrupted cell refuses to go on."""
    world.fails = {"m-e-0": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        study_run.study(output=tmp_path / "out", **TWO)
    path = tmp_path / "out" / "m-e-0" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "other"}))
    world.fails = {}
    study_run.study(output=tmp_path / "out", **TWO)
    assert "m-e-0 was begun by other code of kfp-bonsai: it starts over" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": ["d"]}, "holds another study, which has m-e-0 too: give its arguments"),
        ({"seed": [1]}, "holds another study, which has m-d-0, m-e-0 too"),
        ({"epochs": 1.5}, r"m-d-0 holds a cell of another study \(it differs in --epochs\)"),
        ({"level": ["half:layers=1/2"]}, r"it differs in --level"),
        ({"edge": True}, r"it differs in --edge"),
    ],
)
def test_two_studies_in_one_folder_are_refused(world, tmp_path, change, said):
    """A page that mixes two studies; or finished cells that count for what they were not asked."""
    study_run.study(output=tmp_path / "out", **TWO)
    before, world.made = record(tmp_path / "out"), []
    with pytest.raises(BonsaiError, match=said):
        study_run.study(output=tmp_path / "out", **{**TWO, **change})
    assert world.made == [] and record(tmp_path / "out") == before


def test_data_that_changed_are_no_longer_those_of_a_finished_cell(world, tmp_path):
    """A figure with one seed on last week's rows."""
    (tmp_path / "rows.csv").write_text("one")
    study_run.study(output=tmp_path / "out", model=["m"], data=[str(tmp_path / "rows.csv")])
    (tmp_path / "rows.csv").write_text("two rows")
    with pytest.raises(BonsaiError, match="it differs in the files that it reads"):
        study_run.study(output=tmp_path / "out", model=["m"], data=[str(tmp_path / "rows.csv")])


def test_without_levels_each_cell_has_what_is_usual_for_it(world, tmp_path):
    """Levels of another kind of task; or a finished study that cannot be drawn again once its hub is away."""
    study_run.study(output=tmp_path / "out", model=["m"], data=["d", "e"])
    assert not any(flag.startswith("--level") for one in record(tmp_path / "out")["cells"] for flag in one["flags"])
    world.made, world.away = [], ("d",)
    study_run.study(output=tmp_path / "out", model=["m"], data=["d", "e"])
    assert world.made == [] and set(states(tmp_path / "out").values()) == {"done"}
    with pytest.raises(BonsaiError, match=r"m-d-0 holds a cell of another study \(it differs in --epochs"):
        study_run.study(output=tmp_path / "out", model=["m"], data=["d", "e"], epochs=7.0)


def test_a_study_may_gain_a_seed(world, tmp_path):
    """All cells to be made again for one more of them."""
    study_run.study(output=tmp_path / "out", **TWO)
    world.made = []
    study_run.study(output=tmp_path / "out", **TWO, seed=[0, 1])
    assert world.made == ["m-d-1", "m-e-1"] and set(states(tmp_path / "out").values()) == {"done"}


def test_overwrite_starts_over_and_touches_nothing_else(world, tmp_path):
    """Results of an earlier study beside new ones, or a user's own file that is gone; or all lost to a typing error."""
    study_run.study(output=tmp_path / "out", **TWO)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "figure-2.svg").write_text("of the earlier study")
    world.made, world.refused = [], {"m": "no such model"}
    with pytest.raises(BonsaiError, match="no such model"):
        study_run.study(output=tmp_path / "out", **TWO, overwrite=True)
    assert (tmp_path / "out" / "m-e-0" / "results.json").is_file()
    world.refused = {}
    study_run.study(output=tmp_path / "out", model=["m"], data=["d"], overwrite=True)
    assert world.made == ["m-d-0"] and states(tmp_path / "out") == {"m-d-0": "done"}
    assert not (tmp_path / "out" / "m-e-0").exists() and not (tmp_path / "out" / "figure-2.svg").exists()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_folder_of_other_files_and_one_in_use_are_refused(world, tmp_path):
    """A user's folder that is written over; or two studies that write into each other's cells."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BonsaiError, match="holds other files, and no study"):
        study_run.study(output=tmp_path, **TWO, overwrite=True)
    with study_folder(tmp_path / "out"), pytest.raises(BonsaiError, match="another study is at work in"):
        study_run.study(output=tmp_path / "out", **TWO)
    (tmp_path / "out").write_text("")
    with pytest.raises(BonsaiError, match="is a file: name a folder"):
        study_run.study(output=tmp_path / "out", **TWO)
    assert world.made == []


def test_a_page_that_cannot_be_made_costs_a_note(world, tmp_path, capsys):
    """A night's study lost to a font."""
    world.page = BonsaiError("no font")
    assert study_run.study(output=tmp_path / "out", **TWO) == {"cells": 2}
    assert capsys.readouterr().out.count("study  note: the page could not be made: no font") == 3


def test_a_cell_without_results_is_not_done(world, tmp_path, monkeypatch):
    """A page that fails for ever, as one of its cells cannot be read."""
    monkeypatch.setattr(study_run, "run_cell", lambda flags: "")
    with pytest.raises(BonsaiError, match=r"m-d-0  failed   no file at .*results.json"):
        study_run.study(output=tmp_path / "out", **TWO)


def test_what_is_given_beside_a_file_wins(world, tmp_path):
    """A file that cannot be tried on one model."""
    (tmp_path / "s.yaml").write_text("models: [x, y]\ndata: [d]\nseeds: [4]\noptions: {epochs: 5, pairs: 20}\ntitle: T")
    study_run.study(str(tmp_path / "s.yaml"), output=tmp_path / "out", model=["z"], epochs=1.0)
    assert world.made == ["z-d-4"] and record(tmp_path / "out")["title"] == "T"
    arguments = json.loads((tmp_path / "out" / "z-d-4" / "run.json").read_text())["arguments"]
    assert (arguments["epochs"], arguments["pairs"], arguments["seed"]) == (1.0, 20, 4)


def test_the_command_line_wins_with_what_are_defaults_too(world, tmp_path):
    """--epochs 3, --no-edge and --pairs 10 that a file overrules without a word, as they are what is usual."""
    from typer.testing import CliRunner

    from kfp_bonsai import cli

    (tmp_path / "s.yaml").write_text(
        "models: [m]\ndata: [d]\noptions: {epochs: 5, edge: true, pairs: 20, country: DEU}"
    )
    usual = [f"--epochs={study_run.DEFAULTS['epochs']}", "--no-edge", f"--pairs={study_run.DEFAULTS['pairs']}"]
    output = str(tmp_path / "out")
    ended = CliRunner().invoke(cli.app, ["study", str(tmp_path / "s.yaml"), *usual, "--output", output])
    assert ended.exit_code == 0, ended.output
    options = world.cells["m-d-0"].options
    assert [options[name] for name in ("epochs", "edge", "pairs")] == [3, False, 10] and options["country"] == "DEU"


def test_a_name_for_all_data_sets_is_refused(world, tmp_path):
    """Reports of which each bears another data set's name."""
    (tmp_path / "s.yaml").write_text("models: [x]\ndata: [d]\noptions: {name: all}")
    with pytest.raises(BonsaiError, match="options: name is of one data set: put it there"):
        study_run.study(str(tmp_path / "s.yaml"), output=tmp_path / "out")


@pytest.mark.parametrize(
    "flags",
    [[], ["--model", "m"], ["none.yaml"], ["--model", "m", "--data", "d", "--seed", "-1"], ["--seed", str(2**32)]],
    ids=str,
)
def test_the_command_refuses_in_words(flags, tmp_path):
    """A traceback for what is missing, or a seed that numpy refuses after an hour."""
    from typer.testing import CliRunner

    from kfp_bonsai import cli

    ended = CliRunner().invoke(cli.app, ["study", *flags, "--output", str(tmp_path / "out")])
    assert ended.exit_code == 2 and ended.output.startswith("error: ") and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A study of two real cells of which one cannot learn, interrupted and gone on with: (folder, both outputs)."""
    folder = tmp_path_factory.mktemp("real")
    tiny.pretrained(folder / "bert", layers=2)
    tiny.reviews(folder / "reviews.csv", 200, 1, ("bad", "good"))
    (folder / "study.yaml").write_text(
        f"models:\n- {folder / 'bert'}\n- {{model: {folder / 'bert'}, name: wild, learning-rate: 1e30}}\n"
        f"data: [{folder / 'reviews.csv'}]\nlevels: ['small:layers=1/2,epochs=1']\n"
        "options: {epochs: 2, learning-rate: 3e-3, augmentations: 0, pairs: 3, block-seconds: 0.3, precision: 0}\n"
    )
    code = "from kfp_bonsai.cli import main; main()"
    command = [sys.executable, "-c", code, "study", str(folder / "study.yaml"), "--output", str(folder / "out")]
    environment = {key: value for key, value in os.environ.items() if key != "BONSAI_DEBUG"}
    environment[CACHE_VARIABLE] = str(folder / "cache")  # else what it found is advice to whoever runs the tests
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    lines = []
    for line in first.stdout:
        lines.append(line)
        if "] layer-remove" in line:
            first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130, first.stderr.read()
    between = states(folder / "out")
    second = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    return folder / "out", "".join(lines), between, second


def test_a_real_study_is_stopped_and_goes_on(real):
    """Ctrl-C that leaves training behind, loses what was trained, or counts a cell as done."""
    _, stopped, between, ended = real
    assert between == {"bert-reviews-0": "waiting", "wild-reviews-0": "waiting"}
    assert stopped.splitlines()[-1].startswith("study  stopped with 0 of 2 cells done: start it again in the same way")
    assert re.search(r"\] fine-tune, finished already", ended.stdout)


def test_a_real_cell_that_fails_costs_the_others_nothing(real):
    """A study that ends with its first failure, or says nothing of why."""
    output, _, _, ended = real
    assert ended.returncode == 2 and "Traceback" not in ended.stdout + ended.stderr
    assert states(output) == {"bert-reviews-0": "done", "wild-reviews-0": "failed"}
    assert re.search(r"^  wild-reviews-0  failed   fine-tune: ", ended.stderr, re.M)
    done, wild = record(output)["cells"]
    assert done["rows"] == 144 and done["seconds"] > 1 and done["joules"] > 0 and wild["joules"] is None
    results = json.loads((output / done["results"]).read_text())
    assert [row["level"] for row in results["rows"]] == ["baseline", "small"]


def test_a_cell_can_be_made_again_by_hand(real):
    """A cell that nobody can make again, as its report does not say how it was made."""
    page = (real[0] / "bert-reviews-0" / "report.html").read_text(encoding="utf-8")
    assert "bonsai run --model=" in page and "--learning-rate=0.003" in page and "--seed=0" in page


def test_every_option_of_a_run_is_one_of_a_study():
    """An option that a run gains, and a study cannot give."""
    from inspect import signature

    of_study = {*signature(study_run.study).parameters} - {"file", "title"}
    assert of_study == {*signature(run).parameters} - {"name"}
