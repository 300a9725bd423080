"""The example Experiment, held against what Katib's API takes.

Its custom resource definition takes any object (x-kubernetes-preserve-unknown-fields), so what stands here are the
types and values of its API (experiments/v1beta1, as the kubeflow-katib package 0.19 has them), and what its admission
webhook refuses.
"""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import validate

from kfp_bonsai.pipelines.search import katib_trial
from kfp_bonsai.propose.next import space_of
from kfp_bonsai.shared.core.errors import BonsaiError

FILE = Path(__file__).parents[2] / "manifests" / "katib" / "experiment.yaml"
NAMED = {"name": str, "value": str}
SPEC = {
    "objective": {
        "type": ("minimize", "maximize"),
        "objectiveMetricName": str,
        "goal": float,
        "additionalMetricNames": [str],
        "metricStrategies": [NAMED],
    },
    "algorithm": {"algorithmName": str, "algorithmSettings": [NAMED]},
    "earlyStopping": {"algorithmName": str, "algorithmSettings": [NAMED]},
    "maxTrialCount": int,
    "maxFailedTrialCount": int,
    "parallelTrialCount": int,
    "resumePolicy": ("Never", "LongRunning", "FromVolume"),
    "parameters": [
        {
            "name": str,
            "parameterType": ("int", "double", "discrete", "categorical"),
            "feasibleSpace": {
                **{"min": str, "max": str, "step": str, "list": [str]},
                "distribution": ("uniform", "logUniform", "normal", "logNormal"),
            },
        }
    ],
    "metricsCollectorSpec": {
        "collector": {"kind": ("StdOut", "File", "TensorFlowEvent", "PrometheusMetric", "Custom", "None")},
        "source": dict,
    },
    "trialTemplate": {
        "primaryContainerName": str,
        "retain": bool,
        "primaryPodLabels": dict,
        "successCondition": str,
        "failureCondition": str,
        "trialParameters": [{"name": str, "description": str, "reference": str}],
        "trialSpec": dict,
    },
}


def wrong(found, wanted, where=""):
    """Return where something is not as it should be."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return [f"{where} is no object"]
        unknown = [f"{where}.{key} is unknown" for key in found if key not in wanted]
        return unknown + [
            each for key in found.keys() & wanted for each in wrong(found[key], wanted[key], f"{where}.{key}")
        ]
    if isinstance(wanted, list):
        if not isinstance(found, list):
            return [f"{where} is no list"]
        return [each for one in found for each in wrong(one, wanted[0], where)]
    if isinstance(wanted, tuple):
        return [] if found in wanted else [f"{where} is {found}"]
    fits = isinstance(found, wanted) and not (wanted is int and isinstance(found, bool))
    return [] if fits else [f"{where} is {found!r}, not {wanted.__name__}"]


def experiment():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def trial_spec(spec, values):
    """Return the trial's resource with the parameters put in, as Katib makes it: into JSON, where texts stay texts."""
    text = json.dumps(spec["trialTemplate"]["trialSpec"])
    for one in spec["trialTemplate"]["trialParameters"]:
        text = text.replace(f"${{trialParameters.{one['name']}}}", values[one["name"]])
    return json.loads(text)


def test_katib_would_take_the_experiment():
    """An Experiment whose fields are misspelt: Katib's definition takes them all, and heeds none."""
    found = experiment()
    assert (found["apiVersion"], found["kind"]) == ("kubeflow.org/v1beta1", "Experiment")
    assert wrong(found["spec"], SPEC) == []
    broken = copy.deepcopy(found["spec"])
    broken["parallelTrials"], broken["parameters"][0]["feasibleSpace"]["min"] = 2, 1
    assert len(wrong(broken, SPEC)) == 2


def test_its_webhook_would_take_it():
    """Counts that contradict each other, or parameters that the trial does not name."""
    spec = experiment()["spec"]
    assert spec["maxFailedTrialCount"] <= spec["maxTrialCount"] >= spec["parallelTrialCount"] > 0
    names = {one["name"] for one in spec["parameters"]}
    references = {one["reference"] for one in spec["trialTemplate"]["trialParameters"]}
    assert names <= references and references - names == {"${trialSpec.Name}"}
    text = yaml.safe_dump(spec["trialTemplate"]["trialSpec"])
    used = set(re.findall(r"\$\{trialParameters\.(\w+)\}", text))
    assert used == {one["name"] for one in spec["trialTemplate"]["trialParameters"]}
    containers = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    assert spec["trialTemplate"]["primaryContainerName"] in [one["name"] for one in containers]


def test_kubernetes_would_take_the_trial():
    """A job that the API server refuses, each time that Katib makes one."""
    made = trial_spec(experiment()["spec"], {"layers": "3", "share": "0.2", "trialName": "bonsai-search-abc"})
    made["metadata"] = {"name": "bonsai-search-abc"}
    validate(made, "1.34", strict=True)


def test_the_trial_is_a_point_of_the_space_that_is_searched():
    """Parameters of Katib that are none of ours, or a program that is not there."""
    from propose_ground import GROUND

    spec = experiment()["spec"]
    assert {one["name"] for one in spec["parameters"]} == set(space_of(GROUND))
    container = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", katib_trial.__name__]
    assert len(container["args"]) == 4


def test_a_trial_prints_its_figures_as_the_collector_reads_them(made, tmp_path, capsys, monkeypatch):
    """A trial that succeeds, and whose metrics Katib never finds."""
    from kfp_bonsai.pipelines.search import bench

    monkeypatch.setattr(bench, "PAIRS", 2)
    monkeypatch.setattr(bench, "BLOCK_SECONDS", 0.3)
    (tmp_path / "data").mkdir()
    for name in ("train", "validation"):
        (tmp_path / "data" / f"{name}.parquet").symlink_to(getattr(made, name))
    (tmp_path / "baseline").symlink_to(made.baseline)
    (tmp_path / "taught").symlink_to(made.transfer)
    assert katib_trial.main([str(tmp_path), "2", "1.0", "0.9"]) == 0
    said = dict(re.findall(r"^(\w+)=(\S+)$", capsys.readouterr().out, re.M))
    spec = experiment()["spec"]["objective"]
    assert {spec["objectiveMetricName"], *spec["additionalMetricNames"]} <= said.keys()
    assert 0 < float(said["emission"]) < 1.1 and float(said["relative_accuracy"]) > 0.4


@pytest.mark.parametrize(
    "arguments", [[], ["x"], ["x", "1", "much"], ["x", "1", "nan"], ["nowhere", "1", "0.5", "0.9"]]
)
def test_a_trial_that_cannot_be_made_fails(arguments, capsys):
    """A failed trial that Katib takes for a good one."""
    assert katib_trial.main(arguments) == 2 and capsys.readouterr().err


def test_too_many_layers_are_refused(tmp_path):
    """A feasible space that is not the model's."""
    with pytest.raises(BonsaiError, match=r"train.parquet is missing"):
        katib_trial.trial(tmp_path, 99, 0.5, 0.9, 0, "x")
