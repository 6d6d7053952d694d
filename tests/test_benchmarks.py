"""The sums of the benchmarks' table; what is measured is no test's business."""

import re
from pathlib import Path

import pytest

from tests.benchmarks import table
from tests.benchmarks.table import Row

ROWS = [
    table.compared("speed", "/s", [80, 60, 90], "bot", [100, 100, 100], table.at_least_times(0.7)),
    table.compared("time", "ms", [3, 8, 4], "no-op", [2, 2, 2], table.at_most_times(1.5)),
    table.alone("memory", "MB", [140, 160, 120], table.at_most(150, "MB")),
    table.alone("said and no more", "s", [1]),
]


@pytest.mark.parametrize(("share", "expected"), [(0, 1), (0.5, 50), (0.95, 95), (0.99, 99), (1, 100)])
def test_a_quantile_is_a_value_that_the_share_does_not_exceed(share: float, expected: float) -> None:
    assert table.quantile(range(100, 0, -1), share) == expected


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The machine was half as fast in the second round.
    row = table.compared("", "ms", [3, 6, 4], "", [2, 4, 2])
    assert (row.value, row.floor, row.ratio, row.spread) == (4, 2, 1.5, (1.5, 2))


@pytest.mark.parametrize(
    ("aim", "used"),
    [
        (table.at_most_times(1.5), 2 / 1.5),
        (table.at_least_times(0.7), 0.7 / 2),
        (table.at_most(100, "ms"), 0.6),
        (table.at_least(120, "/s"), 2),
        (table.within(1, 50, "ms"), 60 / 80),
    ],
)
def test_an_aim_says_how_much_of_it_is_used(aim: table.Aim, used: float) -> None:
    row = table.compared("", "ms", [60], "", [30], aim)
    assert row.used == pytest.approx(used)
    assert row.is_met == (used <= 1)


def test_the_table_shows_figures_floors_aims_and_whether_they_are_met() -> None:
    assert table.markdown(ROWS).splitlines()[2:] == [
        "| speed | bot: 100/s | 80/s | 0.80 x | 0.60 to 0.90 | ≥ 0.7 x | yes |",
        "| time | no-op: 2 ms | 4 ms | 2.00 x | 1.50 to 4.00 | ≤ 1.5 x | **no** |",
        "| memory |  | 140 MB |  | 120 to 160 MB | ≤ 150 MB | yes |",
        "| said and no more |  | 1 s |  |  |  |  |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (12.345, "12.3"), (0.05, "0.05"), (0, "0"), (1e-5, "1.0e-05")]
)
def test_figures_have_three_digits_that_count(value: float, text: str) -> None:
    assert table.number(value) == text


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    document = "a\n<!-- begin figures -->\nold\n<!-- end figures -->\nb\n"
    new = table.replaced(document, "figures", "new")
    assert new == "a\n<!-- begin figures -->\nnew\n<!-- end figures -->\nb\n"
    assert table.replaced(new, "figures", "new") == new
    with pytest.raises(ValueError, match="no markers"):
        table.replaced("a", "figures", "new")


def test_the_page_has_a_place_for_the_figures() -> None:
    page = (Path(__file__).parents[1] / "docs" / "performance.md").read_text("utf-8")
    assert "the figures stand here" in table.replaced(page, "figures", "the figures stand here")


def test_the_chart_runs_nothing_and_is_the_same_for_the_same_rows() -> None:
    drawn = table.chart(ROWS)
    assert drawn == table.chart(ROWS)
    assert b"<svg" in drawn
    assert re.search(rb"<script|<!--|20\d\d-", drawn) is None
    assert b"speed" in drawn
    assert b"said and no more" not in drawn


def test_a_floor_of_nothing_reaches_no_aim() -> None:
    row = Row("", "", 0, (0, 0), ratio=0, aim=table.at_least_times(0.5))
    assert row.is_met is False
