"""Whatever stands where Kubeflow was expected: each answer is checked for what was asked."""

import json

import pytest
from kubeflow import RUN

from kfp_bonsai.pipelines.cluster.endpoint import api_address
from kfp_bonsai.pipelines.cluster.follow import follow
from kfp_bonsai.pipelines.cluster.submit import schedule, submit
from kfp_bonsai.shared.core.errors import BonsaiError

NEEDED = ("model=bert-base-uncased", "data=gs://bucket/reviews/")
HTML = {"Content-Type": "text/html; charset=utf-8"}
LOGIN = b"<!doctype html><html><head><title>Log in to Your Account</title></head><body><form></form></body></html>"
UI = b"<!doctype html><html><head><title>Kubeflow Pipelines</title></head><body></body></html>"
NONSENSE = {
    "a login's page": ((200, LOGIN, HTML), "wants a login.*'Log in to Your Account'.*--cookie-file"),
    "a login's page as JSON": ((200, LOGIN, {}), "wants a login"),
    "sent on to a login": ((302, b"", {"Location": "/dex/auth?state=secret"}), "wants a login.*to /dex/auth:"),
    "sent on to https": ((301, b"", {"Location": "https://other.example/pipeline"}), "sends calls on to https://other"),
    "sent on in a circle": ((307, b"", {"Location": "/apis/v2beta1/experiments"}), "sends calls on to /apis"),
    "a login's 401": ((401, LOGIN, HTML), "wants a login: it answered 401"),
    "the UI's page": ((200, UI, HTML), "the page 'Kubeflow Pipelines', not as Kubeflow.*ends in /pipeline"),
    "a proxy's page": ((502, b"<html><title>502 Bad Gateway</title></html>", HTML), "502.*'502 Bad Gateway'"),
    "a proxy's bytes": ((502, b"\xff\xfe\x00", {}), "502"),
    "nothing": ((200, b"", {}), "answered with nothing"),
    "no content": ((204, b"", {}), "answered with nothing"),
    "half of it": ((200, b'{"run_id": "run', {}), 'answered \'."run_id": "run\''),
    "gzip unasked": ((200, b"\x1f\x8b\x08\x00\x01\x02", {}), "not as Kubeflow Pipelines"),
    "a list": ((200, b"[]", {}), r"answered '\[\]', not as Kubeflow"),
    "words": ((200, b'"ok"', {}), "not as Kubeflow"),
    "null": ((200, b"null", {}), "not as Kubeflow"),
    "another API": ((200, {"run": {"id": "run-1"}, "id": "x"}, {}), "has no (experiment_id|run_id)"),
    "another service": ((200, {"status": "ok"}, {}), "has no (experiment_id|run_id)"),
    "an empty id": ((200, {"experiment_id": "", "run_id": ""}, {}), "has no (experiment_id|run_id)"),
    "a date that is none": (
        (200, {"experiment_id": "home", "run_id": RUN, "created_at": "soon"}, {}),
        "answer|no state",
    ),
    "a list that is none": ((200, {"experiments": 3, "run_id": 3, "task_details": "x"}, {}), "answer"),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The least that is a compiled pipeline, which is read at once."""
    file = tmp_path_factory.mktemp("compiled") / "small.yaml"
    inputs = {"parameters": {name: {"parameterType": "STRING"} for name in ("model", "data")}}
    first = {"inputs": {"parameters": {"fixed": {"runtimeValue": {"constant": {}}}}}}
    root = {"inputDefinitions": inputs, "dag": {"tasks": {"check-inputs": first}}}
    file.write_text(json.dumps({"pipelineInfo": {"name": "compress"}, "root": root}))
    return file


@pytest.mark.parametrize("name", NONSENSE)
@pytest.mark.parametrize("command", ["submit", "wait", "schedule", "follow"])
def test_nonsense_is_never_taken_for_success(compiled, server, quick, command, name):
    """`submit` said that a run was started where a login's page had answered, and --wait never ended."""
    server.nonsense, said = NONSENSE[name]
    with pytest.raises(BonsaiError, match=said):
        if command == "follow":
            follow(RUN, endpoint=server.url, timeout="1h")
        elif command == "schedule":
            schedule(pipeline=compiled, cron="@daily", name="x", argument=NEEDED, endpoint=server.url)
        else:
            submit(pipeline=compiled, argument=NEEDED, endpoint=server.url, wait=command == "wait", timeout="1h")
    assert "secret" not in said


@pytest.mark.parametrize("name", ["a login's page", "nothing", "another service", "half of it", "sent on to a login"])
@pytest.mark.parametrize("start", [submit, schedule], ids=["submit", "schedule"])
def test_the_answer_to_what_was_started_is_checked_too(compiled, server, start, name):
    """A session that ends between two calls: the experiment is there, the run is not."""
    server.nonsense, server.let_through = NONSENSE[name][0], 2 if start is submit else 3
    when = {"cron": "@daily", "name": "x"} if start is schedule else {}
    with pytest.raises(BonsaiError, match=r"wants a login|not as Kubeflow|has no (run_id|recurring_run_id)"):
        start(pipeline=compiled, argument=NEEDED, endpoint=server.url, **when)


def test_a_session_that_ends_ends_the_waiting(compiled, server, on_sleep):
    """A run goes on after the session: who waits is told so, at once, with the command that follows it."""
    on_sleep(lambda _: setattr(server, "nonsense", NONSENSE["a login's page"][0]))
    with pytest.raises(BonsaiError, match=f"wants a login.*run {RUN} may go on.*bonsai follow {RUN}"):
        submit(pipeline=compiled, argument=NEEDED, endpoint=server.url, wait=True)


@pytest.mark.parametrize(
    "odd",
    [
        {"state": None}, {"state": "NEVER"}, {"state": 7}, {"run_details": None}, {"run_details": {"task_details": 3}},
        {"run_details": {"task_details": [None, 3, {"display_name": 3, "state": None}]}}, {"error": "no"},
        {"finished_at": 3}, {"created_at": None},
    ],
    ids=lambda odd: json.dumps(odd)[:40],
)  # fmt: skip
def test_fields_of_other_types_end_in_words(server, quick, odd):
    """A traceback, or no end, for one field that is not as it should be."""
    server.nonsense = (200, {"run_id": RUN, "state": "RUNNING", **odd}, {})
    with pytest.raises(BonsaiError):
        follow(RUN, endpoint=server.url, timeout="1s")


def test_a_list_without_an_end_ends(compiled, server):
    """A page that names itself as the next one."""
    server.nonsense, server.let_through = (200, {"recurring_runs": [], "next_page_token": "again"}, {}), 2
    with pytest.raises(BonsaiError, match="does not end"):
        schedule(pipeline=compiled, cron="@daily", name="x", argument=NEEDED, endpoint=server.url)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("https://kf.example/pipeline/", "https://kf.example/pipeline"),
        ("https://kf.example/pipeline/#/runs/details/4711", "https://kf.example/pipeline"),
        ("https://kf.example/_/pipeline/?ns=team#/runs", "https://kf.example/pipeline"),
        (" http://localhost:8080/#/experiments ", "http://localhost:8080"),
        ("http://localhost:8888/apis/v2beta1/runs", "http://localhost:8888"),
    ],
)
def test_an_address_copied_from_the_browser_is_understood(given, read):
    """The UI's page in place of the API."""
    assert api_address(given) == read


@pytest.mark.parametrize("given", ["", "kf.example", "http://", "ftp://kf.example", "#/runs"])
def test_what_is_no_address_is_told(given):
    """A client's exception for a missing scheme."""
    with pytest.raises(BonsaiError, match="give the URL of Kubeflow Pipelines"):
        api_address(given)


def test_a_file_without_a_certificate_is_told(compiled, server, tmp_path):
    """SSL's own words, with the advice to look at the network."""
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    with pytest.raises(BonsaiError, match=r"--ca-file.*holds no certificate"):
        submit(pipeline=compiled, argument=NEEDED, endpoint=server.url, ca_file=str(file))
