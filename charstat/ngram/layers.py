"""Overlays in layers, for forks: what a stream had learned when it was forked becomes a base that nothing writes to any more, and both
streams lay over it what they learn from then on.

    shared(overlay)     before a fork: a large overlay becomes the base of a new, small one, which is cheap to copy
    bounded(overlay)    when room is made: a layer that has grown too large is joined with its base
    joined(overlay)     one overlay without a base again, for those that read it as a whole

Lookups copy a context from the base into the layer (overlay.bring_contexts), so that counting sees one overlay.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.ngram.overlay import (
    DEFAULT_LIMIT,
    U0,
    Overlay,
    copy_overlay,
    find_slot,
    new_overlay,
    put_list,
    slot_offset,
    slot_room,
    with_room,
)

LAYER_CAPACITY = 1 << 14  # slots of a table that a fork copies; what is larger is shared


def shared(overlay: Overlay, steps: int, limit: int = DEFAULT_LIMIT) -> Overlay:
    """The same contexts, so that a fork of them is a small copy: a large overlay becomes the base of a new one with room for `steps`
    observations, and must not be written to from here on."""
    if overlay.layered or overlay.slots.shape[1] <= LAYER_CAPACITY or _most_held(overlay.slots) + steps > limit:
        return overlay  # subtle: near the limit, too, because only the start of a block may forget anything
    new = new_overlay(overlay.slots.shape[0])._replace(base_slots=overlay.slots, base_pool=overlay.pool[: int(overlay.heap[0])])
    return with_room(new, steps)


def _most_held(slots: np.ndarray) -> int:
    """No table holds more contexts than this: ensure_room leaves two slots of five free."""
    return -(-3 * slots.shape[1] // 5)


def bounded(overlay: Overlay, steps: int, limit: int = DEFAULT_LIMIT) -> Overlay:
    """The overlay, before ensure_room(): joined if `steps` more observations could make its layer too large, or if contexts have to go."""
    if not overlay.layered:
        return overlay
    most = int(overlay.used.max(initial=0)) + steps
    if 5 * most > 3 * LAYER_CAPACITY or _most_held(overlay.base_slots) + most > limit:
        return joined(overlay, steps)
    return overlay


def joined(overlay: Overlay, steps: int) -> Overlay:
    """The same contexts without a base, with room for `steps` observations: a copy of it, with the newer contexts written over the old ones."""
    if not overlay.layered:
        return overlay
    tables, capacity, _ = overlay.base_slots.shape
    held, handed_out = np.count_nonzero(overlay.base_slots[:, :, 0], axis=1), overlay.base_pool.size
    pool = np.empty(handed_out + int(overlay.heap[0]), np.uint64)
    pool[:handed_out] = overlay.base_pool
    none = new_overlay(tables, 1, 1)
    whole = none._replace(slots=overlay.base_slots.copy(), used=held, pool=pool, heap=np.array([handed_out]))
    if 5 * int((held + overlay.used).max()) > 3 * capacity:
        whole = copy_overlay(whole, 2 * capacity, pool.size, capacity, 0)
    _join(overlay, whole)
    return with_room(whole, steps)


@njit(cache=True, nogil=True)
def _join(newer, whole):
    """Write the newer contexts over those of the same keys, whose blocks are free then."""
    for table in range(newer.slots.shape[0]):
        for p in range(newer.slots.shape[1]):
            key = newer.slots[table, p, 0]
            if key == U0:
                continue
            q = find_slot(whole.slots, table, key)
            if whole.slots[table, q, 0] != U0:
                old = whole.slots[table, q, 1]
                at, room = slot_offset(old), slot_room(old)
                whole.pool[at] = whole.free[room]
                whole.free[room] = np.uint64(at)
                whole.used[table] -= 1
            put_list(
                whole.slots, whole.used, whole.pool, whole.heap, whole.free, table, q, key, newer.slots[table, p, 1], newer.pool,
            )  # fmt: skip
