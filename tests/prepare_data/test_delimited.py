"""CSV and its kin as strangers write them: every value as it was, or refused with the line."""

import bz2
import csv
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_bonsai.prepare_data.read import open_source
from kfp_bonsai.shared.core.errors import BonsaiError

HEAD = "text,label\n"


def read(path: Path) -> list[tuple]:
    """Return all rows, of all columns."""
    rows = open_source(str(path), "--data").splits["train"]
    names = rows.names()
    return [row for batch in rows.batches(names) for row in zip(*(batch.columns[name] for name in names), strict=True)]


def made(folder: Path, content: str | bytes, name: str = "d.csv") -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


READ = {
    "backslash before quotes": (
        HEAD + '"a \\"b\\", c",x\nplain,y\n"a \\\\ b, \\"",x\n',
        ['a "b", c', "plain", 'a \\ b, "'],
    ),
    "backslash at the end": (HEAD + '"C:\\dir\\",x\n"say ""hi""",y\n', ["C:\\dir\\", 'say "hi"']),
    "JSON in doubled quotes": (HEAD + '"{""a"": ""\\""b\\""\n""}",x\nplain,y\n', ['{"a": "\\"b\\"\n"}', "plain"]),
    "single quotes": ("text,label\n'it''s, fine','x'\n'b','y'\n", ["it's, fine", "b"]),
    "single quotes where needed": (HEAD + "'a, b',x\nplain,y\n", ["a, b", "plain"]),
    "apostrophes": (HEAD + "'tis fine,x\n'twas the dogs',y\n", ["'tis fine", "'twas the dogs'"]),
    "a quote inside": (HEAD + '5" nails,x\n"a, b",y\n', ['5" nails', "a, b"]),
    "a quote that is not closed": (HEAD + '"a,x\nb,y\n', ['"a', "b"]),
    "dialogue": (
        "text\tlabel\n" + '"I go.\t1\nYou stay."\t0\nplain\t1\nmore\t0\n',
        ['"I go.', 'You stay."', "plain", "more"],
    ),
    "line breaks and a comma a line": (
        HEAD + '"one, a\ntwo",x\n"three, b\nfour",y\n',
        ["one, a\ntwo", "three, b\nfour"],
    ),
    "semicolons in texts": (HEAD + "a; b,x\nc; d,y\n", ["a; b", "c; d"]),
    "semicolons between": ("text;label\na, b;x\nc;y\n", ["a, b", "c"]),
    "commas in the header": ('"text, or body";"label"\n"a, b";"x"\n"c, d";"y"\n', ["a, b", "c, d"]),
    "bars": ("text|label\na, b|x\nc;d|y\n", ["a, b", "c;d"]),
    "the separator named": ("sep=;\ntext;label\na;x\n", ["a"]),
    "old line ends": ("text,label\ra,x\rb,y\r", ["a", "b"]),
    "mixed line ends": ('text,label\r\na,x\n"b\r\nc",y\n', ["a", "b\r\nc"]),
    "a carriage return in a text": (HEAD + "a\rb,x\n\r,y\n", ["a\rb", "\r"]),
    "blank lines": (HEAD + "\na,x\n  \nb,y\n\n", ["a", "b"]),
    "other separators of lines": (HEAD + "a\x0cb\u2028c\x85d,x\n", ["a\x0cb\u2028c\x85d"]),
    "marks of byte order": ("\ufeff" + HEAD + "a,x\n", ["a"]),
    "UTF-16": ((HEAD + "grün,x\n").encode("utf-16"), ["grün"]),
    "UTF-32": ((HEAD + "grün,x\n").encode("utf-32"), ["grün"]),
    "gzip": (gzip.compress((HEAD + "a,x\n").encode()), ["a"]),
    "bzip2": (bz2.compress((HEAD + "a,x\n").encode()), ["a"]),
    "xz": (lzma.compress((HEAD + "a,x\n").encode()), ["a"]),
    "empty columns": ("text,label,,,\na,x,,,\nb,y\nc,x,\n", ["a", "b", "c"]),
    "a long text": (HEAD + "a" * 200_000 + ",x\n", ["a" * 200_000]),
    "tabs and quotes of some texts": (
        "text\tlabel\n" + '"I go."\t1\n"I", she said, "go."\t0\nhe said "x"\t1\n"I go\t1\n' + "plain\t0\n" * 9,
        ['"I go."', '"I", she said, "go."', 'he said "x"', '"I go', *["plain"] * 9],
    ),
    "tabs and quotes that nothing needs": (
        "text\tlabel\n" + '"All of it."\t1\n' + "plain\t0\n" * 9,
        ['"All of it."', *["plain"] * 9],
    ),
    "a spreadsheet's tabs": (
        "text\tlabel\n" + '"a, b"\t1\n"\rc"\t1\n' + "plain\t0\n" * 9,
        ["a, b", "\rc", *["plain"] * 9],
    ),
    "tabs and quotes of all texts": ('"text"\t"label"\n"a"\t1\n"b ""c"""\t0\n', ["a", 'b "c"']),
    "tabs and quotes of the names": ('"text"\t"label"\nhe said "x"\t1\nb\t0\n', ['he said "x"', "b"]),
    "tabs and apostrophes": (
        "text\tlabel\n'all of it'\t1\n\"open\t0\n''a'' and ''b''\t1\n",
        ["'all of it'", '"open', "''a'' and ''b''"],
    ),
    "rows between lone quotes": (
        "text\tlabel\n" + "a\tx\n" * 9 + '"\tx\n"" b\tx\n"\tx\n',
        [*["a"] * 9, '"', '"" b', '"'],
    ),
    "an index without a name": (",,text,label\n1,a,b,x\n2,b,c,y\n", ["b", "c"]),
    "a gap before backslashes": (HEAD + "\\N,x\n\\frac C:\\dir,y\n", ["", "\\frac C:\\dir"]),
    "one column and needless quotes": ('text\n"All of it."\nplain\nmore\n', ["All of it.", "plain", "more"]),
    "one column": ("text\nhello, world\nfoo; bar\n", ["hello, world", "foo; bar"]),
}


@pytest.mark.parametrize("case", READ)
def test_texts_are_read_as_they_were_written(tmp_path, case):
    """A text that was changed in silence is learnt, and shown in no error."""
    content, texts = READ[case]
    assert [row[0] for row in read(made(tmp_path, content))] == texts


def packed() -> bytes:
    with zipfile.ZipFile(held := io.BytesIO(), "w") as archive:
        archive.writestr("d.csv", HEAD)
    return held.getvalue()


def archive() -> bytes:
    with tarfile.open(fileobj=(held := io.BytesIO()), mode="w") as made_:
        made_.addfile(tarfile.TarInfo("d.csv"), io.BytesIO())
    return held.getvalue()


REFUSED = {
    "too few": (HEAD + "a,x\nb\n", "line 3", "1 values"),
    "too many": (HEAD + "a,x\nb,c,y\n", "line 3", "3 values"),
    "a quote that is not closed": (HEAD + '"a ""b"",x\nc,y\n', "line 2", "not closed"),
    "text after a quote": (HEAD + '"a, b"c,x\n', "line 2", "instead of ','"),
    "a space before quotes": ('text, label\n"a", "x"\n', "line 2", "around it or in it"),
    "quotes that are text and are not": (HEAD + 'he said "x",y\n"Great film",x\n', "line 3", "line 2"),
    "two escapes": (HEAD + '"a \\"b\\" C:\\new, x",x\n', "line 2", "backslash"),
    "backslashes without quotes": (HEAD + 'he said \\"x\\",y\nplain,x\n', "line 2", "may mean itself"),
    "MySQL's line breaks": (HEAD + '"a\\\nb \\"c\\", d",x\n', "line 2", "backslash"),
    "a header in the middle": (HEAD + "a,x\n" + HEAD + "b,y\n", "line 3", "the header once more"),
    "a value without a column": ("text,label,,\na,x,,\nb,y,more,\n", "line 3", "'more' is in column 3"),
    "two delimiters": ("text;label,x\na;b,c\n", "commas or semicolons"),
    "a NUL byte": (HEAD + "a\0b,x\n", "line 2", "NUL"),
    "UTF-16 without its mark": ((HEAD + "a,x\n").encode("utf-16-le"), "NUL"),
    "Latin-1": ((HEAD + "a,x\ncaf\xe9,y\n").encode("latin-1"), "line 3", "iconv"),
    "half of a gzip": (gzip.compress((HEAD + "a,x\nb,y\n" * 999).encode())[:-9], "copy it again"),
    "zip": (packed(), "zip archive", "unpack"),
    "zstd": (b"\x28\xb5\x2f\xfd" + b"0" * 99, "zstd -d"),
    "a page": ("\n<!DOCTYPE html><html>", "HTML"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:x\n", "git lfs pull"),
    "Parquet": (b"PAR1" + b"0" * 99, ".parquet"),
    "JSON": ('[{"text": "a"}]', ".json"),
    "one name twice": ("text,label,label \na,x,y\n", "'label'", "more than once"),
    "blank": ("\n\n", "line 1 is blank"),
    "tabs, quotes round all texts but one": (
        "text\tlabel\n" + '"a"\t1\n' * 9 + '"b" c\t1\n',
        "line 11",
        "instead of",
    ),
    "a database's text format": ("text\tlabel\n\\N\t1\nC:\\\\new\t0\n", "line 3", "missing value, as databases"),
    "single quotes escaped": ("text,label\n'it\\'s fine','x'\n'b','y'\n", "line 2", "around it or in it"),
    "packed twice": (gzip.compress(gzip.compress(HEAD.encode())), "packed again"),
    "tar": (archive(), "tar archive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_read_in_two_ways_or_in_none_is_refused_with_the_line(tmp_path, case):
    """Else rows are lost, or a text becomes another one, without a word."""
    content, *said = REFUSED[case]
    with pytest.raises(BonsaiError) as caught:
        read(made(tmp_path, content))
    assert "d.csv" in str(caught.value) and all(words in str(caught.value) for words in said), caught.value


@pytest.mark.parametrize("name", ["PK", "ORCID", "BZh", "PAR1", "<text>", "[text]", "{text}", "#"])
def test_a_column_may_be_called_as_another_format_begins(tmp_path, name):
    """A table is told to be an archive, and its user finds nothing wrong with it."""
    assert read(made(tmp_path, f"{name},text\na,b\n")) == [("a", "b")]


def test_doubled_backslashes_are_told(tmp_path, capsys):
    """Whether one escapes the other cannot be seen where no quote is escaped: what is learnt is at least said."""
    assert read(made(tmp_path, HEAD + '"C:\\\\new",x\n')) == [("C:\\\\new", "x")]
    assert "every backslash" in capsys.readouterr().out
    assert read(made(tmp_path, HEAD + '"C:\\new",x\n')) == [("C:\\new", "x")]
    assert "every backslash" not in capsys.readouterr().out


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab ,;\t|\"'\\\n\r.N5é"), min_size=1, max_size=12), min_size=1, max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
)
def test_what_a_writer_wrote_is_read_again_or_refused(tmp_path_factory, texts, delimiter, quoting, doubled):
    """The words for a dialect are many; whichever a library writes, no value may come out as another one."""
    held = io.StringIO(newline="")
    how = {"doublequote": doubled, "escapechar": None if doubled else "\\"}
    writer = csv.writer(held, delimiter=delimiter, quoting=quoting, lineterminator="\n", **how)
    texts = ['he said "well", and left', *texts]  # what a file must have to show how its quotes are written
    rows = [(value, ("good", "bad")[at % 2]) for at, value in enumerate(texts)]
    writer.writerows([("text", "label"), *rows])
    try:
        found = read(made(tmp_path_factory.mktemp("made"), held.getvalue()))
    except BonsaiError:
        return
    missing = r"\N" if quoting == csv.QUOTE_MINIMAL else None
    assert [(value if value != missing else "", label) for value, label in rows] == found
