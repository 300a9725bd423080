"""`bonsai advise`: which levels are sensible, before anything is trained."""

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.metrics.advice import advice
from kfp_bonsai.shared.models.configuration import family_name
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.models.pretrained import read


def advise(model: str, *, rows: int) -> dict[str, str]:
    """Say which compression levels are sensible for a model and a number of rows, and on what evidence.

    Args:
        model: Model folder, hub name, embedded:minilm (mpnet, smollm2), or a family's name such as gpt2.
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
    try:
        return family_name(read(model).config.model_type)
    except BonsaiError as error:
        raise BonsaiError(f"{error}; or give a family ({', '.join(FAMILIES)})") from error
