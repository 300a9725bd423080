"""Cron expressions as Kubeflow Pipelines takes them: six fields, from seconds to weekdays."""

import re

from kfp_bonsai.shared.core.errors import BonsaiError

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
FIELDS = {
    "second": (0, 59, ()),
    "minute": (0, 59, ()),
    "hour": (0, 23, ()),
    "day": (1, 31, ()),
    "month": (1, 12, MONTHS),
    "weekday": (0, 6, DAYS),
}
PART = re.compile(r"(?P<first>\*|\?|\w+)(-(?P<last>\w+))?(/(?P<step>[0-9]{1,4}))?")
EVERY = re.compile(r"@every ([1-9]\d*(h|m|s))+")
WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def check_cron(text: str) -> None:
    """Refuse what is no cron expression of six fields.

    Args:
        text: such as "0 30 3 * * MON-FRI", "@daily" or "@every 12h".

    Raises:
        BonsaiError: too few or too many fields, or one that is out of range.
    """
    if text in WORDS or EVERY.fullmatch(text):
        return
    fields = text.split()
    if len(fields) != len(FIELDS):
        hint = f'; with seconds before it: "0 {text}"' if len(fields) == len(FIELDS) - 1 else ""
        raise BonsaiError(
            f"--cron '{text}' has {len(fields)} fields: Kubeflow Pipelines takes six, {' '.join(FIELDS)}, such as "
            f'"0 0 3 * * MON"{hint}'
        )
    for field, (name, (least, most, names)) in zip(fields, FIELDS.items(), strict=True):
        for part in field.split(","):
            if not _fits(part, least, most, names, any_word=name in ("day", "weekday")):
                known = f"{least} to {most}" + (f" or {names[0]} to {names[-1]}" if names else "")
                raise BonsaiError(f"--cron '{text}': {name} '{part}' is not *, {known}, a range (1-5) or a step (*/5)")


def _fits(part: str, least: int, most: int, names: tuple[str, ...], any_word: bool) -> bool:
    found = PART.fullmatch(part)
    if not found or (found["step"] is not None and int(found["step"]) < 1):
        return False
    if found["first"] in ("*", "?"):
        return found["last"] is None and (found["first"] == "*" or any_word)
    ends = [_number(each, least, names) for each in (found["first"], found["last"] or found["first"])]
    return all(least <= each <= most for each in ends) and ends[0] <= ends[1]


def _number(text: str, least: int, names: tuple[str, ...]) -> int:
    if text.upper() in names:
        return names.index(text.upper()) + least
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 5 else -1
