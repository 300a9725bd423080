r"""CSV and its kin, read losslessly or refused with the line.

How a file is written (its delimiter, and what quotes mean in it) is found once, from its first megabyte: the way in
which every row there has the header's number of values. All lines after it must be written in the same way.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from kfp_bonsai.prepare_data.dialects import DELIMITERS, Dialect, Layout, mark_of
from kfp_bonsai.prepare_data.quoting import Records, rows
from kfp_bonsai.prepare_data.text import LONGEST, Lines
from kfp_bonsai.shared.core.errors import BonsaiError

SAMPLE_CHARACTERS = 1 << 20
JSON = re.compile(r'[\[{]\s*(["\[{\]}\d-]|$)')
SEPARATOR = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)  # a first line of Excel's


def find_layout(lines: Lines) -> Layout:
    """Find out how a file is written.

    Raises:
        BonsaiError: it is written in no known way, or may be read in two.
    """
    where, sample, size = lines.where, list[str](), 0
    for line in lines:
        sample.append(line)
        size += len(line)
        if size > SAMPLE_CHARACTERS:
            break
    told = SEPARATOR.fullmatch(sample[0]) if sample else None
    skipped = 1 if told else 0
    first = sample[skipped].lstrip("\ufeff").strip() if len(sample) > skipped else ""
    if not first.strip(",;|\t\"' "):
        raise BonsaiError(f"{where}, line {skipped + 1} is blank: the first line must name the columns")
    if JSON.match(first):
        raise BonsaiError(f"{where} begins like JSON ({first[:20]}): give it the suffix .jsonl or .json")
    tried = _Trial(where, sample, skipped, cut=size > SAMPLE_CHARACTERS)
    delimiters = [told[1]] if told else [each for each in DELIMITERS if each in sample[skipped]] or ["\t"]
    found = [layout for each in delimiters if each in DELIMITERS and (layout := tried.of(each))]
    ranks = [(len(one.names) > 1, bool(one.dialect.quote), len(one.names)) for one in found]
    best = [one for one, rank in zip(found, ranks, strict=True) if rank == max(ranks)]
    if len(best) == 1:
        return best[0]
    if best:
        raise BonsaiError(
            f"{where} may have {' or '.join(DELIMITERS[one.dialect.delimiter] for one in best)} between its values: "
            "write it with tabs, or give Parquet or JSON lines"
        )
    raise tried.error


class _Trial:
    """Reads the beginning of a file in every way that it may be written in."""

    def __init__(self, where: str, sample: list[str], skipped: int, *, cut: bool) -> None:
        self.where, self.sample, self.skipped, self.cut = where, sample, skipped, cut
        self.backslashes = any('\\"' in line for line in sample)
        self.doubled = {len(run) % 2 for line in sample for run in re.findall(r"\\+", line)} == {0}
        self.error = BonsaiError(f"{where} is not written as tables are")
        self.columns = 0

    def of(self, delimiter: str) -> Layout | None:
        """Return the one way to read it with a delimiter, None if there is none.

        Raises:
            BonsaiError: there are two, and they read different values.
        """
        single = self._read(Dialect(delimiter, "'")) if any("'" in line for line in self.sample) else None
        if single and single.records.always:
            return single.layout
        plain = self._read(Dialect(delimiter))
        escaped = self._read(Dialect(delimiter, escape=True)) if self.backslashes else None
        if plain and escaped and plain.values != escaped.values:
            pairs = zip(plain.values, escaped.values, strict=False)
            place = next((at for at, (one, other) in enumerate(pairs) if one != other), 0)
            raise BonsaiError(
                f'{self.where}, row {place + 1}: \\" may end a value or be a quote in it: write quotes in values '
                'doubled (""), or give Parquet or JSON lines'
            )
        quoted = single if single and single.records.proven else None
        found = plain or escaped or quoted or self._read(Dialect(delimiter, ""))
        return found.layout if found else None

    def _read(self, dialect: Dialect) -> "_Reading | None":
        try:
            records = Records(self.where, iter(self.sample[self.skipped :]), dialect, self.skipped, cut=self.cut)
            names = records.header()
            layout = Layout(dialect, records.first, tuple(name.lstrip("\ufeff").strip() for name in names))
            values = list(rows(records, layout))
            records.settle(len(values))
            seen = tuple(frozenset(mark_of(value) for value in column) for column in zip(*values, strict=True))
            records.compare(seen)
            found = replace(layout, seen=seen, backslashes=self.backslashes, doubled=self.doubled)
            return _Reading(found, records, values)
        except BonsaiError as error:
            columns = self.sample[self.skipped].count(dialect.delimiter)
            likely = Dialect(dialect.delimiter, escape=self.backslashes)
            if dialect == likely and columns >= self.columns:  # what the most likely way fails at
                self.error, self.columns = error, columns
            return None


@dataclass(frozen=True)
class _Reading:
    layout: Layout
    records: Records
    values: list[list[str]]


def blocks(lines: Lines, layout: Layout, columns: Sequence[str], most: int) -> Iterator[dict[str, list]]:
    """Yield some of the columns of a file, at most `most` rows at a time, fewer where they are long.

    Raises:
        BonsaiError: a line is not written as the others are.
    """
    for _ in islice(lines, layout.header - 1):
        pass
    records = Records(lines.where, lines, layout.dialect, layout.header - 1, layout=layout)
    records.header()
    places = [layout.names.index(name) for name in columns]
    block, size = list[list[str]](), 0
    for values in rows(records, layout):
        block.append(values)
        size += sum(map(len, values))
        if len(block) == most or size > LONGEST:
            yield _columns(block, columns, places)
            block, size = [], 0
    if block:
        yield _columns(block, columns, places)


def _columns(block: list[list[str]], names: Iterable[str], places: list[int]) -> dict[str, list]:
    return {name: [values[place] for values in block] for name, place in zip(names, places, strict=True)}
