"""The counts without decay that a stream has collected, as tables: exactly those that counting makes of the same ids.

    overlay slot    key = mix64(identity + 1) -> list of (leaf, seen, recent)
    table           identity -> (leaf, count = seen), sorted

mix64 is a bijection, so the identity comes back from the key. Sums of `seen` do not depend on any order, and add up over streams; the decaying
counts beside them do not (docs/ranks.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from charstat.errors import StateError
from charstat.ngram.hashing import unmix64
from charstat.ngram.layers import joined
from charstat.ngram.overlay import slot_length, slot_offset
from charstat.tokens.counting import id_bits
from charstat.tokens.online import entry_leaf, entry_seen
from charstat.tokens.state import CLOCK, POSITION
from charstat.tokens.table import TokenTable, lay_out

if TYPE_CHECKING:
    from charstat.tokens.stream import TokenStream


def seen_tables(stream: TokenStream) -> list[TokenTable]:
    """The table of every context of a stream. StateError if one lacks anything that was observed."""
    state, bits = stream.state, id_bits(stream.vocab_size)
    overlay = joined(state.overlay, 0)
    n, before = int(state.cursor[CLOCK]), int(state.cursor[POSITION] - state.cursor[CLOCK])
    tables = []
    for f, context in enumerate(stream.model.contexts):
        slots = overlay.slots[f][overlay.slots[f, :, 0] != 0]
        identities, leaves, counts = (np.empty(overlay.pool.size, dtype) for dtype in (np.uint64, np.uint32, np.int64))
        rows = _entries(slots, overlay.pool, identities, leaves, counts)
        if int(counts[:rows].sum()) != max(0, min(n, n + before - context.reach)):
            raise StateError(f"the stream has forgotten some of what it saw after {context.name}: count the ids with build_tokens()")
        order = np.lexsort((leaves[:rows], identities[:rows]))
        keys = identities[:rows][order]
        first = np.flatnonzero(np.diff(keys, prepend=keys[:1] + np.uint64(1))) if rows else np.zeros(0, np.int64)
        starts = np.append(first, rows).astype(np.uint32)
        sums = np.concatenate([[0], np.cumsum(counts[:rows][order])]).astype(np.uint32)
        tables.append(lay_out(np, context, 64 - bits, keys[first], starts, leaves[:rows][order], sums))
    return tables


@njit(cache=True, nogil=True)
def _entries(slots, pool, identities, leaves, counts):
    """Writes all entries of these slots out; returns how many."""
    n = 0
    for i in range(slots.shape[0]):
        identity, at = unmix64(slots[i, 0]) - np.uint64(1), slot_offset(slots[i, 1])
        for e in range(at, at + slot_length(slots[i, 1])):
            identities[n], leaves[n], counts[n] = identity, entry_leaf(pool[e]), entry_seen(pool[e])
            n += 1
    return n
