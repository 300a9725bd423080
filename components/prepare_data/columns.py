"""Which columns are the texts and the label: from flags, else from the names people use."""

from collections.abc import Sequence

from kfp_bonsai.shared.core.errors import BonsaiError, nearest

MANY_WORDS = 4  # in a column's name: it is a row, in a file without names
TEXTS = ("text", "sentence", "review", "content")
PAIRS = (
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
)
LABELS = ("label", "labels", "target", "class", "sentiment", "score", "rating")
WORDS = ("tokens", "words", "token", "word")
TAGS_ALONE = ("ner_tags", "tags", "ner", "ner_tag", "tag")
TAGS = (*TAGS_ALONE, "labels", "label")
STRETCHES = ("entities", "spans", "label", "labels")
ASKED = (("question", "context"), ("question", "passage"), ("question", "paragraph"), ("text_a", "text_b"))
ANSWERS = ("answers", "answer", "label")
QUERIES = ("query", "anchor", "question")
RANKED = tuple((query, text) for query in ("query",) for text in ("document", "passage", "doc", "text"))
RELEVANCE = ("relevance", "label", "labels", "score", "rating", "target")
POSITIVES = ("positive", "positives", "pos")
NEGATIVES = ("negative", "neg")  # and what begins so: negatives, negative_1, ...
CONVERSATIONS = ("messages", "conversations", "conversation")
ANSWERED = (  # a text, and what is to be written to it
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("document", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("source", "target"),
    ("src", "tgt"),
    ("source_text", "target_text"),
    ("input", "output"),
    ("question", "answer"),
    ("text", "answer"),
    ("text", "completion"),
    ("text", "target"),
    ("text", "label"),
)


def text_columns(names: Sequence[str], where: str, text: str = "", pair: str = "", label: str = "") -> tuple[str, ...]:
    """Return the one or two text columns.

    Raises:
        BonsaiError: a flag names no column, or no name is known.
    """
    if text and text == pair:
        raise BonsaiError(f"{where}: the column '{text}' is named twice: name a column of its own for each text")
    if text:
        first = named(text, names, where, "--text-column")
        return (first, named(pair, names, where, "--text-pair-column")) if pair else (first,)
    if pair:
        raise BonsaiError("--text-pair-column needs --text-column too: name both")
    found = by_name(names, where, "--text-column", {*TEXTS, *(name for pair in PAIRS for name in pair)})
    for one, other in PAIRS:
        if one in found and other in found:
            return found[one], found[other]
    for wanted in TEXTS:
        if wanted in found:
            return (found[wanted],)
    known_label = label or next((found[name] for name in LABELS if name in found), "")
    others = [name for name in names if name != known_label]
    if len(others) == 1 and (known_label or len(names) == 1):
        return (others[0],)
    headless = any(name.count(" ") >= MANY_WORDS for name in names)
    named_so = f"{', '.join(names)}{'; the first line is to name them' if headless else ''}"
    near = next((hint for wanted in ("text", *TEXTS) if (hint := nearest(wanted, list(names)))), "")
    raise BonsaiError(
        f"{where} has no text column (columns: {named_so}; known: {', '.join(TEXTS)}, and pairs such as "
        f"{PAIRS[0][0]}, {PAIRS[0][1]}){near}: name it with --text-column, the second of a pair with --text-pair-column"
    )


def label_column(names: Sequence[str], where: str, label: str = "") -> str:
    """Return the label's column.

    Raises:
        BonsaiError: the flag names no column, or no name is known.
    """
    if label:
        return named(label, names, where, "--label-column")
    found = by_name(names, where, "--label-column", {*LABELS})
    for wanted in LABELS:
        if wanted in found:
            return found[wanted]
    raise BonsaiError(
        f"{where} has no label column (columns: {', '.join(names)}; known: {', '.join(LABELS)})"
        f"{nearest('label', list(names))}: name it with --label-column, or give rows without labels "
        "as --unlabelled-data"
    )


def by_name(names: Sequence[str], where: str, flag: str, known: set[str]) -> dict[str, str]:
    """Return the columns by their names in lower case.

    Raises:
        BonsaiError: two columns are of one name that is known.
    """
    found: dict[str, str] = {}
    for name in names:
        same = found.setdefault(name.strip().lower(), name)
        if same != name and same.strip().lower() in known:
            raise BonsaiError(f"{where} has the columns '{same}' and '{name}': say which is meant by {flag}")
    return found


def named(wanted: str, names: Sequence[str], where: str, flag: str) -> str:
    """Return a column that was named.

    Raises:
        BonsaiError: there is none of that name.
    """
    if wanted in names:
        return wanted
    raise BonsaiError(
        f"{where} has no column '{wanted}' (columns: {', '.join(names)}){nearest(wanted, list(names))}: correct {flag}"
    )
