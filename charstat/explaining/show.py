"""`charstat explain` in a terminal: the text in colours, or over rows of digits where there are none, then tables of totals."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len
from rich.text import Text

from charstat.explaining.kinds import named, shown
from charstat.explaining.page import EDGES, level
from charstat.report import facts_table, new_console, new_table, print_json, show

# By bits, the backgrounds of the dark page, with a foreground for terminals of either kind; one with fewer colours takes its nearest.
STYLES = (
    "", "white on #4d3220", "white on #683a1c", "white on #86441a", "white on #b0551a", "black on #dd7a1c", "black on #f7ab35", "black on #ffd75f",
    "black on #ff8787", "white on #d7005f",
)  # fmt: skip
SURPRISES, CONTEXT_CHARS, SOURCES = 8, 24, 12
WIDE = 110  # columns of a terminal with room for what a source looks at


def show_explanation(result: dict[str, Any], as_json: bool, no_color: bool = False) -> None:
    """One JSON object, or the text with its bits, the most expensive characters, and totals."""
    if as_json:
        return print_json(result)
    console = new_console(no_color)
    coloured = console.color_system is not None and not console.no_color
    rows = [
        ("Text", f"{result['source']['name']}: {result['source']['about']}"),
        ("Model", f"{result['model']}, {result['predictor']}"),
        ("Bits per character", Text(f"{result['bits_per_char']:.4f}", "bold")),
        ("Guessed", f"{result['accuracy']:.2%}"),
        *[("Note", Text(note, "yellow")) for note in result["notes"]],
        *([("Page", result["out"])] if result["out"] else []),
    ]
    parts = [facts_table("Explanation", False, rows)]
    if not result["out"]:
        parts.append(heat_map(result) if coloured else digits(result, console.width))
        parts.append(surprises(result))
    show(*parts, kinds_table(result), sources_table(result, console.width), console=console)


def heat_map(result: dict[str, Any]) -> Text:
    """The text, each character on the colour of its bits, and the colours' legend."""
    text = Text()
    last = 0
    for c in result["characters"]:
        if c["window"] != last:
            text.append("\n[…]\n", "dim")
            last = c["window"]
        text.append(shown(c["char"]), STYLES[level(c["bits"])])
        if c["char"] == "\n":
            text.append("\n")
    text.append("\n\nbits from ", "dim")
    for edge, style in zip((0.0, *EDGES), STYLES, strict=True):
        text.append(f" {edge:g} ", style)
    return text


def digits(result: dict[str, Any], width: int) -> Text:
    """The text in rows, and under each character its bits, rounded; + for more than 9."""
    text = Text()
    for window, _ in enumerate(result["source"]["windows"]):
        if window:
            text.append("[…]\n")
        line, under = "", ""
        for c in (c for c in result["characters"] if c["window"] == window):
            char = shown(c["char"])
            if cell_len(line) + cell_len(char) > width:
                text.append(f"{line}\n{under}\n")
                line, under = "", ""
            digit = str(round(c["bits"])) if c["bits"] < 9.5 else "+"
            line, under = line + char, under + digit + " " * (cell_len(char) - 1)
            if c["char"] == "\n":
                text.append(f"{line}\n{under}\n")
                line, under = "", ""
        if line:
            text.append(f"{line}\n{under}\n")
    text.append("under each character: its bits, rounded; + for 10 and more")
    return text


def surprises(result: dict[str, Any]) -> object:
    """The most expensive characters, with what came before and what was expected."""
    characters = result["characters"]
    table = new_table("What cost most", ("Before", "right"), ("Came", "left"), ("Bits", "right"), ("Expected", "left"))
    for i in sorted(sorted(range(len(characters)), key=lambda i: -characters[i]["bits"])[:SURPRISES]):
        start = max([0, i - CONTEXT_CHARS, *(j + 1 for j in range(i) if characters[j]["window"] != characters[i]["window"])])
        before = "".join(shown(c["char"]) for c in characters[start:i])
        expected = "  ".join(f"{named(c)} {p:.1%}" for c, p in characters[i]["top"][:3])
        table.add_row(Text(before), Text(named(characters[i]["char"])), f"{characters[i]['bits']:.1f}", Text(expected))
    return table


def kinds_table(result: dict[str, Any]) -> object:
    """Totals by kind of character."""
    columns = (("Kind", "left"), ("Characters", "right"), ("Bits each", "right"), ("Guessed", "right"), ("Of all bits", "right"))
    table = new_table("By kind of character", *columns)
    for row in result["kinds"]:
        table.add_row(row["kind"], f"{row['chars']:,}", f"{row['bits_per_char']:.3f}", f"{row['accuracy']:.1%}", f"{row['share']:.1%}")
    return table


def sources_table(result: dict[str, Any], width: int) -> object | None:
    """The sources that say most, by their mean contribution to the logits."""
    rows = sorted((row for row in result["sources"] if row["spoke"]), key=lambda row: -abs(row["contribution"]))
    if not rows:
        return None
    columns = [("Source", "left"), ("Spoke", "right"), ("Was right", "right"), ("Contribution", "right")]
    columns += [("What it looks at", "left")] if width >= WIDE else []
    table = new_table("What the sources said, the loudest first", *columns)
    table.caption = "Contribution: to the logits of a character's decisions; + speaks for the character that came"
    table.caption_justify = "left"
    for row in rows[:SOURCES]:
        table.add_row(
            row["label"], f"{row['spoke']:.0%}", f"{row['for_it']:.0%}", f"{row['contribution']:+.3f}", *[row["about"]][: width >= WIDE]
        )
    if len(rows) > SOURCES:
        rest = sum(row["contribution"] for row in rows[SOURCES:])
        table.add_row(f"{len(rows) - SOURCES} others", "", "", f"{rest:+.3f}")
    return table
