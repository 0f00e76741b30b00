"""Whether a quotation or a parenthesis is open, and for how many words: what a selector set asks (layout.py).

Text inside a quotation or a parenthesis ends differently from other text, and the longer it has been open, the sooner it closes. One is
followed at a time: the one that opened last. A line break closes it, and so does its length: past LONGEST_WORDS a sign was missed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.alphabet import Alphabet
from charstat.mixers.state import OPEN_KIND, OPEN_WORDS
from charstat.tree import SYMBOLS

NOTHING, QUOTE, OPENING, CLOSING, ENDING = range(5)  # what a symbol does
ACTIONS = {'"': QUOTE, "“": QUOTE, "”": QUOTE, "(": OPENING, "[": OPENING, ")": CLOSING, "]": CLOSING, "\n": ENDING}
NONE_OPEN, QUOTE_OPEN, PARENTHESIS_OPEN = range(3)
OPEN_LEVELS = 10  # 0, 1, .. 5 words, 6 to 8, 9 to 14, 15 to 24, more
LONGEST_WORDS = 60


def bracket_actions(alphabet: Alphabet) -> np.ndarray:
    """What each symbol does: uint8 [128]."""
    actions = np.zeros(SYMBOLS, np.uint8)
    for symbol, char in enumerate(alphabet.chars):
        actions[symbol] = ACTIONS.get(char, NOTHING)
    return actions


@njit(cache=True, nogil=True, inline="always")
def follow_brackets(cursor, action, word_ended):
    """Update the cursor's OPEN_KIND and OPEN_WORDS for a symbol with this action. word_ended: whether it ended a word."""
    if action != NOTHING:
        cursor[OPEN_WORDS] = 0
        if action == QUOTE:
            cursor[OPEN_KIND] = NONE_OPEN if cursor[OPEN_KIND] == QUOTE_OPEN else QUOTE_OPEN
        elif action == OPENING:
            cursor[OPEN_KIND] = PARENTHESIS_OPEN
        else:
            cursor[OPEN_KIND] = NONE_OPEN
    elif word_ended and cursor[OPEN_KIND] != NONE_OPEN:
        cursor[OPEN_WORDS] += 1
        if cursor[OPEN_WORDS] > LONGEST_WORDS:
            cursor[OPEN_KIND] = cursor[OPEN_WORDS] = 0


@njit(cache=True, nogil=True, inline="always")
def open_row(cursor):
    """0 if nothing is open, else 1 + kind x OPEN_LEVELS + level."""
    if cursor[OPEN_KIND] == NONE_OPEN:
        return np.int64(0)
    words = cursor[OPEN_WORDS]
    level = words if words < 6 else 6 if words < 9 else 7 if words < 15 else 8 if words < 25 else 9
    return 1 + (cursor[OPEN_KIND] - 1) * OPEN_LEVELS + level
