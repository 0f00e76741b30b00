"""Which row of each selector set the current position selects (the sets are listed in layout.py)."""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.mixers.brackets import open_row
from charstat.mixers.layout import HIT_LEVELS, MATCH_LEVELS, WORD_PLACES, selector_index
from charstat.mixers.state import END, EXPECTED_SYMBOL, MATCH_BUCKET, START, WORD_PLACE
from charstat.ngram.hashing import SYMBOL_BITS, SYMBOL_MASK, WORD_FEATURES
from charstat.ngram.match import LENGTH_BUCKETS

STATIC_ORDER, CLASS_PLACE, ONLINE_ORDER = (selector_index(name) for name in ("static_order", "class_place", "online_order"))
PREVIOUS, BEFORE, WORD_HITS, CANDIDATES, OPEN = (selector_index(name) for name in ("previous", "before", "word_hits", "candidates", "open"))
CLASS_W1, CLASS_W2, TOPIC_SET = (selector_index(name) for name in ("class_w1", "class_w2", "topic"))
K1, K2, TOPIC = (WORD_FEATURES.index(name) for name in ("k1", "k2", "topic"))
BUCKETS_PER_LEVEL = LENGTH_BUCKETS // (MATCH_LEVELS - 1)


@njit(cache=True, nogil=True, inline="always")
def select_rows(
    selected, first_rows, cursor, history, features, kind, static_order, online_order, word_hits, static_rows, chains
):  # fmt: skip
    """selected[set] := row of the weight matrix, for every set but the node's.

    static_order, online_order: the longest character order with counts, plus 1; 0 if none has any. word_hits: word contexts with static
    counts.
    """
    place = min(cursor[WORD_PLACE], WORD_PLACES - 1)
    previous = np.int64(history[0] & SYMBOL_MASK)
    before = np.int64((history[0] >> np.uint64(SYMBOL_BITS)) & SYMBOL_MASK)
    match_level = 0
    if cursor[EXPECTED_SYMBOL] >= 0:
        match_level = 1 + min(cursor[MATCH_BUCKET] // BUCKETS_PER_LEVEL, MATCH_LEVELS - 2)
    selected[STATIC_ORDER] = first_rows.static_order + static_order * WORD_PLACES + place
    selected[CLASS_PLACE] = first_rows.class_place + np.int64(kind[previous]) * WORD_PLACES + place
    selected[ONLINE_ORDER] = first_rows.online_order + online_order
    selected[PREVIOUS] = first_rows.previous + previous
    selected[BEFORE] = first_rows.before + before
    selected[WORD_HITS] = first_rows.word_hits + min(word_hits, HIT_LEVELS - 1) * MATCH_LEVELS + match_level
    levels = 0  # 0, 1, 2 or 3, more words in each context; a row of a word context is a word
    for f in range(max(chains.first_word, chains.nested_end - 3), chains.nested_end):
        words = static_rows[f, END] - static_rows[f, START]
        levels = 4 * levels + min(words, 2) + (words > 3)
    selected[CANDIDATES] = first_rows.candidates + levels
    selected[OPEN] = first_rows.open + open_row(cursor)
    selected[CLASS_W1] = first_rows.class_w1 + np.int64(features[K1])
    selected[CLASS_W2] = first_rows.class_w2 + np.int64(features[K2])
    selected[TOPIC_SET] = first_rows.topic + np.int64(features[TOPIC])
