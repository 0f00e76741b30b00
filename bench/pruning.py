"""Bits against bytes: python bench/pruning.py MODEL [MODEL ..] --text TEXT [--windows 480000] [--json FILE]

The models are one model cut to several sizes (`charstat prune`), and the whole. Each is scored on every window by its mixture as built: with
its warm start, if it has one. --json adds a row for each model and window to FILE, which bench/pictures.py draws:

    {"kind": "sizes", "title": ..., "rows": [{"series": window and form, "name": the size, "bytes": of the model directory, "bits_per_char",
     "accuracy", "order", "characters": counted, "window": [first, characters], "form": "mapped" or "packed", "rows"}, ...]}

A row of the same bytes and window is replaced.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from common import header

from charstat import Model, evaluate
from charstat.storage import disk_bytes

TITLE = "Bits against bytes of a model that was cut to several sizes"


def measure(path: Path, text: str, windows: list[int], chars: int) -> list[dict]:
    """The rows of one model, printed as they come."""
    started = time.perf_counter()
    model = Model.load(path)
    load_s = time.perf_counter() - started
    about, stream, rows = model.manifest, model.stream(), []
    for first in windows:
        r = evaluate(stream, text[first : first + chars])
        size, form = disk_bytes(about), "packed" if "packed" in about else "mapped"
        rows.append({
            "series": f"val from {first:,}, {form}", "name": f"{size / 1e6:,.4g} MB",
            "bytes": size, "bits_per_char": round(r.bits_per_char, 4), "accuracy": round(r.accuracy, 4), "order": model.order,
            "characters": about["text"]["chars"], "window": [first, r.chars], "form": form,
            "rows": model.n_rows,
        })  # fmt: skip
        row = rows[-1]
        print(
            f"{row['bytes']:>15,} {row['form']:>7} {first:>9,} {row['bits_per_char']:>10.4f} {row['accuracy']:>9.4f} {load_s:>8.2f}",
            flush=True,
        )
    return rows


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", type=Path, nargs="+")
    p.add_argument("--text", type=Path, required=True)
    p.add_argument("--windows", default="480000")
    p.add_argument("--chars", type=int, default=60_000)
    p.add_argument("--json", type=Path)
    a = p.parse_args()
    rows = json.loads(a.json.read_text())["rows"] if a.json and a.json.exists() else []
    with open(a.text, encoding="utf-8", newline="") as f:
        text = f.read()
    header("Bits against bytes")
    print(f"{'bytes':>15} {'form':>7} {'window':>9} {'bits/char':>10} {'accuracy':>9} {'load s':>8}")
    for path in a.models:
        for row in measure(path, text, [int(w) for w in a.windows.split(",")], a.chars):
            rows = [r for r in rows if (r["bytes"], r["window"]) != (row["bytes"], row["window"])] + [row]
        if a.json:
            ordered = sorted(rows, key=lambda r: (r["window"], -r["bytes"]))
            head = json.dumps({"kind": "sizes", "title": TITLE})[:-1]
            a.json.write_text(head + ', "rows": [\n' + ",\n".join(" " + json.dumps(r) for r in ordered) + "\n]}\n")


if __name__ == "__main__":
    main()
