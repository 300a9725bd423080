"""A model folder's tokenizer with its chat template, by numpy's neighbours alone: where models write without torch.

It is what `prompts` and `writers` ask of a tokenizer, and gives what transformers' gives.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.documents import read_object
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.encoding import folder_tokenizer

MARKS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class FolderTokenizer:
    """A tokenizer as a folder holds it.

    Attributes:
        backend_tokenizer: of the tokenizers library.
        name_or_path: the folder.
        chat_template: how a conversation becomes a text, "" if the folder does not say it.
        truncation_side: where texts are cut.
        split_special_tokens: whether special tokens in texts are plain text.
        marks: special tokens by what they are for, such as "eos_token".
    """

    backend_tokenizer: Any
    name_or_path: str
    chat_template: str
    truncation_side: str
    split_special_tokens: bool
    marks: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> "FolderTokenizer":
        """Read a folder's tokenizer.

        Raises:
            BonsaiError: there is none, or it is damaged.
        """
        from tokenizers import Tokenizer

        folder_tokenizer(folder)  # which refuses in words what is none
        settings = read_object(folder / "tokenizer_config.json")
        found = {**read_object(folder / "special_tokens_map.json"), **settings}
        marks = {name: _text(found[name], folder, name) for name in MARKS if found.get(name) is not None}
        return cls(
            Tokenizer.from_file(str(folder / "tokenizer.json")),
            str(folder),
            _template(folder, settings),
            settings.get("truncation_side") or "right",
            settings.get("split_special_tokens") is True,
            marks,
        )

    @cached_property
    def pad_token_id(self) -> int | None:
        """The token that pads."""
        return self._id("pad_token")

    @cached_property
    def eos_token_id(self) -> int | None:
        """The token that ends an answer."""
        return self._id("eos_token")

    @cached_property
    def unk_token_id(self) -> int | None:
        """The token of what is in no other."""
        return self._id("unk_token")

    def _id(self, name: str) -> int | None:
        return self.backend_tokenizer.token_to_id(self.marks[name]) if name in self.marks else None

    def batch_decode(self, rows: Sequence[Sequence[int]], **_options: Any) -> list[str]:
        """Return the texts of tokens, without special ones."""
        return self.backend_tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True)

    def apply_chat_template(self, messages: Sequence[Any], **options: Any) -> str:
        """Return a conversation as the template puts it, up to where the assistant begins to speak."""
        shown = {name: value for name, value in options.items() if name != "tokenize"}
        return self._compiled.render(messages=messages, tools=None, documents=None, **shown, **self.marks)

    def check_template(self) -> None:
        """See that the chat template, if there is one, is one.

        Raises:
            BonsaiError: it is none, or jinja2 is not installed.
        """
        try:
            _ = self._compiled if self.chat_template else None
        except BonsaiError:
            raise
        except Exception as error:  # of the library, or Python's own for one that is nested too deep
            said = " ".join(str(error).split())[:300]
            raise BonsaiError(
                f"the chat template of {self.name_or_path} is none ({type(error).__name__}: {said}): correct it, or "
                "copy the folder again"
            ) from error

    @cached_property
    def _compiled(self) -> Any:
        """The template, compiled as transformers does it."""
        try:
            from jinja2 import nodes
            from jinja2.exceptions import TemplateError
            from jinja2.ext import Extension, loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise BonsaiError(
                f"{self.name_or_path} reads conversations, which needs jinja2: pip install jinja2"
            ) from error

        class Spoken(Extension):
            """Marks what the assistant says, which training looks at, and nothing else."""

            tags = {"generation"}  # noqa: RUF012

            def parse(self, parser: Any) -> nodes.Node:
                line = next(parser.stream).lineno
                return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

        def refuse(message: str) -> None:
            raise TemplateError(message)

        def as_json(value: Any, ensure_ascii: bool = False, indent: Any = None, **options: Any) -> str:
            return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)

        world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Spoken, loopcontrols])
        world.filters["tojson"] = as_json
        world.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        return world.from_string(self.chat_template)


def _text(mark: Any, folder: Path, name: str) -> str:
    text = mark.get("content") if isinstance(mark, Mapping) else mark
    if not isinstance(text, str):
        raise BonsaiError(
            f"{folder / 'tokenizer_config.json'} (or special_tokens_map.json beside it): {name} is "
            f"{json.dumps(mark)[:40]}, no token: save the tokenizer again"
        )
    return text


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    """Return a folder's chat template: in a file of its own, or in the tokenizer's settings, of several the default."""
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        try:
            return alone.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BonsaiError(f"{alone} cannot be read as UTF-8 ({error}): copy the folder again") from error
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = {one.get("name"): one.get("template") for one in found if isinstance(one, Mapping)}.get("default")
    return found if isinstance(found, str) else ""
