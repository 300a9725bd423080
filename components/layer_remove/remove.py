"""Drop whole transformer layers."""

from pathlib import Path
from typing import Any

from kfp_bonsai.shared.checkpoint import extend_record, load, read_record, save
from kfp_bonsai.shared.errors import BonsaiError, nearest
from kfp_bonsai.shared.files import new_folder

SCHEMES = ("bottom-last", "bottom", "even", "importance", "top")
SCORED_ROWS = 256


def layer_remove(
    model: Path,
    data: Path,
    output: Path,
    *,
    keep: str = "1/3",
    scheme: str = "bottom-last",
    level: str = "",
    seed: int = 0,
) -> dict:
    """Remove whole layers from a fine-tuned model (Sajjad et al., arXiv 2004.03844).

    Args:
        model: The fine-tuned model.
        data: A split whose text the layers are scored on.
        output: Folder to write the shorter model to.
        keep: What stays: a fraction ("1/3", "0.5"), a count ("4"), or the layers' indices ("0,2,5").
        scheme: How layers are chosen where `keep` does not name them: bottom-last (the lowest ones, and the last,
            which the classifier reads; kept most on the demo task), bottom, even, top, or importance (the ones that
            change their input most: block influence, arXiv 2403.03853, section 2).
        level: Name of the compression level, shown in the report.
        seed: Seed of the choice of rows to score on.

    Returns:
        The layers kept, how many there were, seconds and joules.

    Raises:
        BonsaiError: `keep` asks for layers that the model has not.

    Example:
        bonsai layer-remove --model baseline --data data/validation.parquet --keep 1/3 --output short
    """
    record = read_record(model)
    total = len(record["shape"]["layers"])
    kept = layers_asked(keep, total)
    if scheme not in SCHEMES:
        raise BonsaiError(f"--scheme '{scheme}' is unknown (known: {', '.join(SCHEMES)}){nearest(scheme, [*SCHEMES])}")

    from kfp_bonsai.shared import energy, shapes

    with new_folder(output) as folder:
        with energy.track() as meter:
            network, tokenizer = load(model)
            if isinstance(kept, int):
                kept = _chosen(network, tokenizer, data, record, kept, scheme, seed)
            shapes.keep_layers(network, kept)
            shorter = shapes.rebuild(network)
        names = ",".join(map(str, kept))
        made = extend_record(
            record,
            stage="layer-remove",
            arguments={"keep": keep, "scheme": scheme, "layers": names},
            reading=meter.reading,
            level=level or f"{len(kept)}/{total} layers",
            validation={},
        )
        save(shorter, tokenizer, folder, made)
    return {"layers": names, "layers_before": total, "seconds": meter.reading.seconds, "joules": meter.reading.joules}


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


def _chosen(network: Any, tokenizer: Any, data: Path, record: dict, count: int, scheme: str, seed: int) -> list[int]:
    total = len(record["shape"]["layers"])
    if count == total:
        return list(range(total))
    if scheme == "bottom-last":
        return [*range(count - 1), total - 1]
    if scheme == "bottom":
        return list(range(count))
    if scheme == "top":
        return list(range(total - count, total))
    if scheme == "even":
        return sorted({round(index * (total - 1) / max(1, count - 1)) for index in range(count)})
    influence = block_influence(network, tokenizer, data, record["max_length"], seed)
    return sorted(sorted(range(total), key=lambda index: -influence[index])[:count])


def block_influence(network: Any, tokenizer: Any, data: Path, max_length: int, seed: int) -> list[float]:
    """Return how much each layer changes its input: 1 - cos(input, output), the mean over tokens."""
    import random

    import torch

    from kfp_bonsai.shared import rows, shapes

    split = rows.read_rows(data, tokenizer, max_length)
    chosen = random.Random(seed).sample(range(len(split)), min(SCORED_ROWS, len(split)))
    layers = shapes.layers_of(network)
    changes = torch.zeros(len(layers))
    tokens = 0
    with torch.inference_mode():
        for start in range(0, len(chosen), 32):
            batch = rows.pad([split[index] for index in chosen[start : start + 32]], tokenizer.pad_token_id)
            batch.pop("labels", None)
            states = network(**batch, output_hidden_states=True).hidden_states
            real = batch["attention_mask"].bool()
            tokens += int(real.sum())
            for index in range(len(layers)):
                before, after = states[index][real], states[index + 1][real]
                changes[index] += (1 - torch.cosine_similarity(before, after, dim=-1)).sum()
    return (changes / tokens).tolist()
