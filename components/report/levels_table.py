"""The table of the levels of several runs or models: for a page (parts.html), and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bonsai.report import page
from kfp_bonsai.report.markdown import line
from kfp_bonsai.report.several import MARKERS, look
from kfp_bonsai.shared.core.markup import text


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        head: what it is called.
        key: the value, of what page.table gives.
        beside: what stands below it in small print, or in brackets; "" for nothing.
        of_beside: what the head says of that; "" where intervals say it.
        bar: whether the value is drawn as a bar too.
        more: a list of what stands below that; "" for none.
    """

    head: str
    key: str
    beside: str = ""
    of_beside: str = ""
    bar: bool = False
    more: str = ""


def kept_and_emitted(metric: str) -> tuple[Column, ...]:
    """Return the columns with which each such table begins."""
    return (
        Column(f"relative {metric}", "relative_accuracy", "relative_accuracy_ci"),
        Column("relative emission", "relative_emission", "relative_emission_ci", bar=True),
        Column(metric, "accuracy", "accuracy_ci", more="scores"),
    )


def part(
    name: str,
    at: int,
    rows: Sequence[dict[str, Any]],
    task: dict[str, Any],
    letters: Mapping[str, str],
    badge: str = "",
) -> dict[str, Any]:
    """Return the part of one run or model.

    Args:
        name: of the run or model.
        at: its number, for its colour and marker.
        rows: its models.
        task: what they are for.
        letters: of the levels; those of the figure, or none.
        badge: what the chosen model is called.
    """
    colour, marker = look(at)
    lines = page.table(list(rows), task)
    for each in lines:
        each["letter"] = letters.get(each["name"], "")
    return {"name": name, "colour": colour, "sign": MARKERS[marker], "badge": badge, "rows": lines}


def table_of(
    caption: str, columns: Sequence[Column], parts: Sequence[dict[str, Any]], only_narrow: bool = False
) -> dict[str, Any]:
    """Return the table as the page takes it.

    Args:
        caption: what it is of.
        columns: beside the levels' names.
        parts: of the runs or models.
        only_narrow: whether only the figure for phones has letters.
    """
    for row in (row for each in parts for row in each["rows"]):
        row["cells"] = [
            (
                row[one.key],
                [*filter(None, [one.beside and row[one.beside]]), *(row[one.more] if one.more else [])],
                row["bar"] if one.bar else "",
            )
            for one in columns
        ]
    heads = [(one.head, one.of_beside) for one in columns]
    return {"caption": caption, "heads": heads, "parts": parts, "only_narrow": only_narrow}


def as_markdown(table: Mapping[str, Any], of: str) -> list[str]:
    """Return the table as lines of Markdown.

    Args:
        table: what table_of gives.
        of: what its parts are, "run" or "model".
    """
    heads = [of, "level", *(f"{head} ({small})" if small else head for head, small in table["heads"])]
    lines = [line([text(head) for head in heads]), line(["---", "---"] + ["---:"] * (len(heads) - 2))]
    for each in table["parts"]:
        for row in each["rows"]:
            name = f"**{text(row['name'])}** ({each['badge']})" if row["chosen"] else text(row["name"])
            cells = [text(each["name"]), name + " (ready-made)" * row["ready_made"]]
            if row["error"]:
                lines.append(line([*cells, f"failed: {text(row['error'])}", *[""] * (len(heads) - 3)]))
                continue
            lines.append(
                line(
                    cells
                    + [text(f"{value} ({'; '.join(small)})" if small else value) for value, small, _ in row["cells"]]
                )
            )
    return lines
