"""Compare the models that stand on one model's count tables: accuracy, bits per character, speed, memory.

    python bench/models.py MODEL_DIR TEXT_FILE --start 120000 --chars 60000 --models ppmc,ppm,inherit,ctw,kn --order 11

    kn        interpolated modified Kneser-Ney, static
    ppmc      PPM-C as published, every count 1 wherever it was made
    ppm       PPM-C with online counts weighted and fading, and deterministic contexts first
    inherit   PPM with information inheritance and SEE
    ctw-kt1   context-tree weighting as published, KT, every count 1
    ctw       context-tree weighting, alpha 0.3, online counts weighted and fading; ctw-kt: the same with alpha 1/2 (KT)
    mix       the mixture (mixers/)

Every row is a run from reset(), with a full distribution at every character (but for mix, which searches the most likely one), in one thread.
Speeds are characters per second of CPU time, so that a busy machine does not count; --repeats for their minimum, median and maximum:
guesses and bits, and in the column `all/s` the median of distributions(), which hands the probabilities of all symbols out. `own MB` is what the model holds beside the tables, after the run; `opened` the seconds to open it.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import time

import numpy as np

from charstat.charmodel_api import evaluate
from charstat.ctw import CTW_TUNED, ContextTreeWeighting
from charstat.model import Model
from charstat.ngram.interpolated import KneserNey
from charstat.ppm import PPMC, PPMC_TUNED, InheritingPPM
from charstat.tree import SYMBOLS

MODELS = {
    "kn": (KneserNey, {}),
    "ppmc": (PPMC, {}),
    "ppm": (PPMC, PPMC_TUNED),
    "ppm-a": (PPMC, {**PPMC_TUNED, "escape": "A"}),
    "ppm-d": (PPMC, {**PPMC_TUNED, "escape": "D"}),
    "ppm-x": (PPMC, {**PPMC_TUNED, "escape": "X"}),
    "ppm-ue": (PPMC, {**PPMC_TUNED, "update_exclusion": True}),
    "ppm-longest": (PPMC, {**PPMC_TUNED, "start": "longest"}),
    "inherit": (InheritingPPM, {}),
    "inherit-static": (InheritingPPM, {"online": False}),
    "ctw-kt1": (ContextTreeWeighting, {}),
    "ctw-kt": (ContextTreeWeighting, {**CTW_TUNED, "alpha": 0.5}),
    "ctw": (ContextTreeWeighting, CTW_TUNED),
    "mix": (None, {}),
}
WARM_UP_CHARS = 300  # compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--models", default="kn,ppmc,ppm,inherit,ctw-kt1,ctw", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--order", default="", help="highest order, or several: 8,11; empty: the model's")
    parser.add_argument("--start", type=int, default=120_000, help="first character of the window")
    parser.add_argument("--chars", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()

    model = Model.load(args.model, verify=False)
    with open(args.text, encoding="utf-8", newline="") as f:
        f.read(args.start)
        text = f.read(args.chars)
    rows = np.zeros((min(len(text), 60_000), SYMBOLS))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    about = model.manifest["text"]
    start = f", mix starts from {model.start_chars:,} held-out characters" if model.start_chars else ""
    print(f"model {args.model}: {about['chars']:,} characters, {model.n_bytes / 1e6:,.0f} MB of tables{start}")
    print(f"text {args.text} [{args.start:,} : {args.start + len(text):,}], sha256 {digest}; one thread")
    print(
        f"{'model':15}{'order':>6}{'accuracy':>10}{'bits/char':>11}{'chars/s':>10}{'min':>9}{'max':>9}{'all/s':>9}{'own MB':>9}{'opened':>9}"
    )
    for order in [int(o) if o else None for o in args.order.split(",")]:
        for name in args.models.split(","):
            make, options = MODELS[name]
            started = time.perf_counter()
            if make is None:
                stream = model.stream()
            else:
                stream = make(model, max_order=order, **options)
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
                f"{name:15}{order or model.order:6}{r.accuracy:10.4f}{r.bits_per_char:11.4f}{statistics.median(speeds):10,.0f}"
                f"{speeds[0]:9,.0f}{speeds[-1]:9,.0f}{statistics.median(full):9,.0f}{getattr(stream, 'n_bytes', 0) / 1e6:9,.0f}{opened:8.1f}s",
                flush=True,
            )
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:,.2f} GB, mapped tables included")


if __name__ == "__main__":
    main()
