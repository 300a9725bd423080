"""What is told of models that write, beside what is told of every model: tokens, and answers of their own length."""

from collections.abc import Sequence
from typing import Any

from kfp_bonsai.report import numbers
from kfp_bonsai.report.markdown import line
from kfp_bonsai.report.words import name_of
from kfp_bonsai.shared.core.markup import text

HEADS = (  # of the table's columns beside the level's name, each with what stands in brackets or small print
    ("tokens of its own answers", "of the baseline's"),
    ("emission of its own answers", "95 % interval"),
    ("J a token", "SCI of 1,000 tokens"),
    ("first token, ms", "p95"),
    ("tokens a second", "p95"),
    ("perplexity", "95 % interval"),
)


def table(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what each model's tokens cost and how long its answers are; nothing where none writes."""
    told = [(row, row["writing"]) for row in rows if row.get("writing")]
    if not told:
        return None
    return {
        "tokens": told[0][1]["tokens"],
        "heads": HEADS,
        "rows": [{"name": name_of(row), "chosen": row["chosen"], "cells": _cells(one)} for row, one in told],
    }


def _cells(told: dict[str, Any]) -> list[tuple[str, str]]:
    own = told.get("own") or {}
    sci = (told.get("sci_per_1000_tokens") or {}).get("sci_g")
    return [
        (numbers.significant(told["mean_tokens"]), numbers.percent(told["relative_tokens"])),
        (numbers.percent(own.get("relative_emission")), numbers.percent_interval(own.get("relative_emission_ci"))),
        (numbers.significant(told["joules_per_token"]), numbers.grams(sci) if sci is not None else ""),
        (numbers.significant(told["first_token_ms_p50"]), numbers.significant(told["first_token_ms_p95"])),
        (numbers.significant(told["tokens_per_s_p50"]), numbers.significant(told["tokens_per_s_p95"])),
        (numbers.significant(told["perplexity"]), numbers.plain_interval(told.get("perplexity_ci"), 2)),
    ]


def explained(table: dict[str, Any]) -> str:
    """Say what the table's figures are of."""
    return (
        f"An answer has {table['tokens']} tokens wherever energy, FLOPs and time are compared, as the baseline's own "
        "have on average; its own answers are those that a model ends by itself. Perplexity is that of right answers."
    )


def as_markdown(table: dict[str, Any] | None) -> list[str]:
    """Return the table as lines of Markdown."""
    if table is None:
        return []
    heads = ["level", *(f"{head} ({small})" for head, small in table["heads"])]
    lines = ["### Writing", "", line(heads), line(["---"] + ["---:"] * (len(heads) - 1))]
    for row in table["rows"]:
        name = f"**{text(row['name'])}** (chosen)" if row["chosen"] else text(row["name"])
        lines.append(line([name, *(f"{value} ({small})" if small else value for value, small in row["cells"])]))
    return [*lines, "", text(explained(table)), ""]
