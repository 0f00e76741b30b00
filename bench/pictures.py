"""Draws the pictures of bench/pictures/ again from the records in bench/: python bench/pictures.py [--out DIR]

    contest.svg   joules against accuracy: what contest/recorded.json has of other systems, and our own runs, contest/*.json with a "contract"
    chars.svg     bits against characters counted: growth/gate_sweep.json and contest/gate_sweep.json (bench/gate_sweep.py)
    bytes.svg     bits against bytes of the model, from all bench/*.json of this shape; not drawn without any:

        {"kind": "sizes", "title": what was measured, and on which text,
         "rows": [{"series": what belongs together, "name": of the point, "bytes": of the model, "bits_per_char": b}, ...]}

A picture is an SVG that follows the reader's light or dark colours. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from charstat.explaining.charts import COLOURS, Axis, Rule, Series, chart

BENCH = ROOT / "bench"
GATE = 0.70
LOWEST, HIGHEST = 0.64, 0.77  # accuracies that are shown
TICKS = (0.64, 0.66, 0.68, 0.70, 0.72, 0.74, 0.76)
WIDTH, HEIGHT = 860, 500


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def contest(folder: Path) -> str:
    """Joules against accuracy. A ring is not measured."""
    recorded = [s for s in read(folder / "recorded.json")["systems"] if s["accuracy"] >= LOWEST]
    by_dev = [s for s in recorded if s["dev_j"]]
    by_main = [s for s in recorded if not s["dev_j"]]
    runs = {path.name.split("-")[0]: run for path in sorted(folder.glob("*.json")) if (run := read(path)).get("contract") == "dev"}
    ours = [
        (f"charstat {preset}", run["total_energy_J"], run["val_char_accuracy"], run["gpu_gross_J"] is not None)
        for preset, run in runs.items()
    ]
    series = [
        Series("", frontier([(s["dev_j"], s["accuracy"]) for s in by_dev if s["qualified"]]), 0),
        points("recorded", [(s["name"], s["dev_j"], s["accuracy"]) for s in by_dev], 0, "dot"),
        points(
            "recorded by the main rule alone (the GPU beyond 50 W)", [(s["name"], s["main_j"], s["accuracy"]) for s in by_main], 7, "dot"
        ),
    ]
    for name, wanted, marker in (("charstat, measured", True, "dot"), ("charstat, not measured: 50 W × seconds", False, "ring")):
        if rows := [row for *row, measured in ours if measured == wanted]:
            series.append(points(name, rows, 1, marker))
    x = Axis("joules of training by the dev rule, logarithmic", 60, 100_000, "log", form="{:,.0f}".format)
    y = Axis("accuracy on the first 60,000 characters of val", LOWEST, HIGHEST, ticks=TICKS, form="{:.2f}".format)
    return chart("The contest: energy against accuracy", x, y, series, [Rule("the gate", (60, GATE), (100_000, GATE))],
                 width=WIDTH, height=HEIGHT, standalone=True)  # fmt: skip


def points(name: str, rows: list[tuple[str, float, float]], colour: int, marker: str) -> Series:
    titles = [f"{label}: {x:,.0f} J, {y:.4f}" for label, x, y in rows]
    return Series(name, [(x, y) for _, x, y in rows], colour, False, marker, [label for label, _, _ in rows], titles)


def frontier(found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other one beats in both, as a staircase."""
    best = [p for p in sorted(found) if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in found)]
    return best[:1] + [p for a, b in pairwise(best) for p in ((b[0], a[1]), b)]


def chars(paths: list[Path]) -> str | None:
    """Bits against characters counted, a line for each set of contexts; the first file that has a row wins."""
    lines: dict[str, dict[int, float]] = {}
    for path in filter(Path.is_file, paths):
        for row in read(path)["rows"]:
            if row["sample"] == "first" and row["without"] is None:
                name = f"{row['contexts']}, order {row['order']}"
                lines.setdefault(name, {}).setdefault(row["chars"], row["bits"])
        if lines:
            break
    if not lines:
        return None
    series = [Series(name, sorted(of.items()), i % COLOURS, marker="dot") for i, (name, of) in enumerate(sorted(lines.items()))]
    found = [p for each in series for p in each.points]
    x = Axis("characters counted, logarithmic", min(n for n, _ in found) / 1.15, max(n for n, _ in found) * 1.15, "log",
             form=lambda n: f"{n / 1e6:g} M")  # fmt: skip
    low, high = min(b for _, b in found), max(b for _, b in found)
    y = Axis("bits per character", low - 0.02, high + 0.02, form="{:.3g}".format)
    return chart("Bits against characters counted", x, y, series, width=WIDTH, height=HEIGHT - 60, standalone=True)


def sizes(paths: list[Path]) -> str | None:
    """Bits against bytes of the model."""
    found = [about for path in paths if (about := read(path)).get("kind") == "sizes"]
    lines: dict[str, list[dict[str, Any]]] = {}
    for about in found:
        for row in about["rows"]:
            lines.setdefault(row["series"], []).append(row)
    if not lines:
        return None
    series = []
    for i, (name, rows) in enumerate(lines.items()):
        rows.sort(key=lambda row: row["bytes"])
        titles = [f"{row['name']}: {row['bytes']:,} bytes, {row['bits_per_char']:.4f} bits" for row in rows]
        places = [(row["bytes"], row["bits_per_char"]) for row in rows]
        series.append(Series(name, places, i % COLOURS, marker="dot", labels=[row["name"] for row in rows], titles=titles))
    places = [p for each in series for p in each.points]
    x = Axis("bytes of the model, logarithmic", min(n for n, _ in places) / 1.3, max(n for n, _ in places) * 1.3, "log",
             form=lambda n: f"{n / 1e9:g} GB" if n >= 1e9 else f"{n / 1e6:g} MB")  # fmt: skip
    y = Axis("bits per character", min(b for _, b in places) - 0.02, max(b for _, b in places) + 0.02, form="{:.4g}".format)
    return chart("; ".join(about["title"] for about in found), x, y, series, width=WIDTH, height=HEIGHT, standalone=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=BENCH / "pictures")
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    pictures = {
        "contest.svg": contest(BENCH / "contest"),
        "chars.svg": chars([BENCH / "growth" / "gate_sweep.json", BENCH / "contest" / "gate_sweep.json"]),
        "bytes.svg": sizes(sorted(BENCH.glob("*.json"))),
    }
    for name, picture in pictures.items():
        if picture is None:
            print(f"{name}: there are no data for it in bench/")
            continue
        (a.out / name).write_text(picture, encoding="utf-8")
        print(f"{name}: {len(picture.encode()):,} bytes")


if __name__ == "__main__":
    main()
