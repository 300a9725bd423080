"""The floor: what a bag of words reaches on the task. A compressed model near it has lost what it was for."""

import random
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import scripts, tasks

MOST_ROWS = 100_000
METHODS = {
    tasks.CLASSIFICATION: "TF-IDF of 1 and 2 words + linear SVM (scikit-learn), trained on the training split",
    tasks.REGRESSION: "TF-IDF of 1 and 2 words + ridge regression (scikit-learn), trained on the training split",
}
CHARACTER_METHODS = {kind: name.replace("1 and 2 words", "1 to 3 characters") for kind, name in METHODS.items()}
MOST_MISREAD = 0.1  # of the letters and marks: English has 0.00, Arabic 0.05, Hindi 0.36, Japanese 0.92


def floor(train: Path, test: Path) -> float:
    """Return the score of `floor_and_method` alone."""
    return floor_and_method(train, test)[0]


def floor_and_method(train: Path, test: Path) -> tuple[float, str]:
    """Return the score of a linear model of the texts' TF-IDF, by the task's metric, and what the model is.

    It counts words and pairs of words; characters, pairs and triples of them where words are not to be found by spaces.

    Args:
        train: the training split (of more than 100,000 rows, as many drawn at random, by a fixed seed).
        test: the test split.

    Raises:
        BonsaiError: the splits are not of one data set, or the training split, of at most 100,000 rows, has one class.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import Ridge
    from sklearn.svm import LinearSVC

    from kfp_bonsai.shared.metrics import scores

    task, other = tasks.read_task(test), tasks.read_task(train)
    if not task.is_of_one_data_set_with(other):
        raise BonsaiError(f"{train} and {test} are not of one data set: give two splits of one prepare-data run")
    known, unknown = _sample(train, other), tasks.read_columns(test)
    right = known["label"]
    one_class = task.kind == tasks.CLASSIFICATION and len(set(right)) < 2
    if one_class and other.rows <= MOST_ROWS:
        raise BonsaiError(f"{train} has rows of one class alone: prepare the data set again")
    characters = _misreads_words(text for name in task.columns for text in known[name])
    method = (CHARACTER_METHODS if characters else METHODS)[task.kind]
    vectors, asked = _vectors([known[c] for c in task.columns], [unknown[c] for c in task.columns], characters)
    if vectors is None:
        return scores.score_predictions(task.metric, [0] * len(unknown["label"]), unknown["label"]), method
    model = LinearSVC() if task.kind == tasks.CLASSIFICATION else Ridge()
    model = DummyClassifier() if one_class else model  # the others, if there are any, are too rare to be drawn
    predicted = model.fit(vectors, right).predict(asked)
    score = scores.score_predictions(task.metric, predicted, unknown["label"], classes=max(2, task.num_labels))
    return score, method


def _sample(path: Path, task: tasks.Task) -> dict[str, list]:
    """Return the columns of a split's rows, in order: of all, or of MOST_ROWS drawn at random, streaming the split."""
    chosen = set(random.Random(0).sample(range(task.rows), min(task.rows, MOST_ROWS)))
    columns: dict[str, list] = {name: [] for name in (*task.columns, "label")}
    first = 0
    for batch in tasks.batches(path):
        size = len(batch["label"])
        kept = [row for row in range(size) if first + row in chosen]
        for name, values in columns.items():
            values.extend(batch[name][row] for row in kept)
        first += size
    return columns


def _misreads_words(texts: Iterable[str]) -> bool:
    r"""Tell whether scikit-learn's words, `\w\w+`, are not the texts' words, by the share of letters it misreads.

    Those are letters of scripts without spaces, where it takes a clause for one word, and combining marks, such as
    Hindi's vowel signs, at which it cuts words. (Characters between spaces tell less: short Chinese comments have few.)
    """
    found: Counter[str] = Counter()
    for text in texts:
        found.update(text)
    written = {one: count for one, count in found.items() if unicodedata.category(one)[0] in "LM"}
    misread = sum(count for one, count in written.items() if _is_misread(one))
    return misread > MOST_MISREAD * sum(written.values())


def _is_misread(letter: str) -> bool:
    mark = unicodedata.category(letter)[0] == "M" and scripts.script(letter) != "VARIATION"  # these are of emoji
    return mark or scripts.leaves_no_spaces(letter)


def _vectors(known: list[list[str]], unknown: list[list[str]], characters: bool):  # type: ignore[no-untyped-def]
    """Return TF-IDF vectors of both splits, columns side by side; nothing if no column holds a word."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    what = {"analyzer": "char", "ngram_range": (1, 3)} if characters else {"analyzer": "word", "ngram_range": (1, 2)}
    sides = []
    for ours, theirs in zip(known, unknown, strict=True):
        counts = TfidfVectorizer(**what, sublinear_tf=True, min_df=2 if len(ours) > 1000 else 1)
        try:
            sides.append((counts.fit_transform(ours), counts.transform(theirs)))
        except ValueError:  # an empty vocabulary
            continue
    if not sides:
        return None, None
    return hstack([one for one, _ in sides]).tocsr(), hstack([other for _, other in sides]).tocsr()
