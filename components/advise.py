"""`bonsai advise`: which levels are sensible, before anything is trained."""

import json
from pathlib import Path

from kfp_bonsai.shared.advice import advice
from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.families import FAMILIES, family_name


def advise(model: str, *, rows: int) -> dict[str, str]:
    """Say which compression levels are sensible for a model and a number of rows, and on what evidence.

    Args:
        model: Model folder, embedded:minilm, or a family's name such as gpt2.
        rows: Labelled rows to train on.

    Returns:
        Each level's verdict.

    Raises:
        BonsaiError: there is no such model or family, or no rows.

    Example:
        bonsai advise --model gpt2 --rows 5000
        bonsai advise --model ./my-bert --rows 800
    """
    if rows < 1:
        raise BonsaiError(f"--rows {rows}: give the number of labelled rows, 1 or more")
    family = model if model in FAMILIES else _family_at(model)
    return {one.level: f"{one.verdict}: {one.why}" for one in advice(family, rows)}


def _family_at(model: str) -> str:
    from kfp_bonsai.shared.checkpoint import find_model

    config = Path(find_model(model)) / "config.json"
    if not config.is_file():
        raise BonsaiError(f"--model {model}: no such folder; give one, or a family ({', '.join(FAMILIES)})")
    return family_name(json.loads(config.read_text(encoding="utf-8")).get("model_type", ""))
