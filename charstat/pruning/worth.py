"""What a row of a count table is worth: the bits that it can be expected to save, per byte that it takes.

Entropy pruning (Stolcke, "Entropy-based pruning of backoff language models", 1998): compare the prediction with and without, weighted by
how often it will be needed. With Witten and Bell's smoothing (method C), for a context h with n counts of d symbols, p' from the
shorter context:

    p(s | h) = (c + d p'(s)) / (n + d)
    worth of h          u(n) Σ_s p(s | h) log2 p(s | h) / p'(s)        over its bytes       the sum has a term for all unseen symbols
    worth of a row      u(c) log2 (c + d p') / (d p')                  over its bytes

u(r): how often what was counted r times is expected again, r - D(r), with the discounts of modified Kneser-Ney, for the table's contexts
and for its rows. p' is known where the shorter context is: character orders up to 8 (ctw/links.py), and word contexts against the
words' frequencies (p). The identities of the others are hashes: their p' is taken to be a fixed share of their own prediction.

    level     a row's worth or its context's, whichever is less, on a logarithmic scale in 16 bits: who cuts at a level keeps what is not
              below it. ROW_CREDIT: a row that is left out costs more than its own bits, because counts of 0 look certain to a mixture

A context that others end in is worth no less than they are (close_orders), a word no less than the rows that name it (word_levels): what
is left is a model in which every longer order's rows are in the shorter one's, as after counting.

PRIORITY corrects for what the formula does not see: the mixture has other contexts that say the same. Measured (20 M characters, order
14, from 741 MB down, val from 480,000, 30,000 characters; whole 1.3876): 116, 54 and 29 MB cost 0.014, 0.027 and 0.049 bits with all
priorities at 1, and 0.009, 0.020 and 0.034 with these. By count alone, 112 MB cost 0.030.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from charstat.ngram.contexts import EXACT_ORDER, Context
from charstat.ngram.hashing import CHARS, CLASSES_OF
from charstat.ngram.interpolated import modified_discounts
from charstat.ngram.table import row_symbol

STEPS = 1024  # levels per factor of two
MIDDLE = 1 << 15  # the level of 1 bit per byte
LOWEST, HIGHEST = 1, (1 << 16) - 1  # of what can go; 0: goes first, whatever it is worth
ROW_CREDIT = 3.3  # what a row's own worth is multiplied by
TALLIED = 6  # counts that are told apart for the discounts, the last from there on
USES = 64  # counts whose discount is looked up
PRIORITY = {"p.w1": 3.0, "p.w1.w2": 2.0, "p.shapes": 0.3, "p.capital": 0.3}
HASHED_PRIORITY, CLASSES_PRIORITY = 0.5, 0.4
HASHED_SHARE, CLASSES_SHARE = 0.5, 0.25  # p' of hashed orders and of class contexts, of c / n
UNSEEN = 1e-6  # p' of a symbol that the shorter context lacks
U1 = np.uint64(1)


def priority(context: Context) -> float:
    """What a context's worth is multiplied by."""
    if context.kind == CHARS:
        return 1.0 if context.param <= EXACT_ORDER else HASHED_PRIORITY
    return CLASSES_PRIORITY if context.kind == CLASSES_OF else PRIORITY.get(context.name, 1.0)


def assumed_share(context: Context) -> float:
    """p' of contexts whose shorter ones are unknown, as a share of c / n."""
    return HASHED_SHARE if context.kind == CHARS else CLASSES_SHARE


def tally(counts: np.ndarray) -> np.ndarray:
    """How many are 0, 1, .. and how many are TALLIED - 1 or more: int64 [TALLIED]. counts: of contexts, or of rows."""
    return np.bincount(np.minimum(counts, TALLIED - 1), minlength=TALLIED)


def expected_uses(found: np.ndarray) -> np.ndarray:
    """u(r) of r = 0 .. USES - 1: float64. found: tally() of all contexts, or all rows, of a table."""
    discounts = modified_discounts(found[: TALLIED - 1])
    return np.array([0.0] + [r - discounts[min(r, 3) - 1] for r in range(1, USES)])


@njit(cache=True, nogil=True)
def _uses(count, uses):
    """u of a count; of larger ones, the last discount holds."""
    return uses[count] if count < uses.shape[0] else count - (uses.shape[0] - 1) + uses[uses.shape[0] - 1]


@njit(cache=True, nogil=True)
def _level(worth):
    if worth <= 0.0:
        return LOWEST
    return min(max(np.int64(math.log2(worth) * STEPS) + MIDDLE, LOWEST), HIGHEST)


@njit(cache=True, nogil=True)
def context_totals(starts, counts):
    """int64 [contexts]: the sum of every context's counts."""
    totals = np.zeros(starts.shape[0] - 1, np.int64)
    for i in range(totals.shape[0]):
        for r in range(np.int64(starts[i]), np.int64(starts[i + 1])):
            totals[i] += np.int64(counts[r])
    return totals


@njit(cache=True, nogil=True)
def row_levels(starts, counts, prior, context_uses, row_uses, factor, context_bytes, row_bytes, min_count, levels):
    """The level of every row, uint16 [rows], in `levels`. prior: p' of every row, float32; factor: the table's priority.

    context_bytes, row_bytes: what a context and a row take. Contexts of fewer than min_count counts are at level 0.
    """
    for i in range(starts.shape[0] - 1):
        first, end = np.int64(starts[i]), np.int64(starts[i + 1])
        d = np.float64(end - first)
        n = np.int64(0)
        for r in range(first, end):
            n += np.int64(counts[r])
        if n < min_count:
            for r in range(first, end):
                levels[r] = np.uint16(0)
            continue
        gain, seen, before = 0.0, 0.0, 0.0
        for r in range(first, end):
            p = (counts[r] + d * prior[r]) / (n + d)
            gain += p * math.log2(p / prior[r])
            seen += p
            before += prior[r]
        if before < 1.0 and seen < 1.0:
            gain += (1.0 - seen) * math.log2(d / (n + d))
        own = _level(factor * _uses(n, context_uses) * gain / (context_bytes + row_bytes * d))
        for r in range(first, end):
            c = np.int64(counts[r])
            kept = math.log2((c + d * prior[r]) / (d * prior[r]))
            levels[r] = np.uint16(min(own, _level(ROW_CREDIT * factor * _uses(c, row_uses) * kept / row_bytes)))


@njit(cache=True, nogil=True)
def parent_priors(starts, symbols, parents, start_bits, records, rows, shares, prior):
    """prior[r] := the share that the shorter context gives to the row's symbol: float32 [rows]. Symbols rise in both.

    parents: the shorter contexts of these; start_bits, records, rows, shares: of the shorter contexts' table.
    """
    mask = (U1 << np.uint64(start_bits)) - U1
    for i in range(starts.shape[0] - 1):
        a, end = np.int64(records[parents[i]] & mask), np.int64(records[parents[i] + np.int64(1)] & mask)
        for r in range(np.int64(starts[i]), np.int64(starts[i + 1])):
            while a < end and row_symbol(rows[a]) < symbols[r]:
                a += 1
            prior[r] = shares[a] if a < end and row_symbol(rows[a]) == symbols[r] else np.float32(UNSEEN)


@njit(cache=True, nogil=True)
def own_priors(starts, counts, share, prior):
    """prior[r] := `share` of the context's own c / n."""
    for i in range(starts.shape[0] - 1):
        n = 0.0
        for r in range(np.int64(starts[i]), np.int64(starts[i + 1])):
            n += counts[r]
        for r in range(np.int64(starts[i]), np.int64(starts[i + 1])):
            prior[r] = np.float32(share * counts[r] / n)


@njit(cache=True, nogil=True)
def shares(starts, counts, prior, out):
    """out[r] := p(s | h) of every row, smoothed with p': float32 [rows]."""
    for i in range(starts.shape[0] - 1):
        first, end = np.int64(starts[i]), np.int64(starts[i + 1])
        d, n = np.float64(end - first), 0.0
        for r in range(first, end):
            n += counts[r]
        for r in range(first, end):
            out[r] = np.float32((counts[r] + d * prior[r]) / (n + d))


@njit(cache=True, nogil=True)
def close_orders(starts, symbols, levels, parents, start_bits, records, rows, parent_levels):
    """A shorter context's row is worth no less than the rows of that symbol in the longer contexts that end in it: see parent_priors."""
    mask = (U1 << np.uint64(start_bits)) - U1
    for i in range(starts.shape[0] - 1):
        a, end = np.int64(records[parents[i]] & mask), np.int64(records[parents[i] + np.int64(1)] & mask)
        for r in range(np.int64(starts[i]), np.int64(starts[i + 1])):
            while a < end and row_symbol(rows[a]) < symbols[r]:
                a += 1
            if a < end and row_symbol(rows[a]) == symbols[r] and parent_levels[a] < levels[r]:
                parent_levels[a] = levels[r]


@njit(cache=True, nogil=True)
def word_levels(words, levels, out):
    """out[word] := the highest level of the rows that name it, if that is above what is there: uint16 [vocabulary]."""
    for r in range(words.shape[0]):
        out[words[r]] = max(out[words[r]], levels[r])


@njit(cache=True, nogil=True)
def node_levels(first_child, first_id, word_level, out):
    """out[node] := the highest level of the words under a trie's node: uint16 [nodes]. Children come after their parents."""
    for v in range(out.shape[0] - 1, -1, -1):
        if first_child[v] == first_child[v + 1]:
            out[v] = word_level[first_id[v]]
        else:
            out[v] = 0
            for c in range(np.int64(first_child[v]), np.int64(first_child[v + 1])):
                out[v] = max(out[v], out[c])


@njit(cache=True, nogil=True)
def context_levels(starts, levels):
    """uint16 [contexts]: the highest level of each context's rows."""
    out = np.zeros(starts.shape[0] - 1, np.uint16)
    for i in range(out.shape[0]):
        for r in range(np.int64(starts[i]), np.int64(starts[i + 1])):
            out[i] = max(out[i], levels[r])
    return out


@njit(cache=True, nogil=True)
def keep_rows(starts, identities, values, counts, levels, least, new_starts, new_identities, new_values, new_counts):
    """Copy the rows whose level is not below `least`, and the contexts that have one. Returns (contexts, rows)."""
    n = m = np.int64(0)
    for i in range(starts.shape[0] - 1):
        before = m
        for r in range(np.int64(starts[i]), np.int64(starts[i + 1])):
            if levels[r] >= least:
                new_values[m], new_counts[m] = values[r], counts[r]
                m += 1
        if m > before:
            new_starts[n], new_identities[n] = np.uint32(before), identities[i]
            n += 1
    new_starts[n] = np.uint32(m)
    return n, m
