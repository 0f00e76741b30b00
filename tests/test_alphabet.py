"""charstat/alphabet.py: which characters get symbols, what the others cost."""

import json
import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charstat import alphabet as alphabet_module
from charstat.alphabet import CODE_POINTS, Alphabet, count_code_points
from charstat.errors import CorpusError

anything = st.text(st.characters(exclude_categories=()))  # lone surrogates, too


def test_abracadabra():
    a = Alphabet.from_text("abracadabra")
    assert a.chars == "brcda" and a.size == 5 and a.rare == {}
    assert a.encode("abracadabra").tolist() == [4, 0, 1, 4, 2, 4, 3, 4, 0, 1, 4]
    assert a.encode("xa\n").tolist() == [127, 4, 127]
    assert a.encode("").tolist() == []
    assert a.rare_probability("x") == 1 / (CODE_POINTS - 5)  # nothing rare was seen: all is left to the unseen


def test_empty_text():
    with pytest.raises(CorpusError, match="empty"):
        Alphabet.from_text("")


def check_counts_and_symbols(text, threads):
    counts = count_code_points(text, threads)
    assert counts.dtype == np.int64 and counts.shape == (CODE_POINTS,)
    assert {chr(p): int(counts[p]) for p in np.flatnonzero(counts)} == Counter(text)
    if text:
        a = Alphabet.from_text(text, threads)
        assert a == Alphabet.from_counts(counts)
        assert sorted(a.chars) == sorted(set(text))[: len(a.chars)] if len(set(text)) <= 127 else a.size == 127
        symbols = a.encode(text, threads)
        assert symbols.dtype == np.uint8 and symbols.shape == (len(text),)
        assert [a.chars[s] if s < 127 else None for s in symbols] == [c if c in a.chars else None for c in text]


@pytest.mark.parametrize(("short", "span"), [(1 << 10, 1 << 20), (0, 1 << 20), (0, 1), (0, 7)])
@given(text=anything, widest=st.sampled_from(["", "\xff", "\u6226", "\ud83d", "\U0001f41d", "\U0010ffff"]), threads=st.integers(1, 5))
def test_counts_and_symbols_of_any_text(short, span, text, widest, threads):
    """Strings of 1, 2 and 4 bytes a character, lone surrogates, by numpy and by the kernels, on as many threads as it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alphabet_module, "SHORT_CHARS", short)
        patch.setattr(alphabet_module, "SPAN_CHARS", span)
        check_counts_and_symbols(text + widest, threads)
        narrow = text.encode("latin-1", "ignore").decode("latin-1")
        check_counts_and_symbols(narrow, threads)


@pytest.mark.parametrize("widest", ["", "\xe9", "\u6226", "\ude00", "\U0001f41d"])
@pytest.mark.parametrize("threads", [None, 1, 2, 3])
def test_a_text_for_several_threads(widest, threads):
    text = ("abracadabra, " * 300 + widest) * 1_000
    assert len(text) > 3 * alphabet_module.SPAN_CHARS
    counts = count_code_points(text, threads)
    assert {chr(p): int(counts[p]) for p in np.flatnonzero(counts)} == Counter(text)
    a = Alphabet.from_text(text, threads)
    assert np.array_equal(a.encode(text, threads), np.tile(a.encode(text[:3901] if widest else text[:3900]), 1_000))


def test_only_text_is_read():
    class Named(str):
        def __str__(self):
            return "another text"

    a = Alphabet.from_text("abracadabra")
    for n in (1, 1_000):
        assert np.array_equal(a.encode(Named("abrac" * n)), a.encode("abrac" * n))
        assert np.array_equal(count_code_points(np.str_("abrac" * n)), count_code_points("abrac" * n))
        for wrong in (b"abrac" * n, list("abrac" * n), None):
            with pytest.raises(TypeError, match="a text must be a str, not"):
                a.encode(wrong)
        for wrong in (list("abrac" * n), None):
            with pytest.raises(TypeError, match="a text must be a str, not"):
                count_code_points(wrong)


def test_numba_still_reads_strings():
    """If this fails, charstat still works, from a copy of the text: find numba's new name for it, in alphabet.py."""
    from numba.cpython.unicode import _get_code_point

    assert alphabet_module.code_point_at is _get_code_point and alphabet_module._readable is str


def test_a_numba_that_does_not(tmp_path):
    code = """
import numba.cpython.unicode
del numba.cpython.unicode._get_code_point
from charstat import alphabet
assert alphabet._readable is not str
alphabet.SPAN_CHARS = 1000
for widest in ("", "\\xe9", "\\u6226", "\\ude00", "\\U0001f41d"):
    text = ("abracadabra" + widest) * 500
    a = alphabet.Alphabet.from_text(text, 2)
    assert "".join(a.chars[s] for s in a.encode(text, 2)) == text
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})


@given(st.lists(st.integers(1, 6), min_size=128, max_size=200))
def test_the_127_most_frequent(counts):
    text = "".join(chr(0x100 + 3 * i) * n for i, n in enumerate(counts))
    ranked = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
    a = Alphabet.from_text(text)
    assert set(a.chars) == {c for c, _ in ranked[:127]}
    assert a.rare == dict(ranked[127:])


@pytest.fixture(scope="module")
def crowded() -> Alphabet:
    """127 characters with symbols, three without: seen 5, 2 and 2 times."""
    return Alphabet.from_text("".join(chr(0x4E00 + i) for i in range(127)) * 9 + "a" * 5 + "b" * 2 + "c" * 2)


def test_rare_characters(crowded):
    assert crowded.size == 127 and crowded.rare == {"a": 5, "b": 2, "c": 2}
    whole = 5 + 2 + 2 + 3 + 1
    assert crowded.rare_probabilities == {"a": 5 / whole, "b": 2 / whole, "c": 2 / whole}
    assert list(crowded.rare_probabilities) == ["a", "b", "c"]
    unseen = crowded.rare_probability("\U0010ffff")
    assert unseen == crowded.rare_probability("\0") > 0
    assert math.isclose(sum(crowded.rare_probabilities.values()) + unseen * (CODE_POINTS - 127 - 3), 1.0, abs_tol=1e-12)


@given(anything)
def test_probabilities_of_rare_characters_add_up(text):
    if not text:
        return
    a = Alphabet.from_text(text)
    unseen = next(chr(p) for p in range(0x20000, 0x30000) if chr(p) not in text)
    total = math.fsum(a.rare_probabilities.values()) + a.rare_probability(unseen) * (CODE_POINTS - a.size - len(a.rare))
    assert math.isclose(total, 1.0, abs_tol=1e-9)


@given(anything)
def test_round_trip(text):
    if text:
        a = Alphabet.from_text(text)
        b = Alphabet.from_dict(json.loads(json.dumps(a.to_dict())))
        assert a == b and a.tree.code == b.tree.code


def test_round_trip_of_adjacent_surrogates():
    """Two lone surrogates that stand side by side in the alphabet are two characters, not one pair (json joins them)."""
    a = Alphabet.from_text("\ud83d" * 3 + "\ude00" * 2)
    assert "\ud83d\ude00" in a.chars or "\ude00\ud83d" in a.chars
    for text in ("\ud83d" * 3 + "\ude00" * 2, "\ud83d" * 2 + "\ude00" * 3):
        a = Alphabet.from_text(text)
        assert Alphabet.from_dict(json.loads(json.dumps(a.to_dict()))) == a


@pytest.mark.parametrize(
    "damage",
    [
        {"chars": "brcd"}, {"chars": "brcdaa"}, {"chars": "brcdd"}, {"chars": None}, {"chars": 7}, {"tree": "(.."}, {"tree": ""}, {"tree": None},
        {"rare": None}, {"rare": {"x": "many"}}, {"rare": []},
    ],
)  # fmt: skip
def test_damaged(damage):
    good = Alphabet.from_text("abracadabra").to_dict()
    Alphabet.from_dict(good)
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        Alphabet.from_dict({**good, **damage})
    with pytest.raises(KeyError):
        Alphabet.from_dict({k: v for k, v in good.items() if k not in damage})


def test_english(train_text):
    a = Alphabet.from_text(train_text)
    depth = a.tree.arrays.depth
    counts = Counter(train_text)
    mean = sum(n * depth[a.symbol_of[c]] for c, n in counts.items()) / len(train_text)
    assert 4.0 < mean < 6.0  # five decisions a character
    assert a == Alphabet.from_text("".join(reversed(train_text)))  # the order of the text is of no account
