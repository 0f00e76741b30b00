"""What several test files share: texts, small models, streams on them, and what holds for every stream."""

import functools
import math
from pathlib import Path

import numpy as np
from oracles import ESCAPE

from charstat.counting import build_model

LOBSTER = (
    "The European lobster is a species of clawed lobster from the eastern Atlantic Ocean . It may grow to a length of 60 cm "
    "( 24 in ) and a mass of 6 kilograms ( 13 lb ) , and bears a conspicuous pair of claws .\n"
)


def write_data(directory: Path, train: str, val: str) -> Path:
    """A data directory as --data takes it."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, text in (("train", train), ("valid", val)):
        (directory / f"wiki.{split}.raw").write_bytes(text.encode())
    return directory


@functools.cache
def model_of(text: str, contexts: str = "o0,o1,o2,o3"):
    return build_model(text, contexts=contexts, backend="cpu", threads=1)


def fresh(model, name="mix", **options):
    """A stream at the start of a text."""
    stream = model.char_model(name, **options)
    stream.reset()
    return stream


def after(model, text, name="mix"):
    """A stream that has read a text."""
    stream = fresh(model, name)
    stream.score(text)
    return stream


def assert_distribution(stream):
    """Listed + unlisted = 1, over symbols and over characters; nothing is negative or nan."""
    p = stream.probabilities()
    assert p.dtype == np.float64 and p.shape == (128,)
    assert (p >= 0.0).all() and abs(math.fsum(p) - 1.0) <= 1e-9
    own = stream.alphabet.size
    assert (p[:own] > 0.0).all() and p[ESCAPE] > 0.0 and not p[own:ESCAPE].any()
    listed = stream.predict()
    assert all(q >= 0.0 for q in listed.values()) and stream.unlisted_mass >= 0.0
    assert abs(math.fsum(listed.values()) + stream.unlisted_mass - 1.0) <= 1e-9
    assert list(listed)[:own] == list(stream.alphabet.chars)
    assert [listed[c] for c in stream.alphabet.chars] == p[:own].tolist()
    rare = list(listed)[own:]
    assert rare == (list(stream.alphabet.rare_probabilities) if p[ESCAPE] >= 0.01 else [])


def argmax(listed):
    """The guess of a dictionary: its largest value, the first of equals."""
    return max(listed, key=listed.__getitem__)


def assert_paths_agree(stream, chars):
    """probability() looks at one path of the tree, log_probs() and predict() at all of it, predict_char() at some.

    To be called first at a position: after the whole tree was looked at, a path may be read off it.
    """
    alone = {c: stream.probability(c) for c in chars}
    guess = stream.predict_char()
    p = stream.probabilities()
    with np.errstate(divide="ignore"):
        assert np.array_equal(stream.log_probs(), np.log(p))
    for c in chars:
        s = stream.alphabet.symbol_of.get(c, ESCAPE)
        assert alone[c] == stream.probability(c) == (p[s] * stream.alphabet.rare_probability(c) if s == ESCAPE else p[s])
    assert guess == stream.predict_char() == argmax(stream.predict())
