"""Submitting and scheduling, against tests/kubeflow.py, which keeps what it is sent."""

import copy
import json
import re
from functools import cache

import pytest

from kfp_bonsai.pipelines.cluster import arguments
from kfp_bonsai.pipelines.cluster.arguments import read_arguments
from kfp_bonsai.pipelines.cluster.compile import compile_pipeline
from kfp_bonsai.pipelines.cluster.cron import check_cron
from kfp_bonsai.pipelines.cluster.submit import run_name, schedule, submit
from kfp_bonsai.pipelines.levels import DEFAULTS
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved.pretrained import find_model

NEEDED = ("model=bert-base-uncased", "data=gs://bucket/reviews/")


@pytest.fixture(scope="module", autouse=True)
def each_pipeline_is_read_once():
    """Keep what a compiled pipeline says: to read its thousands of lines takes most of the time of a test."""
    read = cache(arguments._compiled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arguments, "_compiled", lambda pipeline: copy.deepcopy(read(pipeline)))
        yield


@pytest.fixture(scope="module")
def retraining(tmp_path_factory):
    """The retrain pipeline as a file."""
    file = tmp_path_factory.mktemp("compiled") / "retrain.yaml"
    compile_pipeline(pipeline="retrain", output=file)
    return file


def test_a_run_is_sent_with_its_arguments_and_the_token(compiled, server, tmp_path):
    """Arguments as text would be refused by the cluster, minutes later; a token that is not sent at once."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    more = (*NEEDED, "epochs=2", "edge=true", "min_accuracy=0.98", 'levels=[{"label": "half"}]')
    found = submit(pipeline=compiled, argument=more, endpoint=server.url, token_file=str(token), name="mine")
    assert found["run"] == "run-1" and found["address"].endswith("/#/runs/details/run-1")
    path, body = server.sent[-1]
    sent = body["runtime_config"]["parameters"]
    assert path.startswith("/apis/v2beta1/runs") and body["display_name"] == "mine"
    assert (sent["options"], sent["edge"], sent["min_accuracy"]) == ({"epochs": 2}, True, 0.98)
    assert sent["levels"] == [{"label": "half", **DEFAULTS, "fingerprint": ""}]
    assert body["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "compress"
    assert server.headers[-1]["authorization"] == "Bearer secret"


def test_a_schedule_runs_one_at_a_time(compiled, server):
    """Two retrainings at once would fight over one champion; missed ones would all start at once."""
    given = (*NEEDED, "epochs=2")
    found = schedule(pipeline=compiled, cron="0 0 3 * * MON", name="weekly", argument=given, endpoint=server.url)
    path, body = server.sent[-1]
    assert found["recurring_run"] == server.recurring[0].recurring_run_id and path.startswith(
        "/apis/v2beta1/recurringruns"
    )
    assert body["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * MON"
    assert int(body["max_concurrency"]) == 1 and body["no_catchup"] is True
    assert body["runtime_config"]["parameters"]["options"] == {"epochs": 2}


def test_a_name_that_is_taken_is_refused_or_replaced(compiled, server):
    """A script that schedules at every deployment would else retrain twice, then three times a week."""
    weekly = {"pipeline": compiled, "cron": "0 0 3 * * MON", "argument": NEEDED, "endpoint": server.url}
    other = schedule(**weekly, name="daily")["recurring_run"]
    first = schedule(**weekly, name="weekly")
    with pytest.raises(BonsaiError, match=f"--name weekly.*{first['recurring_run']}.*--replace"):
        schedule(**weekly, name="weekly")
    second = schedule(**weekly, name="weekly", replace=True)
    assert second["replaced"] == [first["recurring_run"]] and first["replaced"] == []
    assert [one.recurring_run_id for one in server.recurring] == [other, second["recurring_run"]]
    predicate = json.loads(server.asked[-1]["filter"][0])["predicates"][0]
    assert (predicate["key"], predicate["stringValue"]) == ("display_name", "weekly")


def test_a_token_that_was_renewed_is_read_again(compiled, server, tmp_path, on_sleep):
    """A pod's token lasts an hour, a run many: --wait would end with 401 while the run goes on."""
    token = tmp_path / "token"
    token.write_text("old\n")

    def renew(_):  # as a kubelet does it: never half written
        renewed = tmp_path / "renewed"
        renewed.write_text("new\n")
        renewed.replace(token)

    on_sleep(renew)
    submit(pipeline=compiled, argument=NEEDED, endpoint=server.url, token_file=str(token), wait=True)
    sent = [each["authorization"] for each in server.headers]
    assert sent[0] == "Bearer old" and sent[-1] == "Bearer new"


@pytest.mark.parametrize("let_through", [0, 1], ids=["at once", "after the first"])
@pytest.mark.parametrize(("status", "said"), [(401, "token-file"), (403, "namespace"), (500, "API server")])
def test_what_a_server_refuses_is_told_with_what_to_do(compiled, server, status, said, let_through):
    """A traceback of the client's internals tells nobody that a token has expired."""
    server.status, server.let_through = status, let_through
    with pytest.raises(BonsaiError, match=said) as error:
        submit(pipeline=compiled, argument=NEEDED, endpoint=server.url)
    assert str(status) in str(error.value) and "because" in str(error.value)


def test_an_endpoint_that_is_down_is_told(compiled):
    """Nothing listens there."""
    with pytest.raises(BonsaiError, match="no answer from the endpoint"):
        submit(pipeline=compiled, argument=NEEDED, endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((), "argument model=..."),
        ((NEEDED[0], "data="), "needs --argument data=..."),
        ((*NEEDED, "epoch=2"), "did you mean"),
        ((*NEEDED, "epochs=many"), "a number"),
        ((*NEEDED, 'options={"epochs": "many"}'), 'options: epochs is "many": give a number'),
        ((*NEEDED, 'options={"epoch": 1}'), "options: epoch is unknown; did you mean 'epochs'"),
        ((*NEEDED, 'options={"epochs": 1}', "epochs=2"), "options: epochs is given twice"),
        ((*NEEDED, 'options={"upload": "gs://b/x"}'), "options: upload is none of these, but a field"),
        ((*NEEDED, "options=[1]"), "--argument options is .*: give a JSON object"),
        ((*NEEDED, "pairs=2.5"), "a whole number"),
        ((*NEEDED, "edge=maybe"), "true or false"),
        ((*NEEDED, "levels=half"), "JSON"),
        (("model",), "NAME=VALUE"),
        ((*NEEDED, "country=Germnay"), "--argument country 'Germnay'.*--argument intensity"),
        ((*NEEDED, "intensity=-5"), "--argument intensity -5"),
        ((*NEEDED, "min_accuracy=98"), "--argument min_accuracy is 98: give a fraction"),
        ((*NEEDED, "max_emission=20"), "--argument max_emission is 20"),
        ((*NEEDED, "time_budget=NaN"), "--argument time_budget is nan"),
        ((*NEEDED, "pairs=1"), "--argument pairs 1"),
        ((*NEEDED, "prune_steps=0"), "--argument prune_steps is 0"),
        ((*NEEDED, "augmentations=-2"), "--argument augmentations is -2"),
        ((*NEEDED, "runtime=openvno"), "--argument runtime 'openvno'.*did you mean 'openvino'"),
        ((*NEEDED, "upload=minio://models/x"), "upload=minio://models/x.*give gs://bucket/prefix"),
        ((*NEEDED, "upload=/cache/models/x"), "upload=/cache/models/x.*no volume.*give gs://bucket/prefix"),
        ((*NEEDED, "upload=gs://"), "upload=gs://.*give gs://bucket/prefix"),
        ((*NEEDED, "upload=gs://bucket"), "whole bucket"),
        ((*NEEDED, "register=mlflow+http://mlflow"), "give --argument upload too"),
        ((*NEEDED, "upload=gs://b/x", "register=mlflow"), "--argument register 'mlflow'"),
        ((*NEEDED, "upload=gs://b/x", "register=mlflow+"), "--argument register 'mlflow\\+'"),
        ((*NEEDED, "upload=gs://b/x", "register=https://me:secret@here"), "--argument register holds a user's name"),
        (("model=minio://bucket/bert", NEEDED[1]), "model=minio://bucket/bert.*a hub name"),
        (("model=embedded:minilm", NEEDED[1]), "model=embedded:minilm.*which the images have not"),
        ((*NEEDED, "unlabelled_data=gs://b/x,embedded:news"), "unlabelled_data=gs://b/x,embedded:news.*by pip"),
        (("model=./my-bert", NEEDED[1]), "model=./my-bert.*a folder on the cache volume"),
        (("model=~/bert", NEEDED[1]), "model=~/bert.*a folder on the cache volume"),
        (("model=models/my/bert", NEEDED[1]), "model=models/my/bert.*a folder on the cache volume"),
        ((NEEDED[0], "data=reviews.csv"), "data=reviews.csv: a task's pod does not read that"),
        ((NEEDED[0], "data=minio://bucket/reviews.csv"), "data=minio://bucket/reviews.csv: a task's pod"),
        ((*NEEDED, "unlabelled_data=gs://b/x, ../more.csv"), "unlabelled_data=../more.csv: a task's pod"),
        ((*NEEDED, "kind=foo"), "--argument kind 'foo' is unknown"),
        ((*NEEDED, "metric=foo"), "--argument metric 'foo' is unknown"),
        ((*NEEDED, "split_by=x"), "--argument split_by 'x' is unknown"),
        ((*NEEDED, "test_fraction=2"), "--argument test_fraction 2: give a fraction"),
        ((*NEEDED, "seed=-1"), "--argument seed is -1"),
        ((*NEEDED, "device=gpu"), "--argument device 'gpu' is unknown"),
        ((*NEEDED, "levels=[3]"), "--argument levels 3: write a text"),
        ((*NEEDED, 'levels=[{"layers": "1/2"}]'), "write a text.*or an object"),
        ((*NEEDED, 'levels=[{"label": "a:b", "layers": "1/2"}]'), "without a colon"),
        ((*NEEDED, 'levels=[{"label": "half", "layer": "1/2"}]'), "did you mean 'layers'"),
        ((*NEEDED, 'levels=[{"label": "half", "flops": 2}]'), "--argument levels 'half:flops=2': flops=2 must be"),
        ((*NEEDED, 'levels=[{"label": "half", "epochs": null}]'), "epochs=None is not a number"),
        ((*NEEDED, 'levels=[{"label": "half", "layers": [3]}]'), "give a fraction"),
        ((*NEEDED, 'levels=["half:layers=3/2"]'), "--argument levels 'half:layers=3/2': layers=3/2"),
        ((*NEEDED, 'levels=["a:layers=1/2", "a:layers=1/3"]'), "two levels are called 'a'"),
    ],
)
def test_wrong_arguments_are_errors_before_anything_is_sent(compiled, texts, said):
    """A cluster would tell it after hours of training, in the log of a failed run, and in another command's options."""
    with pytest.raises(BonsaiError, match=said):
        read_arguments(compiled, texts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("country=Germnay", "--argument country 'Germnay'"),
        ("max_emission=20", "--argument max_emission is 20"),
        ("on_drift=halt", "--argument on_drift 'halt'"),
        ("margin=5", "--argument margin 5"),
    ],
)
def test_wrong_arguments_of_retrain_are_errors_too(retraining, text, said):
    """A recurring run would fail each time, at its end."""
    needed = ("champion=gs://bucket/champion", "data=gs://bucket/reviews/")
    assert read_arguments(retraining, needed) == dict(each.split("=") for each in needed)
    with pytest.raises(BonsaiError, match=said):
        read_arguments(retraining, (*needed, text))


@pytest.mark.parametrize("start", [submit, schedule], ids=["submit", "schedule"])
def test_wrong_values_are_not_sent(compiled, server, start):
    """One of the two commands would start what the other one refuses."""
    when = {"cron": "0 0 3 * * MON", "name": "weekly"} if start is schedule else {}
    with pytest.raises(BonsaiError, match="min_accuracy is 98"):
        start(pipeline=compiled, argument=(*NEEDED, "min_accuracy=98"), endpoint=server.url, **when)
    assert not server.sent


@pytest.mark.parametrize(
    ("level", "read"),
    [
        ({"label": "half", "layers": "1/2"}, {"layers": "1/2"}),
        ("half:layers=1/2,flops=0.3,epochs=6", {"layers": "1/2", "flops": 0.3, "epochs": 6.0}),
        ({"label": "half", "layers": "0,2,5", "rate": 3e-4}, {"layers": "0,2,5", "rate": 3e-4}),
        ({"label": "half", "layers": 4, "shape": "stock"}, {"layers": "4", "shape": "stock"}),
    ],
)
def test_a_level_is_given_as_text_or_with_some_of_its_settings(compiled, level, read):
    """The loop over levels knows no defaults: a key that is missing fails there, after the fine-tuning."""
    found = read_arguments(compiled, (*NEEDED, f"levels={json.dumps([level])}"))
    assert found["levels"] == [{"label": "half", **DEFAULTS, "fingerprint": "", **read}]


def test_what_the_cluster_alone_can_read_is_taken(compiled):
    """Data, packages and volumes that this machine has not: a check here would keep a good run from starting."""
    texts = ("model=/cache/models/bert", "data=gs://private/reviews/", "test_data=/cache/test.csv", "edge=true")
    texts += ("upload=gs://bucket/models", "country=DEU")
    options = {"register": "http://model-registry-service.kubeflow:8080"}
    found = read_arguments(compiled, (*texts, f"register={options['register']}"))
    assert found == {**dict(each.split("=") for each in texts), "edge": True, "options": options}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"model": "a/bert", "data": "gs://b/reviews/", "min_accuracy": 0.98}, "bert on reviews · 0.98"),
        ({"model": "/cache/bert/", "data": "/d/x.csv.gz,/d/y.csv", "max_emission": 0.2}, "bert on x · emission 0.2"),
        ({"model": "bert", "data": "glue:sst2"}, "bert on sst2"),
        ({"model": "bert", "data": "gs://bucket/reviews/*.parquet"}, "bert on reviews"),
        ({"champion": "gs://b/reviews-champion", "data": "gs://b/r.jsonl"}, "retrain reviews-champion on r"),
        ({}, "model on data"),
    ],
)
def test_a_run_is_called_by_model_and_data(arguments, name):
    """A list of runs whose names are a file's and a date."""
    assert run_name(arguments) == name


@pytest.mark.parametrize("start", [submit, schedule], ids=["submit", "schedule"])
def test_the_examples_in_the_help_can_be_used(compiled, start):
    """A copied example whose model no stage finds, so that the run fails."""
    texts = re.findall(r"--argument (\S+)", start.__doc__)
    assert find_model(read_arguments(compiled, texts)["model"])


BOMB = "a: &a [" + "1, " * 400 + "]\nb: &b [" + "*a, " * 400 + "]\nc: [" + "*b, " * 400 + "]"


@pytest.mark.parametrize(
    "content", ["", "a: 1", "[", "\x00", "[1]", "a: 2001-99-99", "[" * 3000, BOMB, f"a: 1\n---\n{BOMB}"]
)
def test_other_files_are_no_pipelines(tmp_path, content):
    """A values file in place of the pipeline is told as what it is; odd YAML ends in a traceback or fills memory."""
    file = tmp_path / "other.yaml"
    file.write_text(content)
    with pytest.raises(BonsaiError, match="bonsai compile"):
        read_arguments(file, ())


@pytest.mark.parametrize(
    "text", ["0 0 3 * * MON", "*/10 0-30/5 3,15 1 JAN-MAR ?", "@daily", "@every 1h30m", "0 0 0 ? * SUN"]
)
def test_cron_expressions_that_kubeflow_takes(text):
    """What it takes must not be refused here."""
    check_cron(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 3 * * 1", "with seconds before it"),
        ("0 60 3 * * *", "minute '60'"),
        ("0 0 24 * * *", "hour '24'"),
        ("0 0 3 0 * *", "day '0'"),
        ("0 0 3 * FOO *", "month 'FOO'"),
        ("0 0 3 * * 7", "weekday '7'"),
        ("0 0 5-3 * * *", "hour '5-3'"),
        ("*/0 0 3 * * *", "second"),
        ("0 0 ² * * *", "hour '²'"),
        ("@every 0h", "2 fields"),
        ("every day", "2 fields"),
    ],
)
def test_cron_expressions_that_would_never_run_are_refused(text, said):
    """A schedule with five fields would run at another time than meant, or never."""
    with pytest.raises(BonsaiError, match=said):
        check_cron(text)
