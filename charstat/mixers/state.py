"""What a mixture stream holds: the model's tables, what never changes, and the state of a position in the text.

NamedTuples of arrays, so that compiled kernels can take them as arguments. subtle: in compiled code, taking an array out of a
tuple counts a reference, atomically, unless the kernel does without numba's runtime (compiled.py).

F contexts are mixed, each a family of its own: character contexts are the families 0 .. first_word, word contexts those after.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charstat.mixers.last_stage import MAPS
from charstat.mixers.layout import ChainBounds, InputColumns, MixerLayout, SelectorRows
from charstat.mixers.logistic import Mixer
from charstat.ngram.classes import TOPIC_STATE, WordClasses
from charstat.ngram.hashing import N_FEATURES
from charstat.ngram.match import Match
from charstat.ngram.overlay import Overlay
from charstat.ngram.words import WORD_STATE, SymbolInfo
from charstat.tree import MAX_DEPTH, SYMBOLS, TreeArrays

# Columns of Tables.families
KIND, PARAM, REACH, WIDTH, BITS, START_BITS, BUCKET_AT, RECORD_AT, ROW_AT, SUM_AT, COUNT_SHIFT, ALL_WORDS = range(12)
FAMILY_COLUMNS = 12
START, END = range(2)  # columns of a range of rows
SLOT, LIST, LENGTH = range(3)  # columns of Stream.online
# Stream.cursor. POSITION counts the symbols of the text, CLOCK all that were learned from; ARTICLE is CLOCK at the last title, or 0.
POSITION, CLOCK, PREPARED, TREE_READY, TRIE_NODE, FIRST_ID, END_ID, WORD_PLACE, PATH_SYMBOL = range(9)
EXPECTED_SYMBOL, MATCH_BUCKET, MATCH_OFF, OPEN_KIND, OPEN_WORDS, ARTICLE = range(9, 15)
CURSOR_FIELDS = 15


class Tables(NamedTuple):
    """All static tables of a model, concatenated (ngram/table.py, ngram/words.py)."""

    families: np.ndarray  # int64 [F, FAMILY_COLUMNS]. COUNT_SHIFT: which online count is read; ALL_WORDS: row = word id
    buckets: np.ndarray  # uint32
    records: np.ndarray  # uint64
    rows: np.ndarray  # uint32
    sums: np.ndarray  # uint32
    first_child: np.ndarray  # uint32: the vocabulary's trie
    trie_symbol: np.ndarray  # uint8
    first_id: np.ndarray  # uint32
    words: int


class Fixed(NamedTuple):
    """What never changes while a stream runs."""

    tables: Tables
    tree: TreeArrays
    info: SymbolInfo
    brackets: np.ndarray  # uint8 [128]: what a symbol opens or closes (mixers/brackets.py)
    classes: WordClasses
    count_states: np.ndarray  # int32 [COUNT_LIMIT + 2] (mixers/evidence.py)
    online_states: np.ndarray  # int32 [COUNT_LIMIT + 2]
    ratio_bins: np.ndarray  # int32 [RATIO_STEPS + 2]
    columns: InputColumns
    first_rows: SelectorRows
    chains: ChainBounds
    rates: np.ndarray  # float64: layout.MixerRates, field by field


class Stream(NamedTuple):
    """The state of a position in the text, and scratch space. K inputs, padded to Kp."""

    cursor: np.ndarray  # int64 [CURSOR_FIELDS]
    history: np.ndarray  # uint64 [5]: packed symbols and classes (ngram/hashing.py)
    word: np.ndarray  # uint64 [WORD_STATE]
    features: np.ndarray  # uint64 [N_FEATURES]
    topic: np.ndarray  # int32 [TOPIC_STATE] (ngram/classes.py)
    static_rows: np.ndarray  # int64 [F, 2]: rows of the current context
    word_rows: np.ndarray  # int64 [F, 2]: of a word context: rows of the words that start with the current prefix
    next_rows: np.ndarray  # int64 [F, 2]: of those, the rows of words that go on with PATH_SYMBOL
    online: np.ndarray  # int64 [F, 3]: slot, list and its length in the overlay
    touched: np.ndarray  # int64 [F]: what was read ahead of its use, so that the reads are not optimized away
    identities: np.ndarray  # uint64 [F]: of the static contexts
    keys: np.ndarray  # uint64 [F]: overlay keys, 0 if the context does not exist yet
    selected: np.ndarray  # int64 [selector sets]: the row that each set selects
    base: np.ndarray  # float32 [Kp]: summed weights of all selectors but the node's
    mass: np.ndarray  # int32 [MAX_DEPTH + 1, 2F]: of every source at the nodes of a path
    tree_mass: np.ndarray  # int32 [2 SYMBOLS, 2F]: at all nodes, and at leaves from LEAF on
    ones: np.ndarray  # int32 [2F]: under the 1-child
    x: np.ndarray  # float32 [MAX_DEPTH, Kp]: inputs
    w: np.ndarray  # float32 [MAX_DEPTH, Kp]: their weights
    states: np.ndarray  # int32 [MAX_DEPTH, 2F]: evidence states
    match_states: np.ndarray  # int32 [MAX_DEPTH]: states of the match model, -1 where it is silent
    bins: np.ndarray  # int32 [2F]
    shares: np.ndarray  # float32 [2, F]: scratch of the back-off chains
    steps: np.ndarray  # float32 [MAX_DEPTH]
    path_p: np.ndarray  # float64 [MAX_DEPTH]: the mixer's P(bit = 1); -1 where nothing was evaluated
    map_rows: np.ndarray  # int64 [MAPS]: where the last stage's rows start (mixers/last_stage.py)
    points: np.ndarray  # int64 [MAX_DEPTH, MAPS]: the points below the mixer's probabilities
    parts: np.ndarray  # float64 [MAX_DEPTH]: how far they are from there to the next point; -1: not refined
    partial: np.ndarray  # float32 [Kp]: sums, scratch of mix and learn_weights
    reach_p: np.ndarray  # float64 [2 SYMBOLS]: probability of reaching a node or leaf
    experts: np.ndarray  # float64 [E, SYMBOLS + 1]: cumulative probabilities of the experts
    overlay: Overlay
    match: Match
    mixer: Mixer


def new_stream(layout: MixerLayout, overlay: Overlay, match: Match, mixer: Mixer) -> Stream:
    """The state at the start of a text."""
    f, kp = layout.families, layout.width
    return Stream(
        cursor=np.zeros(CURSOR_FIELDS, np.int64),
        history=np.zeros(5, np.uint64),
        word=np.zeros(WORD_STATE, np.uint64),
        features=np.zeros(N_FEATURES, np.uint64),
        topic=np.zeros(TOPIC_STATE, np.int32),
        static_rows=np.zeros((f, 2), np.int64),
        word_rows=np.zeros((f, 2), np.int64),
        next_rows=np.zeros((f, 2), np.int64),
        online=np.zeros((f, 3), np.int64),
        touched=np.zeros(f, np.int64),
        identities=np.zeros(f, np.uint64),
        keys=np.zeros(f, np.uint64),
        selected=np.zeros(len(layout.first_rows), np.int64),
        base=np.zeros(kp, np.float32),
        mass=np.zeros((MAX_DEPTH + 1, 2 * f), np.int32),
        tree_mass=np.zeros((2 * SYMBOLS, 2 * f), np.int32),
        ones=np.zeros(2 * f, np.int32),
        x=np.zeros((MAX_DEPTH, kp), np.float32),
        w=np.zeros((MAX_DEPTH, kp), np.float32),
        states=np.zeros((MAX_DEPTH, 2 * f), np.int32),
        match_states=np.full(MAX_DEPTH, -1, np.int32),
        bins=np.zeros(2 * f, np.int32),
        shares=np.zeros((2, f), np.float32),
        steps=np.zeros(MAX_DEPTH, np.float32),
        path_p=np.zeros(MAX_DEPTH),
        map_rows=np.zeros(MAPS, np.int64),
        points=np.zeros((MAX_DEPTH, MAPS), np.int64),
        parts=np.zeros(MAX_DEPTH),
        partial=np.zeros(kp, np.float32),
        reach_p=np.zeros(2 * SYMBOLS),
        experts=np.zeros((layout.experts, SYMBOLS + 1)),
        overlay=overlay,
        match=match,
        mixer=mixer,
    )
