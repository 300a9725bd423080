"""What a student that writes loses by its teacher's likeliest tokens alone, instead of all logits, and the disk saved.

    python tests/benchmarks/top_k.py --data DATA --work runs/top_k [--only synopsis] [--seeds 0 1 2] [--json top_k.json]

The tasks and baselines are generation.py's, with few rows, as logits of all tokens take one run of the teacher a step:
they are computed anew for each batch, kept nowhere, and learnt by the same loss, of which they are the case that no
token is left to the rest. The same shorter model learns from both, in the same steps, seed by seed. On disk the likely
tokens take what their column of rows.parquet does, compressed; all would take two bytes each (float16), uncompressed.
Goals: a tenth of the disk at the most, and 0.3 points of the score lost, the mean over seeds.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import torch
from arguments import add_tasks, found_before, same_arguments, write_json
from generation import BATCH, GIVEN, Room, _baseline, prepared
from trained import made, score

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.shared.saved import checkpoint, records
from kfp_bonsai.shared.training import answer_batches, soft_answers, transfer
from kfp_bonsai.shared.training.trainer import bf16_is_faster, device
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

MOST_DISK, MOST_LOST = 0.1, 0.3  # of what all logits take; points
BYTES = 2  # of a logit


@contextmanager
def all_logits(base: Path) -> Iterator[None]:
    """Let students learn from all logits of their teacher."""
    teacher, _ = checkpoint.load(base)
    teacher.to(device()).eval()
    precision = torch.autocast(device(), torch.bfloat16, enabled=bf16_is_faster())

    def collate(items: Sequence[Any], pad_id: int) -> dict[str, torch.Tensor]:
        batch = answer_batches.with_labels(items, pad_id)
        with torch.inference_mode(), precision:
            logits = answer_batches.run(teacher, {name: one.to(device()) for name, one in batch.items()}).logits
        return {**batch, "teacher_logits": torch.from_numpy(soft_answers.told(logits))}

    vocabulary = teacher.get_output_embeddings().out_features
    with mock.patch.object(soft_answers, "TOP", vocabulary), mock.patch.object(soft_answers, "collate", collate):
        yield


def disk(folder: Path, base: Path) -> dict[str, float]:
    """Return what the likely tokens take on disk, what all logits would, and their ratio."""
    metadata = pq.read_metadata(folder / transfer.ROWS)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(at) for group in groups for at in range(group.num_columns)]
    taken = sum(one.total_compressed_size for one in columns if one.path_in_schema.startswith("logits."))
    tokens = sum(map(len, transfer.open_set(folder).labels))
    whole = tokens * checkpoint.load(base)[0].get_output_embeddings().out_features * BYTES
    return {"tokens": tokens, "bytes": taken, "bytes of all": whole, "disk_share": taken / whole}


def run(room: Room, keep: str, epochs: float, seeds: Sequence[int], kept: dict[str, Any]) -> Iterator[None]:
    """Teach one shorter model by likely tokens and by all logits, as far as that was not done, and note the scores."""
    splits, work = room.splits, room.work
    base = made(work / "baseline", lambda to: _baseline(room, to))
    told = made(
        work / "transfer",
        lambda to: teacher_outputs(base, splits["train"], splits["unlabelled"], to, augmentations=0, batch_size=BATCH),
    )
    short = made(work / "short", lambda to: layer_remove(base, splits["validation"], to, keep=keep))
    kept["disk"] = disk(told, base)
    kept.setdefault("baseline", score(base, splits["test"]))

    def taught(seed: int) -> Callable[[Path], Any]:
        return lambda to: distill(short, told, splits["validation"], to, epochs=epochs, seed=seed)

    for seed in map(str, seeds):
        if seed not in kept.setdefault("scores", {}):
            some = made(work / f"likely-{seed}", taught(int(seed)))
            with all_logits(base):
                whole = made(work / f"all-{seed}", taught(int(seed)))
            both = {"likely": score(some, splits["test"]), "all": score(whole, splits["test"])}
            kept["scores"][seed] = both | {"lost_points": 100 * (both["all"] - both["likely"])}
            yield
    kept["lost_points"] = statistics.mean(one["lost_points"] for one in kept["scores"].values())
    yield


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_tasks(parser, GIVEN)
    parser.add_argument("--rows", type=int, default=300, help="training rows (300)")
    parser.add_argument("--test-rows", type=int, default=200, help="test rows (200)")
    parser.add_argument("--max-length", type=int, default=96, help="tokens at which texts are cut (96)")
    parser.add_argument("--keep", default="1/2", help="layers of the student (1/2)")
    parser.add_argument("--epochs", type=float, default=2, help="passes of the student (2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the order of rows (0)")
    parser.add_argument("--model", help="a model to begin from instead, to try the script with")
    given = parser.parse_args(arguments)
    found = found_before(given.json)
    for name in given.only:
        one = replace(GIVEN[name], rows=given.rows)
        one = replace(one, model=given.model) if given.model else one
        work = given.work / name
        work.mkdir(parents=True, exist_ok=True)
        own = {each: getattr(given, each) for each in ("rows", "test_rows", "max_length", "keep", "epochs", "model")}
        same_arguments(work / "arguments.json", own)
        room = Room(one, work, prepared(one, given.data, work, given.test_rows), given.max_length)
        for _ in run(room, given.keep, given.epochs, given.seeds, found.setdefault(name, {})):
            write_json(given.json, {"versions": records.versions(), "arguments": own, "found": found})
        one_of = found[name]
        print(f"\n{name}: baseline {one_of['baseline']:.4f}; {one_of['disk']['disk_share']:.2%} of all logits' disk")
        for seed, row in one_of["scores"].items():
            print(f"  seed {seed}: likely tokens {row['likely']:.4f}, all logits {row['all']:.4f}")
        print(f"  points lost: {one_of['lost_points']:.2f} (goal: {MOST_LOST} at the most)")
    rows = found.values()
    return int(any(one["disk"]["disk_share"] > MOST_DISK or one["lost_points"] > MOST_LOST for one in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
