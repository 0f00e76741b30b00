"""ngram/contexts.py (names) and ngram/hashing.py (identities), the hashes against Python integers with explicit masks."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import M56, M57, M64

from charstat.alphabet import Alphabet
from charstat.errors import ContextError
from charstat.ngram.contexts import (
    ORDER_STEPS,
    PRESETS,
    WORD_FIELDS,
    check_order,
    class_map,
    parse_context,
    select_contexts,
)
from charstat.ngram.hashing import (
    CHARS,
    CLASSES_OF,
    N_FEATURES,
    SPARSE,
    WORDS,
    char_identity,
    hash57,
    low_symbols,
    mix57,
    mix64,
    push_symbol,
    word_hash,
    word_identity,
)

u64 = st.one_of(st.integers(0, M64), st.sampled_from([0, 1, M56, M57, 1 << 63, M64, M64 - 1]))
u57 = st.one_of(st.integers(0, M57), st.sampled_from([0, 1, 1 << 56, M57]))
symbols = st.lists(st.integers(0, 127), max_size=40)


def history_of(past, classes):
    history = np.zeros(5, np.uint64)
    for s in past:
        push_symbol(history, s, classes[s])
    return history


# Names.


@pytest.mark.parametrize(
    ("name", "kind", "param", "reach", "bits", "fields"),
    [
        ("o0", CHARS, 0, 0, "0 exact", "nothing"),
        ("o1", CHARS, 1, 1, "7 exact", "the last character"),
        ("o8", CHARS, 8, 8, "56 exact", "the last 8 characters"),
        ("o9", CHARS, 9, 9, "57 hashed", "the last 9 characters"),
        ("o24", CHARS, 24, 24, "57 hashed", "the last 24 characters"),
        ("c14", CLASSES_OF, 14, 14, "57 hashed", "the classes of the last 14 characters, the last character"),
        ("s1.3", SPARSE, 0b101, 3, "14 exact", "the characters at distances 1, 3"),
        ("s8", SPARSE, 1 << 7, 8, "7 exact", "the characters at distances 8"),
        ("p", WORDS, 0, 0, "40 hashed", "the prefix of the current word"),
        ("p.w1.w2", WORDS, 0b11, 0, "40 hashed", "the prefix of the current word, the previous word, the word before w1"),
    ],
)
def test_parse(name, kind, param, reach, bits, fields):
    c = parse_context(name)
    assert (c.name, c.kind, c.param, c.reach, c.identity_width, c.fields) == (name, kind, param, reach, bits, fields)
    assert c.is_words == (kind == WORDS)
    assert c.nested == (name in ("p", "p.w1.w2"))


@pytest.mark.parametrize(
    "name",
    ["", "o", "o25", "o-1", "o1.5", "o²", "o٣", "o" + "9" * 5000, "c0", "c17", "s", "s0", "s9", "s1.1", "s1.01", "s01", "s1.", "s1..3", "p.", "p.w5",
     "p.w1.w1", "p.w1.", "pw1", "q3", "words ", "O3", "default.", "chars,o3"],
)  # fmt: skip
def test_no_such_context(name):
    with pytest.raises(ContextError, match="no context is named"):
        parse_context(name)


@pytest.mark.parametrize("order", [0, -1, 25, 99])
def test_orders_out_of_range(order):
    with pytest.raises(ContextError, match=r"1\.\.24"):
        check_order(order)
    with pytest.raises(ContextError, match=r"1\.\.24"):
        select_contexts("default", order)


def names(contexts="default", order=8):
    return [c.name for c in select_contexts(contexts, order)]


def test_presets():
    orders = ["o0", "o1", "o2", "o3", "o4", "o5", "o6", "o8"]
    assert names("chars") == orders
    assert names()[:8] == orders and set(names()[8:]) == set(PRESETS["default"])
    assert names("words", 5) == [*orders[:6], "p", "p.w1", "p.w1.w2", "p.w1.w2.w3", *names("words", 5)[10:]]
    assert names("chars", 14) == [*orders, "o11", "o14"]
    assert names("chars", 7) == [*orders[:-1], "o7"]
    assert names("chars", 1) == ["o0", "o1"]
    assert set(PRESETS["words"]) < set(PRESETS["plain"]) < set(PRESETS["wide"])
    assert set(PRESETS["words"]) < set(PRESETS["default"]) < set(PRESETS["wide"])
    assert set(PRESETS["plain"]) - set(PRESETS["default"]) == {"c14", "p.shapes"}
    for preset in PRESETS:
        for order in (1, 8, 13, 24):
            chosen = select_contexts(preset, order)
            kinds = [c.kind for c in chosen]
            orders = [c.param for c in chosen if c.kind == CHARS]
            assert kinds[: len(orders)] == [CHARS] * len(orders) and CHARS not in kinds[len(orders) :]
            words = [c for c in chosen if c.is_words]
            assert list(chosen[len(chosen) - len(words) :]) == words
            nested = [c.name for c in words if c.nested]  # they back off to one another, so they come first, rising
            assert nested == ["p", "p.w1", "p.w1.w2", "p.w1.w2.w3"][: len(nested)] and [c.name for c in words[: len(nested)]] == nested
            assert orders == sorted(orders) and orders[-1] == order and set(orders) <= {*ORDER_STEPS, order}


def test_lists():
    assert names("o3,o1", 8) == ["o1", "o3"]  # names character orders: none are added
    assert names("p.w1", 2) == ["o0", "o1", "o2", "p.w1"]
    assert names(" s1.3 , p ", 1) == ["o0", "o1", "s1.3", "p"]
    assert names("chars,o3,o10", 2) == ["o0", "o1", "o2", "o3", "o10"]
    assert set(names("words,wide", 3)) == set(names("wide", 3))
    assert len(select_contexts("p.w1.w2,p.w2.w1,s1.3,s3.1", 1)) == 4
    for bad in ("", ",", "o1,,o2", "o1,", "nope", "default,nope"):
        with pytest.raises(ContextError):
            select_contexts(bad)


def test_every_field_has_a_name():
    assert tuple(WORD_FIELDS) == oracles.FIELDS and len(WORD_FIELDS) == N_FEATURES
    for field, meaning in WORD_FIELDS.items():
        assert meaning in parse_context(f"p.{field}").fields


def test_class_map():
    a = Alphabet.from_text("Hello World 42! ab AB 01 \t\n.,")
    assert class_map(a).tolist() == oracles.class_symbols(a)
    mapped = {c: class_map(a)[a.symbol_of[c]] for c in a.chars}
    assert mapped["a"] == mapped["o"] and mapped["A"] == mapped["W"] and mapped["0"] == mapped["4"]
    assert len({mapped[c] for c in "aA0 \n.,!\t"}) == 9


# Hashes.


@given(u64)
def test_mix64(x):
    assert int(mix64(np.uint64(x))) == oracles.mix64(x)


@given(u57)
def test_mix57(x):
    y = int(mix57(np.uint64(x)))
    assert y == oracles.mix57(x)
    assert 0 <= y <= M57
    assert oracles.unmix57(y) == x  # a bijection: it can be undone


def test_mix57_on_all_short_contexts():
    """No two of the contexts of orders 0..2 in one table share an identity."""
    assert len({int(mix57(np.uint64(x))) for x in range(1 << 14)}) == 1 << 14


@given(u64, u64, u64)
def test_hash57(a, b, c):
    h = int(hash57(np.uint64(a), np.uint64(b), np.uint64(c)))
    assert h == oracles.hash57(a, b, c)
    assert 0 <= h <= M57


@given(st.integers(0, M56), st.integers(0, 8))
def test_low_symbols(packed, k):
    assert int(low_symbols(np.uint64(packed), k)) == packed % 128**k


@given(symbols)
def test_push_symbol(past):
    """The packed history against a list: h1 the last eight, h2 and h3 those before, c1 and c2 the classes."""
    classes = [(s * 7 + 3) % 128 for s in range(128)]
    history = history_of(past, classes)
    padded = [0] * 24 + past
    mapped = [0] * 24 + [classes[s] for s in past]
    words = [
        oracles.pack(padded[-8:]),
        oracles.pack(padded[-16:-8]),
        oracles.pack(padded[-24:-16]),
        oracles.pack(mapped[-8:]),
        oracles.pack(mapped[-16:-8]),
    ]
    assert history.tolist() == words


ALL_CHAR_CONTEXTS = [
    parse_context(n)
    for n in (*(f"o{k}" for k in range(25)), *(f"c{k}" for k in range(1, 17)), "s1.3", "s1.4", "s2", "s8", "s1.2.3.4.5.6.7.8")
]


@pytest.mark.parametrize("context", ALL_CHAR_CONTEXTS, ids=lambda c: c.name)
@given(past=st.lists(st.integers(0, 127), min_size=24, max_size=30))
def test_char_identity(context, past):
    classes = [(s * 7 + 3) % 128 for s in range(128)]
    identity = int(char_identity(context.kind, context.param, history_of(past, classes)))
    assert identity == oracles.char_identity(context.kind, context.param, past, classes)
    assert 0 <= identity <= M57


@pytest.mark.parametrize("context", ALL_CHAR_CONTEXTS, ids=lambda c: c.name)
@given(past=st.lists(st.integers(0, 127), min_size=24, max_size=24), at=st.integers(0, 23), other=st.integers(0, 127))
def test_an_identity_depends_on_its_context_only(context, past, at, other):
    classes = list(range(128))
    changed = [*past[:at], other, *past[at + 1 :]]
    same = char_identity(context.kind, context.param, history_of(past, classes)) == char_identity(
        context.kind, context.param, history_of(changed, classes)
    )
    distance = 24 - at
    inside = (context.param >> (distance - 1) & 1) if context.kind == SPARSE else distance <= context.param
    assert same == (not inside or other == past[at])


@given(st.integers(0, (1 << N_FEATURES) - 1), st.lists(u64, min_size=N_FEATURES, max_size=N_FEATURES))
def test_word_hash(mask, features):
    h = (oracles.SEED + mask) & M64
    for j, value in enumerate(features):
        if mask >> j & 1:
            h = oracles.mix64(h ^ value)
    assert int(word_hash(mask, np.array(features, np.uint64))) == h
    assert int(word_identity(np.uint64(h))) == h >> 24
