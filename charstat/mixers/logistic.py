"""Logistic mixing, learned online: p(bit) = sigma(sum_k w_k x_k) at every node of the decision tree.

    w_k = sum_j W_j[selected_j, k]        seven selector sets share one logit (one net, not seven with a second layer)
    after the bit:  e = bit - p;   W_j[selected_j, k] += rate e x_k;   A_k[state_k] += evidence_rate e w_k

The selectors are: the node; the longest static order that was hit x the place in the word; the class of the previous
character x the place in the word; the longest overlay order that was hit; the previous character; the one before it; how many
word contexts were hit x the length of the match. All decisions of a character are evaluated before any is learned from, so
that the probabilities are those of one distribution.

Logistic mixing: Mahoney, "Adaptive weighing of context models for lossless data compression", 2005 (PAQ6/7). Learning the
inputs' logits as well is the "adaptive probability map" of the same family, one per source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.errors import FormatError
from charstat.mixers.evidence import initial_logits, initial_match_logits
from charstat.ngram.match import LENGTH_BUCKETS
from charstat.tree import CLASSES, SYMBOLS

SELECTORS = 7
WORD_PLACES = 8
HIT_LEVELS, MATCH_LEVELS = 16, 6
LANES = 16  # inputs are padded to a multiple: whole SIMD registers
P_MIN = 1e-5  # of a decision
BIAS = np.float32(0.3)


@dataclass(frozen=True)
class MixerRates:
    """What the mixer can be tuned by. Defaults were chosen on val from character 200,000 to 260,000."""

    weights: float = 2e-4  # the rate of weights in the long run
    boost: float = 4.0  # at the first character it is 1 + boost times that
    boost_chars: float = 2000.0  # after this many characters half of the boost is gone
    evidence: float = 0.6
    initial_evidence: float = 0.8  # initial weights of all sources' evidence together, were 60 % of them active
    initial_chain: float = 0.15  # initial weight of each back-off chain
    initial_expert: float = 0.15  # and of each expert


class Mixer(NamedTuple):
    """The mixer's learned state. K inputs, padded to Kp."""

    weights: np.ndarray  # float32 [selector rows, Kp]
    logits: np.ndarray  # float32 [2 F, STATES]
    match: np.ndarray  # float32 [2 LENGTH_BUCKETS]


class SelectorRows(NamedTuple):
    """First row of each selector set in Mixer.weights."""

    static_order: int
    class_place: int
    overlay_order: int
    previous: int
    before: int
    word_hits: int
    total: int


def selector_rows(orders: int) -> SelectorRows:
    """Where the sets lie. orders: how many character orders there are; "none was hit" is one more."""
    static_order = SYMBOLS
    class_place = static_order + (orders + 1) * WORD_PLACES
    overlay_order = class_place + len(CLASSES) * WORD_PLACES
    previous = overlay_order + orders + 1
    word_hits = previous + 2 * SYMBOLS
    total = word_hits + HIT_LEVELS * MATCH_LEVELS
    return SelectorRows(static_order, class_place, overlay_order, previous, previous + SYMBOLS, word_hits, total)


def input_count(families: int, experts: int) -> int:
    """Static and online evidence of each family, three back-off chains, the match model, the bias, the experts."""
    return 2 * families + 5 + experts


def new_mixer(families: int, orders: int, experts: int, rates: MixerRates) -> Mixer:
    """The as-built state: equal weights, log-odds evidence."""
    inputs = input_count(families, experts)
    rows = selector_rows(orders)
    weights = np.zeros((rows.total, -(-inputs // LANES) * LANES), np.float32)
    weights[:SYMBOLS, :inputs] = rates.initial_evidence / (1.2 * max(1, families))
    weights[:SYMBOLS, 2 * families : 2 * families + 3] = rates.initial_chain
    weights[:SYMBOLS, inputs - experts : inputs] = rates.initial_expert
    return Mixer(weights, initial_logits(2 * families), initial_match_logits(LENGTH_BUCKETS))


def pack(mixer: Mixer) -> np.ndarray:
    """All that a mixer has learned, field by field: float32 [n]."""
    return np.concatenate([part.ravel() for part in mixer])


def unpack(values: np.ndarray, mixer: Mixer, experts: int, expert_weight: float) -> None:
    """Write what pack() took from a mixer without experts into one that has some, or none, and is of the same shape otherwise.

    expert_weight: what the weights of experts begin with, in the node's set. FormatError if the shape was another one.
    """
    inputs = input_count(mixer.logits.shape[0] // 2, 0)
    lanes = -(-inputs // LANES) * LANES
    sizes = [mixer.weights.shape[0] * lanes, mixer.logits.size, mixer.match.size]
    if values.size != sum(sizes):
        raise FormatError("the model's start does not fit this version's mixer: build the model again")
    weights, logits, match = np.split(values, np.cumsum(sizes)[:-1])
    mixer.weights[:, :inputs] = weights.reshape(-1, lanes)[:, :inputs]
    mixer.weights[:SYMBOLS, inputs : inputs + experts] = expert_weight
    mixer.logits[...] = logits.reshape(mixer.logits.shape)
    mixer.match[...] = match


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
        out[k] += weights[selected[5], k] + weights[selected[6], k]


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def mix(base, weights, v, x, w, d):
    """w[d] := base + weights[v]; returns sum_k w[d, k] x[d, k]. reassoc lets the sum run in SIMD lanes."""
    z = np.float32(0.0)
    for k in range(base.shape[0]):
        w[d, k] = base[k] + weights[v, k]
        z += w[d, k] * x[d, k]
    return z


@njit(cache=True, nogil=True)
def learn_weights(weights, selected, path_node, symbol, steps, n, x, total):
    """Add every decision's step to its node's row, and their sum to the other selected rows.

    steps: RATE * error of the symbol's first n decisions; x: their inputs, one row a decision; total: scratch.
    """
    total[:] = np.float32(0.0)
    for d in range(n):
        s = steps[d]
        v = path_node[symbol, d]
        for k in range(total.shape[0]):
            weights[v, k] += s * x[d, k]
        for k in range(total.shape[0]):
            total[k] += s * x[d, k]
    for j in range(1, selected.shape[0]):
        r = selected[j]
        for k in range(total.shape[0]):
            weights[r, k] += total[k]
