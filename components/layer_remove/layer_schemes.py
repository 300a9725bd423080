"""The ways to choose layers, by their names."""

from pathlib import Path

from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.kinds.kind import Kind
from kfp_bonsai.shared.models.configuration import family_name
from kfp_bonsai.shared.models.families import FAMILIES

AUTO, LIKELIHOOD, IMPORTANCE, LOWER_LAST = "auto", "likelihood", "importance", "lower-last"
BOTTOM, EVEN, TOP = "bottom", "even", "top"
SCHEMES = (AUTO, LOWER_LAST, LIKELIHOOD, IMPORTANCE, BOTTOM, EVEN, TOP)


def scheme_for(kind: Kind, scheme: str, model_type: str, data: Path, without_answers: bool) -> str:
    """Return the scheme that was asked for, or what auto takes for a kind of task and a family.

    Args:
        kind: what the model does.
        scheme: one of SCHEMES.
        model_type: the model's, as transformers calls it.
        data: the split that layers are scored on, for the error's sake.
        without_answers: whether it has none.

    Raises:
        BonsaiError: there is no such scheme, or it scores layers on what is not there.
    """
    check_choice("--scheme", scheme, SCHEMES)
    if scheme == AUTO:
        reads_on = FAMILIES[family_name(model_type)].reads == "last"
        scheme = LIKELIHOOD if kind.writes or reads_on else LOWER_LAST
    if scheme in (LIKELIHOOD, IMPORTANCE) and kind.writes and without_answers:
        raise BonsaiError(f"{data} has no answers to score layers on: give the validation split")
    return scheme
