"""The compiled steps of a token stream: look up, mix at nodes of the tree, learn.

    run       token by token: what is known here (lookups.py), P of the token or of all, learn, move on
    decide    P of all nodes and leaves of a plan: of one path, ten or so decisions, or of the whole tree

Masses are integers, and decide() takes both ways, so that a token's probability is the same bit for bit in a row and on its path. As in
mixers/kernels.py, all decisions of a token are evaluated before any is learned from, and nodes whose probability is below PRUNE
share it among their leaves by frequency.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from charstat.mixers.back_off import CHAIN_PRIOR, ONLINE_WEIGHT
from charstat.mixers.evidence import COUNT_LIMIT, RATIO_STEPS, SILENT
from charstat.mixers.logistic import learn_weights, logit, mix, squash, sum_rows
from charstat.ngram.overlay import UNIT, UNIT_BITS, bring_contexts
from charstat.tokens.contexts import push_tokens, push_word
from charstat.tokens.layout import HIT_LEVELS, TokenRates
from charstat.tokens.lookups import find, identify, path_masses, tree_masses
from charstat.tokens.match import expected_leaf, length_bucket, observe_leaf
from charstat.tokens.online import count_tokens
from charstat.tokens.state import ACTIVE, ACTIVE_ORDERS, CLOCK, COUNTED, LONGEST, ORDER, POSITION, RECENT, WARM

PRUNE = 1e-5  # below this probability of a node, its leaves share by frequency and nothing is looked up or learned
NOT_EVALUATED = -1.0
BIAS = np.float32(0.3)
_RATES = tuple(TokenRates.__dataclass_fields__)
WEIGHTS_RATE, BOOST, BOOST_TOKENS, WARM_RATE, EVIDENCE_RATE, DISCOUNT, NODE_MOST = (
    _RATES.index(name) for name in ("weights", "boost", "boost_tokens", "warm_weights", "evidence", "discount", "node_most")
)


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def evidence(mass, i, right, active, n, x, states, d, bins, ratio_bins, count_states, online_states, logits):
    """x[d] and states[d] of the n active contexts at a node (mixers/evidence.py): mass[i] is what is under it, mass[right] under its right side."""
    families = logits.shape[0] // 2
    for k in range(2 * n):
        share = np.float32(mass[right, k]) * np.float32(RATIO_STEPS) / np.float32(max(mass[i, k], np.int32(1)))
        bins[k] = np.int32(share) + np.int32(mass[right, k] > 0)
    for k in range(n):
        f = active[k]
        count = min(mass[i, k], np.int32(COUNT_LIMIT))
        state = count_states[np.uint32(count)] + ratio_bins[np.uint32(bins[k])]
        states[d, k] = state
        x[d, f] = logits[np.uint64(f), np.uint32(state)]
        recent = mass[i, n + k]
        count = min((recent + np.int32(UNIT >> 1)) >> np.int32(UNIT_BITS), np.int32(COUNT_LIMIT)) + np.int32(recent > 0)
        state = online_states[np.uint32(count)] + ratio_bins[np.uint32(bins[n + k])]
        states[d, n + k] = state
        x[d, families + f] = logits[np.uint64(families + f), np.uint32(state)]


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def chains(mass, i, right, n, orders, x, d, columns, shares):
    """Inputs order_chain and word_chain at a node (mixers/back_off.py); contexts that know nothing would leave a chain as it is."""
    for k in range(n):
        whole = np.float32(mass[i, k]) + np.float32(ONLINE_WEIGHT / UNIT) * np.float32(mass[i, n + k])
        ones = np.float32(mass[right, k]) + np.float32(ONLINE_WEIGHT / UNIT) * np.float32(mass[right, n + k])
        inverse = np.float32(1.0) / (whole + np.float32(CHAIN_PRIOR))
        shares[0, k] = ones * inverse
        shares[1, k] = np.float32(CHAIN_PRIOR) * inverse
    p = np.float32(0.5)
    for k in range(orders):
        p = shares[0, k] + shares[1, k] * p
    x[d, columns.order_chain] = logit(np.float64(p))
    for k in range(orders, n):
        p = shares[0, k] + shares[1, k] * p
    x[d, columns.word_chain] = logit(np.float64(p))


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def discounting(mass, kinds, i, right, orders, p, q, discount, discounts):
    """The logit of the share of the right side by absolute discounting. p, q: of the node and its right side by frequency alone."""
    for k in range(orders):
        p = (mass[i, k] - discount * kinds[i, k]) * discounts[0, k] + discounts[1, k] * p
        q = (mass[right, k] - discount * kinds[right, k]) * discounts[0, k] + discounts[1, k] * q
    return logit(q / p)


@njit(cache=True, nogil=True, error_model="numpy")
def decide(
    plan, decisions, keep, reach, path_p, mass, kinds, active, n, orders, x, w, states, bins, shares, match_states, base, discounts, experts,
    expected, bucket, weights, logits, match_logits, node_p, lowest, mid_sums, end, discount, columns, ratio_bins, count_states,
    online_states, sums,
):  # fmt: skip
    """reach[row] := P of every node and leaf in the plan, from that of its first node, 1: a path or the whole tree, parents first.

    plan: int32 [decisions, 4]: the node, its row of the masses, those of its left and right side. keep: 1 to leave inputs, weights and states of
    decision d in row d, for `learn`; 0 if nothing will be learned.
    """
    root = plan[0, 1]
    for k in range(orders):
        discounts[0, k] = 1.0 / mass[root, k]
        discounts[1, k] = discount * kinds[root, k] / mass[root, k]
    for d in range((decisions - 1) * keep + 1):
        for k in range(x.shape[1]):
            x[d, k] = np.float32(0.0)  # contexts that know nothing are silent
    scale = 1.0 / mid_sums[mid_sums.shape[0] - 1]
    reach[root] = 1.0
    for at in range(decisions):
        v, i, left, right = np.int64(plan[at, 0]), np.int64(plan[at, 1]), np.int64(plan[at, 2]), np.int64(plan[at, 3])
        d = at * keep
        lo, hi = np.int64(lowest[v]), np.int64(end[v])
        whole, ones = mid_sums[hi] - mid_sums[lo], mid_sums[hi] - mid_sums[v]
        if reach[i] < PRUNE:
            p = ones / whole
            path_p[d] = NOT_EVALUATED
        else:
            evidence(mass, i, right, active, n, x, states, d, bins, ratio_bins, count_states, online_states, logits)
            chains(mass, i, right, n, orders, x, d, columns, shares)
            x[d, columns.discount] = discounting(mass, kinds, i, right, orders, whole * scale, ones * scale, discount, discounts)
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
            p = squash(np.float64(mix(base, weights, v, x, w, d, sums)))
            path_p[d] = p
        reach[left] = reach[i] * (1.0 - p)
        reach[right] = reach[i] * p


@njit(cache=True, nogil=True, error_model="numpy")
def learn_decisions(
    depth, rate, evidence_rate, node_most, knowing, active, path, bits, path_p, steps, states, w, x, total, match_states, selected, match_column,
    weights, logits, match_logits, node_p, node_n,
):  # fmt: skip
    """Weights and evidence, from the decisions that `decide` has just evaluated."""
    families = logits.shape[0] // 2
    n = 0
    for d in range(depth):
        if path_p[d] == NOT_EVALUATED:
            break
        v, error = path[0, d], np.float64(bits[d]) - path_p[d]
        steps[d] = np.float32(rate * error)
        evidence_step = np.float32(evidence_rate * error)
        for k in range(knowing):
            f = active[k]
            logits[np.uint64(f), np.uint32(states[d, k])] += evidence_step * w[d, f]
            logits[np.uint64(families + f), np.uint32(states[d, knowing + k])] += evidence_step * w[d, families + f]
        if match_states[d] >= 0:
            match_logits[match_states[d]] += evidence_step * w[d, match_column]
        node_p[v] += (np.float32(bits[d]) - node_p[v]) / (node_n[v] + np.float32(1.5))
        if node_n[v] < node_most:
            node_n[v] += np.float32(1.0)
        n += 1
    for k in range(knowing):  # those that know nothing stay silent
        logits[active[k], SILENT] = np.float32(0.0)
        logits[families + active[k], SILENT] = np.float32(0.0)
    learn_weights(weights, selected, path, 0, steps, n, x, total)


@njit(cache=True, nogil=True, error_model="numpy")
def select(cursor, previous, expected, bucket, first, levels, selected):
    """Which row of each selector set mixes here (layout.py); that of the nodes changes at every decision."""
    selected[1] = first.orders + cursor[LONGEST] * levels + cursor[RECENT]
    selected[2] = first.previous + previous
    level = 1 + bucket if expected >= 0 else 0
    selected[3] = first.match_hits + level * HIT_LEVELS + min(cursor[COUNTED], HIT_LEVELS - 1)


@njit(cache=True, nogil=True, error_model="numpy")
def pass_over(fixed, s, ids):
    """Move on over tokens that are context only: nothing is predicted or counted, but later tokens may match them."""
    for i in range(ids.shape[0]):
        token = np.int64(ids[i])
        push_tokens(s.history, token)
        push_word(s.history, s.power, token, fixed.pieces)
        observe_leaf(s.match, np.int64(fixed.tree.leaf_of[token]), True)
        s.cursor[POSITION] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def run(fixed, s, ids, advice, nats, rows, hints):
    """Observe tokens one by one.

    advice: float64 [n, E, V + 1], the experts' cumulative probabilities by leaf before each; with n = 0 they are silent. nats: float64 [n].
    rows: float64 [1, V] and float32 [n, V] of natural logarithms, n = 0 for none. hints: float64 [n, 4]: token, confidence, order, count.
    """
    scratch, out = rows
    # subtle: all that the loop needs is taken out of the tuples here, once (lookups.py says why)
    families, masks, id_bits, rates = fixed.families, fixed.masks, fixed.id_bits, fixed.rates
    columns, first_rows = fixed.columns, fixed.first_rows
    buckets, records, static, sums, pieces = fixed.buckets, fixed.records, fixed.rows, fixed.sums, fixed.pieces
    tree, whole_plan, levels = fixed.tree, fixed.plan, fixed.chains.orders_end + 1
    root, child, lowest, end, depths, codes = tree.root, tree.child, tree.lowest, tree.end, tree.depth, tree.codes
    leaf_sums, leaf_of, id_of = tree.sums, tree.leaf_of, tree.id_of
    ratio_bins, count_states, online_states = fixed.ratio_bins, fixed.count_states, fixed.online_states
    cursor, history, power, keys, identities = s.cursor, s.history, s.power, s.keys, s.identities
    static_rows, online, touched, active = s.static_rows, s.online, s.touched, s.active
    mass, kinds, plan, reach, tree_mass, tree_kinds, tree_reach = (
        s.mass, s.kinds, s.plan, s.path_reach, s.tree_mass, s.tree_kinds, s.tree_reach,
    )  # fmt: skip
    x, w, states, bins, shares, discounts, path, bits, path_p = s.x, s.w, s.states, s.bins, s.shares, s.discounts, s.path, s.bits, s.path_p
    match_states, steps, selected, base, total, experts = s.match_states, s.steps, s.selected, s.base, s.total, s.experts
    overlay, match, mixer = s.overlay, s.match, s.mixer
    slots, used, pool, heap, free = overlay.slots, overlay.used, overlay.pool, overlay.heap, overlay.free
    layered = overlay.base_slots.shape[1] > 0
    weights, logits, match_logits, node_p, node_n = mixer.weights, mixer.logits, mixer.match, mixer.node_p, mixer.node_n
    vocab, width, match_state = id_of.shape[0], 64 - id_bits, match.state
    for i in range(ids.shape[0]):
        for e in range(experts.shape[0]):
            for k in range(vocab + 1):
                experts[e, k] = advice[i, e, k] if advice.shape[0] > 0 else 0.0
        identify(history, cursor[POSITION], families, masks, id_bits, identities, keys)
        if layered:
            bring_contexts(overlay, keys, touched)
        find(cursor, families, width, buckets, records, static, sums, slots, pool, identities, keys, static_rows, online, active, touched)
        expected, bucket = expected_leaf(match), length_bucket(match_state[2])
        previous = np.int64(leaf_of[np.int64(history[0] & np.uint64(0xFFFF))]) if cursor[POSITION] > 0 else 0
        select(cursor, previous, expected, bucket, first_rows, levels, selected)
        sum_rows(weights, selected, base)
        a, o = cursor[ACTIVE], cursor[ACTIVE_ORDERS]
        if out.shape[0] > 0 or hints.shape[0] > 0:
            tree_masses(a, o, families, static, sums, pool, static_rows, online, active, whole_plan, tree_mass, tree_kinds)
            decide(
                whole_plan, vocab - 1, 0, tree_reach, path_p, tree_mass, tree_kinds, active, a, o, x, w, states, bins, shares, match_states, base,
                discounts, experts, expected, bucket, weights, logits, match_logits, node_p, lowest, leaf_sums, end, rates[DISCOUNT], columns,
                ratio_bins, count_states, online_states, total,
            )  # fmt: skip
        if out.shape[0] > 0:
            for k in range(vocab):
                out[i, id_of[k]] = np.float32(math.log(tree_reach[vocab + k]))
        if hints.shape[0] > 0:
            for k in range(vocab):
                scratch[0, id_of[k]] = tree_reach[vocab + k]
            order = families[active[o - 1], ORDER] if o > 0 else 0
            hint(scratch[0], order, o, leaf_of, tree_mass, hints[i])
        leaf, clock = np.int64(leaf_of[ids[i]]), cursor[CLOCK]
        depth = path_masses(
            leaf, a, o, families, codes, depths, root, child, static, sums, pool, static_rows, online, active, path, bits, plan, mass, kinds
        )  # fmt: skip
        decide(
            plan, depth, 1, reach, path_p, mass, kinds, active, a, o, x, w, states, bins, shares, match_states, base, discounts, experts, expected,
            bucket, weights, logits, match_logits, node_p, lowest, leaf_sums, end, rates[DISCOUNT], columns, ratio_bins, count_states,
            online_states, total,
        )  # fmt: skip
        nats[i] = -math.log(reach[depth])
        boosted = rates[WEIGHTS_RATE] * (1.0 + rates[BOOST] * rates[BOOST_TOKENS] / (rates[BOOST_TOKENS] + clock))
        learn_decisions(
            depth, rates[WARM_RATE] if cursor[WARM] else boosted, rates[EVIDENCE_RATE], np.float32(rates[NODE_MOST]), a, active, path, bits,
            path_p, steps, states, w, x, total, match_states, selected, columns.match, weights, logits, match_logits, node_p, node_n,
        )  # fmt: skip
        count_tokens(slots, used, pool, heap, free, keys, online, families, leaf, clock)
        push_tokens(history, ids[i])
        push_word(history, power, ids[i], pieces)
        observe_leaf(match, leaf, True)
        cursor[POSITION] += 1
        cursor[CLOCK] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def hint(row, order, orders, leaf_of, tree_mass, out):
    """The likeliest token, its probability, the longest order that has seen anything here (0: none), and how often it has seen that token."""
    best = 0
    for v in range(1, row.shape[0]):
        if row[v] > row[best]:
            best = v
    out[0], out[1], out[2], out[3] = -1.0, row[best], 0.0, 0.0
    if orders > 0:
        out[0], out[2] = np.float64(best), np.float64(order)
        out[3] = np.float64(tree_mass[row.shape[0] + np.int64(leaf_of[best]), orders - 1])


@njit(cache=True, nogil=True, error_model="numpy")
def add_up_advice(probs, id_of, sums):
    """sums[i, e] := cumulative probabilities by leaf. probs: float32 [n, E, V], by id; sums: float64 [n, E, V + 1]."""
    for i in range(probs.shape[0]):
        for e in range(probs.shape[1]):
            total = 0.0
            sums[i, e, 0] = 0.0
            for leaf in range(probs.shape[2]):
                total += probs[i, e, id_of[leaf]]
                sums[i, e, leaf + 1] = total
