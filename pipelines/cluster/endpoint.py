"""The API of Kubeflow Pipelines: how to reach it, and what it refuses or answers wrongly, in words.

Every answer is checked for what was asked: behind an expired login, a proxy or another service there is an answer too.
"""

import json
import os
import re
import shlex
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, PassingError
from kfp_bonsai.shared.core.signatures import options_of

ENDPOINT = "KF_PIPELINES_ENDPOINT"  # the environment variable that KFP's own client reads
TIMEOUT = (10, 30)  # seconds to connect and between two parts of an answer; KFP's client would wait for ever
TRIES = 3


@dataclass(frozen=True)
class Access:
    """How the API is reached; the client connects when it is asked for.

    Args:
        endpoint: URL of Kubeflow Pipelines; else that in KF_PIPELINES_ENDPOINT.
        namespace: The profile's namespace, where Kubeflow has several users.
        token_file: File with a bearer token, such as a pod's /var/run/secrets/kubeflow/pipelines/token.
        cookie_file: File with a session's cookie, such as "authservice_session=...", for Kubeflow behind a login.
        ca_file: Certificate authority of the endpoint, where it is not a public one.
    """

    endpoint: str = ""
    namespace: str = ""
    token_file: str = ""
    cookie_file: str = ""
    ca_file: str = ""

    @cached_property
    def client(self) -> Any:
        """KFP's client, which asks the endpoint for its health.

        Raises:
            BonsaiError: no URL, a file that cannot be read, or an endpoint that refuses or is down.
        """
        return _connect(**vars(self))

    def address(self, run: str) -> str:
        """Return a run's page in the UI."""
        return f"{self.client._uihost}/#/runs/details/{run}"

    def command(self, *words: str) -> str:
        """Return a command of ours with this access."""
        options = {each.name: getattr(self, each.name) for each in fields(self)}
        flags = [part for name, value in options.items() if value for part in (f"--{name.replace('_', '-')}", value)]
        return shlex.join(["bonsai", *words, *flags]) + ("" if self.endpoint else f" (with {ENDPOINT} set)")


ACCESS = options_of(Access)


def _connect(endpoint: str, namespace: str, token_file: str, cookie_file: str, ca_file: str) -> Any:
    if find_spec("kfp") is None:
        raise BonsaiError("KFP is not installed: pip install 'kfp-bonsai[kfp]'")
    address = api_address(endpoint or os.environ.get(ENDPOINT, ""))
    _secret(token_file, "--token-file")
    cookies = _secret(cookie_file, "--cookie-file")
    if ca_file:
        _check_authority(ca_file)
    import logging
    import warnings

    from kfp.client import Client
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    class Asking(Client):
        def get_kfp_healthz(self, *_: Any, **__: Any) -> Any:
            """Ask once; KFP's own asks five times, logs five tracebacks and forgets what was answered."""
            _check_answers(self._healthz_api.api_client)
            return self._healthz_api.healthz_service_get_healthz()

    credentials = ServiceAccountTokenVolumeCredentials(token_file) if token_file else None  # read again as it expires
    for chatty in ("kfp", "urllib3.connectionpool"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings(), answers():
        warnings.simplefilter("ignore")
        client = Asking(
            address,
            namespace=namespace or "kubeflow",
            ssl_ca_cert=ca_file or None,
            cookies=cookies,
            credentials=credentials,
        )
    _check_answers(client._run_api.api_client)
    return client


def api_address(endpoint: str) -> str:
    """Return the URL of the API: also of one that was copied from the UI, such as https://host/_/pipeline/#/runs.

    Raises:
        BonsaiError: it is no URL.
    """
    address = re.split(r"[#?]", endpoint.strip())[0]
    address = re.sub(r"/apis/v\d\w*(/.*)?$", "", address.replace("/_/", "/")).rstrip("/")
    if not re.match(r"https?://[^/]", address):
        raise BonsaiError(
            f"--endpoint '{endpoint}': give the URL of Kubeflow Pipelines, such as https://kubeflow.example/pipeline, "
            f"or set {ENDPOINT}"
        )
    return address


def _secret(file: str, flag: str) -> str | None:
    if not file:
        return None
    try:
        found = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BonsaiError(f"{flag} {file} cannot be read ({error})") from error
    if not found or "\n" in found:
        raise BonsaiError(f"{flag} {file}: it must hold one line")
    return found


def _check_authority(file: str) -> None:
    if not Path(file).is_file():
        raise BonsaiError(f"--ca-file {file}: there is no such file")
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        raise BonsaiError(f"--ca-file {file} holds no certificate ({error.strerror}): give a file in PEM") from error


def ask(client: Any, path: str, method: str = "GET") -> dict[str, Any]:
    """Return the JSON that the API answers, below the endpoint's address.

    Raises:
        PassingError: no answer, or one that says that something is away.
        BonsaiError: it refuses, or answers something else.
    """
    api = client._run_api.api_client
    headers = {"Accept": "application/json"}
    with answers():
        found = api.call_api(
            path,
            method,
            header_params=headers,
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
        )
    return dict(found)


def ask_text(client: Any, path: str, query: dict[str, str]) -> str:
    """Return what lies at a path as text; "" if it is a web page or not there."""
    api = client._run_api.api_client
    options = {"header_params": {"Accept": "text/plain"}, "query_params": [*query.items()]}
    try:
        with answers():
            api.call_api(path, "GET", auth_settings=["Bearer"], **options)
    except BonsaiError:
        return ""
    found = str(api.last_response.data)
    return "" if _is_page(found) else found


def given(answer: Any, field: str) -> str:
    """Return a text that an answer must have, such as the id of what was made.

    Raises:
        BonsaiError: it has none.
    """
    found = answer.get(field) if isinstance(answer, dict) else getattr(answer, field, None)
    if not isinstance(found, str) or not found:
        raise BonsaiError(
            f"the endpoint's answer has no {field}, so it is not that of Kubeflow Pipelines 2: look whether --endpoint "
            "leads there (the URL often ends in /pipeline), and whether anything was started there"
        )
    return found


WHAT_TO_DO = {
    401: "it wants to know who you are: give a valid --token-file or --cookie-file",
    403: "you may not do this there: ask for the right in the namespace, or give another --namespace",
    404: "there is no Kubeflow Pipelines API at this path: the URL often ends in /pipeline",
}
AWAY = (408, 425, 429, 500, 502, 503, 504)  # answers that another try may change
LOGIN = re.compile(r"log.?in|sign.?in|authenticat|oauth|openid|password|/auth\b|/dex\b|\bsso\b|saml", re.IGNORECASE)


@contextmanager
def answers() -> Iterator[None]:
    """Turn an endpoint that is down, and an answer that KFP's client cannot read, into errors in words."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise PassingError(
            f"no answer from the endpoint ({_root_cause(error)}): check --endpoint and the network, and the --ca-file"
        ) from error
    except ValueError as error:  # what KFP's client refuses itself
        raise BonsaiError(f"KFP's client: {error}") from error
    except (kfp_server_api.OpenApiException, TypeError, AttributeError, LookupError) as error:
        said = " ".join(str(error).split())[:200]
        raise BonsaiError(
            f"the endpoint's answer is not that of Kubeflow Pipelines 2 ({said}): look whether --endpoint leads there"
        ) from error


def _check_answers(api: Any) -> None:
    """Let every answer to KFP's client be checked, no call wait for ever, and none be sent on to another address."""
    import kfp_server_api
    import urllib3

    rest = api.rest_client
    if "request" in vars(rest):
        return
    request = rest.request
    redirects = urllib3.Retry(total=TRIES, read=1, redirect=0, raise_on_redirect=False)  # a redirect makes GET of POST
    rest.pool_manager.connection_pool_kw["retries"] = redirects

    def checked(method: str, url: str, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or TIMEOUT
        try:
            found = request(method, url, **options)
        except kfp_server_api.ApiException as error:
            raise _refusal(url, error) from error
        if "json" in (options.get("headers") or {}).get("Accept", ""):
            _check_json(found.data)
        return found

    rest.request = checked


def _refusal(url: str, error: Any) -> BonsaiError:
    """Return what an answer with a status other than 2xx says."""
    status, body = error.status or 0, _text(error.body)
    to = re.split(r"[?#]", (error.headers or {}).get("Location") or "")[0]
    if 300 <= status < 400 and to:
        if LOGIN.search(to):
            return BonsaiError(_wants_login(f"it sends calls on to {to}"))
        at = f"give the address that answers itself as --endpoint{_moved(url, to)}"
        return BonsaiError(f"the endpoint sends calls on to {to}, where they would be lost: {at}")
    if status in (401, 403) and _is_page(body) and LOGIN.search(body):
        return BonsaiError(_wants_login(f"it answered {status} with the page '{_title(body)}'"))
    what = WHAT_TO_DO.get(status, "see the logs of its API server" if status >= 500 else "correct what was given")
    if status == 404 and "code" in body and not _is_page(body):  # KFP's own words
        what = "look at the name or id that was given, and at --namespace"
    kind = PassingError if status in AWAY else BonsaiError
    return kind(f"the endpoint answered {status or ''} {error.reason or ''}{_message(body)}: {what}")


def _moved(url: str, to: str) -> str:
    """Return the endpoint that a redirect names, if it is the same call elsewhere."""
    path = re.sub(r"^https?://[^/]+", "", url).partition("?")[0]
    call = path[max(path.find("/apis/"), 0) :]
    return f", {to.removesuffix(call)}" if "://" in to and to.endswith(call) else ""


def _check_json(data: bytes | None) -> None:
    """Refuse an answer that is no JSON object, which KFP's client would take for an object without a field."""
    try:
        found = json.loads(data or b"")
    except (ValueError, RecursionError) as error:
        text = _text(data)
        if _is_page(text) and LOGIN.search(text):
            raise BonsaiError(_wants_login(f"it answered with the page '{_title(text)}'")) from error
        what = f"with the page '{_title(text)}'" if _is_page(text) else f"'{text[:60]}'" if text else "with nothing"
        raise BonsaiError(
            f"the endpoint answered {what}, not as Kubeflow Pipelines: look whether --endpoint leads to its API (the "
            "URL often ends in /pipeline) and whether a proxy or a login (--token-file, --cookie-file) is before it"
        ) from error
    if not isinstance(found, dict):
        raise BonsaiError(
            f"the endpoint answered '{_text(data)[:60]}', not as Kubeflow Pipelines: look whether --endpoint leads "
            "there"
        )


def _wants_login(how: str) -> str:
    return f"the endpoint wants a login: {how}: give a valid --token-file or --cookie-file (a session may have ended)"


def _text(data: Any) -> str:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data or "")
    return "".join(each if each.isprintable() else " " for each in text).strip()


def _is_page(text: str) -> bool:
    return bool(re.match(r"\s*(<!doctype html|<html|<head|<!--)", text, re.IGNORECASE))


def _title(page: str) -> str:
    """Return the title of a web page, or its first words."""
    found = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
    text = found[1] if found else re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page)
    return " ".join(text.split())[:60]


def _root_cause(error: BaseException) -> str:
    """Return the end of a chain of errors, which says what happened, not who was told."""
    while isinstance(cause := error.__cause__ or (error.args or (None,))[-1], BaseException):
        error = cause
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").replace("_", " ").lower()
        return getattr(error, "verify_message", "") or f"{reason or 'no TLS'}: is it http://?"
    return str(error).rpartition(": ")[2] or type(error).__name__


def _message(body: str) -> str:
    if _is_page(body):
        return f" (the page '{_title(body)}')"
    try:
        said = json.loads(body)
        return f" ({said.get('error_message') or said.get('message') or said.get('error')})"
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ""
