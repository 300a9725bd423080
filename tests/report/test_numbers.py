"""Numbers are short, rounded right, and have a unit."""

import pytest

from kfp_bonsai.report import numbers
from kfp_bonsai.report.places import Box, around, place
from kfp_bonsai.report.table import pareto


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (numbers.percent(0.9712), "97.1 %"),
        (numbers.percent(0.00423), "0.42 %"),
        (numbers.percent(1.0), "100.0 %"),
        (numbers.percent(None), "–"),
        (numbers.percent(float("nan")), "–"),
        (numbers.percent_interval([0.955, 0.98]), "95.5 to 98.0 %"),
        (numbers.percent_interval([0.004, 98569.8]), "0.40 to over 1,000 %"),
        (numbers.significant(1240), "1,240"),
        (numbers.significant(9.996), "10.0"),
        (numbers.significant(0.01234), "0.0123"),
        (numbers.significant(-0.5), "-0.500"),
        (numbers.about(211_234), "210,000"),
        (numbers.about(3_249_000), "3.2 million"),
        (numbers.size(24_123_456), "24.1 MB"),
        (numbers.size(512), "512 bytes"),
        (numbers.count(22_713_986), "22.7 million"),
        (numbers.count(950), "950"),
        (numbers.energy(4_560), "4.56 kJ"),
        (numbers.energy(0.768), "768 mJ"),
        (numbers.energy(0), "0 J"),
        (numbers.grams(0.0000988), "98.8 µg"),
        (numbers.grams(None), "–"),
        (numbers.milliseconds(1234), "1.23 s"),
        (numbers.duration(100), "1 min 40 s"),
        (numbers.duration(59.7), "1 min 00 s"),
        (numbers.duration(7500), "2 h 05 min"),
        (numbers.watt_hours(22_300), "6.19 Wh"),
        (numbers.signed(-3.04), "−3.0"),
    ],
)
def test_numbers(made: str, expected: str):
    """A number would be shown with wrong digits or unit."""
    assert made.replace(numbers.SPACE, " ") == expected


def test_labels_cover_neither_each_other_nor_the_points():
    """Labels of points that lie close together would be unreadable."""
    points = [(50.0, 50.0), (56.0, 52.0), (60.0, 47.0), (290.0, 195.0)]
    frame = Box(0, 0, 300, 200)
    obstacles = [around(*point, 6) for point in points]
    boxes = [box for box, _ in place(points, [(90.0, 14.0)] * 4, frame, obstacles)]
    assert all(one.overlap(two) == 0 for one in boxes for two in boxes if one is not two)
    assert all(box.overlap(obstacle) == 0 for box in boxes for obstacle in obstacles)
    assert all(box.overlap(frame) == pytest.approx(box.area) for box in boxes)


def test_pareto_front_has_no_beaten_model():
    """A model that another one beats in both figures would be shown as worth having."""
    rows = [
        {"relative_emission": e, "relative_accuracy": a}
        for e, a in ((1, 1), (0.5, 0.9), (0.4, 0.95), (0.1, 0.9), (0.1, 0.8))
    ]
    rows.append({"relative_emission": None, "relative_accuracy": 2})
    assert [(row["relative_emission"], row["relative_accuracy"]) for row in pareto(rows)] == [
        (0.1, 0.9),
        (0.4, 0.95),
        (1, 1),
    ]
