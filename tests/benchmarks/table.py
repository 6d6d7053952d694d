"""What the benchmarks give: rows of figures, their sums, and how they look in a terminal, in Markdown and as a chart.

Pure but for `machine`. How things are measured lives in the benchmarks.
"""

import os
import platform
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

# Longer bars tell nothing more.
_LONGEST_BAR: Final = 4.0
_GOOD, _BAD = "#2e7d32", "#c62828"


def quantile(values: Iterable[float], share: float) -> float:
    """Give the smallest value that at least a share of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def median(values: Iterable[float]) -> float:
    """Give the middle one."""
    return statistics.median(values)


@dataclass(frozen=True, slots=True)
class Aim:
    """What a row should reach; `used` gives how much of what is allowed it takes: 1 just reaches the aim."""

    text: str
    used: Callable[["Row"], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median over all rounds, in `unit`, beside the floor's where there is one.

    `ratio` is the median of the rounds' ratios to the floor; `spread` the least and the most of the ratio, or of the
    figure where there is no floor.
    """

    what: str
    unit: str
    value: float
    spread: tuple[float, float]
    floor_name: str = ""
    floor: float | None = None
    ratio: float | None = None
    aim: Aim | None = None

    @property
    def used(self) -> float | None:
        """How much of what its aim allows it takes; None without an aim."""
        return self.aim.used(self) if self.aim else None

    @property
    def is_met(self) -> bool | None:
        """Whether it reaches its aim; None without one."""
        return None if self.used is None else self.used <= 1


def compared(
    what: str, unit: str, values: Sequence[float], floor_name: str, floors: Sequence[float], aim: Aim | None = None
) -> Row:
    """Make a row of what was measured beside a floor, round by round."""
    ratios = [value / floor for value, floor in zip(values, floors, strict=True)]
    spread = (min(ratios), max(ratios))
    return Row(what, unit, median(values), spread, floor_name, median(floors), median(ratios), aim)


def alone(what: str, unit: str, values: Sequence[float], aim: Aim | None = None) -> Row:
    """Make a row of what was measured without a floor, round by round."""
    return Row(what, unit, median(values), (min(values), max(values)), aim=aim)


# Aims


def at_most_times(factor: float) -> Aim:
    """Let the figure be at most so many times the floor's."""
    return Aim(f"≤ {factor:g} x", lambda row: (row.ratio or 0) / factor)


def at_least_times(factor: float) -> Aim:
    """Let the figure be at least so many times the floor's."""
    return Aim(f"≥ {factor:g} x", lambda row: factor / (row.ratio or 1e-9))


def at_most(limit: float, unit: str) -> Aim:
    """Let the figure, in the row's unit, be at most so much."""
    return Aim(f"≤ {limit:g} {unit}", lambda row: row.value / limit)


def at_least(limit: float, unit: str) -> Aim:
    """Let the figure, in the row's unit, be at least so much."""
    return Aim(f"≥ {limit:g}{'' if unit.startswith('/') else ' '}{unit}", lambda row: limit / row.value)


def within(factor: float, more: float, unit: str) -> Aim:
    """Let the figure be at most so many times the floor's, and so much more in the row's unit."""
    return Aim(f"≤ {factor:g} x + {more:g} {unit}", lambda row: row.value / (factor * (row.floor or 0) + more))


# How they look


def number(value: float) -> str:
    """Give a figure with three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"


def amount(value: float, unit: str) -> str:
    """Give a figure with its unit."""
    return f"{number(value)}{'' if unit.startswith('/') else ' '}{unit}".rstrip()


def cells(row: Row) -> list[str]:
    """Give a row as the texts below TITLES."""
    return [
        row.what,
        "" if row.floor is None else f"{row.floor_name}: {amount(row.floor, row.unit)}",
        amount(row.value, row.unit),
        "" if row.ratio is None else f"{row.ratio:.2f} x",
        _spread(row),
        row.aim.text if row.aim else "",
        {None: "", True: "yes", False: "**no**"}[row.is_met],
    ]


def _spread(row: Row) -> str:
    least, most = row.spread
    if least == most:
        return ""
    return f"{number(least)} to {amount(most, row.unit)}" if row.ratio is None else f"{least:.2f} to {most:.2f}"


TITLES: Final = ("what", "floor", "bridge", "ratio", "spread", "aim", "met")


def lines(rows: Sequence[Row]) -> list[str]:
    """Give rows as they stand in a terminal."""
    return ["  ".join(cell.replace("**", "") for cell in cells(row) if cell) for row in rows]


def markdown(rows: Sequence[Row]) -> str:
    """Give rows as a Markdown table."""
    table = [TITLES, ["---"] * len(TITLES), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def replaced(document: str, name: str, text: str) -> str:
    """Put a text between the markers `<!-- begin NAME -->` and `<!-- end NAME -->`; raises ValueError without them."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found_begin, rest = document.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"the document has no markers {begin} and {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def machine(redis_version: str) -> str:
    """Say in a line what it was measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {platform.system()}, Python {platform.python_version()}, Redis {redis_version}"


def chart(rows: Sequence[Row]) -> bytes:
    """Draw how much of its aim each row takes, as an SVG without scripts that is the same for the same rows."""
    import pygal  # noqa: PLC0415 - it hooks itself into every later import

    aimed = [row for row in reversed(rows) if row.used is not None]
    bars = pygal.HorizontalBar(
        title="How much of its aim each figure takes (1: just reached; shorter is better)",
        js=[],
        show_legend=False,
        print_values=True,
        width=1100,
        height=120 + 24 * len(aimed),
        range=(0, _LONGEST_BAR),
        style=_style(),
    )
    bars.uuid = "performance"
    bars.x_labels = [row.what for row in aimed]
    bars.add("", [_bar(row) for row in aimed])
    # It writes the date into a comment, its settings into a script, and what that would show beside every bar.
    unwanted = r"<!--.*?-->|<script.*?</script>|<script[^>]*/>|<desc.*?</desc>"
    return re.sub(unwanted, "", bars.render().decode(), flags=re.DOTALL).encode()


def _style() -> object:
    from pygal.style import CleanStyle  # noqa: PLC0415 - as pygal itself

    return CleanStyle(background="#ffffff", plot_background="#ffffff", value_font_size=11, label_font_size=11)


def _bar(row: Row) -> dict[str, object]:
    used = row.used or 0.0
    text = f"{used:.2f}"
    return {
        "value": min(used, _LONGEST_BAR),
        "color": _GOOD if row.is_met else _BAD,
        "formatter": lambda _: text,
    }
