"""Context-tree weighting while streaming: probabilities of nodes and symbols, and online updates of counts and beta.

At node v of the code tree, along the contexts of the current history from the longest (k = K - 1) to order 0:

    p_k = (beta_k e_k + p_{k+1}) / (beta_k + 1)       e_k: the estimator's P(bit = 1) from n0, n1 of context k
    p_k = e_k at the longest order; p = 1/2 if v was never seen (no counts: n0 = n1 = 0)
    after the bit: beta_k *= e_k(bit) / p_{k+1}(bit), and n_bit += 1, for every context on the path

So beta stays the ratio P_e / Π P_w of everything seen, and no block probability is ever stored (Willems, Shtarkov and
Tjalkens 1995; the ratio: Volf, "Weighting techniques in data compression", 2002). Static counts come from the tables through
cumulative counts of the current contexts, static betas from weights.py. One hash table, Records, holds what the stream adds:

    key    uint64        hash of (level, context, node), 0 = free
    value  float32 [3]   n0, n1 of the stream (weighted); the current beta, which starts as a copy of the static one
    stamp  uint32        when the record was last updated, so that the older half can be forgotten

Below the root of the code tree, a node's record is looked up only if the online counts of its parent node say that one exists.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.ngram.chain import POSITION, TEXT_START, Chain, Place, move_on
from charstat.ngram.hashing import CHARS, IDENTITY_BITS, ODD_B, char_identity, mix64
from charstat.ngram.table import find_context, row_count, row_symbol
from charstat.symbol_model import best_symbol
from charstat.tree import LEAF, SYMBOLS, TreeArrays

U0, U1 = np.uint64(0), np.uint64(1)
PRUNE = 1e-8  # a node reached less often is not evaluated: the leaves below it share its probability evenly
READY, EPOCH, TOP, USED = range(4)  # in CTW.at
NONE = -1


class Records(NamedTuple):
    """The online counts and betas: see the top of the file."""

    keys: np.ndarray  # uint64 [capacity]
    values: np.ndarray  # float32 [capacity, 3]
    stamps: np.ndarray  # uint32 [capacity]


class Settings(NamedTuple):
    """The options that the kernels read: see model.CTWOptions."""

    alpha: float
    online: bool
    online_weight: float
    decay: float
    static_cap: float
    beta_limit: float


class CTW(NamedTuple):
    """A stream: what stays the same, what it has learned and where it is, and scratch."""

    chain: Chain
    tree: TreeArrays
    nodes: np.ndarray  # int64 [nodes]: all of them, parents first
    up: np.ndarray  # int64 [nodes, 2]: a node's parent (-1 for the root), and which child of it the node is
    beta: np.ndarray  # float32: the static betas (weights.py)
    beta_at: np.ndarray  # int64 [K]: where each level's static betas start, -1 if it has none
    settings: Settings

    place: Place  # its position and history only
    records: Records
    at: np.ndarray  # int64 [4]: 1 once prepare() has run for this history; epoch, one per history; longest level; records in use

    context: np.ndarray  # int64 [K, 3]: index in its table (-1: not there), first row, types
    keys: np.ndarray  # uint64 [K]: hash of (level, context)
    mass: np.ndarray  # float64 [K, 129]: static counts of the symbols below s
    types: np.ndarray  # int64 [K, 129]: static types below s
    record: np.ndarray  # int64 [128, K]: the online record of a node, -1: none
    beta_now: np.ndarray  # float64 [128, K]: beta_k
    estimate: np.ndarray  # float64 [128, K]: e_k
    longer: np.ndarray  # float64 [128, K]: p_{k+1}
    p: np.ndarray  # float64 [128]: P(bit = 1)
    evaluated: np.ndarray  # int64 [128]: the epoch in which a node was evaluated
    reach: np.ndarray  # float64 [2 * SYMBOLS]: P of reaching a node or a leaf


def new_records(capacity: int) -> Records:
    return Records(np.zeros(capacity, np.uint64), np.zeros((capacity, 3), np.float32), np.zeros(capacity, np.uint32))


@njit(cache=True, nogil=True, inline="always")
def node_key(context_key, v):
    key = mix64(context_key + np.uint64(v + 1) * ODD_B)
    return key if key != U0 else U1


@njit(cache=True, nogil=True, inline="always")
def find_record(keys, key):
    """The record of a key, or the free one where it would go."""
    mask = keys.shape[0] - 1
    i = np.int64(key >> np.uint64(20)) & mask
    while keys[i] != U0 and keys[i] != key:
        i = (i + 1) & mask
    return i


@njit(cache=True, nogil=True)
def refill(old, new, oldest):
    """Copy the records updated at or after `oldest`; returns how many."""
    used = 0
    for i in range(old.keys.shape[0]):
        if old.keys[i] != U0 and old.stamps[i] >= oldest:
            j = find_record(new.keys, old.keys[i])
            new.keys[j] = old.keys[i]
            new.values[j] = old.values[i]
            new.stamps[j] = old.stamps[i]
            used += 1
    return used


@njit(cache=True, nogil=True)
def prepare(ctw):
    """Find the contexts of the current history and their cumulative static counts."""
    if ctw.at[READY]:
        return
    chain, place = ctw.chain, ctw.place
    seen = True
    top = 0
    for k in range(chain.param.shape[0]):
        if place.at[POSITION] - place.at[TEXT_START] < chain.param[k]:
            break
        top = k
        identity = char_identity(CHARS, chain.param[k], place.history)
        ctw.keys[k] = mix64(identity | (np.uint64(k) << np.uint64(IDENTITY_BITS)))
        index, first, last = np.int64(NONE), np.int64(0), np.int64(0)
        if seen:
            index, first, last = find_context(
                identity, chain.width[k], chain.bits[k], chain.start_bits[k],
                chain.buckets, chain.bucket_at[k], chain.records, chain.record_at[k],
            )  # fmt: skip
            seen = index >= 0
        ctw.context[k, 0], ctw.context[k, 1], ctw.context[k, 2] = index, first, last - first
        mass, types = ctw.mass[k], ctw.types[k]
        if not seen:
            continue
        s, total, n = 0, 0.0, 0
        for r in range(chain.row_at[k] + first, chain.row_at[k] + last):
            row = chain.rows[r]
            symbol = row_symbol(row)
            while s <= symbol:
                mass[s], types[s] = total, n
                s += 1
            total += np.float64(row_count(row))
            n += 1
        while s <= SYMBOLS:
            mass[s], types[s] = total, n
            s += 1
    ctw.at[TOP] = top
    ctw.at[EPOCH] += 1
    ctw.at[READY] = 1


@njit(cache=True, nogil=True)
def evaluate(ctw, nodes, count, everywhere):
    """P(bit = 1) of the first `count` nodes, parents first, and the probability of reaching their children.

    Below nodes reached less often than PRUNE, leaves share evenly; with `everywhere` such nodes are evaluated all the same, because
    learn_path() needs them. One function, with its arrays in local names: numba counts references to every array handed to a call.
    """
    tree, settings = ctw.tree, ctw.settings
    lowest, mid, end, child, shared, path_node = tree.lowest, tree.mid, tree.end, tree.child, tree.shared, tree.path_node
    share, up, beta, beta_at = tree.leaf_share, ctw.up, ctw.beta, ctw.beta_at
    rows, row_at = ctw.chain.rows, ctw.chain.row_at
    keys, values = ctw.records.keys, ctw.records.values
    context, context_keys, mass, types = ctw.context, ctw.keys, ctw.mass, ctw.types
    record, estimate, longer, beta_now = ctw.record, ctw.estimate, ctw.longer, ctw.beta_now
    probability, evaluated, reach = ctw.p, ctw.evaluated, ctw.reach
    deepest, epoch = ctw.at[TOP], ctw.at[EPOCH]
    alpha, limit, cap = settings.alpha, settings.beta_limit, settings.static_cap
    low_limit = 1.0 / limit
    reach[0] = 1.0
    for i in range(count):
        v = nodes[i]
        rare = reach[v] < PRUNE
        if evaluated[v] != epoch and (everywhere or not rare):
            evaluated[v] = epoch
            parent, side = up[v, 0], up[v, 1]
            a, m, b = lowest[v], mid[v], end[v]
            p = 0.5
            for k in range(deepest, -1, -1):
                n0 = n1 = 0.0
                weight = -1.0
                slot = np.int64(NONE)
                if parent < 0 or (record[parent, k] >= 0 and values[record[parent, k], side] > 0.0):
                    slot = find_record(keys, node_key(context_keys[k], v))
                    if keys[slot] == U0:
                        slot = np.int64(NONE)
                record[v, k] = slot
                first_type = last_type = np.int64(0)
                if context[k, 0] >= 0:
                    first_type, last_type = types[k, a], types[k, b]
                    if first_type < last_type:
                        n0, n1 = mass[k, m] - mass[k, a], mass[k, b] - mass[k, m]
                        if n0 + n1 > cap:
                            n0, n1 = n0 * cap / (n0 + n1), n1 * cap / (n0 + n1)
                if slot >= 0:
                    n0 += np.float64(values[slot, 0])
                    n1 += np.float64(values[slot, 1])
                    weight = np.float64(values[slot, 2])
                elif first_type == last_type:
                    estimate[v, k] = longer[v, k] = 0.5
                    beta_now[v, k] = 1.0
                    continue
                e = (n1 + alpha) / (n0 + n1 + 2.0 * alpha)
                estimate[v, k], longer[v, k] = e, p
                if k == deepest:
                    p = e
                else:
                    if weight < 0.0:
                        weight = 1.0
                        if beta_at[k] >= 0:
                            # The slot of weights.py: a split, the chain above a leaf, or the chain above a split.
                            split, d = types[k, m], context[k, 2]
                            if first_type < split < last_type:
                                at = split - 1
                            elif last_type - first_type == 1:
                                at = 2 * (d - 1) + first_type
                            else:
                                row = row_at[k] + context[k, 1]
                                s = row_symbol(rows[row + first_type])
                                u = path_node[s, np.int64(shared[s, row_symbol(rows[row + last_type - 1])])]
                                at = d - 1 + types[k, mid[u]] - 1
                            weight = np.float64(beta[beta_at[k] + 3 * context[k, 1] - 2 * context[k, 0] + at])
                    weight = min(max(weight, low_limit), limit)
                    beta_now[v, k] = weight
                    p = (weight * e + p) / (weight + 1.0)
            probability[v] = p
        p = share[v] if rare else probability[v]
        reach[child[v, 0]] = reach[v] * (1.0 - p)
        reach[child[v, 1]] = reach[v] * p


@njit(cache=True, nogil=True)
def distribution(ctw, out):
    """out[symbol] := P(symbol) for the current history: float64 [128], sum 1; unused symbols have 0."""
    prepare(ctw)
    evaluate(ctw, ctw.nodes, ctw.nodes.shape[0], False)
    for s in range(SYMBOLS):
        out[s] = ctw.reach[LEAF + s] if ctw.tree.depth[s] > 0 else 0.0


@njit(cache=True, nogil=True)
def path_probability(ctw, symbol):
    """P(symbol), the same number that distribution() gives; evaluates the nodes on the symbol's path only."""
    prepare(ctw)
    evaluate(ctw, ctw.tree.path_node[symbol], ctw.tree.depth[symbol], True)
    return ctw.reach[LEAF + symbol]


@njit(cache=True, nogil=True)
def learn_path(ctw, symbol):
    """Learn from the symbol that came, in every context on the path, and move on; path_probability() of it must have run just before."""
    settings = ctw.settings
    if settings.online:
        tree, records = ctw.tree, ctw.records
        keys, values, record = records.keys, records.values, ctw.record
        limit, deepest, online, decay = settings.beta_limit, ctw.at[TOP], np.float32(settings.online_weight), np.float32(settings.decay)
        stamp = np.uint32(ctw.place.at[POSITION] >> 8)
        for d in range(tree.depth[symbol]):
            v, bit = tree.path_node[symbol, d], np.int64(tree.path_bit[symbol, d])
            for k in range(deepest + 1):
                slot = record[v, k]
                if slot < 0:
                    key = node_key(ctw.keys[k], v)
                    slot = find_record(keys, key)
                    keys[slot] = key
                    values[slot, 2] = np.float32(ctw.beta_now[v, k])
                    ctw.at[USED] += 1
                if k < deepest:
                    e, p = ctw.estimate[v, k], ctw.longer[v, k]
                    ratio = e / p if bit else (1.0 - e) / (1.0 - p)
                    values[slot, 2] = np.float32(min(max(ctw.beta_now[v, k] * ratio, 1.0 / limit), limit))
                values[slot, bit] += online
                values[slot, 1 - bit] *= decay
                records.stamps[slot] = stamp
    move_on(ctw.place, symbol)
    ctw.at[READY] = 0


@njit(cache=True, nogil=True)
def run(ctw, symbols, p, guesses, rows, best_rare, scratch):
    """Observe symbols one by one; see symbol_model.SymbolModel._run_symbols."""
    for i in range(symbols.shape[0]):
        symbol = np.int64(symbols[i])
        out = rows[i] if rows.shape[0] > 0 else scratch
        if guesses.shape[0] + rows.shape[0] > 0:
            distribution(ctw, out)
        if guesses.shape[0] > 0:
            guesses[i] = np.uint8(best_symbol(out, best_rare))
        p[i] = path_probability(ctw, symbol)
        learn_path(ctw, symbol)
