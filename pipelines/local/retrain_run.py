"""`bonsai retrain`: the retrain pipeline on one's own machine."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai.fetch_champion.fetch import check_champion
from kfp_bonsai.pipelines.local.inputs import check_inputs, fingerprint
from kfp_bonsai.pipelines.local.run import Headlines, run_here
from kfp_bonsai.shared.core.errors import BonsaiError

TASKS = 13


def retrain(
    champion: str,
    data: str,
    output: Path,
    *,
    model: str = "",
    test_data: str = "",
    validation_data: str = "",
    unlabelled_data: str = "",
    name: str = "",
    text_column: str = "",
    text_pair_column: str = "",
    label_column: str = "",
    kind: str = "auto",
    metric: str = "",
    positive_class: str = "",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    max_rows: int = 0,
    drop_empty: bool = False,
    split_by: str = "hash",
    on_drift: str = "warn",
    again: bool = False,
    margin: float = 0.01,
    min_accuracy: float = 0,
    max_emission: float = 0,
    epochs: float = 3,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    max_length: int = 0,
    freeze_embeddings: bool = False,
    augmentations: int = -1,
    unlabelled_rows: int = -1,
    prune_steps: int = 200,
    device: str = "auto",
    pairs: int = 10,
    block_seconds: float = 2,
    precision: float = 0.02,
    time_budget: float = 0,
    country: str = "",
    intensity: float = 0,
    traffic: int = 0,
    embodied: float = 0,
    wait: bool = True,
    license: str = "",
    seed: int = 0,
    overwrite: bool = False,
) -> dict:
    """Train the champion anew on new data, and put the result in its place if it is not worse.

    Checks the new data against the champion's, fine-tunes and compresses at the champion's level, measures both models
    on the same rows, and promotes the new one only if its accuracy is not worse beyond a margin and its emission still
    meets the target. The same data again changes nothing. The first champion comes from `bonsai promote --first`.

    Args:
        champion: Where the champion is kept: a folder or gs://bucket/prefix.
        data: All labelled rows, old and new, as for `bonsai run`: a file, folder, glob, gs://bucket/path or data set.
        output: Folder for the report, the decision and the model.
        model: Pretrained model to start from, if not the one that the champion was made from.
        test_data: Test rows, as for --data; else the data's own test split, else drawn from it.
        validation_data: Validation rows; else the data's own, else drawn from it.
        unlabelled_data: Texts without labels to distill with, as for --data, separated by commas; for film reviews
            there is embedded:film-sentences.
        name: What the task is called in the report; by default the data's name.
        text_column: Column of texts; found by its name if not given.
        text_pair_column: Column of second texts, for tasks on pairs.
        label_column: Column of labels; found by its name if not given.
        kind: classification, regression or auto.
        metric: accuracy, f1, matthews_correlation, pearson or spearman; by default accuracy or pearson.
        positive_class: Of two classes the one that f1 is of; by default the data's second, else that by alphabet.
        validation_fraction: Share of the rows to validate on, where none are given.
        test_fraction: Share of the rows to test on, where none are given.
        max_rows: Train on at most so many rows; 0 takes all.
        drop_empty: Leave out rows without text or label instead of refusing them.
        split_by: hash keeps every row in its split from run to run, so that no test row was ever trained on; random
            draws anew.
        on_drift: What to do if the data moved far from the champion's: warn or stop.
        again: Train although it was decided on this data before.
        margin: Share of the champion's accuracy that may be lost.
        min_accuracy: Share of the baseline's accuracy to keep, for the report.
        max_emission: Largest emission as a share of the baseline's; 0 takes the champion's target.
        epochs: Epochs of fine-tuning.
        learning_rate: Highest learning rate of fine-tuning.
        batch_size: Rows a step of fine-tuning.
        max_length: Tokens at which texts are cut; 0 for the longest training text (at most 512).
        freeze_embeddings: Leave the embeddings as they are while fine-tuning.
        augmentations: Changed copies of each training text to distill with; -1 for what the champion was made with.
        unlabelled_rows: Texts without labels to use; -1 for all.
        prune_steps: Training steps during which matrices are pruned.
        device: Where emission is measured: cpu, cuda, or auto, which takes a GPU if there is one. Training takes one
            anyway.
        pairs: Rounds of measuring all models at the least.
        block_seconds: Seconds that each model runs in a round, at the least.
        precision: Stop measuring once every emission ratio's 95 % interval is within plus or minus this fraction.
        time_budget: Seconds for all rounds; 0 for twice `pairs` at the most.
        country: Code of three letters or English name of the country whose electricity is assumed.
        intensity: Grams of CO2 per kWh instead of a country's.
        traffic: Inferences a day, for what is saved in a year; 0 for not stated.
        embodied: Grams of CO2 that an hour's use of the hardware stands for by its making; 0 leaves it out.
        wait: Before measuring, wait while another measurement runs on this machine; --no-wait ends the run instead.
        license: License of the model for its card, such as apache-2.0.
        seed: Seed of everything that is drawn.
        overwrite: Start over, whatever is in the output folder of an earlier run.

    Returns:
        Whether the champion changed, and why or why not.

    Raises:
        BonsaiError: there is no champion, something given cannot be used, or a stage failed. Then the champion stays.

    Example:
        bonsai run --model embedded:minilm --data reviews.csv --split-by hash --max-emission 0.2 --output runs/first
        bonsai promote --challenger runs/first/model --champion champions/reviews --decision first.json --first --train runs/first/work/*/prepare-data/train
        bonsai retrain --champion champions/reviews --data reviews.csv --output runs/second
    """  # noqa: E501
    arguments = {key: value for key, value in locals().items() if key not in ("output", "overwrite")}
    if find_spec("kfp") is None:
        raise BonsaiError("KFP is not installed, whose local runner runs the stages: pip install 'kfp-bonsai[kfp]'")
    check_inputs(arguments)
    document = check_champion(champion, model)
    files = fingerprint(model, data, test_data, validation_data, *unlabelled_data.split(","))

    def pipeline() -> Any:
        from kfp_bonsai.pipelines.retrain import retrain_pipeline

        return retrain_pipeline()

    files["champion"] = document["version"]
    run_here(pipeline, arguments, files, Path(output), overwrite, Headlines(TASKS))
    decision = json.loads((Path(output) / "decision.json").read_text(encoding="utf-8"))
    found = {"promoted": decision.get("promoted", False), "reason": decision["reason"]}
    report = Path(output) / "report.html"
    return {**found, "report": str(report)} if report.is_file() else found
