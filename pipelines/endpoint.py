"""The API of Kubeflow Pipelines: how to reach it, and what it refuses in words."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.errors import BonsaiError

ENDPOINT = "KF_PIPELINES_ENDPOINT"  # the environment variable that KFP's own client reads


def connect(endpoint: str, namespace: str, token_file: str, cookie_file: str, ca_file: str) -> Any:
    """Return KFP's client, which asks the endpoint for its health.

    Args:
        endpoint: URL of Kubeflow Pipelines; "" for that in KF_PIPELINES_ENDPOINT.
        namespace: the profile's namespace, "" where there is one user.
        token_file: file with a bearer token, or "".
        cookie_file: file with a session's cookie, or "".
        ca_file: certificate authority, or "".

    Raises:
        BonsaiError: no URL, a file that cannot be read, or an endpoint that refuses or is down.
    """
    if find_spec("kfp") is None:
        raise BonsaiError("KFP is not installed: pip install 'kfp-bonsai[kfp]'")
    endpoint = (endpoint or os.environ.get(ENDPOINT, "")).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise BonsaiError(
            f"--endpoint '{endpoint}': give the URL of Kubeflow Pipelines, such as https://kubeflow.example/pipeline, "
            f"or set {ENDPOINT}"
        )
    _secret(token_file, "--token-file")
    cookies = _secret(cookie_file, "--cookie-file")
    if ca_file and not Path(ca_file).is_file():
        raise BonsaiError(f"--ca-file {ca_file}: there is no such file")
    import logging
    import warnings

    from kfp.client import Client
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    class Asking(Client):
        def get_kfp_healthz(self, *_: Any, **__: Any) -> Any:
            """Ask once; KFP's own asks five times, logs five tracebacks and forgets what was answered."""
            return self._healthz_api.healthz_service_get_healthz()

    credentials = ServiceAccountTokenVolumeCredentials(token_file) if token_file else None  # read again as it expires
    logging.getLogger("kfp").setLevel(logging.ERROR)
    with warnings.catch_warnings(), answers():
        warnings.simplefilter("ignore")
        return Asking(
            endpoint,
            namespace=namespace or "kubeflow",
            ssl_ca_cert=ca_file or None,
            cookies=cookies,
            credentials=credentials,
        )


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


WHAT_TO_DO = {
    401: "it wants to know who you are: give a valid --token-file or --cookie-file",
    403: "you may not do this there: ask for the right in the namespace, or give another --namespace",
    404: "there is no Kubeflow Pipelines API at this path: the URL often ends in /pipeline",
}


@contextmanager
def answers() -> Iterator[None]:
    """Turn what an endpoint refuses, and one that is down, into errors in words."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        what = WHAT_TO_DO.get(error.status, "see the logs of its API server")
        said = _message(error.body)
        raise BonsaiError(f"the endpoint answered {error.status} {error.reason or ''}{said}: {what}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise BonsaiError(
            f"no answer from the endpoint ({_root_cause(error)}): check --endpoint and the network, and the --ca-file"
        ) from error
    except ValueError as error:  # what KFP's client refuses itself
        raise BonsaiError(f"KFP's client: {error}") from error


def _root_cause(error: BaseException) -> str:
    """Return the end of a chain of errors, which says what happened, not who was told."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).rpartition(": ")[2] or type(error).__name__


def _message(body: Any) -> str:
    try:
        said = json.loads(body)
        return f" ({said.get('error_message') or said.get('message') or said.get('error')})"
    except (ValueError, TypeError, AttributeError):
        return ""
