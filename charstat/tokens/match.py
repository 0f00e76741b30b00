"""The match model of tokens: an earlier occurrence of the latest tokens in the stream itself, and the token that followed it.

As ngram/match.py, with ids of 16 bits: a table holds where each run of MIN_MATCH tokens last ended.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.ngram.hashing import mix64

MIN_MATCH = 4  # the newest word of a history (contexts.py)
MAX_LENGTH = 400
LENGTH_BUCKETS = 16
FIRST_TEXT = 1 << 12
LARGEST_TABLE = 1 << 22


class TokenMatch(NamedTuple):
    text: np.ndarray  # uint16 [room]: the leaves observed
    ends: np.ndarray  # int64 [2**b]: position after the last occurrence of a run, 0 if none
    state: np.ndarray  # int64 [3]: length of text, pointer to the expected leaf, length of the match (0: none)

    def copied(self) -> TokenMatch:
        return TokenMatch(*(part.copy() for part in self))


def new_match() -> TokenMatch:
    return TokenMatch(np.zeros(FIRST_TEXT, np.uint16), np.zeros(FIRST_TEXT, np.int64), np.zeros(3, np.int64))


def ensure_match_room(match: TokenMatch, steps: int) -> TokenMatch:
    """A match model with room for `steps` more tokens."""
    needed = int(match.state[0]) + steps
    text, ends = match.text, match.ends
    if needed > text.size:
        text = np.zeros(max(needed, 2 * text.size), np.uint16)
        text[: match.text.size] = match.text
    if needed > ends.size and ends.size < LARGEST_TABLE:
        ends = np.zeros(min(LARGEST_TABLE, 1 << needed.bit_length()), np.int64)
        _index(text, int(match.state[0]), ends)
    return TokenMatch(text, ends, match.state)


@njit(cache=True, nogil=True, inline="always")
def _bucket(text, n, size):
    """Where the run that ends before n stands."""
    word = np.uint64(0)
    for i in range(n - MIN_MATCH, n):
        word = (word << np.uint64(16)) | np.uint64(text[i])
    return np.int64(mix64(word) & np.uint64(size - 1))


@njit(cache=True, nogil=True)
def _index(text, n, ends):
    for i in range(MIN_MATCH, n + 1):
        ends[_bucket(text, i, ends.shape[0])] = i


@njit(cache=True, nogil=True, inline="always")
def expected_leaf(match):
    """The leaf that the match expects next; -1 if there is no match."""
    return np.int64(match.text[match.state[1]]) if match.state[2] > 0 else np.int64(-1)


@njit(cache=True, nogil=True, inline="always")
def length_bucket(length):
    """0..LENGTH_BUCKETS - 1 of a match's length: steps of 1 below 12, of 8 from there on."""
    return max(length - MIN_MATCH, np.int64(0)) if length < 12 else min(8 + ((length - 12) >> 3), np.int64(LENGTH_BUCKETS - 1))


@njit(cache=True, nogil=True)
def observe_leaf(match, leaf, enter):
    """Append a leaf and follow the match, or look for one. enter: later tokens may match the run that it ends."""
    text, ends, state = match.text, match.ends, match.state
    n = state[0]
    if state[2] > 0 and np.int64(text[state[1]]) == leaf:
        state[1] += 1
        state[2] = min(state[2] + 1, MAX_LENGTH)
    else:
        state[2] = 0
    text[n] = np.uint16(leaf)
    n += 1
    state[0] = n
    if n < MIN_MATCH:
        return
    b = _bucket(text, n, ends.shape[0])
    if state[2] == 0:
        at, length = ends[b], 0
        while length < at and length < MAX_LENGTH and text[at - 1 - length] == text[n - 1 - length]:
            length += 1
        if length >= MIN_MATCH:
            state[1], state[2] = at, length
    if enter:
        ends[b] = n
