"""Drop whole transformer layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.kinds.kinds import kind_of
from kfp_bonsai.shared.models.checkpoint import load, save
from kfp_bonsai.shared.models.records import extend_record, read_record, short_name

SCHEMES = ("lower-last", "bottom", "even", "importance", "top")
SCORED_ROWS = 256


def layer_remove(
    model: Path,
    data: Path,
    output: Path,
    *,
    keep: str = "1/3",
    scheme: str = "lower-last",
    level: str = "",
    student: str = "",
    seed: int = 0,
) -> dict:
    """Remove whole layers from a fine-tuned model (Sajjad et al., arXiv 2004.03844), or take a ready-made one instead.

    Args:
        model: The fine-tuned model.
        data: A split whose text the layers are scored on, with --scheme importance.
        output: Folder to write the shorter model to.
        keep: What stays: a fraction ("1/3", "0.5"), a count ("4"), or the layers' indices ("0,2,5"); of the encoder
            and of the decoder where a model has both.
        scheme: How layers are chosen where `keep` does not name them: lower-last (evenly from the lower half, and the
            last, which the classifier reads; kept most on the demo task), bottom, even, top, or importance (the ones
            that change their input most: block influence, arXiv 2403.03853, section 2).
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
        bonsai layer-remove --model baseline --data data/validation.parquet --student embedded:bert-tiny --output tiny
    """
    record = read_record(model)
    task = tasks.read_task(data)
    if student:
        return _take(student, model, record, data, output, level, seed)
    stacks = record["shape"]["stacks"]
    asked = [layers_asked(keep, total) for total in stacks]
    check_choice("--scheme", scheme, SCHEMES)
    if scheme == "importance" and task.split == "unlabelled" and kind_of(task).writes:
        raise BonsaiError(f"{data} has no answers to score layers on: give the validation split")

    from kfp_bonsai.shared.energy import energy
    from kfp_bonsai.shared.models import shapes, surgery

    with new_folder(output) as folder:
        with energy.track(energy.enduring(energy.find_sources())) as meter:
            network, tokenizer = load(model)
            influence = []
            if scheme == "importance" and any(isinstance(one, int) for one in asked):
                influence = block_influence(network, tokenizer, data, record["max_length"], seed)
            kept = []
            for number, (one, (stack, layers)) in enumerate(zip(asked, shapes.stacks_of(network), strict=True)):
                if isinstance(one, int):
                    one = _chosen(scheme, one, len(layers), influence[sum(stacks[:number]) :][: len(layers)])
                    one = [0, *one[1:]] if stack.first_stays else one
                kept.append(one)
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
    from kfp_bonsai.shared.models import pretrained

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


def layers_asked(keep: str, total: int) -> int | list[int]:
    """Return how many of `total` layers to keep, or which.

    Raises:
        BonsaiError: not a fraction in (0, 1], a count of 1 to `total`, or a list of different indices below `total`.
    """
    from fractions import Fraction

    text = keep.strip()
    try:
        if "," in text:
            indices = [int(part) for part in text.split(",")]
            if sorted(set(indices)) != indices or indices[0] < 0 or indices[-1] >= total:
                raise BonsaiError(
                    f"--keep {keep}: indices must rise, from 0 to {total - 1} (the model has {total} layers)"
                )
            return indices
        number = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise BonsaiError(f"--keep '{keep}': give a fraction (1/3), a count (4) or indices (0,2,5)") from error
    if "/" in text or "." in text:
        if not 0 < number <= 1:
            raise BonsaiError(f"--keep {keep}: a fraction must be above 0 and at most 1")
        return max(1, round(number * total))
    if not 1 <= number <= total:
        raise BonsaiError(f"--keep {keep}: the model has {total} layers, so give 1 to {total} (or a fraction)")
    return int(number)


def _chosen(scheme: str, count: int, total: int, influence: Sequence[float]) -> list[int]:
    if count == total:
        return list(range(total))
    if scheme == "lower-last":
        pool = max(total // 2, count - 1)
        return [*((2 * index + 1) * pool // (2 * count - 2) for index in range(count - 1)), total - 1]
    if scheme == "bottom":
        return list(range(count))
    if scheme == "top":
        return list(range(total - count, total))
    if scheme == "even":
        return sorted({round(index * (total - 1) / max(1, count - 1)) for index in range(count)})
    return sorted(sorted(range(total), key=lambda index: -influence[index])[:count])


def block_influence(network: Any, tokenizer: Any, data: Path, max_length: int, seed: int) -> list[float]:
    """Return how much each layer changes its input: 1 - cos(input, output), the mean over tokens.

    An encoder's layers come before its decoder's, whose tokens are those of the answer.
    """
    import random

    import torch

    from kfp_bonsai.shared.data import rows
    from kfp_bonsai.shared.models import heads, shapes
    from kfp_bonsai.shared.training import answer_batches, writing

    split = rows.read_rows(data, tokenizer, max_length)
    chosen = random.Random(seed).sample(range(len(split)), min(SCORED_ROWS, len(split)))
    layers = [layer for _, layer in shapes.layers_of(network)]
    changes, tokens = torch.zeros(len(layers)), torch.zeros(len(layers))
    real = torch.ones(0, 0, dtype=torch.bool)

    def observe(index: int, before: torch.Tensor, output: Any) -> None:
        after = output[0] if isinstance(output, tuple) else output
        counted = real if before.shape[:2] == real.shape else torch.ones(before.shape[:2], dtype=torch.bool)
        changes[index] += (1 - torch.cosine_similarity(before[counted], after[counted], dim=-1)).sum()
        tokens[index] += counted.sum()

    hooks = [
        layer.register_forward_hook(lambda _, inputs, output, index=index: observe(index, inputs[0], output))
        for index, layer in enumerate(layers)
    ]
    with torch.inference_mode():
        for start in range(0, len(chosen), 32):
            items = [split[index] for index in chosen[start : start + 32]]
            if heads.writes(network):
                batch = writing.collate(items, tokenizer.pad_token_id, answer_batches.start_of(network))
            else:
                batch = rows.pad(items, tokenizer.pad_token_id)
            real = batch["attention_mask"].bool()
            # Free shapes compute every token only for whoever asks.
            answer_batches.run(network, batch, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    return (changes / tokens).tolist()
