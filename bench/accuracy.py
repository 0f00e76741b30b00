"""Accuracy and bits per character: python bench/accuracy.py MODEL [MODEL ..] --text TEXT [--windows 0,200000,..]

One row per window of the text, the model's mixture as built at the start of each: cold, or with what it learned from held-out text, which
the title says then. The contest's score is the window that starts at 0; tune on the others, so that over-fitting shows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import header

from charstat import Model, evaluate


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", type=Path, nargs="+")
    p.add_argument("--text", type=Path, required=True)
    p.add_argument("--windows", default="0,200000,480000,720000")
    p.add_argument("--chars", type=int, default=60_000)
    a = p.parse_args()
    with open(a.text, encoding="utf-8", newline="") as f:
        text = f.read()
    for path in a.models:
        model = Model.load(path, verify="fast")
        counted = model.manifest["text"]
        title = f"{path.name}: order {model.order}, contexts {model.manifest.get('preset')}, {model.n_rows:,} rows, {model.n_bytes / 1e9:.2f} GB"
        stream = model.stream()
        header(title + (f", start from {stream.warm_start_chars:,} held-out characters" if stream.warm_start_chars else ""), counted)
        print(f"{'window':>20} {'accuracy':>9} {'bits/char':>10} {'chars/s':>9}")
        for start in (int(w) for w in a.windows.split(",")):
            r = evaluate(stream, text[start : start + a.chars])
            print(f"{start:>9,} + {r.chars:>8,} {r.accuracy:>9.4f} {r.bits_per_char:>10.4f} {r.chars_per_s:>9,.0f}", flush=True)
        print()


if __name__ == "__main__":
    main()
