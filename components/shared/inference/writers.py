"""Run a model folder that writes: a batch of prompts to the tokens of answers, whatever runs it, and with the times.

What writes is behind `Writer`: torch for ordinary checkpoints, and OpenVINO for quantized ones, without torch. Who
measures or serves asks it alone, with batches of `prompt_batch`, and never what is behind it.

    writer = load_writer(folder)
    said = writer.write(prompt_batch(folder, ["a fine film"], task))
    writer.texts(said)
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.documents import LENGTH, read_object
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.threads import stated_threads
from kfp_bonsai.shared.data import prompts
from kfp_bonsai.shared.data.encoding import trained_length
from kfp_bonsai.shared.data.folder_tokenizer import FolderTokenizer
from kfp_bonsai.shared.data.prompts import NO_LIMIT
from kfp_bonsai.shared.inference import decoding
from kfp_bonsai.shared.inference.runtimes import OPENVINO, TORCH, Batch, check_quantized, runtime_of
from kfp_bonsai.shared.kinds.task import CHAT, Task
from kfp_bonsai.shared.models.configuration import positions_of
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.saved.weights import DECODER_FILE, is_quantized

TO_WRITE = "to_write"  # in a batch, beside the prompts: tokens that each row's answer is to have, OWN for its own end
OWN = 0


@dataclass(frozen=True)
class Written:
    """What a model wrote to a batch of prompts.

    Attributes:
        tokens: each answer's, with the model's own end where it wrote one.
        first_seconds: from the call to the first token of all answers.
        seconds: to the last.
    """

    tokens: list[list[int]]
    first_seconds: float
    seconds: float


@dataclass(frozen=True)
class Writer:
    """A model that writes, loaded and ready; it writes greedily, one batch at a time.

    Attributes:
        runtime: "torch" or "openvino".
        tokenizer: the model's, as transformers loads it, or `FolderTokenizer`.
        end: the token that it ends answers with.
        most: the most tokens of an answer, as its generation_config.json says; 0 where it does not.
        run: writes answers to a batch of prompts, of exactly so many tokens each, or with OWN as many as the model
            does by itself, to its own end or `most`; there the second number says what fewer end them, 0 for none.
        likelihoods: the summed log-likelihood of each prompt's right answer, and its number of tokens, (rows, 2), given
            prompts and the answers' tokens.
    """

    runtime: str
    tokenizer: Any
    end: int
    most: int
    run: Callable[[Batch, int, int], Written]
    likelihoods: Callable[[Batch, Sequence[np.ndarray]], np.ndarray]

    def write(self, batch: Batch, tokens: int = OWN, fewer: int = 0) -> Written:
        """Return answers to a batch of prompts, each of so many tokens, or of the model's own length, or `fewer`."""
        return self.run({name: batch[name] for name in ("input_ids", "attention_mask")}, tokens, fewer)

    def predict(self, batch: Batch) -> Written:
        """Return answers as long as the batch says (TO_WRITE)."""
        return self.write(batch, int(batch[TO_WRITE][0]))

    def texts(self, said: Written) -> list[str]:
        """Return answers as texts, without the model's end."""
        kept = [one[:-1] if one[-1:] == [self.end] else one for one in said.tokens]
        return self.tokenizer.batch_decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def load_writer(folder: Path, device: str = "cpu", *, threads: int = 0) -> Writer:
    """Load a folder of a model that writes with the runtime it was made for.

    Args:
        folder: a checkpoint, or what `bonsai quantize` wrote.
        device: "cpu" or "cuda"; quantized models run on the CPU alone.
        threads: threads that work on one batch; 0 takes OMP_NUM_THREADS, or else the runtime's own choice.

    Raises:
        BonsaiError: no model there, a runtime that runs none that writes, or a GPU asked for a quantized one; or the
            folder does not say how it is asked, and ends.
    """
    folder, threads = Path(folder), threads or stated_threads()
    if runtime_of(folder) == TORCH:
        return _torch(folder, device, threads)
    if device != "cpu":
        raise BonsaiError(f"{folder} is quantized for CPUs and does not run on '{device}': use --device cpu")
    return _openvino(folder, threads)


def check_writing(folder: Path) -> tuple[int, int]:
    """Check what a folder says of how its model is asked and ends; return the token that ends, and the most of them.

    Raises:
        BonsaiError: its tokenizer or chat template is damaged, or its generation_config.json does not say it.
    """
    folder = Path(folder)
    tokenizer = FolderTokenizer.of(folder)
    tokenizer.check_template()
    if not tokenizer.chat_template and read_record(folder).get("task", {}).get("setting") == CHAT:
        raise BonsaiError(f"{folder} was trained for conversations, and has no chat template: copy the folder again")
    file = folder / "generation_config.json"
    found = read_object(file)
    end, most = found.get("eos_token_id"), found.get("max_new_tokens")
    if type(end) is not int or end < 0:
        raise BonsaiError(f"{file} names no token that ends an answer (eos_token_id): the model would never stop")
    if not LENGTH.holds(most):
        raise BonsaiError(f"{file} does not say how long answers may be (max_new_tokens): set it to {LENGTH.words}")
    return end, most


def _openvino(folder: Path, threads: int) -> Writer:
    if not (folder / DECODER_FILE).is_file():
        raise BonsaiError(
            f"{folder} was quantized to classify, and writes nothing: give a model that was made to write"
        )
    record = check_quantized(folder)
    end, most = check_writing(folder)
    room = record.get("quantization", {}).get("positions", NO_LIMIT)
    decoder = decoding.load_decoder(folder / DECODER_FILE, threads)

    def run(batch: Batch, tokens: int, fewer: int) -> Written:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        longest = tokens or fewer or most
        if ids.shape[1] + longest > room:
            raise BonsaiError(
                f"a text of {ids.shape[1]:,} tokens leaves no room for an answer of {longest:,}: the model takes "
                f"{room:,} of both together: give a shorter one"
            )
        return Written(*decoding.greedy(decoder, ids, mask, end, longest, forced=bool(tokens)))

    def likelihoods(batch: Batch, answers: Sequence[np.ndarray]) -> np.ndarray:
        return decoding.log_likelihoods(decoder, batch["input_ids"], batch["attention_mask"], answers)

    return Writer(OPENVINO, FolderTokenizer.of(folder), end, most, run, likelihoods)


def prompt_batch(
    folder: Path, texts: Sequence[str], task: Task, max_length: int = 0, where: str = "what is asked", first: int = 1
) -> dict[str, np.ndarray]:
    """Turn texts, or conversations, into a padded batch of prompts: before them where a model reads on from their ends.

    Args:
        folder: the model's, whose tokenizer and chat template are used.
        texts: texts, or conversations as JSON.
        task: what it answers.
        max_length: tokens at which texts are cut; 0 takes the length the model was trained with.
        where: where the texts are from, for messages.
        first: the number of the first of them.

    Raises:
        BonsaiError: a conversation is none, is too long, or the chat template refuses it.
    """
    tokenizer, before, trained = _reader(folder, (Path(folder) / "tokenizer.json").stat().st_mtime_ns)
    encoded = prompts.asked(tokenizer, texts, task, where, first, max_length or trained)
    return padded([one.ids or [tokenizer.pad_token_id] for one in encoded], tokenizer.pad_token_id, before)


def check_row(folder: Path, text: str, answer: str, task: Task, where: str, number: int, max_length: int = 0) -> None:
    """Refuse a row that a model cannot be asked, or cannot read together with its right answer.

    Args:
        folder: the model's.
        text: a text, or a conversation as JSON.
        answer: the right one.
        task: what it answers.
        where: where the row is from, for messages.
        number: its number there.
        max_length: tokens at which texts are cut; 0 takes the length the model was trained with.

    Raises:
        BonsaiError: it cannot; the message names the row and says why.
    """
    stamp = (Path(folder) / "tokenizer.json").stat().st_mtime_ns
    tokenizer, _, trained = _reader(folder, stamp)
    (read,) = prompts.asked(tokenizer, [text], task, where, number, max_length or trained)
    (right,) = prompts.answers(tokenizer, [answer], where, number)
    room = _room(folder, stamp)
    if len(read.ids) + len(right) > room:
        raise BonsaiError(
            f"{where}, row {number}: text and answer have {len(read.ids):,} and {len(right):,} tokens, and the model "
            f"takes {room:,} of both: shorten one, or leave the row out"
        )


def padded(rows: Sequence[Sequence[int]], pad_id: int, before: bool) -> dict[str, np.ndarray]:
    """Pad prompts' tokens into a batch, before or after them."""
    width = max(map(len, rows))
    ids, mask = np.full((len(rows), width), pad_id, np.int64), np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if before else slice(len(row))
        ids[number, place], mask[number, place] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def of_length(batch: Batch, tokens: int) -> dict[str, np.ndarray]:
    """Return a batch whose answers are to have so many tokens, or with OWN the model's own length."""
    asked = {name for name in batch if name.rpartition(":")[2] == TO_WRITE} or {TO_WRITE}
    return {**batch, **dict.fromkeys(asked, np.full(len(batch["input_ids"]), tokens))}


@lru_cache(maxsize=8)
def _reader(folder: Path, _changed: int) -> tuple[Any, bool, int]:
    """Return a folder's tokenizer, whether padding goes before a prompt, and where texts are cut."""
    folder = Path(folder)
    before = not read_object(folder / "config.json").get("is_encoder_decoder")
    return FolderTokenizer.of(folder), before, trained_length(folder)


@lru_cache(maxsize=8)
def _room(folder: Path, _changed: int) -> int:
    """Return how many tokens of text and answer together a model takes; NO_LIMIT where that is not limited."""
    if is_quantized(folder):
        return read_record(folder).get("quantization", {}).get("positions", NO_LIMIT)
    from transformers import AutoConfig

    return positions_of(AutoConfig.from_pretrained(folder))


def _torch(folder: Path, device: str, threads: int) -> Writer:
    import torch

    from kfp_bonsai.shared.saved import checkpoint

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BonsaiError(f"--device {device}: torch sees no GPU here: use --device cpu")
    if threads and device == "cpu":
        torch.set_num_threads(threads)
    check_writing(folder)
    network, tokenizer = checkpoint.load(folder)
    return torch_writer(network, tokenizer, device)


def torch_writer(network: Any, tokenizer: Any, device: str = "cpu") -> Writer:
    """Return a model of torch, ready to write on a device."""
    import torch
    from transformers import StoppingCriteria

    from kfp_bonsai.shared.training import answer_batches, writing

    network = network.to(device).eval()
    on, start, pad_id = writing.reads_on(network), answer_batches.start_of(network), tokenizer.pad_token_id
    end = network.generation_config.eos_token_id

    class Clock(StoppingCriteria):
        """Notes when the first token is there; it stops nothing."""

        def __init__(self) -> None:
            self.first = 0.0

        def __call__(self, input_ids: Any, scores: Any, **_options: Any) -> Any:
            if not self.first:
                if device != "cpu":
                    torch.cuda.synchronize()
                self.first = time.perf_counter()
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def run(batch: Batch, tokens: int, fewer: int) -> Written:
        clock, started = Clock(), time.perf_counter()
        length = {"max_new_tokens": tokens or fewer} if tokens or fewer else {}
        length |= {"min_new_tokens": tokens} if tokens else {}
        given = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
        with torch.inference_mode():
            said = network.generate(**given, **length, use_cache=True, stopping_criteria=[clock])
        rows = (said[:, batch["input_ids"].shape[1] :] if on else said[:, 1:]).tolist()
        ended = [row[: row.index(end) + 1] if end in row else row for row in rows]
        return Written(ended, clock.first - started, time.perf_counter() - started)

    def likelihoods(batch: Batch, answers: Sequence[np.ndarray]) -> np.ndarray:
        asked = [ids[mask.astype(bool)] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
        items = [{"input_ids": one, "labels": answer} for one, answer in zip(asked, answers, strict=True)]
        both = {name: value.to(device) for name, value in writing.collate(items, pad_id, start).items()}
        with torch.inference_mode():
            return writing.log_likelihoods(network, both).cpu().numpy()

    return Writer(TORCH, tokenizer, end, network.generation_config.max_new_tokens or 0, run, likelihoods)
