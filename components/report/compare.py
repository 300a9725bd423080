"""`bonsai compare`: several runs in one figure and one table, as in the white paper's Figures 4 to 6."""

from importlib import metadata
from pathlib import Path
from typing import Any

from kfp_bonsai.report import levels_table, several, words
from kfp_bonsai.report.levels_table import Column
from kfp_bonsai.report.numbers import percent_span
from kfp_bonsai.report.series import Series
from kfp_bonsai.report.several import Run
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.kinds.kinds import kind_in
from kfp_bonsai.shared.metrics import control

BESIDE = (
    Column("FLOPs", "flops"),
    Column("size", "size"),
    Column("latency p50, ms", "p50"),
)
CAPTION = "Each point is a model, each line a run; the bars are 95 % intervals."


def compare(run: list[Path], /, output: Path, *, title: str = "") -> dict[str, str | int]:
    """Draw several runs into one figure and one table: relative accuracy against relative emission.

    Args:
        run: A run's folder, or its results.json; two or more.
        output: Folder to make, for compare.html, compare.md, compare.csv, compare.svg and compare.png.
        title: What the comparison is called.

    Returns:
        How many runs and models were drawn, and where the page is.

    Raises:
        BonsaiError: fewer than two runs, one without results.json or of another format, or output exists.

    Example:
        bonsai compare runs/reviews runs/news --output compared
    """
    if len(run) < 2:
        raise BonsaiError(f"{len(run)} run was given: give the folders of two runs or more to compare")
    found = _named([several.read_run(path) for path in run])
    for each in found.values():
        if not any(row["stage"] != "baseline" for row in each.drawable):
            raise BonsaiError(f"{each.path} has no compressed model that was measured: leave it out, or run it again")
    from kfp_bonsai.report import page as html_page
    from kfp_bonsai.report.drawn import draw_lines  # which imports matplotlib

    letters = several.letters(row for each in found.values() for row in each.drawable)
    metric = several.metric_of(each.task for each in found.values())
    with new_folder(Path(output)) as folder:
        series = [
            Series(name, colour, each.drawable, None, marker)
            for at, (name, each) in enumerate(found.items())
            for colour, marker in [several.look(at)]
        ]
        figure = draw_lines(series, metric, letters, folder, "compare", CAPTION)
        page = _page(found, figure, letters, title or f"{len(found)} runs compared", metric)
        lines = [({"run": name}, row) for name, each in found.items() for row in each.rows]
        several.write_csv(lines, ["run"], folder / "compare.csv")
        page["files"] = sorted([*(path.name for path in folder.iterdir()), "compare.md"])
        (folder / "compare.md").write_text(_markdown(page), encoding="utf-8")
        (folder / "compare.html").write_text(html_page.render(page, "compare.html"), encoding="utf-8")
    say(f"compare  {page['verdict']}")
    return {
        "runs": len(found),
        "models": sum(len(each.drawable) for each in found.values()),
        "page": str(Path(output) / "compare.html"),
    }


def _named(found: list[Run]) -> dict[str, Run]:
    """Return the runs by their titles; those of one title are numbered."""
    titles = [str(each.document.get("title") or each.path) for each in found]
    named = {}
    for at, (title, each) in enumerate(zip(titles, found, strict=True)):
        number = f" ({titles[:at].count(title) + 1})" if titles.count(title) > 1 else ""
        named[title + number] = each
    return named


def _page(
    found: dict[str, Run], figure: dict[str, Any], letters: dict[str, str], title: str, metric: str
) -> dict[str, Any]:
    """Work out what the page and the Markdown say."""
    parts = [
        levels_table.part(
            name,
            at,
            each.rows,
            each.task,
            letters if figure["letters"] else {},
            "chosen" if _met(each) else "nearest",
        )
        for at, (name, each) in enumerate(found.items())
    ]
    units = " or ".join(dict.fromkeys(f"{kind_in(each.task).unit}s" for each in found.values()))
    columns = [*levels_table.kept_and_emitted(metric), *BESIDE, Column(f"paid back after, {units}", "payback")]
    caption = f"Relative {metric} and emission of the levels of each run"
    low = [f"no better than a {kind_in(each.task).floor_name[0]}: {name}" for name, each in found.items() if _low(each)]
    states = [(name, control.of_results(each.document)) for name, each in found.items()]
    return {
        "what": "comparison",
        "title": title,
        "verdict": _verdict([*found.values()], metric),
        "doubts": [*(f"control {state}: {name}" for name, state in states if state != control.PASSED), *low],
        "figure": figure,
        "table": levels_table.table_of(caption, columns, parts, figure["only_narrow"]),
        "runs": [{"name": name, "facts": [fact for fact in _facts(each) if fact[1]]} for name, each in found.items()],
        "version": metadata.version("kfp-bonsai"),
    }


def _met(run: Run) -> bool:
    return bool((run.document.get("chosen") or {}).get("meets_target"))


def _low(run: Run) -> bool:
    """Tell whether what costs next to nothing does as well as the model that was chosen, or as the baseline."""
    floor = run.document.get("floor_accuracy")
    told = [row["accuracy"] for row in run.drawable if row["chosen"] or row["stage"] == "baseline"]
    return floor is not None and any(score is not None and score <= floor for score in told)


def _verdict(found: list[Run], metric: str) -> str:
    """Say in one sentence what the runs' chosen models keep, and at what emission."""
    chosen = [row for run in found for row in run.drawable if row["chosen"]]
    if not chosen:
        return f"None of {len(found)} runs chose a model."
    kept, emitted = ([row[name] for row in chosen] for name in ("relative_accuracy", "relative_emission"))
    whose = "The models chosen" if len(chosen) == len(found) else f"The {len(chosen)} models chosen"
    what = f"{percent_span(kept)} of the {metric} at {percent_span(emitted)} of the emission"
    return f"{whose} in {len(found)} runs keep {what}."


def _facts(run: Run) -> list[tuple[str, str]]:
    document, task = run.document, run.task
    energy, target, state = document.get("energy") or {}, document.get("target") or {}, control.of_results(document)
    return [
        ("data set", str(task.get("name", ""))),
        ("model", str(run.rows[0]["model"] or "")),
        ("test rows", f"{document.get('test_rows') or 0:,}"),
        ("device", "; ".join(dict.fromkeys(str(row["device"]) for row in run.rows if row["device"]))),
        ("energy", " · ".join(str(energy[key]) for key in ("label", "source") if energy.get(key))),
        ("target", words.target_words(target, words.metric_name(task)) + ("" if _met(run) else " (not met)")),
        ("control", state if state == control.PASSED else f"{state}: do not rely on the emission"),
        ("made", str(document.get("created") or "")[:16].replace("T", " ")),
        ("results", str(run.path)),
    ]


def _markdown(page: dict[str, Any]) -> str:
    """Return the page's content as Markdown."""
    from kfp_bonsai.shared.core.markup import text

    lines = [f"# {text(page['title'])}", "", f"**{text(page['verdict'])}**", ""]
    lines += [f"**{text(doubt)}**\n" for doubt in page["doubts"]]
    lines += [f"![{text(page['figure']['about'])}]({page['figure']['file']})", ""]
    lines += levels_table.as_markdown(page["table"], "run")
    lines += [
        "",
        "Relative figures are to the baseline of the same run on the same device; 95 % intervals in brackets.",
    ]
    for run in page["runs"]:
        lines += ["", f"### {text(run['name'])}", ""]
        lines += [f"- {name}: {text(value)}" for name, value in run["facts"]]
    return "\n".join(lines) + "\n"
