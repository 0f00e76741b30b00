"""The compiled steps of the mixture stream: mix at nodes of the decision tree, search it, learn.

    path_probability     P(symbol): evaluates the five or so decisions on its path
    walk                 all 128 probabilities (nodes under PRUNE share evenly), or the most likely character, best first
    step                 path_probability, then learn from the symbol, then move on

One path and the whole tree are mixed by the same function on the same integers (sources.py): the probabilities are the same
bit for bit. Inputs: static 0..F, online F..2F, the back-off chains, the match model, the bias, the experts.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from charstat.mixers.evidence import COUNT_LIMIT, RATIO_STEPS, SILENT
from charstat.mixers.logistic import BIAS, P_MIN, learn_weights, mix, squash
from charstat.mixers.sources import advance, path_masses, prepare, tree_masses
from charstat.mixers.state import CLOCK, EXPECTED, LENGTH_BUCKET, SLOT
from charstat.ngram.match import observe_symbol
from charstat.ngram.overlay import UNIT, UNIT_BITS, count_symbol
from charstat.tree import ESCAPE, LEAF, SYMBOLS

PRUNE = 1e-6  # below this probability of a node, its leaves share evenly and nothing is looked up or learned
NOT_EVALUATED = -1.0
CHAIN_PRIOR = 4.0  # counts that the shorter contexts' estimate is worth
ONLINE_WEIGHT = 10.0  # static counts that one online count is worth


@njit(cache=True, nogil=True, inline="always")
def logit(p):
    """ln(p / (1 - p)) of p clipped to [P_MIN, 1 - P_MIN], as float32."""
    p = min(max(p, P_MIN), 1.0 - P_MIN)
    return np.float32(math.log(p / (1.0 - p)))


@njit(cache=True, nogil=True, error_model="numpy")
def evidence(mass, i, n1, x, states, d, bins, ratio_bins, count_states, overlay_states, logits):
    """Inputs x[d] and states[d] of all sources at a node, from the masses under it (mass[i]) and under its 1-child (n1).

    No branches in the loops: a silent source has a state of its own.
    """
    sources = logits.shape[0]
    for k in range(sources):
        share = np.float32(n1[k]) * np.float32(RATIO_STEPS) / np.float32(max(mass[i, k], np.int32(1)))
        bins[k] = np.int32(share) + np.int32(n1[k] > 0)
    for k in range(sources // 2):
        count = min(mass[i, k], np.int32(COUNT_LIMIT))
        states[d, k] = count_states[np.uint32(count)] + ratio_bins[np.uint32(bins[k])]
    for k in range(sources // 2, sources):
        n = mass[i, k]
        count = min((n + np.int32(UNIT >> 1)) >> np.int32(UNIT_BITS), np.int32(COUNT_LIMIT)) + np.int32(n > 0)
        states[d, k] = overlay_states[np.uint32(count)] + ratio_bins[np.uint32(bins[k])]
    for k in range(sources):
        x[d, k] = logits[np.uint32(k), np.uint32(states[d, k])]


@njit(cache=True, nogil=True, error_model="numpy")
def back_off_chains(mass, i, n1, x, d, k, shares, chains):
    """Inputs k to k + 2: one estimate from all orders, one that goes on with p, p.w1, p.w1.w2 .., one with all word contexts.

    p := (n1 + CHAIN_PRIOR p) / (n + CHAIN_PRIOR), from p = 1/2 and order 0 or 1 up: every context corrects the estimate of the
    shorter ones (MacKay and Peto 1995, with one fixed strength). n are static counts plus ONLINE_WEIGHT times online ones.
    """
    families = shares.shape[1]
    for f in range(families):
        n = np.float32(mass[i, f]) + np.float32(ONLINE_WEIGHT / UNIT) * np.float32(mass[i, families + f])
        ones = np.float32(n1[f]) + np.float32(ONLINE_WEIGHT / UNIT) * np.float32(n1[families + f])
        inverse = np.float32(1.0) / (n + np.float32(CHAIN_PRIOR))
        shares[0, f] = ones * inverse
        shares[1, f] = np.float32(CHAIN_PRIOR) * inverse
    p = np.float32(0.5)
    for f in range(chains[0]):
        p = shares[0, f] + shares[1, f] * p
    x[d, k] = logit(np.float64(p))
    for f in range(chains[1], chains[2]):
        p = shares[0, f] + shares[1, f] * p
    x[d, k + 1] = logit(np.float64(p))
    for f in range(chains[2], families):
        p = shares[0, f] + shares[1, f] * p
    x[d, k + 2] = logit(np.float64(p))


@njit(cache=True, nogil=True)
def other_evidence(v, x, states, d, k, match, expected, length_bucket, lowest, mid, end, experts):
    """Inputs of the match model, the bias and the experts, from input k on."""
    sources = k - 3
    x[d, k] = np.float32(0.0)
    states[d, sources] = -1
    if lowest[v] <= expected < end[v]:
        states[d, sources] = 2 * length_bucket + (1 if expected >= mid[v] else 0)
        x[d, k] = match[states[d, sources]]
    x[d, k + 1] = BIAS
    for e in range(experts.shape[0]):
        zero, one = experts[e, mid[v]] - experts[e, lowest[v]], experts[e, end[v]] - experts[e, mid[v]]
        x[d, k + 2 + e] = logit(one / (zero + one)) if zero + one > 1e-12 else np.float32(0.0)


@njit(cache=True, nogil=True)
def split_masses(mass, d, bit, ones):
    """ones := the masses under the 1-child of path node d, whose child on the path is on the side of `bit`."""
    for k in range(ones.shape[0]):
        ones[k] = mass[d + 1, k] if bit else mass[d, k] - mass[d + 1, k]


@njit(cache=True, nogil=True)
def path_probability(fixed, s, symbol):
    """P(symbol) before anything is learned from it; leaves inputs, weights and states of its decisions for `learn`."""
    prepare(fixed, s)
    path_masses(fixed, s, symbol)
    tree, mixer, at = fixed.tree, s.mixer, s.at
    mass, ones, x, w, states, bins, base, path_p, experts = s.mass, s.ones, s.x, s.w, s.states, s.bins, s.base, s.path_p, s.experts
    ratio_bins, count_states, overlay_states = fixed.ratio_bins, fixed.count_states, fixed.overlay_states
    weights, logits, match = mixer.weights, mixer.logits, mixer.match
    shares, chains = s.shares, fixed.chains
    path_node, path_bit, lowest, mid, end = tree.path_node, tree.path_bit, tree.lowest, tree.mid, tree.end
    expected, length_bucket = at[EXPECTED], at[LENGTH_BUCKET]
    sources = logits.shape[0]
    reach = 1.0
    for d in range(tree.depth[symbol]):
        v, bit = path_node[symbol, d], path_bit[symbol, d]
        if reach < PRUNE:
            p = tree.leaf_share[v]
            path_p[d] = NOT_EVALUATED
        else:
            split_masses(mass, d, bit, ones)
            evidence(mass, d, ones, x, states, d, bins, ratio_bins, count_states, overlay_states, logits)
            back_off_chains(mass, d, ones, x, d, sources, shares, chains)
            other_evidence(v, x, states, d, sources + 3, match, expected, length_bucket, lowest, mid, end, experts)
            p = squash(np.float64(mix(base, weights, v, x, w, d)))
            path_p[d] = p
        reach *= p if bit else 1.0 - p
    return reach


@njit(cache=True, nogil=True)
def walk(fixed, s, best_rare, out):
    """Probabilities of nodes, the likeliest first or all of them.

    With room in `out` (float64 [128]): out[symbol] := P(symbol) for all symbols, 0 for those without a leaf. Without: returns the
    most likely character's symbol (the lower of equals), ESCAPE if the likeliest rare character (best_rare = P(char | escape))
    beats all others.
    """
    prepare(fixed, s)
    tree_masses(fixed, s)
    tree, mixer, at = fixed.tree, s.mixer, s.at
    mass, ones, x, w, states, bins, base, experts = s.tree_mass, s.ones, s.x, s.w, s.states, s.bins, s.base, s.experts
    ratio_bins, count_states, overlay_states = fixed.ratio_bins, fixed.count_states, fixed.overlay_states
    weights, logits, match = mixer.weights, mixer.logits, mixer.match
    shares, chains = s.shares, fixed.chains
    child, leaf_share, lowest, mid, end, reach_p = tree.child, tree.leaf_share, tree.lowest, tree.mid, tree.end, s.reach_p
    expected, length_bucket = at[EXPECTED], at[LENGTH_BUCKET]
    sources = logits.shape[0]
    everything = out.shape[0] > 0
    out[:] = 0.0
    reach_p[0] = 1.0
    open_nodes = np.empty(SYMBOLS, np.int64)
    open_nodes[0] = 0
    n = 1
    best, best_p = np.int64(-1), -1.0
    while n > 0:
        i = n - 1
        if not everything:
            for j in range(n - 1):
                if reach_p[open_nodes[j]] > reach_p[open_nodes[i]]:
                    i = j
        v = open_nodes[i]
        if reach_p[v] < best_p:
            break
        n -= 1
        open_nodes[i] = open_nodes[n]
        if reach_p[v] < PRUNE:
            p = leaf_share[v]
        else:
            ones[:] = mass[child[v, 1]]
            evidence(mass, v, ones, x, states, 0, bins, ratio_bins, count_states, overlay_states, logits)
            back_off_chains(mass, v, ones, x, 0, sources, shares, chains)
            other_evidence(v, x, states, 0, sources + 3, match, expected, length_bucket, lowest, mid, end, experts)
            p = squash(np.float64(mix(base, weights, v, x, w, 0)))
        for bit in range(2):
            c = child[v, bit]
            q = reach_p[v] * (p if bit else 1.0 - p)
            reach_p[c] = q
            if c < LEAF:
                open_nodes[n] = c
                n += 1
            elif everything:
                out[c - LEAF] = q
            else:
                if c - LEAF == ESCAPE:
                    q *= best_rare
                if q > best_p or (q == best_p and c - LEAF < best):
                    best, best_p = c - LEAF, q
    return best


@njit(cache=True, nogil=True)
def learn_evidence(logits, match, states, w, d, rate):
    """Move the logit of every source's state by rate * its weight. The silent states are mended by the caller."""
    sources = logits.shape[0]
    for k in range(sources):
        logits[np.uint32(k), np.uint32(states[d, k])] += rate * w[d, k]
    if states[d, sources] >= 0:
        match[states[d, sources]] += rate * w[d, sources + 3]


@njit(cache=True, nogil=True, forceinline=True)
def learn(fixed, s, symbol):
    """Learn from the symbol whose path_probability was just computed: weights, evidence, then the overlay's counts."""
    tree, mixer, path_p, steps = fixed.tree, s.mixer, s.path_p, s.steps
    logits, match, states, w = mixer.logits, mixer.match, s.states, s.w
    path_bit, rates, clock = tree.path_bit, fixed.rates, s.at[CLOCK]
    rate = rates[0] * (1.0 + rates[1] * rates[2] / (rates[2] + clock))
    n = 0
    for d in range(tree.depth[symbol]):
        if path_p[d] == NOT_EVALUATED:
            break
        error = np.float64(path_bit[symbol, d]) - path_p[d]
        steps[d] = np.float32(rate * error)
        learn_evidence(logits, match, states, w, d, np.float32(rates[3] * error))
        n += 1
    logits[:, SILENT] = np.float32(0.0)  # cheaper than asking every source whether it was silent
    learn_weights(mixer.weights, s.selected, tree.path_node, symbol, steps, n, s.x, s.total)
    keys, families = s.keys, s.families
    overlay = s.overlay
    for f in range(keys.shape[0]):
        if keys[f] != np.uint64(0):
            count_symbol(
                overlay.slots, overlay.used, overlay.pool, overlay.heap, overlay.free, f, families[f, SLOT], keys[f], symbol, clock
            )


@njit(cache=True, nogil=True)
def step(fixed, s, symbol):
    """Observe one symbol: returns its probability, learns, moves on."""
    p = path_probability(fixed, s, symbol)
    learn(fixed, s, symbol)
    advance(fixed, s, symbol)
    observe_symbol(s.match, symbol, s.history[0])
    s.experts[:, :] = 0.0
    return p


@njit(cache=True, nogil=True)
def take_advice(experts, advice):
    """experts[e] := the cumulative probabilities of advice[e], float64 [E, SYMBOLS]."""
    for e in range(experts.shape[0]):
        for symbol in range(SYMBOLS):
            experts[e, symbol + 1] = experts[e, symbol] + advice[e, symbol]


@njit(cache=True, nogil=True)
def walk_text(fixed, s, symbols, out, advice):
    """Observe symbols one by one: out[i] := P of all 128 symbols before symbols[i]."""
    for i in range(symbols.shape[0]):
        if advice.shape[0] > 0:
            take_advice(s.experts, advice[i])
        walk(fixed, s, 0.0, out[i])
        step(fixed, s, np.int64(symbols[i]))


@njit(cache=True, nogil=True)
def step_text(fixed, s, symbols, out, guesses, best_rare, advice):
    """Observe symbols one by one: out[i] := P(symbols[i]); where guesses has room, the most likely symbol before each.

    advice: the experts' probabilities before each, float64 [n, E, SYMBOLS]; with n = 0 they are silent.
    """
    nothing = np.empty(0, np.float64)
    for i in range(symbols.shape[0]):
        if advice.shape[0] > 0:
            take_advice(s.experts, advice[i])
        if guesses.shape[0] > 0:
            guesses[i] = np.uint8(walk(fixed, s, best_rare, nothing))
        out[i] = step(fixed, s, np.int64(symbols[i]))
