"""Logistic mixing, learned online: p(bit) = sigma(sum_k w_k x_k) at every node of the code tree.

    w_k = sum_j W[selected_j, k]          the rows that the selector sets pick share one logit: one net, no second layer
    after the bit:  e = bit - p;   W[selected_j, k] += rate e x_k;   A_k[state_k] += evidence_rate e w_k
    rate = weights (1 + boost boost_chars / (boost_chars + t)) / (1 ... t / settle_chars ... 2)     after t characters; see layout.MixerRates

All decisions of a character are evaluated before any is learned from, so that they are those of one distribution. The inputs and
the selector sets are listed in layout.py; learning the inputs' logits as well is in evidence.py.

Logistic mixing: Mahoney, "Adaptive weighing of context models for lossless data compression", 2005 (PAQ6/7).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.mixers.evidence import initial_logits, initial_match_logits
from charstat.mixers.last_stage import new_maps
from charstat.mixers.layout import MixerLayout, MixerRates
from charstat.ngram.match import LENGTH_BUCKETS

P_MIN = 1e-5  # of a decision


class Mixer(NamedTuple):
    """The mixer's learned state. F contexts; the matrix is described by layout.MixerLayout."""

    weights: np.ndarray  # float32 [rows, width]
    logits: np.ndarray  # float32 [2 F, STATES]
    match: np.ndarray  # float32 [2 LENGTH_BUCKETS]
    maps: np.ndarray  # float32 [ROWS * POINTS] (mixers/last_stage.py)


def new_mixer(layout: MixerLayout, rates: MixerRates) -> Mixer:
    """The initial state: equal weights, log-odds evidence."""
    return Mixer(layout.initial_weights(rates), initial_logits(2 * layout.families), initial_match_logits(LENGTH_BUCKETS), new_maps())


@njit(cache=True, nogil=True, inline="always")
def squash(z):
    """sigma(z), clipped to [P_MIN, 1 - P_MIN]."""
    p = 1.0 / (1.0 + math.exp(-z))
    return min(max(p, P_MIN), 1.0 - P_MIN)


@njit(cache=True, nogil=True, inline="always")
def logit(p):
    """ln(p / (1 - p)) of p clipped to [P_MIN, 1 - P_MIN], as float32."""
    p = min(max(p, P_MIN), 1.0 - P_MIN)
    return np.float32(math.log(p / (1.0 - p)))


@njit(cache=True, nogil=True)
def sum_rows(weights, selected, out):
    """out := the sum of the selected rows but the first (the node's, which changes at every decision)."""
    out[:] = np.float32(0.0)
    for j in range(1, selected.shape[0], 2):
        a, b = selected[j], selected[min(j + 1, selected.shape[0] - 1)]
        if a == b:
            for k in range(out.shape[0]):
                out[k] += weights[a, k]
        else:
            for k in range(out.shape[0]):
                out[k] += weights[a, k] + weights[b, k]


@njit(cache=True, nogil=True)
def mix(base, weights, v, x, w, d, sums):
    """w[d] := base + weights[v]; returns sum_k w[d, k] x[d, k]. sums: scratch, as long as base (a multiple of layout.LANES).

    subtle: the order of the additions is written out, quarters first, in loops that the compiler turns into SIMD code as they stand.
    With fast-math it would choose an order, and another one wherever it inlines this.
    """
    quarter = base.shape[0] // 4
    for k in range(base.shape[0]):
        w[d, k] = base[k] + weights[v, k]
    for k in range(quarter):
        a, b = w[d, k] * x[d, k], w[d, k + quarter] * x[d, k + quarter]
        e, f = w[d, k + 2 * quarter] * x[d, k + 2 * quarter], w[d, k + 3 * quarter] * x[d, k + 3 * quarter]
        sums[k] = (a + b) + (e + f)
    a = b = e = f = np.float32(0.0)
    for k in range(0, quarter, 4):
        a += sums[k]
        b += sums[k + 1]
        e += sums[k + 2]
        f += sums[k + 3]
    return (a + b) + (e + f)


@njit(cache=True, nogil=True)
def learn_weights(weights, selected, path_node, symbol, steps, n, x, sums):
    """Add every decision's step to its node's row, and their sum to the other selected rows.

    steps: rate * error of the symbol's first n decisions; x: their inputs, one row a decision; sums: scratch.
    """
    sums[:] = np.float32(0.0)
    for d in range(n):
        s = steps[d]
        v = path_node[symbol, d]
        for k in range(sums.shape[0]):
            weights[v, k] += s * x[d, k]
        for k in range(sums.shape[0]):
            sums[k] += s * x[d, k]
    for j in range(1, selected.shape[0]):
        r = selected[j]
        for k in range(sums.shape[0]):
            weights[r, k] += sums[k]
