"""The hub of models and data sets: how what is on it is named, and in words why something cannot be had of it."""

import re
from collections.abc import Iterator
from contextlib import suppress

from kfp_bonsai.shared.core.errors import BonsaiError, PassingError, in_words, kind_of

HUB = "hf://"
CONVERTER = "SFconvertbot"  # who opens the hub's own pull requests with safetensors
PATIENCE = 10.0  # seconds for one answer
REVISION = re.compile(r"@([\w./-]+)")
NO_ANSWER = (429, 500, 502, 503, 504)


def parted(text: str) -> tuple[str, str | None]:
    """Return a name without hf:// and its revision, and that: a branch, tag or commit behind @; None for the newest."""
    text = text.removeprefix(HUB)
    found = REVISION.search(text)
    return (text.replace(found[0], "", 1), found[1]) if found else (text, None)


def refusal(error: Exception, what: str, name: str, flag: str) -> BonsaiError:
    """Return why a model or data set cannot be had, and what to do; a PassingError if it may be had later.

    Args:
        error: what the hub's client raised.
        what: "model" or "data set".
        name: its name, as it was given.
        flag: the flag that names it.
    """
    from huggingface_hub import constants, errors

    chain = [*_chain(error)]
    status = status_of(error)

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(each, kinds) for each in chain)

    if is_a(errors.OfflineModeIsEnabled):
        return BonsaiError(
            f"the {what} {name} is not among what was downloaded before ({constants.HF_HOME}), to which HF_HUB_OFFLINE "
            f"keeps: unset it once, set HF_HOME to where it is, or correct {flag}"
        )
    if is_a(errors.GatedRepoError):
        return gated(what, name)
    if is_a(errors.RevisionNotFoundError):
        return BonsaiError(
            f"the hub's {what} {parted(name)[0]} has no revision '{parted(name)[1]}': give a branch, tag or commit "
            f"after the @, or none, in {flag}"
        )
    if is_a(errors.RepositoryNotFoundError) or status == 404:
        return BonsaiError(
            f"the hub ({constants.ENDPOINT}) has no {what} {name}, or a private one: correct {flag}; a private one is "
            "read with HF_TOKEN"
        )
    if status in (401, 403):
        return BonsaiError(
            f"the hub ({constants.ENDPOINT}) does not let you read the {what} {name} ({status}): set HF_TOKEN to a "
            "token that may"
        )
    if status in NO_ANSWER:
        return PassingError(
            f"the hub ({constants.ENDPOINT}) answers {status} for the {what} {name}: try again later, or set "
            "HF_ENDPOINT to a mirror"
        )
    if kind_of(error) is PassingError:
        return PassingError(
            f"the hub ({constants.ENDPOINT}) was not reached for {name} ({_first(chain)}): check the network; "
            "HF_ENDPOINT names a mirror, HTTPS_PROXY the way out, and HF_HUB_OFFLINE=1 keeps to what was downloaded"
        )
    said = in_words(error)[:300]
    return BonsaiError(
        f"the {what} {name} could not be loaded from the hub ({constants.ENDPOINT}; {said}): correct {flag}"
    )


def converted(name: str) -> str:
    """Say how to take the safetensors that the hub itself makes of a model's pickled weights, as a pull request.

    That of another author may hold other weights, so it is not named.

    Args:
        name: the model's, without a revision.
    """
    from huggingface_hub import constants, get_repo_discussions

    with suppress(Exception):  # no answer is no conversion
        asked = get_repo_discussions(name, author=CONVERTER, discussion_type="pull_request", discussion_status="open")
        for one in asked:
            if one.author == CONVERTER:
                return f"give --model {name}@refs/pr/{one.num}, the hub's own conversion of them"
    return (
        f"have the hub convert them ({constants.ENDPOINT}/spaces/safetensors/convert), and give --model "
        f"{name}@refs/pr/N, where N is the number of the pull request that it opens"
    )


def gated(what: str, name: str) -> BonsaiError:
    """Return what to do about something that only those may read who asked for it."""
    return BonsaiError(
        f"the {what} {name} is gated on the hub: ask for access on its page there, and set HF_TOKEN to a token of the "
        "account that has it"
    )


def status_of(error: Exception) -> int:
    """Return the status that the hub answered; 0 for none."""
    return next(filter(None, map(_status, _chain(error))), 0)


def is_away(error: Exception) -> bool:
    """Return whether the hub was not asked, or gave no answer, so that only what was downloaded before is there."""
    return kind_of(error) is PassingError


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int:
    return getattr(getattr(error, "response", None), "status_code", 0) or 0


def _first(chain: list[BaseException]) -> str:
    """Return what was wrong in the end, in one line."""
    return " ".join(f"{type(chain[-1]).__name__}: {chain[-1]}".split())[:150]
