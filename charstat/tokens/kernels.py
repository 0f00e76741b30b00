"""The compiled steps of a token stream: look up, mix at nodes of the tree, learn.

    token_probability    P(token): evaluates the ten or so decisions on its path
    token_row            P of all tokens
    step                 token_probability, then learn from the token, then move on

The masses are integers, and both ways mix the same ones with the same functions (mix_node), so that a token's probability is the same bit
for bit in a row and on its path. As in mixers/kernels.py, all decisions of a token are evaluated before any is learned from, and nodes
whose probability is below PRUNE share it among their leaves by frequency.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from charstat.mixers.back_off import back_off
from charstat.mixers.evidence import SILENT, learn_evidence, look_up_evidence
from charstat.mixers.logistic import learn_weights, logit, mix, squash, sum_rows
from charstat.ngram.hashing import mix64
from charstat.ngram.overlay import bring_contexts, find_slot, slot_list
from charstat.ngram.table import find_context
from charstat.tokens.contexts import push_tokens, push_word, token_identity
from charstat.tokens.layout import HIT_LEVELS, TokenRates
from charstat.tokens.match import expected_leaf, length_bucket, observe_leaf
from charstat.tokens.online import count_token, entry_leaf, entry_recent, entry_seen
from charstat.tokens.state import (
    BITS,
    BUCKET_AT,
    CLOCK,
    DECAY,
    END,
    EXPECTED,
    LENGTH,
    LIST,
    MATCH_BUCKET,
    ORDER,
    POSITION,
    PREPARED,
    REACH,
    RECORD_AT,
    ROW_AT,
    SLOT,
    START,
    START_BITS,
    SUM_AT,
    TREE_READY,
    WARM,
)

PRUNE = 1e-5  # below this probability of a node, its leaves share by frequency and nothing is looked up or learned
NOT_EVALUATED = -1.0
FEW_ROWS = 24  # that are walked through; ranges of more are searched
BIAS = np.float32(0.3)
U0, U1 = np.uint64(0), np.uint64(1)
_RATES = tuple(TokenRates.__dataclass_fields__)
WEIGHTS_RATE, BOOST, BOOST_TOKENS, WARM_RATE, EVIDENCE_RATE, DISCOUNT, NODE_MOST = (
    _RATES.index(name) for name in ("weights", "boost", "boost_tokens", "warm_weights", "evidence", "discount", "node_most")
)


@njit(cache=True, nogil=True, inline="always")
def shared_bits(a, b, depth):
    """How many decisions two codes share, `depth` at most: the leading zeros of their difference.

    subtle: they stand in the exponent of the difference as a float64, which holds it exactly; 0 has the exponent 0. No branch to mispredict.
    """
    exponent = np.float64(np.uint32(a ^ b)).view(np.int64) >> 52
    return min(np.int64(1054) - exponent, depth)


@njit(cache=True, nogil=True, inline="always")
def _lower_bound(rows, lo, hi, leaf):
    while lo < hi:
        middle = (lo + hi) >> 1
        if rows[middle] < leaf:
            lo = middle + 1
        else:
            hi = middle
    return lo


@njit(cache=True, nogil=True, forceinline=True)
def prepare(fixed, s):
    """Find what every context knows of the current history, and select the mixer's rows; nothing if that is done.

    One loop for each kind of memory access, so that the cache misses of a loop wait together.
    """
    cursor, families, t, online = s.cursor, fixed.families, s.touched, s.online
    if cursor[PREPARED]:
        return
    slots, keys, identities, static_rows, history = s.overlay.slots, s.keys, s.identities, s.static_rows, s.history
    buckets, records, rows, masks, id_bits = fixed.buckets, fixed.records, fixed.rows, fixed.masks, fixed.id_bits
    n, width, mask, position = families.shape[0], 64 - id_bits, np.uint64(slots.shape[1] - 1), cursor[POSITION]
    for f in range(n):
        identity = token_identity(history, masks[f], id_bits)
        identities[f] = identity
        keys[f] = mix64(identity + U1) if position >= families[f, REACH] else U0
        static_rows[f, START] = families[f, BUCKET_AT] + np.int64(identity >> np.uint64(width - families[f, BITS]))
    if s.overlay.base_slots.shape[1] > 0:
        bring_contexts(s.overlay, keys, t)
    for f in range(n):
        t[f] = np.int64(slots[f, (keys[f] >> np.uint64(20)) & mask, 0])
    for f in range(n):
        t[f] = families[f, RECORD_AT] + np.int64(buckets[static_rows[f, START]])
    for f in range(n):
        t[f] = np.int64(records[t[f]])
    longest, hits, recent = 0, 0, 0
    last = rows.shape[0] - 1
    for f in range(n):
        start, stop = np.int64(0), np.int64(0)
        if keys[f] != U0:
            _, start, stop = find_context(
                identities[f], width, families[f, BITS], families[f, START_BITS],
                buckets, families[f, BUCKET_AT], records, families[f, RECORD_AT],
            )  # fmt: skip
        static_rows[f, START], static_rows[f, END] = families[f, ROW_AT] + start, families[f, ROW_AT] + stop
        if stop > start:
            hits += 1
            if families[f, ORDER] > 0:
                longest = f + 1
    for f in range(n if last >= 0 else 0):
        t[f] = np.int64(rows[min(static_rows[f, START], last)])
    for f in range(n):
        online[f, LIST] = online[f, LENGTH] = 0
        if keys[f] != U0:
            p = find_slot(slots, f, keys[f])
            online[f, SLOT] = p
            online[f, LIST], online[f, LENGTH] = slot_list(slots, f, p)
            if families[f, ORDER] > 0 and online[f, LENGTH] > 0:
                recent = f + 1
    cursor[EXPECTED] = expected_leaf(s.match)
    cursor[MATCH_BUCKET] = length_bucket(s.match.state[2])
    first, tree = fixed.first_rows, fixed.tree
    orders = fixed.chains.orders_end + 1
    previous = np.int64(tree.leaf_of[np.int64(history[0] & np.uint64(0xFFFF))]) if cursor[POSITION] > 0 else 0
    level = 1 + cursor[MATCH_BUCKET] if cursor[EXPECTED] >= 0 else 0
    s.selected[1] = first.orders + longest * orders + recent
    s.selected[2] = first.previous + previous
    s.selected[3] = first.match_hits + level * HIT_LEVELS + min(hits, HIT_LEVELS - 1)
    sum_rows(s.mixer.weights, s.selected, s.base)
    cursor[PREPARED] = 1


@njit(cache=True, nogil=True, forceinline=True)
def path_masses(fixed, s, leaf):
    """s.mass[d, k] and s.kinds[d, f]: counts, and how many rows and entries, under node d of the leaf's path. Returns the path's length."""
    families, tree, codes, mass, kinds = fixed.families, fixed.tree, fixed.tree.codes, s.mass, s.kinds
    rows, sums, pool, child, path, bits = fixed.rows, fixed.sums, s.overlay.pool, tree.child, s.path, s.bits
    static_rows, online = s.static_rows, s.online
    n, depth, code = families.shape[0], np.int64(tree.depth[leaf]), codes[leaf]
    node = np.int64(tree.root)
    for d in range(depth):
        bit = 1 if leaf >= node else 0
        path[0, d], bits[d] = node, bit
        node = np.int64(child[node, bit])
    if s.cursor[TREE_READY]:
        vocab = tree.codes.shape[0]
        for d in range(depth + 1):
            v = path[0, d] if d < depth else vocab + leaf
            for k in range(2 * n):
                mass[d, k] = s.tree_mass[v, k]
            for f in range(n):
                kinds[d, f] = s.tree_kinds[v, f]
        return depth
    for d in range(depth + 1):
        for k in range(2 * n):
            mass[d, k] = 0
        for f in range(n):
            kinds[d, f] = 0
    for f in range(n):
        lo, hi = static_rows[f, START], static_rows[f, END]
        at = families[f, SUM_AT] - families[f, ROW_AT]
        if hi - lo <= FEW_ROWS:
            for r in range(lo, hi):
                d = shared_bits(codes[rows[r]], code, depth)
                mass[d, f] += np.int32(sums[at + r + 1] - sums[at + r])
                kinds[d, f] += np.int32(1)
        else:
            held, held_rows = np.int32(sums[at + hi] - sums[at + lo]), np.int32(hi - lo)
            for d in range(depth):
                middle = _lower_bound(rows, lo, hi, path[0, d])
                if bits[d]:
                    lo = middle
                else:
                    hi = middle
                left, left_rows = np.int32(sums[at + hi] - sums[at + lo]), np.int32(hi - lo)
                mass[d, f] += held - left
                kinds[d, f] += held_rows - left_rows
                held, held_rows = left, left_rows
                if lo == hi:
                    break
            mass[depth, f] += held
            kinds[depth, f] += held_rows
        first = online[f, LIST]
        for e in range(first, first + online[f, LENGTH]):
            entry = pool[e]
            d = shared_bits(codes[entry_leaf(entry)], code, depth)
            mass[d, f] += np.int32(entry_seen(entry))
            mass[d, n + f] += np.int32(entry_recent(entry))
            kinds[d, f] += np.int32(1)
    for d in range(depth - 1, -1, -1):  # so far mass[d] is what leaves the path at d: add up from the leaf
        for k in range(2 * n):
            mass[d, k] += mass[d + 1, k]
        for f in range(n):
            kinds[d, f] += kinds[d + 1, f]
    return depth


@njit(cache=True, nogil=True, forceinline=True)
def tree_masses(fixed, s):
    """s.tree_mass and s.tree_kinds of all nodes and leaves."""
    if s.cursor[TREE_READY]:
        return
    families, tree, mass, kinds = fixed.families, fixed.tree, s.tree_mass, s.tree_kinds
    rows, sums, pool = fixed.rows, fixed.sums, s.overlay.pool
    static_rows, online, order, child = s.static_rows, s.online, tree.order, tree.child
    n, vocab = families.shape[0], tree.codes.shape[0]
    mass[vocab:] = 0
    kinds[vocab:] = 0
    for f in range(n):
        at = families[f, SUM_AT] - families[f, ROW_AT]
        for r in range(static_rows[f, START], static_rows[f, END]):
            leaf = vocab + np.int64(rows[r])
            mass[leaf, f] = np.int32(sums[at + r + 1] - sums[at + r])
            kinds[leaf, f] = 1
        first = online[f, LIST]
        for e in range(first, first + online[f, LENGTH]):
            entry = pool[e]
            leaf = vocab + entry_leaf(entry)
            mass[leaf, f] += np.int32(entry_seen(entry))
            mass[leaf, n + f] = np.int32(entry_recent(entry))
            kinds[leaf, f] += np.int32(1)
    for i in range(vocab - 2, -1, -1):
        v = np.int64(order[i])
        left, right = _place(child[v, 0], vocab), _place(child[v, 1], vocab)
        for k in range(2 * n):
            mass[v, k] = mass[left, k] + mass[right, k]
        for f in range(n):
            kinds[v, f] = kinds[left, f] + kinds[right, f]
    s.cursor[TREE_READY] = 1


@njit(cache=True, nogil=True, inline="always")
def _place(child, vocab):
    """Where a child's masses stand: a node's number, or vocab + leaf."""
    return np.int64(child) if child >= 0 else vocab + (-1 - np.int64(child))


@njit(cache=True, nogil=True)
def begin_discounts(mass, kinds, root, orders, discount, discounts):
    """discounts := (1 / counts, what is discounted of them) of each order, from its masses at the root; (0, 1) where it has none."""
    for f in range(orders):
        total = np.float64(mass[root, f])
        discounts[0, f] = 1.0 / total if total > 0.0 else 0.0
        discounts[1, f] = discount * kinds[root, f] / total if total > 0.0 else 1.0


@njit(cache=True, nogil=True, forceinline=True)
def mix_node(
    v, mass, kinds, i, d, ones, one_kinds, x, w, states, bins, shares, match_states, base, discounts, experts, expected, bucket,
    weights, logits, match_logits, node_p, lowest, mid_sums, end, discount, columns, chains, ratio_bins, count_states, online_states, sums,
):  # fmt: skip
    """P(the right side) at node v, from the masses under it (mass[i]) and under its right side (ones); leaves in row d what `learn` needs."""
    look_up_evidence(mass, i, ones, x, columns.static, states, d, bins, ratio_bins, count_states, online_states, logits)
    back_off(mass, i, ones, x, d, columns, shares, chains)
    lo, hi = lowest[v], end[v]
    p, q = mid_sums[hi] - mid_sums[lo], mid_sums[hi] - mid_sums[v]
    scale = 1.0 / mid_sums[mid_sums.shape[0] - 1]
    p, q = p * scale, q * scale
    for f in range(chains.orders_end):
        p = (mass[i, f] - discount * kinds[i, f]) * discounts[0, f] + discounts[1, f] * p
        q = (ones[f] - discount * one_kinds[f]) * discounts[0, f] + discounts[1, f] * q
    x[d, columns.discount] = logit(q / p)
    x[d, columns.match] = np.float32(0.0)
    match_states[d] = -1
    if lo <= expected < hi:
        match_states[d] = 2 * bucket + (1 if expected >= v else 0)
        x[d, columns.match] = match_logits[match_states[d]]
    x[d, columns.bias] = BIAS
    x[d, columns.node] = logit(np.float64(node_p[v]))
    for e in range(experts.shape[0]):
        zero, one = experts[e, v] - experts[e, lo], experts[e, hi] - experts[e, v]
        x[d, columns.experts + e] = logit(one / (zero + one)) if zero + one > 0.0 else np.float32(0.0)
    return squash(np.float64(mix(base, weights, v, x, w, d, sums)))


@njit(cache=True, nogil=True, inline="always")
def leaf_share(sums, lowest, end, v):
    """The share of a node's right side by frequency alone."""
    return (sums[end[v]] - sums[v]) / (sums[end[v]] - sums[lowest[v]])


@njit(cache=True, nogil=True, forceinline=True)
def token_probability(fixed, s, leaf):
    """P(token) before anything is learned from it; leaves inputs, weights and states of its decisions for `learn`."""
    prepare(fixed, s)
    depth = path_masses(fixed, s, leaf)
    mass, kinds, ones, one_kinds = s.mass, s.kinds, s.ones, s.one_kinds
    x, w, states, bins, shares, match_states, base, discounts, experts = (
        s.x, s.w, s.states, s.bins, s.shares, s.match_states, s.base, s.discounts, s.experts,
    )  # fmt: skip
    weights, logits, match_logits, node_p = s.mixer.weights, s.mixer.logits, s.mixer.match, s.mixer.node_p
    lowest, mid_sums, end, discount = fixed.tree.lowest, fixed.tree.sums, fixed.tree.end, fixed.rates[DISCOUNT]
    columns, chains = fixed.columns, fixed.chains
    ratio_bins, count_states, online_states = fixed.ratio_bins, fixed.count_states, fixed.online_states
    expected, bucket, sums = s.cursor[EXPECTED], s.cursor[MATCH_BUCKET], s.total
    path, bits, path_p = s.path, s.bits, s.path_p
    begin_discounts(mass, kinds, 0, chains.orders_end, discount, discounts)
    reach = 1.0
    for d in range(depth):
        v, bit = np.int64(path[0, d]), bits[d]
        if reach < PRUNE:
            p = leaf_share(mid_sums, lowest, end, v)
            path_p[d] = NOT_EVALUATED
        else:
            for k in range(ones.shape[0]):
                ones[k] = mass[d + 1, k] if bit else mass[d, k] - mass[d + 1, k]
            for f in range(one_kinds.shape[0]):
                one_kinds[f] = kinds[d + 1, f] if bit else kinds[d, f] - kinds[d + 1, f]
            p = mix_node(
                v, mass, kinds, d, d, ones, one_kinds, x, w, states, bins, shares, match_states, base, discounts, experts, expected, bucket,
                weights, logits, match_logits, node_p, lowest, mid_sums, end, discount, columns, chains, ratio_bins, count_states, online_states, sums,
            )  # fmt: skip
            path_p[d] = p
        reach *= p if bit else 1.0 - p
    return reach


@njit(cache=True, nogil=True)
def token_row(fixed, s, out):
    """out[id] := P of all tokens, float64 [V]."""
    prepare(fixed, s)
    tree_masses(fixed, s)
    tree, mass, kinds, ones, one_kinds, reach = fixed.tree, s.tree_mass, s.tree_kinds, s.ones, s.one_kinds, s.reach_p
    vocab = tree.codes.shape[0]
    x, w, states, bins, shares, match_states, base, discounts, experts = (
        s.x, s.w, s.states, s.bins, s.shares, s.match_states, s.base, s.discounts, s.experts,
    )  # fmt: skip
    weights, logits, match_logits, node_p = s.mixer.weights, s.mixer.logits, s.mixer.match, s.mixer.node_p
    lowest, mid_sums, end, discount = fixed.tree.lowest, fixed.tree.sums, fixed.tree.end, fixed.rates[DISCOUNT]
    columns, chains = fixed.columns, fixed.chains
    ratio_bins, count_states, online_states = fixed.ratio_bins, fixed.count_states, fixed.online_states
    expected, bucket, sums = s.cursor[EXPECTED], s.cursor[MATCH_BUCKET], s.total
    order, child, id_of = tree.order, tree.child, tree.id_of
    begin_discounts(mass, kinds, tree.root, chains.orders_end, discount, discounts)
    reach[tree.root] = 1.0
    for i in range(vocab - 1):
        v = np.int64(order[i])
        left, right = _place(child[v, 0], vocab), _place(child[v, 1], vocab)
        if reach[v] < PRUNE:
            p = leaf_share(mid_sums, lowest, end, v)
        else:
            for k in range(ones.shape[0]):
                ones[k] = mass[right, k]
            for f in range(one_kinds.shape[0]):
                one_kinds[f] = kinds[right, f]
            p = mix_node(
                v, mass, kinds, v, 0, ones, one_kinds, x, w, states, bins, shares, match_states, base, discounts, experts, expected, bucket,
                weights, logits, match_logits, node_p, lowest, mid_sums, end, discount, columns, chains, ratio_bins, count_states, online_states, sums,
            )  # fmt: skip
        reach[left] = reach[v] * (1.0 - p)
        reach[right] = reach[v] * p
    for leaf in range(vocab):
        out[id_of[leaf]] = reach[vocab + leaf]


@njit(cache=True, nogil=True, forceinline=True)
def learn(fixed, s, leaf):
    """Learn from the token whose token_probability was just computed: weights, evidence, then the online counts."""
    mixer, columns, rates, cursor = s.mixer, fixed.columns, fixed.rates, s.cursor
    clock = cursor[CLOCK]
    rate = (
        rates[WARM_RATE]
        if cursor[WARM]
        else rates[WEIGHTS_RATE] * (1.0 + rates[BOOST] * rates[BOOST_TOKENS] / (rates[BOOST_TOKENS] + clock))
    )
    path, bits, path_p, steps, states, w, match_states = s.path, s.bits, s.path_p, s.steps, s.states, s.w, s.match_states
    logits, match_logits, node_p, node_n = mixer.logits, mixer.match, mixer.node_p, mixer.node_n
    evidence_rate, node_most, depth = rates[EVIDENCE_RATE], np.float32(rates[NODE_MOST]), fixed.tree.depth[leaf]
    n = 0
    for d in range(depth):
        if path_p[d] == NOT_EVALUATED:
            break
        v, error = path[0, d], np.float64(bits[d]) - path_p[d]
        steps[d] = np.float32(rate * error)
        evidence_step = np.float32(evidence_rate * error)
        learn_evidence(logits, states, w, columns.static, d, evidence_step)
        if match_states[d] >= 0:
            match_logits[match_states[d]] += evidence_step * w[d, columns.match]
        node_p[v] += (np.float32(bits[d]) - node_p[v]) / (node_n[v] + np.float32(1.5))
        if node_n[v] < node_most:
            node_n[v] += np.float32(1.0)
        n += 1
    logits[:, SILENT] = np.float32(0.0)
    learn_weights(mixer.weights, s.selected, path, 0, steps, n, s.x, s.total)
    o, keys, online, families = s.overlay, s.keys, s.online, fixed.families
    slots, used, pool, heap, free = o.slots, o.used, o.pool, o.heap, o.free
    for f in range(keys.shape[0]):
        if keys[f] != U0:
            count_token(slots, used, pool, heap, free, f, online[f, SLOT], keys[f], leaf, clock, families[f, DECAY])


@njit(cache=True, nogil=True)
def step(fixed, s, token):
    """Observe one token: returns its probability, learns, moves on."""
    leaf = np.int64(fixed.tree.leaf_of[token])
    p = token_probability(fixed, s, leaf)
    learn(fixed, s, leaf)
    push_tokens(s.history, token)
    push_word(s.history, s.power, token, fixed.pieces)
    observe_leaf(s.match, leaf, True)
    s.cursor[POSITION] += 1
    s.cursor[CLOCK] += 1
    s.cursor[PREPARED] = s.cursor[TREE_READY] = 0
    s.experts[:, :] = 0.0
    return p


@njit(cache=True, nogil=True)
def pass_over(fixed, s, ids):
    """Move on over tokens that are context only: nothing is predicted or counted, but later tokens may match them."""
    for i in range(ids.shape[0]):
        token = np.int64(ids[i])
        push_tokens(s.history, token)
        push_word(s.history, s.power, token, fixed.pieces)
        observe_leaf(s.match, np.int64(fixed.tree.leaf_of[token]), True)
        s.cursor[POSITION] += 1


@njit(cache=True, nogil=True)
def run(fixed, s, ids, advice, nats, rows, hints):
    """Observe tokens one by one.

    advice: float64 [n, E, V + 1], the experts' cumulative probabilities by leaf before each; with n = 0 they are silent. nats: float64 [n].
    rows: float64 [1, V] and float32 [n, V] of natural logarithms, n = 0 for none. hints: float64 [n, 4]: token, confidence, order, count.
    """
    scratch, out = rows
    for i in range(ids.shape[0]):
        if advice.shape[0] > 0:
            s.experts[:, :] = advice[i]
        if out.shape[0] > 0 or hints.shape[0] > 0:
            token_row(fixed, s, scratch[0])
        for v in range(out.shape[1] if out.shape[0] > 0 else 0):
            out[i, v] = np.float32(math.log(scratch[0, v]))
        if hints.shape[0] > 0:
            hint(fixed, s, scratch[0], hints[i])
        nats[i] = -math.log(step(fixed, s, np.int64(ids[i])))


@njit(cache=True, nogil=True)
def hint(fixed, s, row, out):
    """The likeliest token, its probability, the longest order that has seen anything here, and how often it has seen that token."""
    best = 0
    for v in range(1, row.shape[0]):
        if row[v] > row[best]:
            best = v
    out[0], out[1], out[2], out[3] = -1.0, row[best], 0.0, 0.0
    leaf, vocab = np.int64(fixed.tree.leaf_of[best]), fixed.tree.codes.shape[0]
    for f in range(fixed.chains.orders_end - 1, -1, -1):
        if s.tree_mass[fixed.tree.root, f] > 0:
            out[0], out[2], out[3] = np.float64(best), np.float64(fixed.families[f, ORDER]), np.float64(s.tree_mass[vocab + leaf, f])
            break


@njit(cache=True, nogil=True)
def add_up_advice(probs, id_of, sums):
    """sums[i, e] := cumulative probabilities by leaf. probs: float32 [n, E, V], by id; sums: float64 [n, E, V + 1]."""
    for i in range(probs.shape[0]):
        for e in range(probs.shape[1]):
            total = 0.0
            sums[i, e, 0] = 0.0
            for leaf in range(probs.shape[2]):
                total += probs[i, e, id_of[leaf]]
                sums[i, e, leaf + 1] = total
