"""What every source of the mixture says of one character: read from a stream's arrays, in plain Python. It is not a fast path.

    z_d = sum_k w_dk x_dk                 the mixer's logit at decision d of the character's path: evidence x, weight w, contribution w x
    logit_d = z_d + last_stage_d          of the probability that the last stage makes of it (last_stage.py)
    bits = sum_d log2(1 + e^-logit_d)     and, of a rare character, the bits of P(char | escape)

Signs are turned towards the character: what is positive speaks for the side on which it lies. Nothing is computed that could differ from
score(): the arrays are those that path_probability has just filled, and the probability is the one that it returned.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from charstat.mixers.kernels import NOT_EVALUATED, path_probability
from charstat.mixers.last_stage import MAPS, NOT_REFINED, SHARE
from charstat.mixers.state import END, EXPECTED_SYMBOL, KIND, LENGTH, PARAM, START, WORD_PLACE
from charstat.ngram.hashing import CHARS, WORD_FEATURES
from charstat.ngram.overlay import UNIT
from charstat.tree import ESCAPE

if TYPE_CHECKING:
    from charstat.alphabet import Alphabet
    from charstat.mixers.layout import MixerLayout
    from charstat.mixers.state import Fixed, Stream


class Source(NamedTuple):
    """One input of the mixer. group: which of layout.INPUTS; name: the context of static and online, else the group's own."""

    group: str
    name: str


class Decision(NamedTuple):
    """One binary decision on the character's path. mixer + last_stage + even = the log odds of `probability`."""

    node: int
    bit: int
    probability: float  # of the side on which the character lies
    mixer: float  # the sum of all contributions
    last_stage: float  # what the last stage adds to the logit, and the clipping of the mixer's
    even: float  # the logit of a node that is too unlikely to be asked about: its leaves share evenly


class Explanation(NamedTuple):
    """One character before it is observed. D decisions, K sources. Evidence, weights and counts are nan-free; a silent source has 0."""

    char: str
    symbol: int
    probability: float
    rare_probability: float  # P(char | escape); 1 for a character with a symbol of its own
    decisions: tuple[Decision, ...]
    sources: tuple[Source, ...]
    evidence: np.ndarray  # float64 [D, K]
    weights: np.ndarray  # float64 [D, K]
    seen: np.ndarray  # float64 [K]: how often the source saw its context, 0 for those that count nothing; online counts fade
    followed: np.ndarray  # float64 [K]: of these, followed by this character
    static_order: int  # the longest character order with static counts; -1 for none
    online_order: int
    match_length: int
    expected: str | None  # the character that the match expects; None without one, and for a rare one
    word_place: int  # characters of the current word so far
    features: dict[str, int]  # of the words before (hashing.WORD_FIELDS): the classes and the topic, 0 for none

    @property
    def bits(self) -> float:
        """What score() charges for it."""
        return float(-np.log2(self.probability))

    @property
    def contributions(self) -> np.ndarray:
        """float64 [D, K]: evidence times weight; a decision's sum is its `mixer`."""
        return self.evidence * self.weights


def sources_of(layout: MixerLayout, experts: tuple[str, ...] = ()) -> tuple[Source, ...]:
    """The columns of a layout, in order. experts: what to call them."""
    contexts = [c.name for c in layout.contexts]
    names = {"static": contexts, "online": contexts, "experts": [*experts] or [f"expert {e + 1}" for e in range(layout.experts)]}
    return tuple(Source(group, name) for group in layout.columns._fields for name in names.get(group, [group]))


def explain(fixed: Fixed, s: Stream, layout: MixerLayout, alphabet: Alphabet, char: str) -> Explanation:
    """What a stream's sources say of `char` now; it learns nothing and stays where it is."""
    symbol = alphabet.symbol_of.get(alphabet.text(char), ESCAPE)
    probability = float(path_probability(fixed, s, symbol))
    rare = alphabet.rare_probability(char) if symbol == ESCAPE else 1.0
    tree, inputs, depth = fixed.tree, layout.inputs, int(fixed.tree.depth[symbol])
    signs = np.where(tree.path_bit[symbol, :depth] == 1, 1.0, -1.0)
    evidence, weights = np.zeros((depth, inputs)), np.zeros((depth, inputs))
    decisions = []
    for d in range(depth):
        node, sign = int(tree.path_node[symbol, d]), float(signs[d])
        if s.path_p[d] == NOT_EVALUATED:
            p, mixer, even = float(tree.leaf_share[node]), 0.0, sign * _logit(float(tree.leaf_share[node]))
        else:
            evidence[d], weights[d] = sign * s.x[d, :inputs].astype(float), s.w[d, :inputs]
            p, mixer, even = _refined(s, d), float(evidence[d] @ weights[d]), 0.0
        last_stage = 0.0 if even else sign * _logit(p) - mixer
        decisions.append(Decision(node, int(sign > 0), p if sign > 0 else 1.0 - p, mixer, last_stage, even))
    counts = 2 * layout.families
    scale = np.where(np.arange(counts) < counts // 2, 1.0, float(UNIT))
    seen, followed = np.zeros(inputs), np.zeros(inputs)
    seen[:counts], followed[:counts] = s.mass[0] / scale, s.mass[depth] / scale
    expected = int(s.cursor[EXPECTED_SYMBOL])
    features = {name: int(s.features[j]) for j, name in enumerate(WORD_FEATURES) if name[0] in "kK" or name == "topic"}
    return Explanation(
        char, symbol, probability * rare, rare, tuple(decisions), sources_of(layout), evidence, weights, seen, followed,
        _longest(fixed, s.static_rows[:, END] > s.static_rows[:, START]), _longest(fixed, s.online[:, LENGTH] > 0),
        int(s.match.state[2]) if expected >= 0 else 0, alphabet.chars[expected] if 0 <= expected < alphabet.size else None,
        int(s.cursor[WORD_PLACE]), features,
    )  # fmt: skip


def _refined(s: Stream, d: int) -> float:
    """P(bit = 1) of decision d, as last_stage.refine left it."""
    p, part = float(s.path_p[d]), float(s.parts[d])
    if part == NOT_REFINED:
        return p
    q = 0.0
    for j in range(MAPS):
        at = int(s.points[d, j])
        q += (1.0 - part) * float(s.mixer.maps[at]) + part * float(s.mixer.maps[at + 1])
    return (1.0 - MAPS * SHARE) * p + SHARE * q


def _logit(p: float) -> float:
    return math.log(p / (1.0 - p))


def _longest(fixed: Fixed, found: np.ndarray) -> int:
    """The longest of the character orders whose contexts were found; -1 for none."""
    families = fixed.tables.families
    return int(families[found & (families[:, KIND] == CHARS), PARAM].max(initial=-1))
