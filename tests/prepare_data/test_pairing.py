"""Single texts without labels, made pairs for tasks on pairs."""

import json

import pytest

from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks

SPLITS = ("train", "validation", "test", "unlabelled")
PARTS = ("Bell {0} rang twice that day.", "Nobody heard of {0} at all!", "Was {0} a thing in a dream?", "Late was {0}.")


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def labelled(tmp_path):
    """A task on pairs."""
    rows = [{"sentence1": f"first {i} it is", "sentence2": f"second {i} was", "label": i % 2} for i in range(60)]
    return lines(tmp_path / "pairs.jsonl", rows)


def prepare(data, folder, **options):
    paths = [folder / "out" / f"{name}.parquet" for name in SPLITS]
    prepare_data(str(data), *paths, **options)
    found = tasks.read_columns(paths[3])
    return [*zip(found["text_a"], found["text_b"], strict=True)], tasks.read_task(paths[3])


def test_single_texts_become_pairs_of_sentences(labelled, tmp_path):
    """A task on pairs that no plain text helps; pairs of whole reviews, or of nothing alike; others each time."""
    stories = [[part.format(f"no{number}") for part in PARTS] for number in range(90)]
    file = lines(tmp_path / "stories.jsonl", [{"text": " ".join(parts)} for parts in stories])
    pairs, task = prepare(labelled, tmp_path, unlabelled_data=str(file))
    again, same = prepare(labelled, tmp_path, unlabelled_data=str(file))
    assert pairs == again and task.sha256 == same.sha256
    assert pairs != prepare(labelled, tmp_path, unlabelled_data=str(file), seed=1)[0]
    assert 80 <= len(pairs) <= 90 and any("90 pairs of" in note for note in task.notes)
    places = {part: (number, place) for number, parts in enumerate(stories) for place, part in enumerate(parts)}
    kinds = {"neighbours": 0, "nearby": 0, "copies": 0}
    for pair in pairs:
        known = sorted(places[one] for one in pair if one in places)
        if len(known) < 2 or known[0] == known[1]:
            kinds["copies"] += 1
            shorter, longer = sorted((one.split() for one in pair), key=len)
            assert all(word in longer for word in shorter) and known
        elif known[0][0] == known[1][0]:
            kinds["neighbours"] += 1
            assert known[1][1] - known[0][1] == 1
        else:
            kinds["nearby"] += 1
            assert known[1][0] - known[0][0] <= 32
    assert all(count > 15 for count in kinds.values()), kinds


def test_a_sentence_a_row_is_beside_the_next_rows(labelled, tmp_path):
    """Files of one sentence a row, such as those of film reviews, of which every text is paired with itself."""
    texts = [f"Only sentence {number} of it." for number in range(300)]
    file = lines(tmp_path / "one.jsonl", [{"sentence": text} for text in texts])
    pairs, _ = prepare(labelled, tmp_path, unlabelled_data=str(file))
    places = [{texts.index(one) for one in pair if one in texts} for pair in pairs]
    beside = [found for found in places if len(found) == 2 and max(found) - min(found) == 1]
    assert len(beside) > 60 and all(max(found) - min(found) <= 32 for found in places if found)


def test_pairs_are_taken_as_they_are(labelled, tmp_path):
    """Pairs of a user's own torn apart; or pairs read as single texts."""
    rows = [{"premise": f"some {number} here", "hypothesis": f"other {number} there"} for number in range(9)]
    pairs, task = prepare(labelled, tmp_path, unlabelled_data=str(lines(tmp_path / "own.jsonl", rows)))
    assert pairs == [tuple(row.values()) for row in rows] and not any("pairs of" in note for note in task.notes)


def test_what_makes_no_pairs_is_refused_in_words(labelled, tmp_path):
    """Documents paired with any query, pairs for a task on single texts, or a blank row that goes missing."""
    single = lines(tmp_path / "single.jsonl", [{"text": f"some text {number}"} for number in range(9)])
    blank = lines(tmp_path / "blank.jsonl", [{"text": "some text"}, {"text": " "}, {"text": "more"}])
    ranked = lines(
        tmp_path / "ranked.jsonl",
        [{"query": f"q {i // 3}", "document": f"d {i}", "relevance": i % 2} for i in range(90)],
    )
    plain = lines(tmp_path / "plain.jsonl", [{"text": f"t {i}", "label": i % 2} for i in range(60)])
    for data, unlabelled, said in (
        (ranked, single, "nothing says which belong together as query and document do"),
        (plain, labelled, "has pairs"),
        (labelled, blank, "column 'text': no text in 1 row"),
    ):
        with pytest.raises(BonsaiError, match=said):
            prepare(data, tmp_path, unlabelled_data=str(unlabelled))
    assert len(prepare(labelled, tmp_path, unlabelled_data=str(blank), drop_empty=True)[0]) == 2
