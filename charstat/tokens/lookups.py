"""What the contexts know: look all of them up, and add up their counts under the nodes of the tree.

    identify       what every context looks at
    find           where what it has seen there stands
    path_masses    counts under every node of one token's path
    tree_masses    counts under every node

Only *active* contexts, those that have counts here, static or the stream's own, take part: typically 8 of 12. Masses have a column for each
of A active contexts in their order, then a column for the recent counts of each. They are integers, so that the masses of a
path are those of the tree, bit for bit.

subtle: these take arrays, not the tuples that they stand in. A function that is handed a tuple counts a reference to every array in it, atomically:
that took half of a stream's time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.ngram.hashing import mix64
from charstat.ngram.overlay import find_slot, slot_list
from charstat.ngram.table import find_context
from charstat.tokens.contexts import token_identity
from charstat.tokens.online import entry_leaf, entry_recent, entry_seen
from charstat.tokens.state import (
    ACTIVE,
    ACTIVE_ORDERS,
    BITS,
    BUCKET_AT,
    COUNTED,
    END,
    LENGTH,
    LIST,
    LONGEST,
    ORDER,
    REACH,
    RECENT,
    RECORD_AT,
    ROW_AT,
    SLOT,
    START,
    START_BITS,
    SUM_AT,
)
from charstat.tokens.tree import MAX_DEPTH

BESIDE = MAX_DEPTH + 1
FEW_ROWS = 24  # that are walked through; larger ranges are divided first
SCANNED = 512  # rows that are compared one by one, many at a time; larger ranges are searched
U0, U1 = np.uint64(0), np.uint64(1)


@njit(cache=True, nogil=True, inline="always")
def shared_bits(a, b, depth):
    """How many decisions two codes share, `depth` at most: the leading zeros of their difference.

    subtle: they stand in the exponent of the difference as a float64, which holds it exactly; 0 has the exponent 0. No branch to mispredict.
    """
    exponent = np.float64(np.uint32(a ^ b)).view(np.int64) >> 52
    return min(np.int64(1054) - exponent, depth)


@njit(cache=True, nogil=True, inline="always")
def lower_bound(rows, lo, hi, leaf):
    """The first of the rising rows lo .. hi that is not below the leaf, or hi."""
    while hi - lo > SCANNED:
        middle = (lo + hi) >> 1
        if rows[middle] < leaf:
            lo = middle + 1
        else:
            hi = middle
    below, limit = np.uint16(0), np.uint16(leaf)
    for r in range(lo, hi):  # subtle: 16 bits throughout, so that the compiler compares a whole register of rows at once
        below = np.uint16(below + np.uint16(rows[np.uint64(r)] < limit))
    return lo + np.int64(below)


@njit(cache=True, nogil=True)
def identify(history, position, families, masks, id_bits, identities, keys):
    """The identity of what every context looks at, and its key in the overlay, 0 where it reaches beyond the start of the text."""
    for f in range(families.shape[0]):
        identities[f] = token_identity(history, masks[f], id_bits)
        keys[f] = mix64(identities[f] + U1) if position >= families[f, REACH] else U0


@njit(cache=True, nogil=True)
def find(
    cursor, families, width, buckets, records, rows, sums, slots, pool, identities, keys, static_rows, online, active, t
):  # fmt: skip
    """static_rows, online and active, by context, and what cursor says about all of them.

    One loop for each kind of memory access, so that the cache misses of a loop wait together. t: int64 [F], scratch.
    """
    n, mask = families.shape[0], np.uint64(slots.shape[1] - 1)
    for f in range(n):
        t[f] = np.int64(slots[f, (keys[f] >> np.uint64(20)) & mask, 0])
    for f in range(n):
        bucket = families[f, BUCKET_AT] + np.int64(identities[f] >> np.uint64(width - families[f, BITS]))
        t[f] = families[f, RECORD_AT] + np.int64(buckets[bucket])
    for f in range(n):
        t[f] = np.int64(records[t[f]])
    for f in range(n):
        start, stop = np.int64(0), np.int64(0)
        if keys[f] != U0:
            _, start, stop = find_context(
                identities[f], width, families[f, BITS], families[f, START_BITS],
                buckets, families[f, BUCKET_AT], records, families[f, RECORD_AT],
            )  # fmt: skip
        static_rows[f, START], static_rows[f, END] = families[f, ROW_AT] + start, families[f, ROW_AT] + stop
    last = rows.shape[0] - 1
    for f in range(n if last >= 0 else 0):
        t[f] = np.int64(rows[min(static_rows[f, START], last)])
    for f in range(n):
        t[f] = np.int64(sums[static_rows[f, START] + families[f, SUM_AT] - families[f, ROW_AT]])
    for f in range(n):
        online[f, LIST] = online[f, LENGTH] = 0
        if keys[f] != U0:
            p = find_slot(slots, f, keys[f])
            online[f, SLOT] = p
            online[f, LIST], online[f, LENGTH] = slot_list(slots, f, p)
    for f in range(n):
        t[f] = np.int64(pool[online[f, LIST]])
    longest, counted, recent, knowing, orders = 0, 0, 0, 0, 0
    for f in range(n):
        has_rows, seen, order = static_rows[f, END] > static_rows[f, START], online[f, LENGTH] > 0, families[f, ORDER] > 0
        counted += 1 if has_rows else 0
        longest = f + 1 if has_rows and order else longest
        recent = f + 1 if seen and order else recent
        active[knowing] = f
        knowing += 1 if has_rows or seen else 0
        orders = knowing if order else orders
    cursor[ACTIVE], cursor[ACTIVE_ORDERS], cursor[COUNTED], cursor[LONGEST], cursor[RECENT] = knowing, orders, counted, longest, recent


@njit(cache=True, nogil=True)
def path_masses(
    leaf, a, o, families, codes, depths, root, child, rows, sums, pool, static_rows, online, active, path, bits, plan, mass, kinds
):  # fmt: skip
    """The counts, mass, and how many rows and entries they are of, kinds: in row d those under node d of the leaf's path, in row BESIDE + d those
    under the side that the path does not take. plan: where they stand. Returns the path's length. a, o: active contexts, and orders of them."""
    depth, code, node = np.int64(depths[leaf]), codes[leaf], np.int64(root)
    for d in range(depth):
        bit = 1 if leaf >= node else 0
        path[0, d], bits[d] = node, bit
        plan[d, 0], plan[d, 1], plan[d, 2 + bit], plan[d, 3 - bit] = node, d, d + 1, BESIDE + d
        node = np.int64(child[node, bit])
    for d in range(depth + 1):
        for k in range(2 * a):
            mass[d, k] = 0
        for k in range(a):
            kinds[d, k] = 0
    for k in range(a):
        f = active[k]
        lo, hi = static_rows[f, START], static_rows[f, END]
        at = families[f, SUM_AT] - families[f, ROW_AT]
        d = np.int64(0)
        while hi - lo > FEW_ROWS:
            middle, right = lower_bound(rows, lo, hi, path[0, d]), bits[d] > 0
            first, last = (lo if right else middle), (middle if right else hi)  # what leaves the path here
            mass[d, k] += np.int32(sums[at + last] - sums[at + first])
            kinds[d, k] += np.int32(last - first)
            lo, hi = (middle if right else lo), (hi if right else middle)
            d += 1
        for r in range(lo, hi):
            d = shared_bits(codes[rows[r]], code, depth)
            mass[d, k] += np.int32(sums[at + r + 1] - sums[at + r])
            kinds[d, k] += np.int32(1)
        first = online[f, LIST]
        for e in range(first, first + online[f, LENGTH]):
            entry = pool[e]
            d = shared_bits(codes[entry_leaf(entry)], code, depth)
            mass[d, k] += np.int32(entry_seen(entry))
            mass[d, a + k] += np.int32(entry_recent(entry))
            kinds[d, k] += np.int32(1)
    for d in range(depth - 1, -1, -1):  # so far mass[d] is what leaves the path at d: add up from the leaf
        for k in range(2 * a):
            beside = mass[d, k]
            mass[BESIDE + d, k] = beside
            mass[d, k] = beside + mass[d + 1, k]
        for k in range(o):
            beside = kinds[d, k]
            kinds[BESIDE + d, k] = beside
            kinds[d, k] = beside + kinds[d + 1, k]
    return depth


@njit(cache=True, nogil=True)
def tree_masses(a, o, families, rows, sums, pool, static_rows, online, active, plan, mass, kinds):
    """The same of all nodes and leaves, in the rows that the plan of the whole tree has for them."""
    vocab = plan.shape[0] + 1
    for leaf in range(vocab, 2 * vocab):
        for k in range(2 * a):
            mass[leaf, k] = 0
        for k in range(a):
            kinds[leaf, k] = 0
    for k in range(a):
        f = active[k]
        at = families[f, SUM_AT] - families[f, ROW_AT]
        for r in range(static_rows[f, START], static_rows[f, END]):
            leaf = vocab + np.int64(rows[r])
            mass[leaf, k] = np.int32(sums[at + r + 1] - sums[at + r])
            kinds[leaf, k] = 1
        first = online[f, LIST]
        for e in range(first, first + online[f, LENGTH]):
            entry = pool[e]
            leaf = vocab + entry_leaf(entry)
            mass[leaf, k] += np.int32(entry_seen(entry))
            mass[leaf, a + k] = np.int32(entry_recent(entry))
            kinds[leaf, k] += np.int32(1)
    for i in range(vocab - 2, -1, -1):
        v, left, right = np.int64(plan[i, 1]), np.int64(plan[i, 2]), np.int64(plan[i, 3])
        for k in range(2 * a):
            mass[v, k] = mass[left, k] + mass[right, k]
        for k in range(o):
            kinds[v, k] = kinds[left, k] + kinds[right, k]
