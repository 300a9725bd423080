"""Where to write the labels of points, so that they cover nothing: plain geometry, in pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

FARTHER = 2.0  # what each offer costs more than the one before it, in pixels covered


@dataclass(frozen=True)
class Box:
    """A rectangle, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """Return the area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        """The box's own area."""
        return max(0.0, self.right - self.left) * max(0.0, self.top - self.bottom)


def around(x: float, y: float, radius: float) -> Box:
    """Return the square around a point."""
    return Box(x - radius, y - radius, x + radius, y + radius)


def along(start: tuple[float, float], end: tuple[float, float], radius: float = 2.0) -> list[Box]:
    """Return small boxes that cover a line."""
    steps = max(1, int(max(abs(end[0] - start[0]), abs(end[1] - start[1])) / (2 * radius)))
    return [
        around(start[0] + (end[0] - start[0]) * i / steps, start[1] + (end[1] - start[1]) * i / steps, radius)
        for i in range(steps + 1)
    ]


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    inside: Box,
    obstacles: Sequence[Box],
) -> list[tuple[Box, bool]]:
    """Place a label beside each point, greedily and always in the same way.

    Args:
        points: where the points are.
        sizes: width and height of their labels.
        inside: the rectangle labels must not leave.
        obstacles: what should not be covered (markers, lines, other text).

    Returns:
        For each label its box, and whether it lies so far off that a line should lead to it.
    """
    taken = list(obstacles)
    placed = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        best: tuple[float, Box, bool] | None = None
        for rank, (dx, dy, gap) in enumerate(_offers()):
            if best is not None and best[0] <= FARTHER * rank:
                break  # what comes costs no less
            left = x + dx * gap - (width if dx < 0 else width / 2 if dx == 0 else 0)
            bottom = y + dy * gap - (height if dy < 0 else height / 2 if dy == 0 else 0)
            box = Box(left, bottom, left + width, bottom + height)
            outside = box.area - box.overlap(inside)
            cost = 20 * outside + sum(box.overlap(other) for other in taken) + FARTHER * rank
            if best is None or cost < best[0]:
                best = (cost, box, gap > 20)
        assert best is not None
        taken.append(best[1])
        placed.append(best[1:])
    return placed


def _offers() -> list[tuple[float, float, float]]:
    """Return directions and distances to try, the most readable first."""
    sides = [(1, 0), (0, 1), (0, -1), (-1, 0), (0.8, 0.8), (0.8, -0.8), (-0.8, 0.8), (-0.8, -0.8)]
    return [(dx, dy, gap) for gap in (10.0, 16.0, 28.0, 44.0, 64.0) for dx, dy in sides]
