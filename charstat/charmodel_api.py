"""The streaming contract: CharModel (reset, predict, observe) and its evaluation. Nothing else.

    model.reset()
    for char in text:
        guess = model.predict()        # only from what was observed before
        model.observe(char)            # then learn

Any object with the three methods can be evaluated; the contest's own (cybertronai/wikitext) scores the same way: predict() is a
dictionary whose largest value is the guess (the first of equals; empty is wrong), or a string of one character ("" abstains).
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import numpy as np

from charstat.arguments import check_call, check_text
from charstat.errors import ArgumentError

CURVE_CHARS = (10_000, 20_000, 30_000, 60_000)
CHUNK_CHARS = 4096


class CharModel(ABC):
    """A model of the next character."""

    @abstractmethod
    def reset(self) -> None:
        """Go back to the state as built: no context, nothing learned online."""

    @abstractmethod
    def predict(self) -> dict[str, float]:
        """The probabilities of the next character."""

    @abstractmethod
    def observe(self, char: str) -> None:
        """Take the character that came."""

    def predict_char(self) -> str:
        """The most likely next character; the first of equals; "" if nothing is predicted."""
        probabilities = self.predict()
        return max(probabilities, key=probabilities.__getitem__) if probabilities else ""

    def score(self, text: str) -> np.ndarray:
        """Observe a text; returns the bits of each character, predicted before it was observed: float64 [len(text)]."""
        bits = np.empty(len(text))
        for i, char in enumerate(text):
            p = self.predict().get(char, 0.0)
            bits[i] = -math.log2(p) if p > 0.0 else math.inf
            self.observe(char)
        return bits


@dataclass(frozen=True)
class EvalResult:
    """chars scored; accuracy: share of right guesses; bits_per_char: None if the model gives no probabilities."""

    chars: int
    accuracy: float
    bits_per_char: float | None
    seconds: float
    chars_per_s: float
    curve: dict[int, float] = field(default_factory=dict)  # accuracy of the first n characters
    correct: np.ndarray | None = field(default=None, repr=False, compare=False)  # bool [chars]
    bits: np.ndarray | None = field(default=None, repr=False, compare=False)  # float64 [chars]

    def to_dict(self) -> dict:
        return {k: v for k, v in asdict(self).items() if k not in ("correct", "bits")}


def evaluate(model: CharModel, stream: Iterable[str] | bytes, progress: Callable[[int], None] | None = None) -> EvalResult:
    """Replay the contest's scoring: reset, then for every character predict, score, observe.

    model: anything with the three methods. stream: a text, whole or in pieces; for a model of bytes (its alphabet is of bytes), bytes. Models
    that can guess and score in one compiled loop (guess_and_score(text) -> (guesses, bits)) are asked to; the result is the same. progress: told
    how many characters are done.
    """
    for step in ("reset", "predict", "observe"):
        if not callable(getattr(model, step, None)):
            raise ArgumentError(f"a CharModel has reset(), predict() and observe(); {type(model).__name__} has no {step}()")
    check_call(progress, "progress")
    of_bytes = getattr(getattr(model, "alphabet", None), "of_bytes", False) and isinstance(stream, bytes | bytearray)
    if not isinstance(stream, str) and not of_bytes:
        try:
            pieces = iter(stream)
        except TypeError:  # subtle: an array without dimensions has __iter__, too
            pieces = iter([stream])
        pieces = list(pieces)
        for piece in pieces:
            check_text(piece, "the text to evaluate on, or each piece of it,")
        stream = "".join(pieces)
    text = bytes(stream) if of_bytes else stream
    correct, bits = np.zeros(len(text), bool), np.zeros(len(text))
    started = time.perf_counter()
    model.reset()
    fast = getattr(model, "guess_and_score", None)
    has_bits = True
    for at in range(0, len(text), CHUNK_CHARS):
        piece = text[at : at + CHUNK_CHARS]
        units = [piece[i : i + 1] for i in range(len(piece))]  # subtle: iterating over bytes gives numbers
        if fast is not None:
            guesses, bits[at : at + len(piece)] = fast(piece)
            correct[at : at + len(piece)] = [g == c for g, c in zip(guesses, units, strict=True)]
        else:
            for i, char in enumerate(units, at):
                correct[i], bits[i] = _score_one(model.predict(), char)
                model.observe(char)
            has_bits = has_bits and not np.isnan(bits[at : at + len(piece)]).any()
        if progress:
            progress(at + len(piece))
    seconds = time.perf_counter() - started
    return EvalResult(
        chars=len(text),
        accuracy=float(correct.mean()) if text else 0.0,
        bits_per_char=float(bits.mean()) if text and has_bits else None,
        seconds=seconds,
        chars_per_s=len(text) / seconds if seconds else 0.0,
        curve={n: float(correct[:n].mean()) for n in CURVE_CHARS if n <= len(text)},
        correct=correct,
        bits=bits if has_bits else None,
    )


def _score_one(predicted: dict[str, float] | str, char: str) -> tuple[bool, float]:
    """(was the guess right, bits) of a prediction under either contract; bits are nan if there is only a guess."""
    if isinstance(predicted, str):
        return predicted == char, math.nan
    guess = max(predicted, key=predicted.__getitem__) if predicted else ""
    p = predicted.get(char, 0.0)
    return guess == char, -math.log2(p) if p > 0.0 else math.inf
