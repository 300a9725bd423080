"""Kubeflow Pipelines 2.17 on a loopback port, as its API shows a run: nothing is run.

A run's workflow has the nodes that Argo 4 makes of KFP's templates where KFP's `templateDefaults` try everything
again: each node within one of type Retry, a driver beside each task, the loop's turns, what a task was given in its
pod's patch.
"""

import base64
import json
import threading
import zlib
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as api

NOW = datetime(2026, 11, 25, tzinfo=UTC)
WORKFLOW, RUN = "compress-x7k2p", "run-1"
ROOT = f"{WORKFLOW}(0).root(0)"
INNER = {"DAG": "system-dag-driver", "CONTAINER": "system-container-driver"}
REPORTED = {
    "believable": 1,
    "level": "tiny",
    "meets_target": 1,
    "relative_accuracy": 0.987,
    "relative_emission": 0.277,
    "stage": "compressed",
    "verdict": "tiny keeps 98.7 % of the accuracy at 27.7 % of the emission.",
}


def turn(number, inside=f"{ROOT}.levels(0)"):
    """Return the path of a turn of the loop over levels."""
    return f"{inside}.iteration-iterations({number}:{number})(0).iteration-item(0)"


def identity(name):
    """Return a node's id, which ends in a hash of its name."""
    return f"{WORKFLOW}-{zlib.crc32(name.encode())}"


def node(name, kind, phase, template, start=0, seconds=0, message="", inputs=None, outputs=None):
    """Return one node of a workflow."""
    listed = {side: {"parameters": [{"name": key, "value": value} for key, value in (each or {}).items()]}
              for side, each in (("inputs", inputs), ("outputs", outputs))}  # fmt: skip
    ended = (NOW + timedelta(seconds=start + seconds)).isoformat() if phase not in ("Running", "Pending") else None
    return {
        "id": identity(name), "name": name, "displayName": name.rpartition(".")[2], "type": kind, "phase": phase,
        "templateName": template, "startedAt": (NOW + timedelta(seconds=start)).isoformat(), "finishedAt": ended,
        "message": message, **listed,
    }  # fmt: skip


def task(
    name, title, phase, *, inside=ROOT, start=0, seconds=0, message="", attempt=0, cached=False, driver="Succeeded",
    given=None, memory="800Mi", again=False,
):  # fmt: skip
    """Return the nodes of one task; phase "" is that of one whose pod is not there yet."""
    path = f"{inside}.{name}"
    spec = json.dumps({"taskInfo": {"name": title}})
    command = ["/kfp-launcher/launch", "--execution_id", "7", "--executor_input", json.dumps(given or {}), "--", "sh"]
    patch = {"containers": [{"name": "main", "command": command, "resources": {"limits": {"memory": memory}}}]}
    out = {"cached-decision": str(cached).lower(), "condition": "true", "pod-spec-patch": json.dumps(patch)}
    said = {"message": message if driver != "Succeeded" else "", "inputs": {"task": spec}, "start": start}
    nodes = [
        node(f"{path}-driver", "Retry", driver, INNER["CONTAINER"], start),
        node(f"{path}-driver(0)", "Pod", driver, INNER["CONTAINER"], seconds=3, outputs=out, **said),
    ]
    if cached:
        nodes += [node(f"{path}(0).executor", "Skipped", "Skipped", "system-container-impl", start + 3)]
    elif phase:
        inputs, at = {"pod-spec-patch": json.dumps(patch)}, f"{path}(0).executor"
        above = "Running" if again else phase
        nodes += [node(each, kind, above, "retry-system-container-executor", start) for each, kind in
                  ((path, "Retry"), (f"{path}(0)", "DAG"), (at, "Retry"))]  # fmt: skip
        for each in range(attempt + 1):
            last = each == attempt
            nodes.append(
                node(
                    f"{at}({each})",
                    "Pod",
                    phase if last else "Failed",
                    "retry-system-container-impl",
                    start + 3 + each,
                    seconds,
                    message if last else "OOMKilled (exit code 137)",
                    inputs=inputs,
                )
            )
    return nodes


def workflow(*tasks, phase="Running", message=""):
    """Return a workflow with these tasks and all that is around them."""
    around = [
        node(WORKFLOW, "Retry", phase, "entrypoint"),
        node(f"{WORKFLOW}(0).root-driver(0)", "Pod", "Succeeded", INNER["DAG"], inputs={"task": ""}),
        node(ROOT, "DAG", phase, "root"),
        node(f"{ROOT}.levels(0)", "DAG", phase, "comp-levels-levels-iterator"),
        node(f"{ROOT}.levels(0).iteration-driver(0)", "Pod", "Succeeded", INNER["DAG"]),
        node(f"{turn(0)}-driver(0)", "Pod", "Running", INNER["DAG"]),
        node(turn(0), "DAG", phase, "comp-levels"),
        node(f"{ROOT}.condition-branches-1(0)", "DAG", phase, "comp-condition-branches-1"),
    ]
    nodes = {each["id"]: each for each in [*around, *(one for nodes in tasks for one in nodes)]}
    about = {"name": WORKFLOW, "namespace": "kubeflow"}
    return {"metadata": about, "status": {"phase": phase, "message": message, "nodes": nodes}}


def executor_input(parameters=None, makes=("output",), **artifacts):
    """Return what a task is given: parameters, and artifacts by name with their metadata; and what it makes."""
    inputs = {name: {"artifacts": [{"name": "7", "type": {"instanceSchema": ""}, "metadata": metadata}]}
              for name, metadata in artifacts.items()}  # fmt: skip
    made = {name: {"artifacts": [{"name": name, "uri": f"minio://mlpipeline/v2/artifacts/{name}"}]}
            for name in ("executor-logs", *makes)}  # fmt: skip
    return {"inputs": {"artifacts": inputs, "parameterValues": parameters or {}}, "outputs": {"artifacts": made}}


def compressed(phase="Succeeded", **more):
    """Return the tasks of a short run with two levels; `more` is for distilling the second of them."""
    level = [executor_input({"level": label}) for label in ("half", "tiny")]
    packing = executor_input({"upload": ""}, results=REPORTED, model={"level": "tiny"})
    return [
        task("fine-tune", "Fine-tune", "Succeeded", start=10, seconds=65),
        task("layer-remove", "Remove layers", "Succeeded", inside=turn(0), start=80, seconds=5, given=level[0]),
        task("layer-remove", "Remove layers", "Succeeded", inside=turn(1), start=81, seconds=5, given=level[1]),
        task("distill", "Distil", "Succeeded", inside=turn(0), start=90, seconds=100),
        task("distill", "Distil", phase, inside=turn(1), start=91, seconds=112, **more),
        *([task("report", "Report", phase, start=290, seconds=8, given=executor_input(makes=["html"])),
           task("package-model", "Package the model", phase, start=300, seconds=9, given=packing)]
          if phase == "Succeeded" else []),
    ]  # fmt: skip


class Kubeflow:
    """What the cluster answers (`runs`: state, workflow, and when it ended, each a poll), and what it was sent."""

    def __init__(self):
        self.sent, self.asked, self.headers, self.recurring = [], [], [], []
        self.status, self.answered, self.let_through = 200, 0, 0
        self.runs = [("RUNNING", workflow(), ""), ("SUCCEEDED", workflow(*compressed(), phase="Succeeded"), "then")]
        self.after_retry, self.retried, self.logs, self.details, self.error = [], 0, {}, None, None
        self.older_api, self.nonsense, self.texts = True, None, {}
        self.url, self.pipeline = "", None

    @contextmanager
    def serving(self):
        """Listen until the end of the block."""
        listening = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"kubeflow": self}))
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{listening.server_port}"
        try:
            yield self
        finally:
            listening.shutdown()
            listening.server_close()

    def log(self, name, text):
        """Keep the log of a pod by the path of its task."""
        self.logs[identity(f"{name}(0).executor(0)")] = text


class Handler(BaseHTTPRequestHandler):
    """One call."""

    kubeflow: Kubeflow

    def do_GET(self):
        """Answer from what the cluster has."""
        cluster, path = self.kubeflow, urlsplit(self.path).path
        cluster.headers.append(dict(self.headers))
        if "/healthz" in path:
            return self.answer(api.V2beta1GetHealthzResponse(multi_user=False))
        if path == "/apis/v2beta1/recurringruns":
            cluster.asked.append(parse_qs(urlsplit(self.path).query))
            return self.answer(self.recurring())
        for start, text in cluster.texts.items():
            if path.startswith(start):
                cluster.asked.append(parse_qs(urlsplit(self.path).query))
                return self.send(200, text.encode(), {"Content-Type": "text/plain"})
        if path.endswith("main-logs:read"):
            log = cluster.logs.get(path.split("/nodes/")[1].split("/")[0])
            if log is None:
                return self.send(404, {"error_message": "artifact not found"})
            return self.answer({"data": base64.b64encode(log.encode()).decode()})
        if path.startswith("/apis/v2beta1/runs/"):
            return self.answer(self.run(*(cluster.runs[0] if len(cluster.runs) == 1 else cluster.runs.pop(0))))
        if path.startswith("/apis/v1beta1/runs/") and cluster.older_api:
            return self.answer({"run": {"id": RUN}, "pipeline_runtime": {"workflow_manifest": json.dumps(self.seen)}})
        if path == "/apis/v2beta1/experiments":
            return self.answer(api.V2beta1ListExperimentsResponse(experiments=[self.experiment()], total_size=1))
        return self.send(404, {"code": 5, "message": "Not Found"})

    def do_POST(self):
        """Keep what is sent."""
        cluster = self.kubeflow
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        if self.path.endswith(":retry"):
            cluster.retried += 1
            cluster.runs = cluster.after_retry
            return self.answer({})
        cluster.sent.append((self.path, body))
        if "/recurringruns" in self.path:
            made = api.V2beta1RecurringRun(
                recurring_run_id=f"again-{len(cluster.sent)}", display_name=body["display_name"]
            )
            if cluster.status == 200:
                cluster.recurring.append(made)
            return self.answer(made)
        return self.answer(self.run("PENDING", {}, "") if "/runs" in self.path else self.experiment())

    def do_DELETE(self):
        """Forget a recurring run."""
        gone = self.path.rpartition("/")[2]
        self.kubeflow.recurring = [one for one in self.kubeflow.recurring if one.recurring_run_id != gone]
        return self.answer({})

    def recurring(self):
        """One on a page, as KFP's pages end wherever they end."""
        cluster = self.kubeflow
        at = int(cluster.asked[-1].get("page_token", ["0"])[0]) if not cluster.nonsense else 0
        after = str(at + 1) if at + 1 < len(cluster.recurring) else None
        page = cluster.recurring[at : at + 1]
        return api.V2beta1ListRecurringRunsResponse(recurring_runs=page, next_page_token=after)

    def experiment(self):
        """The one experiment there is."""
        return api.V2beta1Experiment(experiment_id="home", display_name="kfp-bonsai", created_at=NOW)

    def run(self, state, seen, finished):
        """The one run there is, with KFP's own list of tasks: Argo's nodes without the ids that would join them."""
        type(self).seen = seen
        tasks = [
            {"run_id": RUN, "task_id": f"task-{at}", "display_name": one["displayName"], "create_time": NOW.isoformat(),
             "state": one["phase"].upper(), "child_tasks": [{"pod_name": "elsewhere"}]}
            for at, one in enumerate(seen.get("status", {}).get("nodes", {}).values())
        ]  # fmt: skip
        error = {"error": {"code": 1, "message": self.kubeflow.error}} if self.kubeflow.error else {}
        run = {"run_id": RUN, "state": state, "created_at": NOW.isoformat(), "finished_at": finished or None}
        if self.kubeflow.pipeline:
            run["pipeline_spec"] = {"pipeline_spec": self.kubeflow.pipeline}
        return {**run, "run_details": {"task_details": tasks}, **error}

    def answer(self, what):
        """Send an answer, or what stands in its place."""
        cluster = self.kubeflow
        cluster.answered += 1
        if cluster.answered <= cluster.let_through:
            return self.send(200, what)
        if cluster.nonsense:
            return self.send(*cluster.nonsense)
        return self.send(cluster.status, what if cluster.status == 200 else {"error_message": "because"})

    def send(self, status, body, headers=()):
        """Send JSON, or bytes as they are."""
        content = (
            body if isinstance(body, bytes) else json.dumps(api.ApiClient().sanitize_for_serialization(body)).encode()
        )
        self.send_response(status)
        sent = {"Content-Type": "application/json", **dict(headers)}
        for name, value in sent.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if status != 204 else b"")

    def log_message(self, *_):
        """Say nothing."""
