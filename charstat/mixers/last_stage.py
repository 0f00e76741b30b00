"""The last stage: a decision's probability, corrected by how often the mixer was right before in similar places.

Two maps look at the mixer's probability p of a decision, each in another context:

    map 0    the node and the previous character
    map 1    the node and the last two characters, hashed

    z = ln(p / (1 - p)) lies between two of the POINTS of the context's row, a probability each;  q_j = what map j says, interpolated
    p' = (1 - 2 SHARE) p + SHARE (q_0 + q_1)
    after the bit: both points move towards it by RATE, each by its part of the interpolation

Nodes that are hardly reached are left alone. A row starts as the identity, so a map that has seen nothing changes nothing. The mixer
learns from p, not from p'.
Adaptive probability maps: Mahoney, "Adaptive weighing of context models for lossless data compression", 2005 (PAQ6/7).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from charstat.ngram.hashing import SYMBOL_BITS, SYMBOL_MASK, mix64
from charstat.tree import SYMBOLS

MAPS = 2
SHARE = 0.3  # of each map in the probability
RATE = 0.02
REFINED_FROM = 0.01  # below this probability of a node, p stays as it is: a whole tree has a hundred such nodes, and they hardly matter
NOT_REFINED = -1.0
LIMIT, POINTS_PER_UNIT = 8.0, 2.0
POINTS = 33  # from -LIMIT to LIMIT
TOP = LIMIT - 1e-6  # subtle: the point above must exist, too
HASHED_BITS = 15
HASHED_ROWS = 1 << HASHED_BITS
FIRST_HASHED = SYMBOLS * SYMBOLS  # rows of map 0 come first: previous character x node
ROWS = FIRST_HASHED + HASHED_ROWS
LAST_TWO = np.uint64((1 << (2 * SYMBOL_BITS)) - 1)
SPREAD = 20251  # the nodes of one context lie apart: odd, near HASHED_ROWS / golden ratio


def new_maps() -> np.ndarray:
    """float32 [ROWS * POINTS]: all rows the identity."""
    z = np.arange(POINTS) / POINTS_PER_UNIT - LIMIT
    return np.tile((1.0 / (1.0 + np.exp(-z))).astype(np.float32), ROWS)


@njit(cache=True, nogil=True, inline="always")
def select_maps(map_rows, history):
    """Where the rows of both maps' contexts start, the node aside: int64 [MAPS]."""
    map_rows[0] = np.int64(history[0] & SYMBOL_MASK) * SYMBOLS
    map_rows[1] = np.int64(mix64(history[0] & LAST_TWO) >> np.uint64(64 - HASHED_BITS))


@njit(cache=True, nogil=True, inline="always")
def refine(p, v, d, map_rows, maps, points, parts):
    """p' of decision d at node v, from the mixer's p; leaves in points[d] and parts[d] what `learn_maps` moves."""
    z = min(max(math.log(p / (1.0 - p)), -TOP), TOP)
    place = (z + LIMIT) * POINTS_PER_UNIT
    below = np.int64(place)
    part = place - below
    points[d, 0] = (map_rows[0] + v) * POINTS + below
    points[d, 1] = (FIRST_HASHED + ((map_rows[1] + v * SPREAD) & (HASHED_ROWS - 1))) * POINTS + below
    parts[d] = part
    q = 0.0
    for j in range(MAPS):
        q += (1.0 - part) * maps[points[d, j]] + part * maps[points[d, j] + 1]
    return (1.0 - MAPS * SHARE) * p + SHARE * q


@njit(cache=True, nogil=True, inline="always")
def learn_maps(bit, d, maps, points, parts):
    """Move the points of decision d towards its bit."""
    for j in range(MAPS):
        at, part = points[d, j], parts[d]
        maps[at] += np.float32(RATE * (1.0 - part) * (bit - maps[at]))
        maps[at + 1] += np.float32(RATE * part * (bit - maps[at + 1]))
