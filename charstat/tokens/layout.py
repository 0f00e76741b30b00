"""The token mixer's inputs and selector sets, by name, as mixers/layout.py has those of the mixer of characters.

At every node of the tree (tree.py) the mixer computes a logit z = w . x; the weights are the sum of one row from each selector set. With F
contexts and E experts there are 2 F + 6 + E inputs:

    static     F   evidence of each context's counts, the stream's own added (mixers/evidence.py)
    online     F   evidence of each context's recent counts
    discount       absolute discounting down the orders, o8 .. o1, then the token's own frequency; logit of the share of the right side
    order_chain    Dirichlet back-off up the orders (mixers/back_off.py), from the token's own frequency
    word_chain     the same, continued with skips and words
    match          the match model's expected token
    bias           a constant
    node           how often this stream went right here
    experts    E   what the advice says

    node           the node                                                          V rows
    orders         longest order with static counts x longest with online counts     (F_o + 1)**2
    previous       the previous token                                                V
    match_hits     length of the match, if any, x contexts with static counts        17 x 16
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np

from charstat.mixers.evidence import COUNT_EDGES, RATIO_EDGES
from charstat.mixers.layout import LANES
from charstat.tokens.contexts import TokenContext
from charstat.tokens.match import LENGTH_BUCKETS

HIT_LEVELS = 16


@dataclass(frozen=True)
class TokenRates:
    """Tuning of the mixer, chosen on val from character 120,000, 300,000 and 400,000, 30,000 each (BPE 2,048, 20 M characters counted)."""

    weights: float = 6e-4  # learning rate of the weights in the long run
    boost: float = 4.0  # the first token is learned at 1 + boost times that rate
    boost_tokens: float = 4000.0  # after so many tokens half of the boost is gone
    warm_weights: float = 4e-4  # learning rate after a warm start, without a boost
    evidence: float = 0.6  # learning rate of the evidence's logits
    discount: float = 0.9  # of each count
    node_least: float = 20.0  # tokens that the counted frequency of a node is worth
    node_most: float = 30.0  # tokens that a node remembers
    initial_evidence: float = 0.9  # initial weights of all evidence together, if 60 % of the sources have any
    initial_chain: float = 0.17  # initial weight of each chain
    initial_expert: float = 0.3  # initial weight of each expert


class Columns(NamedTuple):
    """First column of each group of inputs."""

    static: int
    online: int
    discount: int
    order_chain: int
    nested_chain: int  # mixers/back_off.py has two chains after the orders; here they are one
    word_chain: int
    match: int
    bias: int
    node: int
    experts: int


class Rows(NamedTuple):
    """First row of each selector set, and the number of rows."""

    node: int
    orders: int
    previous: int
    match_hits: int
    end: int


@dataclass(frozen=True)
class TokenLayout:
    """The layout for these contexts (orders first, rising), a vocabulary and a number of experts."""

    contexts: tuple[TokenContext, ...]
    vocab_size: int
    experts: int = 0

    @property
    def families(self) -> int:
        return len(self.contexts)

    @property
    def orders(self) -> int:
        """How many of the contexts are orders."""
        return sum(c.order > 0 for c in self.contexts)

    @property
    def columns(self) -> Columns:
        f = self.families
        return Columns(0, f, 2 * f, 2 * f + 1, 2 * f + 2, *range(2 * f + 2, 2 * f + 7))

    @property
    def inputs(self) -> int:
        return self.columns.experts + self.experts

    @property
    def width(self) -> int:
        """Columns of the weight matrix: the inputs, padded to a multiple of LANES."""
        return -(-self.inputs // LANES) * LANES

    @property
    def rows(self) -> Rows:
        v, o = self.vocab_size, (self.orders + 1) ** 2
        return Rows(0, v, v + o, 2 * v + o, 2 * v + o + (1 + LENGTH_BUCKETS) * HIT_LEVELS)

    def initial_weights(self, rates: TokenRates) -> np.ndarray:
        """float32 [rows, width]: the node's set has every input's initial weight, the other sets start at 0."""
        weights, c = np.zeros((self.rows.end, self.width), np.float32), self.columns
        node = weights[: self.rows.orders]
        node[:, : c.discount] = rates.initial_evidence / (1.2 * self.families)
        node[:, c.discount : c.match] = rates.initial_chain
        node[:, c.match] = rates.initial_evidence / (1.2 * self.families)
        node[:, c.experts : self.inputs] = rates.initial_expert
        return weights

    def digest(self) -> str:
        """SHA-256 of all that gives learned state its meaning, the experts aside."""
        plain = TokenLayout(self.contexts, self.vocab_size)
        about = {
            "contexts": [astuple(c) for c in self.contexts],
            "columns": plain.columns,
            "rows": plain.rows,
            "evidence": (COUNT_EDGES, RATIO_EDGES, LENGTH_BUCKETS),
            "lanes": LANES,
        }
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()
