"""`bonsai retrain`: the retrain pipeline on one's own machine."""

import json
from pathlib import Path
from typing import Any

from kfp_bonsai.fetch_champion.fetch import check_champion
from kfp_bonsai.pipelines.local.collect import every
from kfp_bonsai.pipelines.local.folder import WORK, check_free
from kfp_bonsai.pipelines.local.inputs import check_inputs, fingerprint
from kfp_bonsai.pipelines.local.run import Headlines, check_kfp, run_here
from kfp_bonsai.pipelines.options import EDGE, PIPELINES, RETRAIN
from kfp_bonsai.quantize.quantize import AUTO, check_packages
from kfp_bonsai.shared.core.signatures import takes
from kfp_bonsai.shared.saved.champion import INT8, version_of
from kfp_bonsai.shared.storage.manifest import MANIFEST

TASKS = 13


@takes(PIPELINES[RETRAIN])
def retrain(
    champion: str, data: str, output: Path, *, model: str = "", overwrite: bool = False, **options: Any
) -> dict:
    """Train the champion anew on new data, and put the result in its place if it is not worse.

    Checks the new data against the champion's, fine-tunes and compresses at the champion's level, measures both models
    on the same rows, and promotes the new one only if its accuracy is not worse beyond a margin and its emission still
    meets the target. Where the champion is an int8 model, the new one is quantized too, and both are measured on this
    CPU. The same data again changes nothing. The first champion comes from `bonsai promote --first`.

    Args:
        champion: Where the champion is kept: a folder, gs://bucket/prefix or s3://bucket/prefix.
        data: All labelled rows, old and new, as for `bonsai run`: a file, folder, glob, gs://bucket/path or data set.
        output: Folder for the report, the decision and the model.
        model: Pretrained model to start from, if not the one that the champion was made from.
        split_by: hash keeps every row in its split from run to run, so that no test row was ever trained on; random
            draws anew.
        on_drift: What to do if the data moved far from the champion's: warn or stop.
        margin: Share of the champion's accuracy that may be lost.
        min_accuracy: Share of the baseline's accuracy to keep, for the report.
        max_emission: Largest emission as a share of the baseline's; 0 takes the champion's target.
        augmentations: Changed copies of each training text to distill with; -1 for what the champion was made with.
        overwrite: Start over, whatever is in the output folder of an earlier run.
        **options: The others are those of its stages (pipelines/options.py).

    Returns:
        Whether the champion changed, and why or why not.

    Raises:
        BonsaiError: there is no champion, something given cannot be used, or a stage failed. Then the champion stays.

    Example:
        bonsai run --model embedded:minilm --data reviews.csv --split-by hash --max-emission 0.2 --output runs/first
        bonsai promote --challenger runs/first/model --champion champions/reviews --decision first.json --first --train runs/first/work/*/prepare-data/train
        bonsai retrain --champion champions/reviews --data reviews.csv --output runs/second
    """  # noqa: E501
    arguments = {"champion": champion, "data": data, "model": model, **options}
    check_kfp()
    check_free(Path(output), overwrite)
    check_inputs(arguments)
    document, form = check_champion(champion, model, options[EDGE], options["runtime"])
    if form == INT8:
        check_packages(AUTO)
    files = fingerprint(
        model, data, options["test_data"], options["validation_data"], *options["unlabelled_data"].split(",")
    )

    def pipeline() -> Any:
        from kfp_bonsai.pipelines.retrain import retrain_pipeline

        return retrain_pipeline(form)

    files["champion"] = document["version"] if overwrite else _began_with(document, Path(output) / WORK)
    run_here(pipeline, arguments, files, Path(output), overwrite, Headlines(TASKS + (form == INT8)))
    decision = json.loads((Path(output) / "decision.json").read_text(encoding="utf-8"))
    promoted = decision.get("promoted", files["champion"] != document["version"])
    found = {"promoted": promoted, "reason": decision["reason"]}
    report = Path(output) / "report.html"
    return {**found, "report": str(report)} if report.is_file() else found


def _began_with(document: dict[str, Any], work: Path) -> str:
    """Return the champion that a run began with: the one before, where the run has put its own model in place already.

    It was ended right after that, then, and goes on to its end with what it has done.
    """
    made = [one for one in every(work, "package-model*/package") if (one / MANIFEST).is_file()]
    own = document["version"] in map(version_of, made)
    return document.get("previous", "") if own else document["version"]
