"""Evidence: from counts to a logit. At a node of the code tree a source has n counts, n1 of them under the 1-child.

    state  = bucket of n (12) x bin of n1 / n (15: exactly 0, exactly 1, and 13 between, finer towards the ends)
    input  = A_k[state], a logit that is learned online; it starts at the log odds of (n1 + 0.2) / (n + 0.4)
    n = 0    the source is silent: one more state, whose input is 0 and stays 0

So the mixer learns how much "3 of 3" in an order-5 context is worth, instead of being told. A table from states to learned
predictions is what PAQ calls a StateMap (Mahoney 2005); here every source has one of its own.

Sources are the static counts of every context, then the online counts of every context: columns 0..F and F..2F of all masses.
This file has the states, their initial logits, and the two kernels: look up, and learn.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.ngram.overlay import UNIT, UNIT_BITS

COUNT_EDGES = (1, 2, 3, 4, 6, 9, 16, 32, 100, 400, 2000)  # bucket b holds counts below COUNT_EDGES[b]; the last one the rest
COUNT_TYPICAL = (0.5, 1.0, 2.0, 3.0, 4.5, 7.0, 11.0, 22.0, 60.0, 200.0, 1000.0, 4000.0)
COUNT_LIMIT = COUNT_EDGES[-1]  # larger counts share the last bucket
RATIO_EDGES = (0.03, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.82, 0.9, 0.95, 0.98, 0.995)
RATIO_TYPICAL = (0.015, 0.05, 0.11, 0.2, 0.32, 0.47, 0.62, 0.76, 0.86, 0.925, 0.965, 0.988, 0.999)
RATIO_STEPS = 1024  # a power of two: n1 = n gives exactly this share
ALL_ZERO, ALL_ONE = 0, len(RATIO_TYPICAL) + 1  # the bins of n1 = 0 and of n1 = n
RATIO_BINS = len(RATIO_TYPICAL) + 2
SILENT = 0  # the state of n = 0
STATES = (len(COUNT_TYPICAL) + 1) * RATIO_BINS


def count_states() -> np.ndarray:
    """int32 [COUNT_LIMIT + 2]: the first state of a static count's bucket; larger counts share the last entry."""
    n = np.arange(COUNT_LIMIT + 2)
    return np.where(n == 0, 0, (np.searchsorted(COUNT_EDGES, n, "right") + 1) * RATIO_BINS).astype(np.int32)


def online_states() -> np.ndarray:
    """int32 [COUNT_LIMIT + 2]: the same for an online count, given as 1 + the rounded count, or 0 for none at all."""
    n = np.arange(COUNT_LIMIT + 2)
    return np.where(n == 0, 0, (np.searchsorted(COUNT_EDGES, n - 1, "right") + 1) * RATIO_BINS).astype(np.int32)


def ratio_bins() -> np.ndarray:
    """int32 [RATIO_STEPS + 2]: the bin of floor(RATIO_STEPS n1 / n) + (1 if n1 > 0 else 0)."""
    i = np.arange(RATIO_STEPS + 2)
    bins = 1 + np.searchsorted(RATIO_EDGES, (i - 0.5) / RATIO_STEPS, "right")
    bins[0], bins[-1] = ALL_ZERO, ALL_ONE
    return bins.astype(np.int32)


def _typical_ratio(bin_: int) -> float:
    return (0.0, *RATIO_TYPICAL, 1.0)[bin_]


def log_odds(ratio: float, count: float) -> float:
    """Log odds of (n1 + 0.2) / (n + 0.4)."""
    p = (ratio * count + 0.2) / (count + 0.4)
    return float(np.log(p / (1.0 - p)))


def initial_logits(sources: int) -> np.ndarray:
    """float32 [sources, STATES]."""
    silent = [0.0] * RATIO_BINS
    one = silent + [log_odds(_typical_ratio(q), n) for n in COUNT_TYPICAL for q in range(RATIO_BINS)]
    return np.tile(np.array(one, np.float32), (sources, 1))


def initial_match_logits(buckets: int) -> np.ndarray:
    """float32 [buckets * 2]: the logit of the expected bit being right, for each length bucket and expected bit."""
    strength = np.log(4.0 + 3.0 * np.arange(buckets, dtype=np.float64))
    return np.stack([-strength, strength], axis=1).ravel().astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def look_up_evidence(mass, i, ones, x, first, states, d, bins, ratio_bins, count_states, online_states, logits):
    """x[d, first:] and states[d] of all sources at a node, from the masses under it (mass[i]) and under its 1-child (ones).

    No branches in the loops: a silent source has a state of its own.
    """
    sources = logits.shape[0]
    for k in range(sources):
        share = np.float32(ones[k]) * np.float32(RATIO_STEPS) / np.float32(max(mass[i, k], np.int32(1)))
        bins[k] = np.int32(share) + np.int32(ones[k] > 0)
    for k in range(sources // 2):
        count = min(mass[i, k], np.int32(COUNT_LIMIT))
        states[d, k] = count_states[np.uint32(count)] + ratio_bins[np.uint32(bins[k])]
    for k in range(sources // 2, sources):
        n = mass[i, k]
        count = min((n + np.int32(UNIT >> 1)) >> np.int32(UNIT_BITS), np.int32(COUNT_LIMIT)) + np.int32(n > 0)
        states[d, k] = online_states[np.uint32(count)] + ratio_bins[np.uint32(bins[k])]
    for k in range(sources):
        x[d, first + k] = logits[np.uint32(k), np.uint32(states[d, k])]


@njit(cache=True, nogil=True)
def learn_evidence(logits, states, w, first, d, rate):
    """Move the logit of every source's state by rate * its weight. The caller resets the silent states."""
    for k in range(logits.shape[0]):
        logits[np.uint32(k), np.uint32(states[d, k])] += rate * w[d, first + k]
