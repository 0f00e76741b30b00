"""From sorted keys to count tables, on the device: run-lengths by flags and prefix sums, orders 0..8 by prefixes, the table layout.

    keys        a a a b c c        changes   1 0 0 1 1 0
    positions   0 3 4              counts    3 1 2          (differences of the positions, the number of keys last)

The layout of a table: ngram/table.py. The arrays are the same as those of its assemble() and of cpu/sorting.run_lengths.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from charstat.gpu.arrays import Array, Arrays
from charstat.gpu.keys import mix57
from charstat.ngram.contexts import Context
from charstat.ngram.hashing import SYMBOL_BITS, SYMBOL_MASK, SYMBOL_SHIFT
from charstat.ngram.table import MAX_COUNT, ROW_SHIFT, identity_bits, table_bits


class Runs(NamedTuple):
    """The run-lengths of sorted keys, grouped by context. sums is empty for character contexts."""

    identities: Array  # uint64 [contexts]
    starts: Array  # uint32 [contexts + 1]
    rows: Array  # uint32 [rows]
    sums: Array  # uint32 [rows + 1]


class Layout(NamedTuple):
    """A CountTable's arrays and numbers, on the device."""

    bits: int
    start_bits: int
    arrays: list[Array]  # buckets, records, rows, and for words sums


def changes(arrays: Arrays, keys: Array, shift: int) -> Array:
    """Indices (int64) of the keys that differ from the one before them in the bits from `shift` on; the first one does."""
    xp = arrays.xp
    flags = xp.empty(keys.size, np.bool_)
    if not arrays.launch("mark_changes", keys.size, keys, np.int32(shift), np.int64(keys.size), flags):
        flags[:1] = True
        flags[1:] = ((keys[1:] ^ keys[:-1]) >> np.uint64(shift)) != np.uint64(0)
    return xp.flatnonzero(flags)


def run_lengths(arrays: Arrays, keys: list[Array], shift: int, words: bool) -> Runs:
    """The runs of sorted keys; context = key >> shift. keys: a list of one array, which is emptied to free it early."""
    xp = arrays.xp
    n = keys[0].size
    positions = changes(arrays, keys[0], 0)
    row_keys = keys.pop()[positions]
    if words:
        rows, sums = (row_keys & np.uint64((1 << shift) - 1)).astype(np.uint32), with_end(xp, positions, n)
    else:
        rows, sums = row_values(xp, differences(xp, positions, n), row_keys), xp.empty(0, np.uint32)
    del positions
    first_rows = changes(arrays, row_keys, shift)
    identities = row_keys[first_rows]
    del row_keys
    identities >>= np.uint64(shift)
    return Runs(identities, with_end(xp, first_rows, rows.size), rows, sums)


def with_end(xp: Any, positions: Array, end: int) -> Array:
    """positions and then `end`: uint32 [n + 1]."""
    out = xp.empty(positions.size + 1, np.uint32)
    out[:-1] = positions.astype(np.uint32)
    out[-1:] = np.uint32(end)
    return out


def differences(xp: Any, positions: Array, end: int) -> Array:
    """Next position − position, the last one's next being `end`: int64 [n]."""
    out = xp.empty(positions.size, np.int64)
    out[:-1] = positions[1:] - positions[:-1]
    out[-1:] = -positions[-1:] + np.int64(end)
    return out


def row_values(xp: Any, counts: Array, keys: Array) -> Array:
    """count << 7 | symbol of character rows: uint32. counts: int64; keys: uint64, the symbol lowest."""
    values = xp.minimum(counts, np.int64(MAX_COUNT)).astype(np.uint32)
    values <<= ROW_SHIFT
    values |= (keys & SYMBOL_MASK).astype(np.uint32)
    return values


def shorten(arrays: Arrays, keys: Array, positions: Array) -> tuple[Array, Array]:
    """Distinct packed n-grams without their newest symbol, and where their runs start: each where a run of the longer n-grams does."""
    kept = changes(arrays, keys, SYMBOL_BITS)
    return keys[kept] >> SYMBOL_SHIFT, positions[kept]


def insert(arrays: Arrays, keys: Array, counts: Array, more: np.ndarray) -> tuple[Array, Array]:
    """Distinct sorted n-grams (uint64) and counts (int64, overwritten) with a few more (host, sorted, repeating) added."""
    xp = arrays.xp
    extra, extra_counts = np.unique(more, return_counts=True)
    if extra.size == 0:
        return keys, counts
    at = arrays.to_host(xp.searchsorted(keys, arrays.to_device(extra)))
    known = np.zeros(extra.size, bool)
    inside = np.flatnonzero(at < keys.size)
    if inside.size:
        known[inside] = arrays.to_host(keys[arrays.to_device(at[inside])]) == extra[inside]
    if known.any():
        places = arrays.to_device(at[known])
        counts[places] = counts[places] + arrays.to_device(extra_counts[known].astype(np.int64))
    new = np.flatnonzero(~known)
    if not new.size:
        return keys, counts
    new_keys, new_counts = arrays.to_device(extra[new]), arrays.to_device(extra_counts[new].astype(np.int64))
    key_parts, count_parts, done = [], [], 0
    for i, place in enumerate(int(p) for p in at[new]):
        key_parts += [keys[done:place], new_keys[i : i + 1]]
        count_parts += [counts[done:place], new_counts[i : i + 1]]
        done = place
    return xp.concatenate([*key_parts, keys[done:]]), xp.concatenate([*count_parts, counts[done:]])


def contexts_of(arrays: Arrays, keys: Array) -> tuple[Array, Array]:
    """(identities, first rows) of the contexts of packed, distinct, sorted n-grams, in the n-grams' order: uint64, int64."""
    first_rows = changes(arrays, keys, SYMBOL_BITS)
    return mix57(keys[first_rows] >> SYMBOL_SHIFT), first_rows


def by_identity(arrays: Arrays, identities: Array, first_rows: Array, rows: Array) -> Runs:
    """The runs of contexts and rows that are not in the order of the identities: contexts move there with their rows."""
    xp = arrays.xp
    order = arrays.argsort(identities)
    identities, sizes, first_rows = identities[order], differences(xp, first_rows, rows.size)[order], first_rows[order]
    del order
    starts = xp.zeros(sizes.size + 1, np.int64)
    starts[1:] = xp.cumsum(sizes, dtype=np.int64)
    # The old place of a row: one after that of the row before, or, at a context's first row, where that context was.
    steps = xp.ones(rows.size, np.int64)
    steps[:1] = first_rows[:1]
    steps[starts[1:-1]] = first_rows[1:] - (first_rows[:-1] + sizes[:-1]) + np.int64(1)
    del first_rows, sizes
    return Runs(identities, starts.astype(np.uint32), rows[xp.cumsum(steps, dtype=np.int64)], xp.empty(0, np.uint32))


def lay_out(arrays: Arrays, context: Context, runs: Runs) -> Layout:
    """The arrays of the table of all runs: what ngram.table.assemble does."""
    xp = arrays.xp
    bits, start_bits = table_bits(context, runs.identities.size, runs.rows.size)
    edges = xp.arange((1 << bits) + 1, dtype=np.uint64) << np.uint64(identity_bits(context) - bits)
    buckets = xp.searchsorted(runs.identities, edges).astype(np.uint32)
    records = runs.starts.astype(np.uint64)
    records[:-1] |= runs.identities << np.uint64(start_bits)
    return Layout(bits, start_bits, [buckets, records, runs.rows, *([runs.sums] if context.is_words else [])])
