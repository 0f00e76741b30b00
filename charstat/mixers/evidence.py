"""From counts to a logit: at a node of the decision tree a source has n counts under the node, n1 of them under its 1-child.

    state  = bucket of n (12) x bin of n1 / n (15: exactly 0, exactly 1, and 13 between, finer towards the ends)
    input  = A_k[state], a logit learned online, that starts at the log odds of (n1 + 0.2) / (n + 0.4)
    n = 0  : the source is silent, its input 0

So the mixer learns how much "3 of 3" in an order-5 context is worth, instead of being told. The joint evidence of a family
has one learned logit for static and fast counts together (4 x 3 coarse buckets, 15 x 15 bins): what the training text and
the stream say of a context, when they differ.

This file holds the tables and their initial values; the lookups are in kernels.py.
"""

from __future__ import annotations

import numpy as np

from charstat.ngram.overlay import UNIT

COUNT_EDGES = (1, 2, 3, 4, 6, 9, 16, 32, 100, 400, 2000)  # bucket b holds counts below COUNT_EDGES[b]; the last the rest
COUNT_BUCKETS = len(COUNT_EDGES) + 1
COUNT_TYPICAL = (0.5, 1.0, 2.0, 3.0, 4.5, 7.0, 11.0, 22.0, 60.0, 200.0, 1000.0, 4000.0)
RATIO_EDGES = (0.03, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.82, 0.9, 0.95, 0.98, 0.995)
RATIO_TYPICAL = (0.015, 0.05, 0.11, 0.2, 0.32, 0.47, 0.62, 0.76, 0.86, 0.925, 0.965, 0.988, 0.999)
ALL_ONE, ALL_ZERO = len(RATIO_TYPICAL), len(RATIO_TYPICAL) + 1  # the bins of n1 = n and of n1 = 0
RATIO_BINS = len(RATIO_TYPICAL) + 2
STATES = COUNT_BUCKETS * RATIO_BINS

STATIC_EDGES = (1, 3, 20)  # coarse buckets of the joint evidence: none, then below 3, below 20, more
FAST_EDGES = (1, round(1.2 * UNIT))  # in overlay units: none, then below 1.2, more
STATIC_TYPICAL, FAST_TYPICAL = (0.0, 1.0, 6.0, 50.0), (0.0, 1.0, 2.0)
JOINT_STATES = len(STATIC_TYPICAL) * len(FAST_TYPICAL) * RATIO_BINS * RATIO_BINS

COUNT_TABLE_SIZE = COUNT_EDGES[-1] + 1
RATIO_STEPS = 1024


def count_bucket_table() -> np.ndarray:
    """uint8 [2001]: the bucket of a count; larger counts share the last entry."""
    return np.searchsorted(COUNT_EDGES, np.arange(COUNT_TABLE_SIZE), "right").astype(np.uint8)


def ratio_bin_table() -> np.ndarray:
    """uint8 [1025]: the bin of floor(1024 n1 / n), for 0 < n1 < n."""
    return np.searchsorted(RATIO_EDGES, (np.arange(RATIO_STEPS + 1) + 0.5) / RATIO_STEPS, "right").astype(np.uint8)


def _typical_ratio(bin_: int) -> float:
    return 1.0 if bin_ == ALL_ONE else 0.0 if bin_ == ALL_ZERO else RATIO_TYPICAL[bin_]


def log_odds(ratio: float, count: float) -> float:
    """Log odds of (n1 + 0.2) / (n + 0.4)."""
    p = (ratio * count + 0.2) / (count + 0.4)
    return float(np.log(p / (1.0 - p)))


def initial_logits(sources: int) -> np.ndarray:
    """float32 [sources, STATES]."""
    one = [log_odds(_typical_ratio(q), n) for n in COUNT_TYPICAL for q in range(RATIO_BINS)]
    return np.tile(np.array(one, np.float32), (sources, 1))


def initial_joint_logits(families: int) -> np.ndarray:
    """float32 [families, JOINT_STATES]: the mean of the two sources' logits, of those that are not silent."""
    one = []
    for static in STATIC_TYPICAL:
        for fast in FAST_TYPICAL:
            for q in range(RATIO_BINS):
                for r in range(RATIO_BINS):
                    parts = [log_odds(_typical_ratio(b), n) for b, n in ((q, static), (r, fast)) if n]
                    one.append(sum(parts) / max(1, len(parts)))
    return np.tile(np.array(one, np.float32), (families, 1))


def initial_match_logits(buckets: int) -> np.ndarray:
    """float32 [buckets * 2]: the logit of the expected bit being right, for each length bucket and expected bit."""
    strength = np.log(4.0 + 3.0 * np.arange(buckets, dtype=np.float64))
    return np.stack([-strength, strength], axis=1).ravel().astype(np.float32)
