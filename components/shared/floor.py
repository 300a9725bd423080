"""The floor: what a bag of words reaches on the task. A compressed model near it has lost what it was for."""

from pathlib import Path

from kfp_bonsai.shared import tasks
from kfp_bonsai.shared.errors import BonsaiError

MOST_ROWS = 100_000
METHODS = {
    tasks.CLASSIFICATION: "TF-IDF of 1 and 2 words + linear SVM (scikit-learn), trained on the training split",
    tasks.REGRESSION: "TF-IDF of 1 and 2 words + ridge regression (scikit-learn), trained on the training split",
}


def floor(train: Path, test: Path) -> float:
    """Return the score of a linear model of the words' and word pairs' TF-IDF, by the task's metric.

    Args:
        train: the training split (at most its first 100,000 rows are used).
        test: the test split.

    Raises:
        BonsaiError: the splits are not of one data set, or the training split has one class alone.
    """
    from sklearn.linear_model import Ridge
    from sklearn.svm import LinearSVC

    from kfp_bonsai.shared import metrics

    task, other = tasks.read_task(test), tasks.read_task(train)
    if (task.columns, task.labels, task.kind) != (other.columns, other.labels, other.kind):
        raise BonsaiError(f"{train} and {test} are not of one data set: give two splits of one prepare-data run")
    known, unknown = tasks.read_columns(train), tasks.read_columns(test)
    right = known["label"][:MOST_ROWS]
    if task.kind == tasks.CLASSIFICATION and len(set(right)) < 2:
        raise BonsaiError(f"{train} has rows of one class alone: prepare the data set again")
    vectors, asked = _vectors([known[name][:MOST_ROWS] for name in task.columns], [unknown[c] for c in task.columns])
    if vectors is None:
        return metrics.score_predictions(task.metric, [0] * len(unknown["label"]), unknown["label"])
    model = LinearSVC() if task.kind == tasks.CLASSIFICATION else Ridge()
    predicted = model.fit(vectors, right).predict(asked)
    return metrics.score_predictions(task.metric, predicted, unknown["label"], classes=max(2, task.num_labels))


def _vectors(known: list[list[str]], unknown: list[list[str]]):  # type: ignore[no-untyped-def]
    """Return TF-IDF vectors of both splits, columns side by side; nothing if no column holds a word."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    sides = []
    for ours, theirs in zip(known, unknown, strict=True):
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2 if len(ours) > 1000 else 1)
        try:
            sides.append((words.fit_transform(ours), words.transform(theirs)))
        except ValueError:  # an empty vocabulary
            continue
    if not sides:
        return None, None
    return hstack([one for one, _ in sides]).tocsr(), hstack([other for _, other in sides]).tocsr()
