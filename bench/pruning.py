"""Bits against bytes: python bench/pruning.py MODEL [MODEL ..] --text TEXT [--windows 480000] [--json FILE] [--svg FILE]

The models are one model cut to several sizes (`charstat prune`), and the whole. Each is scored on every window by its mixture as built: with
its warm start, if it has one. --json adds one object for each model and window to a list in FILE:

    {"bytes": of the model directory, "bits": per character, "accuracy", "order", "characters": counted, "window": [first, characters],
     "form": "mapped" or "packed", "rows"}

A row of the same bytes and window is replaced. --svg draws what FILE holds then, one curve a window (needs the extra `plot`).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from common import header

from charstat import Model, evaluate
from charstat.storage import disk_bytes


def measure(path: Path, text: str, windows: list[int], chars: int) -> list[dict]:
    """The rows of one model, printed as they come."""
    started = time.perf_counter()
    model = Model.load(path)
    load_s = time.perf_counter() - started
    about, stream, rows = model.manifest, model.stream(), []
    for first in windows:
        r = evaluate(stream, text[first : first + chars])
        rows.append({
            "bytes": disk_bytes(about), "bits": round(r.bits_per_char, 4), "accuracy": round(r.accuracy, 4), "order": model.order,
            "characters": about["text"]["chars"], "window": [first, r.chars], "form": "packed" if "packed" in about else "mapped",
            "rows": model.n_rows,
        })  # fmt: skip
        row = rows[-1]
        print(f"{row['bytes']:>15,} {row['form']:>7} {first:>9,} {row['bits']:>10.4f} {row['accuracy']:>9.4f} {load_s:>8.2f}", flush=True)
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """Bits against bytes, one curve a window."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "charstat"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for window in sorted({tuple(row["window"]) for row in rows}):
        points = sorted((row["bytes"], row["bits"], row["form"]) for row in rows if tuple(row["window"]) == window)
        line = axes.plot([p[0] for p in points], [p[1] for p in points], label=f"val from {window[0]:,}, {window[1]:,} characters")[0]
        for form, marker in (("mapped", "o"), ("packed", "s")):
            chosen = [p for p in points if p[2] == form]
            axes.plot([p[0] for p in chosen], [p[1] for p in chosen], marker, color=line.get_color())
    axes.set(xscale="log", xlabel="bytes of the model directory (circles: mapped, squares: packed)", ylabel="bits per character")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", type=Path, nargs="*")
    p.add_argument("--text", type=Path)
    p.add_argument("--windows", default="480000")
    p.add_argument("--chars", type=int, default=60_000)
    p.add_argument("--json", type=Path)
    p.add_argument("--svg", type=Path)
    a = p.parse_args()
    rows = json.loads(a.json.read_text()) if a.json and a.json.exists() else []
    if a.models:
        text = a.text.read_text(encoding="utf-8") if a.text else p.error("--text is missing")
        header("Bits against bytes")
        print(f"{'bytes':>15} {'form':>7} {'window':>9} {'bits/char':>10} {'accuracy':>9} {'load s':>8}")
    for path in a.models:
        for row in measure(path, text, [int(w) for w in a.windows.split(",")], a.chars):
            rows = [r for r in rows if (r["bytes"], r["window"]) != (row["bytes"], row["window"])] + [row]
        if a.json:
            ordered = sorted(rows, key=lambda r: (r["window"], -r["bytes"]))
            a.json.write_text("[\n" + ",\n".join(" " + json.dumps(r) for r in ordered) + "\n]\n")
    if a.svg:
        draw(rows, a.svg)


if __name__ == "__main__":
    main()
