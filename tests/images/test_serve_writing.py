"""The edge image's program with models that write: answers as the package gives them, limits, and no torch."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import writers_made
from served_made import ask, listening
from test_serve import REQUIREMENTS

from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.serve.__main__ import main
from kfp_bonsai.serve.served import load
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.inference import writers
from kfp_bonsai.shared.saved.records import read_record, task_of

PATH = "/v2/models/reviews/infer"
TEXTS = ["the film was bad and good", "dull", "", "a very lovely plot and the cast was great"]


@pytest.fixture(scope="module", params=[False, True], ids=["texts", "conversations"])
def served(request, tmp_path_factory):
    """A model that writes, quantized, as it is served, with its folder and what it is asked."""
    folder = tmp_path_factory.mktemp("writes")
    base, _, _ = writers_made.tuned(folder, "llama", count=160, chat=request.param, epochs=2)
    quantize(base, folder / "train.parquet", folder / "int8", calibration_rows=8)
    said = [json.dumps([{"role": "user", "content": text}]) for text in TEXTS] if request.param else TEXTS
    return folder, load(folder / "int8"), said


DAMAGED = {
    "chat_template.jinja": {
        b"\xff\xfe": r"chat_template.jinja cannot be read as UTF-8",
        b"{% for": "template of .* is none",
    },
    "generation_config.json": {
        b'{"eos_token_id": 3, "max_new_tokens": %s}' % number: r"generation_config.json does not say how long"
        for number in (b"-1", b"0", b"true", b"1e9")
    },
    "tokenizer_config.json": {b'{"pad_token": "[PAD]", "eos_token": {"a": 1}}': 'eos_token is {"a": 1}, no token'},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_beside_the_weights_is_told_by_who_serves_and_packages(served, name, tmp_path, capsys):
    """A traceback, a template's fault told of the texts, empty answers, or a package that nobody can serve."""
    folder, _, _ = served
    (tmp_path / "texts.txt").write_text("a\n")
    for content, said in DAMAGED[name].items():
        for model in (folder / "int8", folder / "base"):
            copy = tmp_path / "copy"
            shutil.copytree(model, copy)
            (copy / name).write_bytes(content)
            for command in (["serve", str(copy)], ["score", str(copy), str(tmp_path / "texts.txt")]):
                assert main(command) == 2
                assert re.search(f"^error: .*{said}", capsys.readouterr().err)
            with pytest.raises(BonsaiError, match=said):
                writers.check_writing(copy)
            shutil.rmtree(copy)


def test_a_model_of_conversations_without_their_template_is_refused(served, tmp_path):
    """A server that is ready, and refuses each conversation as if it were at fault."""
    folder, _, texts = served
    if texts == TEXTS:
        pytest.skip("texts are texts")
    shutil.copytree(folder / "int8", tmp_path / "copy")
    (tmp_path / "copy" / "chat_template.jinja").unlink()
    with pytest.raises(BonsaiError, match="has no chat template: copy the folder again"):
        load(tmp_path / "copy")


def tensor(texts):
    """A request's input."""
    return {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}


def test_answers_are_those_of_the_package_together_and_alone(served):
    """A device that writes otherwise than the model that was measured, or by what else it is asked."""
    folder, model, texts = served
    own = writers.load_writer(folder / "base")
    batch = writers.prompt_batch(folder / "base", texts, task_of(read_record(folder / "base")))
    together = [one["answer"] for one in model.tell(texts)]
    assert together == [model.tell([text])[0]["answer"] for text in texts]
    same = [one == other for one, other in zip(together, own.texts(own.write(batch)), strict=True)]
    assert sum(same) >= len(texts) - 1
    unquantized = load(folder / "base")
    assert unquantized.runtime == "torch"
    assert [one["answer"] for one in unquantized.tell(texts)] == own.texts(own.write(batch))


def test_it_speaks_the_protocol_and_keeps_its_limits(served):
    """A server that other programs cannot ask, or that one request keeps busy for hours."""
    _, model, texts = served
    with listening(model) as connection:
        told = ask(connection, "GET", "/v2/models/reviews")[1]
        assert told["outputs"] == [{"name": "answer", "datatype": "BYTES", "shape": [-1]}]
        assert told["platform"] == "openvino_ir" and "parameters" not in told
        status, found = ask(connection, "POST", PATH, {"inputs": [tensor(texts)]})
        assert status == 200 and found["outputs"][0]["shape"] == [len(texts)]
        assert found["outputs"][0]["data"] == [one["answer"] for one in model.tell(texts)]
        fewer = {"inputs": [tensor(texts)], "parameters": {"max_new_tokens": 1}}
        short = ask(connection, "POST", PATH, fewer)[1]["outputs"][0]["data"]
        assert max(len(one.split()) for one in short) <= 1
        for parameters in (
            {"max_new_tokens": 10**6},
            {"max_new_tokens": 0},
            {"max_new_tokens": True},
            {"top_k": 3},
            [1],
        ):
            status, found = ask(connection, "POST", PATH, {"inputs": [tensor(texts)], "parameters": parameters})
            assert status == 400 and "max_new_tokens" in found["error"]
        status, found = ask(connection, "POST", PATH, {"inputs": [tensor(texts[:1] * 65)]})
        assert status == 400 and "give 1 to 64" in found["error"]


def test_conversations_that_are_none_are_refused_in_words(served):
    """Five hundred, and a log that nobody reads, for what whoever asks can mend."""
    _, model, texts = served
    if texts == TEXTS:
        pytest.skip("texts are texts")
    long = json.dumps([{"role": "user", "content": "good " * 200}])
    with listening(model) as connection:
        for text, message in (("no JSON", "refuses the conversation"), (long, "tokens, and"), ("[]", "")):
            status, found = ask(connection, "POST", PATH, {"inputs": [tensor([text])]})
            assert (status == 400 and message in found["error"]) if message else status == 200


def test_it_writes_with_what_its_image_has_and_no_more(served):
    """An edge image that must hold gigabytes, or lacks what the server imports."""
    folder, model, texts = served
    listed = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    there = {"kfp_bonsai", *(line.lower() for line in listed if line and not line.startswith("#"))}
    code = f"""
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {there!r} and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["serve", "score", {str(folder / "int8")!r}]
runpy.run_module("kfp_bonsai.serve", run_name="__main__")"""
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, input="\n".join(texts), capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert [json.loads(line) for line in found.stdout.splitlines()] == model.tell(texts)
