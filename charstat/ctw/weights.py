"""The weights of a context tree from its counts: P_w of every context and tree node, bottom-up, and beta from it.

For a context c and a node v of the code tree, with n0 and n1 counts under v's children (Volf's decomposition: one binary context
tree for every node v), Willems, Shtarkov and Tjalkens, "The context-tree weighting method", 1995:

    P_w(c, v) = 1/2 P_e(n0, n1) + 1/2 Π_x P_w(xc, v)      over the contexts xc of the next order present; P_e alone at the last
    beta(c, v) = P_e(n0, n1) / Π_x P_w(xc, v)             all that prediction needs; 1, that is weight 1/2, if nothing was seen

Layout: a context of d types needs at most 3 d - 2 betas. Its rows, sorted by symbol, which is leaf order, make a compressed binary
tree: d - 1 nodes where both children were seen, and below the root of each of the 2 d - 1 subsets of rows a chain of nodes where one
child was. All nodes of a chain have the same counts and the same longer contexts, and so the same beta. The betas of context i,
whose rows start at r, start at 3 r - 2 i; no index is needed:

    slot  0 .. d-2          the node that splits between rows j and j + 1
          d-1 .. 2d-3       the chain above that node
          2d-2 .. 3d-3      the chain above leaf j                                  1 if there is no such chain

Σ_x log P_w(xc, v) is an integer, in units of 2**-31 nat (int64), so that the sum does not depend on the order of its terms, the
number of threads or the device. It stays in range as long as each of at most 2**31 characters costs less than 2 nats. The
costliest text, every context twice with both bits, costs 1.4 nats with KT, 1.7 with alpha = 0.2, 1.9 with 0.1. log P_w of
a slot is computed in float64 and rounded once; beta is clipped and stored as float32. P_w itself is never stored.

A level needs its contexts' parents (links.py), the sums of its own slots and those of its parents' slots, 8 bytes each. Each
thread owns a range of parents, so that no two threads add to the same sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numba import njit

from charstat.ctw.links import parent_links
from charstat.ngram.table import CountTable, row_count, row_symbol
from charstat.tree import LEAF, SYMBOLS, TreeArrays

UNITS_PER_NAT = 2.0**31  # of the sums of log P_w
BETA_MAX = 1e15
LOG_HALF = math.log(0.5)
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
GAMMA_TABLE = 4096
BATCH = 32
U1 = np.uint64(1)


def gamma_table(alpha: float) -> np.ndarray:
    """float64 [2, GAMMA_TABLE]: log gamma(n + alpha) / gamma(alpha), and log gamma(n + 2 alpha) / gamma(2 alpha)."""
    return np.array([[math.lgamma(n + a) - math.lgamma(a) for n in range(GAMMA_TABLE)] for a in (alpha, 2.0 * alpha)])


@njit(cache=True, nogil=True, error_model="numpy")
def log_rising(n, alpha, gammas, row):
    """log gamma(n + alpha) / gamma(alpha): from the table's row, or by Stirling's series, whose next term is below 1e-18 there."""
    if n < gammas.shape[1]:
        return gammas[row, n]
    x = n + alpha
    return (x - 0.5) * math.log(x) - x + HALF_LOG_2PI + 1.0 / (12.0 * x) - 1.0 / (360.0 * x * x * x) - math.lgamma(alpha)


@njit(cache=True, nogil=True, error_model="numpy")
def log_estimate(n0, n1, alpha, gammas):
    """log P_e of a sequence with n0 zeros and n1 ones, by Beta(alpha, alpha); KT at alpha = 1/2."""
    return log_rising(n0, alpha, gammas, 0) + log_rising(n1, alpha, gammas, 0) - log_rising(n0 + n1, 2.0 * alpha, gammas, 1)


@njit(cache=True, nogil=True, inline="always")
def _weighted(slot, log_e, deepest, children, beta):
    """log P_w of a slot in units. Sets its beta."""
    if deepest:
        return np.int64(np.rint(log_e * UNITS_PER_NAT))
    log_c = np.float64(children[slot]) / UNITS_PER_NAT
    difference = log_e - log_c
    beta[slot] = np.float32(min(max(math.exp(min(difference, 40.0)), 1.0 / BETA_MAX), BETA_MAX))
    log_w = max(log_e, log_c) + math.log1p(math.exp(-abs(difference))) + LOG_HALF
    return np.int64(np.rint(log_w * UNITS_PER_NAT))


@njit(cache=True, nogil=True, inline="always")
def _split_row(mid, symbols, a, b, v):
    """First of the rows a..b that lies under v's 1-child."""
    middle = mid[v]
    while a < b:
        m = (a + b) >> 1
        if symbols[m] < middle:
            a = m + 1
        else:
            b = m
    return a


@njit(cache=True, nogil=True, error_model="numpy")
def _context_weights(joint, mid, child, symbols, sums, d, deepest, base, children, beta, alpha, gammas, stack, log_w):
    """log P_w of all slots of one context; sets their betas. sums: cumulative counts [d + 1]. children: Σ log P_w of the longer contexts.
    The context's slots start at `base` in children and in beta."""
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, 0, d
    n = 1
    while n > 0:
        n -= 1
        v, a, b = stack[n, 0], stack[n, 1], stack[n, 2]
        total = sums[b] - sums[a]
        if b - a == 1:
            slot = 2 * (d - 1) + a
            log_w[slot] = _weighted(base + slot, log_estimate(total, 0, alpha, gammas), deepest, children, beta)
            continue
        u = joint[symbols[a], symbols[b - 1]]
        m = _split_row(mid, symbols, a, b, u)
        if u != v:
            slot = d - 1 + m - 1
            log_w[slot] = _weighted(base + slot, log_estimate(total, 0, alpha, gammas), deepest, children, beta)
        slot = m - 1
        log_e = log_estimate(sums[m] - sums[a], sums[b] - sums[m], alpha, gammas)
        log_w[slot] = _weighted(base + slot, log_e, deepest, children, beta)
        for side in range(2):
            c = child[u, side]
            if c < LEAF:
                stack[n, 0] = c
                stack[n, 1], stack[n, 2] = (m, b) if side else (a, m)
                n += 1


@njit(cache=True, nogil=True, inline="always")
def _node_slot(joint, mid, symbols, a, b, d, v):
    """The slot of node v in a context whose rows under v are a..b, of d in all."""
    if b - a == 1:
        return 2 * (d - 1) + a
    u = joint[symbols[a], symbols[b - 1]]
    m = _split_row(mid, symbols, a, b, u)
    return m - 1 if u == v else d - 1 + m - 1


@njit(cache=True, nogil=True, error_model="numpy")
def _add_to_parent(joint, mid, child, symbols, d, log_w, parent, n_parent, base, into, stack):
    """into[base + slot of the parent] += log_w of this context, for every slot of the parent that a node of this context falls into."""
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3], stack[0, 4] = 0, 0, d, 0, n_parent
    n = 1
    while n > 0:
        n -= 1
        v, a, b, first, last = stack[n, 0], stack[n, 1], stack[n, 2], stack[n, 3], stack[n, 4]
        if last - first == 1:
            into[base + 2 * (n_parent - 1) + first] += log_w[_node_slot(joint, mid, symbols, a, b, d, v)]
            continue
        u = joint[parent[first], parent[last - 1]]
        middle = _split_row(mid, parent, first, last, u)
        if u != v:
            into[base + n_parent - 1 + middle - 1] += log_w[_node_slot(joint, mid, symbols, a, b, d, v)]
        into[base + middle - 1] += log_w[_node_slot(joint, mid, symbols, a, b, d, u)]
        m = _split_row(mid, symbols, a, b, u)
        for side in range(2):
            c = child[u, side]
            lo, hi = (m, b) if side else (a, m)
            if c < LEAF and lo < hi:
                stack[n, 0], stack[n, 1], stack[n, 2] = c, lo, hi
                stack[n, 3], stack[n, 4] = (middle, last) if side else (first, middle)
                n += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _level_weights(
    low, high, parents, start_bits, records, rows, p_start_bits, p_records, p_rows, joint, mid, child, children, beta, into,
    alpha, gammas,
):  # fmt: skip
    """The contexts whose parents are low..high: computes their betas from `children` (empty at the last level, which has no betas) and
    adds their log P_w to `into` (empty at order 0, which has no parents)."""
    mask = (U1 << np.uint64(start_bits)) - U1
    p_mask = (U1 << np.uint64(p_start_bits)) - U1
    deepest, add = children.shape[0] == 0, into.shape[0] > 0
    symbols, parent = np.empty(SYMBOLS, np.int64), np.empty(SYMBOLS, np.int64)
    sums = np.zeros(SYMBOLS + 1, np.int64)
    log_w = np.zeros(3 * SYMBOLS, np.int64)
    stack = np.empty((SYMBOLS, 5), np.int64)
    batch, p_start, p_end = np.empty(BATCH, np.int64), np.empty(BATCH, np.int64), np.empty(BATCH, np.int64)
    contexts = records.shape[0] - 1
    n, at = 0, 0
    touched = np.int64(0)
    while at < contexts or n > 0:
        if at < contexts:
            p = np.int64(parents[at])
            if low <= p < high:
                batch[n] = at
                n += 1
            at += 1
            if n < BATCH and at < contexts:
                continue
        if add:  # parents are scattered: first all records of the batch, then the rows and sums, so that the cache misses overlap
            for j in range(n):
                p = np.int64(parents[batch[j]])
                p_start[j], p_end[j] = np.int64(p_records[p] & p_mask), np.int64(p_records[p + 1] & p_mask)
            for j in range(n):
                touched ^= np.int64(p_rows[p_start[j]]) ^ into[3 * p_start[j] - 2 * np.int64(parents[batch[j]])]
        for j in range(n):
            i = batch[j]
            start = np.int64(records[i] & mask)
            d = np.int64(records[i + 1] & mask) - start
            base = 3 * start - 2 * i
            if d == 1:
                row = rows[start]
                symbols[0] = row_symbol(row)
                log_w[0] = _weighted(base, log_estimate(row_count(row), 0, alpha, gammas), deepest, children, beta)
            else:
                for r in range(d):
                    row = rows[start + r]
                    symbols[r] = row_symbol(row)
                    sums[r + 1] = sums[r] + row_count(row)
                _context_weights(joint, mid, child, symbols, sums, d, deepest, base, children, beta, alpha, gammas, stack, log_w)
            if not add:
                continue
            n_parent = p_end[j] - p_start[j]
            p_base = 3 * p_start[j] - 2 * np.int64(parents[i])
            if n_parent == 1:  # then d is 1, too, unless two contexts share a hash
                into[p_base] += log_w[0]
                continue
            for r in range(n_parent):
                parent[r] = row_symbol(p_rows[p_start[j] + r])
            if d > 1:
                _add_to_parent(joint, mid, child, symbols, d, log_w, parent, n_parent, p_base, into, stack)
                continue
            v, first, last, s, w = np.int64(0), np.int64(0), n_parent, symbols[0], log_w[0]  # one symbol's path, and one log P_w
            while v < LEAF:
                if last - first == 1:
                    into[p_base + 2 * (n_parent - 1) + first] += w
                    break
                u = joint[parent[first], parent[last - 1]]
                middle = _split_row(mid, parent, first, last, u)
                if u != v:
                    into[p_base + n_parent - 1 + middle - 1] += w
                into[p_base + middle - 1] += w
                if s < mid[u]:
                    v, last = child[u, 0], middle
                else:
                    v, first = child[u, 1], middle
        n = 0
    return touched


def n_slots(table: CountTable) -> int:
    """How many betas a table's contexts have."""
    return 3 * table.n_rows - 2 * table.n_contexts


def joint_nodes(tree: TreeArrays) -> np.ndarray:
    """The node at which two different symbols diverge: int64 [128, 128]."""
    return np.take_along_axis(tree.path_node, tree.shared.astype(np.int64), axis=1)


def _owners(table: CountTable, threads: int) -> list[tuple[int, int]]:
    """The contexts in one range for each thread, of about the same number of rows."""
    mask = (1 << table.start_bits) - 1
    edges = [0]
    for t in range(1, threads):
        lo, hi, row = edges[-1], table.n_contexts, table.n_rows * t // threads
        while lo < hi:
            middle = (lo + hi) // 2
            lo, hi = (middle + 1, hi) if int(table.records[middle]) & mask < row else (lo, middle)
        edges.append(lo)
    return list(pairwise([*edges, table.n_contexts]))


def weigh_tables(
    tables: Iterable[CountTable],
    links: Callable[[CountTable, CountTable], np.ndarray],
    tree: TreeArrays,
    alpha: float,
    threads: int,
) -> Iterator[tuple[str, np.ndarray]]:
    """(context name, betas: float32 [n_slots]) of all orders but the highest, from the longest down.

    tables: a chain's, the highest order first; two are held at a time. links(longer, shorter): the parents (links.py).
    """  # fmt: skip
    gammas, joint = gamma_table(alpha), joint_nodes(tree)
    nothing = np.zeros(0, np.int64)
    coming = iter(tables)
    table, sums = next(coming), nothing
    deepest = True
    with ThreadPoolExecutor(threads) as pool:
        while table is not None:
            parent = next(coming, None)
            beta = np.ones(0 if deepest else n_slots(table), np.float32)
            above = table if parent is None else parent
            into = nothing if parent is None else np.zeros(n_slots(parent), np.int64)
            parents = np.zeros(table.n_contexts, np.uint32) if parent is None else links(table, parent)
            jobs = [
                pool.submit(
                    _level_weights, low, high, parents, table.start_bits, table.records, table.rows,
                    above.start_bits, above.records, above.rows, joint, tree.mid, tree.child, sums, beta, into, alpha, gammas,
                )
                for low, high in _owners(above, threads)
            ]  # fmt: skip
            for job in jobs:
                job.result()
            name = table.context.name
            table, sums = parent, into
            del parent, above, parents, into, jobs, job
            if not deepest:
                yield name, beta
            deepest = False


def weigh_text(
    tables: Iterable[CountTable], symbols: np.ndarray, n_history: int, tree: TreeArrays, alpha: float, threads: int
) -> Iterator[tuple[str, np.ndarray]]:
    """weigh_tables() with the links of hashed orders from the text that was counted; its first `n_history` symbols are history."""

    def links(longer: CountTable, shorter: CountTable) -> np.ndarray:
        return parent_links(longer, shorter, symbols, n_history, threads)

    return weigh_tables(tables, links, tree, alpha, threads)
