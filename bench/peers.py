"""Beside other compressors: charstat and PPMd on the same text, counted first, then scored.

    python bench/peers.py TRAIN TEXT [--sizes 1290000,12000000,100000000] [--orders 8,14] [--held-out 0,1000000] [--ppmd 16]

TRAIN and TEXT are UTF-8 files. For every size, charstat counts the first SIZE characters of TRAIN, and predicts two windows of TEXT with
what it then has: 60,000 characters from the start, and as many from 480,000 on. Each window starts from the model as built; the mixture
goes on learning inside it. Held-out characters are the last ones of those SIZE characters; they are skipped where fewer than half would
be left to count.

A compressor has no table to load, so its cost of the window is a difference of compressed sizes:

    bits = 8 * (size of SIZE characters and the window - size of SIZE characters) / characters of the window

This is the adaptive code length of the window after SIZE characters. PPMd (variant H, Shkarin 2002) runs where the package pyppmd is
installed; it is no dependency of charstat. Any other compressor can be measured in the same way from its command line.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import header

from charstat import build_model, evaluate

WINDOW_CHARS = 60_000
WINDOWS = (0, 480_000)
PPMD_MEMORY_BYTES = 1 << 30


def ppmd_size(text: str, order: int) -> int:
    """Bytes of a text compressed by PPMd variant H of that order."""
    import pyppmd

    encoder = pyppmd.Ppmd7Encoder(order, PPMD_MEMORY_BYTES)
    data = text.encode()
    at, size = 0, 0
    while at < len(data):
        size += len(encoder.encode(data[at : at + (1 << 20)]))
        at += 1 << 20
    return size + len(encoder.flush())


def show(size: int, name: str, cells: list[str]) -> None:
    print(f"{size:>13,}  {name:<32}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("train", type=Path)
    p.add_argument("text", type=Path)
    p.add_argument("--sizes", default="1290000,12000000,100000000")
    p.add_argument("--orders", default="8,14")
    p.add_argument("--contexts", default="default")
    p.add_argument("--held-out", default="0,1000000")
    p.add_argument("--ppmd", default="16", help="orders of PPMd; empty: none")
    a = p.parse_args()
    sizes, orders, held_outs = ([int(n) for n in part.split(",") if n] for part in (a.sizes, a.orders, a.held_out))
    with open(a.train, encoding="utf-8", newline="") as f:
        train = f.read(max(sizes))
    with open(a.text, encoding="utf-8", newline="") as f:
        text = f.read()
    windows = [text[start : start + WINDOW_CHARS] for start in WINDOWS]

    header(f"the first characters of {a.train.name}, then {WINDOW_CHARS:,} of {a.text.name}: accuracy, bits per character")
    show_head = [f"from {start:,}" for start in WINDOWS]
    print(f"{'characters':>13}  {'model':<32}" + "".join(f"{head:>18}" for head in show_head))
    for size in sizes:
        counted = train[:size]
        for order in orders:
            for held_out in held_outs:
                if 2 * held_out > size:
                    continue
                with tempfile.TemporaryDirectory() as directory:
                    model = build_model(counted, order=order, contexts=a.contexts, held_out_chars=held_out, out=f"{directory}/model")
                    stream = model.stream()
                    results = [evaluate(stream, window) for window in windows]
                name = f"{a.contexts}, order {order}" + (f", {held_out:,} held out" if held_out else "")
                show(size, name, [f"{r.accuracy:.4f} {r.bits_per_char:.4f}" for r in results])
        for order in (int(n) for n in a.ppmd.split(",") if n):
            try:
                alone = ppmd_size(counted, order)
            except ImportError:
                print(f"{size:>13,}  PPMd: pyppmd is not installed")
                break
            bits = [8 * (ppmd_size(counted + window, order) - alone) / len(window) for window in windows]
            show(size, f"PPMd, variant H, order {order}", [f"{b:.4f}" for b in bits])


if __name__ == "__main__":
    main()
