"""ngram/match.py against a brute-force twin."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import MatchTwin

from charstat.ngram.match import (
    LENGTH_BUCKETS,
    MAX_LENGTH,
    MIN_MATCH,
    Match,
    ensure_match_room,
    expected_symbol,
    length_bucket,
    new_match,
    observe_symbol,
)

M56 = (1 << 56) - 1


class Probe:
    def __init__(self, match=None):
        self.match = match or new_match()
        self.h1 = 0

    def observe(self, symbol):
        self.h1 = (self.h1 << 7 | symbol) & M56
        observe_symbol(self.match, symbol, np.uint64(self.h1))

    def state(self):
        _, pointer, length = self.match.state.tolist()
        return int(expected_symbol(self.match)), length, pointer if length else None


def twin_state(twin):
    return twin.expected(), twin.length, twin.pointer if twin.length else None


def run(symbols, bits=12):
    size = max(len(symbols), 1)
    probe, twin = Probe(Match(np.zeros(size, np.uint8), np.zeros(1 << bits, np.int32), np.zeros(3, np.int64))), MatchTwin(bits)
    for s in symbols:
        assert probe.state() == twin_state(twin)
        probe.observe(s)
        twin.observe(s)
    assert probe.state() == twin_state(twin)
    return probe


phrases = st.lists(
    st.one_of(st.sampled_from([[1, 2, 3, 4, 5, 6, 7, 8, 9], [0] * 9, [127] * 12, [1, 2, 3]]), st.lists(st.integers(0, 3), max_size=6)),
    max_size=25,
)


@given(phrases, st.sampled_from([1, 2, 12]))
def test_against_the_twin(parts, bits):
    """Tables of two places, where nearly everything collides, to 4,096."""
    run([s for part in parts for s in part], bits)


def test_english(train_text):
    run([ord(c) % 128 for c in train_text[:4000]])


def test_by_hand():
    probe = Probe()
    for c in b"abcdefgXabcdef":
        probe.observe(c)
        assert probe.state() == (-1, 0, None)
    probe.observe(ord("g"))  # seven symbols as before: X is expected
    assert probe.state() == (ord("X"), 7, 7)
    probe.observe(ord("X"))
    assert probe.state() == (ord("a"), 8, 8)
    probe.observe(ord("!"))
    assert probe.state() == (-1, 0, None)


def test_the_longest_match():
    probe = run([7] * (MAX_LENGTH + 100))
    assert probe.state()[:2] == (7, MAX_LENGTH)


def test_a_match_never_looks_ahead():
    """The expected symbol was observed before; it does not depend on what comes next."""
    past = [s % 5 for s in range(60)] + [9] + [s % 5 for s in range(60)]
    ends = []
    for future in ([1] * 20, [2] * 20):
        probe = Probe()
        for s in past:
            probe.observe(s)
        ends.append(probe.state())
        for s in future:
            probe.observe(s)
    assert ends[0] == ends[1]


@given(phrases, st.integers(1, 60))
def test_growing(parts, chunk):
    """A larger table is filled as if it had been there from the start."""
    symbols = [s for part in parts for s in part]
    probe, twin = Probe(Match(np.zeros(4, np.uint8), np.zeros(4, np.int32), np.zeros(3, np.int64))), MatchTwin(2)
    for i, s in enumerate(symbols):
        if i % chunk == 0:
            before = probe.match.ends.size
            probe.match = ensure_match_room(probe.match, chunk)
            assert probe.match.text.size >= i + chunk and probe.match.ends.size >= i + chunk
            if probe.match.ends.size != before:
                twin.resize(probe.match.ends.size.bit_length() - 1)
        probe.observe(s)
        twin.observe(s)
        assert probe.state() == twin_state(twin)
    assert probe.match.text[: len(symbols)].tolist() == symbols


def test_the_table_stops_growing():
    match = ensure_match_room(new_match(), (1 << 22) + 5)
    assert match.ends.size == 1 << 22 and match.text.size >= (1 << 22) + 5
    assert ensure_match_room(match, 5) == match


@pytest.mark.parametrize("length", [*range(140), 399, 400])
def test_length_bucket(length):
    assert length_bucket(length) == oracles.length_bucket(length)
    assert 0 <= length_bucket(length) < LENGTH_BUCKETS


def test_constants():
    assert (MIN_MATCH, MAX_LENGTH, LENGTH_BUCKETS) == (oracles.RUN, oracles.LONGEST_MATCH, 16)


def test_every_bucket_is_used():
    assert {int(length_bucket(n)) for n in range(MIN_MATCH, MAX_LENGTH + 1)} == set(range(LENGTH_BUCKETS))
