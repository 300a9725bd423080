"""The measurement file: every pair, and all that a sceptic needs to know of how they came about."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kfp_bonsai.evaluate_emissions import machine, results
from kfp_bonsai.evaluate_emissions.common import OfLength
from kfp_bonsai.evaluate_emissions.protocol import Batch, Plan
from kfp_bonsai.evaluate_emissions.rounds import Taken
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.inference.asking import rows_in
from kfp_bonsai.shared.kinds.kinds import kind_of
from kfp_bonsai.shared.metrics import statistics
from kfp_bonsai.shared.saved.records import versions


@dataclass(frozen=True)
class Setting:
    """Where and on what was measured.

    Attributes:
        device: cpu or cuda.
        environment: what is known of the machine.
        waiting: what idle threads do.
        floor: what a bag of words reaches, and how it was found.
        max_length: tokens at which rows are cut.
        rows: how many test rows there are.
        left_out: how many more there were, which a baseline that writes cannot be asked.
        singles: rows that were run one at a time.
        batches: what every block ran.
    """

    device: str
    environment: dict[str, Any]
    waiting: str
    floor: tuple[float, str]
    max_length: int
    rows: int
    left_out: int
    singles: int
    batches: Sequence[Batch]


def document(
    common: results.Common, setting: Setting, plan: Plan, taken: Taken, models: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return what is written down of a measurement."""
    rounds = taken.rounds
    return {
        "format": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": machine.device_name(setting.device, setting.environment),
        "device_kind": setting.device,
        "task": common.task.__dict__,
        "rows": setting.rows,
        "seed": common.seed,
        "versions": versions(),
        "environment": setting.environment | {"neighbours": rounds.neighbours},
        "floor": {"accuracy": setting.floor[0], "method": setting.floor[1]},
        "protocol": {
            "pairs": rounds.done,
            "block_seconds": plan.block_seconds,
            "slices_a_block": len(setting.batches) if plan.sliced else 1,
            "batch_size": common.batch_size,
            "max_length": setting.max_length,
            "mean_length": common.mean_length,
            **({"written_tokens": common.written.tokens} if common.written else {}),
            **({"rows_left_out": setting.left_out} if setting.left_out else {}),
            **({"windows_a_row": common.inputs_a_row} if kind_of(common.task).windows else {}),
            "single_rows": setting.singles,
            "rows_a_pass": sum(map(rows_in, setting.batches)),
            "threads": setting.environment["threads"],
            "idle_threads": setting.waiting,
            "bootstrap": statistics.RESAMPLES,
            "precision": plan.precision,
            "order": "all models a slice each, in an order that is drawn anew for each slice",
            "interval": f"95 %, {statistics.method(rounds.done)} on the pairs' log ratios",
            "seconds": rounds.seconds,
            "stopped_because": rounds.stopped,
        },
        "energy": {
            "label": energy.weakest(sorted(rounds.labels)),
            "source": "; ".join(one.name for one in taken.sources if one.part != energy.RAM),
            "detail": "; ".join(sorted(rounds.sources)) + ". RAM is told apart and is in no ratio" + taken.check,
            "idle_watts": taken.idle_watts,
        },
        "carbon": common.intensity.as_dict() if common.intensity else None,
        "traffic_per_day": common.traffic or None,
        "embodied_g_per_hour": common.embodied or None,
        "control": results.control_row(common.baseline, rounds, plan.precision),
        **({"own_length": _own_length(common.written, plan)} if common.written else {}),
        "flags": results.flags(models, common),
        "models": models,
    }


def _own_length(written: OfLength, plan: Plan) -> dict[str, Any]:
    """Return what is written down of the rounds in which each model wrote to its own end."""
    return {
        "pairs": written.rounds.done,
        "seconds": written.rounds.seconds,
        "stopped_because": written.rounds.stopped,
        "control": results.control_row(written.own[0], written.rounds, plan.precision),
    }
