"""In which way rows are written: as the flags say, else by names of columns and their first values."""

from dataclasses import replace

from kfp_bonsai.prepare_data import columns, conversations
from kfp_bonsai.prepare_data.glance import AUTO, Flags, Glance
from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.prepare_data.row_reading import Reading
from kfp_bonsai.prepare_data.targets import TARGETS
from kfp_bonsai.prepare_data.ways import WAYS, joined
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.kinds.units import WORDS


def find(rows: Rows, flags: Flags, kind: str = AUTO) -> Reading:
    """Return in which way labelled rows are written.

    Args:
        rows: the rows.
        flags: the columns that were named.
        kind: the kind of task that they are for, or "auto".

    Raises:
        BonsaiError: they are not written in any way that is known, or not for this kind.
    """
    look = Glance(rows, flags, kind)
    for target, together, way in WAYS:
        fitting = [name for name, one in KINDS.items() if one.target == target and (one.group or not together)]
        if fitting and kind in (AUTO, *fitting) and (found := way(look)):
            return _checked(replace(found, kind=fitting[0] if kind == AUTO else kind), rows.where)
    if kind != AUTO and (TARGETS[KINDS[kind].target].of_lists or (KINDS[kind].group and not look.pairs(columns.PAIRS))):
        raise BonsaiError(
            f"{rows.where} has no rows for --kind {kind} (columns: {', '.join(look.names)}): they are to have "
            f"{TARGETS[KINDS[kind].target].example}; other names are given by --text-column and --label-column"
        )
    if kind == AUTO and (written := conversations.find_unasked(look)):
        return _checked(written, rows.where)
    if kind == AUTO and not look.called(columns.TEXTS):
        _check_no_words(look)
    texts = look.texts()
    label = columns.label_column(look.names, rows.where, flags.label)
    found = Reading(texts, label, texts, (label,), class_names=rows.class_names(label))
    return _checked(found if kind == AUTO else replace(found, kind=kind), rows.where)


def _check_no_words(look: Glance) -> None:
    """Refuse words and tags that are called so, and are no lists of them."""
    words, tags = look.called(columns.WORDS), look.called(columns.TAGS_ALONE)
    if words and tags and not look.flags.text:
        raise BonsaiError(
            f"{look.where} has the columns {words[0]} and {tags[0]}, which hold no lists of such: rows are to "
            f"be {TARGETS['spans'].example}; for another task, name columns with --text-column and --label-column"
        )


def find_texts(rows: Rows, train: Reading, label: str) -> Reading:
    """Return in which way rows without labels are written, which are of train's columns or called as theirs.

    Raises:
        BonsaiError: they have no such columns.
    """
    names = rows.names()
    if all(column in names for column in train.text_columns):
        return train.of_texts()
    look = Glance(rows, Flags("", "", label), train.kind)
    if train.target == "spans" and (words := [name for name in look.called(columns.WORDS) if look.lists(name)]):
        return Reading((words[0],), "", (words[0],), setting=WORDS, expand=joined)
    pairs = look.pairs((*columns.ASKED, *columns.RANKED)) if len(train.texts) == 2 else []
    texts = pairs[0] if pairs else columns.text_columns(names, rows.where, "", "", label)
    return Reading(texts, "", texts)


def _checked(found: Reading, where: str) -> Reading:
    if not found.expand and found.label in found.texts:
        raise BonsaiError(f"{where}: the column '{found.label}' is both text and label: name the other one too")
    known = KINDS.get(found.kind)
    if known and not any(len(found.texts) == len(texts) for texts in known.columns):
        needed = " or ".join(str(len(texts)) for texts in known.columns)
        raise BonsaiError(
            f"{where}: {found.kind} needs {needed} column{'s' if needed != '1' else ''} of text, and "
            f"{', '.join(found.texts)} is named: use --text-column and --text-pair-column"
        )
    return found
