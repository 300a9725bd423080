"""The white paper's study, on its data, with models that can be had without a hub.

    python tests/benchmarks/paper_study.py --data DATA --work runs/paper --only imdb [--model MiniLM] [--json FILE]

DATA holds the folders imdb and glue/{cola,sst2,mrpc,stsb,rte}, in the columns that `datasets` gives. It is one `bonsai
study`, which may gain cells: what is done already is not made again, so that it can be made a data set, a model or a
seed at a time, all in one folder. Of large data so many rows are labelled as two cores train in some hours, with the
same share of every class; of IMDb 5,000 test rows are scored and 10,000 of the texts without labels taught from, of
SST-2 the texts of 51,000 other training rows.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from arguments import json_file, write_json

from kfp_bonsai.pipelines.local.study_run import study
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved import records

RIVAL = "BERT-tiny:model=embedded:bert-tiny"
OF_DEEP = [  # of 60,000 texts of SST-2
    "2/3 layers:layers=2/3,epochs=0.35",
    "1/3 layers:layers=1/3,epochs=0.7",
    "10 % of the FLOPs:layers=1/2,flops=0.1,epochs=0.95",
    f"{RIVAL},epochs=1",
]
MODELS: dict[str, dict[str, Any]] = {
    "MiniLM": {"model": "embedded:minilm"},
    "MPNet": {"model": "embedded:mpnet"},
    "SmolLM2": {  # six times MiniLM's FLOPs a token, and 30 layers: fewer passes over less text
        "model": "embedded:smollm2",
        "levels": OF_DEEP,
        "epochs": 2,
        "learning-rate": 5e-5,
    },
}
WHOLE = ["2/3 layers:layers=2/3", "1/3 layers:layers=1/3"]
LEVELS = [*WHOLE, "10 % of the FLOPs:layers=1/2,flops=0.1", RIVAL]
OF_MRPC = [*WHOLE, "10 % of the FLOPs:layers=1/3,flops=0.1", RIVAL]  # as results/paper.json has it
OF_LONG = [
    "2/3 layers:layers=2/3,epochs=0.5,rate=2e-4",
    "1/3 layers:layers=1/3,epochs=1.2",
    "10 % of the FLOPs:layers=1/2,flops=0.1,epochs=2",
    "5 % of the FLOPs:layers=1/2,flops=0.05,epochs=2",
    f"{RIVAL},epochs=2",
]
OF_IMDB = {"max-rows": 5000, "validation-rows": 500, "unlabelled-rows": 10000, "augmentations": 0, "max-length": 256}
DATA: dict[str, dict[str, Any]] = {
    "mrpc": {"levels": OF_MRPC},
    "rte": {},
    "stsb": {},
    "cola": {"metric": "matthews_correlation"},
    "sst2": {"max-rows": 10000, "augmentations": 0},
    "imdb": {"group": "IMDb", "levels": OF_LONG, "epochs": 2, **OF_IMDB},
}
TEST_ROWS, LABELLED, SEED = 5000, 16000, 0


def places(data: Path, name: str, work: Path) -> dict[str, Any]:
    """Return where a data set is; of IMDb's test rows 5,000 are taken, the same in every study.

    SST-2's training rows are parted: those that may have labels, and others, of which the text alone is taken.
    """
    if name == "sst2":
        folder, train, others = data / "glue" / name, work / "sst2-train.parquet", work / "sst2-texts.parquet"
        if not others.exists():
            table = pq.read_table(folder / "train.parquet")
            order = np.random.default_rng(SEED).permutation(len(table))
            pq.write_table(table.take(order[:LABELLED]), train)
            pq.write_table(table.take(order[LABELLED:]).select(["sentence"]), others)
        return {"data": str(train), "test-data": str(folder / "validation.parquet"), "unlabelled-data": str(others)}
    if name != "imdb":
        return {"data": str(data / "glue" / name)}
    test = work / "imdb-test.parquet"
    if not test.exists():
        table = pq.read_table(data / "imdb" / "test.parquet")
        pq.write_table(table.take(np.random.default_rng(SEED).permutation(len(table))[:TEST_ROWS]), test)
    return {"data": str(data / "imdb"), "test-data": str(test)}


def figures(file: Path) -> list[dict[str, Any]]:
    """Return what was measured of each model: numbers where there are some, without columns that hold nothing."""
    with file.open(encoding="utf-8", newline="") as source:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(source)]
    return [{name: _number(value) for name, value in row.items()} for row in rows]


def _number(value: str) -> float | str:
    try:
        return float(f"{float(value):.6g}")
    except ValueError:
        return value


def _elsewhere(flag: str, data: Path, work: Path) -> str:
    """Return what a cell is given as anyone could give it."""
    return flag.replace(str(data), "DATA").replace(str(work), "WORK")


def main(arguments: Sequence[str]) -> int:
    """Go on with the study; return 1 if a cell could not be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="where the real data are")
    parser.add_argument("--work", type=Path, required=True, help="folder of the study, kept from run to run")
    parser.add_argument("--only", nargs="*", choices=[*DATA], default=[*DATA], help="these data sets alone")
    parser.add_argument("--model", nargs="*", choices=[*MODELS], default=["MiniLM"])
    parser.add_argument("--seed", nargs="*", type=int, default=[SEED])
    parser.add_argument("--json", type=json_file, help="file to write the study's results to")
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    asked = {
        "title": "The white paper's study",
        "models": [{**MODELS[name], "name": name} for name in given.model],
        "data": [{**places(given.data, name, given.work), "name": name, **DATA[name]} for name in given.only],
        "levels": LEVELS,
        "seeds": given.seed,
        "options": {"min-accuracy": 0.97, "block-seconds": 2.0, "time-budget": 300.0},
    }
    file = given.work / "asked.yaml"
    file.write_text(yaml.safe_dump(asked, sort_keys=False), encoding="utf-8")
    failed = False
    try:
        study(str(file), output=given.work / "study")
    except BonsaiError as error:
        print(error, file=sys.stderr)
        failed = True
    if (done := given.work / "study" / "study.json").is_file():
        own = json.loads(done.read_text(encoding="utf-8"))
        for cell in own["cells"]:
            cell["data"] = cell["data_name"]
            cell["flags"] = [_elsewhere(each, given.data, given.work) for each in cell["flags"] or []]
        write_json(given.json, {"versions": records.versions(), **own, "rows": figures(done.with_name("study.csv"))})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
