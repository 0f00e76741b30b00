"""Streaming speed on one core, learning on: python bench/stream.py MODEL TEXT [--chars N] [--from N] [--repeats N]

score                bits of each character, its path only            Mixture.score
most likely          the guess before each character, and its bits    Mixture.guess_and_score
distributions        all 128 probabilities before each character      Mixture.distributions
probabilities        the same, one Python call per step               Mixture.probabilities + observe
predict              the dictionary, one Python call per step         Mixture.predict + observe

Each repeat runs all five after a run that is not counted (JIT, page cache).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import header, spread

from charstat import Model
from charstat.corpus import text_fingerprint


def stepwise(ask, stream, text: str) -> None:
    for char in text:
        ask()
        stream.observe(char)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("text", type=Path)
    p.add_argument("--chars", type=int, default=20_000)
    p.add_argument("--from", type=int, default=120_000, dest="start")
    p.add_argument("--repeats", type=int, default=5)
    a = p.parse_args()
    with open(a.text, encoding="utf-8", newline="") as f:
        text = f.read()[a.start : a.start + a.chars]
    model = Model.load(a.model, verify="fast")
    stream = model.stream()
    header(f"Streaming speed, order {model.order}, {len(stream.contexts)} contexts, one core", text_fingerprint(text))
    ways = {
        "score": lambda: stream.score(text),
        "most likely": lambda: stream.guess_and_score(text),
        "distributions": lambda: stream.distributions(text),
        "probabilities": lambda: stepwise(stream.probabilities, stream, text),
        "predict": lambda: stepwise(stream.predict, stream, text),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(a.repeats + 1):
        for name, run in ways.items():
            stream.reset()
            started = time.perf_counter()
            run()
            if repeat:
                speeds[name].append(len(text) / (time.perf_counter() - started))
    print(f"{'':16} characters/s: median (min .. max) of {a.repeats}")
    for name, values in speeds.items():
        print(f"{name:16} {spread(values)}")


if __name__ == "__main__":
    main()
