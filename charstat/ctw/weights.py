"""The weights of a context tree from its counts: P_w of every context and tree node, bottom-up, and beta from it.

For a context c and a node v of the symbol's decision tree, with n0 and n1 counts under v's children (Volf's decomposition: one
binary context tree for every node v), Willems, Shtarkov and Tjalkens, "The context-tree weighting method", 1995:

    P_w(c, v) = 1/2 P_e(n0, n1) + 1/2 Π_x P_w(xc, v)      over the contexts xc one level longer; P_e alone at the deepest level
    beta(c, v) = P_e(n0, n1) / Π_x P_w(xc, v)             all that prediction needs; 1, weight 1/2, where nothing was seen

Layout: a context of d types needs at most 3 d - 2 betas. Its rows, sorted by symbol, which is leaf order, make a compressed binary
tree: d - 1 nodes where both children were seen, and below the root of each of the 2 d - 1 subsets of rows a chain of nodes where one
child was; on a chain counts, longer contexts and so beta are one and the same. So the betas of context i, whose rows start
at r, start at 3 r - 2 i, no index needed:

    slot  0 .. d-2          the node that splits between rows j and j + 1
          d-1 .. 2d-3       the chain above that node
          2d-2 .. 3d-3      the chain above leaf j

P_w is kept as a logarithm while it is built, in float64, 8 bytes a slot of one level and its parents; beta, clipped, is float32 and is what
stays. A level is added to its parents' level by the packed context, so that only exact orders (0..8) have weights from
counts; where the next level is hashed, beta starts at 1 and is learned online alone.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from charstat.ngram.hashing import low_symbols, mix57
from charstat.ppm.chain import Chain
from charstat.ppm.continuation import derivable, level_sizes, unmix57
from charstat.tree import LEAF, SYMBOLS, TreeArrays

KT, ZERO_REDUNDANCY = range(2)
BETA_MAX = 1e15
LOG_HALF = math.log(0.5)
GAMMA_TABLE = 4096
U1 = np.uint64(1)


def gamma_table(alpha: float) -> np.ndarray:
    """float64 [2, GAMMA_TABLE]: log gamma(n + alpha) / gamma(alpha), and log gamma(n + 2 alpha) / gamma(2 alpha)."""
    return np.array([[math.lgamma(n + a) - math.lgamma(a) for n in range(GAMMA_TABLE)] for a in (alpha, 2.0 * alpha)])


@njit(cache=True, nogil=True)
def log_rising(n, alpha, table):
    """log gamma(n + alpha) / gamma(alpha)."""
    return table[n] if n < table.shape[0] else math.lgamma(n + alpha) - math.lgamma(alpha)


@njit(cache=True, nogil=True)
def log_estimate(n0, n1, estimator, alpha, gammas):
    """log P_e of a sequence with n0 zeros and n1 ones: Beta(alpha, alpha), KT at alpha 1/2; or zero-redundancy, half of it that."""
    log_p = log_rising(n0, alpha, gammas[0]) + log_rising(n1, alpha, gammas[0]) - log_rising(n0 + n1, 2.0 * alpha, gammas[1])
    if estimator == ZERO_REDUNDANCY:
        if n0 == 0 and n1 == 0:
            return 0.0
        return math.log(0.5 * math.exp(log_p) + 0.25) if n0 == 0 or n1 == 0 else LOG_HALF + log_p
    return log_p


@njit(cache=True, nogil=True, inline="always")
def lowest_common(tree, a, b):
    """The node where two different symbols part."""
    return tree.path_node[a, np.int64(tree.shared[a, b])]


@njit(cache=True, nogil=True)
def split_row(tree, symbols, a, b, v):
    """First of the rows a..b that lies under v's 1-child."""
    mid = tree.mid[v]
    while a < b:
        m = (a + b) >> 1
        if symbols[m] < mid:
            a = m + 1
        else:
            b = m
    return a


@njit(cache=True, nogil=True)
def context_weights(tree, symbols, sums, d, deepest, children, beta, estimator, alpha, gammas, stack, log_w):
    """log P_w of all slots of one context. sums: cumulative counts [d + 1]; children: Σ log P_w of the longer contexts; beta: filled."""
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, 0, d
    n = 1
    while n > 0:
        n -= 1
        v, a, b = stack[n, 0], stack[n, 1], stack[n, 2]
        total = sums[b] - sums[a]
        if b - a == 1:
            slot = 2 * (d - 1) + a
            log_w[slot] = _weighted(slot, log_estimate(total, 0, estimator, alpha, gammas), deepest, children, beta)
            continue
        u = lowest_common(tree, symbols[a], symbols[b - 1])
        m = split_row(tree, symbols, a, b, u)
        if u != v:
            slot = d - 1 + m - 1
            log_w[slot] = _weighted(slot, log_estimate(total, 0, estimator, alpha, gammas), deepest, children, beta)
        slot = m - 1
        log_w[slot] = _weighted(slot, log_estimate(sums[m] - sums[a], sums[b] - sums[m], estimator, alpha, gammas), deepest, children, beta)
        for side in range(2):
            child = tree.child[u, side]
            if child < LEAF:
                stack[n, 0] = child
                stack[n, 1], stack[n, 2] = (m, b) if side else (a, m)
                n += 1


@njit(cache=True, nogil=True, inline="always")
def _weighted(slot, log_e, deepest, children, beta):
    if deepest:
        return log_e
    log_c = children[slot]
    difference = log_e - log_c
    beta[slot] = np.float32(min(max(math.exp(min(difference, 40.0)), 1.0 / BETA_MAX), BETA_MAX))
    top = max(log_e, log_c)
    return top + math.log1p(math.exp(-abs(difference))) + LOG_HALF


@njit(cache=True, nogil=True)
def node_slot(tree, symbols, a, b, d, v):
    """The slot of node v in a context whose rows under v are a..b, of d in all."""
    if b - a == 1:
        return 2 * (d - 1) + a
    u = lowest_common(tree, symbols[a], symbols[b - 1])
    m = split_row(tree, symbols, a, b, u)
    return m - 1 if u == v else d - 1 + m - 1


@njit(cache=True, nogil=True)
def add_to_parent(tree, symbols, d, log_w, parent, parents, into, stack):
    """into[slot of the parent] += log_w of this context, once for every slot that the context's nodes meet."""
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3], stack[0, 4] = 0, 0, d, 0, parents
    n = 1
    while n > 0:
        n -= 1
        v, a, b, first, last = stack[n, 0], stack[n, 1], stack[n, 2], stack[n, 3], stack[n, 4]
        if last - first == 1:
            into[2 * (parents - 1) + first] += log_w[node_slot(tree, symbols, a, b, d, v)]
            continue
        u = lowest_common(tree, parent[first], parent[last - 1])
        middle = split_row(tree, parent, first, last, u)
        if u != v:
            into[parents - 1 + middle - 1] += log_w[node_slot(tree, symbols, a, b, d, v)]
        into[middle - 1] += log_w[node_slot(tree, symbols, a, b, d, u)]
        m = split_row(tree, symbols, a, b, u)
        for side in range(2):
            child = tree.child[u, side]
            lo, hi = (m, b) if side else (a, m)
            if child < LEAF and lo < hi:
                stack[n, 0], stack[n, 1], stack[n, 2] = child, lo, hi
                stack[n, 3], stack[n, 4] = (middle, last) if side else (first, middle)
                n += 1


@njit(cache=True, nogil=True)
def level_weights(chain, tree, k, deepest, children, beta, add, into, estimator, alpha, gammas):
    """One level of the chain: beta of its contexts from `children`, and their log P_w added to the level below, if add."""
    low = np.uint64(chain.width[k] - chain.bits[k])
    check = (U1 << low) - U1
    start_bits = np.uint64(chain.start_bits[k])
    start_mask = (U1 << start_bits) - U1
    record_at, row_at = chain.record_at[k], chain.row_at[k]
    symbols, parent = np.empty(SYMBOLS, np.int64), np.empty(SYMBOLS, np.int64)
    sums = np.zeros(SYMBOLS + 1, np.int64)
    log_w = np.empty(3 * SYMBOLS)
    stack = np.empty((SYMBOLS, 5), np.int64)
    for b in range(1 << chain.bits[k]):
        at = chain.bucket_at[k] + b
        for i in range(np.int64(chain.buckets[at]), np.int64(chain.buckets[at + 1])):
            record = chain.records[record_at + i]
            start, end = np.int64(record & start_mask), np.int64(chain.records[record_at + i + 1] & start_mask)
            d = end - start
            for r in range(d):
                row = chain.rows[row_at + start + r]
                symbols[r] = np.int64(row & np.uint32(127))
                sums[r + 1] = sums[r] + np.int64(row >> np.uint32(7))
            base = 0 if deepest else 3 * start - 2 * i
            context_weights(tree, symbols, sums, d, deepest, children[base:], beta[base:], estimator, alpha, gammas, stack, log_w)
            if not add:
                continue
            packed = unmix57((np.uint64(b) << low) | ((record >> start_bits) & check))
            index, first, last = find_record(chain, k - 1, mix57(low_symbols(packed, chain.param[k - 1])))
            for r in range(last - first):
                parent[r] = np.int64(chain.rows[chain.row_at[k - 1] + first + r] & np.uint32(127))
            add_to_parent(tree, symbols, d, log_w, parent, last - first, into[3 * first - 2 * index :], stack)


@njit(cache=True, nogil=True, inline="always")
def find_record(chain, k, identity):
    """(index, first row, end of rows) of a level-k context, relative to its level; index -1 if it was never seen."""
    s = np.uint64(chain.start_bits[k])
    want = identity << s
    mask = (U1 << s) - U1
    b = chain.bucket_at[k] + np.int64(identity >> np.uint64(chain.width[k] - chain.bits[k]))
    at = chain.record_at[k]
    for i in range(np.int64(chain.buckets[b]), np.int64(chain.buckets[b + 1])):
        record = chain.records[at + i]
        if ((record ^ want) >> s) == np.uint64(0):
            return i, np.int64(record & mask), np.int64(chain.records[at + i + 1] & mask)
    return np.int64(-1), np.int64(0), np.int64(0)


def n_slots(chain: Chain, k: int) -> int:
    contexts, rows = level_sizes(chain, k)
    return 3 * rows - 2 * contexts


def build_weights(chain: Chain, tree: TreeArrays, estimator: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """(beta, beta_at): the betas of all levels that have them, float32, and where each level's start (-1: none)."""
    gammas = gamma_table(alpha)
    levels = chain.param.size
    weighted = [k for k in range(levels) if derivable(chain, k)]
    sizes = [n_slots(chain, k) for k in weighted]
    beta = np.ones(sum(sizes), np.float32)
    beta_at = np.full(levels, -1, np.int64)
    beta_at[weighted] = np.cumsum([0, *sizes[:-1]]) if weighted else 0
    nothing, no_beta = np.zeros(0), np.zeros(0, np.float32)
    children = nothing
    for k in range(len(weighted), -1, -1):
        deepest = k == len(weighted)
        into = np.zeros(sizes[k - 1]) if k else nothing
        own = no_beta if deepest else beta[beta_at[k] : beta_at[k] + sizes[k]]
        if not deepest or k:
            level_weights(chain, tree, k, deepest, children, own, k > 0, into, estimator, alpha, gammas)
        children = into
    return beta, beta_at
