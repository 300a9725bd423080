"""Fetch the model in use, and read off its record how to make another one like it."""

import json
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.files import check_apart, new_file, new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.inference import int8_form
from kfp_bonsai.shared.inference.runtimes import ONNXRUNTIME, OPENVINO
from kfp_bonsai.shared.models.configuration import family_name
from kfp_bonsai.shared.saved import champion as champions
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.saved.kept_tokens import WHOLE
from kfp_bonsai.shared.saved.records import read_record, write_record

OF_THE_PACKAGE = ("README.md", "results.json", "SHA256SUMS")
AUTO = "auto"
AS_QUANTIZE = {"calibration_rows": 160, "any_processor": False, "weight_bits": 8}  # the defaults of that stage


def fetch_champion(
    champion: str,
    output: Path,
    document: Path,
    *,
    model: str = "",
    augmentations: int = -1,
    edge: bool = False,
    runtime: str = AUTO,
) -> dict[str, str | int | float | bool]:
    """Fetch the champion, the model in use, and say how it was made: what a retraining starts from.

    Args:
        champion: where the champion is kept: a folder, gs://bucket/prefix or s3://bucket/prefix with champion.json.
        output: the folder to write the model to.
        document: the JSON file to write champion.json to.
        model: the pretrained model to start from again, if not the one that the champion was made from.
        augmentations: changed copies of each training text to distill with; -1 for as many as the champion's.
        edge: the new model is to be int8 for CPUs, as it is anyway where the champion is.
        runtime: what is to run the int8 model: openvino, onnxruntime, or auto, which is the champion's own.

    Returns:
        version, level, model, augmentations, and the champion's student (if it was a ready-made model), layers, flops,
        emission, shape, heads, ffn, epochs, rate and vocabulary. What the new model is to be (form: float or int8), and
        how it is quantized: runtime, calibration_rows, any_processor, weight_bits.

    Raises:
        BonsaiError: there is no champion, its package is gone or damaged, it was not made by the compress pipeline, the
            model to start from cannot be had here, or there is no int8 form of it. Then there is no output.

    Example:
        bonsai fetch-champion --champion gs://bucket/reviews --output champion --document champion.json
    """
    from kfp_bonsai.shared.storage.store import download_folder

    check_apart([output, document])
    found, form = check_champion(champion, model, edge, runtime)
    version = found["version"]
    with new_folder(Path(output)) as folder, new_file(Path(document)) as file:
        download_folder(champions.package_at(champion, version), folder)
        for name in OF_THE_PACKAGE:  # they tell of the package, and this is a model to be measured beside another
            (folder / name).unlink(missing_ok=True)
        record = read_record(folder)
        made = recipe(record, champion)
        write_record(folder, {**record, "level": f"champion ({record['level']})"})
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    say(f"fetch-champion  {champion}: version {version}, {record['level']}, made from {made['model']}")
    if note := champions.target_in_words(*champions.target(found), form):
        say(f"fetch-champion  {note}")
    asked = {"model": model or made["model"]} | ({"augmentations": augmentations} if augmentations >= 0 else {})
    if runtime != AUTO:
        asked["runtime"] = runtime
    return {"version": version, "level": record["level"], **made, **asked, "form": form}


def check_champion(
    champion: str, model: str = "", edge: bool = False, runtime: str = AUTO
) -> tuple[dict[str, Any], str]:
    """Return the champion's document, and what a new model is to be, once it is known that it can be made here.

    It reads the champion's record, not its weights, and of the pretrained model the configuration. Another model than
    the champion's own is told of.

    Args:
        champion: where the champion is kept.
        model: the pretrained model to start from, if not the one that the champion was made from.
        edge: the new model is to be int8, whatever the champion is.
        runtime: what is to run an int8 model; auto is the champion's own.

    Raises:
        BonsaiError: there is no champion, it was not made by the compress pipeline, or the model cannot be had here, is
            of another family than the champion, or has no int8 form where the new model is to be int8.
    """
    found, _ = champions.find(champion)
    record = champions.read_champion_record(champion, found)
    made = recipe(record, champion)
    named = str(made["model"])
    try:
        start = pretrained.read(model or named)
    except BonsaiError as error:  # of its kind: a hub that was away may answer later
        if model:
            raise type(error)(f"--model {model} cannot be had here ({error})") from error
        raise type(error)(
            f"the champion at {champion} was made from {named}, which cannot be had here ({error}): say where the same "
            "model is, by its name on the hub or a folder, with --model; on a cluster with --argument model=..., such "
            "as /cache/models/minilm, or with MODEL in the CronJob's settings"
        ) from error
    if made["student"]:
        _check_student(str(made["student"]), champion)
    form = champions.INT8 if edge else champions.form_of(record)
    check_choice("--runtime", runtime, (AUTO, OPENVINO, ONNXRUNTIME))
    if form == champions.INT8:
        _check_int8(record, f"the champion at {champion}", runtime)
    elif runtime != AUTO:
        say(f"fetch-champion  note: --runtime {runtime} is of int8 models, and the new one is none: --edge makes one")
    family, was = family_name(start.config.model_type), family_name(record.get("model_type", start.config.model_type))
    if not made["student"] and family != was:
        raise BonsaiError(
            f"--model {model or named} is of the family {family}, and the champion at {champion} of {was}: its layers, "
            "and its emission as a share of the baseline's, mean nothing there. Compress it with `bonsai run`, compare "
            "the two with `bonsai compare`, and make it the first champion of another location with `bonsai promote "
            "--first`"
        )
    if named not in (model or named, str(Path(model).resolve())):
        say(
            f"fetch-champion  note: the champion was made from {named}, and this starts from {model}: unless that is "
            "one model in two places, a target as a share of the baseline's emission is now of another baseline"
        )
    return found, form


def _check_int8(record: dict[str, Any], champion: str, runtime: str) -> None:
    """Refuse what has no int8 form, before it is trained; say where another runtime than now is to run it."""
    kind = (record.get("task") or {}).get("kind", "")
    own = str(record.get("runtime", "")) if champions.form_of(record) == champions.INT8 else ""
    if own not in ("", OPENVINO, ONNXRUNTIME):
        raise BonsaiError(
            f"{champion} runs on '{own}', which is none of {OPENVINO} and {ONNXRUNTIME}: make a first champion "
            "elsewhere with `bonsai promote --first`, of a model that `bonsai quantize` made"
        )
    int8_form.check_kind(kind, runtime)
    int8_form.check_model(champion, kind, record.get("parameters", 0))
    if own and runtime not in (AUTO, own):
        say(
            f"fetch-champion  note: {champion} runs on {own}, and the new model is made for {runtime}: what serves it "
            "must have that, as kfp-bonsai's own image has"
        )


def _check_student(student: str, champion: str) -> None:
    """Check that the ready-made model which a champion was can be had here."""
    try:
        pretrained.read(student, weights=True)
    except BonsaiError as error:
        raise type(error)(
            f"the champion at {champion} is the ready-made model {student}, taught by a baseline, and cannot be had "
            f"here ({error}): place it where that names it"
        ) from error


def recipe(record: dict[str, Any], where: str) -> dict[str, Any]:
    """Return what a model's stages were called with, as the level of a compress pipeline.

    Args:
        record: the model's record.
        where: where it is, for messages.

    Raises:
        BonsaiError: it was not made by fine-tune, layer-remove and distill.
    """
    stages = {entry.get("stage"): entry.get("arguments", {}) for entry in record["lineage"]}
    missing = [stage for stage in ("fine-tune", "layer-remove", "distill") if stage not in stages]
    if missing:
        raise BonsaiError(
            f"the champion at {where} was made without {missing[0]}: promote the model that `bonsai run` leaves in "
            "model/ or edge-model/"
        )
    try:
        return _level(stages) | _quantizing(stages.get("quantize", {}), record)
    except (KeyError, TypeError, ValueError) as error:
        raise BonsaiError(
            f"the record of the champion at {where} does not say with what its stages were called ({error}): publish "
            "it there again"
        ) from error


def _quantizing(asked: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Return how a model was quantized, for the runtime that runs it; of one that was not, how it would be."""
    found = {name: type(default)(asked.get(name, default)) for name, default in AS_QUANTIZE.items()}
    return {"runtime": str(record.get("runtime", AUTO)), **found}


def _level(stages: dict[str, dict[str, Any]]) -> dict[str, Any]:
    pruned = stages.get("matrix-prune", {})
    return {
        "model": str(stages["fine-tune"]["model"]),
        "student": str(stages["layer-remove"].get("student", "")),
        "layers": str(stages["layer-remove"]["keep"]),
        "flops": float(pruned.get("flops", 1.0)),
        "emission": float(pruned.get("emission", 1.0)),
        "shape": str(pruned.get("shape", "free")),
        "heads": int(pruned.get("heads", 0)),
        "ffn": int(pruned.get("ffn", 0)),
        "augmentations": int(stages.get("teacher-outputs", {}).get("augmentations", -1)),
        "epochs": float(stages["distill"]["epochs"]),
        "rate": float(stages["distill"]["learning_rate"]),
        "vocabulary": str(stages["distill"].get("vocabulary", WHOLE)),
    }
