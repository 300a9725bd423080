"""What a cluster is told of single tasks, and its users of what they have to do for it."""

import re
from pathlib import Path

import pytest
import yaml

from kfp_bonsai.pipelines.cluster.compile import PIPELINES, compile_pipeline
from kfp_bonsai.pipelines.options import SEARCH


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_fine_tune_that_keeps_checkpoints_knows_its_run(pipeline, tmp_path):
    """Two runs with one folder for checkpoints: KFP replaces placeholders in arguments, but none in variables."""
    compile_pipeline(pipeline=pipeline, output=str(tmp_path / "out.yaml"), cache_volume="models")
    spec, platform = yaml.safe_load_all((tmp_path / "out.yaml").read_text(encoding="utf-8"))
    told = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    run = [{"name": "BONSAI_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}]
    keeps = [name for name, each in spec["deploymentSpec"]["executors"].items() if "BONSAI_SCRATCH" in str(each)]
    assert keeps and [told[name].get("fieldPathAsEnv") for name in keeps] == [run] * len(keeps)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_registrys_secret_reaches_those_who_register_and_nobody_else(pipeline, tmp_path):
    """A registry that refuses what took hours; or its password in tasks that run other people's models."""
    compile_pipeline(pipeline=pipeline, output=str(tmp_path / "out.yaml"), registry_secret="mlflow")
    spec, platform = yaml.safe_load_all((tmp_path / "out.yaml").read_text(encoding="utf-8"))
    told = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    given = {name: each for name, each in told.items() if "mlflow" in str(each)}
    who = {"search-end" if pipeline == SEARCH else "package-model"}
    assert {name.removeprefix("exec-").rstrip("-23") for name in given} == who
    for name, each in given.items():
        (variables,), (volume,) = each["secretAsEnv"], each["secretAsVolume"]
        asked = {one["envVar"]: one["secretKey"] for one in variables["keyToEnv"]}
        assert asked.items() >= {("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_TOKEN")} and variables["optional"]
        env = {one["name"]: one["value"] for one in spec["deploymentSpec"]["executors"][name]["container"]["env"]}
        assert env["KF_PIPELINES_SA_TOKEN_PATH"] == f"{volume['mountPath']}/token"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_buckets_keys_reach_those_who_read_or_publish(pipeline, tmp_path):
    """Data in MinIO that no task may read, or the keys of a bucket in tasks that only train."""
    compile_pipeline(pipeline=pipeline, output=str(tmp_path / "out.yaml"), storage_secret="minio")
    _, platform = yaml.safe_load_all((tmp_path / "out.yaml").read_text(encoding="utf-8"))
    told = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    given = {name: each["secretAsEnv"] for name, each in told.items() if "minio" in str(each)}
    who = {name.removeprefix("exec-").rstrip("-23") for name in given}
    publishes = {"retrain": {"promote", "package-model"}, SEARCH: {"search-end"}}.get(pipeline, {"package-model"})
    assert who >= {"prepare-data", *publishes} and not who & {"distill", "matrix-prune", "layer-remove", "report"}
    for (variables,) in given.values():
        keys = {one["envVar"]: one["secretKey"] for one in variables["keyToEnv"]}
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"} <= keys.keys()
        assert variables["optional"] and all(name == key for name, key in keys.items())


def test_the_readme_says_what_a_scratch_volume_needs():
    """A volume that tasks cannot write, so that temporary files fill the node's disk without a word."""
    manifests = Path(__file__).parents[3] / "manifests"
    readme = (manifests / "README.md").read_text(encoding="utf-8")
    (advice,) = re.findall(r"^- [^\n]*`--scratch .*?(?=^- |^#)", readme, re.M | re.S)
    assert "`fsGroup` of `kfp/api-server.yaml`" in " ".join(advice.split())
    assert "fsGroup" in (manifests / "kfp" / "api-server.yaml").read_text(encoding="utf-8")
