"""Published folders on the Hugging Face hub: a private repository a name, where a version is a commit and its tag.

All files of a version come by one commit, made only on top of what was looked at; the tag follows once they are all
there. A repository that holds anything else than earlier versions is somebody's, and left alone.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.documents import RECORD
from kfp_bonsai.shared.core.errors import BonsaiError, PassingError, in_words, kind_of
from kfp_bonsai.shared.core.hub import HUB, parted, refusal, status_of
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.storage.manifest import MANIFEST, File
from kfp_bonsai.shared.storage.objects import patience

NAME = re.compile(r"[\w.-]+/[\w.-]+")
MADE_WITH = {".gitattributes", "README.md"}  # what a new repository may hold
TOKEN = "set HF_TOKEN to a token that may write there"


def is_on_hub(location: str) -> bool:
    """Return whether a location is there."""
    return location.startswith(HUB)


def split_name(location: str) -> tuple[str, str | None]:
    """Return the name and the version of hf://owner/name@version.

    Raises:
        BonsaiError: it is no such name.
    """
    name, version = parted(location.rstrip("/"))
    if not NAME.fullmatch(name):
        raise BonsaiError(f"{location} names no model on the hub: give hf://owner/name, or hf://owner/name@version")
    return name, version


def upload(files: Mapping[str, File], manifest: str, destination: str) -> None:
    """Publish files as a version; the same ones published again change nothing.

    Raises:
        BonsaiError: the name is taken, the version holds something else, or the token may not write.
    """
    from huggingface_hub import HfApi, get_token

    name, version = split_name(destination)
    if version is None:
        raise BonsaiError(f"{destination} names no version: give hf://owner/name@version")
    if get_token() is None:
        raise BonsaiError(f"{destination}: no token to write with: set HF_TOKEN, or log in with `hf auth login`")
    api = HfApi()
    try:
        # each attempt looks anew at what is there: of the one before, only the answer may have been lost
        patience(lambda error: kind_of(error) is PassingError)(_publish)(api, name, version, files, manifest)
    except BonsaiError:
        raise
    except Exception as error:
        raise _refusal(error, destination, name) from error


def _publish(api: Any, name: str, version: str, files: Mapping[str, File], manifest: str) -> None:
    where = f"{HUB}{name}"
    there = _info(api, name) or _make(api, name)
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(name).tags}
    if version in tags:
        if _content(api, name, tags[version]) != manifest.encode():
            raise BonsaiError(
                f"{where}@{version} holds something else, and what is published never changes: name a new one"
            )
        return
    held = {one.rfilename for one in there.siblings or ()}
    if not held <= MADE_WITH and not {MANIFEST, RECORD} <= held:
        other = sorted(held - MADE_WITH)[0]
        raise BonsaiError(
            f"{where} is taken: it holds {other} and no package of `bonsai package-model`: give another name"
        )
    if not there.private:
        say(f"note: {where} is public, so that everybody can read what is published there")
    commit = there.sha
    if MANIFEST not in held or _content(api, name, commit) != manifest.encode():
        commit = _commit(api, name, version, files, manifest, there, held)
    whole = {one.rfilename for one in api.model_info(name, revision=commit).siblings or ()}
    if missing := sorted({*files, MANIFEST} - whole):
        raise BonsaiError(
            f"{where} did not take {missing[0]}, such as for a .gitignore there, and {version} is not published: give "
            "another name, or remove what keeps it out"
        )
    api.create_tag(name, tag=version, revision=commit)


def _commit(
    api: Any, name: str, version: str, files: Mapping[str, File], manifest: str, there: Any, held: set[str]
) -> str:
    """Put all files in the place of an earlier version's, on top of it."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    sent = {key: str(file.path) for key, file in files.items()} | {MANIFEST: manifest.encode()}
    operations: list[Any] = [CommitOperationAdd(key, content) for key, content in sent.items()]
    operations += [CommitOperationDelete(key) for key in sorted(held - {*sent, ".gitattributes"})]
    done = api.create_commit(name, operations, commit_message=f"Version {version}", parent_commit=there.sha)
    return done.oid


def _info(api: Any, name: str) -> Any:
    """Return what the hub tells of a repository; nothing where there is none that we may see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(name)
    except RepositoryNotFoundError:
        return None


def _make(api: Any, name: str) -> Any:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(name, private=True)
    except HfHubHTTPError as error:
        if status_of(error) != 409:
            raise
        if (there := _info(api, name)) is None:
            raise BonsaiError(f"{HUB}{name} is taken, by what this token may not see: give another name") from error
        return there
    return api.model_info(name)


def _content(api: Any, name: str, commit: str | None) -> bytes | None:
    """Return the manifest of a commit; None if it has none."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(api.hf_hub_download(name, MANIFEST, revision=commit)).read_bytes()
    except EntryNotFoundError:
        return None


def read(source: str) -> tuple[bytes | None, Callable[[str, Path], None]]:
    """Return a version's manifest (None if it has none), and what fetches one of its files.

    Raises:
        BonsaiError: there is no such model, or it cannot be read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    name, version = split_name(source)
    api = HfApi()
    try:
        commit = api.model_info(name, revision=version).sha
        manifest = _content(api, name, commit)
    except Exception as error:  # the hub's client raises a dozen kinds
        raise refusal(error, "model", source, "the name") from error

    def fetch(file: str, path: Path) -> None:
        try:
            shutil.copyfile(api.hf_hub_download(name, file, revision=commit), path)
        except EntryNotFoundError:
            return  # told as not being as the manifest says
        except OSError as error:
            if status_of(error) or kind_of(error) is PassingError:
                raise refusal(error, "model", source, "the name") from error
            raise

    return manifest, fetch


def _refusal(error: Exception, where: str, name: str) -> BonsaiError:
    """Return why something cannot be published, and what to do."""
    status = status_of(error)
    if status == 401:
        return BonsaiError(f"{where}: the hub refuses the token (401): {TOKEN}")
    if status == 403:
        owner = name.partition("/")[0]
        return BonsaiError(f"{where}: the token may not write for '{owner}' (403: {_said(error)}): {TOKEN}")
    if status in (409, 412):
        return BonsaiError(f"{where} was changed by somebody else meanwhile ({status}): run again")
    if kind_of(error) is PassingError:
        return PassingError(f"{where}: the hub does not answer ({_said(error)}): check the network, then run again")
    return BonsaiError(f"{where}: the hub did not take it ({_said(error)}): correct that, then run again")


def _said(error: Exception) -> str:
    return re.sub(r"hf_\w{8,}", "hf_...", str(getattr(error, "server_message", None) or in_words(error)))[:200]
