"""What the `charstat` command prints on stdout: tables and JSON. For stderr see progress.py, for the lists of `inspect` listings.py.

Each show_*() takes the dictionary that --json prints, and prints it as one JSON object or as tables. Nothing is computed here but
widths, shares and units.
"""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from charstat.registry import DEFAULT_MODEL, model_named

SAMPLE_TITLE = "embedded sample, NOT WikiText"
PLOT_COLUMNS, PLOT_ROWS = 60, 6


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process with status 1


def new_console(no_color: bool = False) -> Console:
    """A console for stdout. no_color: without colours; the variable NO_COLOR does the same."""
    return _Console(highlight=False, soft_wrap=False, no_color=no_color or None)


# results -----------------------------------------------------------------------------------------------------------------


def show_build(result: dict[str, Any], as_json: bool) -> None:
    """The result of a build: one JSON object, or its tables."""
    if as_json:
        return print_json(result)
    rows = [
        ("Text", _text_of(result)),
        ("Characters", f"{result['chars']:,}"),
        ("Order, contexts", _contexts_of(result)),
        *_built_for(result),
        ("Rows", f"{result['rows']:,}"),
        ("Size", format_bytes(result["bytes"])),
        *_cut_to(result),
        (
            "Time",
            f"{format_seconds(result['seconds'])}, {format_seconds(result['read_seconds'])} of it reading{_compiled(result['prepare_seconds'])}",
        ),
        ("Speed", f"{result['chars_per_s']:,.0f} characters/s"),
        ("Counted on", f"{result['device']} ({result['backend']} backend: {result['reason']})"),
        ("Peak memory", format_bytes(result["peak_rss_bytes"])),
        ("Model", result["out"]),
    ]
    parts = [
        facts_table("Build", result["sample"], rows),
        _left(result) if result["pruned"] else None,
        phases_table(result),
        energy_table(result),
    ]
    show(*parts)


def show_eval(result: dict[str, Any], correct: np.ndarray, as_json: bool) -> None:
    """The result of an evaluation: one JSON object, or its tables and the curve."""
    if as_json:
        return print_json(result)
    bits, gate = result["bits_per_char"], result["gate"]
    rows = [
        ("Text", result["data"]["description"]),
        ("Split", result["split"]),
        ("Model", f"{result['model']} (order {result['order']}, {result['preset'] or 'own'} contexts)"),
        *([("Predicted by", _about(result["char_model"]))] if result["char_model"] != DEFAULT_MODEL else []),
        ("Counted from", _text_of({"data": result["built_from"]})),
        ("Characters", f"{result['chars']:,}"),
        ("Accuracy", Text(f"{result['accuracy']:.4f}", "bold")),
        ("Bits per character", "—" if bits is None else f"{bits:.4f}"),
        ("Speed", f"{result['chars_per_s']:,.0f} characters/s, {format_seconds(result['seconds'])} in all"),
        (f"Gate {max(f'{gate:.2f}', f'{gate:g}', key=len)}", _gate(result)),
        *[("Note", Text(text, "yellow")) for text in result["notes"]],
    ]
    show(facts_table("Evaluation", result["sample"], rows), _curve(result), _plot(result, correct))


def show_comparison(result: dict[str, Any], as_json: bool) -> None:
    """Models on one text, one row each; with an ablation, also what each source of the mixture is worth."""
    if as_json:
        return print_json(result)
    text = f"{result['data']['description']}, {result['split']}, {result['chars']:,} characters; order {result['order']}"
    columns = [("Model", "left"), ("Accuracy", "right"), ("Bits/char", "right"), ("Chars/s", "right"), ("Memory", "right")]
    models = new_table(f"Models on {text}", *columns, (f"Gate {result['gate']:g}", "left"))
    for row in result["models"]:
        figures = [f"{row['accuracy']:.4f}", f"{row['bits_per_char']:.4f}", f"{row['chars_per_s']:,.0f}", format_bytes(row["bytes"])]
        models.add_row(row["model"], *figures, _gate({**row, "gate": result["gate"]}, narrow=True))
    parts = [models, facts_table("The models", False, [(row["model"], row["about"]) for row in result["models"]])]
    if "ablation" in result:
        columns = [
            ("Accuracy", "right"),
            ("Bits/char", "right"),
            ("Worth bits", "right"),
            ("Worth accuracy", "right"),
            ("µs/char", "right"),
        ]
        sources = new_table("The mixture without (-) or with (+) each source, and what that source is worth", ("Source", "left"), *columns)
        for row in result["ablation"]:
            worth = ["", ""] if row["worth_bits"] is None else [f"{row['worth_bits']:+.4f}", f"{100 * row['worth_accuracy']:+.2f} pp"]
            sources.add_row(row["source"], f"{row['accuracy']:.4f}", f"{row['bits_per_char']:.4f}", *worth, f"{row['us_per_char']:.1f}")
        parts.append(sources)
    show(*parts, *[Text(note, "yellow") for note in result["notes"]])


def show_model(result: dict[str, Any], as_json: bool) -> None:
    """What a model directory holds."""
    if as_json:
        return print_json(result)
    chars, units = result["chars"], "bytes" if result["bytes_only"] else "characters"
    rows = [
        (
            "Model",
            f"{result['out']}, format {result['format_version']}, charstat {result['charstat_version']}{'; checksums match' if result['checked'] else ''}",
        ),
        ("Text", _text_of(result)),
        (units.capitalize(), "—" if chars is None else f"{chars:,}"),
        ("Text SHA-256", result["text_sha256"] or "—"),
        ("Order, contexts", _contexts_of(result)),
        *_built_for(result),
        ("Size", format_bytes(result["bytes"])),
        *_cut_to(result),
        ("Vocabulary", f"{result['words']:,} words"),
        ("Alphabet", f"{len(result['alphabet'])} {units} with a symbol of their own, {result['rare_chars']:,} rare ones"),
        ("", Text("".join(map(_visible, sorted(result["alphabet"]))), "dim")),
    ]
    if result["device"]:
        rows.append(("Counted on", f"{result['device']} ({result['backend']} backend), {format_seconds(result['counting_seconds'])}"))
    show(facts_table("Model", result["sample"], rows), _left(result), phases_table(result), energy_table(result))


# parts -------------------------------------------------------------------------------------------------------------------


def show(*parts: RenderableType | None, console: Console | None = None) -> None:
    """Print tables and texts on stdout, with an empty line after each; None is skipped."""
    console = console or new_console()
    for part in parts:
        if part is not None:
            console.print(part)
            console.print()


def print_json(result: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""

    def plain(value: Any) -> Any:
        """JSON has no nan and no infinity: they become null."""
        if isinstance(value, dict):
            return {str(key): plain(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if isinstance(value, np.generic):
            value = value.item()
        return None if isinstance(value, float) and not math.isfinite(value) else value

    import click

    click.echo(json.dumps(plain(result), indent=2, allow_nan=False))


def facts_table(title: str, sample: bool, rows: list[tuple[str, str | Text]]) -> Table:
    """A table of labels and values without a heading; sample: the title says that the text is the embedded sample."""
    title = f"{title}: {SAMPLE_TITLE}" if sample else title
    table = Table(title=title, title_justify="left", title_style="bold yellow" if sample else "bold", box=box.ROUNDED, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, value if isinstance(value, Text) else Text(value))
    return table


def new_table(title: str, *columns: tuple[str, str]) -> Table:
    """An empty table; columns: (heading, "left" or "right")."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.ROUNDED, header_style="cyan")
    for heading, justify in columns:
        table.add_column(heading, justify=justify, overflow="fold")
    return table


def _compiled(prepare_s: float) -> str:
    """What compiling took before that time, if it took long enough to have been the compiler."""
    return f"; before that, {format_seconds(prepare_s)} of compiling, only on the first run" if prepare_s >= 1.0 else ""


def _text_of(result: dict[str, Any]) -> str:
    data = result["data"] or {}
    limit = data.get("limit")
    what = data.get("description") or data.get("name") or "— (not recorded in the model)"
    return f"{what}; train cut to its first {limit:,} characters" if limit else what


def _contexts_of(result: dict[str, Any]) -> str:
    return f"{result['order']}, {result['preset'] or 'own'}: {' '.join(result['contexts'])}"


def _about(name: str) -> str:
    return f"{name}: {model_named(name).about}"


def start_text(chars: int, origin: dict | None) -> str:
    """What a warm start of `chars` characters comes from, in words. origin: the other model's start that it began with, if any (carried_start.py)."""
    own = chars - (origin["chars"] if origin else 0)
    learned = f"learned from {own:,} held-out characters"
    if origin is None:
        return learned
    whose = f"that of {origin['path'] or 'a model in memory'}, learned from {origin['chars']:,} characters"
    return f"{whose}; then {learned}" if own else whose


def origin_text(origin: dict) -> str:
    """What a warm start that another model began with could not take from there as it was, in words."""
    found = {
        "contexts that begin cold": ", ".join(origin["cold"]),
        "contexts left out": ", ".join(origin["left_out"]),
        "characters that it did not know": origin["characters"],
        "decisions that it took otherwise": origin["nodes"],
        "classes matched by their words": origin["classes"],
        "selector sets that begin cold": ", ".join(origin["cold_rows"]),
    }
    return "; ".join(f"{what}: {value}" for what, value in found.items() if value) or "everything as it was"


def _built_for(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What a model was built for, if not just the mixture; its tree weights; its warm start."""
    rows = [("Built for", ", ".join(result["models"]))] if result["models"] != [DEFAULT_MODEL] else []
    if (w := result["weights"]) is not None:
        of = f"{w['levels'][0]} to {w['levels'][-1]}, " if w["levels"] else ""
        rows.append(("CTW weights", f"{of}alpha {w['alpha']:g}, {format_bytes(w['bytes'])}"))
    if result["warm_start_chars"]:
        origin = result["warm_start_from"]
        rows.append(("Warm start", start_text(result["warm_start_chars"], origin)))
        rows += [("Carried over", origin_text(origin))] if origin else []
    return rows


def _cut_to(result: dict[str, Any]) -> list[tuple[str, str]]:
    """How a model was cut to a size, what that cost, and in which form it lies on the disk; nothing for one that is whole and mapped."""
    form = [("Form", "packed: one file, decoded when it is loaded; the tables' sizes are those in memory")] if result["packed"] else []
    if (cut := result["pruned"]) is None:
        return form
    limits = [f"at most {cut['max_bytes']:,} bytes"] if cut["max_bytes"] else []
    limits += [f"contexts seen {cut['min_count']:,} times or more"] if cut["min_count"] > 1 else []
    rows = [("Cut to", f"{', '.join(limits)}; what is left is worth {cut['bits_per_byte']:.3g} bits per byte or more")]
    if (cost := cut.get("held_out")) is not None:
        on = f"{cost['before']:.4f} -> {cost['after']:.4f} bits per character on {cost['chars']:,} held-out characters"
        rows.append(("Cost of the cut", f"{cost['after'] - cost['before']:+.4f}: {on}"))
    rows.append(("Words left", f"{result['words']:,} of {cut['words']:,}"))
    return form + rows


def _left(result: dict[str, Any]) -> Table:
    """The tables; of a model that was cut, also what share of their contexts and rows is left."""
    cut = result["pruned"]
    was = cut["tables"] if cut else {}
    more = [("Left", "right")] * 2 if cut else []
    columns = [("Contexts", "right"), *more[:1], ("Rows", "right"), *more[1:], ("Size", "right")]
    table = new_table(
        "Tables" if not cut else "Tables, and the share that the cut has left", ("Context", "left"), ("Kind", "left"), *columns
    )

    def cells(family: dict[str, int], before: dict[str, int] | None) -> list[str]:
        left = [[f"{family[key]:,}", *([f"{family[key] / max(1, before[key]):.1%}"] if before else [])] for key in ("contexts", "rows")]
        return [*left[0], *left[1], format_bytes(family["bytes"])]

    for name, family in result["families"].items():
        table.add_row(name, family["kind"], *cells(family, was.get(name)))
    total, before = (
        {key: sum(t[key] for t in tables.values()) for key in keys}
        for tables, keys in ((result["families"], ("contexts", "rows", "bytes")), (was, ("contexts", "rows")))
    )
    table.add_section()
    table.add_row("all", "", *cells(total, before if cut else None))
    return table


def phases_table(result: dict[str, Any]) -> Table | None:
    """Seconds and joules of each phase; — for joules that were not measured."""
    phases = result["phases"]
    if not phases:
        return None
    table = new_table("Phases", *[("Phase", "left"), ("Seconds", "right"), ("Share", "right"), ("GPU J", "right"), ("CPU J", "right")])
    total_s = sum(phase["seconds"] for phase in phases) or 1.0
    for phase in phases:
        joules = ["—" if phase[key] is None else f"{phase[key]:,.1f}" for key in ("gpu_gross_j", "cpu_j")]
        table.add_row(phase["name"], f"{phase['seconds']:.3f}", f"{phase['seconds'] / total_s:.0%}", *joules)
    return table


def energy_table(result: dict[str, Any]) -> Table | None:
    from charstat.energy import EnergyReport, format_energy

    if not result["energy"]:
        return None
    rows = format_energy(EnergyReport.from_dict(result["energy"]))
    return facts_table("Energy of counting", False, [row for row in rows if not row[0].startswith("Phase ")])


def _gate(result: dict[str, Any], narrow: bool = False) -> Text:
    """Whether the gate was passed, and by how much it was missed; narrow: in at most 17 columns."""
    if result["passed"]:
        return Text("PASS", "bold green")
    missed_pp = 100 * (result["gate"] - result["accuracy"])
    if missed_pp < 0.005:
        return Text("MISSED by less than 0.01 pp", "bold red")
    return Text(f"MISSED by {missed_pp:.{1 if narrow and missed_pp >= 10 else 2}f} pp", "bold red")


def _curve(result: dict[str, Any]) -> Table:
    """The accuracy over the first n characters, and how far it is above the gate."""
    table = new_table("Accuracy over the first characters", ("Characters", "right"), ("Accuracy", "right"), ("Above the gate", "right"))
    points = {int(n): accuracy for n, accuracy in result["curve"].items()} | {result["chars"]: result["accuracy"]}
    for n, accuracy in sorted(points.items()):
        over_pp = 100 * (accuracy - result["gate"])
        table.add_row(f"{n:,}", f"{accuracy:.4f}", Text(f"{over_pp:+.2f} pp", "green" if over_pp >= 0 else "red"))
    return table


def _plot(result: dict[str, Any], correct: np.ndarray) -> Text:
    """The accuracy over the first n characters as an area, with the gate as a line; below it, the accuracy of each stretch of the text."""
    blocks, line = (" ▁▂▃▄▅▆▇█", "┈") if new_console().encoding.startswith("utf") else (" .:-=+*%#", "-")
    columns, gate = min(PLOT_COLUMNS, correct.size), result["gate"]
    ends = np.arange(1, columns + 1) * correct.size // columns
    so_far = np.cumsum(correct)[ends - 1] / ends
    low, high = float(so_far.min()), float(so_far.max())
    if abs(gate - result["accuracy"]) < 0.15:
        low, high = min(low, gate), max(high, gate)
    low, high = math.floor(20 * low) / 20, (math.floor(20 * high) + 1) / 20
    heights = np.rint((so_far - low) / (high - low) * PLOT_ROWS * 8).astype(int)  # in eighths of a row
    gate_row = math.floor((gate - low) / (high - low) * PLOT_ROWS + 1e-9)  # subtle: 0.7 - 0.6 is less than 0.1
    plot = Text("Accuracy so far; below the axis, the accuracy of each stretch by itself\n", "bold")
    for row in reversed(range(PLOT_ROWS)):
        on_gate = row == gate_row
        label = f"{gate:.2f}" if on_gate else f"{low + (high - low) * row / PLOT_ROWS:.2f}" if row % 2 == 0 else ""
        plot.append(f"{label:>6} ", "red" if on_gate else "dim")
        for height in heights:
            level = min(8, max(0, int(height) - 8 * row))
            plot.append(line if on_gate and not level else blocks[level], "red" if on_gate and not level else "green")
        plot.append(" gate\n" if on_gate else "\n", "red")
    alone = np.array([part.mean() for part in np.array_split(correct, columns)])
    least, most = float(alone.min()), float(alone.max())
    levels = 1 + np.rint((alone - least) / (most - least or 1.0) * 7).astype(int)
    plot.append("       " + "".join(blocks[level] for level in levels) + "\n", "cyan")
    plot.append(f"       {0:<{columns - 10}}{result['chars']:>10,}\n", "dim")
    stretch = math.ceil(correct.size / columns)
    plot.append(f"       stretches of {stretch:,} characters: {blocks[1]} {least:.2f} to {blocks[8]} {most:.2f}", "cyan")
    return plot


def _visible(char: str) -> str:
    if char in "\n ":
        return "↵" if char == "\n" else "␣"
    return char if char.isprintable() and not unicodedata.category(char).startswith("M") else f"[{ord(char):04X}]"


def format_bytes(n: int | None) -> str:
    """A size in the unit that fits: 512 bytes, 1.50 MB; — for None."""
    if n is None:
        return "—"
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:,.2f} {unit}"
    return f"{n} bytes"


def format_seconds(s: float | None) -> str:
    """Seconds with two decimals below ten, one above; — for None."""
    return "—" if s is None else f"{s:,.1f} s" if s >= 10 else f"{s:.2f} s"
