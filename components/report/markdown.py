"""The report as Markdown: the verdict, the table and the reasons, for the KFP UI and READMEs."""

from typing import Any

TABLE = {
    "level": "name",
    "relative {metric}": "relative_accuracy",
    "relative emission": "relative_emission",
    "{metric}": "accuracy",
    "FLOPs": "flops",
    "parameters": "parameters",
    "size": "size",
    "p50 / p95, ms": "latency",
    "rows/s": "throughput",
    "paid back after": "payback",
}
WITH_INTERVAL = ("relative_accuracy", "relative_emission", "accuracy")


def render(page: dict[str, Any]) -> str:
    """Return the page's content as Markdown."""
    lines = [f"# {_text(page['title'])}", "", f"**{_text(page['verdict'])}**", ""]
    lines += [" · ".join(_text(tag["text"]) for tag in page["tags"]), ""]
    lines += [line for sentence in page["beside"] for line in (_text(sentence), "")]
    for part in page["tables"]:
        heads = [head.format(metric=page["metric"]) for head in TABLE]
        lines += [f"### {_text(part['caption'])}", "", _line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
        lines += [_line(_cells(row)) for row in part["rows"]]
        lines.append("")
    lines += ["Relative figures are to the baseline on the same device; 95 % intervals in brackets.", ""]
    lines += ["### Can this be believed?", ""]
    marks = {True: "yes", False: "**caution**", None: "note"}
    lines += [f"- {marks[check.good]} – {_text(check.name)}: {_text(check.text)}" for check in page["checks"]]
    if page["command"]:
        lines += ["", "### Do it again", "", "```", page["command"], "```"]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    name = _text(row["name"])
    cells = [f"**{name}** (chosen)" if row["chosen"] else name]
    if row["error"]:
        return [*cells, f"failed: {_text(row['error'])}", *[""] * (len(TABLE) - 2)]
    for key in list(TABLE.values())[1:]:
        value = f"{row['p50']} / {row['p95']}" if key == "latency" else row[key]
        ends = row.get(f"{key}_ci") if key in WITH_INTERVAL else ""
        cells.append(f"{value} ({ends})" if ends else value)
    return cells


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(text: str) -> str:
    for sign in "\\|*_<>`[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")
