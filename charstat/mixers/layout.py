"""The mixer's layout: its inputs and its selector sets, by name. The one place that knows where each of them stands.

At every decision the mixer computes a logit z = w . x from K inputs. The weights w are a sum of rows of one matrix: each selector
set contributes the row that the current position selects (logistic.py).

    inputs           columns of the weight matrix            INPUTS, in this order
    selector sets    groups of rows of the weight matrix     SELECTOR_SETS, in this order

To add an input: one entry in INPUTS and the kernel that fills its columns, called in kernels.fill_inputs.
To add a selector set: one entry in SELECTOR_SETS and the line in selectors.select_rows that picks its row.

`charstat inspect --mixer` prints both tables. layout.digest() is stored beside a warm start, so that weights learned with one layout
are never read with another. Idea of recipes for inputs and weight sets: cmix's AddMixer (Knoll, 2014).
"""

from __future__ import annotations

import hashlib
import json
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from charstat.mixers.evidence import COUNT_EDGES, RATIO_EDGES
from charstat.ngram.classes import SMALL, TOPICS
from charstat.ngram.contexts import Context
from charstat.ngram.hashing import CHARS
from charstat.ngram.match import LENGTH_BUCKETS
from charstat.tree import CLASSES, SYMBOLS

LANES = 16  # inputs are padded to a multiple of this: whole SIMD registers
WORD_PLACES = 8  # places in a word: 0, 1, .. 6, 7 and later
HIT_LEVELS = 16  # word contexts that were hit: 0, 1, .. 14, 15 and more
MATCH_LEVELS = 6  # no match, and five lengths
CANDIDATE_ROWS = 64  # four levels, three contexts
OPEN_ROWS = 21  # nothing open; a quotation or a parenthesis x ten lengths (brackets.py)
SHAPES = 256  # of words without a class (words.word_shape)


@dataclass(frozen=True)
class MixerRates:
    """Tuning of the mixer. The defaults were chosen on val from character 200,000 to 260,000."""

    weights: float = 2e-4  # learning rate of the weights in the long run
    boost: float = 4.0  # the first character is learned at 1 + boost times that rate
    boost_chars: float = 2000.0  # after so many characters half of the boost is gone
    settle_chars: float = 100_000.0  # from here to twice as many the rate falls to half
    evidence: float = 0.3  # learning rate of the evidence's logits
    initial_evidence: float = 0.8  # initial weights of all evidence together, if 60 % of the sources have any
    initial_chain: float = 0.15  # initial weight of each back-off chain
    initial_expert: float = 0.15  # initial weight of each expert


@dataclass(frozen=True)
class Input:
    """A group of inputs. count: how many columns it has; initial: the weight it starts with in the node's set."""

    name: str
    about: str
    count: Callable[[MixerLayout], int] = lambda layout: 1
    initial: Callable[[MixerLayout, MixerRates], float] = lambda layout, rates: 0.0


@dataclass(frozen=True)
class SelectorSet:
    """A group of weight rows, of which one is selected. rows: how many there are."""

    name: str
    about: str
    rows: Callable[[MixerLayout], int]


def _evidence_weight(layout: MixerLayout, rates: MixerRates) -> float:
    return rates.initial_evidence / (1.2 * max(1, layout.families))


INPUTS = (
    Input("static", "evidence of each context's static counts, the stream's own added", lambda m: m.families, _evidence_weight),
    Input("online", "evidence of each context's online counts", lambda m: m.families, _evidence_weight),
    Input("order_chain", "back-off chain: character orders, shortest first", initial=lambda m, r: r.initial_chain),
    Input("nested_chain", "the same chain continued with p, p.w1, p.w1.w2, ...", initial=lambda m, r: r.initial_chain),
    Input("word_chain", "the same chain continued with all other word contexts", initial=lambda m, r: r.initial_chain),
    Input("match", "the match model's expected bit", initial=_evidence_weight),
    Input("bias", "a constant", initial=_evidence_weight),
    Input("experts", "the advice of each expert", lambda m: m.experts, lambda m, r: r.initial_expert),
)
assert INPUTS[-1].name == "experts"  # a warm start is stored without them: logistic.unpack takes the columns before them

SELECTOR_SETS = (
    SelectorSet("node", "the node of the code tree", lambda m: SYMBOLS),
    SelectorSet("static_order", "longest order with static counts x place in the word", lambda m: (m.orders + 1) * WORD_PLACES),
    SelectorSet("class_place", "class of the previous character x place in the word", lambda m: len(CLASSES) * WORD_PLACES),
    SelectorSet("online_order", "longest order with online counts", lambda m: m.orders + 1),
    SelectorSet("previous", "the previous character", lambda m: SYMBOLS),
    SelectorSet("before", "the character before the previous one", lambda m: SYMBOLS),
    SelectorSet("word_hits", "word contexts with static counts x length of the match", lambda m: HIT_LEVELS * MATCH_LEVELS),
    SelectorSet("candidates", "words that can still follow in each of the three longest nested contexts", lambda m: CANDIDATE_ROWS),
    SelectorSet("open", "open quotation or parenthesis x words since it opened", lambda m: OPEN_ROWS),
    SelectorSet("class_w1", "the class k1 of the previous word, or its shape", lambda m: 1 + SMALL + SHAPES),
    SelectorSet("class_w2", "the class k2 of the word before it, or its shape", lambda m: 1 + SMALL + SHAPES),
    SelectorSet("topic", "the topic", lambda m: 1 + TOPICS),
)

InputColumns = namedtuple("InputColumns", [i.name for i in INPUTS])  # first column of each group; numba reads it by name
SelectorRows = namedtuple("SelectorRows", [s.name for s in SELECTOR_SETS])  # first row of each set


def selector_index(name: str) -> int:
    """Which of the selector sets has this name."""
    return SelectorRows._fields.index(name)


class ChainBounds(NamedTuple):
    """Where the back-off chains change from one kind of context to the next: indices into the mixed contexts."""

    orders_end: int  # character orders are 0 .. orders_end
    first_word: int  # word contexts start here
    nested_end: int  # p, p.w1, p.w1.w2, ... end here


@dataclass(frozen=True)
class MixerLayout:
    """The layout for the contexts that are mixed (character orders first, word contexts last) and a number of experts."""

    contexts: tuple[Context, ...]
    experts: int = 0

    @property
    def families(self) -> int:
        """How many contexts are mixed."""
        return len(self.contexts)

    @cached_property
    def orders(self) -> int:
        """How many character orders are mixed."""
        return sum(c.kind == CHARS for c in self.contexts)

    @cached_property
    def chains(self) -> ChainBounds:
        first_word = sum(not c.is_words for c in self.contexts)
        return ChainBounds(self.orders, first_word, first_word + sum(c.nested for c in self.contexts))

    @cached_property
    def columns(self) -> InputColumns:
        """First column of each group of inputs."""
        return InputColumns(*_starts([i.count(self) for i in INPUTS]))

    @cached_property
    def inputs(self) -> int:
        """How many inputs there are."""
        return sum(i.count(self) for i in INPUTS)

    @property
    def width(self) -> int:
        """Columns of the weight matrix: the inputs, padded to a multiple of LANES."""
        return -(-self.inputs // LANES) * LANES

    @cached_property
    def first_rows(self) -> SelectorRows:
        """First row of each selector set."""
        return SelectorRows(*_starts([s.rows(self) for s in SELECTOR_SETS]))

    @cached_property
    def rows(self) -> int:
        """Rows of the weight matrix."""
        return sum(s.rows(self) for s in SELECTOR_SETS)

    def initial_weights(self, rates: MixerRates) -> np.ndarray:
        """float32 [rows, width]: the node's set has every input's initial weight, the other sets start at 0."""
        weights = np.zeros((self.rows, self.width), np.float32)
        node = weights[self.first_rows.node : self.first_rows.node + SYMBOLS]
        for group, first in zip(INPUTS, self.columns, strict=True):
            node[:, first : first + group.count(self)] = group.initial(self, rates)
        return weights

    def digest(self) -> str:
        """SHA-256 of all that gives learned state its meaning, the experts aside: two equal digests mean the same layout."""
        plain = MixerLayout(self.contexts)
        about = {
            "contexts": [astuple(c) for c in self.contexts],
            "inputs": [(i.name, i.count(plain)) for i in INPUTS],
            "selector_sets": [(s.name, s.rows(plain)) for s in SELECTOR_SETS],
            "static": "tables and stream",  # what is counted as static evidence
            "evidence": (COUNT_EDGES, RATIO_EDGES, LENGTH_BUCKETS),
            "lanes": LANES,
        }
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def describe(self, rates: MixerRates | None = None) -> dict:
        """Both tables as JSON values: {inputs: [{name, about, first_column, columns, initial_weight}], selector_sets: [{name, about,
        first_row, rows}], rows, width, digest, rates}."""
        rates = rates or MixerRates()
        return {
            "inputs": [
                {"name": i.name, "about": i.about, "first_column": at, "columns": i.count(self), "initial_weight": i.initial(self, rates)}
                for i, at in zip(INPUTS, self.columns, strict=True)
            ],
            "selector_sets": [
                {"name": s.name, "about": s.about, "first_row": at, "rows": s.rows(self)}
                for s, at in zip(SELECTOR_SETS, self.first_rows, strict=True)
            ],
            "rows": self.rows,
            "width": self.width,
            "digest": self.digest(),
            "rates": asdict(rates),
        }


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *accumulate(sizes)][:-1]
