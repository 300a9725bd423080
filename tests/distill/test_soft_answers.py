"""Teaching models that write: what is kept of a teacher's logits, and what students learn of it."""

import kinds_made
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from torch.nn import functional

from kfp_bonsai.distill.distill import distill, suggested_batch, suggested_rate
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.kinds.kind import IGNORED
from kfp_bonsai.shared.models.flops import ratio
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.training import answer_batches, soft_answers, transfer, writing
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs


def whole(student, teacher, temperature):
    """Return the divergence of all tokens."""
    logs = [functional.log_softmax(one / temperature, -1) for one in (student, teacher)]
    return functional.kl_div(*logs, log_target=True, reduction="batchmean") * temperature**2


@pytest.mark.parametrize("temperature", soft_answers.TEMPERATURES)
@pytest.mark.parametrize("size", [20, 32, 33, 4000])
def test_the_divergence_is_that_of_the_likeliest_tokens_and_the_rest(size, temperature):
    """A student led astray by the mass that is left out, or one that agrees with its teacher and is told to change."""
    random = torch.Generator().manual_seed(size)
    teacher, student = (3 * torch.randn(7, size, generator=random) for _ in range(2))
    told = torch.from_numpy(soft_answers.told(teacher))
    assert told.shape == (7, 2 * min(32, size) + 2) and told.dtype == torch.float32
    assert soft_answers.divergence(teacher + 5, told, temperature) == pytest.approx(0, abs=1e-5)
    found, full = soft_answers.divergence(student, told, temperature), whole(student, teacher, temperature)
    assert found > 0.5 and (found <= full + 1e-4 if size > 33 else found == pytest.approx(float(full), rel=1e-4))
    student.requires_grad_()
    soft_answers.divergence(student, told, temperature).backward()
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0


def test_what_is_kept_of_a_teacher_is_a_small_part_of_its_logits():
    """A transfer set that fills the disk: of a vocabulary of GPT-2's size, all logits are 750 times as much."""
    kept = soft_answers.told(torch.randn(3, 50_257))
    assert kept.nbytes == 3 * 264 and kept.nbytes < 3 * 50_257 * 4 / 700
    assert (kept[:, :32] == torch.from_numpy(kept[:, :32]).long().numpy()).all()  # numbers of tokens, exactly


@pytest.mark.parametrize("start", [None, 0], ids=["reads on", "apart"])
def test_places_are_those_that_tell_the_answers_tokens(start):
    """A student taught at the token beside the right one, or of padding."""
    items = [
        answer_batches.item(np.array([5, 6]), np.array([7, 3]), True, start),
        answer_batches.item(np.array([8, 9, 4]), np.array([3]), False, start),
    ]
    batch = answer_batches.inputs(items, 0)
    read = batch["input_ids"] if start is None else batch[answer_batches.READ]
    told_after = read.flatten()[batch["told_at"]].tolist()
    assert told_after == ([6, 7, 4] if start is None else [0, 7, 0])
    assert [one["labels"].tolist() for one in items] == [[7, 3], [IGNORED]]


@pytest.fixture(scope="module", params=["llama", "t5"])
def made(request, tmp_path_factory):
    """A model that learnt to write, its splits and its transfer set."""
    folder = tmp_path_factory.mktemp(request.param)
    data = kinds_made.splits(folder / "data", "generation")
    model = tiny.pretrained(folder / "model", layers=2, family=request.param, writes=True)
    fine_tune(
        str(model), data["train"], data["validation"], folder / "base", epochs=9, learning_rate=5e-3, batch_size=16
    )
    teacher_outputs(folder / "base", data["train"], data["unlabelled"], folder / "transfer")
    return folder, data


def test_texts_without_an_answer_get_the_teachers(made):
    """Text of the domain that nothing is learnt from, or answers of the teacher taken for the data's."""
    folder, data = made
    found = transfer.open_set(folder / "transfer")
    network, tokenizer = load(folder / "base")
    own = [bool((np.asarray(one) != IGNORED).all()) for one in found.labels]
    assert sum(own) == kinds_made.SIZES["train"] and len(found) == sum(own) + kinds_made.SIZES["unlabelled"]
    asked = rows.read_rows(data["unlabelled"], tokenizer, 64).inputs["input_ids"]
    said = writing.write_tokens(network, asked, tokenizer.pad_token_id)
    lengths = sorted(len(found.labels[index]) for index in range(len(found)) if not own[index])
    most = network.generation_config.max_new_tokens
    assert lengths == sorted(min(most, len(one) + 1) for one in said)


def test_a_teacher_is_kept_as_it_answers(made):
    """A transfer set of other logits than the teacher's: of itself, it has nothing to learn."""
    folder, _ = made
    network, tokenizer = load(folder / "base")
    found = transfer.open_set(folder / "transfer")
    batch = soft_answers.collate([found[index] for index in range(32)], tokenizer.pad_token_id)
    given = {name: value for name, value in batch.items() if name.endswith("_ids") or name == "attention_mask"}
    with torch.no_grad():
        logits = network(**given).logits.flatten(0, 1)[batch["told_at"]]
    assert soft_answers.divergence(logits, batch["teacher_logits"], 1.0) < 0.01  # of bfloat16, where there is such


def test_a_shorter_narrower_student_learns_to_write(made):
    """Levels that can be asked for, and whose answers are then noise, or cost what the baseline does."""
    folder, data = made
    layer_remove(folder / "base", data["validation"], folder / "short", keep="1/2")
    pruned = matrix_prune(folder / "short", folder / "transfer", folder / "pruned", flops=0.45, steps=20)
    small = folder / "small"
    learnt = distill(folder / "pruned", folder / "transfer", data["validation"], small, epochs=8, learning_rate=5e-3)
    records = [read_record(folder / one) for one in ("small", "base")]
    assert pruned["flops_ratio"] == ratio(*records, 0) < 0.46
    before = read_record(folder / "base")["validation"]
    assert learnt["perplexity"] == records[0]["validation"]["perplexity"] < 2 * before["perplexity"]
    with torch.no_grad():
        network, tokenizer = load(small)
    texts = pq.read_table(data["test"])["text"].to_pylist()[:4]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    assert network.generate(**batch).shape[0] == 4
    with pytest.raises(BonsaiError, match="--temperature 3: a teacher that writes is kept at 1 or 2"):
        distill(folder / "pruned", folder / "transfer", data["validation"], folder / "no", temperature=3)


def test_students_that_write_learn_faster_in_smaller_steps(made):
    """Half of a model's layers taught at a rate made for whole classifiers: it writes a tenth of what it could."""
    record = read_record(made[0] / "base")
    record["lineage"] = [{**one, "arguments": {"learning_rate": 1e-4}} for one in record["lineage"]]

    def of(share):
        return {**record, "flops": {name: value * share for name, value in record["flops"].items()}}

    assert [suggested_rate(of(share), record) for share in (1 / 3, 1 / 2, 2 / 3)] == pytest.approx([5e-4, 5e-4, 1e-4])
    assert {suggested_batch(of(share), record) for share in (0.1, 2 / 3)} == {16}
