"""What a study shows in a sentence, and the reasons to believe its means or not."""

from collections.abc import Iterable, Sequence
from typing import Any

from kfp_bonsai.report import words
from kfp_bonsai.report.means import KEPT_OUT, WHY_KEPT_OUT, is_kept_out
from kfp_bonsai.report.numbers import percent_span
from kfp_bonsai.report.reasons import Check
from kfp_bonsai.report.series import is_ready_made
from kfp_bonsai.report.study_cells import STATES, Cell, Study
from kfp_bonsai.report.study_record import DONE
from kfp_bonsai.report.table import ready_made_above
from kfp_bonsai.shared.core.errors import listed
from kfp_bonsai.shared.metrics import control

SAID = {control.FAILED: "failed", control.INCONCLUSIVE: "is inconclusive", control.MISSING: "is missing"}
Groups = Sequence[tuple[str, dict[str, list[dict[str, Any]]]]]


def verdict(study: Study, groups: Groups) -> str:
    """Say in one sentence what the smallest levels keep and emit, or that nothing is known."""
    smallest = []
    for rows in (rows for _, models in groups for rows in models.values()):
        own = [row for row in rows if row["stage"] == "compressed" and not is_ready_made(row)]
        smallest += [min(own, key=lambda row: row["relative_emission"])] if own else []
    if not study.cells:
        return "The study has no cells."
    if not smallest:
        told = [f"{_count(study.of(state), state)}" for state in STATES if study.of(state)]
        start = "No level was measured that counts in a mean" if study.of(DONE) else "Nothing is known yet"
        return f"{start} of {_cells(study.cells)}: {', '.join(told)}."
    kept, emitted = ([row[name] for row in smallest] for name in ("relative_accuracy", "relative_emission"))
    whose = "each model’s" if len({row for _, models in groups for row in models}) > 1 else "the"
    done = len(study.of(DONE))
    of_all = f" ({done} of {len(study.cells)} cells)" if done < len(study.cells) else ""
    text = f"{whose} smallest level keeps {percent_span(kept)} of the score at {percent_span(emitted)} of the emission"
    return f"{text[:1].upper()}{text[1:]}{of_all}."


def in_short(study: Study, groups: Groups) -> list[str]:
    """Return what has to be seen in the first seconds."""
    told = [_count(study.of(state), f"{state}") for state in STATES[1:] if study.of(state)]
    doubtful = [cell for cell in study.cells if cell.run and _state(cell) != control.PASSED]
    told += [f"control not passed in {_cells(doubtful)}"] if doubtful else []
    told += ["means over different tasks"] if _unequal(groups) else []
    done = [cell for cell in study.cells if cell.run]
    told += ["baseline no better than a bag of words or the like"] if _below_floor(done) else []
    told += ["levels no better than a bag of words or the like"] if _levels_below_floor(done) else []
    told += ["levels below a ready-made model"] if _below_ready_made(done) else []
    return told


def checks(study: Study, groups: Groups) -> list[Check]:
    """Return the reasons to believe the means or not, the most important first."""
    done = [cell for cell in study.cells if cell.run]
    return [
        *_controls(done),
        *_levels_that_failed(done),
        *_unequal(groups),
        *_below_floor(done),
        *_levels_below_floor(done),
        *_below_ready_made(done),
        *_kept_out(study.cells),
        *_one_seed(done),
        *_labels(done),
    ]


def _state(cell: Cell) -> str:
    return control.of_results(cell.run.document) if cell.run else control.MISSING


def _controls(done: list[Cell]) -> list[Check]:
    found: dict[str, list[Cell]] = {}
    for cell in done:
        found.setdefault(_state(cell), []).append(cell)
    if not done:
        return []
    if set(found) == {control.PASSED}:
        return [Check(True, "Control", f"The baseline measured against itself gave 1, as it must, in {_cells(done)}.")]
    return [
        Check(False, "Control", f"It {SAID.get(state, state)} in {_named(cells)}: do not rely on the emission there.")
        for state, cells in found.items()
        if state != control.PASSED
    ]


def _levels_that_failed(done: list[Cell]) -> list[Check]:
    return [
        Check(False, "Failed", f"{words.name_of(row)} of {cell.name} could not be measured: {row['error']}.")
        for cell in done
        if cell.run
        for row in cell.run.rows
        if row["error"]
    ]


def _unequal(groups: Groups) -> list[Check]:
    """Say where means of one figure are not over the same tasks."""
    found = []
    for name, models in groups:
        over: dict[str, list[str]] = {}
        for model, rows in models.items():
            levels = {words.name_of(row): ", ".join(sorted(row["tasks"])) for row in rows if row["stage"] != "baseline"}
            alike = len({*levels.values()}) == 1
            for tasks in dict.fromkeys(levels.values()):
                own = [level for level in levels if levels[level] == tasks]
                over.setdefault(tasks, []).append(model if alike else f"{model} ({'; '.join(own)})")
        if len(over) > 1:
            told = [f"those of {', '.join(whose)} are over {tasks}" for tasks, whose in over.items()]
            text = f"{name}: not all means are over the same tasks, so they cannot be held against each other: "
            found.append(Check(False, "Means", text + "; ".join(told) + "."))
    return found


def _no_better_than_floor(cell: Cell) -> list[dict[str, Any]]:
    """Return a cell's models that what costs next to nothing does as well as."""
    floor = cell.run.document.get("floor_accuracy") if cell.run else None
    known = [row for row in cell.run.rows if row["accuracy"] is not None] if cell.run and floor is not None else []
    return [row for row in known if row["accuracy"] <= floor]


def _has_baseline(rows: Sequence[dict[str, Any]]) -> bool:
    return any(row["stage"] == "baseline" for row in rows)


def _below_floor(done: list[Cell]) -> list[Check]:
    low = [cell for cell in done if _has_baseline(_no_better_than_floor(cell))]
    if not low:
        return []
    text = f"In {_named(low)} the baseline itself is no better than what costs next to nothing (a bag of words or the "
    return [Check(False, "Baseline", text + "like), so that what is kept of it says little.")]


def _levels_below_floor(done: list[Cell]) -> list[Check]:
    low = {cell.name: found for cell in done if (found := _no_better_than_floor(cell)) and not _has_baseline(found)}
    told = [f"{listed([*map(words.name_of, rows)])} of {name}" for name, rows in low.items()]
    text = "No better than what costs next to nothing (a bag of words or the like), while the baseline is: "
    return [Check(False, "Floor", f"{text}{'; '.join(told)}.")] if told else []


def _below_ready_made(done: list[Cell]) -> list[Check]:
    """Say which levels keep less than a ready-made model that emits no more."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in done:
        rows = cell.run.drawable if cell.run else []
        for level, rival in ((row, one) for row in rows for one in ready_made_above(row, rows)):
            found.setdefault((words.name_of(level), words.name_of(rival)), []).append(cell)
    return [
        Check(False, "Ready-made", f"{level} keeps less than {rival}, which emits no more, in {_named(cells)}.")
        for (level, rival), cells in found.items()
    ]


def _kept_out(cells: Iterable[Cell]) -> list[Check]:
    names = dict.fromkeys(cell.data for cell in cells if is_kept_out(cell))
    return [Check(None, KEPT_OUT.upper(), f"{listed([*names])} is in no mean: {WHY_KEPT_OUT}.")] if names else []


def _one_seed(done: list[Cell]) -> list[Check]:
    seeds: dict[tuple[str, str], set[int]] = {}
    for cell in done:
        seeds.setdefault((cell.model, cell.data), set()).add(cell.seed)
    once = [f"{model} on {data}" for (model, data), found in seeds.items() if len(found) == 1]
    if not once:
        return []
    text = f"One seed only of {listed(once)}: its interval is that of other test rows, and another seed may stray more."
    return [Check(None, "Seeds", text)]


def _labels(done: list[Cell]) -> list[Check]:
    labels = {row["emission_label"] for cell in done if cell.run for row in cell.run.drawable} - {None}
    devices = {row["device"] for cell in done if cell.run for row in cell.run.rows} - {None}
    found = []
    if labels:
        text = f"The emission is {' and '.join(sorted(labels))}."
        found.append(Check(True if labels == {"measured"} else None, "Energy", text))
    if len(devices) > 1:
        text = f"Measured on {listed(sorted(devices))}: emissions of different devices can differ for the same model."
        found.append(Check(False, "Devices", text))
    return found


def _named(cells: Sequence[Cell]) -> str:
    return ", ".join(cell.name for cell in cells)


def _cells(cells: Sequence[Cell]) -> str:
    return f"{len(cells)} cell{'s' * (len(cells) != 1)}"


def _count(cells: Sequence[Cell], state: str) -> str:
    return f"{_cells(cells)} {state}"
