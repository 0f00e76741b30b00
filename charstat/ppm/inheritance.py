"""InheritingPPM: PPM with information inheritance and secondary escape estimation (SEE). Not Shkarin's PPMd, but built on its ideas.

Information inheritance: a context that has seen little takes over what the shorter contexts know of its symbols (Shkarin, "PPM: one
step to practicality", 2002). Secondary escape estimation: escape probabilities are learned from how often contexts in the same state
escaped (Bloom, "Solving the problems of context modeling", 1998, PPMZ; Shkarin). Blending runs from order -1 up (as in Bunton's
executable taxonomy, 1997). Every context has two layers: first the counts of the training text, then those of the stream, which decay.
q is the distribution so far; a layer has the symbols S with counts c, n in all; Q is the mass of q on S:

    q'(s) = (1 - e) ((1 - h) c(s) / n + h q(s) / Q)      s in S
    q'(s) = e q(s) / (1 - Q)                             other symbols          e = 0 if S is all that is left

    h   inheritance: 0.6 for every layer (learning it online per state arrived at the same value and cost 0.002 bits/char)
    e   SEE[layer][n][types][flag][logit of Q], interpolated between the two nearest of 24 points of Q; after the symbol, the nearest
        point moves towards 1 if the symbol was novel to the layer, towards 0 if not, at the rate 1 / visits, down to a floor

Q matters most: a context escapes more often if the shorter contexts expect a symbol that it has never seen.
Σ p = 1 by construction; the last step divides by the sum to remove rounding errors.

Measured (featured, 135.4 M characters, order 14; val 120,000 to 180,000; accuracy, bits/char): PPM-C with online weight 16 0.6919, 1.667;
SEE and inheritance as a discount of at most 0.7 from every count, static and online counts in one layer 0.7046, 1.507; in two
layers 0.7062, 1.499; inheritance as a discount 0.5 c^0.7 0.7090, 1.482; as the constant share 0.6 0.7138, 1.455.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from charstat.ngram.chain import Counts, Place, build_chain, find, gather, learn, new_counts, new_place
from charstat.ngram.chain_model import ChainModel
from charstat.ngram.overlay import DEFAULT_LIMIT, Overlay, new_overlay
from charstat.symbol_model import best_symbol
from charstat.tree import SYMBOLS

if TYPE_CHECKING:
    from charstat.model import Model

POINTS = 24  # of the logit of Q, from LOW_LOGIT to HIGH_LOGIT
LOW_LOGIT, HIGH_LOGIT = -4.0, 10.0
POINT_STEP = (POINTS - 1) / (HIGH_LOGIT - LOW_LOGIT)
COUNT_BUCKETS = 10
TYPE_BUCKETS = 8
FLAGS = 2
ONLINE_EDGES = np.array([0.3, 0.6, 0.9, 1.1, 1.5, 2.1, 3.1, 5.0, 9.0])
TYPICAL_STATIC = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1000.0])
TYPICAL_TYPES = np.array([1.0, 2.0, 3.0, 4.0, 5.5, 8.0, 15.0, 40.0])
ESCAPE_MIN = 1e-5
INSIDE = 1e-6


@dataclass(frozen=True)
class InheritanceOptions:
    """max_order: None for the model's. inheritance: h. decay: of online counts. see_floor: the lowest learning rate of SEE. see_trust: how
    many visits its initial values count as. online=False: static layers only (SEE still learns)."""

    max_order: int | None = None
    inheritance: float = 0.6
    decay: float = 0.6
    see_floor: float = 0.007
    see_trust: float = 5.0
    online: bool = True
    overlay_limit: int = DEFAULT_LIMIT


class Settings(NamedTuple):
    """The options that the kernels read."""

    inheritance: float
    see_floor: float
    online: bool


class State(NamedTuple):
    """A stream: K levels, 2 K layers (static 0..K, online K..2 K)."""

    place: Place
    overlay: Overlay
    counts: Counts  # of 2 K layers
    escape: np.ndarray  # float64 [2 K * COUNT_BUCKETS * TYPE_BUCKETS * FLAGS * POINTS]: SEE
    visits: np.ndarray  # float64, the same
    entry: np.ndarray  # int64 [2 K]: the SEE entry that each layer used, -1: none
    settings: Settings
    fresh: np.ndarray  # float64 [128]


def initial_escapes(layers: int) -> np.ndarray:
    """SEE before anything was seen: 0.6 sqrt((1 - Q) t / (n + t)) for n counts of t types."""
    n, t = TYPICAL_STATIC[:, None, None, None], TYPICAL_TYPES[:, None, None]
    outside = 1.0 / (1.0 + np.exp(np.linspace(LOW_LOGIT, HIGH_LOGIT, POINTS)))
    one = 0.6 * np.sqrt(outside * np.minimum(t / (n + t), 0.9)) * np.ones((FLAGS, 1))
    return np.tile(one.ravel(), layers)


def new_state(levels: int, options: InheritanceOptions) -> State:
    escape = initial_escapes(2 * levels)
    return State(
        new_place(levels), new_overlay(levels), new_counts(2 * levels, 1.0, 1.0, decay=options.decay), escape,
        np.full(escape.size, options.see_trust), np.full(2 * levels, -1, np.int64),
        Settings(float(options.inheritance), float(options.see_floor), bool(options.online)), np.zeros(SYMBOLS),
    )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def count_bucket(n, online):
    """0..COUNT_BUCKETS - 1: powers of two of static counts, finer around 1 for fading ones."""
    b = 0
    if online:
        while b < COUNT_BUCKETS - 1 and n >= ONLINE_EDGES[b]:
            b += 1
        return b
    while n >= 1.5 and b < COUNT_BUCKETS - 1:
        n *= 0.5
        b += 1
    return b


@njit(cache=True, nogil=True, inline="always")
def type_bucket(types):
    if types <= 4:
        return types - 1
    return 4 if types <= 6 else 5 if types <= 10 else 6 if types <= 20 else 7


@njit(cache=True, nogil=True, inline="always")
def apply_layer(layer, online, flag, n_used, scale, see, out):
    """Blend one layer in: out * scale is q before and after. Returns the new scale. O(types of the layer)."""
    symbol, count, size = see.counts.symbol[layer], see.counts.count[layer], see.counts.size[layer]
    n, mass = 0.0, 0.0
    for i in range(size):
        n += count[i]
        mass += out[symbol[i]]
    mass *= scale
    own = (1.0 - see.settings.inheritance) / n
    inherited = see.settings.inheritance * scale / mass
    if size == n_used or mass >= 1.0 - 1e-12:
        for i in range(size):
            see.fresh[i] = own * count[i] + inherited * out[symbol[i]]
        out[:] = 0.0
        for i in range(size):
            out[symbol[i]] = see.fresh[i]
        return 1.0
    inside = min(max(mass, INSIDE), 1.0 - INSIDE)
    point = (math.log(inside / (1.0 - inside)) - LOW_LOGIT) * POINT_STEP
    point = min(max(point, 0.0), POINTS - 1.001)
    low = np.int64(point)
    part = point - low
    at = (((layer * COUNT_BUCKETS + count_bucket(n, online)) * TYPE_BUCKETS + type_bucket(size)) * FLAGS + flag) * POINTS + low
    escape = (1.0 - part) * see.escape[at] + part * see.escape[at + 1]
    escape = min(max(escape, ESCAPE_MIN), 1.0 - ESCAPE_MIN)
    see.entry[layer] = at if part < 0.5 else at + 1
    new_scale = scale * escape / (1.0 - mass)
    stay = (1.0 - escape) / new_scale
    for i in range(size):
        s = symbol[i]
        out[s] = stay * (own * count[i] + inherited * out[s])
    if new_scale < 1e-100 or new_scale > 1e100:
        for s in range(SYMBOLS):
            out[s] *= new_scale
        return 1.0
    return new_scale


@njit(cache=True, nogil=True)
def blend(chain, see, pool, out):
    """out[symbol] := P(symbol) from the rows and lists in see.place."""
    place = see.place
    levels = chain.param.shape[0]
    for s in range(SYMBOLS):
        out[s] = 1.0 if chain.used[s] else 0.0
    scale = 1.0 / chain.n_used
    see.entry[:] = -1
    for k in range(levels):
        lo, hi = place.row_ranges[k, 0], place.row_ranges[k, 1]
        at, length = place.lists[k, 0], place.lists[k, 1]
        if gather(chain.rows, pool, lo, hi, 0, 0, k, see.counts) > 0:
            scale = apply_layer(k, False, 0, chain.n_used, scale, see, out)
        if gather(chain.rows, pool, 0, 0, at, length, levels + k, see.counts) > 0:
            scale = apply_layer(levels + k, True, 1 if hi == lo else 0, chain.n_used, scale, see, out)
    total = 0.0
    for s in range(SYMBOLS):
        total += out[s]
    total = 1.0 / total
    for s in range(SYMBOLS):
        out[s] *= total


@njit(cache=True, nogil=True)
def distribution(chain, see, out):
    """out[symbol] := P(symbol) for the current history: float64 [128], sum 1."""
    find(chain, see.place, see.overlay)
    blend(chain, see, see.overlay.pool, out)


@njit(cache=True, nogil=True)
def learn_escapes(see, symbol):
    """Once the symbol is known: every layer that was blended in learns whether the symbol was novel to it."""
    for layer in range(see.entry.shape[0]):
        at = see.entry[layer]
        if at < 0:
            continue
        novel = 1.0
        for i in range(see.counts.size[layer]):
            if see.counts.symbol[layer, i] == symbol:
                novel = 0.0
                break
        see.escape[at] += max(1.0 / (see.visits[at] + 1.5), see.settings.see_floor) * (novel - see.escape[at])
        see.visits[at] += 1.0


@njit(cache=True, nogil=True)
def observe(chain, see, symbol):
    """Learn from the symbol that came and move on; distribution() must have run for this history."""
    learn_escapes(see, symbol)
    learn(see.place, see.overlay, see.counts, symbol, 0 if see.settings.online else chain.param.shape[0])


@njit(cache=True, nogil=True)
def run(chain, see, symbols, p, guesses, rows, best_rare, scratch):
    """Observe symbols one by one; see symbol_model.SymbolModel._run_symbols."""
    for i in range(symbols.shape[0]):
        out = rows[i] if rows.shape[0] > 0 else scratch
        distribution(chain, see, out)
        if guesses.shape[0] > 0:
            guesses[i] = np.uint8(best_symbol(out, best_rare))
        symbol = np.int64(symbols[i])
        p[i] = out[symbol]
        observe(chain, see, symbol)


class InheritingPPM(ChainModel):
    """PPM with information inheritance and SEE as a CharModel on a built model. Options: InheritanceOptions, as keywords."""

    def __init__(self, model: Model, **options):
        self.options = o = InheritanceOptions(**options)
        super().__init__(model, build_chain(model, o.max_order), o.overlay_limit)

    def _restart(self) -> None:
        self.state = new_state(self.chain.param.size, self.options)

    @property
    def n_bytes(self) -> int:
        s = self.state
        return sum(a.nbytes for a in (*s.overlay, s.escape, s.visits)) if s else 0

    def _fill(self, out: np.ndarray) -> None:
        distribution(self.chain, self.state, out)

    def _run_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, rows: np.ndarray, advice: np.ndarray) -> None:
        run(self.chain, self.state, symbols, p, guesses, rows, self._best_rare, self._scratch)
