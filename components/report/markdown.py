"""The report as Markdown: the verdict, the table and the reasons, for the KFP UI and READMEs."""

from typing import Any

from kfp_bonsai.shared.core.markup import code, text

TABLE = {
    "level": "name",
    "relative {metric}": "relative_accuracy",
    "relative emission": "relative_emission",
    "{metric}": "accuracy",
    "FLOPs": "flops",
    "parameters": "parameters",
    "size": "size",
    "peak memory": "memory",
    "p50 / p95 / p99, ms": "latency",
    "rows/s": "throughput",
    "paid back after": "payback",
}
BESIDE = {name: f"{name}_ci" for name in ("relative_accuracy", "relative_emission", "accuracy")} | {
    "throughput": "batch"
}


def render(page: dict[str, Any]) -> str:
    """Return the page's content as Markdown."""
    lines = [f"# {text(page['title'])}", "", f"**{text(page['verdict'])}**", ""]
    lines += [" · ".join(text(tag["text"]) for tag in page["tags"]), ""]
    lines += [part for sentence in page["beside"] for part in (text(sentence), "")]
    for part in page["tables"]:
        heads = [head.format(metric=page["metric"]) for head in TABLE]
        lines += [f"### {text(part['caption'])}", "", line(heads), line(["---"] + ["---:"] * (len(heads) - 1))]
        lines += [line(_cells(row)) for row in part["rows"]]
        lines.append("")
    lines += ["Relative figures are to the baseline on the same device; 95 % intervals in brackets.", ""]
    lines += page["written"]
    lines += _labels(page)
    lines += ["### Can this be believed?", ""]
    lines += checks(page["checks"])
    if page["command"]:
        lines += ["", "### Do it again", "", *code(page["command"])]
    return "\n".join(lines) + "\n"


def checks(found: list[Any]) -> list[str]:
    """Return the reasons to believe the figures or not."""
    marks = {True: "yes", False: "**caution**", None: "note"}
    return [f"- {marks[check.good]} – {text(check.name)}: {text(check.text)}" for check in found]


def _labels(page: dict[str, Any]) -> list[str]:
    """Return the table of the labels, of which a row may have several; nothing where there are none."""
    classes = page["classes"]
    if not classes or classes["one"] != "label":
        return []
    figures = ("precision", "recall", "F1")
    heads = ["label", classes["counted"], *(f"{figure}, baseline → chosen" for figure in figures), "F1, points"]
    lines = ["### Label by label", "", line(heads), line(["---"] + ["---:"] * (len(heads) - 1))]
    for one in classes["lines"]:
        pairs = [" → ".join(both) for both in zip(one["before"], one["after"], strict=True)]
        lines.append(line([text(one["name"]), one["rows"], *pairs, one["change"]]))
    return [*lines, ""]


def _cells(row: dict[str, Any]) -> list[str]:
    name = text(row["name"]) + " (ready-made)" * row["ready_made"]
    cells = [f"**{name}** (chosen)" if row["chosen"] else name]
    if row["error"]:
        return [*cells, f"failed: {text(row['error'])}", *[""] * (len(TABLE) - 2)]
    for key in list(TABLE.values())[1:]:
        latency = f"{row['p50']} / {row['p95']} / {row['p99']}"
        cells.append(latency if key == "latency" else with_interval(row, key))
    return cells


def with_interval(row: dict[str, Any], key: str) -> str:
    """Return a value of a row with what belongs beside it in brackets."""
    found = [row[BESIDE[key]]] if key in BESIDE else []
    beside = "; ".join(filter(None, [*found, *(row["scores"] if key == "accuracy" else [])]))
    return f"{row[key]} ({beside})" if beside else row[key]


def line(cells: list[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(cells) + " |"
