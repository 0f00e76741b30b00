"""The page of `charstat eval --report`: models on one text, side by side. All of it is HTML and SVG; no script."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from charstat.explaining.calibration import calibrate
from charstat.explaining.charts import COLOURS, Axis, Rule, Series, chart, nice_ticks
from charstat.explaining.collect import kind_totals
from charstat.explaining.kinds import KINDS, kinds_of
from charstat.explaining.page import html_page
from charstat.report import format_bytes
from charstat.whole_files import STANDARD, write

if TYPE_CHECKING:
    from charstat.charmodel_api import CharModel, EvalResult

CURVE_POINTS = 200
SKIPPED = 0.01  # of the text: its accuracy so far is that of a handful of characters
ODDS_TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)


CALIBRATION = (
    "Of all symbols at all positions to which a model gave about this probability, this share came. Above the line they came more often "
    "than it said, below it less often."
)


class Report:
    """Collects what the page shows of each model (see), then writes the page (save)."""

    def __init__(self, text: str, path: str, force: bool, progress: Callable[[str], Any]):
        self._text, self._path, self._force, self._progress = text, path, force, progress
        self.kinds = [KINDS[kind] for kind in kinds_of(text)]
        self.models: list[dict[str, Any]] = []

    def see(self, name: str, stream: CharModel, result: EvalResult) -> None:
        """A model after its evaluation. It reads the text once more, for the calibration; its speed is that of the evaluation."""
        with self._progress(name) as tell:
            calibration = calibrate(stream, self._text, tell)
        self.models.append(
            {
                "model": name, "accuracy": result.accuracy, "bits_per_char": result.bits_per_char, "chars_per_s": result.chars_per_s,
                "bytes": getattr(stream, "n_bytes", None), "curve": curve(result.correct), "calibration": calibration,
                "kinds": kind_totals(self.kinds, result.bits.tolist(), result.correct.tolist()),
            }
        )  # fmt: skip

    def save(self, facts: dict[str, Any]) -> None:
        """Write the page, complete or not at all."""
        write(self._path, self.page(facts).encode(), STANDARD, self._force)

    def page(self, facts: dict[str, Any]) -> str:
        """The page. facts: what the command's result says of the text and the model."""
        body = [
            "<h1>Evaluation</h1>",
            f'<p class="facts">{escape(facts["data"]["description"])}, {escape(facts["split"])}, {facts["chars"]:,} characters.</p>',
            f'<p class="facts">Model: {escape(facts["model"])}, order {facts["order"]}, {escape(facts["preset"] or "own")} contexts.</p>',
            *[f'<p class="note">{escape(note)}</p>' for note in facts["notes"]],
            self._table(facts["gate"]),
            "<h2>Accuracy</h2>",
            f'<div class="scroll">{accuracy_chart(self.models, facts["gate"])}</div>',
            "<h2>Calibration</h2>",
            f'<div class="scroll">{calibration_chart(self.models)}</div>',
            f'<p class="muted">{CALIBRATION} The gap, |came − said| over all bins, per character: {self._gaps()}.</p>',
            "<h2>Bits by kind of character</h2>",
            kinds_side_by_side(self.models),
        ]
        return html_page(f"Evaluation: {', '.join(m['model'] for m in self.models)}", "\n".join(body))

    def _table(self, gate: float) -> str:
        rows = "".join(
            f'<tr><td>{escape(m["model"])}</td><td class="n">{m["accuracy"]:.4f}</td><td class="n">{m["bits_per_char"]:.4f}</td>'
            f'<td class="n">{m["chars_per_s"]:,.0f}</td><td class="n">{format_bytes(m["bytes"])}</td>'
            f'<td class="{"good" if m["accuracy"] >= gate else "bad"}">{"pass" if m["accuracy"] >= gate else "missed"}</td></tr>'
            for m in self.models
        )
        heads = (
            '<th class="n">Accuracy</th><th class="n">Bits/char</th><th class="n">Chars/s</th><th class="n">Memory beside the tables</th>'
        )
        return f'<div class="scroll"><table><thead><tr><th>Model</th>{heads}<th>Gate {gate:g}</th></tr></thead><tbody>{rows}</tbody></table></div>'

    def _gaps(self) -> str:
        return ", ".join(f"{m['model']} {m['calibration']['gap']:.4f}" for m in self.models)


def curve(correct: np.ndarray) -> list[tuple[int, float]]:
    """(characters, accuracy of the text so far) at some points of the text."""
    ends = np.unique(np.linspace(max(1, SKIPPED * correct.size), correct.size, CURVE_POINTS).astype(int))
    return list(zip(ends.tolist(), (np.cumsum(correct)[ends - 1] / ends).tolist(), strict=True))


def accuracy_chart(models: list[dict[str, Any]], gate: float) -> str:
    values = [accuracy for m in models for _, accuracy in m["curve"]]
    low, high = min(values), max(values)
    if low - 0.1 < gate < high + 0.1:
        low, high = min(low, gate), max(high, gate)
    low, high = max(0.0, low - 0.01), min(1.0, high + 0.01)
    chars = models[0]["curve"][-1][0]
    ticks = [0.0, *nice_ticks(0, chars)[1:]] if chars > 1 else [0.0, 1.0]
    x = Axis("characters", 0, chars, ticks=ticks, form="{:,.0f}".format)
    y = Axis("accuracy so far", low, high, form="{:.3g}".format)
    series = [Series(m["model"], m["curve"], i % COLOURS) for i, m in enumerate(models)]
    rules = [Rule("gate", (0, gate), (chars, gate))] if low <= gate <= high else []
    return chart("Accuracy of the text so far", x, y, series, rules, width=860, height=380)


def calibration_chart(models: list[dict[str, Any]]) -> str:
    low, high = 1e-5, 1 - 1e-5
    axes = [
        Axis(label, low, high, "logit", ODDS_TICKS, lambda p: f"{p:.5f}".rstrip("0"))
        for label in ("probability that was said", "share that came")
    ]
    series = []
    for i, m in enumerate(models):
        shown = [b for b in m["calibration"]["bins"] if low <= b["said"] <= high and low <= b["came"] <= high]
        titles = [f"{m['model']}: said {b['said']:.5g}, came {b['came']:.5g}, {b['n']:,} times" for b in shown]
        series.append(Series(m["model"], [(b["said"], b["came"]) for b in shown], i % COLOURS, marker="dot", titles=titles))
    return chart("Probability against frequency", *axes, series, [Rule("", (low, low), (high, high))], width=620, height=560)


def kinds_side_by_side(models: list[dict[str, Any]]) -> str:
    """Bits per character of each kind, a column of figures and bars for each model."""
    by_model = [{row["kind"]: row for row in m["kinds"]} for m in models]
    most = max(row["bits_per_char"] for rows in by_model for row in rows.values()) or 1.0
    body = []
    for kind, first in by_model[0].items():
        cells = "".join(
            f'<td class="n">{rows[kind]["bits_per_char"]:.3f}</td><td class="bar"><span style="width:{100 * rows[kind]["bits_per_char"] / most:.1f}%;'
            f'background:var(--c{i % COLOURS})"></span></td>'
            for i, rows in enumerate(by_model)
        )
        body.append(f'<tr><td title="{escape(first["about"])}">{kind}</td><td class="n">{first["chars"]:,}</td>{cells}</tr>')
    heads = "".join(f'<th class="n">{escape(m["model"])}</th><th></th>' for m in models)
    head = f'<th>Kind</th><th class="n">Characters</th>{heads}'
    return f'<div class="scroll"><table style="min-width:{260 + 150 * len(models)}px"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
