"""The compiled steps of the mixture stream: look up, evaluate one path or the whole tree, learn, move on.

    prepare     find every source's counts for the current history                       once per character
    path        mass of every source at the nodes on one symbol's path -> P(symbol)     score, observe
    tree        mass at all nodes -> all probabilities, or the most likely symbol       predict, predict_char
    learn       weights, evidence, overlay, match model; then the history moves on      observe

Masses are integers, and `path` and `tree` mix a node with the same function: the two give the same probabilities, bit for bit.
Sources: static 0..F, fast F..2F, slow 2F..3F; inputs: those, joint 3F..4F, match 4F, bias 4F + 1, experts from 4F + 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.mixers.evidence import (
    ALL_ONE,
    ALL_ZERO,
    COUNT_TABLE_SIZE,
    FAST_EDGES,
    RATIO_BINS,
    RATIO_STEPS,
    STATIC_EDGES,
)
from charstat.mixers.logistic import BIAS, P_MIN, SELECTORS, WORD_PLACES, Mixer, learn_weights, mix, squash, sum_rows
from charstat.ngram.hashing import CHARS, N_FEATURES, WORDS, char_identity, mix64, push_symbol, word_hash, word_identity
from charstat.ngram.match import Match, expected_symbol, length_bucket, observe_symbol
from charstat.ngram.overlay import MASK24, UNIT, UNIT_BITS, Overlay, count_symbol, find_slot, slot_list
from charstat.ngram.table import find_context
from charstat.ngram.words import (
    FIRST_KIND,
    HASH,
    LAST_THREE,
    LENGTH,
    LOWER_HASH,
    MAX_WORD,
    NO_NODE,
    ROOT,
    WORD_STATE,
    SymbolInfo,
    extend_word,
    find_child,
    lower_bound,
    push_word,
    word_shape,
)
from charstat.tree import ESCAPE, LEAF, MAX_DEPTH, SYMBOLS, TreeArrays

PRUNE = 1e-7  # below this probability of a node, its leaves share evenly and nothing is looked up or learned
U7, U31 = np.uint64(7), np.uint64(31)

# Scalars of the stream's state, in Stream.at
POSITION, PREPARED, NODE, FIRST_ID, END_ID, STATIC_ORDER, OVERLAY_ORDER, PLACE, EXPECTED, LENGTH_BUCKET, TREE_READY = range(11)


class Tables(NamedTuple):
    """All static tables of a model, concatenated; one entry per family in the first arrays (ngram/table.py)."""

    kind: np.ndarray  # int64 [F]
    param: np.ndarray
    reach: np.ndarray
    width: np.ndarray
    bits: np.ndarray
    start_bits: np.ndarray
    bucket_at: np.ndarray
    record_at: np.ndarray
    row_at: np.ndarray
    sum_at: np.ndarray
    buckets: np.ndarray  # uint32
    records: np.ndarray  # uint64
    rows: np.ndarray  # uint32
    sums: np.ndarray  # uint32
    first_child: np.ndarray  # uint32: the vocabulary's trie (ngram/words.py)
    trie_symbol: np.ndarray  # uint8
    first_id: np.ndarray  # uint32
    words: int


class Fixed(NamedTuple):
    """What never changes while a stream runs."""

    tables: Tables
    tree: TreeArrays
    info: SymbolInfo
    count_bucket: np.ndarray  # uint8 [COUNT_TABLE_SIZE]
    ratio_bin: np.ndarray  # uint8 [RATIO_STEPS + 1]
    set_rows: np.ndarray  # int64 [5]: SelectorRows
    rates: np.ndarray  # float64 [2]: weights, evidence


class Stream(NamedTuple):
    """The state of a position in the text, and scratch space."""

    at: np.ndarray  # int64 [11]
    history: np.ndarray  # uint64 [5]
    word: np.ndarray  # uint64 [WORD_STATE]
    features: np.ndarray  # uint64 [N_FEATURES]
    word_rows: np.ndarray  # int64 [F, 2]: rows of the word context that continue the current prefix
    keys: np.ndarray  # uint64 [F]: overlay keys, 0 if the context does not exist yet
    found: np.ndarray  # int64 [F, 2]: static rows
    slots: np.ndarray  # int64 [F]
    lists: np.ndarray  # int64 [F, 2]: overlay offset, length
    selected: np.ndarray  # int64 [SELECTORS]
    base: np.ndarray  # float32 [Kp]: summed weights of all selectors but the node's
    mass: np.ndarray  # int32 [MAX_DEPTH + 2, 3F]: on the path
    tree_mass: np.ndarray  # int32 [2 SYMBOLS, 3F]
    ones: np.ndarray  # int32 [3F]
    x: np.ndarray  # float32 [MAX_DEPTH, Kp]
    w: np.ndarray  # float32 [MAX_DEPTH, Kp]
    states: np.ndarray  # int32 [MAX_DEPTH, 4F + 1]
    steps: np.ndarray  # float32 [MAX_DEPTH]
    path_p: np.ndarray  # float64 [MAX_DEPTH]: P(bit = 1)
    total: np.ndarray  # float32 [Kp]
    reach_p: np.ndarray  # float64 [2 SYMBOLS]: probability of reaching a node or leaf
    experts: np.ndarray  # float64 [E, SYMBOLS + 1]: cumulative probabilities of the experts
    overlay: Overlay
    match: Match
    mixer: Mixer


def new_stream(families: int, inputs_padded: int, experts: int, overlay: Overlay, match: Match, mixer: Mixer) -> Stream:
    f, kp = families, inputs_padded
    return Stream(
        np.zeros(11, np.int64), np.zeros(5, np.uint64), np.zeros(WORD_STATE, np.uint64), np.zeros(N_FEATURES, np.uint64),
        np.zeros((f, 2), np.int64), np.zeros(f, np.uint64), np.zeros((f, 2), np.int64), np.zeros(f, np.int64),
        np.zeros((f, 2), np.int64), np.zeros(SELECTORS, np.int64), np.zeros(kp, np.float32),
        np.zeros((MAX_DEPTH + 2, 3 * f), np.int32), np.zeros((2 * SYMBOLS, 3 * f), np.int32), np.zeros(3 * f, np.int32),
        np.zeros((MAX_DEPTH, kp), np.float32), np.zeros((MAX_DEPTH, kp), np.float32), np.zeros((MAX_DEPTH, 4 * f + 1), np.int32),
        np.zeros(MAX_DEPTH, np.float32), np.zeros(MAX_DEPTH), np.zeros(kp, np.float32), np.zeros(2 * SYMBOLS),
        np.zeros((experts, SYMBOLS + 1)), overlay, match, mixer,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def enter_word(fixed, s):
    """At the start of a token: the whole vocabulary can follow; look up the rows of every word context."""
    t = fixed.tables
    s.at[NODE] = ROOT if t.words > 0 else NO_NODE
    s.at[FIRST_ID], s.at[END_ID] = 0, t.words
    for f in range(t.kind.shape[0]):
        if t.kind[f] == WORDS:
            identity = word_identity(word_hash(t.param[f], s.features))
            start, end = find_context(
                identity, t.width[f], t.bits[f], t.start_bits[f], t.buckets, t.bucket_at[f], t.records, t.record_at[f]
            )
            s.word_rows[f, 0], s.word_rows[f, 1] = t.row_at[f] + start, t.row_at[f] + end


@njit(cache=True, nogil=True)
def advance(fixed, s, symbol):
    """Move the history on by one symbol: packed characters, the word, the trie node and the rows under its prefix."""
    t, info = fixed.tables, fixed.info
    push_symbol(s.history, symbol, info.classes[symbol])
    s.at[POSITION] += 1
    s.at[PREPARED] = 0
    s.at[TREE_READY] = 0
    if info.separator[symbol]:
        if s.word[LENGTH] > np.uint64(0):
            length = min(s.word[LENGTH], np.uint64(MAX_WORD))
            shape = word_shape(length, s.word[FIRST_KIND], s.word[LAST_THREE])
            push_word(s.features, s.word[HASH], s.word[LOWER_HASH], shape, s.word[FIRST_KIND], s.word[LAST_THREE])
            s.word[:] = np.uint64(0)
        s.at[PLACE] = 0
        enter_word(fixed, s)
        return
    extend_word(s.word, symbol, info)
    s.at[PLACE] += 1
    node = s.at[NODE]
    if node == NO_NODE:
        return
    child = find_child(node, symbol, t.first_child, t.trie_symbol)
    last = np.int64(t.first_child[node + 1])
    if child == last or np.int64(t.trie_symbol[child]) != symbol:
        s.at[NODE] = NO_NODE
        return
    first = np.int64(t.first_id[child])
    end = np.int64(t.first_id[child + 1]) if child + 1 < last else s.at[END_ID]
    s.at[NODE], s.at[FIRST_ID], s.at[END_ID] = child, first, end
    for f in range(t.kind.shape[0]):
        if t.kind[f] == WORDS and s.word_rows[f, 0] < s.word_rows[f, 1]:
            lo = lower_bound(t.rows, s.word_rows[f, 0], s.word_rows[f, 1], first)
            s.word_rows[f, 0], s.word_rows[f, 1] = lo, lower_bound(t.rows, lo, s.word_rows[f, 1], end)


@njit(cache=True, nogil=True)
def prepare(fixed, s):
    """Find the counts of all sources for the current history, and the mixer's selectors."""
    if s.at[PREPARED]:
        return
    t, info = fixed.tables, fixed.info
    families = t.kind.shape[0]
    prefix = mix64(s.word[HASH])
    static_order = overlay_order = 0
    for f in range(families):
        key = np.uint64(0)
        if t.kind[f] == WORDS:
            key = word_hash(t.param[f], s.features) ^ prefix
            s.found[f, 0], s.found[f, 1] = s.word_rows[f, 0], s.word_rows[f, 1]
            if s.at[NODE] == NO_NODE:
                s.found[f, 1] = s.found[f, 0]
        elif s.at[POSITION] >= t.reach[f]:
            identity = char_identity(t.kind[f], t.param[f], s.history)
            start, end = find_context(
                identity, t.width[f], t.bits[f], t.start_bits[f], t.buckets, t.bucket_at[f], t.records, t.record_at[f]
            )
            s.found[f, 0], s.found[f, 1] = t.row_at[f] + start, t.row_at[f] + end
            key = mix64(identity + np.uint64(1))
            if t.kind[f] == CHARS and end > start:
                static_order = f + 1
        else:
            s.found[f, 0], s.found[f, 1] = 0, 0
        s.keys[f] = key
        if key != np.uint64(0):
            s.slots[f] = find_slot(s.overlay.slots, f, key)
            s.lists[f, 0], s.lists[f, 1] = slot_list(s.overlay.slots, f, s.slots[f])
            if t.kind[f] == CHARS and s.lists[f, 1] > 0:
                overlay_order = f + 1
        else:
            s.lists[f, 1] = 0
    s.at[STATIC_ORDER], s.at[OVERLAY_ORDER] = static_order, overlay_order
    s.at[EXPECTED] = expected_symbol(s.match)
    s.at[LENGTH_BUCKET] = length_bucket(s.match.state[2])
    place = min(s.at[PLACE], WORD_PLACES - 1)
    previous = np.int64(s.history[0] & np.uint64(127))
    before = np.int64((s.history[0] >> U7) & np.uint64(127))
    rows = fixed.set_rows
    s.selected[1] = rows[0] + static_order * WORD_PLACES + place
    s.selected[2] = rows[1] + np.int64(info.kind[previous]) * WORD_PLACES + place
    s.selected[3] = rows[2] + overlay_order
    s.selected[4] = rows[3] + previous
    s.selected[5] = rows[4] + before
    sum_rows(s.mixer.weights, s.selected, s.base)
    s.at[PREPARED] = 1


@njit(cache=True, nogil=True)
def path_masses(fixed, s, symbol):
    """s.mass[d, k] := mass of source k under node d of the symbol's path (the leaf is the last)."""
    t, tree = fixed.tables, fixed.tree
    families = t.kind.shape[0]
    depth = tree.depth[symbol]
    mass = s.mass
    mass[: depth + 1, :] = 0
    shared = tree.shared[symbol]
    for f in range(families):
        lo, hi = s.found[f, 0], s.found[f, 1]
        if t.kind[f] != WORDS:
            for r in range(lo, hi):
                row = t.rows[r]
                mass[shared[row & np.uint32(127)], f] += np.int32(row >> np.uint32(7))
        fast, slow = families + f, 2 * families + f
        for e in range(s.lists[f, 0], s.lists[f, 0] + s.lists[f, 1]):
            entry = s.overlay.pool[e]
            d = shared[entry & np.uint64(127)]
            mass[d, fast] += np.int32((entry >> U7) & MASK24)
            mass[d, slow] += np.int32(entry >> U31)
    # So far mass[d] is what leaves the path at d: add up from the leaf.
    for d in range(depth - 1, -1, -1):
        for k in range(mass.shape[1]):
            mass[d, k] += mass[d + 1, k]
    if s.at[NODE] != NO_NODE:
        word_path_masses(fixed, s, symbol)


@njit(cache=True, nogil=True)
def word_path_masses(fixed, s, symbol):
    """The word families' part of path_masses: split the range of word ids at every decision."""
    t, tree = fixed.tables, fixed.tree
    node = s.at[NODE]
    first_child, last_child = np.int64(t.first_child[node]), np.int64(t.first_child[node + 1])
    depth = tree.depth[symbol]
    families = t.kind.shape[0]
    for f in range(families):
        if t.kind[f] == WORDS:
            lo, hi = s.found[f, 0], s.found[f, 1]
            at = t.sum_at[f] - t.row_at[f]
            s.mass[0, f] = np.int32(t.sums[at + hi] - t.sums[at + lo]) if hi > lo else np.int32(0)
    for d in range(depth):
        v = tree.path_node[symbol, d]
        split = lower_bound(t.trie_symbol, first_child, last_child, tree.mid[v])
        boundary = np.int64(t.first_id[split]) if split < last_child else np.int64(1 << 62)
        if split == np.int64(t.first_child[node]):
            boundary = np.int64(-1)
        one = tree.path_bit[symbol, d]
        for f in range(families):
            if t.kind[f] != WORDS:
                continue
            lo, hi = s.found[f, 0], s.found[f, 1]
            if lo >= hi:
                continue
            middle = lower_bound(t.rows, lo, hi, boundary)
            if one:
                lo = middle
            else:
                hi = middle
            s.found[f, 0], s.found[f, 1] = lo, hi
            at = t.sum_at[f] - t.row_at[f]
            s.mass[d + 1, f] = np.int32(t.sums[at + hi] - t.sums[at + lo]) if hi > lo else np.int32(0)
        if one:
            first_child = split
        else:
            last_child = split
    for f in range(families):  # the ranges were narrowed in place
        if t.kind[f] == WORDS:
            s.found[f, 0], s.found[f, 1] = s.word_rows[f, 0], s.word_rows[f, 1]


@njit(cache=True, nogil=True)
def tree_masses(fixed, s):
    """s.tree_mass[v, k] := mass of source k under node v, or of leaf v - LEAF, for the whole tree."""
    if s.at[TREE_READY]:
        return
    t, tree = fixed.tables, fixed.tree
    families = t.kind.shape[0]
    mass = s.tree_mass
    mass[:, :] = 0
    for f in range(families):
        if t.kind[f] != WORDS:
            for r in range(s.found[f, 0], s.found[f, 1]):
                row = t.rows[r]
                symbol, count = row & np.uint32(127), np.int32(row >> np.uint32(7))
                for d in range(tree.depth[symbol] + 1):
                    mass[tree.path_node[symbol, d], f] += count
        elif s.found[f, 1] > s.found[f, 0]:
            word_tree_masses(fixed, s, f)
        fast, slow = families + f, 2 * families + f
        for e in range(s.lists[f, 0], s.lists[f, 0] + s.lists[f, 1]):
            entry = s.overlay.pool[e]
            symbol = entry & np.uint64(127)
            more_fast, more_slow = np.int32((entry >> U7) & MASK24), np.int32(entry >> U31)
            for d in range(tree.depth[symbol] + 1):
                v = tree.path_node[symbol, d]
                mass[v, fast] += more_fast
                mass[v, slow] += more_slow
    s.at[TREE_READY] = 1


@njit(cache=True, nogil=True)
def word_tree_masses(fixed, s, f):
    """One word family's part of tree_masses: its rows lie in the order of the children, that is of their symbols."""
    t, tree = fixed.tables, fixed.tree
    node = s.at[NODE]
    last = np.int64(t.first_child[node + 1])
    at = t.sum_at[f] - t.row_at[f]
    r, hi = s.found[f, 0], s.found[f, 1]
    child = np.int64(t.first_child[node])
    while r < hi:
        # The child that the row's word lies under: the last one whose first id is not above it.
        child = lower_bound(t.first_id, child, last, np.int64(t.rows[r]) + 1) - 1
        end = lower_bound(t.rows, r, hi, np.int64(t.first_id[child + 1])) if child + 1 < last else hi
        count = np.int32(t.sums[at + end] - t.sums[at + r])
        symbol = t.trie_symbol[child]
        for d in range(tree.depth[symbol] + 1):
            s.tree_mass[tree.path_node[symbol, d], f] += count
        r = end
        child += 1


@njit(cache=True, nogil=True)
def node_probability(fixed, s, v, n, n1, x, w, states):
    """P(bit = 1) at node v from the masses under it (n) and under its 1-child (n1); fills inputs, weights and states."""
    families = fixed.tables.kind.shape[0]
    mixer = s.mixer
    for k in range(3 * families):
        if n[k] == 0:
            states[k] = -1
            x[k] = np.float32(0.0)
            continue
        if n1[k] == 0:
            bin_ = ALL_ZERO
        elif n1[k] == n[k]:
            bin_ = ALL_ONE
        else:
            bin_ = np.int64(fixed.ratio_bin[np.int64(np.float32(n1[k]) / np.float32(n[k]) * np.float32(RATIO_STEPS))])
        count = np.int64(n[k]) if k < families else (np.int64(n[k]) + (UNIT >> 1)) >> UNIT_BITS
        state = np.int64(fixed.count_bucket[min(count, COUNT_TABLE_SIZE - 1)]) * RATIO_BINS + bin_
        states[k] = state
        x[k] = mixer.logits[k, state]
    for f in range(families):
        a, b = states[f], states[families + f]
        if a < 0 and b < 0:
            states[3 * families + f] = -1
            x[3 * families + f] = np.float32(0.0)
            continue
        coarse = 0
        if a >= 0:
            coarse = 3 if n[f] < STATIC_EDGES[1] else 6 if n[f] < STATIC_EDGES[2] else 9
        joint_bin = 0
        if a >= 0:
            joint_bin = (a % RATIO_BINS) * RATIO_BINS
        if b >= 0:
            coarse += 1 if n[families + f] < FAST_EDGES[1] else 2
            joint_bin += b % RATIO_BINS
        state = coarse * (RATIO_BINS * RATIO_BINS) + joint_bin
        states[3 * families + f] = state
        x[3 * families + f] = mixer.joint[f, state]
    k = 4 * families
    x[k] = np.float32(0.0)
    states[k] = -1
    expected = s.at[EXPECTED]
    if expected >= 0:
        d = node_depth_on_path(fixed.tree, expected, v)
        if d >= 0:
            states[k] = 2 * s.at[LENGTH_BUCKET] + np.int64(fixed.tree.path_bit[expected, d])
            x[k] = mixer.match[states[k]]
    x[k + 1] = BIAS
    for e in range(s.experts.shape[0]):
        x[k + 2 + e] = expert_logit(fixed.tree, s.experts[e], v)
    return squash(np.float64(mix(s.base, mixer.weights[v], x, w)))


@njit(cache=True, nogil=True, inline="always")
def node_depth_on_path(tree, symbol, v):
    """The depth of node v if it lies on the symbol's path, -1 otherwise."""
    for d in range(tree.depth[symbol]):
        if tree.path_node[symbol, d] == v:
            return d
    return -1


@njit(cache=True, nogil=True)
def expert_logit(tree, cumulative, v):
    """Logit of an expert's probabilities at node v; 0 where it has no mass."""
    low = cumulative[tree.lowest[v]]
    middle = cumulative[tree.mid[v]]
    high = cumulative[tree.end[v]]
    one, zero = high - middle, middle - low
    if one + zero <= 1e-12:
        return np.float32(0.0)
    p = min(max(one / (one + zero), P_MIN), 1.0 - P_MIN)
    return np.float32(math.log(p / (1.0 - p)))


@njit(cache=True, nogil=True)
def path_probability(fixed, s, symbol):
    """P(symbol) before anything is learned from it; leaves inputs, weights and states of its decisions for `learn`."""
    prepare(fixed, s)
    path_masses(fixed, s, symbol)
    tree = fixed.tree
    reach = 1.0
    for d in range(tree.depth[symbol]):
        v, bit = tree.path_node[symbol, d], tree.path_bit[symbol, d]
        if reach < PRUNE:
            p = tree.leaf_share[v]
            s.path_p[d] = -1.0
        else:
            for k in range(s.ones.shape[0]):
                s.ones[k] = s.mass[d + 1, k] if bit else s.mass[d, k] - s.mass[d + 1, k]
            p = node_probability(fixed, s, v, s.mass[d], s.ones, s.x[d], s.w[d], s.states[d])
            s.path_p[d] = p
        reach *= p if bit else 1.0 - p
    return reach


@njit(cache=True, nogil=True)
def tree_node_probability(fixed, s, v):
    """P(bit = 1) at any node; tree_masses must have run."""
    if s.reach_p[v] < PRUNE:
        return fixed.tree.leaf_share[v]
    one = fixed.tree.child[v, 1]
    return node_probability(fixed, s, v, s.tree_mass[v], s.tree_mass[one], s.x[0], s.w[0], s.states[0])


@njit(cache=True, nogil=True)
def all_probabilities(fixed, s, out):
    """out[symbol] := P(symbol) for all 128 symbols; those without a leaf get 0."""
    prepare(fixed, s)
    tree_masses(fixed, s)
    tree = fixed.tree
    out[:] = 0.0
    s.reach_p[0] = 1.0
    for v in range(tree.child.shape[0]):  # parents come first
        p = tree_node_probability(fixed, s, v)
        for bit in range(2):
            c = tree.child[v, bit]
            s.reach_p[c] = s.reach_p[v] * (p if bit else 1.0 - p)
            if c >= LEAF:
                out[c - LEAF] = s.reach_p[c]


@njit(cache=True, nogil=True)
def most_likely(fixed, s, best_rare):
    """The most likely character's symbol, by best-first search; ESCAPE if a rare character is likelier than all others.

    best_rare: the largest P(char | escape). Equal probabilities go to the lower symbol, rare characters last.
    """
    prepare(fixed, s)
    tree_masses(fixed, s)
    tree = fixed.tree
    s.reach_p[0] = 1.0
    open_nodes = np.empty(SYMBOLS, np.int64)
    open_nodes[0] = 0
    n = 1
    best, best_p = np.int64(-1), -1.0
    while n > 0:
        at = 0
        for i in range(1, n):
            if s.reach_p[open_nodes[i]] > s.reach_p[open_nodes[at]]:
                at = i
        v = open_nodes[at]
        if s.reach_p[v] < best_p:
            break
        n -= 1
        open_nodes[at] = open_nodes[n]
        p = tree_node_probability(fixed, s, v)
        for bit in range(2):
            c = tree.child[v, bit]
            q = s.reach_p[v] * (p if bit else 1.0 - p)
            s.reach_p[c] = q
            if c < LEAF:
                open_nodes[n] = c
                n += 1
                continue
            if c - LEAF == ESCAPE:
                q *= best_rare
            if q > best_p or (q == best_p and c - LEAF < best):
                best, best_p = c - LEAF, q
    return best


@njit(cache=True, nogil=True)
def learn(fixed, s, symbol):
    """Learn from the symbol whose path_probability was just computed: weights, evidence, then all counts."""
    t, tree, mixer = fixed.tables, fixed.tree, s.mixer
    families = t.kind.shape[0]
    depth = tree.depth[symbol]
    n = 0
    for d in range(depth):
        if s.path_p[d] < 0.0:
            break
        error = np.float64(tree.path_bit[symbol, d]) - s.path_p[d]
        s.steps[d] = np.float32(fixed.rates[0] * error)
        rate = np.float32(fixed.rates[1] * error)
        states, w = s.states[d], s.w[d]
        for k in range(3 * families):
            if states[k] >= 0:
                mixer.logits[k, states[k]] += rate * w[k]
        for f in range(families):
            k = 3 * families + f
            if states[k] >= 0:
                mixer.joint[f, states[k]] += rate * w[k]
        if states[4 * families] >= 0:
            mixer.match[states[4 * families]] += rate * w[4 * families]
        n += 1
    learn_weights(mixer.weights, s.selected, tree.path_node[symbol], s.steps[:n], s.x, s.total)
    position = s.at[POSITION]
    for f in range(families):
        if s.keys[f] != np.uint64(0):
            count_symbol(s.overlay, f, s.slots[f], s.keys[f], symbol, position)


@njit(cache=True, nogil=True)
def step(fixed, s, symbol):
    """Observe one symbol: returns its probability, learns, moves on."""
    p = path_probability(fixed, s, symbol)
    learn(fixed, s, symbol)
    advance(fixed, s, symbol)
    observe_symbol(s.match, symbol, s.history[0])
    return p


@njit(cache=True, nogil=True)
def step_text(fixed, s, symbols, out, guesses, best_rare):
    """Observe symbols one by one: out[i] := P(symbols[i]); where guesses has room, the most likely symbol before each."""
    for i in range(symbols.shape[0]):
        if guesses.shape[0] > 0:
            guesses[i] = np.uint8(most_likely(fixed, s, best_rare))
        out[i] = step(fixed, s, np.int64(symbols[i]))
