"""What Kubernetes would refuse, or leave waiting for ever, is refused here with the name of its option."""

import re
from collections.abc import Sequence

from kfp_bonsai.shared.core.errors import BonsaiError, nearest

NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
KEY, VALUE = re.compile(rf"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?{NAME}"), re.compile(rf"({NAME})?")
DNS_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DNS_NAME = re.compile(rf"(?=.{{1,253}}$){DNS_LABEL}(\.{DNS_LABEL})*")
IMAGES = re.compile(rf"{DNS_LABEL}(\.{DNS_LABEL})*(:\d+)?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")

# Devices that the GPU image's torch works on: CUDA, and with a ROCm build of torch in that image, AMD's.
ACCELERATORS = re.compile(r"nvidia\.com/(gpu|mig-\d+g\.\d+gb(\.me)?)(\.shared)?|amd\.com/gpu")
EXAMPLES = ["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "amd.com/gpu"]

UNITS = {"": 1, **{unit: 1000**power for power, unit in enumerate("KMGTPE", 1)}}
UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", 1)}
LEAST_MEMORY = 256 * 1024**2  # less holds neither torch nor pyarrow
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def check_accelerator(name: str) -> None:
    """Refuse a resource that no device plugin offers or that the stages cannot use; "" stands for CPU nodes."""
    if name and not ACCELERATORS.fullmatch(name):
        raise BonsaiError(
            f"--accelerator {name} is unknown{nearest(name, EXAMPLES)} (known: {', '.join(EXAMPLES)}; or '' for CPUs)"
        )


def check_images(prefix: str) -> None:
    """Refuse what is no registry and path of images, such as a URL or a path with a tag."""
    if prefix and not IMAGES.fullmatch(prefix):
        raise BonsaiError(
            f"--images {prefix}: write a registry and a path without https:// and tag, such as "
            "registry.example/team/kfp-bonsai"
        )


def check_name(name: str, flag: str) -> None:
    """Refuse what cannot be the name of a resource in Kubernetes; "" stands for none."""
    if name and not DNS_NAME.fullmatch(name):
        raise BonsaiError(f"{flag} {name}: names in Kubernetes have small letters, digits, - and dots only")


def check_namespace(name: str) -> None:
    """Refuse what cannot be the name of a namespace; "" stands for none."""
    if name and not re.fullmatch(DNS_LABEL, name):
        raise BonsaiError(f"--namespace {name}: namespaces have small letters, digits and -, at most 63 of them")


def cores(text: str, flag: str) -> float:
    """Read a quantity of processors, such as "4", "0.5" or "500m"."""
    if not re.fullmatch(r"[0-9]{1,9}m|[0-9]{1,9}(\.[0-9]{1,9})?", text) or float(text.rstrip("m")) <= 0:
        raise BonsaiError(f"{flag} {text}: write a number of processors above 0, such as 4, 0.5 or 500m")
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def size(text: str, flag: str, least: int = 1) -> int:
    """Read a quantity of bytes; refuse one below `least` bytes, such as 16 where 16Gi is meant."""
    found = re.fullmatch(r"([0-9]{1,18})([A-Za-z]*)", text)
    if not found or found[2] not in UNITS:
        raise BonsaiError(
            f"{flag} {text}: write a size as Kubernetes has it, such as 16Gi (units: {', '.join(UNITS)[2:]})"
        )
    read = int(found[1]) * UNITS[found[2]]
    if read < least:
        raise BonsaiError(f"{flag} {text} is {read} bytes: give more, such as 16Gi")
    return read


def seconds(text: str, flag: str) -> int:
    """Read a duration, such as "90m", "24h" or "7d", as seconds; "0" stands for no limit."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])|0", text)
    if not found:
        raise BonsaiError(f"{flag} {text}: write a duration such as 30s, 90m, 24h or 7d, or 0 for no limit")
    return int(found[1]) * SECONDS[found[2]] if found[1] else 0


def labels(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Read KEY=VALUE labels of nodes."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not KEY.fullmatch(key) or not VALUE.fullmatch(value):
            raise BonsaiError(f"{flag} {text}: write KEY=VALUE as Kubernetes has labels, such as pool=gpu")
        found[key] = value
    return found


def taints(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Read KEY or KEY=VALUE taints of nodes; a value of "" stands for any."""
    found = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not KEY.fullmatch(key) or not VALUE.fullmatch(value):
            raise BonsaiError(f"{flag} {text}: write KEY or KEY=VALUE without the effect, such as dedicated=training")
        found[key] = value
    return found
