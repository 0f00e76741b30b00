"""Every table against a brute-force count, character contexts of all orders and word contexts; layout, lookups, sums of tables."""

import itertools
from collections import Counter

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import char_context_identities, char_counts, table_dict

from charstat.alphabet import Alphabet
from charstat.cpu.backend import CPUBackend
from charstat.errors import MergeError
from charstat.ngram.classes import no_classes
from charstat.ngram.contexts import parse_context, select_contexts
from charstat.ngram.hashing import mix64, unmix64
from charstat.ngram.table import MAX_COUNT, CountTable, assemble, find_context, identity_bits, merge_tables
from charstat.ngram.words import Vocabulary, model_symbol_info

ARRAYS = ("buckets", "records", "rows", "sums")
CHAR_NAMES = [*(f"o{k}" for k in range(25)), "c1", "c2", "c8", "c9", "c14", "c16", "s1.3", "s1.4", "s2", "s8", "s1.2.3.4.5.6.7.8"]
CHAR_CONTEXTS = tuple(parse_context(name) for name in CHAR_NAMES)
WORD_NAMES = [c.name for c in select_contexts("wide", 1) if c.is_words] + [f"p.{field}" for field in oracles.FIELDS]
WORD_CONTEXTS = tuple(parse_context(name) for name in dict.fromkeys(WORD_NAMES))
NO_CLASSES = no_classes()
ALPHABET = Alphabet.from_text("abcABC012 \n.'aabb  ")  # é and 戦 are rare

letters = st.text(alphabet="ab \né", max_size=60)
words = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "ab",
            "aé",
            "戦",
            "Ab",
            "A",
            "0a",
            "12",
            "'b",
            ".",
            "",
            "abc" * 11,
            "abc" * 11 + "a",
            "b" * 31,
            "b" * 32,
            "b" * 33,
            "B" * 70,
        ]
    ),
    max_size=14,
)
texts = st.one_of(
    letters,
    st.builds(
        lambda w, seps: "".join(a + b for a, b in zip(w, seps, strict=False)),
        words,
        st.lists(st.sampled_from(" \n"), min_size=14, max_size=14),
    ),
)


def count(
    text, history="", contexts=CHAR_CONTEXTS, alphabet=ALPHABET, threads=1, budget=None, classes=NO_CLASSES, overlap=False
) -> dict[str, CountTable | Vocabulary]:
    """The backend's tables by name; the vocabulary as "words"."""
    symbols = alphabet.encode(history + text)
    backend = CPUBackend(threads, budget, overlap)
    parts = backend.count(symbols, len(history), contexts, model_symbol_info(alphabet), oracles.no_phase, classes)
    return {"words" if isinstance(p, Vocabulary) else p.context.name: p for p in parts}


def assert_same(a: CountTable, b: CountTable):
    assert (a.context, a.bits, a.start_bits) == (b.context, b.bits, b.start_bits)
    for name in ARRAYS:
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None and y is None) or (x.dtype == y.dtype and np.array_equal(x, y)), (a.context.name, name)


def assert_layout(table: CountTable):
    """Contexts rise by identity, rows by symbol; every context is found, others are not."""
    identities, starts = table.context_identities().tolist(), table.starts().tolist()
    assert identities == sorted(set(identities)) and starts == sorted(starts)
    assert starts[0] == 0 and starts[-1] == table.n_rows == len(table.symbols()) and len(identities) == table.n_contexts
    assert (table.counts() > 0).all()
    width = identity_bits(table.context)
    absent = [i ^ 1 << b for i in identities[:20] for b in (0, 3, width - 1)] + [0, (1 << width) - 1]
    known = set(identities)
    present = [(identity, (i, *starts[i : i + 2])) for i, identity in enumerate(identities)]
    for identity, wanted in [*present, *((i, (-1, 0, 0)) for i in absent if i not in known)]:
        found = find_context(np.uint64(identity), width, table.bits, table.start_bits, table.buckets, 0, table.records, 0)
        assert found == wanted
    for a, b in itertools.pairwise(starts):
        inside = table.symbols()[a:b].tolist()
        assert inside == sorted(set(inside)) and inside
    assert table.n_bytes == sum(x.nbytes for x in (table.buckets, table.records, table.rows, table.sums) if x is not None)


def assert_char_table(table, text, history="", alphabet=ALPHABET):
    wanted, identity = char_counts(text, history, alphabet, table.context), char_context_identities(text, history, alphabet, table.context)
    assert table.n_contexts == len(wanted)  # no two contexts share a row range
    assert table_dict(table) == {identity[c]: {oracles.symbol(s, alphabet): n for s, n in row.items()} for c, row in wanted.items()}


def assert_word_table(table, vocabulary, text, history="", alphabet=ALPHABET, classes=NO_CLASSES):
    wanted, identity = oracles.word_counts(text, history, alphabet, table.context, classes)
    ids = {w: i for i, w in enumerate(oracles.vocabulary(history + text, alphabet))}
    assert table.n_contexts == len(wanted)
    assert table_dict(table) == {identity[c]: {ids[w]: n for w, n in row.items()} for c, row in wanted.items()}
    assert vocabulary.size == len(ids)


def test_abracadabra():
    a = Alphabet.from_text("abracadabra")
    table = count("abracadabra", alphabet=a, contexts=(parse_context("o1"),))["o1"]
    assert (table.n_contexts, table.n_rows) == (5, 7)
    of = a.symbol_of
    wanted = {"a": {"b": 2, "c": 1, "d": 1}, "b": {"r": 2}, "c": {"a": 1}, "d": {"a": 1}, "r": {"a": 2}}
    assert table_dict(table) == {oracles.mix57(of[c]): {of[s]: n for s, n in row.items()} for c, row in wanted.items()}
    assert table.rows.tolist() == [n << 7 | s for i in sorted(table_dict(table)) for s, n in sorted(table_dict(table)[i].items())]
    assert_layout(table)


def test_order_0_is_the_histogram(train_text):
    a = Alphabet.from_text(train_text)
    table = count(train_text, alphabet=a, contexts=(parse_context("o0"),))["o0"]
    assert table_dict(table) == {0: {a.symbol_of[c]: n for c, n in sorted(Counter(train_text).items())}}


@given(text=texts, history=texts)
def test_character_contexts(text, history):
    for table in count(text, history).values():
        assert_char_table(table, text, history)
        assert_layout(table)


@given(text=texts, history=texts)
def test_word_contexts(text, history):
    parts = count(text, history, WORD_CONTEXTS)
    vocabulary = parts.pop("words")
    assert len(parts) == len(WORD_CONTEXTS)
    for table in parts.values():
        assert_word_table(table, vocabulary, text, history)
        assert_layout(table)


def test_english(train_text, english):
    """The same on real text, in all contexts of the wide preset, with a history and rare characters."""
    history, text = english[5_000:8_000] + "戦 ", english[8_000:14_000].replace("q", "–") + " ∑戦 x" * 3
    a = Alphabet.from_text(train_text)
    contexts = select_contexts("wide", 14)
    parts = count(text, history, contexts, a, threads=2)
    vocabulary = parts.pop("words")
    assert set(parts) == {c.name for c in contexts}
    for table in parts.values():
        if table.context.is_words:
            assert_word_table(table, vocabulary, text, history, a)
        else:
            assert_char_table(table, text, history, a)


@given(
    text=texts,
    history=st.text(alphabet="ab ", max_size=12),
    threads=st.integers(2, 3),
    budget=st.sampled_from([None, 1, 64, 400]),
    overlap=st.booleans(),
)
@settings(max_examples=15)
def test_threads_and_budgets_change_nothing(text, history, threads, budget, overlap):
    """Several threads, and a key buffer of a few keys, so that the text is passed over many times; words beside characters or after them."""
    contexts = CHAR_CONTEXTS[:12] + CHAR_CONTEXTS[-3:] + WORD_CONTEXTS[:4]
    one, other = count(text, history, contexts), count(text, history, contexts, threads=threads, budget=budget, overlap=overlap)
    assert list(one) == list(other)
    for name, part in one.items():
        if name == "words":
            assert all(np.array_equal(x, y) for x, y in zip(part, other[name], strict=True))
        else:
            assert_same(part, other[name])


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("budget", [None, 100_000])
def test_threads_and_budgets_on_english(train_text, threads, budget):
    a, contexts = Alphabet.from_text(train_text), select_contexts("default,o7", 11)
    one, other = count(train_text, "", contexts, a), count(train_text, "", contexts, a, threads, budget)
    for name in (c.name for c in contexts):
        assert_same(one[name], other[name])
    assert all(np.array_equal(x, y) for x, y in zip(one["words"], other["words"], strict=True))


@pytest.mark.parametrize("text", ["", "a", "aa", "ab", "é", " ", "\n\n", "a" * 9, "a" * 10, "ab" * 12 + "é"])
@pytest.mark.parametrize("history", ["", "b", "b" * 8, "b" * 9, "ab " * 9])
def test_short_texts(text, history):
    """Shorter than the longest contexts, and than the windows that are sorted: each end is counted by hand."""
    parts = count(text, history, CHAR_CONTEXTS + WORD_CONTEXTS)
    vocabulary = parts.pop("words")
    for table in parts.values():
        if table.context.is_words:
            assert_word_table(table, vocabulary, text, history)
        else:
            assert_char_table(table, text, history)
        assert_layout(table)


# Sums of tables.


@given(a=texts, b=texts, c=texts)
@settings(max_examples=12)
def test_shards_add_up(a, b, c):
    """The tables of three shards, each with the text before it as history, are the tables of the whole."""
    shards = [count(a), count(b, a), count(c, a + b)]
    whole = count(a + b + c)
    for name, table in whole.items():
        assert_same(merge_tables(merge_tables(shards[0][name], shards[1][name]), shards[2][name]), table)
        assert_same(merge_tables(shards[0][name], merge_tables(shards[1][name], shards[2][name])), table)


def test_shards_without_history_lack_what_straddles(english):
    """What a border costs: order k loses the k characters after it, order 0 nothing; no count is too large."""
    a, b = english[:3000], english[3000:5000]
    alphabet = Alphabet.from_text(english)
    one, two, whole = count(a, alphabet=alphabet), count(b, alphabet=alphabet), count(a + b, alphabet=alphabet)
    for context in CHAR_CONTEXTS:
        total = table_dict(merge_tables(one[context.name], two[context.name]))
        wanted = table_dict(whole[context.name])
        lost = sum(n - total.get(c, {}).get(s, 0) for c, row in wanted.items() for s, n in row.items())
        assert lost == context.reach
        assert all(n <= wanted[c][s] for c, row in total.items() for s, n in row.items())


def synthetic(name: str, rows: dict[int, dict[int, int]]) -> CountTable:
    context = parse_context(name)
    flat = [(c, s, n) for c in sorted(rows) for s, n in sorted(rows[c].items())]
    starts = np.cumsum([0, *(len(rows[c]) for c in sorted(rows))]).astype(np.uint32)
    if context.is_words:
        sums = np.cumsum([0, *(n for _, _, n in flat)]).astype(np.uint32)
        return assemble(context, np.array(sorted(rows), np.uint64), starts, np.array([s for _, s, _ in flat], np.uint32), sums)
    return assemble(context, np.array(sorted(rows), np.uint64), starts, np.array([n << 7 | s for _, s, n in flat], np.uint32))


rows_of = st.dictionaries(
    st.one_of(st.integers(0, 40), st.integers(0, (1 << 40) - 1)),
    st.dictionaries(st.integers(0, 127), st.integers(1, 9), min_size=1, max_size=8),
    max_size=20,
)


@pytest.mark.parametrize("name", ["o9", "p.w1"])
@given(a=rows_of, b=rows_of)
def test_merge_adds_counts(name, a, b):
    wanted = {c: dict(Counter(a.get(c, {})) + Counter(b.get(c, {}))) for c in a.keys() | b.keys()}
    merged = merge_tables(synthetic(name, a), synthetic(name, b))
    assert table_dict(merged) == wanted
    assert_layout(merged)
    assert_same(merged, synthetic(name, wanted))


def test_counts_saturate():
    top = synthetic("o3", {5: {1: MAX_COUNT - 1, 2: MAX_COUNT}})
    one = synthetic("o3", {5: {1: 1, 2: 1, 3: 1}})
    assert table_dict(merge_tables(top, one)) == {5: {1: MAX_COUNT, 2: MAX_COUNT, 3: 1}}
    assert table_dict(merge_tables(merge_tables(top, one), merge_tables(top, one)))[5] == {1: MAX_COUNT, 2: MAX_COUNT, 3: 2}


def test_identities_at_the_ends_of_their_range():
    """Keys whose top bit is set are large, not negative."""
    for name, width in (("o9", 57), ("p.w1", 40)):
        ends = [0, 1, (1 << width - 1) - 1, 1 << width - 1, (1 << width) - 2, (1 << width) - 1]
        for n in range(1, 700, 99):  # enough rows for identities to lose their top bits in the record
            extra = {i * (1 << width) // (n + 1): {s: 1 for s in range(100)} for i in range(1, n)}
            table = synthetic(name, {**extra, **{e: {7: e % 5 + 1} for e in ends}})
            assert_layout(table)


def test_tables_of_different_contexts():
    with pytest.raises(MergeError, match="o3 and o4"):
        merge_tables(synthetic("o3", {}), synthetic("o4", {}))


def test_an_error_among_the_words_is_raised_beside_the_characters(monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("here")

    monkeypatch.setattr("charstat.cpu.backend.tokenize", fails)
    with pytest.raises(ZeroDivisionError, match="here"):
        count("some words", contexts=CHAR_CONTEXTS[:3] + WORD_CONTEXTS[:1], threads=2, overlap=True)


@given(st.integers(0, 2**64 - 1))
def test_unmix64_is_the_inverse_of_mix64(x):
    mixed = oracles.mix64(x)
    assert int(mix64(np.uint64(x))) == mixed and int(unmix64(np.uint64(mixed))) == x
