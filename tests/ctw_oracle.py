"""The weights of a context tree by their definition: recursion over dictionaries of counts, strings for contexts, no table, no slots."""

import math
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise

import numpy as np

from charstat.ngram.hashing import CHARS, char_identity, push_symbol
from charstat.tree import LEAF


def log_beta(n0, n1, alpha):
    """log of the block probability of Beta(alpha, alpha), by gamma functions."""
    if n0 + n1 == 0:
        return 0.0
    rising = math.lgamma(n0 + alpha) + math.lgamma(n1 + alpha) - 2 * math.lgamma(alpha)
    return rising - math.lgamma(n0 + n1 + 2 * alpha) + math.lgamma(2 * alpha)


def log_add(a, b):
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def count_contexts(symbols, border, orders):
    """{order: {context as a tuple: Counter of next symbols}}."""
    counts = {order: defaultdict(Counter) for order in orders}
    for t in range(border, len(symbols)):
        for order in orders:
            if t >= order:
                counts[order][tuple(symbols[t - order : t])][symbols[t]] += 1
    return counts


def node_betas(symbols, border, orders, tree, alpha):
    """{order: {(context, node): beta}} of every node where something was seen, for all orders but the highest."""
    symbols = [int(s) for s in symbols]
    counts = count_contexts(symbols, border, orders)
    longer = {order: defaultdict(list) for order in orders}
    for shorter_order, order in pairwise(orders):
        for context in counts[order]:
            longer[shorter_order][context[len(context) - shorter_order :]].append((order, context))

    def split(order, context, v):
        n = [0, 0]
        for symbol, count in counts[order][context].items():
            if tree.lowest[v] <= symbol < tree.end[v]:
                n[int(symbol >= tree.mid[v])] += count
        return n

    @cache
    def log_weighted(order, context, v):
        log_e = log_beta(*split(order, context, v), alpha)
        if order == orders[-1]:
            return log_e
        return log_add(log_e, log_children(order, context, v)) - math.log(2)

    @cache
    def log_children(order, context, v):
        return math.fsum(log_weighted(*child, v) for child in longer[order][context])

    betas = {}
    for order in orders[:-1]:
        betas[order] = {}
        for context in counts[order]:
            for v in range(tree.child.shape[0]):
                if sum(n := split(order, context, v)):
                    betas[order][context, v] = math.exp(log_beta(*n, alpha) - log_children(order, context, v))
    return betas


def identity_of(context):
    """The identity of a context, a tuple of symbols."""
    history = np.zeros(5, np.uint64)
    for symbol in context:
        push_symbol(history, symbol, 0)
    return int(char_identity(CHARS, len(context), history))


def stored_betas(table, betas, tree, contexts):
    """{(context, node): beta} read from the layout of ctw/weights.py: slots by the definition there, found without its code."""
    index = {int(identity): i for i, identity in enumerate(table.context_identities())}
    starts, symbols = table.starts().astype(int), table.symbols().astype(int)
    found = {}
    for context in contexts:
        i = index[identity_of(context)]
        rows = symbols[starts[i] : starts[i + 1]]
        base, d = 3 * starts[i] - 2 * i, len(rows)
        for v in range(tree.child.shape[0]):
            under = [j for j in range(d) if tree.lowest[v] <= rows[j] < tree.end[v]]
            if not under:
                continue
            first, last = under[0], under[-1]
            if first == last:
                slot = 2 * (d - 1) + first
            elif rows[first] < tree.mid[v] <= rows[last]:
                slot = next(j for j in under if rows[j] >= tree.mid[v]) - 1
            else:  # on the chain above the node where they part
                u = v
                while u < LEAF and not rows[first] < tree.mid[u] <= rows[last]:
                    u = tree.child[u, int(rows[first] >= tree.mid[u])]
                slot = d - 1 + next(j for j in under if rows[j] >= tree.mid[u]) - 1
            found[context, v] = float(betas[base + slot])
    return found
