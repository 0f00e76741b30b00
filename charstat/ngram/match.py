"""The match model: finds an earlier occurrence of the latest symbols in the stream itself and predicts the symbol that followed it.

A hash table holds the position at which each run of MIN_MATCH symbols last ended. As long as the text continues as it did after that
position, the match gets longer; a symbol other than the expected one ends it. The expected symbol and the bucket of the length are one
input of the mixer, which learns how far to trust each length. Idea: the match model of lpaq (Mahoney 2007).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.ngram.hashing import SYMBOL_BITS, SYMBOL_SHIFT

MIN_MATCH = 7  # symbols; at most 8, the packed history's first word
MAX_LENGTH = 400
LENGTH_BUCKETS = 16
FIRST_TEXT = 1 << 12
FIRST_TABLE = 1 << 12


class Match(NamedTuple):
    text: np.ndarray  # uint8 [room]: the symbols observed
    ends: np.ndarray  # int32 [2**b]: position after the last occurrence of a run, 0 if none
    state: np.ndarray  # int64 [3]: length of text, pointer to the expected symbol, length of the match (0: none)


def new_match() -> Match:
    return Match(np.zeros(FIRST_TEXT, np.uint8), np.zeros(FIRST_TABLE, np.int32), np.zeros(3, np.int64))


def end_match(match: Match) -> Match:
    """The same without a current match: a new text starts. Matches with the earlier text remain possible."""
    match.state[2] = 0
    return match


def ensure_match_room(match: Match, steps: int) -> Match:
    """A match model with room for `steps` more symbols."""
    needed = int(match.state[0]) + steps
    text, ends = match.text, match.ends
    if needed > text.size:
        text = np.zeros(max(needed, 2 * text.size), np.uint8)
        text[: match.text.size] = match.text
    if needed > ends.size and ends.size < 1 << 22:
        ends = np.zeros(min(1 << 22, 1 << needed.bit_length()), np.int32)
        index_text(text, int(match.state[0]), ends)
    return Match(text, ends, match.state)


@njit(cache=True, nogil=True, inline="always")
def _bucket(packed, size):
    return np.int64(((packed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) & np.uint64(size - 1))


@njit(cache=True, nogil=True)
def index_text(text, n, ends):
    """Enter the first n symbols into an empty table, as if they had been observed one by one."""
    packed = np.uint64(0)
    mask = np.uint64((1 << (SYMBOL_BITS * MIN_MATCH)) - 1)
    for i in range(n):
        packed = ((packed << SYMBOL_SHIFT) | np.uint64(text[i])) & mask
        if i + 1 >= MIN_MATCH:
            ends[_bucket(packed, ends.shape[0])] = np.int32(i + 1)


@njit(cache=True, nogil=True, inline="always")
def length_bucket(length):
    """0..LENGTH_BUCKETS - 1 of a match length: steps of 2 below 16, of 4 below 32, of 16 above."""
    if length < 16:
        return max(np.int64(0), (length - MIN_MATCH + 1) >> 1)
    if length < 32:
        return 5 + ((length - 16) >> 2)
    return min(9 + ((length - 32) >> 4), LENGTH_BUCKETS - 1)


@njit(cache=True, nogil=True, inline="always")
def match_length(match):
    """How long the current match is; 0 if there is none."""
    return match.state[2]


@njit(cache=True, nogil=True, inline="always")
def expected_symbol(match):
    """The symbol that the match expects next; -1 if there is no match."""
    return np.int64(match.text[match.state[1]]) if match.state[2] > 0 else np.int64(-1)


@njit(cache=True, nogil=True, inline="always")
def follow_symbol(match, symbol, h1):
    """Append a symbol and follow the match, or look for one; returns the bucket of the run that it ends, -1 if the text is too short.

    h1: the packed history after it (hashing.push_symbol).
    """
    text, ends, state = match.text, match.ends, match.state
    n = state[0]
    if state[2] > 0 and np.int64(text[state[1]]) == symbol:
        state[1] += 1
        state[2] = min(state[2] + 1, MAX_LENGTH)
    else:
        state[2] = 0
    text[n] = np.uint8(symbol)
    n += 1
    state[0] = n
    if n < MIN_MATCH:
        return np.int64(-1)
    b = _bucket(h1 & np.uint64((1 << (SYMBOL_BITS * MIN_MATCH)) - 1), ends.shape[0])
    if state[2] == 0:
        at = np.int64(ends[b])
        if at > 0:
            length = 0
            while length < at and length < MAX_LENGTH and text[at - 1 - length] == text[n - 1 - length]:
                length += 1
            if length >= MIN_MATCH:
                state[1] = at
                state[2] = length
    return b


@njit(cache=True, nogil=True, inline="always")
def observe_symbol(match, symbol, h1):
    """Append a symbol (follow_symbol), and enter the run that it ends: later symbols may match it."""
    b = follow_symbol(match, symbol, h1)
    if b >= 0:
        match.ends[b] = np.int32(match.state[0])
