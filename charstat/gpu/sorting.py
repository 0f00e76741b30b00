"""Sort computed keys on the device, in one piece or by ranges of their top bits (see memory.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from charstat.cpu.sorting import partition_groups
from charstat.gpu.arrays import Array, Arrays, spans
from charstat.gpu.memory import Plan

PARTITION_BITS = 16  # finer than on the CPU: a small device needs pieces of about equal size

Fill = Callable[[int, Array], None]
"""fill(lo, out) writes the keys of the positions lo .. lo + out.size."""


def sorted_pieces(arrays: Arrays, fill: Fill, plan: Plan, key_bits: int, phase: Callable) -> Iterator[Array]:
    """Yield all plan.n keys, sorted, as one array (uint64) or as several rising ones. Equal top 16 bits stay together."""
    xp = arrays.xp
    if plan.whole:
        with phase("key"):
            keys = [xp.empty(plan.n, np.uint64)]
            for lo, hi in spans(plan.n, plan.chunk):
                fill(lo, keys[0][lo:hi])
        with phase("sort"):
            arrays.sort(keys[0])
        yield keys.pop()  # subtle: a name in this frame would keep the array alive while the caller works
        return
    shift = key_bits - PARTITION_BITS
    with phase("key"):
        sizes = _partition_sizes(arrays, fill, plan, shift)
    for lowest, highest in partition_groups(sizes, 8 * plan.piece):
        with phase("key"):
            keys = [_keys_between(arrays, fill, plan, lowest << shift, highest << shift, int(sizes[lowest:highest].sum()))]
        with phase("sort"):
            arrays.sort(keys[0])
        yield keys.pop()


def _partition_sizes(arrays: Arrays, fill: Fill, plan: Plan, shift: int) -> np.ndarray:
    """How many keys have each value of the bits above `shift`: int64 [2**PARTITION_BITS], on the host."""
    xp = arrays.xp
    sizes = xp.zeros(1 << PARTITION_BITS, np.int64)
    for lo, hi in spans(plan.n, plan.chunk):
        keys = xp.empty(hi - lo, np.uint64)
        fill(lo, keys)
        sizes += xp.bincount((keys >> np.uint64(shift)).astype(np.int32), minlength=1 << PARTITION_BITS)
    return arrays.to_host(sizes)


def _keys_between(arrays: Arrays, fill: Fill, plan: Plan, low: int, high: int, size: int) -> Array:
    """The `size` keys in [low, high), in the order of their positions."""
    xp = arrays.xp
    out = xp.empty(size, np.uint64)
    at = 0
    last = np.uint64(high - 1)  # subtle: high can be 2**64
    for lo, hi in spans(plan.n, plan.chunk):
        keys = xp.empty(hi - lo, np.uint64)
        fill(lo, keys)
        picked = keys[xp.flatnonzero((keys >= np.uint64(low)) & (keys <= last))]
        out[at : at + picked.size] = picked
        at += picked.size
    return out
