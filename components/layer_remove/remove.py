"""Drop whole transformer layers."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from kfp_bonsai.layer_remove.layer_schemes import AUTO, scheme_for
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.kinds.kinds import kind_of
from kfp_bonsai.shared.models.configuration import check_depths
from kfp_bonsai.shared.saved.checkpoint import load, save
from kfp_bonsai.shared.saved.records import extend_record, read_record, short_name

LEAST_OF_DECODER = Fraction(1, 3)  # that stays while its encoder has more


def layer_remove(
    model: Path,
    data: Path,
    output: Path,
    *,
    keep: str = "1/3",
    scheme: str = AUTO,
    level: str = "",
    student: str = "",
    seed: int = 0,
) -> dict:
    """Remove whole layers from a fine-tuned model (Sajjad et al., arXiv 2004.03844), or take a ready-made one instead.

    Args:
        model: The fine-tuned model.
        data: A split on whose rows the layers are scored, with --scheme likelihood and importance.
        output: Folder to write the shorter model to.
        keep: What stays: a fraction ("1/3", "0.5"), a count ("4"), or the layers' indices ("0,2,5"); of the encoder
            and of the decoder where a model has both, or of each its own ("6+2"). Where such a model writes, a fraction
            is one of all its layers, and the decoder's go first, down to a third of them: each written token runs
            through these, and through the encoder's not at all.
        scheme: How layers are chosen where `keep` does not name them: lower-last (evenly from the lower half, and the
            last, which the classifier reads; kept most on the demo task), likelihood (one after the other goes whose
            absence costs least, as in SLEB, arXiv 2402.09025, algorithm 1: of the likelihood of right answers where the
            model writes, of that of the whole model's own answers elsewhere), importance (the ones that change their
            input most stay: block influence, arXiv 2403.03853, section 2), bottom, even, or top; auto takes likelihood
            for decoders and models that write, lower-last for others.
        level: Name of the compression level, shown in the report.
        student: A ready-made model to take instead: a folder, a hub name or embedded:NAME. It stays whole, whatever
            `keep` says, gets a new head for the task, and learns from the baseline in distill.
        seed: Seed of the choice of rows to score on, and of a new head.

    Returns:
        The layers kept, how many there were, seconds and joules.

    Raises:
        BonsaiError: `keep` asks for layers that the model has not, or the ready-made model cannot be had or taught.

    Example:
        bonsai layer-remove --model baseline --data data/validation.parquet --keep 1/3 --output short
        bonsai layer-remove --model my-t5 --data data/validation.parquet --keep 6+2 --output short
        bonsai layer-remove --model baseline --data data/validation.parquet --student embedded:bert-tiny --output tiny
    """
    record = read_record(model)
    task = tasks.read_task(data)
    if student:
        return _take(student, model, record, data, output, level, seed)
    stacks = record["shape"]["stacks"]
    asked = stacks_asked(keep, stacks, kind_of(task).writes)
    named = [one for one in asked if isinstance(one, list)]
    counts = [one for one in asked if isinstance(one, int)]
    without_answers = bool(counts) and task.split == "unlabelled"
    scheme = scheme_for(kind_of(task), scheme, record["model_type"], data, without_answers)

    from kfp_bonsai.layer_remove import choice
    from kfp_bonsai.shared.energy import energy
    from kfp_bonsai.shared.models import surgery

    with new_folder(output) as folder:
        with energy.track(energy.enduring(energy.find_sources())) as meter:
            network, tokenizer = load(model)
            kept = named or choice.choose(
                scheme, counts, kind_of(task), network, tokenizer, data, record["max_length"], seed, record["sha256"]
            )
            shorter = surgery.keep_layers(network, kept)
        names = "; ".join(",".join(map(str, one)) for one in kept)
        made = extend_record(
            record,
            stage="layer-remove",
            arguments={"keep": keep, "scheme": scheme, "layers": names},
            reading=meter.reading,
            level=level or f"{sum(map(len, kept))}/{sum(stacks)} layers",
            validation={},
        )
        save(shorter, tokenizer, folder, made)
    return {
        "layers": names,
        "layers_before": sum(stacks),
        "seconds": meter.reading.seconds,
        "joules": meter.reading.joules,
    }


def _take(student: str, model: Path, record: dict, data: Path, output: Path, level: str, seed: int) -> dict:
    """Write a ready-made model that is to learn from the baseline."""
    from kfp_bonsai.layer_remove.ready_made import ready_made
    from kfp_bonsai.shared.energy import energy
    from kfp_bonsai.shared.saved import pretrained

    source = pretrained.read(student, weights=True)
    named = str(Path(student).resolve()) if Path(student).is_dir() else student
    with new_folder(output) as folder:
        with energy.track(energy.enduring(energy.find_sources())) as meter:
            network, tokenizer, length = ready_made(source, student, model, record, data, seed)
        made = extend_record(
            record,
            stage="layer-remove",
            arguments={"student": named, "keep": "1.0", "seed": seed},
            reading=meter.reading,
            level=level or short_name(named),
            student=named,
            max_length=length,
            validation={},
        )
        made = save(network, tokenizer, folder, made)
    total = sum(made["shape"]["stacks"])
    return {
        "layers": ",".join(map(str, range(total))),
        "layers_before": total,
        "seconds": meter.reading.seconds,
        "joules": meter.reading.joules,
    }


def stacks_asked(keep: str, stacks: Sequence[int], writes: bool) -> list[int] | list[list[int]]:
    """Return how many layers of each stack to keep, or which.

    Args:
        keep: what was asked for.
        stacks: how many layers each stack has; an encoder's come before its decoder's.
        writes: whether the model writes.

    Raises:
        BonsaiError: a stack cannot give that, there are no such stacks, the layers of one are named alone, or a model
            with such a decoder cannot write.
    """
    parts = keep.split("+")
    if len(parts) not in (1, len(stacks)):
        has = "one stack of layers" if len(stacks) == 1 else f"{len(stacks)} stacks of layers"
        raise BonsaiError(f"--keep {keep}: the model has {has}, and {len(parts)} are spoken of")
    asked = [layers_asked(part, total) for part, total in zip(parts * (len(stacks) // len(parts)), stacks, strict=True)]
    named = [one for one in asked if isinstance(one, list)]
    counts = [one for one in asked if isinstance(one, int)]
    if named and counts:
        raise BonsaiError(f"--keep {keep}: name the layers of both stacks, or of none")
    if writes and len(stacks) > len(parts) and _is_fraction(keep):
        return _of_all(Fraction(keep.strip()), *stacks)
    if writes:
        check_depths([len(one) for one in named] or counts, f"--keep {keep}")
    return named or counts


def _of_all(share: Fraction, encoder: int, decoder: int) -> list[int]:
    """Return how many layers of an encoder and of its decoder are a share of all, where the decoder's go first."""
    total = round(share * (encoder + decoder))
    most, least = min(decoder, total - 1), max(1, int(min(share, LEAST_OF_DECODER) * decoder))
    of_decoder = max(least, min(most, total - encoder))
    return [max(1, min(encoder, total - of_decoder)), of_decoder]


def _is_fraction(text: str) -> bool:
    return "/" in text or "." in text


def layers_asked(keep: str, total: int) -> int | list[int]:
    """Return how many of `total` layers to keep, or which.

    Raises:
        BonsaiError: not a fraction in (0, 1], a count of 1 to `total`, or a list of different indices below `total`.
    """
    text = keep.strip()
    try:
        if "," in text:
            indices = [int(part) for part in text.split(",")]
            if sorted(set(indices)) != indices or indices[0] < 0:
                raise BonsaiError(f"--keep {keep}: indices must rise, from 0 on")
            if indices[-1] >= total:
                raise BonsaiError(
                    f"--keep {keep}: indices go from 0 to {total - 1} here, as the model has {total} layers"
                )
            return indices
        number = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise BonsaiError(f"--keep '{keep}': give a fraction (1/3), a count (4) or indices (0,2,5)") from error
    if _is_fraction(text):
        if not 0 < number <= 1:
            raise BonsaiError(f"--keep {keep}: a fraction must be above 0 and at most 1")
        return max(1, round(number * total))
    if number < 1:
        raise BonsaiError(f"--keep {keep}: at least one layer must stay: give a count from 1 on, or a fraction (1/3)")
    if number > total:
        raise BonsaiError(f"--keep {keep}: the model has {total} layers, so give 1 to {total} (or a fraction)")
    return int(number)
