"""`bonsai submit` and `bonsai schedule`: start a compiled pipeline on a Kubeflow cluster, now or again and again."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from json import dumps
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.cluster.arguments import read_arguments
from kfp_bonsai.pipelines.cluster.cron import check_cron
from kfp_bonsai.pipelines.cluster.endpoint import ACCESS, Access, answers, given
from kfp_bonsai.pipelines.cluster.follow import TIMEOUT, check_waiting, wait_for
from kfp_bonsai.pipelines.cluster.printed import printed
from kfp_bonsai.pipelines.place_names import last_parts
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.signatures import options_of, takes

LONGEST_NAME = 120


@takes(ACCESS)
def submit(
    *,
    pipeline: Path,
    argument: Sequence[str] = (),
    experiment: str = "kfp-bonsai",
    name: str = "",
    service_account: str = "",
    wait: bool = False,
    retries: int = 0,
    timeout: str = TIMEOUT,
    json: bool = False,
    **access: str,
) -> dict:
    """Run a compiled pipeline on a Kubeflow cluster.

    Args:
        pipeline: The file that `bonsai compile` wrote.
        argument: NAME=VALUE, a parameter of the pipeline; may be given again. Lists are JSON, such as
            'levels=["half:layers=1/2", "tiny:layers=1/3,flops=0.05"]'.
        experiment: Experiment that it belongs to; made if there is none.
        name: Name of the run; else it says the model, the data and the target, such as "bert on reviews · 0.98".
        service_account: Kubernetes service account that the pods use; else the cluster's default.
        wait: Follow the run: a line a stage, what waits and why, and at its end what came of it; fail if it fails.
        retries: With --wait, how often what failed is started again, with all that succeeded kept: after what may pass
            (a task that was killed or evicted, storage or a hub that was away), not after input that was refused; each
            start has the attempts of `bonsai compile --retries` anew, where the cluster makes them.
        timeout: With --wait, how long to follow the run, such as 90m, 24h or 7d; it goes on after it. 0 for no limit.
        json: Print the result as JSON on the standard output, and the progress on the standard error.
        **access: The others say how the API is reached (endpoint.py).

    Returns:
        The run's id and its address in the UI; with --wait its state, the chosen model, its accuracy and emission
        relative to the baseline's, whether it meets the target, whether the control passed, and where the package lies.

    Raises:
        BonsaiError: the file or an argument is wrong, the endpoint refuses or is down, or (--wait) the run failed.

    Example:
        bonsai submit --pipeline compress.yaml --endpoint https://kubeflow.example/pipeline --token-file token --argument model=google-bert/bert-base-uncased --argument data=gs://bucket/reviews/ --wait
    """  # noqa: E501
    limit = check_waiting(retries, timeout)
    if retries and not wait:
        raise BonsaiError("--retries is for a run that is followed: give --wait too")
    arguments = read_arguments(pipeline, argument)
    with printed(json) as found:
        api = Access(**access)
        client = api.client
        home = _experiment(api, experiment)
        with answers(), redirect_stdout(io.StringIO()):  # KFP's client prints the address, before it is checked
            made = client.run_pipeline(
                home,
                name or run_name(arguments),
                str(pipeline),
                params=arguments,
                service_account=service_account or None,
            )
        run = given(made, "run_id")
        found |= {"run": run, "address": api.address(run)}
        say(f"submit  {found['address']}")
        if wait:
            found |= wait_for(api, run, retries=retries, limit=limit)
    return {} if json else found


def run_name(arguments: Mapping[str, Any]) -> str:
    """Return what a run is called: model, data and target, such as "bert-base-uncased on reviews · 0.98"."""
    if isinstance(arguments.get("models"), list):
        counted = [(len(arguments[each]), what) for each, what in (("models", "model"), ("data", "data set"))]
        told = " on ".join(f"{number} {what}{'' if number == 1 else 's'}" for number, what in counted)
        return arguments.get("title") or f"study of {told}"
    model = last_parts(str(arguments.get("champion") or arguments.get("model") or "model"))
    data = last_parts(str(arguments.get("data") or "data").partition(",")[0])
    target = [str(arguments["min_accuracy"])] if arguments.get("min_accuracy") else []
    target += [f"emission {arguments['max_emission']}"] if arguments.get("max_emission") else []
    told = f"{'retrain ' if arguments.get('champion') else ''}{model} on {data}"
    return " · ".join([told[:LONGEST_NAME], *target])


def _experiment(api: Access, name: str) -> str:
    with answers(), redirect_stdout(io.StringIO()):
        home = api.client.create_experiment(name, namespace=api.namespace or None)
    return given(home, "experiment_id")


@takes({**ACCESS, **options_of(submit, "argument", "experiment", "service_account")})
def schedule(
    *,
    pipeline: Path,
    cron: str,
    name: str,
    catch_up: bool = False,
    replace: bool = False,
    **options: Any,
) -> dict:
    """Run a compiled pipeline on a Kubeflow cluster again and again, one run at a time.

    Args:
        pipeline: The file that `bonsai compile` wrote.
        cron: When, in six fields: second minute hour day month weekday, such as "0 0 3 * * MON".
        name: Name of the recurring run; one that is taken in the experiment is refused, unless with --replace.
        catch_up: Make up for the times that were missed while the schedule was paused.
        replace: Take the place of the recurring runs that have this name; their runs so far stay.
        **options: The others are those of `bonsai submit`.

    Returns:
        The recurring run's id, its address in the UI, when it runs, and the ids of those that it replaced.

    Raises:
        BonsaiError: the file, an argument or the cron expression is wrong, the name is taken, or the endpoint refuses
            or is down.

    Example:
        bonsai schedule --pipeline compress.yaml --cron "0 0 3 * * MON" --name weekly --argument model=google-bert/bert-base-uncased --argument data=gs://bucket/reviews/
    """  # noqa: E501
    check_cron(cron)
    arguments = read_arguments(pipeline, options["argument"])
    api = Access(**{each: options[each] for each in ACCESS})
    client, experiment = api.client, options["experiment"]
    home = _experiment(api, experiment)
    with answers(), redirect_stdout(io.StringIO()):
        taken = recurring_runs(client, home, name)
        if taken and not replace:
            raise BonsaiError(
                f"--name {name}: experiment {experiment} has such a recurring run already ({taken[0]}): "
                "give --replace, or another --name"
            )
        job = client.create_recurring_run(
            home,
            name,
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=not catch_up,
            params=arguments,
            pipeline_package_path=str(pipeline),
            service_account=options["service_account"] or None,
        )
        made = given(job, "recurring_run_id")
        for one in taken:  # after the new one is there, so that a failure leaves no gap
            client.delete_recurring_run(one)
    address = f"{client._uihost}/#/recurringrun/details/{made}"
    return {"recurring_run": made, "address": address, "cron": cron, "replaced": taken}


def recurring_runs(client: Any, experiment: str, name: str) -> list[str]:
    """Return the ids of an experiment's recurring runs that have this name, which KFP does not keep unique."""
    named = dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
    found: list[str] = []
    page, seen = "", set()
    while page not in seen:
        seen.add(page)
        answer = client.list_recurring_runs(page_token=page, page_size=100, experiment_id=experiment, filter=named)
        found += [given(one, "recurring_run_id") for one in answer.recurring_runs or () if one.display_name == name]
        page = answer.next_page_token or ""
        if not page:
            return found
    raise BonsaiError("the endpoint's list of recurring runs does not end: look whether --endpoint leads to Kubeflow")
