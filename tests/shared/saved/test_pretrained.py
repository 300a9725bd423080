"""Whatever transformers accepts in a model folder is used rightly, or refused in words before anything is trained."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.pipelines.local.run import run
from kfp_bonsai.pipelines.values import check_model
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.data.encoding import encode
from kfp_bonsai.shared.inference.onnx_export import export
from kfp_bonsai.shared.inference.runtimes import load_predictor
from kfp_bonsai.shared.kinds.kind import SPAN, WRITTEN
from kfp_bonsai.shared.models.tokens import make_room, most_tokens, separate
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.saved.checkpoint import load, rehearse, save
from kfp_bonsai.shared.saved.records import read_record

ONE = {"r": 4, "peft_type": "LORA"}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {
        name: tiny.pretrained(folder / name, 2, name)
        for name in ("bert", "roberta", "mpnet", "gpt2", "t5", "llama", "mistral", "opt")
    }


def changed(made_once, to, family="bert", config=None, tokenizer=None):
    """Copy a model, with entries of config.json and tokenizer_config.json changed, as people and tools do by hand."""
    shutil.copytree(made_once[family], to)
    for name, change in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        if change:
            (to / name).write_text(json.dumps(json.loads((to / name).read_text()) | change))
    return to


def with_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def used(folder, texts=("the film was good", "dull")):
    """Read and load a model; return its logits of some texts."""
    found = pretrained.read(folder)
    network = pretrained.load(found.folder, found.config).network.eval()
    inputs = found.tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        return network.base_model(**inputs)[0]


HARMLESS = {
    "attention that is not installed": ("bert", {"_attn_implementation": "flash_attention_2"}),
    "attention by its new name": ("gpt2", {"attn_implementation": "flash_attention_3"}),
    "attention of a hub's kernel": ("llama", {"attn_implementation": "kernels-community/flash-attn"}),
    "attention that the family has not": ("mpnet", {"attn_implementation": "sdpa"}),
    "paged attention": ("llama", {"_attn_implementation": "paged|sdpa"}),
    "a padding number beyond the vocabulary": ("llama", {"pad_token_id": 25}),
    "a padding number far beyond it": ("opt", {"pad_token_id": 50257}),
    "a negative padding number": ("llama", {"pad_token_id": -1}),
    "no padding number": ("bert", {"pad_token_id": None}),
    "several ends": ("llama", {"eos_token_id": [3, 4]}),
    "chunks": ("bert", {"chunk_size_feed_forward": 7}),
    "an encoder that says it has a decoder": ("bert", {"is_encoder_decoder": True}),
    "half precision": ("bert", {"torch_dtype": "float16"}),
    "classes without words": ("bert", {"id2label": {"0": 1}}),
    "several labels at once": ("bert", {"problem_type": "multi_label_classification"}),
    "no architectures": ("gpt2", {"architectures": None}),
    "tuples": ("gpt2", {"return_dict": False, "torchscript": True}),
}


@pytest.mark.parametrize(("family", "config"), HARMLESS.values(), ids=HARMLESS)
def test_what_changes_nothing_of_a_model_is_settled(made_once, tmp_path, family, config):
    """A traceback of transformers before, during or after the training, for a model that is as good as any."""
    folder = changed(made_once, tmp_path / "model", family, config)
    torch.testing.assert_close(used(folder), used(made_once[family]))
    settled = pretrained.read(folder).config
    settled.save_pretrained(tmp_path / "saved")
    kept = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert not any("attn_implementation" in name for name in kept)
    assert settled.pad_token_id in range(25)


REFUSED = {
    "a decoder's mask": ({"is_decoder": True}, "is_decoder to True"),
    "another model's attention": ({"add_cross_attention": True}, "add_cross_attention to True"),
    "words for numbers": ({"num_hidden_layers": "2"}, r"config.json cannot be used .*num_hidden_layers"),
    "an object for a number": ({"hidden_size": {"a": 1}}, r"config.json cannot be used .*hidden_size"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers to 0"),
    "a million layers": ({"num_hidden_layers": 10**6}, "num_hidden_layers to 1000000"),
    "a negative width": ({"intermediate_size": -64}, "intermediate_size to -64"),
    "heads that do not fit": ({"num_attention_heads": 5}, "cannot be used"),
    "more layers than there are": ({"num_hidden_layers": 9}, "lacks weights of the model's body"),
    "fewer layers than there are": ({"num_hidden_layers": 1}, r"holds bert.encoder.layer.1.* no place"),
    "positions for a terabyte": ({"max_position_embeddings": 10**10}, "lacks weights of the model's body"),
    "no such activation": ({"hidden_act": "geluu"}, "cannot be used .*geluu"),
    "a dropout of all": ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob to 1.0, with which nothing can be learnt"),
    "quantized": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized weights cannot be trained"),
    "no room for a text": ({"max_position_embeddings": -1}, "leaves -1 positions for a text"),
    "code of its own": ({"auto_map": {"AutoModel": "mine.Model"}}, "never run here"),
    "a list of types": ({"model_type": ["bert"]}, "is not supported"),
    "no type": ({"model_type": None}, "is not supported"),
    "classes by a list": ({"id2label": ["a", "b"]}, "config.json cannot be used"),
}


@pytest.mark.parametrize(("config", "message"), REFUSED.values(), ids=REFUSED)
def test_what_config_json_cannot_mean_is_refused(made_once, tmp_path, config, message):
    """A traceback, a machine without memory, or another model than the weights are of."""
    with pytest.raises(BonsaiError, match=message):
        pretrained.read(changed(made_once, tmp_path / "model", config=config))


def test_run_and_fine_tune_refuse_in_the_same_words(made, made_once, tmp_path):
    """One of the two goes on, and the other refuses the model after it."""
    folder = changed(made_once, tmp_path / "model", config={"hidden_act": "geluu"})
    with pytest.raises(BonsaiError) as by_run:
        run(str(folder), str(made.train), tmp_path / "run")
    with pytest.raises(BonsaiError) as by_fine_tune:
        fine_tune(str(folder), made.train, made.validation, tmp_path / "out")
    assert str(by_run.value) == str(by_fine_tune.value)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "pytorch_adapter.bin"])
@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_not_left_out_in_silence(made_once, tmp_path, name, alone):
    """A model without what was learnt last, or a message that asks for config.json."""
    folder = changed(made_once, tmp_path / "model")
    if alone:
        (folder / "config.json").unlink()
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(json.dumps(ONE))
    with pytest.raises(BonsaiError, match=r"holds an adapter .*merge it first"):
        pretrained.read(folder)


LAYER = "bert.encoder.layer.0.attention.self.query.weight"
WEIGHTS = {
    "scales left over": (lambda kept: kept.update({LAYER + "_scale": torch.ones(1)}), "holds quantized weights"),
    "bitsandbytes": (lambda kept: kept.update({LAYER.replace("weight", "SCB"): torch.ones(32)}), "quantized weights"),
    "whole numbers": (lambda kept: kept.update({LAYER: kept[LAYER].to(torch.int8)}), "quantized weights"),
    "8 bits": (lambda kept: kept.update({LAYER: kept[LAYER].to(torch.float8_e4m3fn)}), "quantized weights"),
    "an adapter in it": (
        lambda kept: kept.update({LAYER.replace("weight", "lora_A.weight"): torch.ones(4, 32)}),
        "no pl",
    ),
    "NaN": (lambda kept: kept[LAYER].view(-1)[7:8].fill_(float("nan")), "query.weight holds NaN or infinity"),
    "infinity": (lambda kept: kept[LAYER].view(-1)[7:8].fill_(float("inf")), "query.weight holds NaN or infinity"),
    "another size": (lambda kept: kept.update({LAYER: torch.ones(16, 32)}), "in another size than config.json says"),
}


@pytest.mark.parametrize(("change", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_of_another_kind_are_refused(made_once, tmp_path, change, message):
    """A model of noise, or one that lacks what was learnt last, fine-tuned without a word."""
    folder = changed(made_once, tmp_path / "model")
    with_weights(folder, change)
    with pytest.raises(BonsaiError, match=message):
        used(folder)


def test_heads_of_other_tasks_and_old_buffers_do_no_harm(made_once, tmp_path):
    """Every checkpoint of a pretraining has them."""
    folder = changed(made_once, tmp_path / "model")
    more = {"bert.embeddings.position_ids": torch.arange(64)[None], "cls.predictions.bias": torch.ones(25)}
    with_weights(folder, lambda kept: kept.update(more))
    torch.testing.assert_close(used(folder), used(made_once["bert"]))


SHARDS = {
    "outside": (
        {"a": "../other/model.safetensors"},
        [],
        r"names ../other/model.safetensors, which is not in its folder",
    ),
    "twice": (
        {"a": "1.safetensors", "b": "2.safetensors"},
        ["1.safetensors", "2.safetensors"],
        "another of its weight",
    ),
    "missing": ({"a": "1.safetensors", "b": "2.safetensors"}, ["1.safetensors"], "2.safetensors is missing"),
    "a number": ({"a": 7}, [], "7 is missing"),
    "a list": (["a"], [], "names no weight files"),
    "nothing": ({}, [], "names no weight files"),
}


@pytest.mark.parametrize(("index", "files", "message"), SHARDS.values(), ids=SHARDS)
def test_an_index_that_does_not_fit_is_refused(made_once, tmp_path, index, files, message):
    """Weights from elsewhere, or one of two versions of a tensor."""
    folder = changed(made_once, tmp_path / "model")
    whole = (folder / "model.safetensors").rename(tmp_path / "whole")
    for name in files:
        shutil.copy(whole, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    with pytest.raises(BonsaiError, match=message):
        pretrained.read(folder)


TOKENIZERS = {
    "a kind of its own": (
        "gpt2",
        {"tokenizer_class": "GPT2Tokenizer"},
        "holds a WordLevel tokenizer, and transformers",
    ),
    "a length in words": ("bert", {"model_max_length": []}, r"model_max_length to \[\]: write a number"),
    "a setting of another type": ("bert", {"split_special_tokens": "yes"}, "the tokenizer in .* cannot be used"),
}


@pytest.mark.parametrize(("family", "settings", "message"), TOKENIZERS.values(), ids=TOKENIZERS)
def test_tokenizers_of_another_kind_are_refused(made_once, tmp_path, family, settings, message):
    """Texts are split by another tokenizer than the model was trained with, or a library's exception."""
    with pytest.raises(BonsaiError, match=message):
        pretrained.read(changed(made_once, tmp_path / "model", family, tokenizer=settings))


def test_token_numbers_with_holes_are_refused(made_once, tmp_path):
    """An index error in the embeddings, in the midst of training, though there are fewer tokens than embeddings."""
    folder = changed(made_once, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["film"] = 70
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BonsaiError, match="has 'film' as token 70, and the model 25 embeddings"):
        pretrained.read(folder)


def test_positions_that_count_from_another_padding_are_refused(made_once, tmp_path):
    """RoBERTa would read every text some positions off, and nobody would know why it is so weak."""
    folder = changed(made_once, tmp_path / "model", "roberta", {"pad_token_id": 1})
    with pytest.raises(BonsaiError, match=r"pads with token 0, and config.json has pad_token_id 1"):
        pretrained.read(folder)


def test_a_tokenizers_own_length_bounds_the_rows(made_once, tmp_path):
    """Texts of 40 tokens for a model that was made for 16 tokens, as its tokenizer says."""
    for stated, most in ((16, 16), (10**30, 64), (3, 64), (64, 64)):
        folder = changed(made_once, tmp_path / str(stated), tokenizer={"model_max_length": stated})
        assert most_tokens(pretrained.read(folder).tokenizer, 64) == most


def test_pairs_on_a_model_of_one_token_type_run_everywhere(made, tmp_path):
    """An index error in training; or, at the edge, another model than the one that was trained."""
    start = tiny.pretrained(tmp_path / "start", 2)
    file = start / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"type_vocab_size": 1}))
    name = "bert.embeddings.token_type_embeddings.weight"
    with_weights(start, lambda kept: kept.update({name: kept[name][:1].clone()}))
    found = pretrained.read(start)
    separate(found.tokenizer, found.config)
    network = pretrained.load(start, found.config).network
    rehearse(network, found.tokenizer, [["good film"], ["dull plot"]], 16)
    save(network, found.tokenizer, tmp_path / "model", dict(read_record(made.baseline)))
    sent = encode(tmp_path / "model", ["good film"], ["dull plot"])
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")("good film", "dull plot", return_tensors="pt")
    assert set(theirs) == {"input_ids", "attention_mask"}
    with torch.no_grad():
        expected = network.eval()(**theirs).logits.numpy()
    np.testing.assert_allclose(load_predictor(tmp_path / "model").predict(sent), expected, atol=1e-6)
    assert export(tmp_path / "model", tmp_path / "model.onnx") < 1e-3


SETTINGS = {
    "special tokens as text": {"split_special_tokens": True},
    "cut on the left": {"truncation_side": "left", "padding_side": "left"},
    "more special tokens": {"additional_special_tokens": ["film", "<new>"]},
    "a beginning": {"add_bos_token": True, "bos_token": "[CLS]"},
}
TEXTS = ["the [SEP] film [MASK] was good", "", "a " * 40, "Éa 中 film<new>film ☃"]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_training_and_the_edge_see_the_same_tokens(made, made_once, tmp_path, family, settings):
    """A model that is right in training is measured, and served, with other tokens."""
    found = pretrained.read(changed(made_once, tmp_path / "start", family, tokenizer=settings))
    trained = rows.tokenize(found.tokenizer, [TEXTS], 24).inputs
    by_transformers = found.tokenizer(TEXTS, truncation=True, max_length=24)["input_ids"]
    network = pretrained.load(found.folder, found.config).network
    if family == "t5":
        network.config.label_tokens = [[7], [8]]
    make_room(found.tokenizer, network)
    rehearse(network, found.tokenizer, [TEXTS], 24)
    found.tokenizer.save_pretrained(tmp_path / "model")
    served = encode(tmp_path / "model", TEXTS, max_length=24)
    for number, row in enumerate(trained["input_ids"]):
        assert served["input_ids"][number][: len(row)].tolist() == row.tolist()
        assert row.tolist() == (by_transformers[number] or [found.tokenizer.pad_token_id])


def test_a_tokenizer_that_is_saved_as_another_is_refused_before_training(made_once, monkeypatch):
    """A whole training, whose model then answers to other tokens where it is served."""
    found = pretrained.read(made_once["bert"])
    network = pretrained.load(found.folder, found.config).network
    here = rows.tokenize

    def other(tokenizer, columns, max_length):
        made = here(tokenizer, columns, max_length)
        made.inputs["input_ids"][1] = made.inputs["input_ids"][1][::-1]
        return made

    monkeypatch.setattr(rows, "tokenize", other)
    with pytest.raises(BonsaiError, match=r"splits a text otherwise once it is saved \('dull film'\)"):
        rehearse(network, found.tokenizer, [["good", "dull film"]], 16)


def test_what_could_not_be_saved_is_said_before_training(made_once):
    """Transformers refuses some settings of generation only when it saves them: the trained model would be lost."""
    found = pretrained.read(made_once["t5"])
    found.config.label_tokens = [[7], [8]]
    network = pretrained.load(found.folder, found.config).network
    network.generation_config.num_beams, network.generation_config.num_return_sequences = 1, 3
    with pytest.raises(BonsaiError, match="could not be saved after training"):
        rehearse(network, found.tokenizer, [["good"]], 16)


def stage_folder(made, to, name, change):
    shutil.copytree(made.baseline, to)
    (to / name).write_text(json.dumps(change(json.loads((to / name).read_text()))))
    return to


RECORDS = {
    "a list of nothing": (lambda record: record | {"lineage": [None]}, r"bonsai.json: lineage\[0\] is null"),
    "words for a length": (lambda record: record | {"max_length": "24"}, 'bonsai.json: max_length is "24"'),
    "a nest": (
        lambda record: record | {"task": {**record["task"], "labels": {"a": []}}},
        "bonsai.json: task.labels is",
    ),
    "other weights": (lambda record: record | {"sha256": "0" * 64}, "are not those that its bonsai.json speaks of"),
    "other tokens": (lambda record: record | {"tokenizer_sha256": "0" * 64}, "tokens in .* are not those that its"),
    "a flag for a number": (lambda record: record | {"parameters": True}, "bonsai.json: parameters is true"),
}


@pytest.mark.parametrize(("change", "message"), RECORDS.values(), ids=RECORDS)
def test_a_record_of_other_types_is_refused(made, tmp_path, change, message):
    """An exception in the midst of a stage, or a lineage that is not the model's."""
    with pytest.raises(BonsaiError, match=message):
        load(stage_folder(made, tmp_path / "model", "bonsai.json", change))


def test_what_a_record_lacks_is_said(made, tmp_path):
    """A KeyError from whichever stage asks for it first."""
    folder = stage_folder(made, tmp_path / "model", "bonsai.json", lambda record: {"lineage": []})
    with pytest.raises(BonsaiError, match="says nothing of 'max_length'"):
        read_record(folder)["max_length"]


def test_changed_weights_of_a_stage_are_refused(made, tmp_path):
    """A flipped bit changes a model, and its figures are still those of another."""
    folder = shutil.copytree(made.baseline, tmp_path / "model")
    with_weights(folder, lambda kept: next(iter(kept.values())).view(-1)[:1].add_(1))
    with pytest.raises(BonsaiError, match=r"are not those that its bonsai\.json speaks of"):
        load_predictor(folder)


def test_a_tokenizer_config_that_makes_another_tokenizer_is_refused(made, tmp_path):
    """A stage trains on other tokens than those that the model is measured and served with."""
    change = {"additional_special_tokens": ["good film"], "extra_special_tokens": ["good film"]}
    folder = stage_folder(made, tmp_path / "model", "tokenizer_config.json", lambda found: found | change)
    with pytest.raises(BonsaiError, match=r"makes another tokenizer of tokenizer\.json|as token 25"):
        load(folder)


def test_a_hubs_cache_is_read_like_a_folder(made_once, monkeypatch, tmp_path):
    """A model of the hub is checked otherwise than one in a folder, or its links are no files."""
    blobs = shutil.copytree(made_once["bert"], tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    asked = SimpleNamespace(patterns=[])

    def download(name, revision, allow_patterns, ignore_patterns):
        assert name == "org/model"
        asked.patterns = allow_patterns
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = pretrained.read("org/model", weights=True)
    assert "model*.safetensors" in asked.patterns
    torch.testing.assert_close(used(found.folder), used(made_once["bert"]))
    (snapshot / "model.safetensors").unlink()
    requests = [SimpleNamespace(author="somebody", num=3), SimpleNamespace(author="SFconvertbot", num=4)]
    for found, said in ((requests, "give --model org/model@refs/pr/4, the hub's own"), (requests[:1], "have the hub")):
        monkeypatch.setattr("huggingface_hub.get_repo_discussions", lambda name, found=found, **_: iter(found))
        with pytest.raises(BonsaiError, match=f"org/model has no safetensors weights, but pickled .*: {said}"):
            pretrained.read("org/model", weights=True)
    assert pretrained.read("org/model").config.vocab_size == 25


def test_a_tokenizer_whose_class_pads_left_is_taken(made_once, tmp_path):
    """Every Llama 2 is refused: its class pads left again, once the tokenizer is saved as it is used, padding right."""
    folder = changed(made_once, tmp_path / "model", "llama")
    words = {f"▁{word}": number for number, word in enumerate(["", "film", "good"], 3)}
    made = Tokenizer(models.BPE({"<unk>": 0, "<s>": 1, "</s>": 2} | words, [], unk_token="<unk>", byte_fallback=True))
    made.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    found = pretrained.read(folder)
    rehearse(found.outline, found.tokenizer, [["film good", "film"]], 16)


def test_scores_that_a_file_rounds_are_no_other_tokenizer(made_once, tmp_path):
    """Most T5 are refused: reading a score of 17 digits from a file may change the last one."""
    folder = changed(made_once, tmp_path / "model", "t5")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁film", -1.502560305276072), ("▁", -2.6091722547298595)]
    made = Tokenizer(models.Unigram(pieces, 2, False))
    made.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>", "tokenizer_class": "T5Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | {"extra_ids": 0}))
    found = pretrained.read(folder)
    rehearse(found.outline, found.tokenizer, [["film film", "film"]], 16)


def test_how_a_model_was_set_to_write_text_is_no_matter(made_once, tmp_path):
    """A T5 is refused, or lost when it is saved, for how it would sample a text, which nobody asks of it here."""
    folder = changed(made_once, tmp_path / "model", "t5")
    (folder / "generation_config.json").write_text(
        json.dumps({"do_sample": False, "temperature": 0.9, "min_length": 30})
    )
    found = pretrained.read(folder)
    rehearse(found.outline, found.tokenizer, [["good film"]], 16)
    network = pretrained.load(found.folder, found.config, "row").network
    assert network.generation_config.min_length is None


def test_an_output_matrix_of_its_own_is_asked_for_by_run_too(made_once, tmp_path):
    """Run goes on, and fine-tune refuses the model after the data were prepared."""
    lost = {"scale_decoder_outputs": False, "architectures": ["T5Model"]}
    with pytest.raises(BonsaiError, match="lacks the output matrix"):
        check_model(str(changed(made_once, tmp_path / "model", "t5", lost)), [], 0)


def test_an_output_matrix_that_is_the_embeddings_is_not_missed(made_once, tmp_path):
    """A T5 1.1 of one's own is refused: made of a configuration, it has one matrix for both, and is saved so."""
    folder = changed(made_once, tmp_path / "model", "t5")
    config = T5Config.from_pretrained(folder, tie_word_embeddings=False)
    made = T5ForConditionalGeneration(config)
    made.save_pretrained(folder)
    network = pretrained.load(folder, pretrained.read(str(folder)).config, WRITTEN).network.eval()
    given = {"input_ids": torch.tensor([[5, 6, 7]]), "decoder_input_ids": torch.tensor([[0, 8]])}
    with torch.inference_mode():
        assert torch.allclose(network(**given).logits, made.eval()(**given).logits, atol=1e-6)


def test_a_family_whose_class_for_spans_loads_no_published_model_is_refused_as_that(tmp_path):
    """A whole Llama is said to lack its body, and to be got again: its class for questions calls the body otherwise."""
    found = pretrained.read(str(tiny.pretrained(tmp_path / "model", layers=1, family="llama", writes=True)))
    with pytest.raises(BonsaiError, match="no llama model finds answers in texts: use another family, such as bert"):
        pretrained.load(found.folder, found.config, SPAN)


def test_a_t5_without_a_start_begins_with_padding(made_once, tmp_path):
    """A model whose config.json leaves it out is refused by an attribute's name."""
    folder = changed(made_once, tmp_path / "model", "t5")
    found = json.loads((folder / "config.json").read_text())
    del found["decoder_start_token_id"]
    (folder / "config.json").write_text(json.dumps(found))
    assert pretrained.read(folder).config.decoder_start_token_id == 0


SETTINGS_OF_NOTHING = {
    "a method": ("gpt2", {"save_pretrained": "x"}, "sets save_pretrained, which is no setting of a model"),
    "what the class is": ("llama", {"keys_to_ignore_at_inference": ["logits"]}, "is no setting of a model"),
    "less than no dropout": ("llama", {"attention_dropout": -0.1}, "attention_dropout to -0.1"),
    "no number for dropout": ("llama", {"attention_dropout": None}, "attention_dropout to None"),
    "positions all alike": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, "rope_theta to 0"),
    "a window of nothing": ("mistral", {"sliding_window": 0}, "sliding_window to 0"),
    "a scale of nothing": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor to 0"),
    "roots of less than nothing": ("bert", {"layer_norm_eps": -1.0}, "layer_norm_eps to -1.0"),
    "biases of farther tokens": ("mpnet", {"relative_attention_num_buckets": 20}, "buckets to 20, with which a mpnet"),
    "a part of a position": ("t5", {"max_position_embeddings": 64.5}, "leaves 64.5 positions"),
    "what cannot be saved": ("gpt2", {"distributed_config": {}}, "could not be saved after training"),
}


@pytest.mark.parametrize(("family", "config", "message"), SETTINGS_OF_NOTHING.values(), ids=SETTINGS_OF_NOTHING)
def test_settings_of_no_model_are_refused_by_run(made_once, tmp_path, family, config, message):
    """A traceback in the midst of training, NaN, or a trained model that cannot be saved."""
    with pytest.raises(BonsaiError, match=message):
        check_model(str(changed(made_once, tmp_path / "model", family, config)), [], 0)


def test_a_model_that_does_not_run_is_refused_before_training(made, made_once, tmp_path):
    """A traceback in the first step of training; only running it tells what else a setting can break."""
    broken = changed(made_once, tmp_path / "model", "t5", {"relative_attention_max_distance": 0})
    with pytest.raises(BonsaiError, match="describes no model that runs"):
        fine_tune(str(broken), made.train, made.validation, tmp_path / "out")
    found = pretrained.read(made_once["bert"])
    network = pretrained.load(found.folder, found.config).network
    with torch.no_grad():
        network.classifier.bias.fill_(float("inf"))
    with pytest.raises(BonsaiError, match="gives NaN or infinity for a text"):
        rehearse(network, found.tokenizer, [["good film"]], 16)


def test_an_end_that_no_vocabulary_has_is_refused(made_once, tmp_path):
    """An index error in the embeddings by the first text, because only pairs were looked at."""
    folder = changed(made_once, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["single"] = [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "X", "type_id": 0}},
    ]
    content["post_processor"]["special_tokens"]["X"] = {"id": "X", "ids": [999], "tokens": ["X"]}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BonsaiError, match="gives token 999, which its vocabulary does not have"):
        pretrained.read(folder)
