"""Compare the models that stand on one model's count tables: accuracy, bits per character, speed, memory.

    python bench/models.py MODEL_DIR TEXT_FILE --start 120000 --chars 60000 --models ppm,ppm-inherit,ctw --order 11

The models are those of charstat/registry.py (`--help` lists them), and variants of them that only this benchmark runs:

    ppm-a, -d, -x    ppm with another escape method        ppm-ue         ppm with update exclusion
    ppm-longest      ppm, starting at the longest context  ppm-inherit-static   ppm-inherit, nothing learned online
    ctw-kt           ctw with the KT estimator             ctw-kt1        CTW as published: KT, every count weighs 1

Every row is a run from reset(), with a full distribution at every character (except of the mixture, which searches for the most likely symbol), in one thread.
Speeds are characters per second of CPU time, so that a busy machine does not count; --repeats for their minimum, median and maximum:
guesses and bits, and in the column `all/s` the median of distributions(), which hands the probabilities of all symbols out. `own MB` is what the model holds beside the tables, after the run; `opened` the seconds to open it.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import time
from dataclasses import asdict

import numpy as np

from charstat.charmodel_api import evaluate
from charstat.ctw.model import CTWOptions
from charstat.model import Model
from charstat.registry import CHARACTER_ORDERS, ENTRIES, MODELS, model_named
from charstat.tree import SYMBOLS

VARIANTS = {  # of a model in the registry, by options
    "ppm-a": ("ppm", {"escape": "A"}),
    "ppm-d": ("ppm", {"escape": "D"}),
    "ppm-x": ("ppm", {"escape": "X"}),
    "ppm-ue": ("ppm", {"update_exclusion": True}),
    "ppm-longest": ("ppm", {"start": "longest"}),
    "ppm-inherit-static": ("ppm-inherit", {"online": False}),
    "ctw-kt": ("ctw", {"alpha": 0.5}),
    "ctw-kt1": ("ctw", asdict(CTWOptions())),
}
DEFAULT = [entry.name for entry in ENTRIES if entry.contexts == CHARACTER_ORDERS]
WARM_UP_CHARS = 300  # compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--models", default=",".join(DEFAULT), help=f"with commas: {', '.join([*MODELS, *VARIANTS])}")
    parser.add_argument("--order", default="", help="highest order, or several: 8,11; empty: the model's")
    parser.add_argument("--start", type=int, default=120_000, help="first character of the window")
    parser.add_argument("--chars", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()

    model = Model.load(args.model, verify="fast")
    with open(args.text, encoding="utf-8", newline="") as f:
        f.read(args.start)
        text = f.read(args.chars)
    rows = np.zeros((min(len(text), 60_000), SYMBOLS))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    about = model.manifest["text"]
    start = f", mix starts from {model.warm_start_chars:,} held-out characters" if model.warm_start_chars else ""
    print(f"model {args.model}: {about['chars']:,} characters, {model.n_bytes / 1e6:,.0f} MB of tables{start}")
    print(f"text {args.text} [{args.start:,} : {args.start + len(text):,}], sha256 {digest}; one thread")
    print(
        f"{'model':20}{'order':>6}{'accuracy':>10}{'bits/char':>11}{'chars/s':>10}{'min':>9}{'max':>9}{'all/s':>9}{'own MB':>9}{'opened':>9}"
    )
    for order in [int(o) if o else None for o in args.order.split(",")]:
        for name in args.models.split(","):
            base, options = VARIANTS.get(name, (name, {}))
            if order and model_named(base).contexts == CHARACTER_ORDERS:
                options = {**options, "max_order": order}
            started = time.perf_counter()
            stream = model.char_model(base, **options)
            opened = time.perf_counter() - started
            evaluate(stream, text[:WARM_UP_CHARS])
            stream.reset()
            stream.distributions(text[:WARM_UP_CHARS], rows[:WARM_UP_CHARS])
            speeds, full = [], []
            for _ in range(args.repeats):
                started = time.process_time()
                r = evaluate(stream, text)
                speeds.append(len(text) / (time.process_time() - started))
                stream.reset()
                started = time.process_time()
                stream.distributions(text[: len(rows)], rows)
                full.append(len(rows) / (time.process_time() - started))
            speeds.sort()
            print(
                f"{name:20}{order or model.order:6}{r.accuracy:10.4f}{r.bits_per_char:11.4f}{statistics.median(speeds):10,.0f}"
                f"{speeds[0]:9,.0f}{speeds[-1]:9,.0f}{statistics.median(full):9,.0f}{getattr(stream, 'n_bytes', 0) / 1e6:9,.0f}{opened:8.1f}s",
                flush=True,
            )
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:,.2f} GB, mapped tables included")


if __name__ == "__main__":
    main()
