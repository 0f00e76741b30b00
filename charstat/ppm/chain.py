"""The chain of character contexts: the orders that a model has, from order 0 up, with their static and their online counts.

PPM, context-tree weighting and Kneser-Ney all read the same thing: for the current history, the counts of the next symbol in
each of its suffixes. The static part comes from the model's count tables, never counted again; the online part is kept in the
format of ngram/overlay.py (decays of its own), so that a stream which has both already can hand its lists in unchanged.

    combination rule      count = static_weight * static + fast_weight * fast + slow_weight * slow,   a type if any part has it
    online                the symbol that came: fast and slow + 1; the others of the context: fast * decay, slow * slow_decay

Tables may skip orders (o6, o8, o11): the chain then has longer steps. A context that the training text lacks has no longer
ones there either, so that look-ups stop at the first miss (static and online apart).

    find      rows and lists of every level for the current history          once per symbol
    gather    one level's symbols and counts, both parts combined            Counts.symbol[k, :n], Counts.count[k, :n]
    learn     count a symbol online, at the levels asked for, and move on
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from charstat.errors import ContextError
from charstat.ngram.hashing import CHARS, char_identity, mix64, push_symbol
from charstat.ngram.overlay import (
    GENERATION_BITS,
    MASK4,
    MASK8,
    MASK20,
    MASK24,
    MASK32,
    MAX_FIXED,
    NEW_ENTRY,
    U0,
    U1,
    U7,
    U31,
    U32,
    U40,
    U44,
    UNIT,
    find_slot,
    slot_list,
    take_block,
)
from charstat.ngram.table import find_context, identity_bits
from charstat.tree import ESCAPE, SYMBOLS

if TYPE_CHECKING:
    from charstat.alphabet import Alphabet
    from charstat.model import Model
    from charstat.ngram.contexts import Context

POSITION, FOUND, START, TOUCHED = range(4)  # in Place.at
SYMBOL_MASK = np.uint64(127)
ONE = 1.0 / UNIT


class Chain(NamedTuple):
    """The static side: one entry per level in the first arrays. Columns are the model's own, not copied."""

    param: np.ndarray  # int64 [K]: the orders, rising
    width: np.ndarray
    bits: np.ndarray
    start_bits: np.ndarray
    bucket_at: np.ndarray
    record_at: np.ndarray
    row_at: np.ndarray
    buckets: np.ndarray  # uint32
    records: np.ndarray  # uint64
    rows: np.ndarray  # uint32
    lower: np.ndarray  # uint32: rows with continuation counts (continuation.py), of the levels that have them
    lower_at: np.ndarray  # int64 [K]: where a level's start in `lower`; -1: it has plain counts only
    used: np.ndarray  # uint8 [128]: 1 for symbols with a leaf
    n_used: int


class Place(NamedTuple):
    """Where the stream is, and what it found there."""

    at: np.ndarray  # int64 [4]: symbols learned from, whether find() ran since the last, where the text starts, what find() touched
    history: np.ndarray  # uint64 [5] (hashing.push_symbol; class words unused)
    keys: np.ndarray  # uint64 [K]: online keys, 0 where the context does not exist yet
    found: np.ndarray  # int64 [K, 2]: static rows
    slots: np.ndarray  # int64 [K]
    lists: np.ndarray  # int64 [K, 2]: online offset, length


class Counts(NamedTuple):
    """Combined counts of every level; scratch."""

    symbol: np.ndarray  # int64 [K, 128]
    count: np.ndarray  # float64 [K, 128]
    size: np.ndarray  # int64 [K]: types
    where: np.ndarray  # int64 [128]: a sparse set's index
    weights: np.ndarray  # float64 [3]: static, fast, slow
    factors: np.ndarray  # uint64 [2]: 65536 * decay of fast and of slow


def select_orders(model: Model, max_order: int | None = None) -> list[Context]:
    """The model's character orders up to max_order, rising. ContextError if order 0 is missing or none is left."""
    chosen = sorted((c for c in model.contexts if c.kind == CHARS), key=lambda c: c.param)
    chosen = [c for c in chosen if max_order is None or c.param <= max_order]
    if not chosen or chosen[0].param != 0:
        raise ContextError("PPM, CTW and Kneser-Ney need the table o0: build the model with the character orders of a preset")
    return chosen


def used_symbols(alphabet: Alphabet) -> np.ndarray:
    """uint8 [128]: 1 for the symbols that have a leaf, the escape among them."""
    used = np.zeros(SYMBOLS, np.uint8)
    used[: alphabet.size] = 1
    used[ESCAPE] = 1
    return used


def build_chain(model: Model, max_order: int | None = None) -> Chain:
    """The chain over a model's character orders."""
    chosen = select_orders(model, max_order)
    entries = [model.manifest["tables"][c.name] for c in chosen]
    places = [np.array([e[n] for e in entries], np.int64) for n in ("bits", "start_bits", "bucket_at", "record_at", "row_at")]
    columns = model.columns
    used = used_symbols(model.alphabet)
    return Chain(
        np.array([c.param for c in chosen], np.int64), np.array([identity_bits(c) for c in chosen], np.int64), *places,
        columns["buckets"], columns["records"], columns["rows"],
        np.zeros(0, np.uint32), np.full(len(chosen), -1, np.int64), used, int(used.sum()),
    )  # fmt: skip


def new_place(levels: int) -> Place:
    return Place(
        np.zeros(4, np.int64), np.zeros(5, np.uint64), np.zeros(levels, np.uint64),
        np.zeros((levels, 2), np.int64), np.zeros(levels, np.int64), np.zeros((levels, 2), np.int64),
    )  # fmt: skip


def start_text(place: Place) -> None:
    """Go to the start of a text: the history is forgotten, what was learned is not."""
    place.history[:] = 0
    place.at[START] = place.at[POSITION]
    place.at[FOUND] = 0


def new_counts(
    levels: int, static: float = 1.0, fast: float = 1.0, slow: float = 0.0, decay: float = 1.0, slow_decay: float = 1.0
) -> Counts:
    factors = np.array([round(decay * 65536), round(slow_decay * 65536)], np.uint64)
    return Counts(
        np.zeros((levels, SYMBOLS), np.int64), np.zeros((levels, SYMBOLS)), np.zeros(levels, np.int64),
        np.zeros(SYMBOLS, np.int64), np.array([static, fast, slow]), factors,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def find(chain, place, overlay):
    """Find static rows and online lists of every level for the current history.

    What a look-up reads first is touched for all levels before the first one needs it: the cache misses of different levels do not
    wait for each other.
    """
    at, keys, found, slots = place.at, place.keys, place.found, overlay.slots
    if at[FOUND]:
        return
    buckets, records = chain.buckets, chain.records
    mask = slots.shape[1] - 1
    levels = 0
    touched = U0
    while levels < chain.param.shape[0] and at[POSITION] - at[START] >= chain.param[levels]:
        k = levels
        keys[k] = char_identity(CHARS, chain.param[k], place.history)
        found[k, 0] = chain.bucket_at[k] + np.int64(keys[k] >> np.uint64(chain.width[k] - chain.bits[k]))
        touched ^= slots[k, np.int64(mix64(keys[k] + U1) >> np.uint64(20)) & mask, 0]
        levels += 1
    for k in range(levels):
        found[k, 0] = chain.record_at[k] + np.int64(buckets[found[k, 0]])
    for k in range(levels):
        touched ^= records[found[k, 0]]
    at[TOUCHED] = np.int64(touched)  # subtle: used, so that the reads stay
    static = True
    for k in range(chain.param.shape[0]):
        found[k, 0], found[k, 1] = 0, 0
        place.lists[k, 1] = 0
        if k >= levels:
            keys[k] = U0
            continue
        if static:
            start, end = find_context(
                keys[k], chain.width[k], chain.bits[k], chain.start_bits[k], buckets, chain.bucket_at[k], records, chain.record_at[k]
            )
            found[k, 0], found[k, 1] = chain.row_at[k] + start, chain.row_at[k] + end
            static = end > start
        keys[k] = mix64(keys[k] + U1)
        place.slots[k] = find_slot(slots, k, keys[k])
        place.lists[k, 0], place.lists[k, 1] = slot_list(slots, k, place.slots[k])
    at[FOUND] = 1


@njit(cache=True, nogil=True, inline="always")
def gather(rows, pool, lo, hi, at, length, k, counts):
    """Level k of counts := static rows lo..hi and the online entries at..at + length, combined. Returns the number of types."""
    symbol, count, where = counts.symbol[k], counts.count[k], counts.where
    static, fast, slow = counts.weights[0], counts.weights[1], counts.weights[2]
    n = 0
    for r in range(lo, hi if static > 0.0 else lo):
        row = rows[r]
        symbol[n] = np.int64(row & np.uint32(127))
        count[n] = static * np.float64(row >> np.uint32(7))
        n += 1
    if length > 0:
        for i in range(n):
            where[symbol[i]] = i
        for e in range(at, at + length):
            entry = pool[e]
            s = np.int64(entry & SYMBOL_MASK)
            more = ONE * (fast * np.float64((entry >> U7) & MASK24) + slow * np.float64(entry >> U31))
            i = where[s]
            if i < n and symbol[i] == s:
                count[i] += more
            else:
                where[s] = n
                symbol[n], count[n] = s, more
                n += 1
    counts.size[k] = n
    return n


@njit(cache=True, nogil=True)
def gather_all(chain, place, overlay, counts):
    """find() and gather() at every level."""
    find(chain, place, overlay)
    for k in range(chain.param.shape[0]):
        lo, hi = place.found[k, 0], place.found[k, 1]
        if chain.lower_at[k] >= 0:
            shift = chain.lower_at[k] - chain.row_at[k]
            gather(chain.lower, overlay.pool, lo + shift, hi + shift, place.lists[k, 0], place.lists[k, 1], k, counts)
        else:
            gather(chain.rows, overlay.pool, lo, hi, place.lists[k, 0], place.lists[k, 1], k, counts)


@njit(cache=True, nogil=True, inline="always")
def _scaled(entry, fast_factor, slow_factor):
    fast = (((entry >> U7) & MASK24) * fast_factor) >> np.uint64(16)
    slow = ((entry >> U31) * slow_factor) >> np.uint64(16)
    return (max(slow, U1) << U31) | (max(fast, U1) << U7) | (entry & SYMBOL_MASK)


@njit(cache=True, nogil=True, inline="always")
def count_online(overlay, level, slot, key, symbol, position, factors):
    """Count a symbol in the context of a slot (found by find_slot for this key).

    A count that would leave its 23 bits (2,047 observations) halves all of its context first, as in PPMC (Moffat 1990).
    """
    slots, pool = overlay.slots, overlay.pool
    generation = (np.uint64(position >> GENERATION_BITS) & MASK20) << U44
    if slots[level, slot, 0] == U0:
        at = take_block(pool, overlay.heap, overlay.free, 0)
        pool[at] = NEW_ENTRY | np.uint64(symbol)
        slots[level, slot, 0] = key
        slots[level, slot, 1] = np.uint64(at) | (U1 << U32) | generation
        overlay.used[level] += 1
        return
    packed = slots[level, slot, 1]
    at, length, room = np.int64(packed & MASK32), np.int64((packed >> U32) & MASK8), np.int64((packed >> U40) & MASK4)
    found = -1
    for e in range(at, at + length):
        if np.int64(pool[e] & SYMBOL_MASK) == symbol:
            found = e
        else:
            pool[e] = _scaled(pool[e], factors[0], factors[1])
    if found >= 0:
        fast, slow = ((pool[found] >> U7) & MASK24) + np.uint64(UNIT), (pool[found] >> U31) + np.uint64(UNIT)
        if max(fast, slow) > np.uint64(MAX_FIXED):
            half = np.uint64(32768)
            for e in range(at, at + length):
                pool[e] = _scaled(pool[e], half, half)
            fast, slow = fast >> U1, slow >> U1
        pool[found] = (slow << U31) | (fast << U7) | np.uint64(symbol)
    else:
        if length == 1 << room:
            bigger = take_block(pool, overlay.heap, overlay.free, room + 1)
            for e in range(length):
                pool[bigger + e] = pool[at + e]
            pool[at] = overlay.free[room]
            overlay.free[room] = np.uint64(at)
            at, room = bigger, room + 1
        pool[at + length] = NEW_ENTRY | np.uint64(symbol)
        length += 1
    slots[level, slot, 1] = np.uint64(at) | (np.uint64(length) << U32) | (np.uint64(room) << U40) | generation


@njit(cache=True, nogil=True)
def learn(place, overlay, counts, symbol, lowest):
    """Count a symbol online at the levels from `lowest` up (find must have run), and move on."""
    for k in range(lowest, place.keys.shape[0]):
        if place.keys[k] != U0:
            count_online(overlay, k, place.slots[k], place.keys[k], symbol, place.at[POSITION], counts.factors)
    move_on(place, symbol)


@njit(cache=True, nogil=True)
def move_on(place, symbol):
    """Advance the history by one symbol; nothing is counted."""
    push_symbol(place.history, symbol, 0)
    place.at[POSITION] += 1
    place.at[FOUND] = 0
