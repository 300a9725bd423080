"""Label Studio's own export as rows: a task's data, and what an annotator marked in its text, or chose for it."""

from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError


def is_task(found: Any) -> bool:
    """Return whether an object is a task of such a file."""
    return (
        isinstance(found, dict) and isinstance(found.get("data"), dict) and isinstance(found.get("annotations"), list)
    )


def row(found: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a task as a row: its data, and "entities" that were marked, or the "label" that was chosen.

    Raises:
        BonsaiError: several annotations are there, and none is said to be the right one.
    """
    given = [one for one in found["annotations"] if isinstance(one, dict) and not one.get("was_cancelled")]
    given = [one for one in given if one.get("ground_truth")] or given
    if len(given) > 1:
        raise BonsaiError(
            f"{where}: {len(given)} annotations of one text, and none is said to be the right one: mark it as ground "
            "truth, or leave the others out of the export"
        )
    if not given:
        return {**found["data"], "entities": None}
    values = [one["value"] for one in given[0].get("result") or () if isinstance(one.get("value"), dict)]
    chosen = [choice for value in values for choice in value.get("choices") or ()]
    if chosen:
        return {**found["data"], "label": chosen[0] if len(chosen) == 1 else chosen}
    return {**found["data"], "entities": [value for value in values if "labels" in value]}
