"""The online overlay: what the stream itself has shown, per context, with recent symbols counting more.

Every count table has an online counterpart here: an open-addressing hash table from contexts to short lists of (symbol, fast, slow).
An observed symbol's counts go up by 1. The counts of the other symbols in that context decay: the fast ones to 0.4 of themselves, the
slow ones to 0.95. Recency is worth more than long contexts: measured on 12 MB, one overlay without decay 0.687 accuracy, both speeds
together 0.702. The mixture reads one count per context, the fast one for characters, the slow one for words (mixers/masses.py).
PPM sets decays of its own (chain.py).

Counts are fixed-point integers (UNIT = 1), so that sums do not depend on their order: the probability of a symbol is the same,
bit for bit, whether one path of the code tree is evaluated or the whole tree.

An entry also says how often its symbol was seen, without decay: what the count tables would hold of this text. Where that would pass
MOST_SEEN, the times of the whole context are halved (rounded up), so that they keep their ratios.

    slot   uint64 [2]   key (0 = free) | pool offset 32 bits, length 8, log2 of room 4, generation 20 (stream position >> 12)
    entry  uint64       seen << 55 | slow << 31 | fast << 7 | symbol; 9 bits for seen, 24 each for slow and fast

A slot takes 16 bytes, and a list of up to eight symbols lies in one or two cache lines. Memory is bounded: a table that holds
`limit` contexts forgets the half that was seen least recently.

Streams that were forked share what they had learned by then: an overlay may lie on a *base*, an overlay that nothing writes to any more
(layers.py). A context is copied from there when it is looked up (bring_contexts), so that everything else sees one overlay.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.compiled import inlined, kernel
from charstat.ngram.hashing import SYMBOL_MASK

UNIT_BITS = 12
UNIT = 1 << UNIT_BITS
MAX_FIXED = (1 << 23) - 1  # 2,047 observations; 128 of them still add up within 31 bits
FAST_DECAY, SLOW_DECAY = 0.4, 0.95
FAST_FACTOR, SLOW_FACTOR, HALF = round(FAST_DECAY * 65536), round(SLOW_DECAY * 65536), 65536 // 2
FAST, SLOW, SEEN = 7, 31, 55  # where each count starts in an entry; count_shift is FAST or SLOW
MOST_SEEN = (1 << (64 - SEEN)) - 1
GENERATION_BITS = 12
GENERATIONS = 1 << 20
FIRST_CAPACITY = 1 << 10
DEFAULT_LIMIT = 1 << 20  # contexts in each table
SIZE_CLASSES = 8  # rooms of 1, 2, 4 .. 128 entries

U0, U7, U31, U32, U40, U44, U55 = (np.uint64(n) for n in (0, FAST, SLOW, 32, 40, 44, SEEN))
MASK4, MASK8, MASK24, MASK32 = np.uint64(15), np.uint64(255), np.uint64((1 << 24) - 1), np.uint64((1 << 32) - 1)
SEEN_BITS = np.uint64(MOST_SEEN << SEEN)
NO_BLOCK = np.uint64((1 << 64) - 1)


class Overlay(NamedTuple):
    """The overlays of all tables, with one pool of entries; and the base that they lie on, shared with forks and never written to."""

    slots: np.ndarray  # uint64 [tables, capacity, 2]
    used: np.ndarray  # int64 [tables]: contexts held
    pool: np.ndarray  # uint64 [entries]
    heap: np.ndarray  # int64 [1]: entries of the pool handed out so far
    free: np.ndarray  # uint64 [SIZE_CLASSES]: first free block of each size, NO_BLOCK if none
    base_slots: np.ndarray  # as slots; capacity 0 without a base
    base_pool: np.ndarray  # as pool, what was handed out of it

    def copied(self) -> Overlay:
        """A copy with the same room on the same base; of the pool, only what was handed out takes memory."""
        pool, end = np.empty_like(self.pool), int(self.heap[0])
        pool[:end] = self.pool[:end]
        empty = not self.used.any()  # zeros take no memory until they are written
        slots = np.zeros(self.slots.shape, np.uint64) if empty else self.slots.copy()
        return self._replace(slots=slots, used=self.used.copy(), pool=pool, heap=self.heap.copy(), free=self.free.copy())

    @property
    def layered(self) -> bool:
        """Whether there is a base."""
        return self.base_slots.shape[1] > 0


def new_overlay(tables: int, capacity: int = FIRST_CAPACITY, entries: int = 1 << 12) -> Overlay:
    return Overlay(
        np.zeros((tables, capacity, 2), np.uint64),
        np.zeros(tables, np.int64),
        np.zeros(entries, np.uint64),
        np.zeros(1, np.int64),
        np.full(SIZE_CLASSES, NO_BLOCK, np.uint64),
        np.zeros((tables, 0, 2), np.uint64),
        np.zeros(0, np.uint64),
    )


@njit(cache=True, nogil=True, inline="always")
def entry_symbol(entry):
    """The symbol of an entry: int64."""
    return np.int64(entry & SYMBOL_MASK)


@njit(cache=True, nogil=True, inline="always")
def entry_count(entry, count_shift):
    """One of an entry's two counts, fixed-point: int64. count_shift: FAST or SLOW."""
    return np.int64((entry >> np.uint64(count_shift)) & MASK24)


@njit(cache=True, nogil=True, inline="always")
def entry_seen(entry):
    """How often an entry's symbol was seen: int64, 1..MOST_SEEN."""
    return np.int64(entry >> U55)


@njit(cache=True, nogil=True, inline="always")
def pack_entry(symbol, fast, slow, seen):
    """The entry of a symbol, its two fixed-point counts, and how often it was seen: uint64."""
    return (np.uint64(seen) << U55) | (np.uint64(slow) << U31) | (np.uint64(fast) << U7) | np.uint64(symbol)


@njit(cache=True, nogil=True, inline="always")
def slot_offset(packed):
    """Where a slot's list starts in the pool: int64. packed: the second word of the slot."""
    return np.int64(packed & MASK32)


@njit(cache=True, nogil=True, inline="always")
def slot_length(packed):
    """How many entries a slot's list has: int64."""
    return np.int64((packed >> U32) & MASK8)


@njit(cache=True, nogil=True, inline="always")
def slot_room(packed):
    """The log2 of the entries that fit into a slot's block: int64."""
    return np.int64((packed >> U40) & MASK4)


@njit(cache=True, nogil=True, inline="always")
def slot_age(packed, position):
    """How many generations ago a slot's context was last seen, modulo 2**20: int64."""
    return ((position >> GENERATION_BITS) - np.int64(packed >> U44)) & (GENERATIONS - 1)


@njit(cache=True, nogil=True, inline="always")
def pack_slot(offset, length, room, position):
    """The second word of a slot whose context is seen at a stream position: uint64."""
    generation = np.uint64(position >> GENERATION_BITS) & np.uint64(GENERATIONS - 1)
    return np.uint64(offset) | (np.uint64(length) << U32) | (np.uint64(room) << U40) | (generation << U44)


@njit(cache=True, nogil=True, inline="always")
def find_slot(slots, table, key):
    """The slot that holds the key, or the free one where it would go."""
    mask = slots.shape[1] - 1
    p = np.int64(key >> np.uint64(20)) & mask
    while slots[table, p, 0] != U0 and slots[table, p, 0] != key:
        p = (p + 1) & mask
    return p


@njit(cache=True, nogil=True, inline="always")
def slot_list(slots, table, p):
    """(offset, length) of a slot's entries in the pool; length 0 if the slot is free."""
    if slots[table, p, 0] == U0:
        return np.int64(0), np.int64(0)
    packed = slots[table, p, 1]
    return slot_offset(packed), slot_length(packed)


@njit(cache=True, nogil=True, inline="always")
def take_block(pool, heap, free, size_class):
    """Room for 2**size_class entries in the pool: where it starts. The arrays are those of an Overlay."""
    block = free[size_class]
    if block != NO_BLOCK:
        free[size_class] = pool[np.int64(block)]
        return np.int64(block)
    at = heap[0]
    heap[0] = at + (1 << size_class)
    return at


@njit(cache=True, nogil=True, inline="always")
def decayed(entry, fast_factor, slow_factor):
    """The entry with both counts multiplied by factor / 65536, but never below 1 unit. Factors: int64."""
    fast, slow = (entry_count(entry, FAST) * fast_factor) >> 16, (entry_count(entry, SLOW) * slow_factor) >> 16
    return pack_entry(entry_symbol(entry), max(fast, np.int64(1)), max(slow, np.int64(1)), entry_seen(entry))


@inlined
def count_symbol(
    slots, used, pool, heap, free, table, p, key, symbol, position, fast_factor=FAST_FACTOR, slow_factor=SLOW_FACTOR, halve=False
):
    """Count a symbol in the context of slot p (found by find_slot for this key). The arrays are those of an Overlay.

    The symbol's counts go up by UNIT, those of the context's other symbols are multiplied by factor / 65536. A count that would pass
    MAX_FIXED stays there; with `halve`, all counts of the context are halved instead, as in PPMC (Moffat 1990).
    """
    if slots[table, p, 0] == U0:
        at = take_block(pool, heap, free, 0)
        pool[at] = pack_entry(symbol, UNIT, UNIT, 1)
        slots[table, p, 0] = key
        slots[table, p, 1] = pack_slot(at, 1, 0, position)
        used[table] += 1
        return
    packed = slots[table, p, 1]
    at, length, room = slot_offset(packed), slot_length(packed), slot_room(packed)
    seen = -1
    for e in range(at, at + length):
        if entry_symbol(pool[e]) == symbol:
            seen = e
        else:
            pool[e] = decayed(pool[e], fast_factor, slow_factor)
    if seen >= 0:
        fast, slow = entry_count(pool[seen], FAST) + UNIT, entry_count(pool[seen], SLOW) + UNIT
        if halve and max(fast, slow) > MAX_FIXED:
            for e in range(at, at + length):
                pool[e] = decayed(pool[e], HALF, HALF)
            fast, slow = fast >> 1, slow >> 1
        times = entry_seen(pool[seen]) + 1
        if times > MOST_SEEN:
            for e in range(at, at + length):
                pool[e] = (pool[e] & ~SEEN_BITS) | (np.uint64((entry_seen(pool[e]) + 1) >> 1) << U55)
            times = (times + 1) >> 1
        pool[seen] = pack_entry(symbol, min(fast, MAX_FIXED), min(slow, MAX_FIXED), times)
    else:
        if length == 1 << room:
            bigger = take_block(pool, heap, free, room + 1)
            for e in range(length):
                pool[bigger + e] = pool[at + e]
            pool[at] = free[room]
            free[room] = np.uint64(at)
            at, room = bigger, room + 1
        pool[at + length] = pack_entry(symbol, UNIT, UNIT, 1)
        length += 1
    slots[table, p, 1] = pack_slot(at, length, room, position)


@kernel
def bring_contexts(overlay, keys, touched):
    """Copy the contexts of these keys, one for each table, from the base; those that are there already, or nowhere, stay as they are."""
    slots, pool, base_slots, base_pool = overlay.slots, overlay.pool, overlay.base_slots, overlay.base_pool
    mask = np.uint64(base_slots.shape[1] - 1)
    for f in range(keys.shape[0]):
        touched[f] = np.int64(base_slots[f, (keys[f] >> np.uint64(20)) & mask, 0])
    for f in range(keys.shape[0]):
        if keys[f] == U0:
            continue
        p = find_slot(slots, f, keys[f])
        if slots[f, p, 0] != U0:
            continue
        q = find_slot(base_slots, f, keys[f])
        if base_slots[f, q, 0] != U0:
            put_list(slots, overlay.used, pool, overlay.heap, overlay.free, f, p, keys[f], base_slots[f, q, 1], base_pool)


@njit(cache=True, nogil=True, inline="always")  # a call for each context took a fifth of a stream's time
def put_list(slots, used, pool, heap, free, table, p, key, packed, other_pool):
    """Write a context into the free slot p, with a copy of its list in another pool. packed: the second word of its slot there."""
    at, block = slot_offset(packed), take_block(pool, heap, free, slot_room(packed))
    for e in range(slot_length(packed)):
        pool[block + e] = other_pool[at + e]
    slots[table, p, 0] = key
    slots[table, p, 1] = np.uint64(block) | (packed & ~MASK32)
    used[table] += 1


def ensure_room(overlay: Overlay, steps: int, position: int, limit: int = DEFAULT_LIMIT) -> Overlay:
    """An overlay with room for `steps` more observations in every table: the same one, or a larger or trimmed copy.

    A table that would hold more than `limit` contexts forgets the half that was seen least recently. One with a base must
    have been bounded (layers.py).
    """
    held = int(overlay.used.max(initial=0))
    if held + steps > limit and held > limit // 2:
        overlay = copy_overlay(overlay, overlay.slots.shape[1], overlay.pool.size, limit // 2, position)
    return with_room(overlay, steps)


def with_room(overlay: Overlay, steps: int) -> Overlay:
    """An overlay with room for `steps` more observations, which forgets nothing: the same one, or a larger copy."""
    tables, capacity, _ = overlay.slots.shape
    most, wanted = int(overlay.used.max(initial=0)) + steps, capacity
    while 5 * most > 3 * wanted:
        wanted *= 2
    # New lists take fewer than 4 entries a step; a full list moves to twice its room at once, 128 entries at most.
    handed_out = int(overlay.heap[0])
    moved = min(overlay.base_pool.size, 128 * tables * steps)  # from the base, at most
    entries = handed_out + moved + min(2 * (handed_out + moved), 128 * tables * steps) + tables * (4 * steps + 256)
    size = overlay.pool.size
    while size < entries:
        size *= 2
    if wanted != capacity:
        return copy_overlay(overlay, wanted, size, capacity, 0)
    if size != overlay.pool.size:
        pool = np.zeros(size, np.uint64)
        pool[: overlay.pool.size] = overlay.pool
        return overlay._replace(pool=pool)
    return overlay


def copy_overlay(overlay: Overlay, capacity: int, entries: int, keep: int, position: int) -> Overlay:
    """The same contexts in other room; of a table that holds more than `keep`, only the most recently seen generations."""
    new = new_overlay(overlay.slots.shape[0], capacity, entries)
    _refill(overlay, new, keep, position)
    return new._replace(base_slots=overlay.base_slots, base_pool=overlay.base_pool)


@njit(cache=True, nogil=True)
def _refill(old, new, keep, position):
    """Copy the contexts of every table; of one that holds more than `keep`, only the most recently seen generations."""
    for table in range(old.slots.shape[0]):
        oldest = np.int64(GENERATIONS)  # contexts of this age or older are forgotten
        if old.used[table] > keep:
            ages = np.zeros(GENERATIONS + 1, np.int64)
            for p in range(old.slots.shape[1]):
                if old.slots[table, p, 0] != U0:
                    ages[slot_age(old.slots[table, p, 1], position)] += 1
            held = np.int64(0)
            oldest = 0
            while oldest < GENERATIONS and held + ages[oldest] <= keep:
                held += ages[oldest]
                oldest += 1
        for p in range(old.slots.shape[1]):
            key, packed = old.slots[table, p, 0], old.slots[table, p, 1]
            if key == U0 or slot_age(packed, position) >= oldest:
                continue
            q = find_slot(new.slots, table, key)
            put_list(new.slots, new.used, new.pool, new.heap, new.free, table, q, key, packed, old.pool)
