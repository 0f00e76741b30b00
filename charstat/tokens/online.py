"""What a stream of tokens has shown itself, by context: the overlay of ngram/overlay.py with entries for ids of 16 bits.

    entry   uint64   seen << 40 | recent << 16 | leaf       24 bits each for the two counts

`seen` is how often the token followed the context; `recent` the same in units of 1 / UNIT, where the counts of a context's other tokens
decay whenever one is observed: to RECENT_DECAY of themselves, or WORD_DECAY in contexts of words. A list holds up to MOST_ENTRIES tokens;
a full one forgets the one with the smallest counts.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.ngram.overlay import MASK24, UNIT, pack_slot, slot_length, slot_offset, slot_room, take_block
from charstat.tokens.state import DECAY, SLOT

MOST_ENTRIES = 128  # the largest room of overlay.SIZE_CLASSES is 2**7
RECENT_DECAY, WORD_DECAY = 0.4, 0.95
MAX_RECENT = (1 << 23) - 1
MOST_SEEN = (1 << 20) - 1
LEAF, RECENT, SEEN = np.uint64(0xFFFF), np.uint64(16), np.uint64(40)
RECENT_BITS = np.uint64(((1 << 24) - 1) << 16)
U0 = np.uint64(0)


@njit(cache=True, nogil=True, inline="always")
def entry_leaf(entry):
    """The leaf of an entry: int64."""
    return np.int64(entry & LEAF)


@njit(cache=True, nogil=True, inline="always")
def entry_recent(entry):
    """Its decaying count, fixed-point: int64."""
    return np.int64((entry >> RECENT) & MASK24)


@njit(cache=True, nogil=True, inline="always")
def entry_seen(entry):
    """How often it was seen: int64."""
    return np.int64(entry >> SEEN)


@njit(cache=True, nogil=True, inline="always")
def pack_entry(leaf, recent, seen):
    """The entry of a leaf and its two counts: uint64."""
    return (np.uint64(seen) << SEEN) | (np.uint64(recent) << RECENT) | np.uint64(leaf)


@njit(cache=True, nogil=True)
def count_tokens(slots, used, pool, heap, free, keys, online, families, leaf, position):
    """Count a token in the context of every key but 0, in the slot that was found for it (lookups.prepare)."""
    for f in range(keys.shape[0]):
        key, p, factor = keys[f], online[f, SLOT], families[f, DECAY]
        if key == U0:
            continue
        if slots[f, p, 0] == U0:
            at = take_block(pool, heap, free, 0)
            pool[at] = pack_entry(leaf, UNIT, 1)
            slots[f, p, 0] = key
            slots[f, p, 1] = pack_slot(at, 1, 0, position)
            used[f] += 1
            continue
        packed = slots[f, p, 1]
        at, length, room = slot_offset(packed), slot_length(packed), slot_room(packed)
        found, weakest, least = np.int64(-1), at, np.int64(1) << 62
        for e in range(at, at + length):
            entry = pool[e]
            if entry_leaf(entry) == leaf:
                found = e
            else:
                recent = max((entry_recent(entry) * factor) >> 16, np.int64(1))
                pool[e] = (entry & ~RECENT_BITS) | (np.uint64(recent) << RECENT)
                strength = recent + entry_seen(entry) * UNIT
                if strength < least:
                    least, weakest = strength, e
        if found >= 0:
            entry = pool[found]
            pool[found] = pack_entry(leaf, min(entry_recent(entry) + UNIT, MAX_RECENT), min(entry_seen(entry) + 1, MOST_SEEN))
        elif length == MOST_ENTRIES:
            pool[weakest] = pack_entry(leaf, UNIT, 1)
        else:
            if length == 1 << room:
                bigger = take_block(pool, heap, free, room + 1)
                for e in range(length):
                    pool[bigger + e] = pool[at + e]
                pool[at] = free[room]
                free[room] = np.uint64(at)
                at, room = bigger, room + 1
            pool[at + length] = pack_entry(leaf, UNIT, 1)
            length += 1
        slots[f, p, 1] = pack_slot(at, length, room, position)
