"""`bonsai submit` and `bonsai schedule`: start a compiled pipeline on a Kubeflow cluster, now or again and again."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.cron import check_cron
from kfp_bonsai.shared.errors import BonsaiError, nearest
from kfp_bonsai.shared.progress import say

ENDPOINT = "KF_PIPELINES_ENDPOINT"  # the environment variable that KFP's own client reads
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
POLL_SECONDS = 10.0
LOST_POLLS = 30  # in a row, until a run that cannot be asked about any more is given up


def submit(
    *,
    pipeline: Path,
    argument: Sequence[str] = (),
    endpoint: str = "",
    namespace: str = "",
    experiment: str = "kfp-bonsai",
    name: str = "",
    token_file: str = "",
    cookie_file: str = "",
    ca_file: str = "",
    service_account: str = "",
    wait: bool = False,
) -> dict:
    """Run a compiled pipeline on a Kubeflow cluster.

    Args:
        pipeline: The file that `bonsai compile` wrote.
        argument: NAME=VALUE, a parameter of the pipeline; may be given again. Lists are JSON.
        endpoint: URL of Kubeflow Pipelines; else that in KF_PIPELINES_ENDPOINT.
        namespace: The profile's namespace, where Kubeflow has several users.
        experiment: Experiment that the run belongs to; made if there is none.
        name: Name of the run; else KFP gives one.
        token_file: File with a bearer token, such as a pod's /var/run/secrets/kubeflow/pipelines/token.
        cookie_file: File with a session's cookie, such as "authservice_session=...", for Kubeflow behind a login.
        ca_file: Certificate authority of the endpoint, where it is not a public one.
        service_account: Kubernetes service account that the run's pods use; else the cluster's default.
        wait: Follow the run, tell each task's state, and fail if the run fails.

    Returns:
        The run's id, its address in the UI, and with --wait its state.

    Raises:
        BonsaiError: the file or an argument is wrong, the endpoint refuses or is down, or (--wait) the run failed.

    Example:
        bonsai submit --pipeline compress.yaml --endpoint https://kubeflow.example/pipeline --token-file token --argument model=google-bert/bert-base-uncased --argument data=gs://bucket/reviews/ --wait
    """  # noqa: E501
    arguments = read_arguments(pipeline, argument)
    client = _client(endpoint, namespace, token_file, cookie_file, ca_file)
    with _answers():
        run = client.create_run_from_pipeline_package(
            str(pipeline),
            arguments=arguments,
            run_name=name or None,
            experiment_name=experiment,
            namespace=namespace or None,
            service_account=service_account or None,
        )
    address = f"{client._uihost}/#/runs/details/{run.run_id}"
    say(f"submit  {address}")
    found = {"run": run.run_id, "address": address}
    return {**found, "state": follow(client, run.run_id)} if wait else found


def schedule(
    *,
    pipeline: Path,
    cron: str,
    name: str,
    argument: Sequence[str] = (),
    endpoint: str = "",
    namespace: str = "",
    experiment: str = "kfp-bonsai",
    token_file: str = "",
    cookie_file: str = "",
    ca_file: str = "",
    service_account: str = "",
    catch_up: bool = False,
) -> dict:
    """Run a compiled pipeline on a Kubeflow cluster again and again, one run at a time.

    Args:
        pipeline: The file that `bonsai compile` wrote.
        cron: When, in six fields: second minute hour day month weekday, such as "0 0 3 * * MON".
        name: Name of the recurring run.
        argument: NAME=VALUE, a parameter of the pipeline; may be given again. Lists are JSON.
        endpoint: URL of Kubeflow Pipelines; else that in KF_PIPELINES_ENDPOINT.
        namespace: The profile's namespace, where Kubeflow has several users.
        experiment: Experiment that the runs belong to; made if there is none.
        token_file: File with a bearer token, such as a pod's /var/run/secrets/kubeflow/pipelines/token.
        cookie_file: File with a session's cookie, such as "authservice_session=...", for Kubeflow behind a login.
        ca_file: Certificate authority of the endpoint, where it is not a public one.
        service_account: Kubernetes service account that the runs' pods use; else the cluster's default.
        catch_up: Make up for the times that were missed while the schedule was paused.

    Returns:
        The recurring run's id, its address in the UI, and when it runs.

    Raises:
        BonsaiError: the file, an argument or the cron expression is wrong, or the endpoint refuses or is down.

    Example:
        bonsai schedule --pipeline compress.yaml --cron "0 0 3 * * MON" --name weekly --argument model=gs://bucket/bert --argument data=gs://bucket/reviews/
    """  # noqa: E501
    check_cron(cron)
    arguments = read_arguments(pipeline, argument)
    client = _client(endpoint, namespace, token_file, cookie_file, ca_file)
    with _answers():
        home = client.create_experiment(experiment, namespace=namespace or None)
        job = client.create_recurring_run(
            home.experiment_id,
            name,
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=not catch_up,
            params=arguments,
            pipeline_package_path=str(pipeline),
            service_account=service_account or None,
        )
    address = f"{client._uihost}/#/recurringrun/details/{job.recurring_run_id}"
    return {"recurring_run": job.recurring_run_id, "address": address, "cron": cron}


def read_arguments(pipeline: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE arguments as the types that a compiled pipeline asks for.

    Raises:
        BonsaiError: the file is no compiled pipeline; or an argument is unknown, of another type, or missing.
    """
    known = _parameters(Path(pipeline))
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise BonsaiError(
                f"--argument {text}: write NAME=VALUE, with a parameter of {pipeline}"
                f"{nearest(name, [*known])} (parameters: {', '.join(known)})"
            )
        found[name] = _value(text, value, known[name].get("parameterType", "STRING"))
    missing = [
        name
        for name, one in known.items()
        if name not in found and "defaultValue" not in one and not one.get("isOptional")
    ]
    if missing:
        raise BonsaiError(f"{pipeline} needs --argument {' --argument '.join(f'{name}=...' for name in missing)}")
    return found


def _parameters(pipeline: Path) -> dict[str, Mapping[str, Any]]:
    import yaml

    if not pipeline.is_file():
        raise BonsaiError(f"--pipeline {pipeline}: there is no such file: make it with `bonsai compile`")
    try:
        spec = next(iter(yaml.safe_load_all(pipeline.read_text(encoding="utf-8"))))
        root = spec["root"]
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, KeyError, TypeError) as error:
        raise BonsaiError(f"--pipeline {pipeline} is no compiled pipeline: make it with `bonsai compile`") from error
    return root.get("inputDefinitions", {}).get("parameters", {})


def _value(text: str, value: str, kind: str) -> Any:
    if kind == "STRING":
        return value
    try:
        found = json.loads(value.lower() if kind == "BOOLEAN" else value)
    except ValueError:
        found = None
    number = isinstance(found, int | float) and not isinstance(found, bool)
    fits = {
        "NUMBER_INTEGER": number and isinstance(found, int),
        "NUMBER_DOUBLE": number,
        "BOOLEAN": isinstance(found, bool),
        "LIST": isinstance(found, list),
        "STRUCT": isinstance(found, dict),
    }
    if not fits.get(kind, found is not None):
        words = {"NUMBER_INTEGER": "a whole number", "NUMBER_DOUBLE": "a number", "BOOLEAN": "true or false"}
        raise BonsaiError(f"--argument {text}: give {words.get(kind, f'JSON for a {kind.lower()}')}")
    return found


def follow(client: Any, run: str, seconds: float = POLL_SECONDS) -> str:
    """Tell the state of each task of a run until it ends; return the run's state.

    Raises:
        BonsaiError: the run did not succeed, or the endpoint was lost for long.
    """
    told: dict[str, str] = {}
    lost = 0
    while True:
        try:
            with _answers():
                found = client.get_run(run)
            lost = 0
        except BonsaiError:
            lost += 1
            if lost >= LOST_POLLS:
                raise
            time.sleep(seconds)
            continue
        details = found.run_details.task_details if found.run_details else None
        for task in details or ():
            if task.state and told.get(task.task_id) != task.state:
                told[task.task_id] = task.state
                say(f"submit  {task.display_name}: {task.state.lower()}")
        if found.state in ENDED:
            if found.state != "SUCCEEDED":
                why = f": {found.error.message}" if found.error and found.error.message else ""
                raise BonsaiError(f"run {run} ended as {found.state.lower()}{why}: its page in the UI has the logs")
            return found.state.lower()
        time.sleep(seconds)


def _client(endpoint: str, namespace: str, token: str, cookie: str, ca: str) -> Any:
    """Return KFP's client, which asks the endpoint for its health."""
    endpoint = (endpoint or os.environ.get(ENDPOINT, "")).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise BonsaiError(
            f"--endpoint '{endpoint}': give the URL of Kubeflow Pipelines, such as https://kubeflow.example/pipeline, "
            f"or set {ENDPOINT}"
        )
    secrets = {"existing_token": _secret(token, "--token-file"), "cookies": _secret(cookie, "--cookie-file")}
    if ca and not Path(ca).is_file():
        raise BonsaiError(f"--ca-file {ca}: there is no such file")
    import logging
    import warnings

    from kfp.client import Client

    logging.getLogger("kfp").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _answers():
        warnings.simplefilter("ignore")
        return Client(endpoint, namespace=namespace or "kubeflow", ssl_ca_cert=ca or None, **secrets)


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
def _answers() -> Iterator[None]:
    """Turn what an endpoint refuses, and one that is down, into errors in words."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        what = WHAT_TO_DO.get(error.status, "see the logs of its API server")
        said = _message(error.body)
        raise BonsaiError(f"the endpoint answered {error.status} {error.reason or ''}{said}: {what}") from error
    except (urllib3.exceptions.HTTPError, OSError, TimeoutError) as error:
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
