"""The compiled steps of the mixture stream: mix at nodes of the code tree, search it, learn.

    path_probability     P(symbol): evaluates the five or so decisions on its path
    distribution         P of all 128 symbols (nodes under PRUNE share evenly)
    most_likely          the most likely character, best first: visits a few nodes
    step                 path_probability, then learn from the symbol, then move on
    move_on              move on, and learn nothing

All of them mix the same integers (masses.py) with the same functions (fill_inputs, mix and refine), so that the probabilities are the same
bit for bit. They count no references to their arrays (compiled.py), except for most_likely, which allocates, and run: these take every
array from its tuple before the loop, because counting one there costs more than a decision.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.compiled import inlined, kernel
from charstat.mixers.back_off import back_off
from charstat.mixers.evidence import SILENT, learn_evidence, look_up_evidence
from charstat.mixers.last_stage import NOT_REFINED, REFINED_FROM, learn_maps, refine
from charstat.mixers.logistic import learn_weights, logit, mix, squash
from charstat.mixers.lookups import advance, prepare
from charstat.mixers.masses import path_masses, tree_masses
from charstat.mixers.state import CLOCK, EXPECTED_SYMBOL, MATCH_BUCKET, SLOT
from charstat.ngram.match import follow_symbol, observe_symbol
from charstat.ngram.overlay import count_symbol
from charstat.tree import ESCAPE, LEAF, SYMBOLS

PRUNE = 1e-6  # below this probability of a node, its leaves share evenly and nothing is looked up or learned
NOT_EVALUATED = -1.0
BIAS = np.float32(0.3)
WEIGHTS_RATE, BOOST, BOOST_CHARS, SETTLE_CHARS, EVIDENCE_RATE = range(5)  # of Fixed.rates


@inlined
def fill_inputs(
    v, mass, i, ones, x, d, columns, states, bins, ratio_bins, count_states, online_states, logits,
    shares, chains, match_logits, match_states, expected, match_bucket, lowest, mid, end, experts,
):  # fmt: skip
    """x[d] := every input at node v, from the masses under it (mass[i]) and under its 1-child (ones): one line a group of inputs.

    Leaves in states[d] and match_states[d] which logits were used.
    """
    look_up_evidence(mass, i, ones, x, columns.static, states, d, bins, ratio_bins, count_states, online_states, logits)
    back_off(mass, i, ones, x, d, columns, shares, chains)
    x[d, columns.match] = np.float32(0.0)
    match_states[d] = -1
    if lowest[v] <= expected < end[v]:
        match_states[d] = 2 * match_bucket + (1 if expected >= mid[v] else 0)
        x[d, columns.match] = match_logits[match_states[d]]
    x[d, columns.bias] = BIAS
    for e in range(experts.shape[0]):
        zero, one = experts[e, mid[v]] - experts[e, lowest[v]], experts[e, end[v]] - experts[e, mid[v]]
        x[d, columns.experts + e] = logit(one / (zero + one)) if zero + one > 1e-12 else np.float32(0.0)


@kernel
def split_masses(mass, d, bit, ones):
    """ones := the masses under the 1-child of path node d, whose child on the path is on the side of `bit`."""
    for k in range(ones.shape[0]):
        ones[k] = mass[d + 1, k] if bit else mass[d, k] - mass[d + 1, k]


@kernel
def path_probability(fixed, s, symbol):
    """P(symbol) before anything is learned from it; leaves inputs, weights and states of its decisions for `learn`."""
    prepare(fixed, s)
    path_masses(fixed, s, symbol)
    tree, columns, chains = fixed.tree, fixed.columns, fixed.chains
    mass, ones, x, w, states, bins, base, path_p, experts = s.mass, s.ones, s.x, s.w, s.states, s.bins, s.base, s.path_p, s.experts
    ratio_bins, count_states, online_states = fixed.ratio_bins, fixed.count_states, fixed.online_states
    weights, logits, match_logits, match_states, shares = s.mixer.weights, s.mixer.logits, s.mixer.match, s.match_states, s.shares
    map_rows, maps, points, parts, partial = s.map_rows, s.mixer.maps, s.points, s.parts, s.partial
    path_node, path_bit, lowest, mid, end, leaf_share = tree.path_node, tree.path_bit, tree.lowest, tree.mid, tree.end, tree.leaf_share
    expected, match_bucket = s.cursor[EXPECTED_SYMBOL], s.cursor[MATCH_BUCKET]
    reach = 1.0
    for d in range(tree.depth[symbol]):
        v, bit = path_node[symbol, d], path_bit[symbol, d]
        if reach < PRUNE:
            p = leaf_share[v]
            path_p[d] = NOT_EVALUATED
        else:
            split_masses(mass, d, bit, ones)
            fill_inputs(
                v, mass, d, ones, x, d, columns, states, bins, ratio_bins, count_states, online_states, logits,
                shares, chains, match_logits, match_states, expected, match_bucket, lowest, mid, end, experts,
            )  # fmt: skip
            p = squash(np.float64(mix(base, weights, v, x, w, d, partial)))
            path_p[d] = p
            parts[d] = NOT_REFINED
            if reach >= REFINED_FROM:
                p = refine(p, v, d, map_rows, maps, points, parts)
        reach *= p if bit else 1.0 - p
    return reach


@kernel
def distribution(fixed, s, out):
    """out[symbol] := P(symbol) of all symbols, 0 for those without a leaf: float64 [128]."""
    prepare(fixed, s)
    tree_masses(fixed, s)
    tree, columns, chains = fixed.tree, fixed.columns, fixed.chains
    mass, ones, x, w, states, bins, base, reach_p, experts = s.tree_mass, s.ones, s.x, s.w, s.states, s.bins, s.base, s.reach_p, s.experts
    ratio_bins, count_states, online_states = fixed.ratio_bins, fixed.count_states, fixed.online_states
    weights, logits, match_logits, match_states, shares = s.mixer.weights, s.mixer.logits, s.mixer.match, s.match_states, s.shares
    map_rows, maps, points, parts, partial = s.map_rows, s.mixer.maps, s.points, s.parts, s.partial
    child, leaf_share, lowest, mid, end = tree.child, tree.leaf_share, tree.lowest, tree.mid, tree.end
    expected, match_bucket = s.cursor[EXPECTED_SYMBOL], s.cursor[MATCH_BUCKET]
    out[:] = 0.0
    reach_p[0] = 1.0
    for v in range(child.shape[0]):  # parents come first
        if reach_p[v] < PRUNE:
            p = leaf_share[v]
        else:
            one = child[v, 1]
            for k in range(ones.shape[0]):  # subtle: an assignment of arrays compiles for seconds, its error message included
                ones[k] = mass[one, k]
            fill_inputs(
                v, mass, v, ones, x, 0, columns, states, bins, ratio_bins, count_states, online_states, logits,
                shares, chains, match_logits, match_states, expected, match_bucket, lowest, mid, end, experts,
            )  # fmt: skip
            p = squash(np.float64(mix(base, weights, v, x, w, 0, partial)))
            if reach_p[v] >= REFINED_FROM:
                p = refine(p, v, 0, map_rows, maps, points, parts)
        for bit in range(2):
            c = child[v, bit]
            q = reach_p[v] * (p if bit else 1.0 - p)
            reach_p[c] = q
            if c >= LEAF:
                out[c - LEAF] = q


@njit(cache=True, nogil=True)
def most_likely(fixed, s, best_rare):
    """The most likely character's symbol (the lower of equals): nodes are visited likeliest first, until no open one can beat the best leaf.

    ESCAPE if the likeliest rare character (best_rare = P(char | escape)) beats all others.
    """
    prepare(fixed, s)
    tree_masses(fixed, s)
    tree, columns, chains = fixed.tree, fixed.columns, fixed.chains
    mass, ones, x, w, states, bins, base, reach_p, experts = s.tree_mass, s.ones, s.x, s.w, s.states, s.bins, s.base, s.reach_p, s.experts
    ratio_bins, count_states, online_states = fixed.ratio_bins, fixed.count_states, fixed.online_states
    weights, logits, match_logits, match_states, shares = s.mixer.weights, s.mixer.logits, s.mixer.match, s.match_states, s.shares
    map_rows, maps, points, parts, partial = s.map_rows, s.mixer.maps, s.points, s.parts, s.partial
    child, leaf_share, lowest, mid, end = tree.child, tree.leaf_share, tree.lowest, tree.mid, tree.end
    expected, match_bucket = s.cursor[EXPECTED_SYMBOL], s.cursor[MATCH_BUCKET]
    reach_p[0] = 1.0
    open_nodes = np.empty(SYMBOLS, np.int64)
    open_nodes[0] = 0
    n = 1
    best, best_p = np.int64(-1), -1.0
    while n > 0:
        i = n - 1
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
            one = child[v, 1]
            for k in range(ones.shape[0]):  # subtle: an assignment of arrays compiles for seconds, its error message included
                ones[k] = mass[one, k]
            fill_inputs(
                v, mass, v, ones, x, 0, columns, states, bins, ratio_bins, count_states, online_states, logits,
                shares, chains, match_logits, match_states, expected, match_bucket, lowest, mid, end, experts,
            )  # fmt: skip
            p = squash(np.float64(mix(base, weights, v, x, w, 0, partial)))
            if reach_p[v] >= REFINED_FROM:
                p = refine(p, v, 0, map_rows, maps, points, parts)
        for bit in range(2):
            c = child[v, bit]
            q = reach_p[v] * (p if bit else 1.0 - p)
            reach_p[c] = q
            if c < LEAF:
                open_nodes[n] = c
                n += 1
            else:
                if c - LEAF == ESCAPE:
                    q *= best_rare
                if q > best_p or (q == best_p and c - LEAF < best):
                    best, best_p = c - LEAF, q
    return best


@inlined
def learn(fixed, s, symbol):
    """Learn from the symbol whose path_probability was just computed: weights, evidence, then the overlay's counts."""
    tree, mixer, path_p, steps, columns = fixed.tree, s.mixer, s.path_p, s.steps, fixed.columns
    logits, match_logits, states, match_states, w = mixer.logits, mixer.match, s.states, s.match_states, s.w
    path_bit, rates, clock = tree.path_bit, fixed.rates, s.cursor[CLOCK]
    maps, points, parts, static = mixer.maps, s.points, s.parts, columns.static
    rate = rates[WEIGHTS_RATE] * (1.0 + rates[BOOST] * rates[BOOST_CHARS] / (rates[BOOST_CHARS] + clock))
    rate /= min(max(clock / rates[SETTLE_CHARS], 1.0), 2.0)
    n = 0
    for d in range(tree.depth[symbol]):
        if path_p[d] == NOT_EVALUATED:
            break
        error = np.float64(path_bit[symbol, d]) - path_p[d]
        steps[d] = np.float32(rate * error)
        evidence_step = np.float32(rates[EVIDENCE_RATE] * error)
        learn_evidence(logits, states, w, static, d, evidence_step)
        if match_states[d] >= 0:
            match_logits[match_states[d]] += evidence_step * w[d, columns.match]
        if parts[d] != NOT_REFINED:
            learn_maps(np.float64(path_bit[symbol, d]), d, maps, points, parts)
        n += 1
    logits[:, SILENT] = np.float32(0.0)  # cheaper than asking every source whether it was silent
    learn_weights(mixer.weights, s.selected, tree.path_node, symbol, steps, n, s.x, s.partial)
    keys, online = s.keys, s.online
    slots, used, pool, heap, free = s.overlay.slots, s.overlay.used, s.overlay.pool, s.overlay.heap, s.overlay.free
    for f in range(keys.shape[0]):
        if keys[f] != np.uint64(0):
            count_symbol(slots, used, pool, heap, free, f, online[f, SLOT], keys[f], symbol, clock)


@kernel
def step(fixed, s, symbol):
    """Observe one symbol: returns its probability, learns, moves on."""
    p = path_probability(fixed, s, symbol)
    learn(fixed, s, symbol)
    advance(fixed, s, symbol)
    observe_symbol(s.match, symbol, s.history[0])
    s.experts[:, :] = 0.0
    return p


@kernel
def move_on(fixed, s, symbol):
    """Go on to the next position after this symbol; nothing is learned."""
    advance(fixed, s, symbol)
    follow_symbol(s.match, symbol, s.history[0])
    s.experts[:, :] = 0.0


@kernel
def take_advice(experts, advice):
    """experts[e] := the cumulative probabilities of advice[e], float64 [E, SYMBOLS]."""
    for e in range(experts.shape[0]):
        for symbol in range(SYMBOLS):
            experts[e, symbol + 1] = experts[e, symbol] + advice[e, symbol]


@njit(cache=True, nogil=True)
def run(fixed, s, symbols, p, guesses, rows, best_rare, advice):
    """Observe symbols one by one; see symbol_model.SymbolModel._run_symbols.

    advice: the experts' probabilities before each, float64 [n, E, SYMBOLS]; with n = 0 they are silent.
    """
    for i in range(symbols.shape[0]):
        if advice.shape[0] > 0:
            take_advice(s.experts, advice[i])
        if rows.shape[0] > 0:
            distribution(fixed, s, rows[i])
        if guesses.shape[0] > 0:
            guesses[i] = np.uint8(most_likely(fixed, s, best_rare))
        p[i] = step(fixed, s, np.int64(symbols[i]))
