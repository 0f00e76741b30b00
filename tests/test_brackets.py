"""mixers/brackets.py: what is open, against a plain reading of the whole text; and the mixture that asks it, against its twin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import MixtureTwin
from streams import fresh

from charstat.counting import build_model
from charstat.mixers.state import OPEN_KIND, OPEN_WORDS

TEXT = 'He said " yes " ( and [ no ] more ) .\n " An open\n “ one ” two ( ' + "words " * 70 + ") end"


@pytest.fixture(scope="module")
def small():
    return build_model(TEXT * 3, order=3, contexts="default", threads=1)


def row(stream):
    kind, words = int(stream.state.cursor[OPEN_KIND]), int(stream.state.cursor[OPEN_WORDS])
    return ("", '"', "(")[kind], sum(words >= edge for edge in (1, 2, 3, 4, 5, 6, 9, 15, 25)) if kind else 0


def test_what_is_open(small):
    stream, twin = fresh(small), MixtureTwin(small)
    seen = set()
    for c in TEXT:
        stream.observe(c)
        twin.symbols.append(small.alphabet.symbol_of[c])
        assert row(stream) == twin._open()
        seen.add(row(stream))
    assert len(seen) >= 14 and ("(", 9) in seen and row(stream) == ("", 0)


@given(st.text(alphabet='ad "“”()[]\n', max_size=80))
def test_any_text(small, text):
    stream, twin = fresh(small), MixtureTwin(small)
    for c in text:
        p = stream.probability(c)
        assert abs(twin.observe(c) - p) < 1e-5
        stream.observe(c)
        assert row(stream) == twin._open()
