"""Rows of every kind of task, in the forms in which people have them."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import kinds_made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.prepare_data import split
from kfp_bonsai.prepare_data.gather import look_at
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.prepare_data.tag_schemes import stretches
from kfp_bonsai.prepare_data.targets import TARGETS
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import drift, tasks
from kfp_bonsai.shared.kinds.kinds import KINDS

SPLITS = ("train", "validation", "test", "unlabelled")
TOWNS, PEOPLE = ("Oslo", "Bergen", "New York"), ("Ada", "Bo Li", "Chi")


def prepare(data, **options):
    """Return what is told, and all labelled rows as (texts ..., label) with labels by name, and the test's task."""
    folder = Path(data).parent / "out"
    paths = [folder / f"{name}.parquet" for name in SPLITS]
    told = prepare_data(str(data), *paths, **options)
    rows = {}
    for path in paths[:3]:
        task, found = tasks.read_task(path), tasks.read_columns(path)
        rows[path.stem] = [
            (*texts, by_name(label, task.labels))
            for *texts, label in zip(*(found[one] for one in (*task.columns, "label")), strict=True)
        ]
    return told, rows, tasks.read_task(paths[2])


def by_name(label, labels):
    """Return a right answer with labels' names for their numbers."""
    if not isinstance(label, list):
        return label
    named = lambda one: labels[one] if labels else one  # noqa: E731
    return tuple(
        sorted(
            tuple(named(value) if key == "label" else value for key, value in one.items())
            if isinstance(one, dict)
            else named(one)
            for one in label
        )
    )


def every(rows):
    return sorted(each for found in rows.values() for each in found)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def refused(data, *words, **options):
    with pytest.raises(BonsaiError) as caught:
        prepare(data, **options)
    for word in words:
        assert word in str(caught.value), caught.value
    assert not list((Path(data).parent / "out").glob("*")), "a refused run left outputs"


# Tokens


def sentences(count=40):
    """Return sentences as words and IOB2 tags."""
    made = []
    for at in range(count):
        town, person = TOWNS[at % 3].split(), PEOPLE[at % 2].split()
        words = [*person, "went", "to", *town, str(at)]
        tags = [*["B-PER", "I-PER"][: len(person)], "O", "O", *["B-LOC", "I-LOC"][: len(town)], "O"]
        made.append((words, tags) if at % 8 else (["Nobody", "came", str(at)], ["O", "O", "O"]))
    return made


def spans(words, tags):
    """Return the characters that IOB2 tags stand for, found in another way: word by word in the text."""
    found, at = [], 0
    for word, tag in zip(words, tags, strict=True):
        if tag[0] == "B":
            found.append([at, at + len(word), tag[2:]])
        elif tag[0] == "I":
            found[-1][1] = at + len(word)
        at += len(word) + 1
    return found


def expected():
    return sorted((" ".join(words), tuple(sorted(map(tuple, spans(words, tags))))) for words, tags in sentences())


def conll(folder, name="d.conll", separator=" "):
    text = ["-DOCSTART- -X- O O", ""] if separator == " " else ["# sent_id = 1"]
    for words, tags in sentences():
        middle = ["NN", "B-NP"] if separator == " " else []
        text += [separator.join([word, *middle, tag]) for word, tag in zip(words, tags, strict=True)] + [""]
    (folder / name).write_text("\n".join(text), encoding="utf-8")
    return folder / name


def words_parquet(folder):
    rows = [{"id": str(at), "tokens": words, "ner_tags": tags} for at, (words, tags) in enumerate(sentences())]
    pq.write_table(pa.Table.from_pylist(rows), folder / "d.parquet")
    return folder / "d.parquet"


def words_lines(folder):
    return lines(folder / "d.jsonl", [{"words": words, "tags": tags} for words, tags in sentences()])


def numbered():
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import List as ListOf

    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = Features({"tokens": ListOf(Value("string")), "ner_tags": ListOf(ClassLabel(names=names))})
    made = sentences()
    columns = {
        "tokens": [words for words, _ in made],
        "ner_tags": [[names.index(tag) for tag in tags] for _, tags in made],
    }
    return Dataset.from_dict(columns, features=features)


def saved(folder):
    numbered().save_to_disk(folder / "d")
    return folder / "d"


def numbered_parquet(folder):
    numbered().to_parquet(str(folder / "d.parquet"))
    return folder / "d.parquet"


WORDS = {
    "conll": conll,
    "txt with tabs": lambda folder: conll(folder, "d.txt", "\t"),
    "tsv without a header": lambda folder: conll(folder, "d.tsv", "\t"),
    "parquet": words_parquet,
    "json lines": words_lines,
    "saved data set": saved,
    "parquet with class names": numbered_parquet,
    "csv": lambda folder: table(
        folder / "d.csv", [{"tokens": json.dumps(one), "tags": json.dumps(tags)} for one, tags in sentences()]
    ),
}


@pytest.mark.parametrize("form", WORDS)
def test_words_with_tags_are_the_same_in_every_form(tmp_path, form):
    """Spans that are off by one, or lost: every figure of the model is then of another task."""
    told, rows, task = prepare(WORDS[form](tmp_path))
    assert (task.kind, task.metric, task.setting, told["kind"]) == ("tokens", "span_f1", "words", "tokens")
    assert {*task.labels} == {"PER", "LOC"}
    assert task.labels == (("PER", "LOC") if "data set" in form or "class" in form else ("LOC", "PER"))
    assert every(rows) == expected()


CHARACTERS = {
    "dicts": lambda found: [{"start": begin, "end": end, "label": label} for begin, end, label in found],
    "doccano": lambda found: found[::-1],
    "doccano's relations": lambda found: [
        {"id": 7, "label": label, "start_offset": begin, "end_offset": end} for begin, end, label in found
    ],
    "prodigy": lambda found: [
        {"start": begin, "end": end, "token_start": 0, "token_end": 1, "label": label} for begin, end, label in found
    ],
    "columns": lambda found: {
        "start": [begin for begin, _, _ in found],
        "end": [end for _, end, _ in found],
        "label": [label for _, _, label in found],
    },
}


@pytest.mark.parametrize("column", ["entities", "spans", "label"])
@pytest.mark.parametrize("form", CHARACTERS)
def test_stretches_of_characters_are_the_same_in_every_form(tmp_path, form, column):
    """The export of an annotation tool that has to be rewritten by hand first."""
    made = [{"text": " ".join(words), column: CHARACTERS[form](spans(words, tags))} for words, tags in sentences()]
    _, rows, task = prepare(lines(tmp_path / "d.jsonl", made))
    assert (task.kind, task.setting, task.labels) == ("tokens", "", ("LOC", "PER"))
    assert every(rows) == expected()


def test_spacys_pairs(tmp_path):
    """SpaCy's training data are pairs, no objects."""
    made = [[" ".join(words), {"entities": spans(words, tags)}] for words, tags in sentences()]
    (tmp_path / "d.json").write_text(json.dumps(made, indent=1))
    assert every(prepare(tmp_path / "d.json")[1]) == expected()


def test_rows_that_were_rejected_in_prodigy_have_no_labels(tmp_path):
    """What an annotator called wrong is learnt as right."""
    made = [
        {"text": " ".join(words), "spans": spans(words, tags), "answer": ("accept", "reject", "ignore")[at % 10 % 3]}
        for at, (words, tags) in enumerate(sentences())
    ]
    refused(lines(tmp_path / "d.jsonl", made), "no label in 24 rows (rows 2, 3")
    _, rows, _ = prepare(tmp_path / "d.jsonl", drop_empty=True)
    assert every(rows) == sorted(
        (row["text"], tuple(map(tuple, row["spans"]))) for row in made if row["answer"] == "accept"
    )


@pytest.mark.parametrize(
    "tags",
    [
        "B-A I-A O B-A B-A O B-B",  # IOB2
        "I-A I-A O I-A B-A O I-B",  # IOB1
        "B-A E-A O S-A S-A O S-B",  # IOBES
        "B-A L-A O U-A U-A O U-B",  # BILOU
        "B-A E-A O W-A W-A O W-B",  # BMEWO
    ],
)
def test_all_letters_of_tags_say_the_same(tags):
    """Two names side by side that become one, or one that becomes two."""
    words = ["a", "bb", "c", "dd", "e", "f", "gg"]
    assert stretches(words, tags.split(), "") == [(0, 4, "A"), (7, 9, "A"), (10, 11, "A"), (14, 16, "B")]


def test_tags_that_no_scheme_has_are_read_all_the_same():
    """An I that continues nothing, another label within, an end without a beginning; tags without letters."""
    words = ["a", "b", "c", "d", "e", "f"]
    assert stretches(words, ["I-A", "I-B", "E-B", "I-B", "O", "E-A"], "") == [
        (0, 1, "A"),
        (2, 5, "B"),
        (6, 7, "B"),
        (10, 11, "A"),
    ]
    assert stretches(words, ["A", "A", "O", "B", "A", "A"], "") == [(0, 3, "A"), (6, 7, "B"), (8, 11, "A")]
    assert stretches(words, ["B-x-y", "M-x-y", "E-x-y", "O", "O", "O"], "") == [(0, 5, "x-y")]


def changed(at, **values):
    rows = [{"tokens": words, "ner_tags": tags} for words, tags in sentences()]
    rows[at] = rows[at] | values
    return rows


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tokens": ["a b", "c"], "ner_tags": ["O", "O"]}, "'a b' has white space in it"),
        ({"tokens": ["a", ""], "ner_tags": ["O", "O"]}, "the word '' is blank"),
        ({"tokens": ["a", 7], "ner_tags": ["O", "O"]}, "the word '7' is no text"),
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "2 words and 1 tags"),
        ({"tokens": ["a", "b"], "ner_tags": ["B-PER", "LOC"]}, "'LOC' has no letter before it"),
        ({"tokens": ["a", "b"], "ner_tags": [0, 1]}, "the tag 0 is a number"),
        ({"tokens": ["a", "b"], "ner_tags": ["O", ["O"]]}, "is no tag"),
    ],
)
def test_words_that_do_not_fit_their_tags_are_refused_with_the_row(tmp_path, values, said):
    """A tag that slips to the next word, and to all after it."""
    refused(lines(tmp_path / "d.jsonl", changed(6, **values)), "d.jsonl, row 7", said)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([[0, 3, "A"], [2, 6, "B"]], "is over 'Ann', and a word has one tag"),
        ([[4, 90, "A"]], "not within the text of 12 characters"),
        ([[-1, 3, "A"]], "not within the text"),
        ([[4, 4, "A"]], "is empty"),
        ([[3, 4, "A"]], "has no letter or sign in it"),
        ([["0", 3, "A"]], "is no stretch of a text"),
        ([{"start": 0, "label": "A"}], "is no stretch of a text"),
        ([[0, 3, None]], "is no stretch of a text"),
        ("Ann", "is no list"),
    ],
)
def test_stretches_that_cannot_be_are_refused_with_the_row(tmp_path, found, said):
    """A model that is trained on half of what was annotated."""
    made = [{"text": " ".join(words), "entities": spans(words, tags)} for words, tags in sentences()]
    made[4] = {"text": "Ann was here", "entities": found}
    refused(lines(tmp_path / "d.jsonl", made), "d.jsonl, row 5", said)


def test_stretches_that_part_a_word_are_widened_and_told(tmp_path):
    """A stretch without a single whole word has no tag at all, and is never learnt."""
    made = [{"text": " ".join(words), "entities": spans(words, tags)} for words, tags in sentences()]
    made[4] = {"text": "Annabel was here", "entities": [[0, 3, "PER"], [11, 16, "LOC"]]}
    made[5] = {"text": "Is Ada there", "entities": [[2, 6, "PER"]]}  # only white space more
    _, rows, task = prepare(lines(tmp_path / "d.jsonl", made))
    assert ("Annabel was here", ((0, 7, "PER"), (12, 16, "LOC"))) in every(rows)
    assert ("Is Ada there", ((3, 6, "PER"),)) in every(rows)
    assert [note for note in task.notes if "1 stretches begin or end within a word" in note and "row 5" in note]


def test_a_conll_folder_has_its_splits(tmp_path):
    """train.txt, valid.txt and test.txt beside a README.txt, as CoNLL-2003 is handed on."""
    text = conll(tmp_path).read_text()
    folder = tmp_path / "data"
    folder.mkdir()
    for at, name in enumerate(("train", "valid", "test")):
        (folder / f"{name}.txt").write_text(text.replace("went", f"went{at}").replace("came", f"came{at}"))
    (folder / "README.txt").write_text("what this is\n")
    told, rows, _ = prepare(folder)
    assert [len(rows[name]) for name in SPLITS[:3]] == [40, 40, 40] and told["dropped_leaks"] == 0
    (folder / "more.csv").write_text("text,label\na,b\n")
    refused_here = tmp_path / "again"
    refused_here.mkdir()
    with pytest.raises(BonsaiError, match=r"too few rows|nothing to learn|every label"):
        prepare_data(str(folder), *(refused_here / name for name in SPLITS))  # the .txt files are not read beside it


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ada B-PER\nwent\n\n", "line 2: 'went' is no word with its tag, and has 1 column (2 in the lines before)"),
        ("a fine film it was\nand dull\n", "line 2"),
        ("text\tlabel\na fine film\tgood\n", "line 2: 'a fine film\\tgood' is no word with its tag"),
        ("reviews\nof films\n", "line 1: 'reviews' is no word with its tag, and has 1 column"),
    ],
)
def test_a_file_that_is_no_conll_is_refused_with_the_line(tmp_path, text, said):
    """Any text file would be words and tags."""
    (tmp_path / "d.txt").write_text(text)
    refused(tmp_path / "d.txt", said, "suffix .csv or .tsv")


def test_words_without_tags_are_joined_alike(tmp_path):
    """Texts to distil with whose words are parted otherwise than those that are tagged."""
    more = lines(tmp_path / "u.jsonl", [{"tokens": ["New", "rows", str(at)]} for at in range(3)])
    prepare(words_parquet(tmp_path), unlabelled_data=str(more))
    assert tasks.read_columns(tmp_path / "out" / "unlabelled.parquet")["text"] == [f"New rows {at}" for at in range(3)]


def test_a_label_that_is_too_rare_for_every_split_stays_in_train(tmp_path):
    """Else it is asked for in the test and was never learnt; or one rare name refuses the whole data set."""
    rows = changed(6, tokens=["A", "Concorde", "6"], ner_tags=["O", "B-PLANE", "O"])
    for seed in range(5):
        _, found, task = prepare(lines(tmp_path / "d.jsonl", rows), seed=seed)
        assert task.labels == ("LOC", "PER", "PLANE")
        assert ("A Concorde 6", ((2, 10, "PLANE"),)) in found["train"]
        assert len(found["test"]) == 8 and {one for *_, each in found["test"] for *_, one in each} == {"LOC", "PER"}


def test_words_and_whole_texts_are_not_one_data_set(tmp_path):
    """Words that are parted in two ways are units of two tasks."""
    made = [{"text": " ".join(words), "entities": spans(words, tags)} for words, tags in sentences()]
    test = lines(tmp_path / "t.jsonl", made)
    refused(words_parquet(tmp_path), "t.jsonl", "written in another way", test_data=str(test))


# Many labels


def labelled(count=60):
    return [
        {"text": f"row {at}", "labels": [name for name, each in (("toxic", 2), ("threat", 3)) if at % each == 0]}
        for at in range(count)
    ]


def wanted():
    return sorted((row["text"], tuple(sorted(row["labels"]))) for row in labelled())


def wide(one="1", zero="0"):
    names = ("threat", "toxic")
    return [
        {"text": row["text"], **{name: one if name in row["labels"] else zero for name in names}} for row in labelled()
    ]


def labels_saved(folder):
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import List as ListOf

    names = ["threat", "toxic"]
    features = Features({"text": Value("string"), "labels": ListOf(ClassLabel(names=names))})
    columns = {
        "text": [row["text"] for row in labelled()],
        "labels": [[names.index(one) for one in row["labels"]] for row in labelled()],
    }
    Dataset.from_dict(columns, features=features).save_to_disk(folder / "d")
    return folder / "d"


LABELS = {
    "lists": lambda folder: lines(folder / "d.jsonl", labelled()),
    "json in csv": lambda folder: table(
        folder / "d.csv", [row | {"labels": json.dumps(row["labels"])} for row in labelled()]
    ),
    "wide csv": lambda folder: table(folder / "d.csv", wide()),
    "wide csv of floats": lambda folder: table(folder / "d.csv", wide("1.0", "0.0")),
    "wide json of truths": lambda folder: lines(folder / "d.jsonl", wide(True, False)),
    "class names": labels_saved,
}


@pytest.mark.parametrize("form", LABELS)
def test_many_labels_are_the_same_in_every_form(tmp_path, form):
    """A row without labels that is left out, or a column of 0 and 1 that is taken for the class."""
    _, rows, task = prepare(LABELS[form](tmp_path))
    assert (task.kind, task.metric, task.labels) == ("multi-label", "micro_f1", ("threat", "toxic"))
    assert every(rows) == wanted()
    assert {label for *_, label in rows["test"]} == {(), ("toxic",), ("threat",), ("threat", "toxic")}


def test_labels_parted_by_a_sign_are_taken_if_asked_for(tmp_path):
    """A class called "rock, pop" is one class unless somebody says otherwise."""
    rows = [{"text": f"row {at}", "label": ("rock", "pop", "rock, pop")[at % 3]} for at in range(60)]
    file = table(tmp_path / "d.csv", rows)
    assert prepare(file)[2].labels == ("pop", "rock", "rock, pop")
    _, found, task = prepare(file, kind="multi-label")
    assert task.labels == ("pop", "rock") and ("row 2", ("pop", "rock")) in every(found)
    assert [note for note in task.notes if "',' between" in note]
    rows[0]["label"] = "rock;pop"
    (tmp_path / "two").mkdir()
    refused(table(tmp_path / "two" / "d.csv", rows), "; and ,", "JSON arrays", kind="multi-label")


def test_columns_of_labels_can_be_named(tmp_path):
    """Two of five columns of 0 and 1 are the labels; the rest are something else."""
    rows = [row | {"seen": at % 2, "comment": row["text"]} for at, row in enumerate(wide())]
    file = table(tmp_path / "d.csv", [{key: row[key] for key in row if key != "text"} for row in rows])
    _, found, task = prepare(file, text_column="comment", label_column="toxic, threat")
    assert task.labels == ("toxic", "threat") and every(found) == wanted()
    (tmp_path / "no").mkdir()
    file = file.rename(tmp_path / "no" / "d.csv")
    refused(file, "no column 'thraet'", "did you mean 'threat'", text_column="comment", label_column="toxic,thraet")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "a"], "the label 'a' is there twice"),
        (["a", None], "is no list of labels"),
        ([["a"]], "is no list of labels"),
        (None, "no label in 1 row (row 4)"),
    ],
)
def test_lists_that_are_no_labels_are_refused_with_the_row(tmp_path, labels, said):
    """A vector of 0 and 1 that is read as the labels 0 and 1."""
    rows = labelled()
    rows[3]["labels"] = labels
    refused(lines(tmp_path / "d.jsonl", rows), "d.jsonl", "ow 4", said)


def test_a_column_of_labels_with_another_number_is_refused(tmp_path):
    """A 2 in a column of ticks, below what was looked at to tell the columns by."""
    rows = wide()
    rows[5]["toxic"] = "2"
    refused(table(tmp_path / "d.csv", rows), "row 6, column 'toxic'", "neither 0 nor 1", label_column="toxic,threat")


def test_labels_that_are_all_the_same_are_refused(tmp_path):
    """Hours of training for nothing."""
    rows = [row | {"labels": []} for row in labelled()]
    refused(lines(tmp_path / "d.jsonl", rows), "every row's is empty")


# Questions


def asked(count=60):
    """Return questions, five to a text; every tenth has no answer."""
    made = []
    for at in range(count):
        text = f"Text {at // 5}: the lamp {at // 5} is red, and the door is green."
        answer = [] if at % 10 == 9 else ["red" if at % 2 else f"lamp {at // 5}"]
        made.append({"question": f"What about {at}?", "context": text, "answer": answer})
    return made


def found_answers():
    return sorted(
        (row["question"], row["context"], tuple((one, row["context"].index(one)) for one in row["answer"]))
        for row in asked()
    )


def squad(row):
    begins = [row["context"].index(one) for one in row["answer"]]
    return {"text": row["answer"], "answer_start": begins}


def squad_file(folder, indent=None):
    paragraphs: dict[str, list] = {}
    for at, row in enumerate(asked()):
        answers = [
            {"text": one, "answer_start": start}
            for one, start in zip(squad(row)["text"], squad(row)["answer_start"], strict=True)
        ]
        question = {"id": str(at), "question": row["question"], "answers": answers, "is_impossible": not answers}
        paragraphs.setdefault(row["context"], []).append(question)
    article = {"title": "t", "paragraphs": [{"context": text, "qas": qas} for text, qas in paragraphs.items()]}
    (folder / "d.json").write_text(json.dumps({"version": "v2.0", "data": [article]}, indent=indent))
    return folder / "d.json"


def flat(folder):
    rows = [{"id": str(at), **row, "answers": squad(row)} for at, row in enumerate(asked())]
    return lines(
        folder / "d.jsonl", [{key: row[key] for key in ("id", "context", "question", "answers")} for row in rows]
    )


def flat_parquet(folder):
    rows = [{"context": row["context"], "question": row["question"], "answers": squad(row)} for row in asked()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "d.parquet")
    return folder / "d.parquet"


QUESTIONS = {
    "squad's file": squad_file,
    "squad's file over lines": lambda folder: squad_file(folder, 1),
    "json lines": flat,
    "parquet": flat_parquet,
}


@pytest.mark.parametrize("form", QUESTIONS)
def test_questions_are_the_same_in_every_form(tmp_path, form):
    """An answer that is looked for where it is not."""
    _, rows, task = prepare(QUESTIONS[form](tmp_path))
    assert (task.kind, task.metric, task.setting) == ("questions", "answer_f1", "unanswerable")
    got = every(rows)
    assert [(one[0], one[1], tuple(each for each in one[2])) for one in got] == found_answers()


def test_questions_on_one_text_stay_in_one_split(tmp_path):
    """The text of a test question that was trained on; two splits of one length by chance."""
    _, rows, _ = prepare(flat(tmp_path))
    contexts = [{text for _, text, _ in rows[name]} for name in SPLITS[:3]]
    assert all(contexts) and sum(map(len, contexts)) == len(set.union(*contexts)) == 12
    assert len(rows["test"]) == 10 and len(rows["validation"]) == 5


def test_answers_that_are_misplaced_are_found_nearby_or_refused(tmp_path):
    """SQuAD-like data with places in bytes, or of a text before it was cleaned."""
    rows = [{"question": row["question"], "context": row["context"], "answers": squad(row)} for row in asked()]
    rows[0] = {"question": "Which?", "context": "red or red or red", "answers": {"text": ["red"], "answer_start": [8]}}
    _, found, task = prepare(lines(tmp_path / "d.jsonl", rows))
    assert ("Which?", "red or red or red", (("red", 7),)) in every(found)
    assert [note for note in task.notes if "nearest place" in note and "row 1" in note]
    rows[0]["answers"]["text"] = ["Red"]
    (tmp_path / "no").mkdir()
    refused(lines(tmp_path / "no" / "d.jsonl", rows), "row 1", "'Red' is not in the text, letter for letter")


def test_all_questions_with_an_answer_are_another_setting(tmp_path):
    """A model that may say "nowhere" where every question has an answer loses points by it."""
    rows = [{"question": row["question"], "context": row["context"], "answers": squad(row)} for row in asked()]
    _, _, task = prepare(lines(tmp_path / "d.jsonl", [row for row in rows if row["answers"]["text"]]))
    assert task.setting == ""


# Ranking


def judged():
    """Return twelve queries with five documents each, of which the first fits."""
    return [
        {"query": f"query {at // 5}", "document": f"document {at} of {at // 5}", "relevance": float(at % 5 == 0)}
        for at in range(60)
    ]


def pairs_wanted():
    return sorted((row["query"], row["document"], row["relevance"]) for row in judged())


def grouped(made):
    rows = []
    for at in range(12):
        query, fit, *others = (judged()[5 * at]["query"], *(row["document"] for row in judged()[5 * at : 5 * at + 5]))
        rows += made(query, fit, others)
    return rows


RANKED = {
    "rows": lambda folder: table(folder / "d.csv", judged()),
    "other names": lambda folder: lines(
        folder / "d.jsonl",
        [{"Query": row["query"], "passage": row["document"], "label": int(row["relevance"])} for row in judged()],
    ),
    "lists of negatives": lambda folder: lines(
        folder / "d.jsonl",
        grouped(lambda query, fit, others: [{"query": query, "positive": [fit], "negatives": others}]),
    ),
    "numbered negatives": lambda folder: table(
        folder / "d.csv",
        grouped(
            lambda query, fit, others: [
                {"anchor": query, "positive": fit, **{f"negative_{at}": one for at, one in enumerate(others)}}
            ]
        ),
    ),
    "triplets": lambda folder: table(
        folder / "d.csv",
        grouped(lambda query, fit, others: [{"anchor": query, "positive": fit, "negative": one} for one in others]),
    ),
}


@pytest.mark.parametrize("form", RANKED)
def test_pairs_to_rank_are_the_same_in_every_form(tmp_path, form):
    """Triplets of which the same pair is learnt four times, or a query that is both learnt and asked."""
    _, rows, task = prepare(RANKED[form](tmp_path))
    assert (task.kind, task.metric, task.columns) == ("ranking", "ndcg@10", ("text_a", "text_b"))
    assert every(rows) == pairs_wanted()
    queries = [{query for query, _, _ in rows[name]} for name in SPLITS[:3]]
    assert all(queries) and sum(map(len, queries)) == len(set.union(*queries)) == 12


def test_rows_of_a_query_in_the_test_leave_train(tmp_path):
    """Another document for the same query, and the model knows what is asked for."""
    test = table(tmp_path / "t.csv", [{"query": "QUERY 3", "document": "new", "relevance": 1.0}] * 2)
    told, rows, task = prepare(table(tmp_path / "d.csv", judged()), test_data=str(test))
    assert told["dropped_leaks"] == 5 and not [one for one in rows["train"] + rows["validation"] if one[0] == "query 3"]
    assert [note for note in task.notes if "their query is in validation or test too" in note]


def test_a_query_stays_in_its_split_by_hash(tmp_path):
    """A query of the last test that is trained on, since it has a new document."""
    rows = [{"query": f"query {at // 5}", "document": f"d {at}", "relevance": float(at % 5 == 0)} for at in range(300)]
    _, first, _ = prepare(table(tmp_path / "d.csv", rows), split_by="hash")
    more = [{"query": f"query {at}", "document": f"new {at}", "relevance": 0.0} for at in range(80)]
    _, second, _ = prepare(table(tmp_path / "d.csv", rows + more), split_by="hash")
    for name in SPLITS[:3]:
        assert {query for query, *_ in first[name]} <= {query for query, *_ in second[name]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"query": "q", "positive": f"p {at}"} for at in range(9)], "no column of what does not (negative)"),
        ([row | {"relevance": -1} for row in judged()], "-1 is not a relevance of 0 or more"),
        ([row | {"relevance": 1} for row in judged()], "every label is '1'"),
        ([row | {"query": "one"} for row in judged()], "1 different texts in 'query'"),
    ],
)
def test_pairs_that_nothing_can_be_learnt_of_are_refused(tmp_path, rows, said):
    """Hours of training towards a score that is the same for all."""
    refused(lines(tmp_path / "d.jsonl", rows), said, kind="ranking")


def test_a_pair_of_texts_is_ranked_if_asked_for(tmp_path):
    """Data with other names, which say nothing of a query."""
    rows = [{"a": row["query"], "b": row["document"], "c": row["relevance"]} for row in judged()]
    file = table(tmp_path / "d.csv", rows)
    named = {"text_column": "a", "text_pair_column": "b", "label_column": "c"}
    assert prepare(file, **named)[2].kind == "classification"
    _, found, task = prepare(file, kind="ranking", **named)
    assert task.kind == "ranking" and every(found) == pairs_wanted()


# Of all kinds


@pytest.mark.parametrize(
    "more", [{"entities": [[0, 3, "A"]]}, {"labels": ["a"]}, {"tokens": ["a"], "ner_tags": ["B-A"]}]
)
def test_a_text_with_one_label_is_a_class_whatever_else_is_there(tmp_path, more):
    """Data that was a classification last month, and is something else with this version."""
    rows = [{"text": f"row {at}", "label": ("bad", "good")[at % 2], **more} for at in range(40)]
    assert prepare(lines(tmp_path / "d.jsonl", rows))[2].labels == ("bad", "good")


def test_a_text_that_looks_like_a_list_is_a_text(tmp_path):
    """One row that begins with a bracket, and is parted."""
    more = [{"text": '["a", 1]'}, {"text": "[1] New York"}, {"text": "[2]"}]
    prepare(conll(tmp_path), unlabelled_data=str(lines(tmp_path / "u.jsonl", more)))
    assert tasks.read_columns(tmp_path / "out" / "unlabelled.parquet")["text"] == [row["text"] for row in more]


def test_a_metric_of_another_kind_is_refused_before_anything_is_read(tmp_path):
    """The whole data set is read first."""
    refused(
        tmp_path / "nowhere.csv", "--metric pearson is not for tokens: give span_f1", kind="tokens", metric="pearson"
    )


@pytest.mark.parametrize("kind", ["multi-label", "tokens", "questions", "ranking"])
def test_rows_of_another_kind_are_refused_with_an_example(tmp_path, kind):
    """A kind that is asked for, and columns of which nobody says what they should be."""
    rows = [{"body": f"row {at}", "stars": at % 2} for at in range(20)]
    refused(
        table(tmp_path / "d.csv", rows),
        f"no rows for --kind {kind}",
        "columns: body, stars",
        "--text-column",
        kind=kind,
    )


def test_every_kind_and_metric_can_be_asked_for():
    """A kind that only who reads the code knows of, or whose answers have no type in a split."""
    for name, kind in KINDS.items():
        assert f" {name}," in prepare_data.__doc__ and kind.target in TARGETS
        assert all(re.search(rf"\b{one}\b", prepare_data.__doc__) for one in kind.metrics)
    assert TARGETS.keys() == tasks.TYPES.keys()


def test_a_kind_whose_rows_stand_alone_has_rows_of_its_type(tmp_path, monkeypatch):
    """A new kind that is refused rows of just the columns that it is told to have."""
    monkeypatch.setitem(KINDS, "places", replace(KINDS["questions"], group=""))
    row = {"question": "who", "context": "Ada left Oslo", "answers": {"text": ["Ada"], "answer_start": [0]}}
    other = {"text": ["Oslo"], "answer_start": [9]}
    rows = [{**row, "question": f"who {at}", "answers": other if at % 2 else row["answers"]} for at in range(30)]
    _, found, task = prepare(lines(tmp_path / "d.jsonl", rows), kind="places")
    assert task.kind == "places" and len(every(found)) == 30


def test_the_first_task_of_a_cluster_finds_rows_of_every_kind(tmp_path):
    """A run that is refused by the task that only looks at columns, or passes it and is refused an hour later."""
    for at, source in enumerate((conll, squad_file, LABELS["wide csv"], RANKED["triplets"])):
        (tmp_path / str(at)).mkdir()
        assert look_at(str(source(tmp_path / str(at)))).startswith("sha256 ")
    with pytest.raises(BonsaiError, match="no rows for --kind ranking"):
        look_at(str(tmp_path / "0" / "d.conll"), kind="ranking")


def test_max_rows_are_whole_groups(tmp_path):
    """Half of a query's documents: its order is another one."""
    told, rows, _ = prepare(table(tmp_path / "d.csv", judged()), max_rows=12)
    assert (
        told["train_rows"] == 10
        and told["dropped_by_max_rows"] == 60 - 10 - told["test_rows"] - told["validation_rows"]
    )
    assert len({query for query, *_ in rows["train"]}) == 2


def test_the_rarest_label_of_a_row_is_its_stratum():
    """Rows of a rare label and a common one that are counted with the common ones, and the rare one is left out."""
    assert split.rarest([[0], [0, 1], [], [0], [1, 0], [0, 2]]).tolist() == [0, 1, -1, 0, 1, 2]


def test_groups_are_drawn_whole_and_leave_some():
    """A draw that takes every query, or none."""
    numbers = np.repeat(np.arange(10), 3)
    chosen = split.draw_groups(numbers, 7, 0)
    assert chosen.reshape(10, 3).all(axis=1).sum() == chosen.reshape(10, 3).any(axis=1).sum() == 2
    assert split.draw_groups(numbers, 1000, 0, leave=2).sum() == 24
    assert split.draw_groups(numbers, 8, 0, most=True).sum() == 6
    assert not split.draw_groups(np.zeros(5, int), 2, 0).any()


@pytest.mark.parametrize("kind", kinds_made.MADE)
def test_what_is_prepared_can_be_learnt_and_compared(tmp_path, kind):
    """Splits that are whole to their reader, and break in the next stage."""
    made = kinds_made.rows_of(kind, 120, 0)
    rows = [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    written, asked = kinds_made.MADE[kind].written, {"kind": kind} if kinds_made.MADE[kind].asked else {}
    prepare(lines(tmp_path / "d.jsonl", [written(row) for row in rows]), **asked)
    found = {name: tmp_path / "out" / f"{name}.parquet" for name in SPLITS}
    model = tiny.pretrained(tmp_path / "model")
    told = fine_tune(str(model), found["train"], found["validation"], tmp_path / "tuned", epochs=1)
    task = tasks.read_task(found["train"])
    assert task.kind == kind and 0 <= told[task.metric] <= 1
    profile = drift.profile(found["train"], tiny.tokenizer())
    assert sum(profile["shares"]) == pytest.approx(1) and profile["rows"] == task.rows


SAID = [
    ([*words, str(at)], [*tags, "O"])
    for at in range(15)
    for words, tags in ((("In", "New", "York"), ("O", "B-LOC", "I-LOC")), (("Ada", "left"), ("B-PER", "O")))
]


@pytest.mark.parametrize("names", [("Sentence #", "Word", "Tag"), ("sentence_id", "words", "labels")])
@pytest.mark.parametrize("each", [True, False])
def test_a_word_a_row_is_a_sentence_a_row(tmp_path, names, each):
    """The most common form of such data on Kaggle: the sentence's number at each word, or at its first one."""
    rows = [
        dict(zip((*names, "POS"), (f"{at}" if each or not place else "", *word, "NN"), strict=True))
        for at, said in enumerate(SAID)
        for place, word in enumerate(zip(*said, strict=True))
    ]
    _, found, task = prepare(table(tmp_path / "d.csv", rows))
    assert task.kind == "tokens" and task.labels == ("LOC", "PER") and len(every(found)) == 30
    assert {("Ada left 3", ((0, 3, "PER"),)), ("In New York 14", ((3, 11, "LOC"),))} < {*every(found)}
    (tmp_path / "bad").mkdir()
    rows.append({**rows[0], names[0]: "0"})
    refused(table(tmp_path / "bad" / "e.csv", rows), "row 106, column", "'0' was there before", "sort the rows by it")
    refused(table(tmp_path / "bad" / "g.csv", [*rows[:9], {**rows[9], names[1]: ""}]), "row 10, column", "no word")
    refused(table(tmp_path / "bad" / "f.csv", [{**rows[0], names[0]: ""}, *rows]), "no sentence is said")


def test_numbers_that_are_written_as_texts_name_no_tags(tmp_path):
    """Tags 0, 1 and 2 of a CoNLL file, of which 0 becomes the commonest entity."""
    text = "".join(f"In 0\nOslo 1\nwith 0\nAda{at} 2\n\n" for at in range(20))
    (tmp_path / "d.conll").write_text(text)
    refused(tmp_path / "d.conll", "the tag 0 is a number, and nothing says what it means")
    (tmp_path / "d.conll").write_text("In O\nOslo B-LOC\n\nAda B-\n")
    refused(tmp_path / "d.conll", "'B-' has no label after its letter")


@pytest.mark.parametrize("begin", [5, 4, 2])
def test_a_stretch_is_where_its_text_is(tmp_path, begin):
    """Places counted as JavaScript does, where an emoji is two: a stretch is off, and widened to another word."""
    one = {"start": begin, "end": begin + 3, "label": "PER", "text": "Ada"}
    rows = [{"text": f"\U0001f600\U0001f600 Ada left {at}", "entities": [one] if at % 2 else []} for at in range(30)]
    refused(lines(tmp_path / "d.jsonl", rows), "row 2: 'Ada' is said to be from", "emoji as one")
    for row in rows[1::2]:
        row["entities"] = [{**one, "start": 2, "end": 6}]  # with the space before it
    assert ("\U0001f600\U0001f600 Ada left 1", ((3, 6, "PER"),)) in every(prepare(lines(tmp_path / "d.jsonl", rows))[1])


def studio(words, tags, **options):
    """A task of Label Studio's export."""
    text = " ".join(words)
    marked = [
        {"start": text.index(word), "end": text.index(word) + len(word), "text": word, "labels": [tag[2:]]}
        for word, tag in zip(words, tags, strict=True)
        if tag[0] == "B"
    ]
    one = {"was_cancelled": False, "result": [{"type": "labels", "value": value} for value in marked], **options}
    return {"id": 1, "data": {"text": text}, "annotations": [one]}


def test_label_studios_own_export_is_read(tmp_path):
    """An export that nobody can use without a script of their own; of two annotators, one who is taken unasked."""
    made = [studio(*said) for said in SAID]
    made[1]["annotations"].append({**made[0]["annotations"][0], "was_cancelled": True})
    (tmp_path / "d.json").write_text(json.dumps(made))
    _, found, task = prepare(tmp_path / "d.json")
    assert task.kind == "tokens" and ("Ada left 3", ((0, 3, "PER"),)) in every(found)
    small = [
        {"text": one["data"]["text"], "label": [each["value"] for each in one["annotations"][0]["result"]]}
        for one in made
    ]
    (tmp_path / "small.json").write_text(json.dumps(small))
    assert every(prepare(tmp_path / "small.json")[1]) == every(found)
    made[2]["annotations"] *= 2
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "two.json").write_text(json.dumps(made))
    refused(tmp_path / "bad" / "two.json", "row 3: 2 annotations of one text", "ground truth")
    made[2]["annotations"][1] = {**made[2]["annotations"][1], "ground_truth": True}
    (tmp_path / "two.json").write_text(json.dumps(made))
    assert every(prepare(tmp_path / "two.json")[1]) == every(found)


def test_what_was_chosen_in_label_studio_is_the_label(tmp_path):
    """Texts that were sorted into classes, told to have no entities."""
    made = [
        {"data": {"text": f"film {at}"}, "annotations": [{"result": [{"value": {"choices": [TOWNS[at % 2]]}}]}]}
        for at in range(30)
    ]
    (tmp_path / "d.json").write_text(json.dumps(made))
    assert prepare(tmp_path / "d.json")[2].labels == ("Bergen", "Oslo")


def test_beirs_files_are_told_what_they_are(tmp_path):
    """A folder whose corpus is to be renamed to train."""
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"_id": "1", "text": "a"}')
    refused(tmp_path, "as BEIR has them", "query, document and relevance")


def test_splits_of_tokens_can_be_prepared_again(tmp_path):
    """A data set that was handed on as this stage writes it, whose labels become numbers."""
    _, rows, _ = prepare(conll(tmp_path))
    for name in SPLITS[:3]:
        (tmp_path / "again").mkdir(exist_ok=True)
        (tmp_path / "out" / f"{name}.parquet").rename(tmp_path / "again" / f"{name}.parquet")
    _, again, task = prepare(tmp_path / "again")
    assert task.labels == ("LOC", "PER") and every(again) == every(rows)


ODD = [None, 3, "text", {}, {"a": 1}, [None], [3], [[]]]


@pytest.mark.parametrize(
    "at",
    [
        ("paragraphs",),
        ("paragraphs", 0),
        ("paragraphs", 0, "context"),
        ("paragraphs", 0, "qas"),
        ("paragraphs", 0, "qas", 0),
        ("paragraphs", 0, "qas", 0, "question"),
        ("paragraphs", 0, "qas", 0, "answers"),
        ("paragraphs", 0, "qas", 0, "answers", 0),
        ("paragraphs", 0, "qas", 0, "answers", 0, "text"),
        ("paragraphs", 0, "qas", 0, "answers", 0, "answer_start"),
    ],
    ids=lambda at: str(at[-1]),
)
def test_a_squad_file_with_anything_else_in_a_place_is_told_in_words(tmp_path, at):
    """An annotator's export with a null in it is a traceback that names no place."""
    file = squad_file(tmp_path)
    whole = file.read_text()
    for odd in ODD:
        document = json.loads(whole)
        place = document["data"][0]
        for key in at[:-1]:
            place = place[key]
        place[at[-1]] = odd
        file.write_text(json.dumps(document))
        try:
            prepare_data(str(file), *(tmp_path / f"{at[-1]} {ODD.index(odd)} {name}" for name in "abcd"))
        except BonsaiError as error:
            assert str(file) in str(error)
