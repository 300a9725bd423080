"""Model folders, loaded strictly and saved whole, with their record (records.py)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.encoding import encode
from kfp_bonsai.shared.models import heads, tokens
from kfp_bonsai.shared.models.configuration import is_free
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.saved.records import read_record, write_record
from kfp_bonsai.shared.saved.weights import check_files, tokenizer_sha256, weights_sha256


def load(folder: Path) -> tuple[Any, Any]:
    """Load a stage's model and its tokenizer, in evaluation mode and float32.

    Weights and tokenizer must be those that the record speaks of (some half a second a gigabyte), and what transformers
    makes of the tokenizer must be what tokenizer.json holds, with which models are measured and served.

    Raises:
        BonsaiError: the folder is no stage's, or is damaged.
    """
    folder = Path(folder)
    record = read_record(folder)
    found = pretrained.read(folder)
    check_files(folder, record)
    loaded = pretrained.load(folder, found.config)
    if loaded.new or loaded.spare:
        wrong = ", ".join((*loaded.new, *loaded.spare)[:5])
        raise BonsaiError(f"{folder} is damaged: weights missing or not expected: {wrong}")
    check_tokenizer(folder, found.tokenizer)
    if heads.writes(loaded.network) and not found.config.is_encoder_decoder:
        tokens.pad_before(found.tokenizer)
    return loaded.network.eval(), found.tokenizer


def check_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Check that a tokenizer, as transformers made it from a folder, is what the folder's tokenizer.json holds.

    Then all that is trained, measured and served gets the same tokens of any text.
    """
    from tokenizers import Tokenizer

    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for one in (stored, tokenizer.backend_tokenizer):
        one.no_padding()
        one.no_truncation()
    if _content(stored) != _content(tokenizer.backend_tokenizer):
        raise BonsaiError(
            f"{folder / 'tokenizer_config.json'} makes another tokenizer of tokenizer.json than that holds by itself, "
            f"so that texts would be split differently where the model is served: make the model again"
        )


def _content(tokenizer: Any) -> Any:
    """Return what a tokenizer holds, its pieces' scores (Unigram) to the 12 digits that survive reading a file."""
    return json.loads(tokenizer.to_str(), parse_float=lambda score: f"{float(score):.12g}")


def rehearse(network: Any, tokenizer: Any, columns: Sequence[Sequence[str]], max_length: int) -> None:
    """Save all of a model but its weights, read it back, and see that texts get the same tokens, and answers, of it.

    Args:
        network: a model that is to be trained; on "meta" it is not asked for answers.
        tokenizer: its tokenizer.
        columns: the rows' texts, or first and second texts.
        max_length: tokens at which rows are cut.

    Raises:
        BonsaiError: what would be saved after training cannot be saved, or is read as another tokenizer; or the model
            does not work, in training or after it.
    """
    from kfp_bonsai.shared.data import rows

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with pretrained.in_words(f"a part of {tokenizer.name_or_path}", "it could not be saved after training"):
            network.save_pretrained(folder, state_dict={})
            tokenizer.save_pretrained(folder)
        again = pretrained.read_tokenizer(folder)
        check_tokenizer(folder, again)
        mine = rows.tokenize(tokenizer, columns, max_length).inputs
        served = encode(folder, *columns, max_length=max_length)
        theirs = again(*columns, padding=True, truncation=True, max_length=max_length, return_tensors="np")
    for name, found in mine.items():
        for number, row in enumerate(found):
            others = [served[name][number], *([theirs[name][number]] if theirs["attention_mask"][number].any() else [])]
            first = served[name].shape[1] - len(row) if tokenizer.padding_side == "left" else 0
            if not all(np.array_equal(row, other[first : first + len(row)]) for other in others):
                raise BonsaiError(
                    f"the tokenizer of {tokenizer.name_or_path} splits a text otherwise once it is saved "
                    f"({columns[0][number][:80]!r}): save it with this version of transformers, and look at its tokens"
                )
    if network.device.type != "meta":
        items = [{name: found[number] for name, found in mine.items()} for number in (0, -1)]
        _try(network, rows.pad(items, tokenizer.pad_token_id))


def _try(network: Any, batch: Mapping[str, Any]) -> None:
    """See that a model gives numbers, in training and in use."""
    import torch

    where = f"the model in {network.config.name_or_path}"
    if heads.writes(network) and network.config.is_encoder_decoder:
        start = torch.full((len(batch["input_ids"]), 1), network.config.decoder_start_token_id)
        batch = {**batch, "decoder_input_ids": start}
    wrong = pretrained.in_words(where, "its config.json describes no model that runs")
    with wrong, torch.random.fork_rng(), torch.no_grad():
        found = [network.train(training)(**batch).logits for training in (True, False)]
    if not all(torch.isfinite(logits).all() for logits in found):
        raise BonsaiError(f"{where} gives NaN or infinity for a text: its config.json or weights are damaged")


def save(model: Any, tokenizer: Any, folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write a model, its tokenizer and its record, which is returned; parameters, FLOPs, shape and hash are read off.

    Of several processes only the first one writes the weights.
    """
    from kfp_bonsai.shared.core import ranks
    from kfp_bonsai.shared.models import flops, shapes

    shape = shapes.shape_of(model)
    if ranks.is_first():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        mode = (Path(folder) / "config.json").stat().st_mode
        for weights in Path(folder).glob("*.safetensors"):  # written for their owner alone: no server could read them
            weights.chmod(mode)
    digest = weights_sha256(folder)
    lineage = [dict(one) for one in record["lineage"]]
    lineage[-1]["sha256"] = digest
    measured = {
        "sha256": digest,
        "tokenizer_sha256": tokenizer_sha256(folder),
        "lineage": lineage,
        "model_type": model.config.model_type,
        "pad_token_id": tokenizer.pad_token_id,
        **({"split_special_tokens": True} if tokenizer.split_special_tokens else {}),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops": flops.count(model).as_dict(),
        "shape": {
            "kind": shapes.FREE if is_free(model.config) else shapes.STOCK,
            "hidden": shape.hidden,
            "head_dim": shape.head_dim,
            "stacks": list(shape.stacks),
            "layers": [asdict(one) for one in shape.layers],
        },
    }
    written = {**record, **measured}
    write_record(folder, written)
    return written
