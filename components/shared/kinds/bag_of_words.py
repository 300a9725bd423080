"""Texts as counts of words, weighed by TF-IDF: what a linear model of scikit-learn reads for next to nothing."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from kfp_bonsai.shared.core import scripts

MOST_MISREAD = 0.1  # of the letters and marks: English has 0.00, Arabic 0.05, Hindi 0.36, Japanese 0.92


def vectors(known: Sequence[Sequence[str]], asked: Sequence[Sequence[str]]) -> tuple[Any, Any, str]:
    """Return TF-IDF vectors of both sides' rows, their columns side by side, and what is counted.

    Words and pairs of words are counted; characters, pairs and triples of them where words are not to be found by
    spaces. There are no vectors (None) where no column holds a word.

    Args:
        known: columns of rows to learn from.
        asked: the same columns of other rows.
    """
    characters = _misreads_words(text for column in known for text in column)
    return *_vectors(known, asked, characters), "1 to 3 characters" if characters else "1 and 2 words"


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


def _vectors(known: Sequence[Sequence[str]], asked: Sequence[Sequence[str]], characters: bool) -> tuple[Any, Any]:
    """Return TF-IDF vectors of both splits, columns side by side; nothing if no column holds a word."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    what = {"analyzer": "char", "ngram_range": (1, 3)} if characters else {"analyzer": "word", "ngram_range": (1, 2)}
    sides = []
    for ours, theirs in zip(known, asked, strict=True):
        counts = TfidfVectorizer(**what, sublinear_tf=True, min_df=2 if len(ours) > 1000 else 1)
        try:
            sides.append((counts.fit_transform(ours), counts.transform(theirs)))
        except ValueError:  # an empty vocabulary
            continue
    if not sides:
        return None, None
    return hstack([one for one, _ in sides]).tocsr(), hstack([other for _, other in sides]).tocsr()
