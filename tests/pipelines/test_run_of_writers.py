"""Models that write go through `bonsai run` whole: a decoder for an edge CPU too, and an encoder-decoder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from kinds_made import WRITERS, rows_of

from kfp_bonsai.shared.inference.writers import load_writer, prompt_batch
from kfp_bonsai.shared.saved.records import read_record, task_of

BONSAI = [sys.executable, "-c", "from kfp_bonsai.cli import main; main()"]
SHORT = "--epochs 4 --learning-rate 0.005 --batch-size 16 --prune-steps 4 --pairs 2 --block-seconds 0.3 --precision 0"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Prompts and completions, as users have them."""
    file, columns = tmp_path_factory.mktemp("rows") / "rows.jsonl", rows_of("generation", 240, 7)
    pairs = [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]
    file.write_text("\n".join(json.dumps(WRITERS["generation"].written(one)) for one in pairs))
    return file


def run(folder: Path, rows: Path, family: str, *options: str) -> tuple[dict, Path, str]:
    """Return a run's results.json, its folder and its log."""
    model = tiny.pretrained(folder / "model", layers=3, family=family, writes=True)
    given = ["run", "--model", str(model), "--data", str(rows), "--output", str(folder / "run"), *SHORT.split()]
    ended = subprocess.run(
        [*BONSAI, *given, "--time-budget", "1", *options],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"BONSAI_CACHE": str(folder / "cache")},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads((folder / "run" / "results.json").read_text()), folder / "run", ended.stdout


def writes(folder: Path) -> None:
    """Ask a model that was handed over for an answer."""
    batch = prompt_batch(folder, ["good film", "awful"], task_of(read_record(folder)))
    writer = load_writer(folder)
    assert len(writer.texts(writer.write(batch))) == 2


def test_a_decoder_runs_whole_for_an_edge_cpu_too(rows, tmp_path):
    """A kind whose stages work one by one, and not what one hands to the next."""
    levels = ("--level", "half:layers=2/3,epochs=1", "--level", "small:layers=1/3,flops=0.25,epochs=1", "--edge")
    results, folder, log = run(tmp_path, rows, "llama", *levels)
    told = [(row["level"], row["stage"]) for row in results["rows"]]
    assert told[:3] == [("baseline", "baseline"), ("half", "compressed"), ("small", "compressed")]
    assert told[3:] == [("baseline", "baseline"), *((one, "quantized") for one in ("baseline", "half", "small"))]
    assert all(row["writing"]["joules_per_token"] > 0 for row in results["rows"])
    assert "1 of the 2 layers to go were found before" in log
    assert list((tmp_path / "cache" / "layers").glob("*.json"))
    for name in ("model", "edge-model"):
        writes(folder / name)


def test_an_encoder_decoder_runs_whole(rows, tmp_path):
    """A T5 whose encoder is cut where its decoder was to be, or stacks of two lengths that a stage cannot take."""
    levels = ("--level", "two thirds:layers=2/3,epochs=1", "--level", "pair:layers=2+2,flops=0.4,epochs=1")
    results, folder, _ = run(tmp_path, rows, "t5", *levels)
    made = (folder / "work").rglob("distilled_model")
    assert sorted(read_record(one)["shape"]["stacks"] for one in made) == [[2, 2], [3, 1]]
    assert [row["level"] for row in results["rows"]] == ["baseline", "two thirds", "pair"]
    assert all(row["writing"]["tokens"] for row in results["rows"])
    writes(folder / "model")
