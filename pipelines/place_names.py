"""What people call the places of models and data sets."""

import re

SUFFIXES = re.compile(r"(\.(csv|tsv|jsonl?|ndjson|parquet|txt|conll|gz|zip|bz2|xz|zst))+$", re.IGNORECASE)


def last_parts(place: str, number: int = 1) -> str:
    """Return the last parts of a path or a hub name, without a suffix such as .csv.gz and without patterns.

    Args:
        place: such as data/reviews.csv, gs://bucket/reviews/*.parquet, or glue:mrpc.
        number: how many; they are joined by hyphens.
    """
    parts = [SUFFIXES.sub("", each) for each in re.split(r"[/:\\]", place) if each.strip("*?. ")]
    named = [each for each in parts if each and "*" not in each] or [each for each in parts if each] or [place]
    return "-".join(named[-number:])
