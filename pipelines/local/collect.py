"""What users want out of a finished run: its files, and a table of its results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.local.folder import RESULTS, clear
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import put_copy
from kfp_bonsai.shared.saved.records import read_record


def collect(work: Path, output: Path) -> None:
    """Copy what users want out of the tasks' folders: nothing, if the run found nothing to do."""
    clear(output, RESULTS)
    for decision in every(work, "promote*/decision")[:1] or every(work, "check-drift*/decision")[:1]:
        put_copy(decision, output / "decision.json")
    if not every(work, "report*/html") and (output / "decision.json").is_file():
        return
    report = newest(work, "report*/html").parent
    for source, target in (("html", "report.html"), ("markdown", "report.md"), ("results", "results.json")):
        put_copy(report / source, output / target)
    put_copy(report / "figures", output / "figures")
    for package in every(work, "package-model*/package"):
        target = "edge-model" if read_record(package)["stage"] == "quantize" else "model"
        if not (output / target).exists():
            put_copy(package, output / target)


def newest(work: Path, pattern: str) -> Path:
    """Return the newest of what matches in the tasks' folders, which must be there."""
    found = every(work, pattern)
    if not found:
        raise BonsaiError(f"the pipeline ended without {pattern} in {work}: this is a fault of ours, please report it")
    return found[0]


def every(work: Path, pattern: str) -> list[Path]:
    """Return what matches in the tasks' folders, the newest first: a task that was tried again has older ones."""
    return sorted(work.glob(f"**/{pattern}"), key=lambda path: -path.stat().st_mtime_ns)


def result_table(results: Mapping[str, Any]) -> list[str]:
    """Return the rows of results.json as aligned lines."""
    metric = results["task"].get("metric", "accuracy")
    header = ["level", "stage", metric, "relative", "emission", "FLOPs", "size", "p50", "device"]
    lines = [header]
    before = ""
    for row in results["rows"]:
        if before not in ("", row.get("measurement", "")):
            lines.append([""] * len(header))
        before = row.get("measurement", "")
        lines.append(
            [
                row["level"],
                "ready-made" if row.get("student") and row["stage"] == "compressed" else row["stage"],
                _number(row["accuracy"], ".3f"),
                _number(row["relative_accuracy"], ".1%"),
                _number(row["relative_emission"], ".1%") + _interval(row.get("relative_emission_ci")),
                _number(row["flops_ratio"], ".1%"),
                _number(row["size_bytes"] and row["size_bytes"] / 1e6, ".1f", " MB"),
                _number(row["latency_ms_p50"], ".1f", " ms"),
                str(row["device"]).partition(" ")[0],
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _interval(pair: Sequence[float] | None) -> str:
    return f" ({pair[0]:.1%} to {pair[1]:.1%})" if pair else ""
