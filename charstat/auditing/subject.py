"""What an audit can ask of a model. A model is any object with reset() and one of these ways to charge for text:

    score(text) -> bits of each character, float [len(text)]; observes the text            characters
    predict() -> {character: P}, and observe(character)                                    characters, one at a time
    predict() -> a character, and observe(character)                                       guesses: only causality can be seen
    nll(ids) -> nats of each token, float [len(ids)]; observes the ids                     tokens, with vocab_size, token_bytes
                                                                                           (the bytes of each) and encode(text)

score() or nll() is what is charged, so that is what the audit adds up over all that could have come: what depends on the target shows
there and nowhere else. Where a model has predict() as well, the two must agree. fork() saves replaying the text for every question; it
is believed as far as replays agree with it. claims(text) -> {"bits_per_char", "bits_per_byte", "bits", "chars", "bytes"}, any of them,
are figures that the model reports of itself, after a run over the text.
"""

from __future__ import annotations

import inspect
import math
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from charstat.alphabet import bytes_of, text_of
from charstat.errors import UserError

Units = str | np.ndarray
FIRST_CHARS = string.printable  # what could have come, where the model does not say


def guarded(what: str, call: Callable, *args: Any) -> Any:
    """The call's result; what it raises becomes one line that says where."""
    try:
        return call(*args)
    except UserError:
        raise
    except (Exception, SystemExit) as e:  # subtle: a model that exits with 0 would look clean
        raise UserError(f"{what} raised {type(e).__name__}: {e}") from e


class Subject:
    """A model of characters. units: what it charges for, in a sequence that can be cut: here, the text itself.

    alphabet: the units that could come; complete: whether nothing else could.
    """

    unit, complete, is_guess = "character", False, False

    def __init__(self, source: Any, text: str):
        self.text, self.units, self.model = text, text, None
        self.encoded: bytes = text.encode("utf-8", "surrogatepass")
        is_factory = inspect.isclass(source) or not (hasattr(source, "reset") or hasattr(source, "nll"))
        if is_factory and not callable(source):
            raise UserError(f"cannot audit {type(source).__name__}: give a model with reset() and score() or predict(), or what makes one")
        self.factory: Callable[[], Any] | None = source if is_factory else None
        self.model = self._make() if is_factory else source
        self.name = getattr(self.model, "name", None) or type(self.model).__name__
        self.asks = callable(getattr(self.model, "predict", None)) and callable(getattr(self.model, "observe", None))
        self.forks = callable(getattr(self.model, "fork", None))
        if not callable(getattr(self.model, "reset", None)):
            raise UserError(f"{self.name} has no reset(): the audit must be able to start the text again")

    def _make(self) -> Any:
        return self.guarded("the factory", self.factory)

    guarded = staticmethod(guarded)

    def fresh(self, new: bool = False) -> Any:
        """The model at the start of a text. new: another instance, where there is a factory."""
        model = self._make() if new and self.factory else self.model
        self.guarded(f"{self.name}.reset()", model.reset)
        return model

    def fork(self, model: Any) -> Any:
        return self.guarded(f"{self.name}.fork()", model.fork)

    def join(self, *parts: Units) -> Units:
        return "".join(parts)

    def one(self, unit: Any) -> Units:
        """A single unit, as a sequence of units."""
        return unit

    def charge(self, model: Any, units: Units) -> np.ndarray:
        """Observe units: the bits that the model charges for each, float64 [n]. UserError if that is no array of n numbers."""
        bits = np.asarray(self.guarded(f"{self.name}.score()", model.score, units))
        return self._checked(bits, len(units), "score()", "characters")

    def _checked(self, charges: np.ndarray, n: int, what: str, units: str) -> np.ndarray:
        if charges.dtype.kind not in "fiu" or charges.shape != (n,):
            raise WrongCharges(f"{what} charged for {charges.size:,} of {n:,} {units} (shape {charges.shape}, {charges.dtype})")
        return charges.astype(np.float64)

    def ask(self, model: Any) -> dict[Any, float]:
        """What the model says could come: {unit: P}."""
        said = self.guarded(f"{self.name}.predict()", model.predict)
        if not isinstance(said, dict):
            raise UserError(f"{self.name}.predict() returned {type(said).__name__}, not a dictionary of probabilities")
        return said

    def observe(self, model: Any, unit: Any) -> None:
        self.guarded(f"{self.name}.observe()", model.observe, unit)

    def alphabet(self, model: Any) -> list[Any]:
        """Characters that could come: the model's alphabet, those of the text, and printable ones."""
        known = getattr(getattr(model, "alphabet", None), "chars", "")
        known = known if isinstance(known, str) else ""
        said = [c for c in (self.ask(model) if self.asks and not self.is_guess else {}) if isinstance(c, str) and len(c) == 1]
        return list(dict.fromkeys([*known, *said, *self.text, *FIRST_CHARS]))


class ByteSubject(Subject):
    """A model of bytes: score(bytes), and predict() -> {one byte: P}. The audit itself has a character for each byte (alphabet.text_of)."""

    unit, complete = "byte", True

    def __init__(self, source: Any, data: bytes):
        super().__init__(source, text_of(data))
        self.encoded = bytes(data)

    def charge(self, model: Any, units: Units) -> np.ndarray:
        return super().charge(model, bytes_of(units))

    def ask(self, model: Any) -> dict[Any, float]:
        return {text_of(byte): p for byte, p in super().ask(model).items()}

    def observe(self, model: Any, unit: Any) -> None:
        super().observe(model, bytes_of(unit))

    def alphabet(self, model: Any) -> list[Any]:
        return [text_of(bytes([byte])) for byte in range(256)]


class SteppedSubject(Subject):
    """A model of characters that is asked for each: predict() -> dict, observe(). It is never handed what comes later."""

    def charge(self, model: Any, units: Units) -> np.ndarray:
        bits = np.empty(len(units))
        for i, unit in enumerate(units):
            p = float(self.ask(model).get(unit, 0.0))
            bits[i] = -math.log2(p) if p > 0.0 else math.inf if p == 0.0 else math.nan
            self.observe(model, unit)
        return bits


class GuessSubject(Subject):
    """A model that guesses, predict() -> str: what it "charges" is the code point of its guess, so that runs can be compared."""

    is_guess = True

    def charge(self, model: Any, units: Units) -> np.ndarray:
        guesses = np.empty(len(units))
        for i, unit in enumerate(units):
            guess = self.guarded(f"{self.name}.predict()", model.predict)
            guesses[i] = ord(guess) if isinstance(guess, str) and len(guess) == 1 else -1.0
            self.observe(model, unit)
        return guesses


class TokenSubject(Subject):
    """A model of token ids: nll(ids) -> nats. ids: those to charge for, where it is not the model that encodes the text."""

    unit, complete = "token", True

    def __init__(self, source: Any, text: str, ids: np.ndarray | None = None):
        super().__init__(source, text)
        for name in ("vocab_size", "token_bytes", *(["encode"] if ids is None else [])):
            if not hasattr(self.model, name):
                raise UserError(f"{self.name} has nll() but no {name}: a model of tokens needs encode(text), vocab_size and token_bytes")
        self.asks = False
        self.units = np.asarray(self.guarded(f"{self.name}.encode()", self.model.encode, text) if ids is None else ids)
        where = f"{self.name}.encode() must return" if ids is None else "the ids must be"
        if (
            self.units.ndim != 1
            or self.units.dtype.kind not in "iu"
            or not ((self.units >= 0) & (self.units < self.model.vocab_size)).all()
        ):
            raise UserError(f"{where} whole numbers from 0 to {self.model.vocab_size - 1} in one dimension")
        if ids is not None and self.model.token_bytes is not None:
            self.encoded = b"".join(self.pieces())
            self.text = self.encoded.decode("utf-8", "replace")

    def join(self, *parts: Units) -> Units:
        return np.concatenate(parts).astype(self.units.dtype)

    def one(self, unit: Any) -> Units:
        return np.array([unit], self.units.dtype)

    def charge(self, model: Any, units: Units) -> np.ndarray:
        nats = np.asarray(self.guarded(f"{self.name}.nll()", model.nll, units))
        return self._checked(nats, len(units), "nll()", "tokens") / math.log(2)

    def alphabet(self, model: Any) -> list[Any]:
        return list(range(self.model.vocab_size))

    def pieces(self) -> Sequence[bytes]:
        """The bytes of each token of the text."""
        return [bytes(self.model.token_bytes[i]) for i in self.units.tolist()]


class WrongCharges(UserError):
    """Charges that are not one number for each unit."""


def subject_of(source: Any, text: str | bytes | np.ndarray) -> Subject:
    """What can be asked of a model or of what makes one. text: a text, bytes for a model of bytes, or the ids of a model of tokens. UserError if
    it is none of them."""
    if isinstance(text, bytes | bytearray):
        subject = ByteSubject(source, text)
        if not callable(getattr(subject.model, "score", None)):
            raise UserError(f"{subject.name} has no score(): bytes can be charged for by a model of bytes")
        return subject
    if not isinstance(text, str):
        if not callable(getattr(Subject(source, "").model, "nll", None)):
            raise UserError("token ids can be charged for by a model of tokens, with nll(ids): give a text for any other")
        return TokenSubject(source, "", text)
    plain = Subject(source, text)
    if callable(getattr(plain.model, "nll", None)):
        kind = TokenSubject
    elif callable(getattr(plain.model, "score", None)):
        return plain
    elif not plain.asks:
        raise UserError(f"{plain.name} has neither score(text), nll(ids), nor predict() and observe(): there is nothing to audit")
    else:
        kind = GuessSubject if isinstance(plain.guarded(f"{plain.name}.predict()", plain.fresh().predict), str) else SteppedSubject
    return kind(source, text)
