"""`bonsai advise`: which levels are sensible, before anything is trained."""

from collections.abc import Sequence
from pathlib import Path

from kfp_bonsai.shared.core.errors import BonsaiError, check_choice, nearest
from kfp_bonsai.shared.kinds.kinds import KINDS, answered_alike
from kfp_bonsai.shared.metrics.advice import Situation, advice
from kfp_bonsai.shared.metrics.evidence import own_evidence, shipped
from kfp_bonsai.shared.models.configuration import family_name
from kfp_bonsai.shared.models.families import FAMILIES, REFUSED
from kfp_bonsai.shared.saved.pretrained import read


def advise(model: str, *, rows: int, kind: str = "", evidence: Sequence[str] = ()) -> dict[str, str]:
    """Say which compression levels are sensible for a model and a number of rows, and on what evidence.

    It says which shape keeps more, whether text without labels is worth finding, and when a ready-made model does as
    well too, where that was measured. The evidence is what comes with this package and what finished studies left in
    the cache folder ($BONSAI_CACHE, else ~/.cache/kfp-bonsai, under evidence/), of which the nearest situation counts:
    by family, size of the model, rows and kind of task.

    Args:
        model: Model folder, hub name, embedded:minilm (mpnet, smollm2), or a family's name such as gpt2.
        rows: Labelled rows to train on.
        kind: Kind of task: classification, regression, multi-label, tokens, questions, ranking or generation; "" if it
            is not known.
        evidence: A study's folder, or an evidence.json, to be heeded beside; can be repeated.

    Returns:
        Each level's verdict, and what else is known.

    Raises:
        BonsaiError: there is no such model or family, it cannot be compressed, no rows, or evidence that is damaged.

    Example:
        bonsai advise --model gpt2 --rows 5000
        bonsai advise --model ./my-bert --rows 800 --kind regression --evidence runs/study
    """
    if rows < 1:
        raise BonsaiError(f"--rows {rows}: give the number of labelled rows, 1 or more")
    if kind:
        check_choice("--kind", kind, [*KINDS])
    own = own_evidence(evidence)
    family, parameters = _about(model)
    found = advice(Situation(family, rows, parameters, kind, answered_alike(kind)), shipped(), own)
    return {one.about: f"{one.verdict}: {one.why}" for one in found}


def _about(model: str) -> tuple[str, int]:
    """Return a model's family, and its parameters, 0 where only the family was named."""
    named = {_plain(name): name for name in [*FAMILIES, *REFUSED]}.get(_plain(model), "")
    if named and not Path(model).exists():
        return family_name(named), 0
    try:
        found = read(model)
    except BonsaiError as error:
        hint = "" if "/" in model else nearest(model, [*FAMILIES, *REFUSED])
        raise type(error)(f"{error}; or give a family ({', '.join(FAMILIES)}){hint}") from error
    return family_name(found.config.model_type), sum(one.numel() for one in found.outline.parameters())


def _plain(name: str) -> str:
    """Return a name as people may write it: GPT-2, gpt_neox, DeBERTa V2."""
    return "".join(sign for sign in name.lower() if sign not in "-_ .")
