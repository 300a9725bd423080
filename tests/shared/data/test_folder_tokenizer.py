"""A folder's tokenizer without transformers: the same texts of the same conversations, and back."""

import json

import pytest
import tiny
from transformers import AutoTokenizer

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import prompts
from kfp_bonsai.shared.data.folder_tokenizer import FolderTokenizer

TALK = [
    {"role": "system", "content": "be <b>kind</b> & brief"},
    {"role": "user", "content": "the “film”?\n"},
    {"role": "assistant", "content": "fine"},
    {"role": "user", "content": "why"},
]
TEMPLATES = {
    "plain": "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}is",
    "blocks on lines": "{% for m in messages %}\n  {% if m.role %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}",
    "loop control": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "what is learnt": "{% set a = 'b' %}{% generation %}{% set a = 'c' %}{{ a }}{% endgeneration %}{{ a }}",
    "marks": "{{ eos_token }}{{ unk_token }}{% if bos_token is defined %}{{ bos_token }}{% endif %}{{ pad_token }}",
    "asked to speak": "{% if add_generation_prompt %}go{% endif %}{% if tools %}no{% endif %}{{ tools is none }}",
    "today": "{{ strftime_now('%Y') }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("inside", [False, True])
def test_conversations_become_the_texts_that_they_were_trained_as(name, inside, tmp_path):
    """A model on a device that reads other texts than it was trained and measured with."""
    own = tiny.tokenizer("llama")
    own.pad_token = "[SEP]"
    own.chat_template = TEMPLATES[name]
    own.save_pretrained(tmp_path)
    if inside:
        (tmp_path / "chat_template.jinja").unlink()
        file = tmp_path / "tokenizer_config.json"
        several = [{"name": "default", "template": TEMPLATES[name]}, {"name": "tool_use", "template": "no"}]
        file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": several}))
    ours, theirs = FolderTokenizer.of(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = json.dumps(TALK)
    assert prompts.conversation(ours, text, "row 1") == prompts.conversation(theirs, text, "row 1")
    for mark in ("pad_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(ours, mark) == getattr(theirs, mark)
    rows = [[5, 6, 3], [], [2, 7]]
    assert ours.batch_decode(rows) == theirs.batch_decode(rows, skip_special_tokens=True)


def test_what_a_template_refuses_is_told_with_its_reason(tmp_path):
    """A program's traceback for a conversation that its user can mend."""
    own = tiny.tokenizer("llama")
    own.pad_token = "[SEP]"
    own.chat_template = "{{ raise_exception('roles must take turns') }}"
    own.save_pretrained(tmp_path)
    with pytest.raises(BonsaiError, match=r"row 7: the chat template .* refuses .*roles must take turns"):
        prompts.conversation(FolderTokenizer.of(tmp_path), json.dumps(TALK), "row 7")
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(BonsaiError, match="has no chat template"):
        prompts.conversation(FolderTokenizer.of(tmp_path), json.dumps(TALK), "row 7")


def test_a_template_reaches_nothing_of_the_machine(tmp_path):
    """Code of whoever made the model, run on a device that serves it."""
    own = tiny.tokenizer("llama")
    own.pad_token = "[SEP]"
    own.chat_template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    own.save_pretrained(tmp_path)
    with pytest.raises(BonsaiError, match="SecurityError"):
        prompts.conversation(FolderTokenizer.of(tmp_path), json.dumps(TALK), "row 7")
