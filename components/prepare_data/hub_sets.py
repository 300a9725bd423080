"""Data sets of the Hugging Face hub, and those that its library saved: found, loaded and read as they are stored."""

import re
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from kfp_bonsai.prepare_data import glue
from kfp_bonsai.prepare_data.formats import BATCH_ROWS, FORMATS, Batch, check_names
from kfp_bonsai.shared.core import hub
from kfp_bonsai.shared.core.errors import BonsaiError, in_words, nearest
from kfp_bonsai.shared.core.files import check_plain
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data.parquet import reading, values_of
from kfp_bonsai.shared.saved.fingerprint import of_folder

SAVE_AGAIN = "save it again"
OWNERS = {"glue": glue.HOME, "imdb": "stanfordnlp/imdb"}  # of names from before data sets had owners
FILE_NAME = re.compile(r".*\.(parquet|csv|tsv|jsonl?|ndjson|txt|xlsx?|zip|gz|arrow|feather)", re.IGNORECASE)
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
CONFIGURATION = re.compile(r":([^:@/\\\s]+)")
SCHEME = re.compile(r"(hf:/|https?://[^/]+)/datasets/")
ENDING = re.compile(r"\.[a-z]\w*", re.IGNORECASE)


@dataclass(frozen=True)
class Name:
    """What a text says of a data set on the hub: owner/name, :configuration and @revision behind it, in any order."""

    repository: str
    configuration: str | None
    revision: str | None

    def __str__(self) -> str:
        """Return it as it is told."""
        configuration = f":{self.configuration}" if self.configuration else ""
        return f"{self.repository}{configuration}{f'@{self.revision}' if self.revision else ''}"

    @classmethod
    def of(cls, text: str) -> "Name | None":
        """Return the parts of a text; None where it is no such name."""
        rest, revision = hub.parted(SCHEME.sub("", text.rstrip("/"), count=1))
        found = CONFIGURATION.search(rest)
        rest = rest.replace(found[0], "", 1) if found else rest
        if not NAME.fullmatch(rest):
            return None
        return cls(OWNERS.get(rest, rest), found[1] if found else None, revision)


def is_hub_name(text: str) -> bool:
    """Return whether a text is a data set's name on the hub, if it is no file here."""
    return not text.startswith((".", "/", "~")) and Name.of(text) is not None and not looks_like_a_file(text)


def looks_like_a_file(text: str) -> bool:
    """Return whether a text ends as a file's name does, or nearly so (reviews.cvs): no data set is called that.

    Those without an owner have no dot in their names. Where a text's folder is there, any ending is a file's.
    """
    if SCHEME.match(text):
        return False
    path = Path(text)
    known = [*FORMATS, ".xlsx", ".zip", ".arrow", ".feather"]
    near = len(path.suffix) > 3 and get_close_matches(path.suffix.lower(), known, cutoff=0.7)
    here = "/" not in text or path.parent.is_dir()
    return bool(FILE_NAME.fullmatch(text) or near) or (here and bool(ENDING.fullmatch(path.suffix)))


@dataclass(frozen=True)
class HubRows:
    """A split of a Hugging Face data set, read as it is stored, whatever format it was set to give.

    Attributes:
        where: where it comes from, for messages.
        dataset: the split, whole or as a stream.
        version: gives what stands for its content.
    """

    where: str
    dataset: Any
    version: Callable[[], str]

    def names(self) -> list[str]:
        """Return the names of the columns."""
        return check_names(self.where, self.dataset.column_names or [*next(iter(self.dataset), {})])

    def digest(self) -> str:
        """Return a hash of the saved files, or the commit on the hub."""
        return self.version()

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return the names of a ClassLabel column's integers, else ().

        Raises:
            BonsaiError: its names are no texts.
        """
        found = (self.dataset.features or {}).get(column)
        found = found[0] if isinstance(found, list) else getattr(found, "feature", found)  # of a list's entries
        names = tuple(getattr(found, "names", None) or ())
        if not all(isinstance(name, str) for name in names):
            raise BonsaiError(f"{self.where}, column '{column}': its classes' names are no texts: {SAVE_AGAIN}")
        return names

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Go through some of the columns.

        Raises:
            BonsaiError: its files are damaged.
        """
        first = 1
        with reading(self.where, SAVE_AGAIN):
            found = self.dataset.with_format("arrow").select_columns(list(columns)).iter(BATCH_ROWS)
        while True:
            with reading(self.where, SAVE_AGAIN):
                table = next(found, None)
                if table is None:
                    return
                table.validate(full=True)  # a damaged file may hold places outside of it
                values = {name: values_of(table.column(name), self.where, name, first) for name in columns}
            batch = Batch(self.where, first, values)
            first += batch.rows
            yield batch


Loaded = tuple[dict[str, Any], Callable[[], str]]  # splits by their own names, and what gives a version of all


def saved(path: Path) -> Loaded:
    """Open a data set that `datasets` saved to a folder.

    Raises:
        BonsaiError: it is not whole.
    """
    from datasets import load_from_disk

    check_plain(path)
    try:
        return _by_split(load_from_disk(str(path))), cache(lambda: of_folder(path))
    except Exception as error:  # of damaged files it raises a dozen kinds
        raise BonsaiError(f"{path} is not a whole saved data set ({in_words(error)}): {SAVE_AGAIN}") from error


def load(text: str, flag: str, *, streamed: bool = False) -> Loaded:
    """Load a data set of the hub, at the commit that it has now; without the hub, as it was downloaded before.

    Args:
        text: its name.
        flag: the flag that names it, for messages.
        streamed: read it as far as its columns only.

    Raises:
        BonsaiError: there is none of this name, it is not to be read, or the hub is not reached.
    """
    from datasets import disable_progress_bars, load_dataset

    if not sys.stderr.isatty():
        disable_progress_bars()  # logs keep every step of theirs
    name = Name.of(text)
    assert name is not None
    say(f"prepare-data  loading the Hugging Face data set {text}")
    info = _info(name, text, flag)
    found = info.id if info else name.repository
    _check_no_program(info, text, flag)
    version = f"commit {info.sha}" if info else f"unknown {uuid.uuid4().hex}"  # what cannot be told is like no other
    options = {"revision": info.sha} if info else {}
    try:
        try:
            loaded = load_dataset(found, name.configuration, streaming=streamed and bool(info), **options)
        except NotImplementedError:  # files that cannot be read as a stream
            loaded = load_dataset(found, name.configuration, **options)
    except Exception as error:  # the hub's client raises a dozen kinds, all of which a user should read
        if info:
            _check_configuration(name, found, text, flag, info.sha)
        if info and info.gated and type(error).__name__ == "DatasetNotFoundError":
            raise hub.gated("data set", text) from error
        raise hub.refusal(error, "data set", text, flag) from error
    return _by_split(loaded), lambda: version


def _by_split(loaded: Any) -> dict[str, Any]:
    return {"train": loaded} if isinstance(getattr(loaded, "column_names", None), list) else dict(loaded)


def _info(name: Name, text: str, flag: str) -> Any:
    """Return what the hub says of a data set; nothing if it says nothing, and the data set is here all the same."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(name.repository, revision=name.revision, timeout=hub.PATIENCE)
    except Exception as error:
        if not (hub.is_away(error) and _is_here(name.repository)):
            folder = Path(text).parent
            near = nearest(Path(text).name, [each.name for each in folder.iterdir()]) if folder.is_dir() else ""
            said = hub.refusal(error, "data set", text, flag)
            raise type(said)(f"no file or folder {text}{near}, and {said}") from error
        say(
            f"prepare-data  note: the hub does not answer ({in_words(error)[:80]}): {text} is read as it was "
            "downloaded last, whatever it is now (HF_HUB_OFFLINE=1 spares the wait)"
        )
        return None


def _is_here(repository: str) -> bool:
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    *owner, last = repository.split("/")
    folder = Path(config.HF_DATASETS_CACHE, "___".join([*owner, camelcase_to_snakecase(last)]))
    return any(folder.glob("*/*/*"))


def _check_no_program(info: Any, text: str, flag: str) -> None:
    """Refuse a data set whose rows a program of its own makes."""
    program = f"{info.id.rpartition('/')[2]}.py" if info else ""
    if info and program in [each.rfilename for each in info.siblings or ()]:
        raise BonsaiError(
            f"the data set {text} is made by a program of its own ({program}), which `datasets` runs no longer: name a "
            f"copy without one in {flag}, or get the files that the hub made of it (`hf download --repo-type dataset "
            f"--revision refs/convert/parquet --local-dir rows {info.id}`) and give the folder of its configuration"
        )


def _check_configuration(name: Name, found: str, text: str, flag: str, commit: str) -> None:
    """Refuse a configuration that a data set has not, or none where it has several."""
    from datasets import get_dataset_config_names

    try:
        known = get_dataset_config_names(found, revision=commit)
    except Exception:  # it is not this that is wrong
        return
    if (name.configuration or (known[0] if len(known) == 1 else "default")) in known:
        return
    wrong = f"no configuration '{name.configuration}'" if name.configuration else "several configurations"
    raise BonsaiError(
        f"the data set {text} has {wrong}{nearest(name.configuration or '', known)}: give one of {', '.join(known)} "
        f"behind a colon in {flag}, such as {found}:{known[0]}"
    )
