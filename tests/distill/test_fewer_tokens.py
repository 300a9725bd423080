"""A level whose vocabulary is that of its task, from the pretrained model to what is measured."""

import byte_tokens
import numpy as np
import pytest
from kinds_made import rows_of
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from writers_made import split

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.evaluate_emissions.given import check_models
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import rows, tasks
from kfp_bonsai.shared.models.flops import Flops
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record, write_record
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs


def test_a_level_with_the_words_of_its_task_costs_less_and_reads_the_same(tmp_path):
    """FLOPs that a level was asked for and does not reach, a student that reads in other tokens, or a late refusal."""
    model = tmp_path / "model"
    own = byte_tokens.tokenizer(model)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ids = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 0}
    LlamaForCausalLM(LlamaConfig(vocab_size=2000, max_position_embeddings=64, **sizes, **ids)).save_pretrained(model)
    made = {name: split(tmp_path / f"{name}.parquet", rows_of("generation", size, size))
            for name, size in (("train", 48), ("validation", 16), ("unlabelled", 16))}  # fmt: skip
    base, taught = tmp_path / "base", tmp_path / "taught"
    fine_tune(str(model), made["train"], made["validation"], base, epochs=1, batch_size=16)
    write_record(base, read_record(base) | {"validation": {"exact_text": 0.5}})  # it has hardly learnt
    teacher_outputs(base, made["train"], made["unlabelled"], taught, augmentations=0)
    pruning = {"flops": 0.36, "shape": "stock", "steps": 4}
    with pytest.raises(BonsaiError, match=r"one head and"):
        matrix_prune(base, taught, tmp_path / "whole", **pruning)
    matrix_prune(base, taught, tmp_path / "pruned", **pruning, vocabulary="task")
    distill(tmp_path / "pruned", taught, made["validation"], tmp_path / "small", epochs=1, vocabulary="task")
    before, after = read_record(base), read_record(tmp_path / "small")
    kept = after["vocabulary"]["kept"]
    assert after["vocabulary"]["whole"] == 2000 and 260 < kept <= len(own)
    lengths = before["read_tokens"], before["written_tokens"]
    assert Flops.from_record(after).at(*lengths) <= 0.37 * Flops.from_record(before).at(*lengths)
    network, tokenizer = load(tmp_path / "small")
    assert network.config.vocab_size == kept == len(AutoTokenizer.from_pretrained(tmp_path / "small"))
    texts = [rows.read_rows(made["validation"], each, 64).inputs["input_ids"] for each in (load(base)[1], tokenizer)]
    assert [len(one) for one in texts[0]] == [len(one) for one in texts[1]]
    assert network.generation_config.eos_token_id == tokenizer.eos_token_id
    assert np.concatenate(texts[1]).max() < kept
    assert len(check_models([base, tmp_path / "small"], tasks.read_task(made["validation"]), made["validation"])) == 2
    matrix_prune(base, taught, tmp_path / "enough", flops=0.95, vocabulary="task")  # once the baseline is trained
    assert read_record(tmp_path / "enough")["shape"] == before["shape"]
