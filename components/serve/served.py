"""A model's folder, loaded and ready to answer."""

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.documents import RECORD
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.encoding import SETTINGS, TextError, encode_batch, encode_parts, folder_tokenizer
from kfp_bonsai.shared.inference.asking import Asked, together
from kfp_bonsai.shared.inference.runtimes import TORCH, Predictor, load_predictor, runtime_of
from kfp_bonsai.shared.inference.writers import Writer, load_writer, prompt_batch
from kfp_bonsai.shared.kinds.kind import ROW
from kfp_bonsai.shared.kinds.kinds import KINDS, kind_in, kind_of, tell
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.saved.weights import DECODER_FILE, ONNX_FILE
from kfp_bonsai.shared.storage.manifest import check_listed

BATCH_ROWS = 32
MOST_ROWS = 1024  # of one request
MOST_PROMPTS = 64  # of one request: each is answered in many steps
READ = (RECORD, "config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json", *SETTINGS)
ENCODING = threading.Lock()  # one batch at a time, on all cores: so much memory once

Row = str | tuple[str, str]


class InputError(BonsaiError):
    """A request or a line cannot be used: says what, and what to do."""


@dataclass(frozen=True)
class Model:
    """A model that is loaded and ready.

    Attributes:
        predictor: gives the logits of a batch, or writes answers.
        tokenizer: pads, and cuts at the length that the model was trained with.
        task: what it answers.
        folder: where it is.
        running: lets one batch have all threads: requests at the same time would only slow each other down.
    """

    predictor: Predictor | Writer
    tokenizer: Any
    task: Task
    folder: Path = Path()
    running: threading.Lock = field(default_factory=threading.Lock)

    @property
    def runtime(self) -> str:
        """What runs it: "openvino", "onnxruntime" or "torch"."""
        return self.predictor.runtime

    @property
    def most_rows(self) -> int:
        """How many rows one request may have."""
        return MOST_PROMPTS if isinstance(self.predictor, Writer) else MOST_ROWS

    @property
    def pairs(self) -> bool:
        """Whether a row is two texts."""
        return len(self.task.columns) > 1

    @property
    def names(self) -> list[str]:
        """What a row's texts are called."""
        return ["text", "text_pair"] if self.pairs else ["text"]

    @property
    def tensors(self) -> tuple[tuple[str, str, int], ...]:
        """What an answer holds, see the kind's `tensors`."""
        return kind_of(self.task).tensors(self.task)

    def tell(self, rows: Sequence[Row], fewer: int = 0) -> list[dict[str, Any]]:
        """Return the answer for each row, as the kind of its task tells it; what is written ends at `fewer` tokens.

        Raises:
            InputError: a conversation is none, or too long.
        """
        parts = (rows[at : at + BATCH_ROWS] for at in range(0, len(rows), BATCH_ROWS))
        if isinstance(self.predictor, Writer):
            return tell(self.task, [text for part in parts for text in self._written(self.predictor, part, fewer)])
        return [answer for part in parts for answer in self._told(self.predictor, part)]

    def _written(self, writer: Writer, rows: Sequence[Any], fewer: int) -> list[str]:
        try:
            with ENCODING:
                batch = prompt_batch(self.folder, rows, self.task)
            with self.running:
                return writer.texts(writer.write(batch, fewer=fewer))
        except TextError:
            raise
        except BonsaiError as error:
            raise InputError(str(error)) from error

    def _told(self, predictor: Predictor, rows: Sequence[Row]) -> list[dict[str, Any]]:
        columns: Any = list(zip(*rows, strict=True)) if self.pairs else [rows]
        with ENCODING:
            part = Asked(*encode_parts(self.tokenizer, columns, kind_of(self.task).windows))
        inputs = len(part.batch["input_ids"])  # more than rows, where long ones are read in windows
        logits = [
            self._run(predictor, {name: array[at : at + BATCH_ROWS] for name, array in part.batch.items()})
            for at in range(0, inputs, BATCH_ROWS)
        ]
        return tell(self.task, *together([np.concatenate(logits)], [part]))

    def _run(self, predictor: Predictor, batch: dict[str, np.ndarray]) -> np.ndarray:
        with self.running:
            return predictor.predict(batch)


def load(folder: Path, threads: int = 0) -> Model:
    """Load a model's folder, and see that it answers.

    Its files are to be as its SHA256SUMS says, if it has one; weights are only compared with the hash in bonsai.json,
    which is among those files, as that reads through them once already.

    Args:
        folder: holds tokenizer.json, bonsai.json, and model.onnx (openvino_model.xml of one that writes, and
            openvino_encoder_model.xml of its encoder) or, not quantized, safetensors and config.json.
        threads: threads that work on one batch; 0 leaves it to the runtime.

    Raises:
        BonsaiError: a file is missing or broken, the runtime is unknown or not installed, or the model's answers are
            not its task's.
    """
    made = DECODER_FILE if (folder / DECODER_FILE).exists() else ONNX_FILE
    weights = "config.json" if any(folder.glob("*.safetensors")) else made
    for name in (weights, "tokenizer.json", RECORD):
        if not (folder / name).is_file():
            raise BonsaiError(f"{folder / name} is missing: give a folder that bonsai quantize or package-model wrote")
        if not os.access(folder / name, os.R_OK):
            raise BonsaiError(f"{folder / name} cannot be read by user {os.getuid()}: chmod -R a+rX {folder}")
    check_listed(folder, READ)
    task = _task(folder)
    tokenizer = folder_tokenizer(folder)
    with redirect_stdout(sys.stderr):  # what is noted while it is loaded is no answer
        run = load_writer if kind_of(task).writes else load_predictor
        model = Model(run(folder, _device(folder), threads=threads), tokenizer, task, folder)
    _try(model)
    return model


def _try(model: Model) -> None:
    """See that a model answers one row, in its task's terms, before it says that it is ready."""
    texts = ["a"] * len(model.task.columns)
    batch = encode_batch(model.tokenizer, *([text] for text in texts))
    try:
        if isinstance(model.predictor, Writer):
            model.predictor.texts(model.predictor.write(batch, fewer=1))
            return
        found = np.shape(model.predictor.predict(batch))
        kind = kind_of(model.task)
        outputs = len(kind.outputs(model.task))
        if (len(found), found[-1]) != (2 if kind.head == ROW else 3, outputs):
            raise BonsaiError(
                f"{model.folder} gives outputs of shape {found} for a row, and its {RECORD} speaks of {outputs} of the "
                f"kind {model.task.kind}: copy the folder again, or make the model again"
            )
        model.tell([(texts[0], texts[1]) if model.pairs else texts[0]])
    except BonsaiError:
        raise
    except Exception as error:  # each runtime has an exception of its own
        said = " ".join(str(error).split())[:300]
        raise BonsaiError(
            f"{model.folder} answers no text ({type(error).__name__}: {said}): copy the folder again, or make the "
            "model again"
        ) from error


def _task(folder: Path) -> Task:
    """Return what a model answers.

    Raises:
        BonsaiError: its record does not say it, or it is of a kind that is not known here.
    """
    found = read_record(folder).get("task", {})
    stated, labels = found.get("kind", ""), found.get("labels", [])
    if stated and stated not in KINDS:
        raise BonsaiError(f"{folder} answers {stated}, which this server does not: it knows {', '.join(KINDS)}")
    kind = kind_in(found)
    columns = tuple(found.get("columns", [])) or kind.columns[0]
    if bool(labels) != kind.named or len({*labels}) < len(labels) or columns not in kind.columns:
        raise BonsaiError(f"{folder / RECORD}: its task is none: copy or make it again")
    name = next(name for name, each in KINDS.items() if each is kind)
    return Task("", name, columns, tuple(labels), "", "", "", 0, "", found.get("setting", ""))


def _device(folder: Path) -> str:
    """Return where a model runs: on a GPU if it is not quantized and there is one."""
    if runtime_of(folder) != TORCH:
        return "cpu"

    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
