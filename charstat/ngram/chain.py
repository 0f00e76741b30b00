"""The chain of character contexts: a model's orders, from order 0 up, with their static and their online counts.

PPM, context-tree weighting and Kneser-Ney read the same counts: those of the next symbol in every suffix of the history. The
static counts are the model's own tables. The online counts are lists of ngram/overlay.py, with a decay of their own.

    combination rule      count = static_weight * static + online_weight * online,   a type if either part has it
    online                the symbol that came: + 1; the others of its context: * decay (the overlay's fast counts)
    halving               the overlay's slow counts do not decay here: when one passes 2,047, all of its context is halved (Moffat 1990)

Tables may skip orders (o6, o8, o11): the chain then takes longer steps. If a context was never seen, no longer one was either, so
the lookups stop at the first miss (separately for static and online counts).

    find      static rows and online lists of every level for the current history      once per symbol
    gather    one level's symbols and counts, static and online combined               Counts.symbol[k, :n], Counts.count[k, :n]
    learn     count a symbol online, at the levels asked for, and move on
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from charstat.errors import ContextError
from charstat.ngram.hashing import CHARS, char_identity, mix64, push_symbol
from charstat.ngram.overlay import FAST, U0, UNIT, count_symbol, entry_count, entry_symbol, find_slot, slot_list
from charstat.ngram.table import bucket_of, find_context, identity_bits, row_count, row_symbol
from charstat.tree import ESCAPE, SYMBOLS

if TYPE_CHECKING:
    from charstat.alphabet import Alphabet
    from charstat.model import Model
    from charstat.ngram.contexts import Context

POSITION, READY, TEXT_START, TOUCHED = range(4)  # in Place.at
U1 = np.uint64(1)
NO_DECAY = 65536
ONE = 1.0 / UNIT


class Chain(NamedTuple):
    """The static side: K levels, one entry each in the first arrays. Columns are the model's own, not copied."""

    param: np.ndarray  # int64 [K]: the orders, rising
    width: np.ndarray  # int64 [K]: bits of an identity
    bits: np.ndarray
    start_bits: np.ndarray
    bucket_at: np.ndarray
    record_at: np.ndarray
    row_at: np.ndarray
    buckets: np.ndarray  # uint32
    records: np.ndarray  # uint64
    rows: np.ndarray  # uint32
    continued: np.ndarray  # uint32: rows with continuation counts (continuation.py), of the levels that have them
    continued_at: np.ndarray  # int64 [K]: where a level's rows start in `continued`; -1 if it has plain counts only
    used: np.ndarray  # uint8 [128]: 1 for symbols with a leaf
    n_used: int


class Place(NamedTuple):
    """The current position of a stream, and the rows and lists found for it."""

    at: np.ndarray  # int64 [4]: symbols observed; 1 once find() has run for this history; where the text starts; what find() touched
    history: np.ndarray  # uint64 [5] (hashing.push_symbol; class words unused)
    keys: np.ndarray  # uint64 [K]: online keys, 0 where the context does not exist yet
    row_ranges: np.ndarray  # int64 [K, 2]: first static row, end
    slots: np.ndarray  # int64 [K]
    lists: np.ndarray  # int64 [K, 2]: online offset, length


class Counts(NamedTuple):
    """Combined counts of every level; scratch."""

    symbol: np.ndarray  # int64 [K, 128]
    count: np.ndarray  # float64 [K, 128]
    size: np.ndarray  # int64 [K]: types
    where: np.ndarray  # int64 [128]: a sparse set's index
    weights: np.ndarray  # float64 [2]: of static and of online counts
    decay_factor: int  # 65536 * decay


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
    """The chain of a model's character orders."""
    chosen = select_orders(model, max_order)
    entries = [model.manifest["tables"][c.name] for c in chosen]
    fields = {n: np.array([e[n] for e in entries], np.int64) for n in ("bits", "start_bits", "bucket_at", "record_at", "row_at")}
    used = used_symbols(model.alphabet)
    return Chain(
        param=np.array([c.param for c in chosen], np.int64),
        width=np.array([identity_bits(c) for c in chosen], np.int64),
        **fields,
        **{name: model.columns[name] for name in ("buckets", "records", "rows")},
        continued=np.zeros(0, np.uint32),
        continued_at=np.full(len(chosen), -1, np.int64),
        used=used,
        n_used=int(used.sum()),
    )


def new_place(levels: int) -> Place:
    """The place of a stream that has seen nothing."""
    return Place(
        at=np.zeros(4, np.int64),
        history=np.zeros(5, np.uint64),
        keys=np.zeros(levels, np.uint64),
        row_ranges=np.zeros((levels, 2), np.int64),
        slots=np.zeros(levels, np.int64),
        lists=np.zeros((levels, 2), np.int64),
    )


def start_text(place: Place) -> None:
    """Go to the start of a text: the history is forgotten, what was learned is not."""
    place.history[:] = 0
    place.at[TEXT_START] = place.at[POSITION]
    place.at[READY] = 0


def new_counts(levels: int, static: float = 1.0, online: float = 1.0, decay: float = 1.0) -> Counts:
    """Room for the counts of `levels` levels, with the weights and the decay of the combination rule."""
    return Counts(
        symbol=np.zeros((levels, SYMBOLS), np.int64),
        count=np.zeros((levels, SYMBOLS)),
        size=np.zeros(levels, np.int64),
        where=np.zeros(SYMBOLS, np.int64),
        weights=np.array([static, online]),
        decay_factor=round(decay * 65536),
    )


@njit(cache=True, nogil=True)
def find(chain, place, overlay):
    """Find the static rows and the online list of every level for the current history.

    The first passes touch the memory that the lookups will read, one access per pass for all levels, so that the cache misses of
    different levels overlap.
    """
    at, keys, row_ranges, slots = place.at, place.keys, place.row_ranges, overlay.slots
    if at[READY]:
        return
    buckets, records = chain.buckets, chain.records
    mask = slots.shape[1] - 1
    levels = 0
    touched = U0
    while levels < chain.param.shape[0] and at[POSITION] - at[TEXT_START] >= chain.param[levels]:
        k = levels
        keys[k] = char_identity(CHARS, chain.param[k], place.history)
        row_ranges[k, 0] = chain.bucket_at[k] + bucket_of(keys[k], chain.width[k], chain.bits[k])
        touched ^= slots[k, np.int64(mix64(keys[k] + U1) >> np.uint64(20)) & mask, 0]
        levels += 1
    for k in range(levels):
        row_ranges[k, 0] = chain.record_at[k] + np.int64(buckets[row_ranges[k, 0]])
    for k in range(levels):
        touched ^= records[row_ranges[k, 0]]
    at[TOUCHED] = np.int64(touched)  # subtle: stored, so that the compiler keeps the reads
    static = True
    for k in range(chain.param.shape[0]):
        row_ranges[k, 0], row_ranges[k, 1] = 0, 0
        place.lists[k, 1] = 0
        if k >= levels:
            keys[k] = U0
            continue
        if static:
            _, start, end = find_context(
                keys[k], chain.width[k], chain.bits[k], chain.start_bits[k], buckets, chain.bucket_at[k], records, chain.record_at[k]
            )
            row_ranges[k, 0], row_ranges[k, 1] = chain.row_at[k] + start, chain.row_at[k] + end
            static = end > start
        keys[k] = mix64(keys[k] + U1)
        place.slots[k] = find_slot(slots, k, keys[k])
        place.lists[k, 0], place.lists[k, 1] = slot_list(slots, k, place.slots[k])
    at[READY] = 1


@njit(cache=True, nogil=True, inline="always")
def gather(rows, pool, lo, hi, at, length, k, counts):
    """Level k of counts := static rows lo..hi and the online entries at..at + length, combined. Returns the number of types."""
    symbol, count, where = counts.symbol[k], counts.count[k], counts.where
    static, online = counts.weights[0], ONE * counts.weights[1]
    n = 0
    for r in range(lo, hi if static > 0.0 else lo):
        row = rows[r]
        symbol[n] = row_symbol(row)
        count[n] = static * np.float64(row_count(row))
        n += 1
    if length > 0:
        for i in range(n):
            where[symbol[i]] = i
        for e in range(at, at + length):
            entry = pool[e]
            s = entry_symbol(entry)
            more = online * np.float64(entry_count(entry, FAST))
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
        lo, hi = place.row_ranges[k, 0], place.row_ranges[k, 1]
        if chain.continued_at[k] >= 0:
            shift = chain.continued_at[k] - chain.row_at[k]
            gather(chain.continued, overlay.pool, lo + shift, hi + shift, place.lists[k, 0], place.lists[k, 1], k, counts)
        else:
            gather(chain.rows, overlay.pool, lo, hi, place.lists[k, 0], place.lists[k, 1], k, counts)


@njit(cache=True, nogil=True)
def learn(place, overlay, counts, symbol, lowest):
    """Count a symbol online at the levels from `lowest` up (find must have run), and move on."""
    slots, used, pool, heap, free = overlay.slots, overlay.used, overlay.pool, overlay.heap, overlay.free
    keys, position, factor = place.keys, place.at[POSITION], counts.decay_factor
    for k in range(lowest, keys.shape[0]):
        if keys[k] != U0:
            count_symbol(slots, used, pool, heap, free, k, place.slots[k], keys[k], symbol, position, factor, NO_DECAY, True)
    move_on(place, symbol)


@njit(cache=True, nogil=True)
def move_on(place, symbol):
    """Advance the history by one symbol; nothing is counted."""
    push_symbol(place.history, symbol, 0)
    place.at[POSITION] += 1
    place.at[READY] = 0
