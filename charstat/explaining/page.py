"""The page of `charstat explain`: one HTML file with its style, its script and its data inside. It asks nothing of the network.

The tables of totals are plain HTML; the script (explain.js) fills the panel with the character under the pointer from the data below.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from charstat.explaining.charts import DARK_VARIABLES, LIGHT_VARIABLES, STYLE
from charstat.explaining.kinds import BREAKS, KINDS, shown

EDGES = (0.1, 0.3, 0.7, 1.3, 2.0, 3.0, 4.5, 6.5, 9.0)  # bits: where the next colour starts
LISTED = 20  # sources in the table before "the others"
LIGHT_HEAT = ("#fff7d1", "#ffeda0", "#fed976", "#feb24c", "#fd9a4c", "#fb6a3a", "#e2321f", "#b90c27", "#7a0429")
DARK_HEAT = ("#26231f", "#372a20", "#4d3220", "#683a1c", "#86441a", "#b0551a", "#dd7a1c", "#f7ab35", "#ffe08a")
LIGHT_INK = ("#1c1206", "#ffffff", "#ffffff", "#ffffff")  # of the four hottest
DARK_INK = ("#ffffff", "#1c1206", "#1c1206", "#1c1206")


def level(bits: float) -> int:
    """The colour of so many bits: 0 to 9."""
    return bisect_right(EDGES, bits)


@cache
def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _variables(plain: str, card: str, miss: str, heat: tuple[str, ...], ink: tuple[str, ...]) -> str:
    heat_of = " ".join(f"--h{i}: {value};" for i, value in enumerate(heat, 1))
    ink_of = " ".join(f"--t{i}: {value};" for i, value in enumerate(ink, 10 - len(ink)))
    return f"{plain} --card: {card}; --miss: {miss}; {heat_of} {ink_of}"


def html_page(title: str, body: str, script: str = "") -> str:
    """A whole page around a body, in the colours that the reader's system prefers."""
    light = _variables(LIGHT_VARIABLES, "#ffffff", "#8a949e", LIGHT_HEAT, LIGHT_INK)
    dark = _variables(DARK_VARIABLES, "#191d22", "#7c8894", DARK_HEAT, DARK_INK)
    colours = f":root {{ color-scheme: light dark; {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{colours}{_file("page.css")}{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
{script}</body>
</html>
"""


def explain_page(result: dict[str, Any]) -> str:
    """The page of what explain_sample() found, with the facts that the command adds."""
    name, predictor = Path(result["source"]["name"]).name, result["predictor"]
    taken = f"{escape(result['source']['about'])}. Model: {escape(result['model'])}, {escape(predictor)}."
    figures = (
        f"<strong>{result['bits_per_char']:.4f} bits per character</strong>, {result['bits']:,.1f} bits in all; "
        f"{result['accuracy']:.2%} of the characters guessed."
    )
    hint = "Point at a character, or tap it, to see what the model expected and why. A click pins it; the arrow keys move on."
    body = [
        f"<h1>{escape(name)}: what the model expected</h1>",
        *[f'<p class="facts">{row}</p>' for row in (taken, figures)],
        *[f'<p class="note">{escape(note)}</p>' for note in result["notes"]],
        '<div class="explained">\n<div class="card">',
        f'<div class="text" tabindex="0" role="group" aria-label="the text, coloured by bits">{heat_map(result)}</div>\n{_legend()}\n</div>',
        f'<aside id="panel" class="card" data-hint="{hint}"><p class="muted">{hint}</p></aside>\n</div>',
        '<div class="totals">',
        f"<section><h2>By kind of character</h2>{kinds_table(result['kinds'])}</section>",
        f"<section><h2>By source</h2>{sources_table(result['sources'])}</section>" if result["sources"] else _no_sources(predictor),
        "</div>",
    ]
    data = json.dumps(packed(result), ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    script = f'<script type="application/json" id="data">{data}</script>\n<script>\n{_file("explain.js")}</script>\n'
    return html_page(f"{name}: bits by character", "\n".join(body), script)


def heat_map(result: dict[str, Any]) -> str:
    """Every character as an <i> whose class is its colour; underlined if it was not guessed."""
    windows = result["source"]["windows"]
    parts, last = [], None
    for c in result["characters"]:
        if c["window"] != last and len(windows) > 1:
            parts.append(f'<span class="cut">from byte {windows[c["window"]]["at"]:,} on</span>')
        last = c["window"]
        name = f"h{level(c['bits'])}" + ("" if c["right"] else " wrong")
        parts.append(f'<i class="{name}">{escape(shown(c["char"]))}</i>' + ("\n" if c["char"] in BREAKS and c["char"] != "\r" else ""))
    return "".join(parts)


def _legend() -> str:
    edges = ["0", *(f"{edge:g}" for edge in EDGES)]
    swatches = "".join(f'<i class="h{i}">{edge}</i>' for i, edge in enumerate(edges))
    return f'<p class="legend">bits from&nbsp;{swatches}&nbsp;on; underlined: not the guess</p>'


def kinds_table(rows: list[dict[str, Any]]) -> str:
    """Totals by kind of character."""
    most = max(row["share"] for row in rows) or 1.0
    body = "".join(
        f'<tr><td title="{escape(row["about"])}">{row["kind"]}</td><td class="n">{row["chars"]:,}</td>'
        f'<td class="n">{row["bits_per_char"]:.3f}</td><td class="n">{row["accuracy"]:.1%}</td><td class="n">{row["share"]:.1%}</td>'
        f'<td class="bar"><span style="width:{100 * row["share"] / most:.1f}%"></span></td></tr>'
        for row in rows
    )
    heads = '<th>Kind</th><th class="n">Characters</th><th class="n">Bits each</th><th class="n">Guessed</th><th class="n">Of all bits</th><th></th>'
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def sources_table(rows: list[dict[str, Any]]) -> str:
    """Totals by source, the loudest first."""
    most = max(abs(row["contribution"]) for row in rows) or 1.0
    body = []
    for row in sorted((row for row in rows if row["spoke"]), key=lambda row: -abs(row["contribution"])):
        size = 50 * abs(row["contribution"]) / most
        side = f'left:{50 - size:.1f}%;width:{size:.1f}%" class="against' if row["contribution"] < 0 else f"left:50%;width:{size:.1f}%"
        body.append(
            f'<tr><td title="{escape(row["about"])}">{escape(row["label"])}</td><td class="n">{row["spoke"]:.0%}</td>'
            f'<td class="n">{row["for_it"]:.0%}</td><td class="n">{_signed(row["contribution"])}</td>'
            f'<td class="sides"><span style="{side}"></span></td></tr>'
        )
    heads = '<th>Source</th><th class="n">Spoke</th><th class="n">Was right</th><th class="n">Contribution</th><th></th>'
    head = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>'
    table = f"{head}{''.join(body[:LISTED])}</tbody></table></div>"
    if len(body) > LISTED:
        rest = f"{head}{''.join(body[LISTED:])}</tbody></table></div>"
        table += f"<details><summary>The other {len(body) - LISTED}</summary>{rest}</details>"
    what = (
        "A context by itself stands for its counts of the text that was built from, <em>here</em> for those of this text. Spoke: at so many of the characters. Was right: so many of those times it spoke for the character that came. Contribution: what it "
        "adds to the logits of a character's decisions, on average; what is positive speaks for the character that came."
    )
    return f'{table}<p class="muted">{what}</p>'


def _no_sources(predictor: str) -> str:
    return (
        f"<section><h2>By source</h2><p>Only the mixture has sources to tell apart: {escape(predictor)} makes its probabilities in one "
        "piece.</p></section>"
    )


def packed(result: dict[str, Any]) -> dict[str, Any]:
    """What explain.js reads: lists in place of dictionaries, numbers rounded to what is shown."""

    def more(c: dict[str, Any]) -> list[Any]:
        match = c["match"] and [c["match"]["length"], c["match"]["expected"]]
        decisions = [
            [d["node"], d["bit"], _short(d["probability"]), round(d["mixer"], 3), round(d["last_stage"], 3), round(d["even"], 3)]
            for d in c["decisions"]
        ]
        sources = [
            [s["source"], round(s["seen"], 1), round(s["followed"], 1), round(s["evidence"], 2), round(s["weight"], 3), round(s["contribution"], 3)]
            for s in c["sources"]
        ]  # fmt: skip
        orders = [c["order"]["counted"], c["order"]["here"]]
        beside = c["last_stage"], c["shared_evenly"]
        total = math.fsum([*beside, *(s["contribution"] for s in c["sources"])])
        sums = [round(x, 3) for x in (*beside, total)]
        return [round(c["rare_bits"], 3), orders, match, list(c["classes"].items()), decisions, *sums, sources]

    chars = [
        [
            c["char"], round(c["bits"], 4), _short(c["probability"]), int(c["right"]), c["guess"], KINDS.index(c["kind"]),
            [[char, _short(p)] for char, p in c["top"]], *([more(c)] if "sources" in c else []),
        ]
        for c in result["characters"]
    ]  # fmt: skip
    sources = [[row["label"], row["about"]] for row in result["sources"]]
    return {"kinds": KINDS, "sources": sources, "nodes": [[n["zero"], n["one"]] for n in result["nodes"]], "chars": chars}


def _signed(x: float) -> str:
    return f"{x:+.3f}".replace("-", "−")


def _short(p: float) -> float:
    return float(f"{p:.5g}")
