"""Charts as SVG: lines and points on linear, logarithmic or log-odds axes. No library, no script.

A chart has no colours of its own: classes say what is what, and STYLE (in the page, or with standalone=True in the picture) gives them
colours for light and for dark. Labels of points look for a free place; a label that finds none is left out, and its point says its name
when the pointer rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

LEFT, RIGHT, TOP, BOTTOM = 62, 30, 40, 52
LINE_HEIGHT, CHAR_WIDTH = 14, 6.6  # of labels of 11 px
COLOURS = 8
LIGHT = ("#1f6fb4", "#c8452b", "#2b8a4b", "#8a56b0", "#b07d10", "#0f8f97", "#b23a77", "#66707c")
DARK = ("#6fb3f0", "#ff8a6b", "#6fce8f", "#c79bf0", "#e6b74d", "#4fd0d8", "#f28abb", "#a7b1bd")


def _colours(values: Sequence[str], fg: str, muted: str, line: str, bg: str) -> str:
    series = " ".join(f"--c{i}: {value};" for i, value in enumerate(values))
    return f"--fg: {fg}; --muted: {muted}; --line: {line}; --bg: {bg}; {series}"


LIGHT_VARIABLES = _colours(LIGHT, "#1c2127", "#5b6570", "#dfe3e8", "#ffffff")
DARK_VARIABLES = _colours(DARK, "#e8eaed", "#9aa4af", "#333a42", "#14171b")
STYLE = (
    """
.chart { font: 11px system-ui, sans-serif; max-width: 100%; height: auto; }
.chart text { fill: var(--fg); } .chart .quiet { fill: var(--muted); } .chart .title { font-size: 14px; font-weight: 600; }
.chart .grid { stroke: var(--line); } .chart .rule { stroke: var(--muted); stroke-dasharray: 5 4; }
.chart .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .chart .ring { fill: var(--bg); stroke-width: 2; }
.chart text { paint-order: stroke; stroke-width: 3px; } .chart .thin { stroke-width: 1; stroke-dasharray: 2 3; }
"""
    + "\n".join(
        f".chart .s{i} {{ stroke: var(--c{i}); }} .chart .dot.s{i} {{ fill: var(--c{i}); }} .chart text.s{i} {{ fill: var(--c{i}); stroke: var(--bg); }}"
        for i in range(COLOURS)
    )
    + "\n"
)


class Axis(NamedTuple):
    """label; low and high: its ends; scale: "linear", "log" or "logit"; ticks: where, None to choose; form: how a tick is written."""

    label: str
    low: float
    high: float
    scale: str = "linear"
    ticks: Sequence[float] | None = None
    form: Callable[[float], str] = "{:g}".format

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high end."""
        f = {"linear": float, "log": math.log, "logit": lambda p: math.log(p / (1 - p))}[self.scale]
        return (f(value) - f(self.low)) / (f(self.high) - f(self.low))

    def chosen_ticks(self) -> list[float]:
        if self.ticks is not None:
            return [t for t in self.ticks if self.low <= t <= self.high]
        if self.scale == "log":
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            span = math.log10(self.high / self.low)
            steps = (1, 1.5, 2, 3, 4, 6, 8) if span < 1 else (1, 2, 5) if span < 3 else (1,)
            return [m * 10.0**d for d in decades for m in steps if self.low <= m * 10.0**d <= self.high]
        return nice_ticks(self.low, self.high)


class Series(NamedTuple):
    """points: (x, y). line: joined up; marker: "dot", "ring" or None. labels: written beside the points; titles: shown on hover.

    Without a name it is not in the legend.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    line: bool = True
    marker: str | None = None
    labels: Sequence[str] = ()
    titles: Sequence[str] = ()


class Rule(NamedTuple):
    """A dashed line across the chart, between two points of its frame."""

    label: str
    start: tuple[float, float]
    end: tuple[float, float]


def nice_ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round values from low to high, about so many."""
    raw = (high - low) / wanted
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def chart(
    title: str, x: Axis, y: Axis, series: Sequence[Series], rules: Sequence[Rule] = (), *,
    width: int = 680, height: int = 400, legend: bool = True, standalone: bool = False,
) -> str:  # fmt: skip
    """The SVG element. standalone: a picture of its own, with the style and a background."""
    rows = _legend_rows(series, width) if legend else []
    bottom = height - BOTTOM - LINE_HEIGHT * len(rows)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + x.place(point[0]) * (width - LEFT - RIGHT), bottom - y.place(point[1]) * (bottom - TOP)

    parts = [f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>']
    parts += _frame(x, y, at, width, bottom)
    for rule in rules:
        (x0, y0), (x1, y1) = at(rule.start), at(rule.end)
        parts.append(f'<line class="rule" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
        parts.append(f'<text class="quiet" x="{x1 - 4:.1f}" y="{y1 - 5:.1f}" text-anchor="end">{escape(rule.label)}</text>')
    for each in series:
        if each.line:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py in map(at, each.points))
            thin = "" if each.name else " thin"
            parts.append(f'<polyline class="line s{each.colour}{thin}" points="{path}"><title>{escape(each.name)}</title></polyline>')
    marked = [(each, i, *at(point)) for each in series if each.marker or each.labels for i, point in enumerate(each.points)]
    for each, i, px, py in marked:
        if each.marker:
            told = each.titles[i] if each.titles else each.labels[i] if each.labels else each.name
            radius = 4 if each.marker == "dot" else 5
            parts.append(
                f'<circle class="{each.marker} s{each.colour}" cx="{px:.1f}" cy="{py:.1f}" r="{radius}"><title>{escape(told)}</title></circle>'
            )
    parts += _labels(marked, [at(rule.end)[1] for rule in rules], width, bottom)
    parts += _legend(rows, height)
    style = ""
    if standalone:
        dark = f"@media (prefers-color-scheme: dark) {{ .chart {{ {DARK_VARIABLES} }} }}"
        style = f'<style>.chart {{ {LIGHT_VARIABLES} }}\n{dark}{STYLE}</style><rect width="{width}" height="{height}" fill="var(--bg)"/>'
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" {size}><title>{escape(title)}</title>{style}\n' + "\n".join(parts) + "\n</svg>\n"  # fmt: skip


def _frame(x: Axis, y: Axis, at: Callable, width: int, bottom: float) -> list[str]:
    parts = []
    for tick in y.chosen_ticks():
        py = at((x.low, tick))[1]
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{py:.1f}" x2="{width - RIGHT}" y2="{py:.1f}"/>')
        parts.append(f'<text class="quiet" x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{escape(y.form(tick))}</text>')
    for tick in x.chosen_ticks():
        px = at((tick, y.low))[0]
        parts.append(f'<line class="grid" x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{bottom:.1f}"/>')
        parts.append(f'<text class="quiet" x="{px:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{escape(x.form(tick))}</text>')
    middle = (LEFT + width - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{bottom + 34:.1f}" text-anchor="middle">{escape(x.label)}</text>')
    centre = (TOP + bottom) / 2
    parts.append(f'<text x="16" y="{centre:.1f}" text-anchor="middle" transform="rotate(-90 16 {centre:.1f})">{escape(y.label)}</text>')
    return parts


def _labels(marked: list, rules_y: list[float], width: int, bottom: float) -> list[str]:
    """The labels of points, each at the first of a few places around its point where nothing else is."""
    taken = [(px - 5, py - 5, px + 5, py + 5) for _, _, px, py in marked]
    taken += [(LEFT, py - 2, width - RIGHT, py + 2) for py in rules_y]
    parts = []
    for each, i, px, py in marked:
        if not each.labels or not each.labels[i]:
            continue
        label = each.labels[i]
        long = CHAR_WIDTH * len(label)
        for dx, dy in ((8, 4), (-8 - long, 4), (-long / 2, -9), (-long / 2, 17), (8, -8), (8, 16), (-8 - long, -8), (-8 - long, 16)):
            box = (px + dx, py + dy - 10, px + dx + long, py + dy + 2)
            inside = box[0] >= LEFT and box[2] <= width - 2 and box[1] >= TOP - 14 and box[3] <= bottom
            if inside and not any(a < box[2] and c > box[0] and b < box[3] and d > box[1] for a, b, c, d in taken):
                taken.append(box)
                parts.append(f'<text class="s{each.colour}" x="{box[0]:.1f}" y="{py + dy:.1f}">{escape(label)}</text>')
                break
    return parts


def _legend_rows(series: Sequence[Series], width: int) -> list[list[tuple[Series, float]]]:
    """The entries of the legend with where each starts, row by row."""
    rows: list[list[tuple[Series, float]]] = []
    at = math.inf
    for each in (each for each in series if each.name):
        long = 40 + CHAR_WIDTH * len(each.name)
        if at + long > width - RIGHT:
            rows.append([])
            at = LEFT
        rows[-1].append((each, at))
        at += long
    return rows


def _legend(rows: list[list[tuple[Series, float]]], height: int) -> list[str]:
    parts = []
    for r, row in enumerate(rows):
        py = height - 4 - LINE_HEIGHT * (len(rows) - 1 - r)
        for each, px in row:
            if each.line:
                parts.append(f'<line class="line s{each.colour}" x1="{px:.1f}" y1="{py - 4}" x2="{px + 16:.1f}" y2="{py - 4}"/>')
            if each.marker:
                parts.append(f'<circle class="{each.marker} s{each.colour}" cx="{px + 8:.1f}" cy="{py - 4}" r="4"/>')
            parts.append(f'<text class="quiet" x="{px + 21:.1f}" y="{py}">{escape(each.name)}</text>')
    return parts
