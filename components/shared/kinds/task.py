"""What is to be learnt, as every split of a data set carries it."""

from dataclasses import dataclass, field

CHAT = "chat"  # the setting of a task whose texts are conversations, as JSON
JOINED = "joined"  # of one whose answers go on where their texts end, as each begins with white space


@dataclass(frozen=True)
class Task:
    """What is to be learnt, as every split of a data set carries it.

    Attributes:
        name: a short name for people, such as "movie-reviews".
        kind: a key of KINDS, such as "classification".
        columns: the text columns, ("text",) or ("text_a", "text_b").
        labels: names of the classes in the order of their numbers; empty where nothing has a name.
        metric: a key of METRICS that the kind has, such as "accuracy".
        source: where the rows came from.
        split: "train", "validation", "test" or "unlabelled".
        rows: how many rows the split has.
        sha256: hash of the rows' content, in order.
        setting: what a kind has to know of all rows, such as that texts are words with one space between; mostly empty.
        notes: what preparation did that a reader should know ("dropped 3 rows ...").
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    source: str
    split: str
    rows: int
    sha256: str
    setting: str = ""
    notes: tuple[str, ...] = field(default=())

    def is_of_one_data_set_with(self, other: "Task") -> bool:
        """Return whether rows of both have the same columns, and labels that mean the same."""
        return (self.columns, self.labels, self.kind) == (other.columns, other.labels, other.kind)
