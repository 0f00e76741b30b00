"""What a mixture stream holds: the model's tables, the fixed tables of the mixer, and the state of a position in the text.

NamedTuples of arrays, so that compiled kernels can take them as arguments. subtle: in compiled code, taking an array out of a
tuple counts a reference, atomically; kernels take out what they need once, before their loops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charstat.mixers.logistic import SELECTORS, Mixer
from charstat.ngram.hashing import N_FEATURES
from charstat.ngram.match import Match
from charstat.ngram.overlay import Overlay
from charstat.ngram.words import WORD_STATE, SymbolInfo
from charstat.tree import MAX_DEPTH, SYMBOLS, TreeArrays

# Columns of Tables.families, one row a family (ngram/table.py)
KIND, PARAM, REACH, WIDTH, BITS, START_BITS, BUCKET_AT, RECORD_AT, ROW_AT, SUM_AT, SPEED, ALL_WORDS = range(12)
FAMILY_COLUMNS = 12
# Columns of Stream.families
FOUND, FOUND_END, LIST, LIST_LENGTH, SLOT, WORD_ROW, WORD_ROW_END, NEXT_ROW, NEXT_ROW_END, TOUCHED = range(10)
# Stream.at. POSITION counts the symbols of the text, CLOCK all symbols that were learned from.
POSITION, PREPARED, NODE, FIRST_ID, END_ID, PLACE, EXPECTED, LENGTH_BUCKET, TREE_READY, NEXT_SYMBOL, CLOCK, NO_MATCH = range(12)


class Tables(NamedTuple):
    """All static tables of a model, concatenated."""

    families: np.ndarray  # int64 [F, FAMILY_COLUMNS]; SPEED: which count of the overlay's entries; ALL_WORDS: row = word id
    buckets: np.ndarray  # uint32
    records: np.ndarray  # uint64
    rows: np.ndarray  # uint32
    sums: np.ndarray  # uint32
    first_child: np.ndarray  # uint32: the vocabulary's trie (ngram/words.py)
    trie_symbol: np.ndarray  # uint8
    first_id: np.ndarray  # uint32
    words: int


class Fixed(NamedTuple):
    """What never changes while a stream runs."""

    tables: Tables
    tree: TreeArrays
    info: SymbolInfo
    count_states: np.ndarray  # int32 [COUNT_LIMIT + 2] (mixers/evidence.py)
    overlay_states: np.ndarray  # int32 [COUNT_LIMIT + 2]
    ratio_bins: np.ndarray  # int32 [RATIO_STEPS + 2]
    set_rows: np.ndarray  # int64 [6]: SelectorRows
    chains: np.ndarray  # int64 [3]: ends of the characters' back-off chain, start of the words', end of its nested part
    rates: np.ndarray  # float64 [4]: MixerRates


class Stream(NamedTuple):
    """The state of a position in the text, and scratch space. K inputs, padded to Kp."""

    at: np.ndarray  # int64 [12]
    history: np.ndarray  # uint64 [5]: packed symbols and classes (ngram/hashing.py)
    word: np.ndarray  # uint64 [WORD_STATE]
    features: np.ndarray  # uint64 [N_FEATURES]
    families: np.ndarray  # int64 [F, 10]: static rows found, overlay list, slot, rows that continue the prefix, and with NEXT_SYMBOL
    identities: np.ndarray  # uint64 [F]: of the static contexts
    keys: np.ndarray  # uint64 [F]: overlay keys, 0 if the context does not exist yet
    selected: np.ndarray  # int64 [SELECTORS]
    base: np.ndarray  # float32 [Kp]: summed weights of all selectors but the node's
    mass: np.ndarray  # int32 [MAX_DEPTH + 1, 2F]: of every source at the nodes of a path
    tree_mass: np.ndarray  # int32 [2 SYMBOLS, 2F]: at all nodes, and at leaves from LEAF on
    ones: np.ndarray  # int32 [2F]: under the 1-child
    x: np.ndarray  # float32 [MAX_DEPTH, Kp]: inputs
    w: np.ndarray  # float32 [MAX_DEPTH, Kp]: their weights
    states: np.ndarray  # int32 [MAX_DEPTH, 2F + 1]: evidence states; the match model's is -1 where it is silent
    bins: np.ndarray  # int32 [2F]
    shares: np.ndarray  # float32 [2, F]: scratch of the chains
    steps: np.ndarray  # float32 [MAX_DEPTH]
    path_p: np.ndarray  # float64 [MAX_DEPTH]: P(bit = 1); -1 where nothing was evaluated
    total: np.ndarray  # float32 [Kp]
    reach_p: np.ndarray  # float64 [2 SYMBOLS]: probability of reaching a node or leaf
    experts: np.ndarray  # float64 [E, SYMBOLS + 1]: cumulative probabilities of the experts
    overlay: Overlay
    match: Match
    mixer: Mixer


def new_stream(experts: int, overlay: Overlay, match: Match, mixer: Mixer) -> Stream:
    """The state at the start of a text."""
    f, kp = mixer.logits.shape[0] // 2, mixer.weights.shape[1]
    return Stream(
        at=np.zeros(12, np.int64),
        history=np.zeros(5, np.uint64),
        word=np.zeros(WORD_STATE, np.uint64),
        features=np.zeros(N_FEATURES, np.uint64),
        families=np.zeros((f, 10), np.int64),
        identities=np.zeros(f, np.uint64),
        keys=np.zeros(f, np.uint64),
        selected=np.zeros(SELECTORS, np.int64),
        base=np.zeros(kp, np.float32),
        mass=np.zeros((MAX_DEPTH + 1, 2 * f), np.int32),
        tree_mass=np.zeros((2 * SYMBOLS, 2 * f), np.int32),
        ones=np.zeros(2 * f, np.int32),
        x=np.zeros((MAX_DEPTH, kp), np.float32),
        w=np.zeros((MAX_DEPTH, kp), np.float32),
        states=np.zeros((MAX_DEPTH, 2 * f + 1), np.int32),
        bins=np.zeros(2 * f, np.int32),
        shares=np.zeros((2, f), np.float32),
        steps=np.zeros(MAX_DEPTH, np.float32),
        path_p=np.zeros(MAX_DEPTH),
        total=np.zeros(kp, np.float32),
        reach_p=np.zeros(2 * SYMBOLS),
        experts=np.zeros((experts, SYMBOLS + 1)),
        overlay=overlay,
        match=match,
        mixer=mixer,
    )
