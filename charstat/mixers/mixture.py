"""The mixture as a CharModel: a stream over a built model. The compiled steps are in kernels.py.

Everything that is learned (mixer weights, evidence, overlay counts, matches) is learned in observe(), after the character was
predicted. reset() restores the as-built state exactly; two evaluations in a row give the same numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from charstat.charmodel_api import CharModel
from charstat.errors import StateError
from charstat.mixers.evidence import count_bucket_table, ratio_bin_table
from charstat.mixers.kernels import (
    PREPARED,
    POSITION,
    Fixed,
    Tables,
    all_probabilities,
    enter_word,
    most_likely,
    new_stream,
    path_probability,
    step,
    step_text,
)
from charstat.mixers.logistic import MixerRates, new_mixer, selector_rows
from charstat.ngram.hashing import CHARS
from charstat.ngram.match import ensure_match_room, new_match
from charstat.ngram.overlay import DEFAULT_LIMIT, ensure_room, new_overlay
from charstat.ngram.table import identity_bits
from charstat.tree import ESCAPE, SYMBOLS

if TYPE_CHECKING:
    from charstat.model import Model

CHUNK_SYMBOLS = 4096
LIST_RARE_FROM = 0.01  # predict() lists the rare characters when the escape is at least this likely
NO_GUESSES = np.empty(0, np.uint8)


class Mixture(CharModel):
    """A stream on a model. overlay_limit: contexts that each family's overlay holds before it forgets the older half."""

    def __init__(self, model: Model, rates: MixerRates | None = None, overlay_limit: int = DEFAULT_LIMIT):
        self.model = model
        self.alphabet = model.alphabet
        self.unlisted_mass = 0.0
        self._rates = rates or MixerRates()
        self._limit = max(2 * CHUNK_SYMBOLS, overlay_limit)
        self._families = len(model.tables)
        self._orders = sum(c.kind == CHARS for c in model.contexts)
        self._fixed = self._fixed_arrays()
        self._rare_chars = np.array(list(self.alphabet.rare_probabilities))
        self._best_rare = max(self.alphabet.rare_probabilities.values(), default=0.0)
        self._stream = None
        self._probabilities = np.empty(SYMBOLS)
        self._symbols = np.array([*range(self.alphabet.size), ESCAPE])

    def _fixed_arrays(self) -> Fixed:
        from charstat.model import model_symbol_info

        model, columns = self.model, self.model.columns
        entries = [model.manifest["tables"][c.name] for c in model.contexts]

        def each(values) -> np.ndarray:
            return np.array(list(values), np.int64)

        places = [each(e[name] for e in entries) for name in ("bits", "start_bits", "bucket_at", "record_at", "row_at", "sum_at")]
        kinds = [each(f(c) for c in model.contexts) for f in (lambda c: c.kind, lambda c: c.param, lambda c: c.reach, identity_bits)]
        tables = Tables(*kinds, *places, *columns.values(), model.vocabulary.size)
        rates = np.array([self._rates.weights, self._rates.evidence])
        rows = selector_rows(self._orders)
        return Fixed(
            tables, self.alphabet.tree.arrays, model_symbol_info(self.alphabet),
            count_bucket_table(), ratio_bin_table(), np.array(rows[:5], np.int64), rates,
        )  # fmt: skip

    def reset(self, keep_learning: bool = False) -> None:
        """Back to the as-built state. keep_learning: only forget the context (what was learned online stays)."""
        if keep_learning and self._stream is not None:
            old = self._stream
            overlay, match, mixer = old.overlay, new_match(), old.mixer
            position = int(old.at[POSITION])
        else:
            overlay, match, position = new_overlay(self._families), new_match(), 0
            mixer = new_mixer(self._families, self._orders, 0, self._rates)
        self._stream = new_stream(self._families, mixer.weights.shape[1], 0, overlay, match, mixer)
        self._clock_offset = position
        enter_word(self._fixed, self._stream)

    def _ready(self, steps: int = 0):
        """The stream, with room for that many observations."""
        s = self._stream
        if s is None:
            raise StateError("reset() comes first: it puts the model at the start of a text")
        if steps:
            overlay = ensure_room(s.overlay, steps, int(s.at[POSITION]), self._limit)
            match = ensure_match_room(s.match, steps)
            if overlay is not s.overlay or match is not s.match:
                s.at[PREPARED] = 0
                self._stream = s = s._replace(overlay=overlay, match=match)
        return s

    def probabilities(self, out: np.ndarray | None = None) -> np.ndarray:
        """P(symbol) of all 128 symbols (float64); symbol 127 is the escape, unused symbols have 0."""
        out = np.empty(SYMBOLS) if out is None else out
        all_probabilities(self._fixed, self._ready(), out)
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
        p = self.probabilities(self._probabilities)
        listed = dict(zip(self.alphabet.chars, p.tolist(), strict=False))
        escape = float(p[ESCAPE])
        self.unlisted_mass = escape
        if escape >= LIST_RARE_FROM:
            rare = self.alphabet.rare_probabilities
            listed.update((c, escape * q) for c, q in rare.items())
            self.unlisted_mass = escape * (1.0 - math.fsum(rare.values()))
        return listed

    def predict_char(self) -> str:
        """The most likely next character: the argmax of predict(), found by visiting a few nodes."""
        symbol = int(most_likely(self._fixed, self._ready(), self._best_rare))
        return self._char(symbol)

    def _char(self, symbol: int) -> str:
        return self.alphabet.chars[symbol] if symbol != ESCAPE else str(self._rare_chars[0])

    def probability(self, char: str) -> float:
        """P(char) now, without observing it; looks at one path of the tree."""
        symbol = self._symbol(char)
        p = float(path_probability(self._fixed, self._ready(), symbol))
        return p * self.alphabet.rare_probability(char) if symbol == ESCAPE else p

    def _symbol(self, char: str) -> int:
        if not isinstance(char, str) or len(char) != 1:
            what = f"{len(char)} characters" if isinstance(char, str) else type(char).__name__
            raise ValueError(f"a string of one character is wanted, not {what}")
        return self.alphabet.symbol_of.get(char, ESCAPE)

    def observe(self, char: str) -> None:
        """Learn from the character that came, and move on."""
        symbol = self._symbol(char)
        step(self._fixed, self._ready(1), symbol)

    def score(self, text: str) -> np.ndarray:
        """Observe a text; bits of each character (float64), each predicted before it was observed."""
        return self._run(text, guess=False)[1]

    def guess_and_score(self, text: str) -> tuple[list[str], np.ndarray]:
        """Observe a text; the most likely character before each, and the bits of each."""
        return self._run(text, guess=True)

    def _run(self, text: str, guess: bool) -> tuple[list[str], np.ndarray]:
        symbols = self.alphabet.encode(text)
        p = np.empty(len(text))
        guesses = np.empty(len(text) if guess else 0, np.uint8)
        for at in range(0, len(text), CHUNK_SYMBOLS):
            end = min(at + CHUNK_SYMBOLS, len(text))
            s = self._ready(end - at)
            step_text(self._fixed, s, symbols[at:end], p[at:end], guesses[at:end] if guess else NO_GUESSES, self._best_rare)
        self._ready()
        for i in np.flatnonzero(symbols == ESCAPE):
            p[i] *= self.alphabet.rare_probability(text[i])
        return [self._char(g) for g in guesses.tolist()], -np.log2(p)
