"""What a pipeline on a cluster is given: a form that a person fills in, and all other options in one object.

Names, types and defaults are those of `bonsai run` and `bonsai retrain`. The same checks answer `bonsai compile --set`,
`bonsai submit --argument`, and the first task of a run, which has what was typed into Kubeflow's form.
"""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_bonsai.pipelines.levels import DEFAULTS, parse_levels
from kfp_bonsai.pipelines.options import COMPRESS, EDGE, LEVELS, RETRAIN, SEARCH, arguments
from kfp_bonsai.pipelines.values import check_search, check_values, fitting, rivals_of
from kfp_bonsai.prepare_data.hub_sets import is_hub_name
from kfp_bonsai.shared.core.downloads import EMBEDDED
from kfp_bonsai.shared.core.errors import BonsaiError, nearest
from kfp_bonsai.shared.core.hub import HUB, parted
from kfp_bonsai.shared.core.signatures import REQUIRED
from kfp_bonsai.shared.storage.buckets import SCHEMES, SOME

OPTIONS = "options"
HUB_MODEL = re.compile(r"\w[\w.-]*(/[\w.-]+)?")

# What a person thinks of: a description and an example each.
COMMON = {
    "data": (
        "Labelled rows: gs://bucket/path, a path on the cache volume (Parquet, CSV, TSV or JSON lines: a file, folder "
        "or glob), or a data set's name on the Hugging Face hub.",
        "gs://my-bucket/reviews/",
    ),
    "test_data": (
        "Test rows, named as in data; empty: the data's own test split, else drawn from it.",
        "gs://my-bucket/test.csv",
    ),
    "country": (
        "Whose electricity is assumed, for grams of CO2: a code of three letters or an English name; empty: none.",
        "DEU",
    ),
    OPTIONS: (
        "Everything else, by name as in `bonsai run --help` (`bonsai retrain --help`), with _ for -; what is left out "
        "has its default.",
        '{"epochs": 1, "label_column": "stars", "license": "apache-2.0"}',
    ),
}
FORMS: dict[str, dict[str, tuple[str, str]]] = {
    "compress": {
        "model": (
            "Pretrained model: a name on the Hugging Face hub, or a folder on the cache volume or in a bucket.",
            "google-bert/bert-base-uncased",
        ),
        **COMMON,
        LEVELS: (
            "What to compress to, a list of texts: layers that stay, share of the baseline's FLOPs, shape, epochs; "
            "empty: three that suit the kind of task, as in `bonsai run`.",
            '["half:layers=1/2", "tiny:layers=1/3,flops=0.05"]',
        ),
        "min_accuracy": (
            "Target: the smallest emission that keeps this share of the baseline's accuracy, a fraction; 0: no such "
            "target (0.95 if max_emission is 0 too).",
            "0.98",
        ),
        "max_emission": (
            "Target: the best accuracy with at most this share of the baseline's emission, a fraction; 0: no such "
            "target.",
            "0.2",
        ),
        EDGE: ("Whether to make int8 models for CPUs too, and to choose by their figures, measured on a CPU.", "true"),
        "upload": (
            "Bucket to publish the chosen model to, or hf://owner/name; empty: it stays an artifact of the run.",
            "gs://my-bucket/models",
        ),
    },
    "retrain": {
        "champion": ("Where the model in use is kept, with its champion.json.", "gs://my-bucket/champion"),
        **COMMON,
        "model": (
            "Pretrained model to start from, a name on the hub or a folder on the cache volume; empty: the champion's.",
            "google-bert/bert-base-uncased",
        ),
        "margin": ("Share of the champion's accuracy that may be lost, a fraction.", "0.01"),
        "max_emission": (
            "Largest emission as a share of the baseline's, a fraction; 0: the target that the champion was made for.",
            "0.2",
        ),
        EDGE: (
            "Whether the new model is to be int8 for CPUs, measured there, as it is anyway where the champion is one.",
            "true",
        ),
        "on_drift": ("What to do if the data moved far from the champion's: warn or stop.", "stop"),
    },
    "search": {
        "model": (
            "Pretrained model: a name on the Hugging Face hub, or a folder on the cache volume or in a bucket.",
            "google-bert/bert-base-uncased",
        ),
        **COMMON,
        "min_accuracy": ("Target: the share of the baseline's accuracy to keep, a fraction; 0: none.", "0.98"),
        "max_emission": ("Target: the largest emission as a share of the baseline's, a fraction; 0: none.", "0.1"),
        "max_latency_ms": ("Target: the largest median of requests of one row, in milliseconds; 0: none.", "20"),
        "max_size_mb": ("Target: the largest size of the weights, in megabytes; 0: none.", "50"),
        "max_memory_mb": ("Target: the most memory that serving it takes, in megabytes; 0: none.", "500"),
        "objective": (
            "What to make best among the models that meet the targets: emission, accuracy, latency, size or memory; "
            "empty: emission, or accuracy where min_accuracy is 0.",
            "latency",
        ),
        "upload": (
            "Bucket to publish the chosen model to, or hf://owner/name; empty: it stays an artifact of the run.",
            "gs://my-bucket/models",
        ),
    },
    "study": {
        "models": (
            "Pretrained models: a list of names on the hub, folders on the cache volume, or objects with options of "
            "their own.",
            '["google-bert/bert-base-uncased", {"model": "/cache/models/opt", "name": "OPT", "batch_size": 16}]',
        ),
        "data": (
            "Data sets: a list of gs://bucket/path, paths on the cache volume or names on the hub, or objects with "
            "options of their own, a name and a group (the figure that they are drawn into).",
            '["glue:mrpc", {"data": "gs://my-bucket/reviews/", "group": "ours", "label_column": "stars"}]',
        ),
        LEVELS: (
            "What to compress to, a list of texts: layers that stay, share of the baseline's FLOPs, shape, epochs; "
            "empty: three that suit each cell's kind of task, as in `bonsai run`.",
            '["half:layers=1/2", "tiny:layers=1/3,flops=0.05"]',
        ),
        "seeds": ("Seeds of everything that is drawn: a list; each cell is made with each.", "[0, 1, 2]"),
        "title": ("What the study is called.", "GLUE"),
        OPTIONS: (
            "Everything else, of all cells, by name as in `bonsai run --help`, with _ for -.",
            '{"epochs": 2, "country": "DEU"}',
        ),
    },
}


def form(pipeline: str, *, edge: bool, fixed: Mapping[str, Any]) -> tuple[list[inspect.Parameter], str]:
    """Return the form's fields as a function's parameters, and their descriptions as its docstring.

    Args:
        pipeline: which one.
        edge: whether each run chooses its branch, which is a field then.
        fixed: defaults that were given when compiling.
    """
    known = arguments(pipeline)
    fields, lines = [], []
    for name, (text, example) in FORMS[pipeline].items():
        if name == EDGE and not edge:
            continue
        if name == OPTIONS:
            field = inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=dict)
            field = field.replace(default=fixed.get(name, {}))
        else:
            field = known[name].replace(default=fixed.get(name, known[name].default))
        if name == LEVELS and pipeline == COMPRESS and name not in fixed:
            field = field.replace(default=[])
        fields.append(field)
        lines.append(f"    {name}: {text} Example: {example}")
    fields.sort(key=lambda field: field.default is not REQUIRED)
    return fields, "\n".join(["Args:", *lines])


def settle(
    pipeline: str, given: Mapping[str, Any], fixed: Mapping[str, Any], flag: str = "", *, whole: bool = True
) -> dict[str, Any]:
    """Return the value of every argument: what is given, else what was fixed when compiling, else its default.

    Args:
        pipeline: which one.
        given: arguments by name; "options" holds any others.
        fixed: those given when compiling.
        flag: what stands before an argument's name in messages, such as "--argument ".
        whole: refuse what is missing, and give all values; else check what is given, and give that.

    Raises:
        BonsaiError: an argument is unknown, of another type, missing, or one that a stage would refuse, perhaps hours
            later. Data are not opened: the cluster may read what we may not.
    """
    known = arguments(pipeline)
    options = fitting(given.get(OPTIONS, {}), dict, f"{flag}{OPTIONS}")
    found = dict(fixed)
    for name, value in (*options.items(), *((name, value) for name, value in given.items() if name != OPTIONS)):
        where = f"{OPTIONS}: " if name in options else flag
        if name not in known:
            raise BonsaiError(f"{where}{name} is unknown{nearest(name, [*known])} (known: {', '.join(known)})")
        if name in options and name in given and name not in FORMS[pipeline]:
            raise BonsaiError(f"{where}{name} is given twice, here and beside it: give it once")
        if name in options and name in FORMS[pipeline]:
            chosen = ", or chosen by `bonsai compile --edge`" if name == EDGE and pipeline != RETRAIN else ""
            raise BonsaiError(f"{where}{name} is none of these, but a field of the form{chosen}: give it there")
        found[name] = fitting(value, known[name].annotation, f"{where}{name}")
    for name, parameter in known.items() if whole else ():
        if parameter.default is REQUIRED and not str(found.get(name, "")).strip():
            raise BonsaiError(f"{flag}{name} is missing: give it, such as {FORMS[pipeline][name][1]}")
        found.setdefault(name, parameter.default)
    try:
        if pipeline == SEARCH:
            check_search(found, whole)
        if LEVELS in found:
            found[LEVELS] = _levels(found[LEVELS])
        check_for_cluster(found, found.get(LEVELS) or rivals_of(found.get("rivals", "")))
        if fixed.get("device") == "cpu" and found.get("device") == "cuda":
            raise BonsaiError(
                "--device cuda: this pipeline was compiled to measure on a CPU (no --accelerator, one without a "
                "counter of energy, or --set device=cpu): leave device out, or compile for --accelerator nvidia.com/gpu"
            )
        check_values(found)
    except BonsaiError as error:
        raise BonsaiError(in_the_forms_words(error, flag, known)) from error
    return found


def in_the_forms_words(error: BonsaiError, flag: str, known: Mapping[str, Any]) -> str:
    """Return a message in which the options of `bonsai run` are called as the pipeline's arguments."""

    def name(option: re.Match) -> str:
        found = LEVELS if option[1] == "level" else option[1].replace("-", "_")
        return f"{flag}{found}" if found in known else option[0]

    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", name, str(error))


def _levels(given: Sequence[Any]) -> list[dict[str, Any]]:
    """Return levels as the pipeline's loop reads them, which knows no defaults; none if none are given.

    Args:
        given: texts as `bonsai run` takes them, or objects such as {"label": "half", "layers": "1/2"}.

    Raises:
        BonsaiError: there is one that `bonsai run` would refuse too.
    """
    return parse_levels([_level_text(each) for each in given]) if given else []


def _level_text(level: Any) -> str:
    if isinstance(level, str):
        return level
    if not isinstance(level, dict) or "label" not in level or ":" in str(level["label"]):
        raise BonsaiError(
            f'--level {json.dumps(level)}: write a text such as "half:layers=1/2", or an object such as '
            '{"label": "half", "layers": "1/2"}, without a colon in the label'
        )
    given = {key: value for key, value in level.items() if key not in ("label", "fingerprint")}
    settings = {key: value for key, value in given.items() if DEFAULTS.get(key) != value}
    settings = settings or {"layers": DEFAULTS["layers"]}
    return f"{level['label']}:" + ",".join(f"{key}={value}" for key, value in settings.items())


def check_for_cluster(arguments: Mapping[str, Any], levels: Sequence[Mapping[str, Any]]) -> None:
    """Refuse places that a folder on one's own machine may be, and what a task's pod cannot reach or install."""
    named = ("model", "data", "test_data", "validation_data", "unlabelled_data")
    given = {f"{_option(name)}=": arguments.get(name, "") for name in named}
    for flag, value in (given | {f"--level '{level['label']}': model=": level["model"] for level in levels}).items():
        if EMBEDDED in value:
            raise BonsaiError(
                f"{flag}{value}: {EMBEDDED}... comes by pip, which the images have not: give a hub name, a "
                "folder on the cache volume such as /cache/models/bert, or for data gs://bucket/path"
            )
    upload = arguments.get("upload", "")
    if upload and not re.match(f"({'|'.join([*SCHEMES, HUB])})[^/]", upload):
        raise BonsaiError(
            f"--upload={upload}: a cluster's task publishes to a bucket or the hub only (it has no volume, and a "
            f"folder would be lost with its pod): give {SOME}, or hf://owner/name"
        )
    for name in ("data", "test_data", "validation_data", "unlabelled_data"):
        for value in filter(None, map(str.strip, arguments.get(name, "").split(","))):
            if not value.startswith((*SCHEMES, "/")) and not is_hub_name(value):
                raise BonsaiError(
                    f"{_option(name)}={value}: a task's pod does not read that: give {SOME}, a path on the "
                    "cache volume such as /cache/data/reviews.parquet, or a data set's name on the hub"
                )
    champion = arguments.get("champion", "")
    if champion and not champion.startswith((*SCHEMES, "/")):
        raise BonsaiError(
            f"--champion={champion}: a task's pod does not find that: give {SOME}, or a folder on the "
            "cache volume such as /cache/champion"
        )
    for level in levels:
        if level["model"] and not HUB_MODEL.fullmatch(parted(level["model"])[0]):
            raise BonsaiError(
                f"--level '{level['label']}': model={level['model']}: levels run at the same time, without the cache "
                "volume: give a hub name such as google/bert_uncased_L-2_H-128_A-2"
            )
    model, _ = parted(arguments.get("model", ""))
    if model.startswith(SCHEMES):
        return
    if "://" in model or not re.match(r"/|\w", model or "/") or (model[:1] != "/" and model.count("/") > 1):
        raise BonsaiError(
            f"--model={model}: models are not read from there: give a hub name such as "
            "google-bert/bert-base-uncased, or a folder on the cache volume such as /cache/models/bert"
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
