"""Models that write as graphs of OpenVINO: what torch writes, padded or alone, in every family and shape."""

import models
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.inference import decoding
from kfp_bonsai.shared.inference.decoder_export import export
from kfp_bonsai.shared.models.free_models import free_class, free_config
from kfp_bonsai.shared.models.shapes import LayerShape

NAMES = ("llama", "gpt2", "opt", "qwen3", "gemma3_text near and far")
END = 1


def written_by_torch(model, ids, mask, most, least=0):
    """What transformers writes, up to the end of each row's answer."""
    options = GenerationConfig(eos_token_id=END, pad_token_id=0, decoder_start_token_id=0, do_sample=False)
    given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    said = model.generate(**given, generation_config=options, max_new_tokens=most, min_new_tokens=least or None)
    rows = said[:, 1 if model.config.is_encoder_decoder else ids.shape[1] :].tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


def prompts(rows, tokens):
    """Random prompts of different lengths, padded before them."""
    ids, mask = np.random.default_rng(1).integers(5, 90, (rows, tokens)), np.ones((rows, tokens), np.int64)
    for row in range(rows):
        mask[row, :row] = ids[row, :row] = 0
    return ids, mask


def same(decoder, model):
    """Compare what a decoder writes with torch, free and forced, and together with one by one."""
    ids, mask = prompts(4, 6)
    together = decoding.greedy(decoder, ids, mask, END, 8)[0]
    assert together == written_by_torch(model, ids, mask, 8)
    alone = [
        decoding.greedy(decoder, ids[row : row + 1, row:], mask[row : row + 1, row:], END, 8)[0] for row in range(4)
    ]
    assert [one for (one,) in alone] == together
    forced = decoding.greedy(decoder, ids, mask, END, 5, forced=True)[0]
    assert forced == written_by_torch(model, ids, mask, 5, least=5)
    assert {len(one) for one in forced} == {5} and not any(END in one for one in forced)


def free(stock, shapes):
    """A random model of a free shape."""
    torch.manual_seed(0)
    model = free_class(type(stock))(free_config(stock.config, [LayerShape(*one) for one in shapes])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.float()


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_writes_what_torch_writes(name, tmp_path):
    """Another position, mask or window than in training: answers that drift from the first padded row on."""
    model = models.made(name, AutoModelForCausalLM).float()
    assert export(model, tmp_path / "model.xml") < 1e-5
    same(decoding.load_decoder(tmp_path / "model.xml", threads=1), model)


def test_layers_of_different_widths_keep_their_own_keys_and_values(tmp_path):
    """A free shape that no runtime for known architectures opens: it would have to stay on torch."""
    stock = models.made("llama", AutoModelForCausalLM)
    model = free(stock, [(4, 64), (2, 24), (4, 8)])
    export(model, tmp_path / "model.xml")
    same(decoding.load_decoder(tmp_path / "model.xml", threads=1), model)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [("gated t5", []), ("t5", [(4, 64), (2, 24), (3, 8), (4, 64, 2), (1, 16, 4), (2, 24, 1)])],
)
def test_an_encoder_is_read_by_the_decoder_beside_it(name, shapes, tmp_path):
    """Padding that is read, or biases of other places than torch's: answers that drift the longer they are."""
    stock = models.made(name, AutoModelForSeq2SeqLM)
    model = free(stock, shapes) if shapes else stock.float()
    assert export(model, tmp_path / "model.xml") < 1e-4
    decoder = decoding.load_decoder(tmp_path / "model.xml", threads=1)
    same(decoder, model)
    ids, mask = (array[:, ::-1].copy() for array in prompts(4, 11))  # padded after them
    said = np.random.default_rng(2).integers(2, 90, (4, 40))
    found = [decoder.read(ids, mask).copy(), *(decoder.go_on(tokens).copy() for tokens in said.T)]
    read = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": np.pad(said, ((0, 0), (1, 0)))}
    with torch.no_grad():
        right = model(**{name: torch.from_numpy(array) for name, array in read.items()}).logits.numpy()
    assert np.abs(np.stack(found, axis=1) - right).max() < 1e-4 * max(1, np.abs(right).max())


def test_likelihoods_are_torchs_whatever_is_beside_a_row(tmp_path):
    """A perplexity on the edge that is of other tokens, or of padding."""
    model = models.made("llama", AutoModelForCausalLM).float()
    export(model, tmp_path / "model.xml")
    decoder = decoding.load_decoder(tmp_path / "model.xml", threads=1)
    ids, mask = prompts(3, 5)
    answers = [np.array(one) for one in ([7, 8, END], [9, END], [END])]
    found = decoding.log_likelihoods(decoder, ids, mask, answers)
    assert found[:, 1].tolist() == [3, 2, 1]
    for row, answer in enumerate(answers):
        whole = np.concatenate([ids[row, row:], answer])
        with torch.no_grad():
            chances = model(torch.from_numpy(whole)[None]).logits[0].log_softmax(-1).numpy()
        right = sum(chances[5 - row + at - 1, token] for at, token in enumerate(answer))
        assert found[row, 0] == pytest.approx(right, abs=1e-4)
    said = [np.array(one) for one in decoding.greedy(decoder, ids, mask, END, 6)[0]]
    assert decoding.followed(decoder, ids, mask, said) == sum(map(len, said))
    assert decoding.followed(decoder, ids, mask, [np.append(one[:-1], (one[-1] + 1) % 90) for one in said]) < sum(
        map(len, said)
    )


def test_a_damaged_graph_is_refused_in_words(tmp_path):
    """A traceback of OpenVINO's for a file that was cut off on its way to a device."""
    (tmp_path / "model.xml").write_text("<net></net>")
    with pytest.raises(BonsaiError, match="quantize again"):
        decoding.load_decoder(tmp_path / "model.xml")
