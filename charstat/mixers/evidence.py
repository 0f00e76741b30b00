"""From counts to a logit: at a node of the decision tree a source has n counts under the node, n1 of them under its 1-child.

    state  = bucket of n (12) x bin of n1 / n (15: exactly 0, exactly 1, and 13 between, finer towards the ends)
    input  = A_k[state], a logit learned online, that starts at the log odds of (n1 + 0.2) / (n + 0.4)
    n = 0  : the source is silent; that is one more state, whose input is 0 and stays 0

So the mixer learns how much "3 of 3" in an order-5 context is worth, instead of being told.

This file holds the tables and their initial values; the lookups are in kernels.py.
"""

from __future__ import annotations

import numpy as np

COUNT_EDGES = (1, 2, 3, 4, 6, 9, 16, 32, 100, 400, 2000)  # bucket b holds counts below COUNT_EDGES[b]; the last the rest
COUNT_TYPICAL = (0.5, 1.0, 2.0, 3.0, 4.5, 7.0, 11.0, 22.0, 60.0, 200.0, 1000.0, 4000.0)
COUNT_LIMIT = COUNT_EDGES[-1]  # larger counts are all the same
RATIO_EDGES = (0.03, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.82, 0.9, 0.95, 0.98, 0.995)
RATIO_TYPICAL = (0.015, 0.05, 0.11, 0.2, 0.32, 0.47, 0.62, 0.76, 0.86, 0.925, 0.965, 0.988, 0.999)
RATIO_STEPS = 1024  # a power of two: n1 = n gives exactly this share
ALL_ZERO, ALL_ONE = 0, len(RATIO_TYPICAL) + 1  # the bins of n1 = 0 and of n1 = n
RATIO_BINS = len(RATIO_TYPICAL) + 2
SILENT = 0  # the state of n = 0
STATES = (len(COUNT_TYPICAL) + 1) * RATIO_BINS


def count_states() -> np.ndarray:
    """int32 [COUNT_LIMIT + 2]: the first state of a whole count's bucket; larger counts share the last entry."""
    n = np.arange(COUNT_LIMIT + 2)
    return np.where(n == 0, 0, (np.searchsorted(COUNT_EDGES, n, "right") + 1) * RATIO_BINS).astype(np.int32)


def overlay_states() -> np.ndarray:
    """int32 [COUNT_LIMIT + 2]: the same for an overlay's count, which is 1 + the rounded count, or 0 for none at all."""
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
