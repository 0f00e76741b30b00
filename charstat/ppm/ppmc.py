"""PPM: prediction by partial matching, method C, with full exclusion.

Cleary and Witten 1984; method C: Moffat, "Implementing the PPM data compression scheme", 1990. In the longest context that was
seen, n counts of d types: a symbol seen c times has c / (n + d), and d / (n + d) is the probability of an escape to the next
shorter context. Symbols that a longer context offered are excluded there: their counts leave n, the types stay in d.
Order -1 is uniform over the symbols that are left. If an order offers all that are left, its escape has probability 0.

    "abracadabra", orders 2, 1, 0, over a 256-symbol alphabet (the example of Cleary and Teahan, "Unbounded length contexts for PPM", 1997)
    after "ra":  order 2  c 1                    escape 1     P(c) = 1/2
                 order 1  a -> b 2 c 1 d 1       escape 3     P(d) = 1/2 * 1/(2 + 1 + 3)
                 order 0  a 5 b 2 c 1 d 1 r 2    escape 5     P(r) = 1/2 * 3/6 * 2/(5 + 2 + 5)
                 order -1                                     P(t) = 1/2 * 3/6 * 5/12 * 1/(256 - 5)

Escape probabilities are e / (n + e), except for D. t1: types seen once, among those not excluded; a decayed count below 1 counts as
that fraction of a type.

    A  e = 1        Cleary and Witten 1984
    C  e = d        Moffat 1990
    D  every type gives half of its first count to the escape, (c - 1/2) / n and d / 2 / n: Howard 1993
    X  e = t1 + 1   Witten and Bell 1991 (t1 / n), in the form of Moffat, Neal and Witten 1995, which is never 0

    start="longest"         as published: the longest context that was seen
    start="deterministic"   the shortest context with one type only, else the longest (Cleary, Teahan and Witten 1995, PPM*)
    update_exclusion=True   lower orders count a symbol only if longer ones had not seen it: continuation counts (ngram/continuation.py)

Static and online counts are combined by the rule in ngram/chain.py. The defaults of PPMC are the published method with plain counts;
bench/models.py measures the variants. Information inheritance and SEE are a model of their own: inheritance.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from charstat.errors import ContextError
from charstat.ngram.chain import Counts, Place, build_chain, gather_all, learn, new_counts, new_place
from charstat.ngram.chain_model import ChainModel
from charstat.ngram.continuation import with_continuation
from charstat.ngram.overlay import DEFAULT_LIMIT, Overlay, new_overlay
from charstat.symbol_model import best_symbol
from charstat.tree import SYMBOLS

if TYPE_CHECKING:
    from charstat.model import Model

ESCAPE_METHODS = ("A", "C", "D", "X")
STARTS = ("longest", "deterministic")
A, C, D, X = range(4)
TUNED = {"online_weight": 32.0, "decay": 0.8, "start": "deterministic"}  # PPMC(model, **TUNED): tuned on text


@dataclass(frozen=True)
class PPMOptions:
    """escape: see ESCAPE_METHODS. max_order: None for the model's. The weights and the decay: the combination rule of ngram/chain.py.

    online: learn counts while observing. Defaults: the published method, every observation counting 1 wherever it was made.
    """

    escape: str = "C"
    max_order: int | None = None
    start: str = "longest"
    update_exclusion: bool = False
    online: bool = True
    static_weight: float = 1.0
    online_weight: float = 1.0
    decay: float = 1.0
    overlay_limit: int = DEFAULT_LIMIT

    def __post_init__(self) -> None:
        for name, value, known in (("escape", self.escape, ESCAPE_METHODS), ("start", self.start, STARTS)):
            if value not in known:
                raise ContextError(f"no {name} is named {value!r}: there are {', '.join(known)}")


class Settings(NamedTuple):
    """The options that the kernels read."""

    escape: int  # A, C, D or X
    deterministic: bool  # start at the shortest deterministic context
    update_exclusion: bool
    online: bool


class State(NamedTuple):
    """A PPM stream: its place, its online counts, scratch."""

    place: Place
    overlay: Overlay
    counts: Counts
    settings: Settings
    excluded: np.ndarray  # uint8 [128]


def new_state(levels: int, options: PPMOptions) -> State:
    o = options
    settings = Settings(ESCAPE_METHODS.index(o.escape), o.start == "deterministic", bool(o.update_exclusion), bool(o.online))
    counts = new_counts(levels, o.static_weight, o.online_weight, o.decay)
    return State(new_place(levels), new_overlay(levels), counts, settings, np.zeros(SYMBOLS, np.uint8))


@njit(cache=True, nogil=True)
def start_level(counts, deterministic):
    """The level that PPM starts at; -1 if nothing was ever counted."""
    top = counts.size.shape[0] - 1
    while top >= 0 and counts.size[top] == 0:
        top -= 1
    if deterministic:
        for k in range(top):
            if counts.size[k] == 1:
                return k
    return top


@njit(cache=True, nogil=True)
def blend(counts, chain, method, top, excluded, out):
    """out[symbol] := P(symbol) by PPM over the gathered counts, from level `top` down. O(types of all levels)."""
    out[:] = 0.0
    excluded[:] = 0
    left = chain.n_used
    mass = 1.0
    for k in range(top, -1, -1):
        symbol, count, size = counts.symbol[k], counts.count[k], counts.size[k]
        n, types, once, halves, offered = 0.0, 0.0, 0.0, 0.0, 0
        for i in range(size):
            c = count[i]
            part = min(c, 1.0)
            types += part
            if not excluded[symbol[i]]:
                n += c
                halves += 0.5 * part
                offered += 1
                if c <= 1.0:
                    once += part
        if offered == 0 or n <= 0.0:
            continue
        left -= offered
        escape = 1.0 if method == A else types if method == C else once + 1.0
        total = n + escape
        if method == D:  # the escape's share: half of a first count for every type, excluded or not
            escape = 0.5 * types
            total = n - halves + escape
        if left == 0:
            total -= escape
            escape = 0.0
        share = mass / total
        for i in range(size):
            s = symbol[i]
            if not excluded[s]:
                excluded[s] = 1
                c = count[i]
                out[s] = share * (c - 0.5 * min(c, 1.0)) if method == D else share * c
        mass = share * escape
        if left == 0:
            return
    share = mass / left
    for s in range(SYMBOLS):
        if chain.used[s] and not excluded[s]:
            out[s] = share


@njit(cache=True, nogil=True)
def distribution(chain, ppm, out):
    """out[symbol] := P(symbol) for the current history: float64 [128], sum 1."""
    gather_all(chain, ppm.place, ppm.overlay, ppm.counts)
    blend(ppm.counts, chain, ppm.settings.escape, start_level(ppm.counts, ppm.settings.deterministic), ppm.excluded, out)


@njit(cache=True, nogil=True)
def observe(chain, ppm, symbol):
    """Learn from the symbol that came and move on; distribution() must have run for this history."""
    counts = ppm.counts
    lowest = 0
    if ppm.settings.update_exclusion:
        # Update exclusion: count down to the longest order that had the symbol, it included.
        for k in range(counts.size.shape[0] - 1, -1, -1):
            for i in range(counts.size[k]):
                if counts.symbol[k, i] == symbol:
                    lowest = k
                    break
            if lowest:
                break
    if not ppm.settings.online:
        lowest = counts.size.shape[0]
    learn(ppm.place, ppm.overlay, counts, symbol, lowest)


@njit(cache=True, nogil=True)
def run(chain, ppm, symbols, p, guesses, rows, best_rare, scratch):
    """Observe symbols one by one; see symbol_model.SymbolModel._run_symbols."""
    for i in range(symbols.shape[0]):
        out = rows[i] if rows.shape[0] > 0 else scratch
        distribution(chain, ppm, out)
        if guesses.shape[0] > 0:
            guesses[i] = np.uint8(best_symbol(out, best_rare))
        symbol = np.int64(symbols[i])
        p[i] = out[symbol]
        observe(chain, ppm, symbol)


class PPMC(ChainModel):
    """PPM as a CharModel on a built model. Options: PPMOptions, as keywords."""

    def __init__(self, model: Model, **options):
        self.options = o = PPMOptions(**options)
        if o.update_exclusion:
            model.require_all_counts("PPM with update exclusion, which counts contexts,")
        chain = build_chain(model, o.max_order)
        super().__init__(model, with_continuation(chain) if o.update_exclusion else chain, o.overlay_limit)

    def _restart(self) -> None:
        self.state = new_state(self.chain.param.size, self.options)

    @property
    def n_bytes(self) -> int:
        overlay = self.state.overlay if self.state else None
        return self.chain.continued.nbytes + (sum(a.nbytes for a in overlay) if overlay else 0)

    def _fill(self, out: np.ndarray) -> None:
        distribution(self.chain, self.state, out)

    def _run_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, rows: np.ndarray, advice: np.ndarray) -> None:
        run(self.chain, self.state, symbols, p, guesses, rows, self._best_rare, self._scratch)
