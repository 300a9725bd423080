"""Following a run of tests/kubeflow.py: what is told of it, what came of it, why it failed, and what is tried again."""

import json
import re

import pytest
from kubeflow import NOW, RUN, compressed, executor_input, identity, task, turn, workflow

from kfp_bonsai.pipelines.cluster.follow import follow
from kfp_bonsai.pipelines.cluster.logs import diagnose, logs
from kfp_bonsai.pipelines.cluster.submit import submit
from kfp_bonsai.pipelines.cluster.workflow import Stage, read_stages, stages_of_details
from kfp_bonsai.shared.core.errors import BonsaiError, PassingError, kind_of

NEEDED = ("model=google-bert/bert-base-uncased", "data=gs://bucket/reviews.csv", "min_accuracy=0.98")
INNER = re.compile(r"executor|driver|root|iteration|condition|\(\d")
REFUSED = """Traceback (most recent call last):
  File "/tmp/x.py", line 1, in <module>
kfp_bonsai.shared.core.errors.BonsaiError: --data /cache/reviws.csv: there is no such file; did you mean 'reviews.csv'?
F1129 08:31:11.000000 main.go:63] failed to execute component: exit status 1
"""
AWAY = REFUSED.replace("BonsaiError: --data /cache/reviws.csv", "PassingError: gs://bucket/reviews.csv")
KILLED = (
    "fine-tune  step 40/500\nI1129 08:31 launcher\nF1129 08:31:11.0 main.go:63] failed to execute: exit status 137\n"
)


def failing(log, message="Error (exit code 1)"):
    """A run that failed while its second level was distilled, and that task's log."""
    seen = workflow(*compressed("Failed", message=message), phase="Failed")
    return [("FAILED", seen, "2026-11-29T08:00:00Z")], {identity(f"{turn(1)}.distill(0).executor(0)"): log}


def test_a_run_is_told_a_line_a_stage_and_at_its_end_what_came_of_it(compiled, server, quick, capsys):
    """Argo's inner nodes in place of the user's stages, and levels that cannot be told apart."""
    server.runs = [
        ("RUNNING", workflow(*compressed("Running")), ""),
        ("SUCCEEDED", workflow(*compressed(), phase="Succeeded"), "then"),
    ]
    found = submit(pipeline=compiled, argument=NEEDED, endpoint=server.url, wait=True)
    told = capsys.readouterr().out.splitlines()
    assert told[1:] == [
        "submit  Fine-tune  succeeded  1m05s",
        "submit  half · Remove layers  succeeded  5s",
        "submit  tiny · Remove layers  succeeded  5s",
        "submit  half · Distil  succeeded  1m40s",
        "submit  tiny · Distil  succeeded  1m52s",
        "submit  Report  succeeded  8s",
        "submit  Package the model  succeeded  9s",
    ]
    assert (found["state"], found["model"], found["control"], found["meets_target"]) == (
        "succeeded",
        "tiny",
        "passed",
        True,
    )
    assert (found["relative_accuracy"], found["relative_emission"]) == (0.987, 0.277)
    assert found["package"] == "minio://mlpipeline/v2/artifacts/output" and found["report"].endswith(
        f"{RUN} (task Report, tab Visualization)"
    )
    assert server.sent[-1][1]["display_name"] == "bert-base-uncased on reviews · 0.98"


def test_json_stands_alone_on_the_standard_output(compiled, server, quick, capsys):
    """A script that parses the output would meet the lines of progress."""
    assert submit(pipeline=compiled, argument=NEEDED, endpoint=server.url, wait=True, json=True) == {}
    out, told = capsys.readouterr()
    assert json.loads(out)["model"] == "tiny" and "Distil" in told


def test_what_waits_is_told_with_the_reason(server, monkeypatch, on_sleep, capsys):
    """A run that waits for a processor for hours looks like one that works."""
    clock = iter(range(0, 100_000, 40))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    on_sleep(lambda _: None)
    why = "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."
    waiting = workflow(task("fine-tune", "Fine-tune", "Pending", message=why))
    running = workflow(task("fine-tune", "Fine-tune", "Running"))
    server.runs = [("RUNNING", waiting, "")] * 6 + [("RUNNING", running, "")] * 3 + server.runs[1:]
    follow(RUN, endpoint=server.url)
    told = [line for line in capsys.readouterr().out.splitlines() if "waiting" in line]
    assert told and all(line.endswith(why) and "Fine-tune  waiting for " in line for line in told)
    assert len(told) <= 3


def test_a_failure_tells_stage_level_log_and_the_command_that_goes_on(server, quick, capsys):
    """That the page in the UI has the logs leaves a person without a browser with nothing."""
    server.runs, server.logs = failing(REFUSED)
    with pytest.raises(BonsaiError) as error:
        follow(RUN, endpoint=server.url, retries=3)
    said = str(error.value)
    assert "tiny · Distil: --data /cache/reviws.csv" in said and "did you mean 'reviews.csv'" in said
    assert f"bonsai logs {RUN} --level tiny --stage Distil" in said or f"logs {RUN} --stage Distil --level tiny" in said
    assert f"bonsai follow {RUN} --retry --endpoint {server.url}" in said
    assert "if it is an argument, correct it and submit again" in said
    assert "    kfp_bonsai.shared.core.errors.BonsaiError: --data" in capsys.readouterr().out
    assert server.retried == 0, "input that was refused was tried again"


@pytest.mark.parametrize(
    ("log", "message", "said"),
    [
        (AWAY, "Error (exit code 1)", "gs://bucket/reviews.csv"),
        (KILLED, "Error (exit code 1)", "memory did not suffice (it had 800Mi): `bonsai compile --memory`"),
        ("", "OOMKilled (exit code 137)", "--memory"),
        (KILLED.replace("137", "143"), "Error (exit code 1)", "exit status 143"),
        (KILLED.replace("exit status 137", "signal: killed"), "Error (exit code 1)", "exit status 137"),
        ("", "pod deleted", "pod deleted"),
        ("", "The node was low on resource: ephemeral-storage. Container main was using 9Gi", "low on resource"),
        ("", "Pod was terminated in response to imminent node shutdown.", "node shutdown"),
    ],
)
def test_what_may_pass_is_started_again(server, quick, capsys, log, message, said):
    """A pod that a node's end took with it fails a run of hours, of which all but one task was done."""
    server.runs, server.logs = failing(log, message)
    stale = server.runs[0]  # the API may tell of the old end for a moment
    done = ("SUCCEEDED", workflow(*compressed(), phase="Succeeded"), "later")
    server.after_retry = [stale, ("RUNNING", workflow(*compressed("Running")), ""), done]
    assert follow(RUN, endpoint=server.url, retries=1)["state"] == "succeeded"
    assert server.retried == 1
    told = capsys.readouterr().out
    assert said in told and "retry 1 of 1 in 30s" in told and "tiny · Distil  succeeded  1m52s" in told


def test_retries_end(server, quick):
    """A task whose memory never suffices would be started for ever."""
    server.runs, server.logs = failing(KILLED)
    server.after_retry = [("FAILED", server.runs[0][1], "later")]
    with pytest.raises(BonsaiError, match="137"):
        follow(RUN, endpoint=server.url, retries=1)
    assert server.retried == 1


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (REFUSED, "Error (exit code 1)"),
        ("TypeError: 3\nF1129 08:31:11 exit status 1\n", "Error (exit code 1)"),
        ("", ""),
    ],
)
def test_what_will_fail_again_is_not_started_again(log, message):
    """A wrong path that is tried three times costs a GPU three times."""
    assert not diagnose(Stage("distill", "Distil", message=message), log).passing


def test_a_gpu_whose_memory_ran_out_is_told_what_needs_less():
    """The last line of a traceback, and no word of the options that would have helped."""
    log = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\nF1129 08:31:11 exit status 1\n"
    failure = diagnose(Stage("distill", "Distil", message="Error (exit code 1)"), log)
    assert not failure.passing
    assert failure.words.startswith("memory ran out (torch.OutOfMemoryError") and "--batch-size" in failure.words


def test_a_task_that_the_cluster_tries_again_has_not_failed(server):
    """An attempt that failed is told as the stage's end while the next one runs."""
    nodes = task("fine-tune", "Fine-tune", "Failed", attempt=1, again=True, message="OOMKilled (exit code 137)")
    assert [each.state for each in read_stages(workflow(nodes))] == ["again"]
    nodes = task("fine-tune", "Fine-tune", "Running", attempt=1)
    assert [(each.state, each.attempt) for each in read_stages(workflow(nodes))] == [("running", 1)]


def test_a_driver_that_fails_is_a_stage_that_failed():
    """KFP refuses a level without `flops` in a loop's driver: without it, nothing would be told as failed."""
    nodes = task("matrix-prune", "Prune", "", inside=turn(0), driver="Failed", message="resolving input: no flops")
    [stage] = read_stages(workflow(nodes))
    assert (stage.title, stage.state, stage.message) == ("level 1 · Prune", "failed", "resolving input: no flops")


def test_what_the_cache_answered_is_told(server):
    """A task that was not run looks like one that waits for ever."""
    [stage] = read_stages(workflow(task("fine-tune", "Fine-tune", "", cached=True)))
    assert stage.state == "cached"
    nodes = task("layer-remove", "Remove layers", "", cached=True, inside=turn(1))
    assert [each.title for each in read_stages(workflow(nodes), ["half", "tiny"])] == ["tiny · Remove layers"]
    assert [each.title for each in read_stages(workflow(nodes))] == ["level 2 · Remove layers"]


def test_a_workflow_that_argo_compressed_is_read():
    """A run of many levels, whose nodes Argo stores as gzip, would have no stages."""
    import base64
    import gzip

    seen = workflow(*compressed())
    nodes = seen["status"].pop("nodes")
    seen["status"]["compressedNodes"] = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    assert read_stages(seen) == read_stages(workflow(*compressed())) != []


@pytest.mark.parametrize("older", [None, [], 3, {"status": {"nodes": {"a": None, "b": {"name": None, "type": 4}}}}])
def test_odd_workflows_have_no_stages(older):
    """A field of another type ends the waiting with a traceback while the run goes on."""
    assert read_stages(older) == [] and stages_of_details(older) == []


def test_where_the_older_api_is_closed_the_stages_are_told_without_levels(server, quick, capsys):
    """A proxy that lets v2beta1 alone through would leave nothing to tell, or Argo's inner nodes."""
    server.older_api = False
    found = follow(RUN, endpoint=server.url)
    told = capsys.readouterr().out
    assert found["state"] == "succeeded" and RUN in found["report"] and "model" not in found
    assert "submit  fine-tune  succeeded" in told
    assert not [line for line in told.splitlines() if INNER.search(line)]


def test_without_the_older_api_the_pipeline_tells_tasks_from_loops(compiled, server, quick, capsys):
    """A loop or a condition that is told as one of the user's stages, and stages by KFP's names."""
    import yaml

    server.older_api, server.pipeline = False, next(iter(yaml.safe_load_all(compiled.read_text())))
    server.runs[1][1]["status"]["nodes"]["x"] = {"displayName": "levels", "phase": "Succeeded"}
    follow(RUN, endpoint=server.url)
    told = capsys.readouterr().out
    assert "levels" not in told and "submit  Fine-tune" in told


def test_waiting_has_a_limit(server, quick):
    """A script that waits for ever; or that ends without saying that the run goes on."""
    server.runs = [("RUNNING", workflow(), "")]
    with pytest.raises(BonsaiError, match=f"goes on: follow it again with bonsai follow {RUN} --endpoint http"):
        follow(RUN, endpoint=server.url, timeout="1s")


def test_a_lost_connection_does_not_end_the_waiting(server, on_sleep, quick):
    """A run of hours must not be given up for one answer that was lost; for a server that stays away it must."""
    away, polls = (503, b"<html>Service Unavailable</html>", {"Content-Type": "text/html"}), iter(range(9))

    def sleep(_):
        server.nonsense = away if next(polls, None) is not None else None

    on_sleep(sleep)
    assert follow(RUN, endpoint=server.url)["state"] == "succeeded"
    server.runs, polls = [("RUNNING", workflow(), "")], iter(range(99))
    with pytest.raises(BonsaiError, match=r"503.*may go on.*bonsai follow"):
        follow(RUN, endpoint=server.url)


def test_another_runs_answer_is_refused(server, quick):
    """A proxy's cache that answers for another run would report its success."""
    with pytest.raises(BonsaiError, match="asked about run run-2, the endpoint answered about run-1"):
        follow("run-2", endpoint=server.url)


def test_a_run_without_a_failed_task_says_what_the_api_says(server, quick):
    """A run that its deadline ended has no failed task; a canceled one is not to be started again."""
    server.runs, server.error = [("FAILED", workflow(*compressed("Running")), "then")], "exceeded its deadline"
    with pytest.raises(BonsaiError, match="ended as failed: exceeded its deadline"):
        follow(RUN, endpoint=server.url, retries=2)
    server.runs, server.error = [("CANCELED", workflow(), "then")], None
    with pytest.raises(BonsaiError, match="ended as canceled: the API does not say why; its page"):
        follow(RUN, endpoint=server.url, retries=2)
    assert server.retried == 0


def test_a_retraining_says_whether_it_promoted(server, quick):
    """The end of a retraining is whether the champion was replaced."""
    given = executor_input({"champion": "gs://bucket/champion", "margin": 0.01}, challenger={"name": "tiny"})
    server.runs = [("SUCCEEDED", workflow(task("promote", "Promote", "Succeeded", given=given)), "then")]
    server.logs = {identity(f"{workflow()['metadata']['name']}(0).root(0).promote(0).executor(0)"): (
        "promote  published at gs://bucket/x\npromote  the champion stays: 90 % is less\n")}  # fmt: skip
    assert follow(RUN, endpoint=server.url)["promotion"] == "the champion stays: 90 % is less"


def test_a_published_package_is_told_by_its_place(server, quick):
    """KFP's own storage in place of the address that the user gave."""
    given = executor_input({"upload": "gs://bucket/models"}, results={"verdict": "x", "level": "tiny"})
    packing = task("package-model", "Package the model", "Succeeded", given=given)
    server.runs = [("SUCCEEDED", workflow(packing), "then")]
    server.logs = {packing[-1]["id"]: "package-model  published as gs://bucket/models/a6ef\n"}
    assert follow(RUN, endpoint=server.url)["package"] == "gs://bucket/models/a6ef"


def test_logs_are_of_what_failed_or_of_a_stage_and_level(server, capsys):
    """Logs of 18 tasks where one was meant."""
    server.runs, server.logs = failing(REFUSED)
    server.log(f"{turn(0)}.distill", "the other level")
    logs(RUN, endpoint=server.url)
    out = capsys.readouterr().out
    assert out.startswith("--- tiny · Distil: failed\nTraceback") and "the other level" not in out
    logs(RUN, stage="distill", level="half", endpoint=server.url)
    assert capsys.readouterr().out == "--- half · Distil: succeeded\nthe other level\n"
    with pytest.raises(BonsaiError, match=r"--stage 'distl'.*did you mean 'Distil'"):
        logs(RUN, stage="distl", endpoint=server.url)
    with pytest.raises(BonsaiError, match=r"--level 'tny'.*did you mean 'tiny'"):
        logs(RUN, stage="distill", level="tny", endpoint=server.url)
    with pytest.raises(BonsaiError, match="no log of Fine-tune"):
        logs(RUN, stage="Fine-tune", endpoint=server.url)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/k8s/pod/logs", {"podname": ["compress-x7k2p-retry-system-container-impl-"], "podnamespace": ["kubeflow"]}),
        ("/apis/v1alpha1/runs/run-1/nodes/compress-x7k2p-retry-system-container-impl-", {}),
        ("/artifacts/get", {"source": ["minio"], "bucket": ["mlpipeline"], "key": ["v2/artifacts/executor-logs-0"]}),
    ],
)
def test_a_log_is_found_wherever_the_cluster_keeps_it(server, capsys, path, query):
    """Argo's archive is off, or the pod is gone, or the API server is asked in place of the UI."""
    nodes = task("fine-tune", "Fine-tune", "Failed", given=executor_input())
    server.runs, server.texts = [("FAILED", workflow(nodes), "then")], {path: "the log"}
    logs(f"{server.url}/#/runs/details/{RUN}", endpoint=server.url)
    assert capsys.readouterr().out == "--- Fine-tune: failed\nthe log\n"
    [asked] = server.asked
    assert all(asked[name][0].startswith(value[0]) for name, value in query.items())


def test_only_a_run_that_failed_is_started_again(server):
    """KFP's refusal, with the advice to look at its server's logs."""
    with pytest.raises(BonsaiError, match="--retry: run run-1 is running"):
        follow(RUN, endpoint=server.url, retry=True)
    assert server.retried == 0


def test_a_run_is_started_again_by_hand(server, quick):
    """The command that a failure names."""
    server.runs, server.logs = failing(REFUSED)
    server.after_retry = [server.runs[0], ("SUCCEEDED", workflow(*compressed(), phase="Succeeded"), "later")]
    assert follow(RUN, endpoint=server.url, retry=True)["state"] == "succeeded"
    assert server.retried == 1


def test_a_run_that_is_not_there_is_told(server):
    """The advice to look at the URL, where the id was wrong."""
    server.nonsense = (404, {"code": 5, "message": "Run run-9 not found"}, {})
    with pytest.raises(BonsaiError, match=r"Run run-9 not found.*look at the name or id"):
        logs("run-9", endpoint=server.url)


def test_a_librarys_error_says_whether_it_may_pass():
    """The one word in a task's log that a retry goes by."""
    assert kind_of(OSError(5, "Input/output error")) is PassingError
    assert kind_of(FileNotFoundError(2, "no such file")) is BonsaiError
    outer = ValueError("could not load")
    outer.__cause__ = ConnectionRefusedError(111, "refused")
    assert kind_of(outer) is PassingError
    busy = type("HTTPError", (Exception,), {})("busy")
    busy.response = type("Response", (), {"status_code": 503})()
    assert kind_of(busy) is PassingError
    busy.response.status_code = 404
    assert kind_of(busy) is BonsaiError


def test_times_are_those_of_argo():
    """Seconds that are counted from one's own clock, which differs from the cluster's."""
    assert NOW.isoformat().endswith("+00:00")
    [stage] = read_stages(workflow(task("fine-tune", "Fine-tune", "Succeeded", seconds=65)))
    assert stage.seconds == 65


@pytest.mark.parametrize(
    ("error", "kind"), [(ConnectionError("no route"), PassingError), (OSError("404"), BonsaiError)]
)
def test_a_hub_that_is_away_is_told_from_a_name_that_is_wrong(monkeypatch, error, kind):
    """A typing error in a model's name that is tried three times; a hub's bad minute that ends a run."""
    from kfp_bonsai.prepare_data.read import open_source
    from kfp_bonsai.shared.saved.pretrained import read

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    for ask in (lambda: read("nobody/such-model"), lambda: open_source("nobody/such-data", "--data")):
        with pytest.raises(BonsaiError) as found:
            ask()
        assert type(found.value) is kind
