"""Sums that no change of structure may change: python tests/known_sums.py [--write]

One text, made here, counted in four ways and read by every model. `--write` records what comes out in known_sums.json; without it
the sums are printed, with a SHA-256 of every array, to hold two checkouts on one machine against each other bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).with_suffix(".json")
COUNTED_CHARS, HELD_OUT_CHARS, SCORED_CHARS = 60_000, 6_000, 9_000  # scored: more than two blocks of a stream
BUILDS = {
    "default-8": {"order": 8},
    "wide-14": {"order": 14, "contexts": "wide"},
    "start-6": {"order": 6, "held_out_chars": HELD_OUT_CHARS},
    "ctw-11": {"order": 11, "models": ("ctw",)},
}
READERS = {
    "default-8": ("ppm", "ppmc", "ppmd", "ctw", "ngram", "match", "mix", "advised"),
    "wide-14": ("mix",),
    "start-6": ("mix", "advised"),
    "ctw-11": ("ctw",),
}


def made_text(chars: int) -> str:
    """Text of every kind of character: words of Zipf's frequencies, names, numbers, quotes, headings, characters too rare for a symbol."""
    r = random.Random(9)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = [
        "".join(r.choice(letters[: 6 + r.randrange(20)]) for _ in range(1 + min(r.randrange(9), r.randrange(12)))) for _ in range(3000)
    ]
    rare = [chr(0x4E00 + i) for i in range(150)]
    out, n = [], 0
    while n < chars:
        word = words[min(int(r.paretovariate(0.7)) - 1, len(words) - 1)]
        kind = r.random()
        if kind < 0.08:
            word = word.capitalize()
        elif kind < 0.11:
            word = str(r.randrange(10 ** r.randrange(1, 5)))
        elif kind < 0.13:
            word = f'" {word} "'
        elif kind < 0.14:
            word = r.choice(rare) * r.randrange(1, 3)
        elif kind < 0.145:
            word = word * 12
        elif kind < 0.15:
            word = f"\n = {word.capitalize()} = \n\n"
        word += r.choice((" ", " ", " ", " ", " ", " ", " ", " , ", " . ", " – "))
        out.append(word)
        n += len(word)
    return "".join(out)[:chars]


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def measure() -> tuple[dict, dict]:
    """(what is recorded: table digests, sums of bits; SHA-256 of what a model said)."""
    from charstat import build_model

    text = made_text(COUNTED_CHARS + SCORED_CHARS)
    counted, scored = text[:COUNTED_CHARS], text[COUNTED_CHARS:]
    sums: dict = {}
    exact: dict = {}
    for name, options in BUILDS.items():
        model = build_model(counted, threads=2, backend="cpu", **options)
        tables = {column: digest(values) for column, values in model.columns.items()}
        sums[name] = {"tables": tables, "betas": float(model.betas.sum(dtype=np.float64)), "bits": {}, "guesses": {}}
        exact[name] = {"betas": digest(model.betas), "start": digest(model.start)}
        for reader in READERS[name]:
            stream = model.char_model(reader)
            stream.reset()
            guesses, bits = stream.guess_and_score(scored)
            stream.reset(keep_learning=True)
            rows = np.array([stream.probabilities().copy() for c in scored[:40] if stream.observe(c) is None])
            sums[name]["bits"][reader] = float(bits.sum())
            sums[name]["guesses"][reader] = sum(g == c for g, c in zip(guesses, scored, strict=True))
            exact[name][reader] = [digest(bits), digest(rows), hashlib.sha256("".join(guesses).encode()).hexdigest()[:16]]
    return sums, exact


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--write", action="store_true")
    sums, exact = measure()
    if p.parse_args().write:
        RECORDED.write_text(json.dumps(sums, indent=1) + "\n")
    print(json.dumps({"sums": sums, "exact": exact}, indent=1))


if __name__ == "__main__":
    main()
