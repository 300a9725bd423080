"""GLUE (Wang et al., ICLR 2019), as far as its tasks' names say what their rows do not: the metric, and which rows."""

import re

HOME = "nyu-mll/glue"
METRICS = {  # the first that the task is scored by, where it is not the usual one of the kind
    "cola": "matthews_correlation",
    "mrpc": "f1",
    "qqp": "f1",
}
MNLI = {"mnli_matched": "validation_matched", "mnli_mismatched": "validation_mismatched"}  # tested on; trained on alike
_NAMED = re.compile(r"(?:^|/)glue[/:](\w+?)(?:@[^:]*)?/?$")


def task_of(origin: str) -> str:
    """Return which of GLUE's tasks a data set's name or a folder's path names: glue:cola, data/glue/cola; or ""."""
    found = _NAMED.search(re.sub(r"@[\w./-]+(?=:)", "", origin))
    return found[1] if found else ""


def metric_of(origin: str) -> str:
    """Return the metric that one of GLUE's tasks is scored by; "" where that is the usual one, or it is no task."""
    return METRICS.get(task_of(origin), "")
