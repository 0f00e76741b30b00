"""The mixture as a CharModel: a stream over a built model. The compiled steps are in kernels.py.

Everything that is learned (mixer weights, evidence, overlay counts, matches) is learned in observe(), after the character was
predicted. reset() restores the as-built state exactly; two evaluations in a row give the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from charstat.errors import ContextError
from charstat.mixers.evidence import count_states, overlay_states, ratio_bins
from charstat.mixers.kernels import path_probability, step, step_text, take_advice, walk, walk_text
from charstat.mixers.logistic import Mixer, MixerRates, new_mixer, selector_rows, unpack
from charstat.mixers.sources import enter_text
from charstat.mixers.state import CLOCK, FAMILY_COLUMNS, NO_MATCH, PREPARED, TREE_READY, Fixed, Stream, Tables, new_stream
from charstat.ngram.contexts import Context
from charstat.ngram.hashing import CHARS
from charstat.ngram.match import Match, end_match, ensure_match_room, new_match
from charstat.ngram.overlay import DEFAULT_LIMIT, FAST, SLOW, Overlay, ensure_room, new_overlay
from charstat.ngram.table import identity_bits
from charstat.symbol_model import SymbolModel
from charstat.tree import ESCAPE, SYMBOLS

if TYPE_CHECKING:
    from charstat.model import Model

BLOCK_SYMBOLS = 4096
NO_GUESSES, NO_PROBABILITIES = np.empty(0, np.uint8), np.empty(0)


class Mixture(SymbolModel):
    """A stream on a model.

    rates: what the mixer is tuned by; None for the defaults, which a start was learned with, too. overlay_limit: contexts that each family's
    overlay holds before it forgets the older half. contexts: names of those that are mixed; all of the model's by default, but order 0, which
    the bias at every node stands for. match: whether the match model is mixed. experts: how many further models give advice: their
    probabilities are inputs like the others, each with a learned weight (a neural net's, PPM's, any). start: begin with what the model's
    start taught the mixer, where it has one and it fits (all contexts, the match model); start_chars says from how many
    characters, 0 for none.
    """

    def __init__(
        self,
        model: Model,
        rates: MixerRates | None = None,
        overlay_limit: int = DEFAULT_LIMIT,
        contexts: Sequence[str] | None = None,
        match: bool = True,
        experts: int = 0,
        start: bool = True,
    ):
        super().__init__(model)
        self._match = match
        self.experts = experts
        self.contexts = self._choose(contexts)
        self._rates = rates or MixerRates()
        self._limit = max(2 * BLOCK_SYMBOLS, overlay_limit)
        self._families = len(self.contexts)
        self._orders = sum(c.kind == CHARS for c in self.contexts)
        self._fixed = self._fixed_arrays()
        self._stream = None
        fits = start and model.start.size and match and self.contexts == self._choose(None)
        self.start_chars = model.start_chars if fits else 0

    def _choose(self, names: Sequence[str] | None) -> tuple[Context, ...]:
        known = {c.name: c for c in self.model.contexts}
        if names is None:
            return tuple(c for c in known.values() if c.name != "o0" or len(known) == 1)
        for name in names:
            if name not in known:
                raise ContextError(f"the model has no context {name!r}: it has {', '.join(known)}")
        return tuple(c for c in known.values() if c.name in names)

    def _fixed_arrays(self) -> Fixed:
        from charstat.ngram.words import model_symbol_info

        model, columns = self.model, self.model.columns
        entries = [model.manifest["tables"][c.name] for c in self.contexts]

        names = ("bits", "start_bits", "bucket_at", "record_at", "row_at", "sum_at")
        families = [
            [c.kind, c.param, c.reach, identity_bits(c), *(entry[name] for name in names), SLOW if c.is_words else FAST]
            + [c.param == 0 and entry["rows"] == model.vocabulary.size]  # only the context p can have a row for every word
            for c, entry in zip(self.contexts, entries, strict=True)
        ]
        tables = Tables(np.array(families, np.int64).reshape(-1, FAMILY_COLUMNS), *columns.values(), model.vocabulary.size)
        r = self._rates
        rates = np.array([r.weights, r.boost, r.boost_chars, r.evidence])
        words = sum(not c.is_words for c in self.contexts)
        nested = sum(c.nested for c in self.contexts)
        rows = selector_rows(self._orders)
        return Fixed(
            tables, self.alphabet.tree.arrays, model_symbol_info(self.alphabet),
            count_states(), overlay_states(), ratio_bins(), np.array(rows[:6], np.int64), np.array([self._orders, words, words + nested], np.int64), rates,
        )  # fmt: skip

    @property
    def mixer(self) -> Mixer:
        """What is learned: weights and evidence, as they are now."""
        return self._stream.mixer

    def _restart(self) -> None:
        mixer = new_mixer(self._families, self._orders, self.experts, self._rates)
        if self.start_chars:
            unpack(self.model.start, mixer, self.experts, self._rates.initial_expert)
        self._enter(new_overlay(self._families), new_match(), mixer, self.start_chars)

    def _forget_context(self) -> None:
        old = self._stream
        self._enter(old.overlay, end_match(old.match), old.mixer, int(old.at[CLOCK]))

    def _enter(self, overlay: Overlay, match: Match, mixer: Mixer, clock: int) -> None:
        """Go to the start of a text with what was learned so far."""
        self._stream = new_stream(self.experts, overlay, match, mixer)
        self._stream.at[CLOCK] = clock
        self._stream.at[NO_MATCH] = not self._match
        self._block = -1
        enter_text(self._fixed, self._stream)

    def _ready(self) -> Stream:
        """The stream, with room for the rest of the block of BLOCK_SYMBOLS that it is in.

        What grows or forgets does so at the start of a block, so that results do not depend on how the text is cut into calls.
        """
        self._check_started()
        s = self._stream
        clock = int(s.at[CLOCK])
        if clock // BLOCK_SYMBOLS != self._block:
            self._block = clock // BLOCK_SYMBOLS
            overlay = ensure_room(s.overlay, BLOCK_SYMBOLS, clock, self._limit)
            match = ensure_match_room(s.match, BLOCK_SYMBOLS)
            if overlay is not s.overlay or match is not s.match:
                s.at[PREPARED] = s.at[TREE_READY] = 0
                self._stream = s = s._replace(overlay=overlay, match=match)
        return s

    def _blocks(self, n: int) -> Iterator[tuple[Stream, slice]]:
        """The stream and the slices of n symbols to observe, cut where a block ends."""
        self._ready()
        at = 0
        while at < n:
            s = self._ready()
            end = min(n, at + BLOCK_SYMBOLS - int(s.at[CLOCK]) % BLOCK_SYMBOLS)
            yield s, slice(at, end)
            at = end

    @property
    def n_bytes(self) -> int:
        """Bytes held beside the count tables, by now."""
        s = self._ready()
        return sum(a.nbytes for part in (s, s.overlay, s.match, s.mixer) for a in part if isinstance(a, np.ndarray))

    def _fill(self, out: np.ndarray) -> None:
        walk(self._fixed, self._ready(), 0.0, out)

    def predict_char(self) -> str:
        """The most likely next character: the argmax of predict(), found by visiting a few nodes."""
        return self._char(int(walk(self._fixed, self._ready(), self._best_rare, NO_PROBABILITIES)))

    def probability(self, char: str) -> float:
        """P(char) now, without observing it; looks at one path of the tree."""
        symbol = self._symbol(char)
        p = float(path_probability(self._fixed, self._ready(), symbol))
        return p * self.alphabet.rare_probability(char) if symbol == ESCAPE else p

    def advise(self, advice: np.ndarray) -> None:
        """What the experts say of the next character: float64 [experts, 128], each row the probabilities of all symbols.

        It holds until the next observe(); without it, and where a row is all 0, an expert is silent. ValueError for other shapes.
        """
        take_advice(self._ready().experts, self._advice(advice, None)[0])

    def _advice(self, advice: np.ndarray | None, n: int | None) -> np.ndarray:
        """The advice for n characters (None: for one step) as float64 [n, experts, 128]; none at all if there is none."""
        if advice is None:
            return np.empty((0, self.experts, SYMBOLS))
        advice = np.ascontiguousarray(advice, np.float64)
        wanted = (self.experts, SYMBOLS) if n is None else (n, self.experts, SYMBOLS)
        if advice.shape != wanted:
            raise ValueError(f"advice of the shape {wanted} is wanted, not {advice.shape}")
        if not (np.isfinite(advice).all() and (advice >= 0.0).all()):
            raise ValueError("advice must be probabilities: finite and not negative")
        return advice[np.newaxis] if n is None else advice

    def observe(self, char: str) -> None:
        """Learn from the character that came, and move on."""
        symbol = self._symbol(char)
        step(self._fixed, self._ready(), symbol)

    def score(self, text: str, advice: np.ndarray | None = None) -> np.ndarray:
        """Observe a text; bits of each character (float64), each predicted before it was observed.

        advice: what the experts say before each character, float64 [len(text), experts, 128].
        """
        return self._run(text, False, advice)[1]

    def guess_and_score(self, text: str, advice: np.ndarray | None = None) -> tuple[list[str], np.ndarray]:
        """Observe a text; the most likely character before each, and the bits of each."""
        return self._run(text, True, advice)

    def distributions(self, text: str, out: np.ndarray | None = None, advice: np.ndarray | None = None) -> np.ndarray:
        """Observe a text; P of all 128 symbols before each character: float64 [len(text), 128], each row as probabilities()."""
        symbols, advice = self.alphabet.encode(text), self._advice(advice, len(text))
        out = np.empty((len(text), SYMBOLS)) if out is None else out
        for s, part in self._blocks(len(text)):
            walk_text(self._fixed, s, symbols[part], out[part], advice[part])
        return out

    def _run(self, text: str, guess: bool, advice: np.ndarray | None) -> tuple[list[str], np.ndarray]:
        symbols, advice = self.alphabet.encode(text), self._advice(advice, len(text))
        p = np.empty(len(text))
        guesses = np.empty(len(text) if guess else 0, np.uint8)
        for s, part in self._blocks(len(text)):
            self._run_symbols(symbols[part], p[part], guesses[part] if guess else NO_GUESSES, s, advice[part])
        for i in np.flatnonzero(symbols == ESCAPE):
            p[i] *= self.alphabet.rare_probability(text[i])
        return [self._char(g) for g in guesses.tolist()], -np.log2(p)

    def _run_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, s: Stream, advice: np.ndarray) -> None:
        step_text(self._fixed, s, symbols, p, guesses, self._best_rare, advice)
