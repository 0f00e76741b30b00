"""The weights of a context tree by array operations, with the formulas, the layout and the integer sums of ctw/weights.py.

One level of the chain at a time, from the highest order down. A split is a row whose successor belongs to the same context; the node
at which the two diverge is `depth` decisions deep. The rows under that node are an interval, which a binary search among all rows'
keys, context << 7 | symbol, finds. The deeper one of the splits at the interval's two ends encloses it. Per row:

    depth      int8 [rows + 1]  decisions before the split between this row and the next; NO_SPLIT where the next is another context's
    of_leaf    uint32 [rows]    the row of the split that encloses this row alone
    of_split   uint32 [rows]    the row of the split that encloses this row's split; the number of rows if none does

A context's log P_w is added to its parent's slots by walks: from the parent's chain above the same leaf, or above the same split,
outwards from split to split, as long as they lie below the split that encloses it in the context itself. All leaves and splits walk
in parallel, those that have arrived drop out, and a walk takes at most as many steps as the code tree is deep.

Held on the device: 21 bytes a row and 16 a context of two orders at a time, 12 a slot of the shorter one.

Sums are added by unsigned atomics, in two's complement. Slots of chains that do not exist may collect sums that nothing reads. CuPy's
scattered addition counts elements in 32 bits: more than 2**31 slots a level raise MemoryError, and the CPU takes over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from charstat.ctw.links import UNSET, is_exact
from charstat.ctw.weights import BETA_MAX, HALF_LOG_2PI, LOG_HALF, UNITS_PER_NAT, gamma_table, joint_nodes, n_slots
from charstat.errors import DeviceMemoryError
from charstat.gpu.arrays import Array, Arrays, spans
from charstat.gpu.keys import Text, char_identities, mix57, unmix57
from charstat.gpu.memory import chunk_size
from charstat.ngram.hashing import IDENTITY_BITS, SYMBOL_BITS, SYMBOL_MASK, SYMBOL_SHIFT
from charstat.ngram.table import ROW_MASK, ROW_SHIFT, CountTable
from charstat.tree import SYMBOLS, TreeArrays

NO_SPLIT = np.int8(-1)
MAX_SLOTS = 1 << 31
WORK_BYTES = 400  # that a row takes while its weights are computed; a position that is looked up takes fewer
I1, I2 = np.int64(1), np.int64(2)


class Trees(NamedTuple):
    """The code tree and the tables of gamma functions, on the device."""

    depth: Array  # int8 [128]
    shared: Array  # int8 [128 * 128]: by symbol << 7 | symbol
    joint: Array  # int64 [128 * 128]
    lowest: Array  # uint64 [nodes]
    mid: Array  # uint64 [nodes]
    end: Array  # uint64 [nodes]
    gammas: tuple[Array, Array]  # float64 [GAMMA_TABLE]
    alpha: float


class Level:
    """A count table on the device, and the shape of its contexts' trees: see the top of the file."""

    def __init__(self, arrays: Arrays, table: CountTable, upload: Any):
        self.table, self.n, self.rows = table, table.n_contexts, table.n_rows
        self.slots = n_slots(table)
        if max(self.slots, self.rows + 1) >= MAX_SLOTS:
            raise DeviceMemoryError(f"{self.slots} slots of {table.context.name}")
        xp = arrays.xp
        records = upload(table.records)
        self.starts = (records & np.uint64((1 << table.start_bits) - 1)).astype(np.int64)
        self.identities = _identities(xp, table, upload(table.buckets), records[: self.n])
        del records
        rows = upload(table.rows)
        self.counts = rows >> ROW_SHIFT
        self.keys = (rows & ROW_MASK).astype(np.uint64)
        del rows
        first = xp.zeros(self.rows, np.uint8)
        first[self.starts[1 : self.n]] = xp.ones(max(0, self.n - 1), np.uint8)
        context = xp.cumsum(first, dtype=np.uint64)
        context <<= SYMBOL_SHIFT
        self.keys |= context
        del first, context
        self.depth = xp.full(self.rows + 1, NO_SPLIT, np.int8)
        self.of_leaf = self.of_split = xp.empty(0, np.uint32)

    def parts(self, most: int) -> Iterator[tuple[int, int]]:
        """The rows in ranges of at most `most` (at least 128), split between contexts."""
        records, mask = self.table.records, (1 << self.table.start_bits) - 1
        lo, most = 0, max(most, SYMBOLS)
        while lo < self.rows:
            a, b = 0, self.n
            while a < b:  # the last context that starts within `most` rows
                m = (a + b + 1) // 2
                a, b = (m, b) if int(records[m]) & mask <= lo + most else (a, m - 1)
            yield lo, (lo := int(records[a]) & mask)


def _identities(xp: Any, table: CountTable, buckets: Array, records: Array) -> Array:
    """CountTable.context_identities() on the device: uint64 [contexts]."""
    low = np.uint64(IDENTITY_BITS - table.bits)
    index = xp.arange(records.size, dtype=np.uint32)
    bucket = (xp.searchsorted(buckets, index, side="right") - I1).astype(np.uint64)
    return (bucket << low) | ((records >> np.uint64(table.start_bits)) & np.uint64((1 << int(low)) - 1))


def _shape(arrays: Arrays, level: Level, trees: Trees, most: int) -> None:
    """Fill in depth, of_leaf and of_split."""
    xp = arrays.xp
    level.of_leaf, level.of_split = xp.empty(level.rows, np.uint32), xp.empty(level.rows, np.uint32)
    for lo, hi in level.parts(most):
        keys = level.keys[lo:hi]
        left = xp.flatnonzero((keys[1:] >> SYMBOL_SHIFT) == (keys[:-1] >> SYMBOL_SHIFT))
        level.depth[left + np.int64(lo)] = trees.shared[_pairs(keys, left)]
    for lo, hi in level.parts(most):
        keys = level.keys[lo:hi]
        rows = xp.arange(lo, hi, dtype=np.int64)
        level.of_leaf[lo:hi] = _enclosing(xp, level, rows, rows + I1)
        left = _splits(xp, level, lo, hi)
        first, end = _interval(xp, level, trees, keys, left, lo)
        level.of_split[lo:hi] = xp.full(hi - lo, level.rows, np.uint32)
        level.of_split[left + np.int64(lo)] = _enclosing(xp, level, first, end)


def _pairs(keys: Array, left: Array) -> Array:
    """symbol << 7 | symbol of the rows `left` and those after them: an index into a 128 x 128 table."""
    return (((keys[left] & SYMBOL_MASK) << SYMBOL_SHIFT) | (keys[left + I1] & SYMBOL_MASK)).astype(np.int64)


def _splits(xp: Any, level: Level, lo: int, hi: int) -> Array:
    """Rows of lo..hi that are followed by another one of their context, counted from lo."""
    return xp.flatnonzero(level.depth[lo:hi] != NO_SPLIT)


def _interval(xp: Any, level: Level, trees: Trees, keys: Array, left: Array, lo: int) -> tuple[Array, Array]:
    """First row and end of the rows under the splits `left`; keys: those from row lo on."""
    node = trees.joint[_pairs(keys, left)]
    context = (keys[left] >> SYMBOL_SHIFT) << SYMBOL_SHIFT
    first = xp.searchsorted(keys, context | trees.lowest[node]) + np.int64(lo)
    return first, xp.searchsorted(keys, context + trees.end[node]) + np.int64(lo)


def _enclosing(xp: Any, level: Level, first: Array, end: Array) -> Array:
    """The row of the split that encloses the rows first..end, level.rows if none does: uint32."""
    before = xp.where(first > np.int64(0), first - I1, xp.full(first.size, level.rows, np.int64))
    after = end - I1
    before_depth, after_depth = level.depth[before], level.depth[after]
    deeper = xp.where(before_depth > after_depth, before, after)
    none = xp.full(first.size, level.rows, np.int64)
    return xp.where(xp.maximum(before_depth, after_depth) == NO_SPLIT, none, deeper).astype(np.uint32)


def _log_rising(xp: Any, n: Array, alpha: float, table: Array) -> Array:
    """weights.log_rising of an array (int64)."""
    x = xp.maximum(n, np.int64(table.size)).astype(np.float64) + np.float64(alpha)
    series = (x - np.float64(0.5)) * xp.log(x) - x + np.float64(HALF_LOG_2PI)
    series = series + xp.reciprocal(x * np.float64(12.0)) - xp.reciprocal(x * x * x * np.float64(360.0)) - np.float64(math.lgamma(alpha))
    return xp.where(n < np.int64(table.size), table[xp.minimum(n, np.int64(table.size - 1))], series)


def _log_estimate(xp: Any, trees: Trees, n0: Array, n1: Array) -> Array:
    """weights.log_estimate of arrays (int64): float64."""
    a, (low, high) = trees.alpha, trees.gammas
    return _log_rising(xp, n0, a, low) + _log_rising(xp, n1, a, low) - _log_rising(xp, n0 + n1, 2.0 * a, high)


def _weigh(xp: Any, trees: Trees, n0: Array, n1: Array, slots: Array, exists: Array, sums: Array | None, betas: Array | None) -> Array:
    """log P_w of slots in units, as uint64. Sets their betas. sums: Σ log P_w of the longer contexts, None at the last order."""
    log_p = _log_estimate(xp, trees, n0, n1)
    if sums is not None:
        log_c = sums[slots].view(np.int64).astype(np.float64) * np.float64(1.0 / UNITS_PER_NAT)
        difference = log_p - log_c
        beta = xp.exp(xp.minimum(xp.maximum(difference, np.float64(-40.0)), np.float64(40.0)))
        beta = xp.minimum(xp.maximum(beta, np.float64(1.0 / BETA_MAX)), np.float64(BETA_MAX)).astype(np.float32)
        betas[slots] = xp.where(exists, beta, xp.ones(slots.size, np.float32))
        log_p = xp.maximum(log_p, log_c) + xp.log1p(xp.exp(-xp.absolute(difference))) + np.float64(LOG_HALF)
    return xp.rint(log_p * np.float64(UNITS_PER_NAT)).astype(np.int64).view(np.uint64)


def _level_weights(
    arrays: Arrays, level: Level, parent: Level | None, trees: Trees, links: Array | None, sums: Array | None, betas: Array | None,
    into: Array | None, most: int,
) -> None:  # fmt: skip
    """Betas of a level from the sums of the longer one, and its log P_w into the sums of its parents' slots."""
    xp = arrays.xp
    for lo, hi in level.parts(most):
        keys, rows = level.keys[lo:hi], xp.arange(lo, hi, dtype=np.int64)
        counts = level.counts[lo:hi].astype(np.int64)
        before = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(counts, dtype=np.int64)])
        context = (keys >> SYMBOL_SHIFT).astype(np.int64)
        start, end = level.starts[context], level.starts[context + I1]
        shift, types = (start - context) * I2, end - start  # slot of a split: shift + row
        leaf_above = level.depth[level.of_leaf[lo:hi]]
        zero = xp.zeros(hi - lo, np.int64)
        exists = trees.depth[(keys & SYMBOL_MASK).astype(np.int64)] > leaf_above + np.int8(1)
        leaf_w = _weigh(xp, trees, counts, zero, shift + rows + (types - I1) * I2, exists, sums, betas)
        left = _splits(xp, level, lo, hi)
        first, after = _interval(xp, level, trees, keys, left, lo)
        at = left + np.int64(lo)
        n0 = before[left + I1] - before[first - np.int64(lo)]
        n1 = before[after - np.int64(lo)] - before[left + I1]
        above = level.depth[level.of_split[at]]
        slots = shift[left] + at
        split_w = _weigh(xp, trees, n0, n1, slots, xp.ones(left.size, np.bool_), sums, betas)
        exists = level.depth[at] > above + np.int8(1)
        chain_w = _weigh(xp, trees, n0 + n1, xp.zeros(left.size, np.int64), slots + types[left] - I1, exists, sums, betas)
        del first, after, n0, n1, slots, exists, zero, before, counts, rows, start, end, shift, types
        if parent is None:
            continue
        owner = links[context].astype(np.int64)
        _walk_leaves(xp, parent, owner, keys & SYMBOL_MASK, leaf_w, leaf_above, into)
        _walk_splits(xp, parent, owner[left], trees.mid[trees.joint[_pairs(keys, left)]], split_w, chain_w, above, into)


def _place(xp: Any, parent: Level, owner: Array, symbol: Array) -> tuple[Array, Array, Array, Array]:
    """(row, start, end, shift): where a symbol (uint64) is, or would be, among the rows of a parent."""
    start, end = parent.starts[owner], parent.starts[owner + I1]
    row = xp.searchsorted(parent.keys, (owner.astype(np.uint64) << SYMBOL_SHIFT) | symbol)
    return row, start, end, (start - owner) * I2


def _walk_leaves(xp: Any, parent: Level, owner: Array, symbol: Array, weight: Array, above: Array, into: Array) -> None:
    row, start, end, shift = _place(xp, parent, owner, symbol)
    row = xp.minimum(row, end - I1)  # only two contexts of one hash can lack a symbol
    xp.add.at(into, shift + row + (end - start - I1) * I2, weight)
    _walk(xp, parent, parent.of_leaf[row].astype(np.int64), shift, end - start, weight, above, into)


def _walk_splits(xp: Any, parent: Level, owner: Array, mid: Array, split_w: Array, chain_w: Array, above: Array, into: Array) -> None:
    row, start, end, shift = _place(xp, parent, owner, mid)
    row = xp.maximum(row - I1, start)
    types = end - start
    xp.add.at(into, shift + row, split_w)
    longer = xp.flatnonzero(parent.depth[row] - np.int8(1) > above)  # the context has a chain above this split, so the parent has
    row, shift, types, weight, above = row[longer], shift[longer], types[longer], chain_w[longer], above[longer]
    xp.add.at(into, shift + row + types - I1, weight)
    _walk(xp, parent, parent.of_split[row].astype(np.int64), shift, types, weight, above, into)


def _walk(xp: Any, parent: Level, split: Array, shift: Array, types: Array, weight: Array, above: Array, into: Array) -> None:
    """Outwards from `split`: weight to every split of the parent deeper than `above`, and to the chains above those."""
    while split.size:
        inside = xp.flatnonzero(parent.depth[split] > above)
        if not inside.size:
            return
        split, shift, types, weight, above = split[inside], shift[inside], types[inside], weight[inside], above[inside]
        xp.add.at(into, shift + split, weight)
        chain = xp.flatnonzero(parent.depth[split] - np.int8(1) > above)
        xp.add.at(into, shift[chain] + split[chain] + types[chain] - I1, weight[chain])
        split = parent.of_split[split].astype(np.int64)


def _links(arrays: Arrays, text: Text, n_history: int, longer: Level, shorter: Level, chunk: int) -> Array:
    """links.parent_links on the device: uint32 [contexts of the longer order]."""
    xp = arrays.xp
    order, shorter_order = longer.table.context.param, shorter.table.context.param
    if is_exact(longer.table):
        parents = xp.empty(longer.n, np.uint32)
        for lo, hi in spans(longer.n, chunk):
            packed = unmix57(longer.identities[lo:hi]) & np.uint64((1 << SYMBOL_BITS * shorter_order) - 1)
            parents[lo:hi] = xp.searchsorted(shorter.identities, mix57(packed)).astype(np.uint32)
        return parents
    parents = xp.full(longer.n, UNSET, np.uint32)
    first = max(n_history, order)
    for lo, hi in spans(max(0, text.symbols.size - first), chunk):
        own = xp.searchsorted(longer.identities, char_identities(xp, text, longer.table.context, first + lo, hi - lo))
        other = xp.searchsorted(shorter.identities, char_identities(xp, text, shorter.table.context, first + lo, hi - lo))
        xp.minimum.at(parents, own, other.astype(np.uint32))
    return parents


def weigh_on_device(
    arrays: Arrays,
    tables: Iterable[CountTable],
    symbols: np.ndarray,
    n_history: int,
    tree: TreeArrays,
    alpha: float,
    copier: Any,
) -> Iterator[tuple[str, np.ndarray]]:
    """ctw.weights.weigh_text by array operations. MemoryError if the device has too little memory."""
    xp = arrays.xp
    gammas = gamma_table(alpha)
    host = (
        tree.depth.astype(np.int8), tree.shared.astype(np.int8).ravel(), np.ascontiguousarray(joint_nodes(tree)).ravel(),
        tree.lowest.astype(np.uint64), tree.mid.astype(np.uint64), tree.end.astype(np.uint64),
    )  # fmt: skip
    trees = Trees(*map(arrays.to_device, host), tuple(map(arrays.to_device, gammas)), alpha)
    text = Text(copier.upload(symbols), arrays.to_device(np.zeros(SYMBOLS, np.uint8)))

    def most(rows: int) -> int:
        return chunk_size(rows, arrays.free_bytes(), arrays.chunk, WORK_BYTES)

    def level_of(table: CountTable) -> Level:
        level = Level(arrays, table, copier.upload)
        _shape(arrays, level, trees, most(level.rows))
        return level

    coming = map(level_of, tables)
    level, sums = next(coming), None
    while level is not None:
        parent = next(coming, None)
        links = into = betas = None
        if parent is not None:
            links = _links(arrays, text, n_history, level, parent, most(max(symbols.size, level.n)))
            into = xp.zeros(parent.slots, np.uint64)
        if sums is not None:
            betas = xp.ones(level.slots, np.float32)
        _level_weights(arrays, level, parent, trees, links, sums, betas, into, most(level.rows))
        found = None if betas is None else (level.table.context.name, copier.fetch([betas], lambda hosts: hosts[0]))
        level, sums = parent, into
        del parent, links, into, betas
        if found is not None:
            yield found[0], found[1].result()
