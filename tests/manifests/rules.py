"""What a cluster asks of manifests: each rule returns what is wrong, as texts that name the resource."""

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
from promql_parser import parse

from kfp_bonsai.images import TAG
from kfp_bonsai.pipelines.cluster.checks import DNS_NAME, KEY, VALUE

Resources = list[dict[str, Any]]

KUBERNETES = "1.33"
BUILT_IN = re.compile(r"v1|apps/v1|batch/v1|(networking|rbac\.authorization|scheduling|storage)\.k8s\.io/v1")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?")
UNITS = {"": 1.0, "m": 1e-3, **{unit: 1000.0**power for power, unit in enumerate("kMGTPE", 1)}}
UNITS |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)}
CRON = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}

# Values that the schemas have as any text. A field of the same name elsewhere would be found by a test that fails.
ENUMS = {
    "restartPolicy": {"Never", "OnFailure"},  # all our pods belong to jobs
    "policyTypes": {"Ingress", "Egress"},
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "preemptionPolicy": {"Never", "PreemptLowerPriority"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "fsGroupChangePolicy": {"Always", "OnRootMismatch"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "medium": {"", "Memory"},
    "persistentVolumeReclaimPolicy": {"Delete", "Recycle", "Retain"},
    "verbs": {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
    | {"readArtifact", "retry"},  # KFP's own; no "*"
    "pod-security.kubernetes.io/enforce": {"restricted"},
    "severity": {"info", "warning", "critical"},
}
OPERATORS = {"tolerations": {"Exists", "Equal"}, "matchExpressions": {"In", "NotIn", "Exists", "DoesNotExist"}}

# The fields of custom resources that we use: Trainer 2.3 and the Prometheus operator, from their CRDs.
POD_TEMPLATE = "pod template"  # checked as a Pod
CUSTOM: dict[str, Any] = {
    "TrainJob": {
        "runtimeRef": {"apiGroup": str, "kind": str, "name": str},
        "activeDeadlineSeconds": int,
        "trainer": {
            "image": str,
            "numNodes": int,
            "numProcPerNode": int,
            "command": list,
            "args": list,
            "resourcesPerNode": {"requests": dict, "limits": dict},
        },
    },
    "TrainingRuntime": {
        "mlPolicy": {"numNodes": int, "torch": {}},
        "template": {
            "spec": {
                "replicatedJobs": [
                    {"name": str, "template": {"metadata": {"labels": dict}, "spec": {"template": POD_TEMPLATE}}}
                ]
            }
        },
    },
    "PodMonitor": {
        "selector": {"matchLabels": dict},
        "podMetricsEndpoints": [{"port": str, "path": str, "interval": str}],
    },
    "PrometheusRule": {
        "groups": [
            {
                "name": str,
                "rules": [{"alert": str, "expr": str, "for": str, "labels": dict, "annotations": dict}],
            }
        ]
    },
}
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def title(resource: dict[str, Any]) -> str:
    """Return kind and name."""
    return f"{resource['kind']} {resource['metadata']['name']}"


def walk(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Yield each value in a resource with its path."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from walk(each, (*path, key))


def pod_templates(resources: Resources) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each pod that resources would start, as (title, template)."""
    for resource in resources:
        if resource["kind"] == "Pod":
            yield title(resource), resource
        for path, value in walk(resource):
            if path and path[-1] == "template" and isinstance(value, dict) and "containers" in value.get("spec", {}):
                yield title(resource), value


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a pod's containers, the first ones to run first."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def schema(resources: Resources) -> list[str]:
    """Unknown fields, missing ones and wrong types."""
    found = []
    for resource in resources:
        if resource["kind"] in CUSTOM:
            found += [f"{title(resource)}: {each}" for each in _unlike(resource.get("spec"), CUSTOM[resource["kind"]])]
        elif not BUILT_IN.fullmatch(resource["apiVersion"]):
            found.append(f"{title(resource)}: no schema of {resource['apiVersion']}")
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**pod.get("metadata", {}), "name": "a-pod"},
            "spec": pod["spec"],
        }
        for _, pod in pod_templates(resources)
    ]
    for resource in [*(each for each in resources if BUILT_IN.fullmatch(each["apiVersion"])), *pods]:
        try:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.InvalidSchemaError) as error:
            found.append(f"{title(resource)}: {error}")
    return found


def _unlike(value: Any, shape: Any, path: str = "spec") -> Iterator[str]:
    if shape is POD_TEMPLATE:
        return
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{path} is no mapping"
            return
        for key, each in value.items():
            if key not in shape:
                yield f"{path}.{key} is unknown"
            else:
                yield from _unlike(each, shape[key], f"{path}.{key}")
    elif isinstance(shape, list):
        for each in value if isinstance(value, list) else [None]:
            yield from _unlike(each, shape[0], f"{path}[]")
    elif not isinstance(value, shape) or isinstance(value, bool):
        yield f"{path} is no {shape.__name__}"


def enums(resources: Resources) -> list[str]:
    """Words that Kubernetes does not know where it knows a few."""
    found = []
    for resource in resources:
        for path, value in walk(resource):
            field = path[-1] if path else ""
            known = ENUMS.get(field)
            if field == "operator":
                known = OPERATORS[next(each for each in reversed(path) if each in OPERATORS)]
            if field == "type" and path[-2] == "seccompProfile":
                known = {"RuntimeDefault", "Localhost"}
            for each in value if isinstance(value, list) else [value]:
                if known and each not in known:
                    found.append(f"{title(resource)}: {field} is {each}")
    return found


def quantities(resources: Resources) -> list[str]:
    """Amounts that Kubernetes cannot read, requests above limits, and devices asked for in part."""
    found = []
    for resource in resources:
        for path, value in walk(resource):
            field = path[-1] if path else ""
            amounts = value if field in ("requests", "limits", "hard") and isinstance(value, dict) else {}
            if field == "sizeLimit":
                amounts = {field: value}
            found += [
                f"{title(resource)}: {name} is {amount}"
                for name, amount in amounts.items()
                if not QUANTITY.fullmatch(str(amount))
            ]
            if isinstance(value, dict) and isinstance(value.get("limits"), dict):
                found += [f"{title(resource)}: {each}" for each in _beyond(value.get("requests", {}), value["limits"])]
    return found


def _beyond(requests: dict[str, Any], limits: dict[str, Any]) -> Iterator[str]:
    for name, limit in limits.items():
        request = requests.get(name, limit)
        if not QUANTITY.fullmatch(str(limit)) or not QUANTITY.fullmatch(str(request)):
            continue
        if amount(request) > amount(limit):
            yield f"{name}: the request {request} is above the limit {limit}"
        if "/" in name and (amount(request) != amount(limit) or amount(limit) % 1):
            yield f"{name}: devices are whole, and the request is the limit"


def amount(text: Any) -> float:
    """Return a quantity as a number."""
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def names(resources: Resources) -> list[str]:
    """Names and labels with letters that Kubernetes refuses, and two resources of one name."""
    found, seen = [], set()
    for resource in resources:
        if not DNS_NAME.fullmatch(resource["metadata"]["name"]):
            found.append(f"{title(resource)}: such a name is refused")
        if title(resource) in seen:
            found.append(f"{title(resource)} is there twice")
        seen.add(title(resource))
        for path, value in walk(resource):
            if path and path[-1] in ("labels", "matchLabels", "nodeSelector") and resource["kind"] != "PrometheusRule":
                found += [
                    f"{title(resource)}: label {key}={each}"
                    for key, each in value.items()
                    if not KEY.fullmatch(key) or not VALUE.fullmatch(str(each))
                ]
    return found


def schedules(resources: Resources) -> list[str]:
    """Cron expressions of other than five fields, or of times that never come."""
    found = []
    for resource in resources:
        if resource["kind"] != "CronJob":
            continue
        fields = resource["spec"]["schedule"].split()
        if len(fields) != len(CRON):
            found.append(f"{title(resource)}: schedule has {len(fields)} fields, not {len(CRON)}")
        for field, (name, (least, most)) in zip(fields, CRON.items(), strict=False):
            for part in field.split(","):
                read = re.fullmatch(r"(\*|\d+(-\d+)?)(/[1-9]\d*)?", part)
                numbers = [int(each) for each in re.findall(r"\d+", part.partition("/")[0])]
                if not read or not all(least <= each <= most for each in numbers) or numbers != sorted(numbers):
                    found.append(f"{title(resource)}: {name} {part}")
    return found


def pod_security(resources: Resources) -> list[str]:
    """What the restricted level of the Pod Security Standards refuses, and a root that can be written to."""
    return [f"{where}: {each}" for where, pod in pod_templates(resources) for each in _insecure(pod)]


def _insecure(pod: dict[str, Any]) -> Iterator[str]:
    spec, shared = pod["spec"], pod["spec"].get("securityContext", {})
    yield from (f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field))
    for volume in spec.get("volumes", []):
        yield from (f"volume {volume['name']}: {kind}" for kind in set(volume) - {"name"} - RESTRICTED_VOLUMES)
    for container in containers(pod):
        own, name = container.get("securityContext", {}), container["name"]
        if not own.get("runAsNonRoot", shared.get("runAsNonRoot")):
            yield f"{name}: runAsNonRoot is not true"
        if own.get("runAsUser", shared.get("runAsUser")) == 0:
            yield f"{name}: runAsUser is 0"
        if own.get("privileged"):
            yield f"{name}: privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation is not false"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: readOnlyRootFilesystem is not true"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities are not dropped"
        if own.get("seccompProfile", shared.get("seccompProfile", {})).get("type") not in (
            "RuntimeDefault",
            "Localhost",
        ):
            yield f"{name}: no seccompProfile"
        yield from (f"{name}: hostPort" for port in container.get("ports", []) if port.get("hostPort"))


def references(resources: Resources, around: Resources, secrets: set[str]) -> list[str]:
    """Names of accounts, volumes, settings, roles and so on that nothing has.

    Args:
        resources: what is checked.
        around: what is in the cluster besides.
        secrets: names of the secrets that the documentation asks for.
    """
    there = {(each["kind"], each["metadata"]["name"]): each for each in [*resources, *around]}
    found = []

    def need(where: str, kind: str, name: str) -> None:
        if (kind, name) not in there and not (kind == "Secret" and name in secrets):
            found.append(f"{where}: there is no {kind} {name}")

    for where, pod in pod_templates(resources):
        spec = pod["spec"]
        need(where, "ServiceAccount", spec.get("serviceAccountName", "default"))
        if "priorityClassName" in spec:
            need(where, "PriorityClass", spec["priorityClassName"])
        volumes = {each["name"]: each for each in spec.get("volumes", [])}
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                need(where, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            if "configMap" in volume:
                need(where, "ConfigMap", volume["configMap"]["name"])
            if "secret" in volume:
                need(where, "Secret", volume["secret"]["secretName"])
        for container in containers(pod):
            found += [
                f"{where}: there is no volume {mount['name']}"
                for mount in container.get("volumeMounts", [])
                if mount["name"] not in volumes
            ]
            known = {each["name"] for each in container.get("env", [])}
            for source in container.get("envFrom", []):
                need(where, "ConfigMap", source["configMapRef"]["name"])
                known |= set(there.get(("ConfigMap", source["configMapRef"]["name"]), {}).get("data", {}))
            used = {name for text in container.get("args", []) for name in re.findall(r"\$\((\w+)\)", text)}
            found += [f"{where}: $({name}) is not set" for name in sorted(used - known)]
            for each in container.get("env", []):
                if "secretKeyRef" in each.get("valueFrom", {}):
                    need(where, "Secret", each["valueFrom"]["secretKeyRef"]["name"])
    for resource in resources:
        where = title(resource)
        if resource["kind"] == "RoleBinding":
            need(where, resource["roleRef"]["kind"], resource["roleRef"]["name"])
            for subject in resource["subjects"]:
                need(where, subject["kind"], subject["name"])
        if resource["kind"] == "TrainJob":
            need(where, resource["spec"]["runtimeRef"]["kind"], resource["spec"]["runtimeRef"]["name"])
        for rule in resource.get("rules", []) if resource["kind"] == "Role" else ():
            for name in rule.get("resourceNames", []) if rule["resources"] == ["secrets"] else ():
                need(where, "Secret", name)
        for text in resource.get("data", {}).values() if resource["kind"] == "ConfigMap" else ():
            for name in re.findall(r"^ *secretName: (\S+)$", text, re.M):
                need(where, "Secret", name)
    return found


def secret_data(resources: Resources) -> list[str]:
    """Secrets with their data, and environment variables that hold one."""
    found = [title(each) for each in resources if each["kind"] == "Secret"]
    for where, pod in pod_templates(resources):
        for container in containers(pod):
            found += [
                f"{where}: {each['name']}"
                for each in container.get("env", [])
                if re.search("TOKEN|PASSWORD|SECRET|_KEY", each["name"]) and "value" in each
            ]
    return found


def images(resources: Resources) -> list[str]:
    """Images of another version than the package's, or of none."""
    return [
        f"{title(resource)}: {value}"
        for resource in resources
        for path, value in walk(resource)
        if path and path[-1] == "image" and not re.fullmatch(rf"\S+/(gpu|cpu|edge):{re.escape(TAG)}", value)
    ]


def alerts(resources: Resources) -> list[str]:
    """Expressions that Prometheus cannot read."""
    found = []
    for resource in resources:
        for path, value in walk(resource):
            if path and path[-1] == "expr":
                try:
                    parse(value)
                except ValueError as error:
                    found.append(f"{title(resource)}: {error}")
    return found


RULES = (schema, enums, quantities, names, schedules, pod_security, secret_data, images, alerts)
