"""SymbolModel: a CharModel over symbols. What all models here share: characters in and out, and the escape's cost.

A model fills P(symbol) for all 128 symbols and learns from a symbol; this file makes dictionaries, guesses and bits of that.
Rare characters share the escape's probability (alphabet.py); the guess is the most likely character, the lower symbol of
equals, rare ones last.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from charstat.charmodel_api import CharModel
from charstat.errors import StateError
from charstat.tree import ESCAPE, SYMBOLS

if TYPE_CHECKING:
    from charstat.model import Model

CHUNK_SYMBOLS = 4096
LIST_RARE_FROM = 0.01  # predict() lists the rare characters when the escape is at least this likely


@njit(cache=True, nogil=True)
def best_symbol(p, best_rare):
    """The symbol of the most likely character; best_rare: the largest P(char | escape)."""
    best, best_p = np.int64(0), p[0]
    for s in range(1, ESCAPE):
        if p[s] > best_p:
            best, best_p = np.int64(s), p[s]
    return np.int64(ESCAPE) if p[ESCAPE] * best_rare > best_p else best


class SymbolModel(CharModel):
    """Base of the models that stand on a Model's count tables alone."""

    def __init__(self, model: Model):
        self.model = model
        self.alphabet = model.alphabet
        self.unlisted_mass = 0.0
        self._rare_chars = list(self.alphabet.rare_probabilities)
        self._best_rare = max(self.alphabet.rare_probabilities.values(), default=0.0)
        self._scratch = np.empty(SYMBOLS)
        self._started = False

    @abstractmethod
    def _restart(self) -> None:
        """The as-built state."""

    @abstractmethod
    def _forget_context(self) -> None:
        """The start of a text, with all that was learned."""

    @abstractmethod
    def _fill(self, out: np.ndarray) -> None:
        """out[symbol] := P(symbol), float64 [128]."""

    @abstractmethod
    def _run_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, rows: np.ndarray) -> None:
        """Observe symbols: p[i] := P(symbols[i]) before it was. Where there is room: guesses[i] := the best symbol, uint8; rows[i] := P of
        all symbols, float64 [128]."""

    def _ensure_room(self, steps: int) -> None:
        """Make room for that many observations."""

    @property
    def n_bytes(self) -> int:
        """Bytes this model holds beside the count tables."""
        return 0

    def reset(self, keep_learning: bool = False) -> None:
        """Back to the as-built state. keep_learning: only forget the context; what was learned online stays."""
        if keep_learning and self._started:
            self._forget_context()
        else:
            self._restart()
        self._started = True

    def _check_started(self) -> None:
        if not self._started:
            raise StateError("reset() comes first: it puts the model at the start of a text")

    def probabilities(self, out: np.ndarray | None = None) -> np.ndarray:
        """P(symbol) of all 128 symbols (float64); symbol 127 is the escape, unused symbols have 0."""
        self._check_started()
        out = np.empty(SYMBOLS) if out is None else out
        self._fill(out)
        return out

    def log_probs(self, out: np.ndarray | None = None) -> np.ndarray:
        """Natural logarithms of probabilities(): float64 [128]; -inf for unused symbols."""
        out = self.probabilities(out)
        with np.errstate(divide="ignore"):
            return np.log(out, out=out)

    def predict(self) -> dict[str, float]:
        """P(char) of the whole alphabet, in symbol order. Rare characters follow when the escape has at least 1 %.

        What is not listed adds up to `unlisted_mass`: listed + unlisted = 1.
        """
        p = self.probabilities(self._scratch)
        listed = dict(zip(self.alphabet.chars, p.tolist(), strict=False))
        escape = float(p[ESCAPE])
        self.unlisted_mass = escape
        if escape >= LIST_RARE_FROM:
            rare = self.alphabet.rare_probabilities
            listed.update((c, escape * q) for c, q in rare.items())
            self.unlisted_mass = escape * (1.0 - math.fsum(rare.values()))
        return listed

    def predict_char(self) -> str:
        """The most likely next character: the argmax of predict()."""
        return self._char(int(best_symbol(self.probabilities(self._scratch), self._best_rare)))

    def _char(self, symbol: int) -> str:
        return self.alphabet.chars[symbol] if symbol != ESCAPE else self._rare_chars[0]

    def probability(self, char: str) -> float:
        """P(char) now, without observing it."""
        symbol = self._symbol(char)
        p = float(self.probabilities(self._scratch)[symbol])
        return p * self.alphabet.rare_probability(char) if symbol == ESCAPE else p

    def _symbol(self, char: str) -> int:
        if not isinstance(char, str) or len(char) != 1:
            what = f"{len(char)} characters" if isinstance(char, str) else type(char).__name__
            raise ValueError(f"a string of one character is wanted, not {what}")
        return self.alphabet.symbol_of.get(char, ESCAPE)

    def observe(self, char: str) -> None:
        """Learn from the character that came, and move on."""
        self._symbol(char)
        self._run(char, guess=False)

    def score(self, text: str) -> np.ndarray:
        """Observe a text; bits of each character (float64), each predicted before it was observed."""
        return self._run(text, guess=False)[1]

    def guess_and_score(self, text: str) -> tuple[list[str], np.ndarray]:
        """Observe a text; the most likely character before each, and the bits of each."""
        return self._run(text, guess=True)

    def distributions(self, text: str, out: np.ndarray | None = None) -> np.ndarray:
        """Observe a text; P of all 128 symbols before each character: float64 [len(text), 128], each row as probabilities()."""
        out = np.empty((len(text), SYMBOLS)) if out is None else out
        self._run_chunks(text, guess=False, rows=out)
        return out

    def _run(self, text: str, guess: bool) -> tuple[list[str], np.ndarray]:
        symbols, guesses, p = self._run_chunks(text, guess, np.empty((0, SYMBOLS)))
        for i in np.flatnonzero(symbols == ESCAPE):
            p[i] *= self.alphabet.rare_probability(text[i])
        return [self._char(g) for g in guesses.tolist()], -np.log2(p)

    def _run_chunks(self, text: str, guess: bool, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(symbols, guesses, P(symbol)) of a text that is observed; see _run_symbols."""
        self._check_started()
        symbols = self.alphabet.encode(text)
        p, guesses = np.empty(len(text)), np.empty(len(text) if guess else 0, np.uint8)
        for at in range(0, len(text), CHUNK_SYMBOLS):
            part = slice(at, min(at + CHUNK_SYMBOLS, len(text)))
            self._ensure_room(part.stop - at)
            self._run_symbols(symbols[part], p[part], guesses[part], rows[part])
        return symbols, guesses, p
