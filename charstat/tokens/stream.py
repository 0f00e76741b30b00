"""A token stream on a model: charge for ids and learn from them, with or without other models' advice.

    ts = model.stream()
    ts.reset()
    nats = ts.score(ids)                      -ln P of each token, each before it is learned from
    rows = ts.log_probs(ids)                  ln P of all tokens before each, float32 [n, V]
    token, p, order, count = ts.hints(ids)    the likeliest token before each, or -1

All of these observe the ids; fork() first to look without learning. In pieces, a text costs what it costs as a whole, bit for bit, and
log_probs() says what score() charges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any, NamedTuple, Protocol

import numpy as np

from charstat.arguments import check_whole
from charstat.errors import ArgumentError, StateError
from charstat.mixers.evidence import count_states, online_states, ratio_bins
from charstat.mixers.layout import ChainBounds
from charstat.ngram.layers import bounded, shared
from charstat.ngram.overlay import DEFAULT_LIMIT, Overlay, ensure_room, new_overlay
from charstat.tokens.advice import TokenAdvice, check_shape, check_sums, probabilities
from charstat.tokens.contexts import Pieces, TokenContext
from charstat.tokens.counting import id_bits
from charstat.tokens.kernels import add_up_advice, pass_over, run
from charstat.tokens.layout import TokenLayout, TokenRates
from charstat.tokens.match import TokenMatch, ensure_match_room, new_match
from charstat.tokens.online import RECENT_DECAY, WORD_DECAY
from charstat.tokens.start import TokenStart, pack, unpack
from charstat.tokens.state import CLOCK, FAMILY_COLUMNS, WARM, Fixed, TokenState, new_token_mixer, new_token_state
from charstat.tokens.tree import TokenTree, whole_plan

BLOCK = 1024  # tokens between two looks at whether there is room for more
ADVICE_BYTES = 1 << 24  # of cumulative advice at a time
MAX_EXPERTS = 100


class Counted(Protocol):
    """What a stream reads of a model.TokenModel, which imports this file."""

    vocab_size: int
    contexts: tuple[TokenContext, ...]
    columns: dict[str, np.ndarray]
    tree: TokenTree
    pieces: Pieces
    token_bytes: list[bytes] | None
    start: TokenStart | None

    @property
    def places(self) -> dict[TokenContext, tuple[int, ...]]: ...


class Hints(NamedTuple):
    """What the model would say before each token of a text."""

    token: np.ndarray  # int64 [n]: the likeliest token, -1 where no order has seen anything
    confidence: np.ndarray  # float64 [n]: P of the likeliest token
    order: np.ndarray  # int64 [n]: the longest order that has seen its context, counted or in the stream; 0 if none has
    count: np.ndarray  # int64 [n]: how often the token followed that context


def check_ids(ids: Any, vocab_size: int, what: str = "ids") -> np.ndarray:
    """Ids as uint16 [n]. ArgumentError, naming the first bad one, unless all are whole numbers inside the vocabulary."""
    if isinstance(ids, bytes | bytearray):
        ids = np.frombuffer(ids, np.uint8)
    found = np.asarray(ids)
    if found.size == 0 and found.ndim == 1:
        return np.empty(0, np.uint16)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ArgumentError(f"{what} must be whole numbers in one dimension, not {found.dtype} in the shape {found.shape}")
    lowest, highest = int(found.min()), int(found.max())
    if lowest < 0 or highest >= vocab_size:
        i = int(np.flatnonzero((found < 0) | (found >= vocab_size))[0])
        raise ArgumentError(f"{what}[{i}] is {int(found[i])}, and the vocabulary has the ids 0 to {vocab_size - 1:,}")
    return found.astype(np.uint16, copy=False)


class TokenStream:
    """A stream of ids on a model.

    rates: tuning of the mixer, None for the defaults. overlay_limit: contexts that each table of online counts holds before it forgets the
    older half. experts: how many other models advise. warm_start: begin with the model's warm start, where it has one, or with one that
    learn_start gave.
    """

    def __init__(
        self,
        model: Counted,
        rates: TokenRates | None = None,
        overlay_limit: int = DEFAULT_LIMIT,
        experts: int = 0,
        warm_start: bool | TokenStart = True,
    ):
        if not (rates is None or isinstance(rates, TokenRates)):
            raise ArgumentError(f"rates must be a TokenRates, not {type(rates).__name__}")
        self.model, self.rates = model, rates or TokenRates()
        self.experts = check_whole(experts, "experts", 0, MAX_EXPERTS)
        self.layout = TokenLayout(model.contexts, model.vocab_size, self.experts)
        self._limit = max(2 * BLOCK, check_whole(overlay_limit, "overlay_limit", 1))
        self._start = model.start if warm_start is True else warm_start or None
        if self._start is not None:
            self._start.check(self.layout)
        self._fixed = self._fixed_arrays()
        self._state: TokenState | None = None

    vocab_size = property(lambda self: self.model.vocab_size, doc="How many ids there are.")
    token_bytes = property(lambda self: self.model.token_bytes, doc="The bytes of every token; None where the model was not told.")

    def _fixed_arrays(self) -> Fixed:
        model, layout = self.model, self.layout
        families = np.zeros((layout.families, FAMILY_COLUMNS), np.int64)
        for f, (c, table) in enumerate(model.places.items()):
            decay = round((WORD_DECAY if c.needs_words or not c.order else RECENT_DECAY) * 65536)
            families[f] = [*table, c.order, c.reach, decay]
        return Fixed(
            families=families,
            masks=np.array([c.masks for c in model.contexts], np.uint64),
            id_bits=id_bits(model.vocab_size),
            **{name: model.columns[name] for name in ("buckets", "records", "rows", "sums")},
            tree=model.tree,
            plan=whole_plan(model.tree),
            pieces=model.pieces,
            count_states=count_states(),
            online_states=online_states(),
            ratio_bins=ratio_bins(),
            columns=layout.columns,
            first_rows=layout.rows,
            chains=ChainBounds(layout.orders, layout.orders, layout.families),
            rates=np.array(astuple(self.rates)),
        )

    def reset(self, history: Any = None) -> None:
        """Start a text; what was learned from an earlier one is forgotten. history: ids before it, context only. ArgumentError: as for score()."""
        before = check_ids([] if history is None else history, self.vocab_size, "history")
        mixer = new_token_mixer(self.layout, self.rates, self.model.tree)
        if self._start is not None:
            unpack(self._start, mixer, self.layout)
        self._state = new_token_state(self.layout, new_overlay(self.layout.families), new_match(), mixer)
        self._state.cursor[WARM] = self._start is not None
        self._block = -1
        if before.size:
            self._state = self._state._replace(match=ensure_match_room(self._state.match, before.size))
            pass_over(self._fixed, self._state, before)

    @property
    def state(self) -> TokenState:
        if self._state is None:
            raise StateError("reset() starts a text: call it before score()")
        return self._state

    def fork(self) -> TokenStream:
        """A stream that has learned the same and goes its own way; the tables are shared."""
        other = object.__new__(TokenStream)
        other.__dict__.update(self.__dict__)
        self._move_to(shared(self.state.overlay, BLOCK, self._limit), self.state.match)
        s = self.state
        copied = {name: part.copy() for name, part in s._asdict().items() if isinstance(part, np.ndarray)}
        mixer = type(s.mixer)(*(part.copy() for part in s.mixer))
        other._state = s._replace(**copied, overlay=s.overlay.copied(), match=s.match.copied(), mixer=mixer)
        return other

    def score(self, ids: Any, advice_logp: TokenAdvice | None = None) -> np.ndarray:
        """Observe ids; -ln P of each before it is learned from: float64 [n].

        ids: whole numbers of any type, [n]. advice_logp: what the experts say before each (advice.py). ArgumentError for ids outside the
        vocabulary, and for advice of another shape or that is none; StateError before reset().
        """
        nats, _, _ = self._observe(ids, advice_logp)
        return nats

    nll = score

    def log_probs(self, ids: Any, advice_logp: TokenAdvice | None = None) -> np.ndarray:
        """Observe ids; ln P of every token before each: float32 [n, V], whose exp() adds up to 1."""
        _, rows, _ = self._observe(ids, advice_logp, rows=True)
        return rows

    def hints(self, ids: Any, advice_logp: TokenAdvice | None = None) -> Hints:
        """Observe ids; the likeliest token before each, and what is known about it: for charstat.tilt."""
        _, _, found = self._observe(ids, advice_logp, hints=True)
        return Hints(found[:, 0].astype(np.int64), found[:, 1], found[:, 2].astype(np.int64), found[:, 3].astype(np.int64))

    def distribution(self, advice_logp: np.ndarray | None = None) -> np.ndarray:
        """P of every token that could come next, float64 [V]; nothing is observed. advice_logp: float [V], or [E, V]."""
        other = self.fork()
        said = None if advice_logp is None else np.asarray(advice_logp)[None]
        return np.exp(other.log_probs(np.zeros(1, np.uint16), said)[0].astype(np.float64))

    def _observe(self, ids: Any, advice: TokenAdvice | None, rows: bool = False, hints: bool = False) -> tuple[np.ndarray, ...]:
        ids = check_ids(ids, self.vocab_size)
        n, vocab = ids.size, self.vocab_size
        said = self._checked_advice(advice, n)
        if rows or hints:
            self._make_tree_room()
        nats, out, found = np.empty(n), np.empty((n if rows else 0, vocab), np.float32), np.empty((n if hints else 0, 4))
        scratch = np.empty((1, vocab if rows or hints else 0))
        for at, end in self._blocks(n, said is not None):
            self._make_room()
            block = np.empty((0, self.experts, vocab + 1)) if said is None else self._added_up(said(at, end))
            run(self._fixed, self.state, ids[at:end], block, nats[at:end], (scratch, out[at:end]), found[at:end])
        return nats, out, found

    def _blocks(self, n: int, advised: bool) -> Iterator[tuple[int, int]]:
        """(start, end) of pieces of n tokens. None reaches beyond a block of the stream, at whose start it forgets what is beyond the limit, so
        that no result depends on how a text is cut into calls."""
        size = BLOCK if not advised else max(1, min(BLOCK, ADVICE_BYTES // (8 * self.experts * (self.vocab_size + 1))))
        first, at = int(self.state.cursor[CLOCK]), 0
        while at < n:
            end = min(n, at + size, at + BLOCK - (first + at) % BLOCK)
            yield at, end
            at = end

    def _checked_advice(self, advice: TokenAdvice | None, n: int) -> Callable[[int, int], np.ndarray] | None:
        """What gives checked probabilities float32 [m, E, V] for a block; an array is checked as a whole before anything is learned."""
        if advice is None:
            return None
        if not self.experts:
            raise ArgumentError("this stream takes no advice: open it with model.stream(experts=1)")
        if callable(advice):

            def ask(at: int, end: int) -> np.ndarray:
                rows = check_shape(advice(at, end), end - at, self.experts, self.vocab_size, at)
                probs = probabilities(rows)
                check_sums(rows, probs, at)
                return probs

            return ask
        rows = check_shape(advice, n, self.experts, self.vocab_size)
        for at, end in self._blocks(n, True):
            check_sums(rows[at:end], probabilities(rows[at:end]), at)
        return lambda at, end: probabilities(rows[at:end])

    def _added_up(self, probs: np.ndarray) -> np.ndarray:
        sums = np.empty((*probs.shape[:2], self.vocab_size + 1))
        add_up_advice(probs, self.model.tree.id_of, sums)
        return sums

    def _make_room(self) -> None:
        s = self.state
        if int(s.cursor[CLOCK]) // BLOCK == self._block:
            return
        self._block = int(s.cursor[CLOCK]) // BLOCK
        overlay = ensure_room(bounded(s.overlay, BLOCK, self._limit), BLOCK, int(s.cursor[CLOCK]), self._limit)
        self._move_to(overlay, ensure_match_room(s.match, BLOCK))

    def _move_to(self, overlay: Overlay, match: TokenMatch) -> None:
        """Go on with the same contents in other arrays."""
        s = self.state
        if overlay is not s.overlay or match is not s.match:
            self._state = s._replace(overlay=overlay, match=match)

    def _make_tree_room(self) -> None:
        if not self.state.tree_mass.size:
            v, f = self.vocab_size, self.layout.families
            self._state = self.state._replace(tree_mass=np.zeros((2 * v, 2 * f), np.int32), tree_kinds=np.zeros((2 * v, f), np.int32))

    def observed_leaves(self) -> np.ndarray:
        """The leaves of the ids observed since reset(), its history aside: uint16 [n]."""
        s = self.state
        end = int(s.match.state[0])
        return s.match.text[end - int(s.cursor[CLOCK]) : end]

    @property
    def n_bytes(self) -> int:
        """Bytes held beside the count tables, by now."""
        s = self.state
        return sum(a.nbytes for part in (s, s.overlay, s.match, s.mixer) for a in part if isinstance(a, np.ndarray))


def learn_start(model: Counted, ids: Any, advice_logp: TokenAdvice | None = None, experts: int = 0) -> TokenStart:
    """Observe ids that were not counted; what the mixer learned from them. With advice, streams of as many experts begin with the weights
    that these earned."""
    stream = TokenStream(model, experts=experts, warm_start=False)
    stream.reset()
    tokens = len(stream.score(ids, advice_logp))
    return TokenStart(pack(stream.state.mixer), stream.layout.digest(), tokens, experts)
