"""One fault in one file, as disks, cut-off copies, editors, other programs and people of ill will make them.

A case is its number: the same one makes the same fault. That is why files are not left to hypothesis, which is for
values: to find the smallest case it would damage and read a file hundreds of times, and one fault is small already.
"""

import json
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2.5,
    10**9,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "text",
    "../x",
    "/etc/passwd",
    "a\nb\0c\ud800",
    "\"><script>alert(1)</script>${{7*7}}$(touch x)'; --",
    [],
    [None],
    ["a", 1],
    [[[]]],
    {},
    {"a": {"b": []}},
)
DEPTH = 100_000
LONG = 4_000_000
Damage = Callable[[Path, random.Random], str]


def mutate(target: Path, chance: random.Random) -> str:
    """Change one file of a folder (or the file itself) in place; return what was done, in words."""
    files = sorted(path for path in target.rglob("*") if path.is_file()) if target.is_dir() else [target]
    file = chance.choice(files)
    kinds: list[Damage] = [*ON_BYTES]
    if file.suffix not in BINARY:
        kinds += ON_TEXT
    if target.is_dir():
        kinds += ON_PLACES
    kinds += ON_KIND.get(file.suffix, ()) * 2  # most of what is wrong is well-formed
    return f"{file.relative_to(target.parent)} {chance.choice(kinds)(file, chance)}"


def truncated(file: Path, chance: random.Random) -> str:
    """Cut the file off."""
    content = file.read_bytes()
    length = chance.choice((0, 1, len(content) // 2, max(0, len(content) - 1), chance.randrange(len(content) + 1)))
    file.write_bytes(content[:length])
    return f"truncated to {length} of {len(content)} bytes"


def flipped(file: Path, chance: random.Random) -> str:
    """Flip one to eight bits."""
    content = bytearray(file.read_bytes())
    places = [chance.randrange(len(content)) for _ in range(chance.randint(1, 8))] if content else []
    for place in places:
        content[place] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return f"with flipped bits at {places}"


def overwritten(file: Path, chance: random.Random) -> str:
    """Fill a block with zeros, as a crashed file system does, or with anything."""
    content = bytearray(file.read_bytes())
    start = chance.randrange(len(content) + 1)
    length = min(len(content) - start, chance.choice((1, 16, 512, 4096)))
    new = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    content[start : start + length] = new
    file.write_bytes(content)
    return f"with {length} bytes {new[:8]!r} at {start}"


def doubled(file: Path, chance: random.Random) -> str:
    """Repeat a block, as a copy that was tried again does."""
    content = file.read_bytes()
    start = chance.randrange(len(content) + 1)
    end = min(len(content), start + chance.choice((1, 16, 512)))
    file.write_bytes(content[:end] + content[start:end] + content[end:])
    return f"with bytes {start} to {end} twice"


def swapped(file: Path, chance: random.Random) -> str:
    """Put blocks into another order."""
    content = file.read_bytes()
    one, two = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    file.write_bytes(content[one:two] + content[:one] + content[two:])
    return f"with bytes {one} to {two} first"


def put_in(file: Path, chance: random.Random) -> str:
    """Put in what no text should have, or much of what it may."""
    content = file.read_bytes()
    new, words = chance.choice(
        (
            (b"\0", "a NUL"),
            (b"\xff\xfe", "bytes that are no UTF-8"),
            (b"\xed\xa0\x80", "a lone surrogate"),
            (b"\xef\xbb\xbf", "a byte order mark"),
            (b'"', "a quote"),
            (b"\r", "a carriage return"),
            (b"x" * LONG, f"{LONG:,} letters"),
            (b"1" * 100_000, "100,000 digits"),
            (b"[" * DEPTH, f"{DEPTH:,} brackets"),
            (b'{"a":' * DEPTH, f"{DEPTH:,} objects"),
        )
    )
    at = chance.choice((0, len(content), chance.randrange(len(content) + 1)))
    file.write_bytes(content[:at] + new + content[at:])
    return f"with {words} at {at}"


def encoded(file: Path, chance: random.Random) -> str:
    """Write a text as other systems do."""
    text = file.read_bytes().decode("utf-8", "replace")
    form = chance.choice(("crlf", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"))
    file.write_bytes(text.replace("\n", "\r\n").encode() if form == "crlf" else text.encode(form, "replace"))
    return f"as {form}"


def removed(file: Path, chance: random.Random) -> str:
    """Remove the file."""
    file.unlink()
    return "removed"


def a_folder(file: Path, chance: random.Random) -> str:
    """Put a folder in its place."""
    file.unlink()
    file.mkdir()
    return "is a folder"


def a_link(file: Path, chance: random.Random) -> str:
    """Put a link in its place, to what is no file."""
    file.unlink()
    to = chance.choice((str(file), "/nowhere/at/all", "/dev/null", "/dev/zero", str(file.parent)))
    file.symlink_to(to)
    return f"is a link to {to}"


def a_pipe(file: Path, chance: random.Random) -> str:
    """Put what never begins in its place."""
    file.unlink()
    os.mkfifo(file)
    return "is a pipe"


def retyped(file: Path, chance: random.Random) -> str:
    """Give one value of a JSON file another type, or remove an entry."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.suffix == ".jsonl" else []
    at = chance.randrange(len(lines)) if lines else 0
    document = json.loads(lines[at] if lines else file.read_text(encoding="utf-8"))
    text, what = changed(document, chance)
    file.write_text("\n".join([*lines[:at], text, *lines[at + 1 :]]) if lines else text, encoding="utf-8")
    return what


def changed(document: Any, chance: random.Random) -> tuple[str, str]:
    """Return a document as JSON with one change, and the change in words."""
    holder, key, name = chance.choice([*_places(document)] or [({"": document}, "", "")])
    before = holder[key]
    shown = f"{name or 'all'}: {json.dumps(before)[:30]}"
    kind = chance.random()
    if isinstance(holder, dict) and kind < 0.2:
        del holder[key]
        return json.dumps(document), f"{shown} removed"
    if isinstance(holder, dict) and kind < 0.3:
        holder[key] = "=twice="
        text = json.dumps(document).replace('"=twice="', f"{json.dumps(before)}, {json.dumps(key)}: null")
        return text, f"{shown} and null"
    if kind < 0.36:
        holder[key] = "=deep="
        return json.dumps(document).replace('"=deep="', "[" * DEPTH + "]" * DEPTH), f"{shown} -> {DEPTH:,} lists"
    if isinstance(before, list) and before and kind < 0.5:
        holder[key] = chance.choice((before[:-1], before + before, before[::-1], before[:1] * 50))
        return json.dumps(document), f"{shown} -> of {len(holder[key])}"
    if isinstance(before, int | float) and not isinstance(before, bool) and kind < 0.6:
        holder[key] = chance.choice((before + 1, -before, before * 1000, before / 3, str(before)))
    else:
        holder[key] = chance.choice([each for each in STRANGE if type(each) is not type(before) or each != before])
    return json.dumps(document), f"{shown} -> {json.dumps(holder[key])[:30]}"


def _places(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Yield every place of a document, a long list's first and last alone: its holder, its key and its path."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = [*range(min(2, len(value))), *range(max(2, len(value) - 1), len(value))]
    else:
        return
    for key in keys:
        yield value, key, f"{path}.{key}"
        yield from _places(value[key], f"{path}.{key}")


def in_header(file: Path, chance: random.Random) -> str:
    """Change what a safetensors file says of its tensors."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    kind = chance.randrange(5)
    if kind == 0:
        stated = chance.choice((0, 1, size - 1, size + 1, len(content), 2**31, 2**62, 2**64 - 1))
        file.write_bytes(stated.to_bytes(8, "little") + content[8:])
        return f"with a header of {stated} bytes instead of {size}"
    names = [name for name in header if name != "__metadata__"]
    one, two = header[chance.choice(names)], header[chance.choice(names)]
    text = ""
    if kind == 1:
        one["data_offsets"], what = chance.choice((two["data_offsets"], [0, 1 << 62], [9, 3], [-8, 8])), "other offsets"
    elif kind == 2:
        one["dtype"], what = chance.choice(("F64", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "U128", "")), "another type"
    elif kind == 3:
        shape = one["shape"]
        one["shape"] = chance.choice((shape[::-1], [10**9, 10**9], [0], [-1], [], [*shape, 1], [1, *shape], [2.5]))
        what = f"shape {one['shape']} instead of {shape}"
    else:
        text, what = changed(header, chance)
    new = (text or json.dumps(header)).encode()
    file.write_bytes(len(new).to_bytes(8, "little") + new + rest)
    return f"with {what} in its header"


def in_tensors(file: Path, chance: random.Random) -> str:
    """Fill a part of the numbers with NaN, infinity or the largest."""
    content = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    at = start + 4 * chance.randrange(max(1, (len(content) - start) // 4))
    value = chance.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f"))
    content[at : at + 4] = value
    file.write_bytes(content)
    return f"with the number {value!r} at {at}"


def in_table(file: Path, chance: random.Random) -> str:
    """Write a Parquet table with other columns, types, nulls, notes or rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    at = chance.randrange(table.num_columns)
    name, column = table.schema.names[at], table.column(at)
    rows, kind = len(table), chance.randrange(7)
    if kind == 0:
        made = [column.to_pylist()[0]] * rows
        new = chance.choice(
            (
                pa.nulls(rows),
                pa.array([None, *column.to_pylist()[1:]], column.type),
                pa.array([1e308] * rows),
                pa.array([float("nan")] * rows),
                pa.array([2**63 - 1] * rows),
                pa.array([b"\xff\0"] * rows),
                pa.array([[str(each)] for each in made]),
                pa.array([{"a": str(each)} for each in made]),
                pa.array([str(each) for each in made]).dictionary_encode(),
                pa.array([True] * rows),
            )
        )
        table, what = table.set_column(at, name, new), f"{name} as {new.type}"
    elif kind == 1:
        table, what = table.drop_columns([name]), f"without {name}"
    elif kind == 2:
        names = [*table.schema.names]
        names[at] = chance.choice(("", "x" * 10_000, "text", "a\0b", "../x", "'; drop"))
        table, what = table.rename_columns(names), f"{name} as {names[at][:20]!r}"
    elif kind == 3:
        count = chance.choice((0, 1, 2))
        table, what = table.slice(0, count), f"with {count} rows"
    elif kind == 4:
        table, what = table.append_column(name, column), f"with {name} twice"
    elif kind == 5 and table.schema.metadata:
        notes = dict(table.schema.metadata)
        key = chance.choice([*notes])
        try:
            notes[key], what = (part.encode(errors="replace") for part in changed(json.loads(notes[key]), chance))
        except ValueError:
            notes[key], what = chance.randbytes(8), b"anything"
        table, what = table.replace_schema_metadata(notes), f"with {what.decode()} in its notes"
    else:
        long = pa.array([*["é" * LONG] * min(2, rows), *["x"] * (rows - 2)])
        table, what = table.set_column(at, name, long), f"{name} with {LONG:,} letters"
    pq.write_table(table, file)
    return f"{ANEW}{what}"


def in_cells(file: Path, chance: random.Random) -> str:
    """Change the cells of a line: one more, one less, a quote that nothing ends, one without end."""
    lines = file.read_bytes().split(b"\n")
    at = chance.randrange(len(lines))
    mark = b"\t" if file.suffix == ".tsv" else b","
    kinds = (
        lambda line: line + mark + b"more",
        lambda line: line.rpartition(mark)[0],
        lambda line: b'"' + line,
        lambda line: b"=HYPERLINK(1)" + mark + b'"a ""b"" c' + mark,
        lambda line: line.replace(mark, b";"),
        lambda line: mark * 100_000,
        lambda line: b'"' + b"y" * LONG + b'"' + mark + b"good",
        lambda line: b"",
        lambda line: lines[0],
    )
    lines[at] = chance.choice(kinds)(lines[at])
    file.write_bytes(b"\n".join(lines))
    return f"line {at} is {lines[at][:40]!r}"


LAUGHS = "\n".join([f"a0: &a0 [{'x, ' * 9}x]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}x]" for n in range(1, 12))])


def in_lines(file: Path, chance: random.Random) -> str:
    """Change the lines of a YAML file."""
    lines = file.read_text(encoding="utf-8").split("\n")
    at = chance.randrange(len(lines))
    key = lines[at].partition(":")[0]
    kinds = (
        "",
        f"{lines[at]}\n{lines[at]}",
        f"  {lines[at]}",
        lines[at].replace(":", "", 1),
        f"{key}: &all [*all]",
        f"{key}: &all\n  {key.strip(' -') or 'a'}: *all",
        f"{LAUGHS}\n{key}: *a11",
        f"{key}: !!python/object/apply:os.system ['touch x']",
        f"? [{key}]\n: 1",
        f"<<: {{{key.strip(' -') or 'a'}: 1}}",
        f"{key}: !!binary ////",
        f"{key}: !!set {{a, b}}",
        f"{key}: 2001-99-99",
        f"{key}: {chance.choice(('.nan', '.inf', '-1', '1e999', '0x' + 'f' * 5000, '9' * 5000, 'null', '~', '1:30'))}",
        f"{key}: {'[' * 5000}",
        f"{key}: |\n  {'z' * 1_000_000}",
        f"{key}: {json.dumps(chance.choice(STRANGE[-9:]))}",
    )
    lines[at] = chance.choice(kinds)
    file.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    return f"line {at} is {lines[at][:40]!r}"


def in_elements(file: Path, chance: random.Random) -> str:
    """Change an attribute or an element of an XML file, or what it says before them."""
    text = file.read_text(encoding="utf-8")
    places = [*re.finditer(r'([\w-]+)="([^"]*)"', text)]
    kind, place = chance.randrange(4), chance.choice(places)
    if kind == 0:
        line = chance.choice(text.splitlines())
        new, what = text.replace(line, chance.choice(("", f"{line}\n{line}", f"<!--{line}"))), line.strip()
    elif kind == 1:
        new, what = f"{XML_BOMB}{text.replace(place[2], '&a9;', 1)}", "entities of entities"
    else:
        value = chance.choice(
            ("", "-1", "0", "999999999999", "f64", "x" * 100_000, "../../etc/passwd", "1,-1,?", "a<b")
        )
        new, what = text[: place.start(2)] + value + text[place.end(2) :], f"{place[0]} as {value[:20]!r}"
    file.write_text(new, encoding="utf-8")
    return f"with another {what[:60]}"


def in_template(file: Path, chance: random.Random) -> str:
    """Change a chat template: what does not end, what reaches for more than it is given, what is none."""
    text = file.read_text(encoding="utf-8")
    new = chance.choice(
        (
            "{% for a in range(10**9) %}{% for b in range(10**9) %}x{% endfor %}{% endfor %}",
            "{{ 'x' * 10**10 }}",
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ cycler.__init__.__globals__.os.popen('touch x').read() }}",
            "{% include '/etc/passwd' %}",
            "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
            "{% set x = namespace(y=1) %}{{ messages[9].content.z }}",
            "{{ 1 / 0 }}",
            "{{ nothing() }}",
            "{% if",
            "{{ raise_exception('no') }}",
            "{{" * 1000,
            "{{ 9**9**9 }}",
            "{{ '%999999999d' % 1 }}",
        )
    )
    at = chance.choice((0, len(text), chance.randrange(len(text) + 1)))
    file.write_text(text[:at] + new + text[at:], encoding="utf-8")
    return f"with {new[:60]!r} at {at}"


def in_graph(file: Path, chance: random.Random) -> str:
    """Change a node, a tensor or an input of an ONNX graph."""
    import onnx

    model = onnx.load(file)
    graph, kind = model.graph, chance.randrange(7)
    node, tensor = chance.choice(graph.node), chance.choice(graph.initializer)
    if kind == 0:
        node.op_type, what = chance.choice(("Nothing", "Loop", "If", "MatMul", "Identity")), "another operation"
    elif kind == 1 and node.input:
        node.input[0], what = chance.choice(("nowhere", node.output[0], "", graph.input[0].name)), "another input"
    elif kind == 2:
        graph.node.remove(node)
        what = f"no {node.op_type}"
    elif kind == 3:
        del tensor.dims[:]
        tensor.dims.extend(chance.choice(([0], [-1], [2**40, 2**40], [1])))
        what = f"dimensions {list(tensor.dims)}"
    elif kind == 4:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", chance.choice(("/etc/passwd", "../../x", "/dev/zero", "model.onnx"))
        what = f"weights in {entry.value}"
    elif kind == 5:
        tensor.data_type, what = chance.choice((1, 2, 3, 7, 8, 10, 99)), "another type"
    else:
        graph.input[0].name, what = chance.choice(("", "other", graph.input[-1].name)), "another name of an input"
    file.write_bytes(model.SerializeToString())
    return f"with {what} in its graph"


XML_BOMB = "<!DOCTYPE a [<!ENTITY a0 'x'>{}]>\n".format(
    "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 99}'>" for n in range(1, 10))
)
BINARY = (".safetensors", ".parquet", ".arrow", ".npy", ".onnx", ".bin")
ON_BYTES: tuple[Damage, ...] = (truncated, flipped, overwritten, doubled, swapped)
ON_TEXT: tuple[Damage, ...] = (put_in, encoded)
ANEW = "written anew: "  # begins the words for a table with other content, of which nobody can say that it is damaged
ON_PLACES: tuple[Damage, ...] = (removed, a_folder, a_link, a_pipe)
ON_KIND: Mapping[str, tuple[Damage, ...]] = {
    ".json": (retyped,) * 5,
    ".jsonl": (retyped,) * 5,
    ".safetensors": (in_header, in_header, in_tensors),
    ".parquet": (in_table,) * 3,
    ".onnx": (in_graph,) * 3,
    ".xml": (in_elements,) * 5,
    ".jinja": (in_template,) * 5,
    ".csv": (in_cells,) * 3,
    ".tsv": (in_cells,) * 3,
    ".yaml": (in_lines,) * 5,
}
