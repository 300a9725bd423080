"""`bonsai submit` and `bonsai schedule`: start a compiled pipeline on a Kubeflow cluster, now or again and again."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.arguments import read_arguments
from kfp_bonsai.pipelines.cron import check_cron
from kfp_bonsai.pipelines.endpoint import answers, connect
from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.progress import say

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
        argument: NAME=VALUE, a parameter of the pipeline; may be given again. Lists are JSON, such as
            'levels=["half:layers=1/2", "tiny:layers=1/3,flops=0.05"]'.
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
    client = connect(endpoint, namespace, token_file, cookie_file, ca_file)
    with answers():
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
    replace: bool = False,
) -> dict:
    """Run a compiled pipeline on a Kubeflow cluster again and again, one run at a time.

    Args:
        pipeline: The file that `bonsai compile` wrote.
        cron: When, in six fields: second minute hour day month weekday, such as "0 0 3 * * MON".
        name: Name of the recurring run; one that is taken in the experiment is refused, unless with --replace.
        argument: NAME=VALUE, a parameter of the pipeline; may be given again. Lists are JSON, such as
            'levels=["half:layers=1/2", "tiny:layers=1/3,flops=0.05"]'.
        endpoint: URL of Kubeflow Pipelines; else that in KF_PIPELINES_ENDPOINT.
        namespace: The profile's namespace, where Kubeflow has several users.
        experiment: Experiment that the runs belong to; made if there is none.
        token_file: File with a bearer token, such as a pod's /var/run/secrets/kubeflow/pipelines/token.
        cookie_file: File with a session's cookie, such as "authservice_session=...", for Kubeflow behind a login.
        ca_file: Certificate authority of the endpoint, where it is not a public one.
        service_account: Kubernetes service account that the runs' pods use; else the cluster's default.
        catch_up: Make up for the times that were missed while the schedule was paused.
        replace: Take the place of the recurring runs that have this name; their runs so far stay.

    Returns:
        The recurring run's id, its address in the UI, when it runs, and the ids of those that it replaced.

    Raises:
        BonsaiError: the file, an argument or the cron expression is wrong, the name is taken, or the endpoint refuses
            or is down.

    Example:
        bonsai schedule --pipeline compress.yaml --cron "0 0 3 * * MON" --name weekly --argument model=google-bert/bert-base-uncased --argument data=gs://bucket/reviews/
    """  # noqa: E501
    check_cron(cron)
    arguments = read_arguments(pipeline, argument)
    client = connect(endpoint, namespace, token_file, cookie_file, ca_file)
    with answers():
        home = client.create_experiment(experiment, namespace=namespace or None)
        taken = recurring_runs(client, home.experiment_id, name)
        if taken and not replace:
            raise BonsaiError(
                f"--name {name}: experiment {experiment} has such a recurring run already ({taken[0]}): "
                "give --replace, or another --name"
            )
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
        for one in taken:  # after the new one is there, so that a failure leaves no gap
            client.delete_recurring_run(one)
    address = f"{client._uihost}/#/recurringrun/details/{job.recurring_run_id}"
    return {"recurring_run": job.recurring_run_id, "address": address, "cron": cron, "replaced": taken}


def recurring_runs(client: Any, experiment: str, name: str) -> list[str]:
    """Return the ids of an experiment's recurring runs that have this name, which KFP does not keep unique."""
    named = json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
    found, page = [], ""
    while True:
        answer = client.list_recurring_runs(page_token=page, page_size=100, experiment_id=experiment, filter=named)
        found += [one.recurring_run_id for one in answer.recurring_runs or () if one.display_name == name]
        page = answer.next_page_token
        if not page:
            return found


def follow(client: Any, run: str) -> str:
    """Tell the state of each task of a run until it ends; return the run's state.

    Raises:
        BonsaiError: the run did not succeed, or the endpoint was lost for long.
    """
    told: dict[str, str] = {}
    lost = 0
    while True:
        try:
            with answers():
                found = client.get_run(run)
            lost = 0
        except BonsaiError:
            lost += 1
            if lost >= LOST_POLLS:
                raise
            time.sleep(POLL_SECONDS)
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
        time.sleep(POLL_SECONDS)
