"""charstat/alphabet.py: which characters get symbols, what the others cost."""

import json
import math
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


@pytest.mark.parametrize("chunk", [1, 3, 1 << 22])
@given(text=anything)
def test_counts_and_symbols_of_any_text(chunk, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alphabet_module, "CHUNK_CHARS", chunk)
        counts = count_code_points(text)
        assert {chr(p): int(counts[p]) for p in np.flatnonzero(counts)} == Counter(text)
        if text:
            a = Alphabet.from_counts(counts)
            assert sorted(a.chars) == sorted(set(text))[: len(a.chars)] if len(set(text)) <= 127 else a.size == 127
            assert [a.chars[s] if s < 127 else None for s in a.encode(text)] == [c if c in a.chars else None for c in text]


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
