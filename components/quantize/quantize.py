"""quantize: a fine-tuned or compressed checkpoint as an int8 model for CPUs."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.quantize import decoders, schemes, timing
from kfp_bonsai.shared.core import documents, files
from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.progress import duration, say
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.batches import LONG
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.inference import int8_form, processor
from kfp_bonsai.shared.inference.asking import Asked, asked, together
from kfp_bonsai.shared.inference.runtimes import ONNXRUNTIME, OPENVINO, Predictor, onnx_predictor
from kfp_bonsai.shared.kinds.kinds import check_stage, kind_of, predict
from kfp_bonsai.shared.saved import records, weights
from kfp_bonsai.shared.saved.stored import check_folder
from kfp_bonsai.shared.saved.weights import ONNX_FILE, is_quantized

AUTO, FP32 = "auto", "onnxruntime fp32"
STATIC, DYNAMIC = "static", "dynamic"
CANDIDATES = {
    AUTO: ((OPENVINO, STATIC), (ONNXRUNTIME, DYNAMIC), (ONNXRUNTIME, STATIC)),
    OPENVINO: ((OPENVINO, STATIC),),
    ONNXRUNTIME: ((ONNXRUNTIME, DYNAMIC), (ONNXRUNTIME, STATIC)),
}
PACKAGES = {AUTO: ("onnx", "onnxruntime", "nncf", "openvino"), ONNXRUNTIME: ("onnx", "onnxruntime", "nncf")}
BATCH_ROWS = 16
WORK = "work"  # in the folder, while it is made
FEWEST_ROWS = 8
FAITHFUL = 0.97
BESIDE_WEIGHTS = (".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class Candidate:
    """One int8 file with the runtime that runs it."""

    runtime: str
    scheme: str
    file: Path
    predictor: Predictor

    @property
    def name(self) -> str:
        """The candidate in words."""
        return f"{self.runtime} int8 {self.scheme}"


def quantize(
    model: Path,
    calibration: Path,
    output: Path,
    *,
    runtime: str = AUTO,
    calibration_rows: int = 160,
    any_processor: bool = False,
    weight_bits: int = 8,
    seed: int = 0,
) -> dict[str, Any]:
    """Make an int8 model for CPUs that runs without torch, and pick the fastest runtime for it.

    Weights, embeddings and activations become 8 bits, per channel. The activations' ranges come from texts of the
    training split (NNCF, for OpenVINO; SmoothQuant, arXiv 2211.10438, section 4) or are found as the model runs
    (onnxruntime's dynamic quantization). Other rows tell how well the result follows the unquantized model. Of a model
    that writes, weights alone are rounded, and OpenVINO keeps keys and values of what it has read.

    Args:
        model: the model folder to quantize, written by fine-tune, distill or another stage.
        calibration: a Parquet split of the model's task for calibration; the training split, never the test split.
        output: the folder to write: model.onnx (openvino_model.xml and .bin of a model that writes, and of its encoder
            openvino_encoder_model.xml and .bin), its tokenizer, config.json and bonsai.json.
        runtime: "openvino", "onnxruntime", or "auto", which times both on this machine and keeps the faster.
        calibration_rows: rows that set the ranges; at most twice as many others check the result.
        any_processor: give weights 7 bits, so that the model answers alike on all processors; without, that is done
            where this one has no VNNI (see the README).
        weight_bits: bits of a weight of a model that writes, 8 or 4.
        seed: chooses the rows.

    Returns:
        The runtime and scheme chosen, how well predictions agree with the unquantized model's (share of equal classes,
        correlation of numbers, or as the kind of task says it), sizes in bytes, and the CPU milliseconds of a batch on
        one thread.

    Raises:
        BonsaiError: the folder is not a model or is quantized already, the split is empty or of another task, the
            runtime is unknown or not installed, or the model does not export to ONNX.

    Example:
        bonsai quantize --model runs/demo/distilled --calibration runs/demo/train.parquet --output runs/demo/int8
        bonsai quantize --model distilled --calibration train.parquet --output int8 --runtime onnxruntime
    """
    model, calibration, output = Path(model), Path(calibration), Path(output)
    check_runtime(runtime)
    check_packages(runtime)
    record = _checked_record(model)
    task = tasks.read_task(calibration)
    check_stage(task.kind, "quantize")
    _check_task(task, record, calibration)
    writes = kind_of(task).writes
    decoders.check_bits(weight_bits, writes)
    if writes:
        decoders.check(model, task.kind, runtime, any_processor)
    else:
        int8_form.check_model(str(model), task.kind, record["parameters"])
    if calibration_rows < FEWEST_ROWS:
        raise BonsaiError(f"--calibration-rows {calibration_rows}: give {FEWEST_ROWS} or more, such as 160")
    texts = _sample(calibration, task, (1 if writes else 3) * calibration_rows, seed)
    arguments = {
        "runtime": runtime,
        "calibration_rows": calibration_rows,
        "any_processor": any_processor,
        **({"weight_bits": weight_bits} if writes else {}),
    }

    with files.new_folder(output) as folder:
        with energy.track(energy.enduring(energy.find_sources())) as meter:
            if writes:
                result = decoders.compress(model, folder, [text for (text,) in texts], task, weight_bits)
            else:
                result = _fastest(model, folder, texts, task, record, runtime, calibration_rows, any_processor)
            shutil.rmtree(folder / WORK)
        _copy_companions(model, folder)
        _write_record(folder, record, _flops(model, record), arguments | {"seed": seed}, meter.reading, result)
    _tell(result, meter.reading.seconds, runtime, writes)
    return result


def _fastest(
    model: Path,
    folder: Path,
    texts: Sequence[tuple[str, ...]],
    task: tasks.Task,
    record: dict[str, Any],
    runtime: str,
    calibration_rows: int,
    any_processor: bool,
) -> dict[str, Any]:
    """Write the int8 file into a folder that this machine runs with the least time, and tell how well it does."""
    work = folder / WORK
    work.mkdir()
    setting = min(calibration_rows, -(-len(texts) // 2))
    fitting = any_processor or not processor.sums_exactly()
    fp32, difference = _export(model, work)
    ranges, check = (_batches(model, part, task) for part in (texts[:setting], texts[setting:]))
    reference = onnx_predictor(fp32, ONNXRUNTIME, threads=1)
    candidates = _candidates(
        runtime, fp32, work, [{key: one.batch[key] for key in reference.inputs} for one in ranges], fitting
    )
    times = _times(candidates, reference, record, model)
    expected = _predictions(reference, check, task)
    compare = kind_of(task).agreement
    chosen, (agreed, agreement_kind) = _choose(
        candidates, times, lambda one: compare(expected, _predictions(one.predictor, check, task), task)
    )
    shutil.move(chosen.file, folder / ONNX_FILE)
    size = weights.size_bytes(folder)
    return {
        "runtime": chosen.runtime,
        "scheme": chosen.scheme,
        "agreement": round(agreed, 6),
        "agreement_kind": agreement_kind,
        "agreement_rows": len(texts) - setting,
        "weight_bits": processor.FITTING_BITS if fitting else processor.FULL_BITS,
        "calibration_rows": setting,
        "export_difference": difference,
        "size_bytes": size,
        "size_ratio": round(size / weights.size_bytes(model), 4),
    } | {f"cpu_ms_{shape}": round(value, 3) for shape, value in times[chosen.name].items()}


def check_runtime(runtime: str) -> None:
    """Refuse a runtime that is unknown."""
    check_choice("--runtime", runtime, [*CANDIDATES])


def check_packages(runtime: str) -> None:
    """Refuse a runtime that is not installed."""
    missing = [name for name in PACKAGES.get(runtime, PACKAGES[AUTO]) if find_spec(name) is None]
    if missing:
        raise BonsaiError(f"quantize needs {', '.join(missing)}: pip install 'kfp-bonsai[cpu]'")


def _checked_record(model: Path) -> dict[str, Any]:
    if not model.is_dir():
        raise BonsaiError(f"no model folder at {model}: give one written by a stage such as distill")
    if is_quantized(model):
        raise BonsaiError(f"{model} is quantized already: give the checkpoint it was made from")
    check_folder(model)
    if not (model / "tokenizer.json").is_file():
        raise BonsaiError(f"{model} has no tokenizer.json: save a fast tokenizer there (AutoTokenizer.save_pretrained)")
    return records.read_record(model)


def _check_task(task: tasks.Task, record: dict[str, Any], calibration: Path) -> None:
    if task.rows < 2:
        raise BonsaiError(f"{calibration} has {task.rows} rows, too few to calibrate with: give the training split")
    tasks.check_unseen(task, calibration)
    trained = records.task_of(record)
    if task.kind != trained.kind:
        raise BonsaiError(
            f"{calibration} is of the kind {task.kind}, but the model was trained for {trained.kind}: give the "
            "training split of its own data set"
        )
    if task.columns != trained.columns:
        raise BonsaiError(
            f"{calibration} has the columns {', '.join(task.columns)}, but the model was trained on "
            f"{', '.join(trained.columns)}: give the training split of the same data set"
        )


def _sample(path: Path, task: tasks.Task, rows: int, seed: int) -> list[tuple[str, ...]]:
    """Return the texts of random rows in random order, streaming the split."""
    order = np.random.default_rng(seed).permutation(task.rows)[:rows]
    place = {int(row): index for index, row in enumerate(order)}
    texts: list[tuple[str, ...]] = [()] * len(order)
    row = 0
    for batch in tasks.batches(path):
        for found in zip(*(batch[column] for column in task.columns), strict=True):
            if row in place:
                texts[place[row]] = found
            row += 1
    if row != task.rows:
        raise BonsaiError(f"{path} has {row} rows but says {task.rows}: prepare the data set again")
    return texts


def _batches(model: Path, texts: Sequence[tuple[str, ...]], task: tasks.Task) -> list[Asked]:
    """Return padded batches of rows of about the same length, of long ones fewer, as memory goes by tokens."""

    def encoded(rows: Sequence[tuple[str, ...]]) -> list[Asked]:
        found = asked(model, [list(column) for column in zip(*rows, strict=True)], task)
        if len(rows) == 1 or found.batch["input_ids"].size <= BATCH_ROWS * LONG:
            return [found]
        half = len(rows) // 2
        return [*encoded(rows[:half]), *encoded(rows[half:])]

    ordered = sorted(texts, key=lambda row: sum(map(len, row)))
    starts = range(0, len(ordered), BATCH_ROWS)
    return [part for at in starts for part in encoded(ordered[at : at + BATCH_ROWS])]


def _export(model: Path, work: Path) -> tuple[Path, float]:
    from kfp_bonsai.shared.inference.onnx_export import export

    file = work / "fp32.onnx"
    difference = export(model, file)
    say(f"quantize  exported to ONNX, largest difference to torch {difference:.1g}")
    return file, difference


def _candidates(runtime: str, fp32: Path, work: Path, ranges: list[schemes.Batch], fitting: bool) -> list[Candidate]:
    """Return an int8 file for each runtime; one whose file does not run here is left out where there are others.

    Raises:
        BonsaiError: none runs here.
    """
    made: dict[str, Path] = {}
    candidates, refused = list[Candidate](), list[BonsaiError]()
    for name, scheme in CANDIDATES[runtime]:
        if scheme not in made:
            made[scheme] = work / f"{scheme}.onnx"
            if scheme == STATIC:
                say(f"quantize  finding ranges on {sum(len(one['input_ids']) for one in ranges)} rows (NNCF)")
                schemes.static(fp32, made[scheme], ranges, fitting)
            else:
                schemes.dynamic(fp32, made[scheme], fitting)
        try:
            candidates.append(Candidate(name, scheme, made[scheme], onnx_predictor(made[scheme], name, threads=1)))
        except BonsaiError as error:
            refused.append(error)
    for refusal in refused:
        if not candidates:
            raise refusal
        say(f"quantize  note: {refusal}; it is left out")
    return candidates


def _times(candidates: list[Candidate], reference: Predictor, record: dict[str, Any], model: Path) -> timing.Times:
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab_size()
    predictors = {FP32: reference} | {one.name: one.predictor for one in candidates}
    times = timing.compare(predictors, record["max_length"], vocabulary, reference=FP32)
    timing.table(times)
    return times


def _choose(
    candidates: list[Candidate], times: timing.Times, agreement: Callable[[Candidate], tuple[float, str]]
) -> tuple[Candidate, tuple[float, str]]:
    """Return the fastest that follows the unquantized model, or else the one that does so best, and its agreement."""
    found = []
    for name in timing.ranked({one.name: times[one.name] for one in candidates}):
        one = next(each for each in candidates if each.name == name)
        found.append((one, agreement(one)))
        if found[-1][1][0] >= FAITHFUL:
            return found[-1]
    return max(found, key=lambda pair: pair[1][0])


def _predictions(predictor: Predictor, batches: list[Asked], task: tasks.Task) -> Any:
    return predict(task, *together([predictor.predict(one.batch) for one in batches], batches))


def _copy_companions(model: Path, folder: Path) -> None:
    for file in sorted(model.iterdir()):
        if file.suffix in BESIDE_WEIGHTS and file.name != documents.RECORD and ".safetensors" not in file.name:
            shutil.copyfile(file, folder / file.name)


def _flops(model: Path, record: dict[str, Any]) -> dict[str, float]:
    """Return what the graph computes: of its last layer, a classifier's has only the token that is read."""
    from kfp_bonsai.shared.models import flops, one_token
    from kfp_bonsai.shared.saved import pretrained

    network = pretrained.blank(pretrained.read(model).config)
    return flops.count(network).as_dict() if one_token.leave_out(network) else record["flops"]


def _write_record(
    folder: Path,
    record: dict[str, Any],
    flops: dict[str, float],
    arguments: dict[str, Any],
    reading: energy.Reading,
    result: dict[str, Any],
) -> None:
    digest = weights.weights_sha256(folder)
    extended = records.extend_record(
        record,
        stage="quantize",
        arguments=arguments,
        reading=reading,
        runtime=result["runtime"],
        quantization={**result, "processor": processor.as_record(result["weight_bits"])},
        flops=flops,
        validation={},
        sha256=digest,
    )
    extended["lineage"][-1]["sha256"] = digest
    records.write_record(folder, extended)


def _tell(result: dict[str, Any], seconds: float, tried: str, writes: bool) -> None:
    if writes:
        milliseconds = ", ".join(
            f"{result[f'cpu_ms_token_{rows}']:.1f} ms at {rows} row{'s' * (rows > 1)} "
            f"({result[f'token_ratio_{rows}']:.2f} of torch's)"
            for rows in decoders.ROWS
        )
        say(f"quantize  CPU time a token (one thread): {milliseconds}")
        say(f"quantize  {result['next_tokens']:.1%} of the unquantized model's tokens are the likeliest here too")
    say(
        f"quantize  {result['runtime']} int{result['weight_bits'] if writes else 8} {result['scheme']}: "
        f"{result['size_bytes'] / 1e6:.1f} MB ({result['size_ratio']:.0%}), agrees with the unquantized model "
        f"{result['agreement']:.1%} ({result['agreement_kind']}), took {duration(seconds)}"
    )
    if result["agreement"] < FAITHFUL:
        other = "" if tried == AUTO else f"--runtime {ONNXRUNTIME if tried == OPENVINO else OPENVINO}, "
        more = f"{other}more --calibration-rows, or training the model for longer"
        fewer = result["weight_bits"] < decoders.BITS[0]
        what = ("--weight-bits 8" if fewer else "training the model for longer") if writes else more
        say(
            f"quantize  WARNING: agreement {result['agreement']:.1%} is below {FAITHFUL:.0%}: try {what}; serve the "
            "unquantized model if accuracy matters more than speed"
        )
