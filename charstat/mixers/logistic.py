"""Logistic mixing, learned online: p(bit) = sigma(sum_k w_k x_k) at every node of the decision tree.

    w_k = sum_j W_j[selected_j, k]        six selector sets share one logit (one net, not six with a second layer)
    after the bit:  e = bit - p;   W_j[selected_j, k] += RATE e x_k;   A_k[state_k] += EVIDENCE_RATE e w_k

The selectors are: the node; the longest static order that was hit x the place in the word; the class of the previous
character x the place in the word; the longest overlay order that was hit; the previous character; the one before it. All
decisions of a character are evaluated before any is learned from, so that the probabilities are those of one distribution.

Logistic mixing: Mahoney, "Adaptive weighing of context models for lossless data compression", 2005 (PAQ6/7). Learning the
inputs' logits as well is the "adaptive probability map" of the same family, one per source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.mixers.evidence import initial_joint_logits, initial_logits, initial_match_logits
from charstat.ngram.match import LENGTH_BUCKETS
from charstat.tree import CLASSES, SYMBOLS

SELECTORS = 6
WORD_PLACES = 8
LANES = 16  # inputs are padded to a multiple: whole SIMD registers
P_MIN = 1e-5  # of a decision
BIAS = np.float32(0.3)


@dataclass(frozen=True)
class MixerRates:
    """What the mixer can be tuned by. Defaults were chosen on held-out training text and on val from character 120,000 on."""

    weights: float = 3e-4
    evidence: float = 0.4
    initial_sum: float = 3.0 / 3.5 * 4.0  # of the weights of the typically active 60 % of all inputs


class Mixer(NamedTuple):
    """The mixer's learned state. K inputs, padded to Kp."""

    weights: np.ndarray  # float32 [selector rows, Kp]
    logits: np.ndarray  # float32 [3 F, STATES]
    joint: np.ndarray  # float32 [F, JOINT_STATES]
    match: np.ndarray  # float32 [2 LENGTH_BUCKETS]


class SelectorRows(NamedTuple):
    """First row of each selector set in Mixer.weights."""

    static_order: int
    class_place: int
    overlay_order: int
    previous: int
    before: int
    total: int


def selector_rows(orders: int) -> SelectorRows:
    """Where the sets lie. orders: how many character orders there are; "none was hit" is one more."""
    static_order = SYMBOLS
    class_place = static_order + (orders + 1) * WORD_PLACES
    overlay_order = class_place + len(CLASSES) * WORD_PLACES
    previous = overlay_order + orders + 1
    return SelectorRows(static_order, class_place, overlay_order, previous, previous + SYMBOLS, previous + 2 * SYMBOLS)


def input_count(families: int, experts: int) -> int:
    """Static, fast, slow and joint evidence of each family, the match model, the bias, the experts."""
    return 4 * families + 2 + experts


def new_mixer(families: int, orders: int, experts: int, rates: MixerRates) -> Mixer:
    """The as-built state: equal weights, log-odds evidence."""
    inputs = input_count(families, experts)
    rows = selector_rows(orders)
    weights = np.zeros((rows.total, -(-inputs // LANES) * LANES), np.float32)
    weights[: rows.previous, :inputs] = rates.initial_sum / 4.0 / (0.6 * inputs)  # four of the six sets start with a share
    return Mixer(weights, initial_logits(3 * families), initial_joint_logits(families), initial_match_logits(LENGTH_BUCKETS))


@njit(cache=True, nogil=True, inline="always")
def squash(z):
    """sigma(z), clipped to [P_MIN, 1 - P_MIN]."""
    p = 1.0 / (1.0 + math.exp(-z))
    return min(max(p, P_MIN), 1.0 - P_MIN)


@njit(cache=True, nogil=True)
def sum_rows(weights, selected, out):
    """out := the sum of the selected rows but the first (the node's, which changes at every decision)."""
    for k in range(out.shape[0]):
        out[k] = weights[selected[1], k] + weights[selected[2], k]
    for k in range(out.shape[0]):
        out[k] += weights[selected[3], k] + weights[selected[4], k]
    for k in range(out.shape[0]):
        out[k] += weights[selected[5], k]


@njit(cache=True, nogil=True)
def mix(base, node_weights, x, w):
    """w := base + node_weights; returns sum_k w_k x_k, in eight fixed lanes, so that every caller gets the same bits."""
    n = x.shape[0]
    for k in range(n):
        w[k] = base[k] + node_weights[k]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    for k in range(0, n, 8):
        s0 += w[k] * x[k]
        s1 += w[k + 1] * x[k + 1]
        s2 += w[k + 2] * x[k + 2]
        s3 += w[k + 3] * x[k + 3]
        s4 += w[k + 4] * x[k + 4]
        s5 += w[k + 5] * x[k + 5]
        s6 += w[k + 6] * x[k + 6]
        s7 += w[k + 7] * x[k + 7]
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


@njit(cache=True, nogil=True)
def learn_weights(weights, selected, nodes, steps, x, total):
    """Add every decision's step to its node's row, and their sum to the other selected rows.

    nodes: the path's nodes; steps: RATE * error of each decision; x: its inputs, one row a decision; total: scratch.
    """
    n = total.shape[0]
    total[:] = np.float32(0.0)
    for t in range(steps.shape[0]):
        s = steps[t]
        v = nodes[t]
        for k in range(n):
            d = s * x[t, k]
            weights[v, k] += d
            total[k] += d
    for j in range(1, selected.shape[0]):
        r = selected[j]
        for k in range(n):
            weights[r, k] += total[k]
