"""Advice rests on what was measured, and says on what."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kfp_bonsai.advise import advise
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.kinds import KINDS, answered_alike
from kfp_bonsai.shared.metrics import evidence as kept
from kfp_bonsai.shared.metrics.advice import LEVELS, Evidence, Situation, advice, lines
from kfp_bonsai.shared.metrics.evidence import read_evidence, shipped

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))


def measured(family, rows, share, level=LEVELS[2], **others):
    return Evidence(family, "made up", rows, level, 0.1, share, "this test", **others)


def verdicts(family, rows, found, own=(), **others):
    return {one.about: one.verdict for one in advice(Situation(family, rows, **others), found, own)}


def whys(family, rows, found, **others):
    return {one.about: one.why for one in advice(Situation(family, rows, **others), found)}


def test_the_nearest_evidence_of_the_family_decides():
    """Else advice for little data rests on figures from much, or one family's from another's."""
    found = [measured("bert", 8000, 0.99), measured("bert", 500, 0.90), measured("gpt2", 500, 0.97)]
    found += [Evidence("bert", "made up", 8000, level, 0.5, 1.0, "this test") for level in LEVELS[:2]]
    assert [verdicts("bert", 9000, found)[level] for level in LEVELS[:3]] == ["sensible", "sensible", "sensible"]
    assert verdicts("bert", 700, found)[LEVELS[2]] == "not advised"
    assert verdicts("gpt2", 9000, found)[LEVELS[2]] == "at a price"
    assert "t5 itself was not measured" in whys("t5", 700, found)[LEVELS[2]]
    assert "with only 100 rows expect less" in whys("bert", 100, found)[LEVELS[2]]


def test_size_and_kind_of_task_are_part_of_the_situation():
    """A model of 100 million parameters judged by one of 10, or a regression by a classification, without a word."""
    small, large = (measured("bert", 8000, share, parameters=size) for share, size in ((0.94, 10**7), (0.99, 10**8)))
    assert verdicts("bert", 8000, [small, large], parameters=11 * 10**6)[LEVELS[2]] == "not advised"
    assert verdicts("bert", 8000, [small, large], parameters=9 * 10**7)[LEVELS[2]] == "sensible"
    assert "larger model" in whys("bert", 8000, [large], parameters=10**6)[LEVELS[2]]
    assert "million parameters, not 0.13" in whys("bert", 8000, [large], parameters=125_376)[LEVELS[2]]
    of_classes = measured("bert", 8000, 0.99, kind="classification")
    of_numbers = measured("bert", 3000, 0.96, kind="regression")
    assert verdicts("bert", 8000, [of_classes, of_numbers], kind="regression")[LEVELS[2]] == "at a price"
    assert verdicts("bert", 8000, [of_classes], kind="regression")[LEVELS[2]] == "uncertain"


def test_another_family_decides_only_where_the_own_is_far_or_weak():
    """A BERT measured on as many rows would be warned of for what a decoder lost."""
    own, other = measured("bert", 3000, 0.99), measured("llama", 3000, 0.91)
    assert verdicts("bert", 3300, [own, other])[LEVELS[2]] == "sensible"
    assert verdicts("bert", 3300, [replace(own, rows=60_000), other])[LEVELS[2]] == "not advised"
    assert verdicts("bert", 3300, [replace(own, from_scratch=True), other])[LEVELS[2]] == "not advised"


def test_tasks_as_near_that_kept_less_are_told_of():
    """The task with the nearest number of rows would speak for all, while one as near lost ten points."""
    easy, hard = measured("bert", 3000, 0.99, data="easy"), measured("bert", 4000, 0.89, data="hard")
    assert verdicts("bert", 3000, [easy, hard])[LEVELS[2]] == "uncertain"
    assert "as near, 89.0% kept" in whys("bert", 3000, [easy, hard])[LEVELS[2]]
    assert verdicts("bert", 3000, [easy, replace(hard, rows=30_000)])[LEVELS[2]] == "sensible"


def test_seeds_are_one_finding():
    """The worst of three seeds would be told as what a level keeps."""
    found = [measured("bert", 8000 + seed, 0.97 + 0.02 * seed, seed=seed) for seed in range(3)]
    assert verdicts("bert", 8000, found)[LEVELS[2]] == "sensible"
    assert "99.0% kept" in whys("bert", 8000, found)[LEVELS[2]] and "3 seeds" in whys("bert", 8000, found)[LEVELS[2]]


def test_a_baseline_with_nothing_to_lose_vouches_for_no_other_family():
    """What a model from scratch, or one no better than a bag of words, keeps would be promised to pretrained ones."""
    weak = [
        measured("gpt2", 8000, 1.01, from_scratch=True),
        measured("bert", 8000, 1.00, score=0.7, floor=0.7),
    ]
    assert verdicts("llama", 8000, weak) == {}
    assert verdicts("llama", 8000, [*weak, measured("opt", 8000, 0.96)])[LEVELS[2]] == "at a price"


@pytest.mark.parametrize(
    ("free", "stock", "verdict"),
    [
        ((0.990, 0.992, 0.988), (0.980, 0.983, 0.977), "free"),
        ((0.990, 0.970, 0.985), (0.980, 0.985, 0.977), "either"),
        ((0.960, 0.962, 0.958), (0.980, 0.983, 0.977), "stock"),
    ],
)
def test_the_shape_that_keeps_more_by_more_than_chance(free, stock, verdict):
    """A shape would be advised by the luck of a seed, or by figures at other FLOPs."""
    found = [
        measured("bert", 8000, share, f"level {shape}", seed=seed, shape=shape)
        for shape, shares in (("free", free), ("stock", stock))
        for seed, share in enumerate(shares)
    ]
    assert verdicts("bert", 8000, found)["shape at 10% FLOPs"] == verdict
    elsewhere = [replace(one, flops_ratio=0.3) if one.shape == "stock" else one for one in found]
    assert not any(about.startswith("shape") for about in verdicts("bert", 8000, elsewhere))


def test_whole_layers_are_of_no_shape():
    """Four narrow layers that keep more than two whole ones would be told as the worth of the free shape."""
    wnut = Situation("llama", 3000, kind="tokens")
    assert not [one.why for one in advice(wnut, shipped()) if one.about.startswith("shape") and "wnut17" in one.why]


def test_text_without_labels_is_worth_what_was_measured():
    """Text would be called worth finding where nobody tried without, or where chance gives as much."""
    ends = {"having": (0.985, 0.995), "lacking": (0.955, 0.965)}
    having = measured("bert", 800, 0.99, unlabelled_rows=9000, relative_accuracy_ci=ends["having"])
    lacking = measured("bert", 800, 0.96, unlabelled_rows=0, relative_accuracy_ci=ends["lacking"])
    assert verdicts("bert", 800, [having, lacking])["unlabelled text"] == "worth it"
    assert "9,000 more texts gave +3.0 points" in whys("bert", 800, [having, lacking])["unlabelled text"]
    assert "unlabelled text" not in verdicts("bert", 800, [having])
    unsure = [replace(one, relative_accuracy_ci=None) for one in (having, lacking)]
    assert verdicts("bert", 800, unsure)["unlabelled text"] == "uncertain"
    few = replace(lacking, rows=100)
    assert "unlabelled text" not in verdicts("bert", 800, [having, few])


@pytest.mark.parametrize(
    ("kept_by_rival", "emission", "verdict"),
    [(0.93, 0.16, "compress"), (0.985, 0.10, "does as well"), (0.93, 0.06, "a choice")],
)
def test_a_ready_made_model_does_as_well_only_where_it_does(kept_by_rival, emission, verdict):
    """A user would compress for hours where a small model does, or take one that compressing beats."""
    level = measured("bert", 8000, 0.98, relative_emission=0.15, relative_accuracy_ci=(0.975, 0.985))
    ends = (kept_by_rival - 0.005, kept_by_rival + 0.005)
    rival = measured("bert", 8000, kept_by_rival, "tiny", student="tiny", relative_accuracy_ci=ends)
    rival = replace(rival, relative_emission=emission)
    assert verdicts("bert", 8000, [level, rival])["ready-made tiny"] == verdict
    assert "tiny" not in verdicts("bert", 8000, [level, rival])


def test_the_shipped_evidence_is_what_the_benchmarks_measured():
    """Else the advice is an opinion, or of figures that nobody can make again."""
    import evidence

    assert json.loads(evidence.SHIPPED.read_text(encoding="utf-8")) == evidence.evidence()
    found = shipped()
    assert {*LEVELS} <= {one.what for one in found}
    assert all(one.source and 0 < one.flops_ratio < 1 and 0.3 < one.relative_accuracy < 1.1 for one in found)


def test_what_was_not_measured_is_not_called_sensible():
    """One verdict for every family and any number of rows, while we saw five points lost with 500."""
    told = verdicts("bert", 8000, shipped())
    assert [told[level] for level in LEVELS] == ["sensible", "sensible", "sensible", "uncertain"]
    assert "as near, 97.8% kept" in whys("bert", 8000, shipped())[LEVELS[3]]
    assert {verdicts("qwen3", 8000, shipped())[level] for level in LEVELS} == {"uncertain"}
    assert verdicts("llama", 8000, shipped())[LEVELS[3]] == "at a price"  # SmolLM2 on SST-2
    assert "seeds" not in whys("llama", 8000, [*shipped(), *shipped()])[LEVELS[0]]  # as a study's, left here too
    few = verdicts("bert", 500, shipped())
    assert [few[level] for level in LEVELS] == ["uncertain", "at a price", "at a price", "at a price"]
    assert verdicts("bert", 8000, shipped())["shape at 10% FLOPs"] == "free"  # as three seeds say


@pytest.mark.parametrize("kind", ["", "tokens", "classification", "generation"])
@pytest.mark.parametrize("rows", [500, 8000])
def test_each_thing_is_told_of_once(rows, kind):
    """Verdicts that contradict each other, of which the command shows whichever comes last."""
    told = [one.about for one in advice(Situation("bert", rows, kind=kind), shipped())]
    assert len(told) == len(set(told)) > 3


def test_a_model_folder_a_family_and_nonsense(made):
    """Else the command knows only names, or fails with a traceback on a typo."""
    of_folder, of_family = advise(str(made.pretrained), rows=500), advise("bert", rows=500)
    assert of_folder.keys() == of_family.keys() and {*LEVELS} <= of_folder.keys()
    with pytest.raises(BonsaiError, match=r"no such folder.*or give a family"):
        advise("gpt3", rows=500)
    with pytest.raises(BonsaiError, match="--rows 0"):
        advise("bert", rows=0)
    with pytest.raises(BonsaiError, match=r"--kind 'regresion' is unknown.*did you mean 'regression'"):
        advise("bert", rows=5, kind="regresion")


@pytest.mark.parametrize(
    ("name", "why"), [("albert", "one set of weights"), ("ALBERT", "one set"), ("Gemma-3", "images")]
)
def test_a_family_that_cannot_be_is_refused_with_why(name, why):
    """An error of the hub, which was asked for a model of that name."""
    with pytest.raises(BonsaiError, match=why):
        advise(name, rows=500)


@pytest.mark.parametrize("name", ["GPT-2", "gpt 2", "Gpt_2"])
def test_a_family_is_known_as_people_write_it(name):
    """A typo's hint, or the hub's error, for a name that can mean one family only."""
    assert advise(name, rows=500) == advise("gpt2", rows=500)


def test_own_evidence_is_heeded_wherever_it_lies(tmp_path: Path):
    """What a user measured would be ignored, count twice, or be told only where levels have the paper's names."""
    own = {"family": "llama", "model": "mine", "rows": 900, "flops_ratio": 0.05, "source": "my study"}
    document = {"format": 1, "evidence": [own | {"level": "tiny", "relative_accuracy": 0.93}]}
    (tmp_path / "evidence.json").write_text(json.dumps(document))
    assert "tiny" not in advise("llama", rows=900)
    for given in (tmp_path, tmp_path / "evidence.json"):
        found = advise("llama", rows=900, evidence=[str(given), str(tmp_path)])["tiny"]
        assert found.startswith("not advised: 93.0%") and "seeds" not in found and "my study" in found
    kept.leave(document, "a test's study")
    try:
        assert "my study" in advise("llama", rows=900)["tiny"]
        assert any("my study" in line for line in lines(Situation("llama", 900)))
    finally:
        for path in kept.cached("evidence").glob("*.json"):
            path.unlink()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no file at .*: make it with `bonsai study`"),
        ("{", "is not JSON, or is cut off"),
        ('{"rows": []}', "was not written by `bonsai study`"),
        ('{"format": 2, "evidence": []}', "has format 2"),
        ('{"evidence": []}', "holds no evidence"),
        ('{"evidence": [{"family": "bert"}]}', r"it has no 'evidence\[0\]"),
    ],
)
def test_damaged_evidence_is_refused_where_given_and_a_note_where_found(tmp_path: Path, content, words, capsys):
    """A traceback, advice without what was given, or a run that ends because an earlier study left half a file."""
    path = tmp_path / "evidence.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BonsaiError, match=words):
        advise("bert", rows=500, evidence=[str(path)])
    if content is not None:
        left = kept.cached("evidence") / "left.json"
        left.parent.mkdir(exist_ok=True)
        left.write_text(content)
        try:
            assert {*LEVELS} <= advise("bert", rows=500).keys()
            assert "note: evidence of an earlier study is left out" in capsys.readouterr().out
        finally:
            left.unlink()


def test_evidence_that_cannot_be_left_is_a_note(tmp_path: Path, monkeypatch, capsys):
    """A study of hours that ends in an error because the cache takes no file."""
    (tmp_path / "evidence").write_text("a file")
    monkeypatch.setattr(kept, "cached", lambda name: tmp_path / name)
    kept.leave({"evidence": [{}]}, "study")
    assert "note: `bonsai advise` will not know of this study" in capsys.readouterr().out


def test_levels_are_known_by_what_they_are_whatever_they_are_called():
    """The figure of a study whose levels have names of their own would count for nothing, or beside the paper's."""
    narrow = {"layers": 0.3333, "shape": "free"}
    other = measured("bert", 5000, 0.97, "10 % of the FLOPs", flops=0.1, **narrow)
    assert verdicts("bert", 5000, [measured("bert", 3000, 0.99), other])[LEVELS[2]] == "at a price"
    wide = replace(other, layers=0.5)
    assert verdicts("bert", 5000, [], own=[wide]) == {LEVELS[3]: "at a price"}
    names = {
        "1/3 layers + matrix pruning, stock": replace(other, shape="stock"),
        "1/3 layers + matrix pruning to 1/20": replace(other, flops=0.05),
        "1/2 layers": replace(wide, flops=None, shape=""),
        "tiny": replace(other, level="tiny", layers=None),
    }
    assert [one.what for one in names.values()] == [*names]


def test_the_white_papers_own_data_are_heeded():
    """MRPC's third of the layers, and IMDb's half of them, both called "10 % of the FLOPs", would be ignored."""
    told = whys("bert", 5000, shipped(), kind="classification")
    assert "on mrpc" in told[LEVELS[2]] and "on imdb" in told[LEVELS[3]] and "10 % of the FLOPs" not in told


def test_a_family_of_which_none_was_pretrained_is_doubted():
    """GPT-2, which the paper saw collapse, would be called sensible by one from scratch and a BERT."""
    own, other = measured("gpt2", 8000, 1.0, from_scratch=True), measured("bert", 8000, 0.99)
    assert verdicts("gpt2", 8000, [own, other])[LEVELS[2]] == "uncertain"
    assert "of gpt2 none that was pretrained was measured" in whys("gpt2", 8000, [own, other])[LEVELS[2]]
    assert {verdicts("gpt2", 5000, shipped())[level] for level in LEVELS[:3]} == {"uncertain"}


def test_rivals_and_shapes_are_those_of_models_with_the_same_head():
    """BERT-tiny, which cannot write, would be offered to who needs answers in writing."""
    for kind, offered in (("generation", False), ("tokens", False), ("classification", True), ("ranking", True)):
        told = verdicts("bert", 5000, shipped(), kind=kind, answered_alike=answered_alike(kind))
        assert ("ready-made BERT-tiny" in told, any(one.startswith("shape") for one in told)) == (offered, offered)


def test_the_help_names_every_kind_of_task():
    """A kind that is taken, and that nobody can know of."""
    assert all(kind in advise.__doc__ for kind in KINDS)


def test_what_a_study_writes_is_read_whole(tmp_path: Path):
    """A field of evidence.json that is written under one name and read under another."""
    full = measured("bert", 8000, 0.99, "tiny", seed=1, shape="free", student="x", unlabelled_rows=5, kind="tokens")
    full = replace(full, relative_accuracy_ci=(0.98, 1.0), relative_emission=0.1, emission_label="measured", floor=0.5)
    full = replace(full, score=0.9, divergence=0.1, data="d", metric="f1", test_rows=9, parameters=7, from_scratch=True)
    full = replace(full, layers=0.5, flops=0.1)
    (tmp_path / "evidence.json").write_text(json.dumps({"format": 1, "evidence": [vars(full)]}))
    assert read_evidence(tmp_path) == [full]


def test_levels_of_a_kind_that_cost_what_none_of_the_papers_does_are_told():
    """Who compresses names would hear of levels measured on classes alone, though others were measured on names."""
    names = {"kind": "tokens", "data": "names"}
    whole = replace(measured("bert", 3000, 0.84, LEVELS[1], **names), flops_ratio=0.334)
    narrow = replace(measured("bert", 3000, 0.92, "3 narrow layers", shape="free", **names), flops_ratio=0.332)
    no_better = replace(narrow, level="2 odd layers", relative_accuracy=0.85)
    least = replace(measured("bert", 3000, 0.85, "3 narrowest layers", **names), flops_ratio=0.119)
    told = verdicts("bert", 3000, [whole, narrow, no_better, least], kind="tokens")
    assert {"3 narrow layers", "3 narrowest layers"} <= told.keys() and "2 odd layers" not in told
    assert "3 narrowest layers" not in verdicts("bert", 3000, [whole, narrow, least], kind="classification")
