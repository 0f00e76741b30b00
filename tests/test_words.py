"""ngram/words.py and cpu/words.py: tokens, the trie, the word state; word tables themselves are in test_tables.py."""

from collections import Counter

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_tables import ALPHABET, count, texts

from charstat.alphabet import Alphabet
from charstat.cpu.words import SNAPSHOT_TOKENS, tokenize
from charstat.merging import merge_vocabularies
from charstat.ngram.classes import class_features, no_classes
from charstat.ngram.contexts import parse_context
from charstat.ngram.hashing import N_FEATURES
from charstat.ngram.words import (
    FIRST_KIND,
    HASH,
    LAST_THREE,
    LENGTH,
    LOWER_HASH,
    MAX_WORD,
    WORD_STATE,
    build_trie,
    extend_word,
    find_child,
    lower_bound,
    model_symbol_info,
    push_word,
    vocabulary_words,
    word_shape,
)

NO_LABELS = no_classes().labels


def tokens_of(text, history="", alphabet=ALPHABET):
    return tokenize(alphabet.encode(history + text), len(history), model_symbol_info(alphabet))


def as_symbols(words, alphabet=ALPHABET):
    return [tuple(oracles.symbol(c, alphabet) for c in w) for w in words]


def test_the_example_of_the_docstring():
    alphabet = Alphabet.from_text("an and the a ")
    tokens = tokens_of("the and an and a the ", alphabet=alphabet)
    ids = {"".join(alphabet.chars[s] for s in w): i for i, w in enumerate(oracles.trie_words(tokens.vocabulary))}
    assert set(ids) == {"a ", "an ", "and ", "the "}
    a = sorted(ids[w] for w in ("a ", "an ", "and "))
    assert a == list(range(a[0], a[0] + 3))  # what starts with "a" has consecutive ids
    assert abs(ids["an "] - ids["and "]) == 1
    assert tokens.ids.tolist() == [ids[w] for w in ("the ", "and ", "an ", "and ", "a ", "the ")]


@given(text=texts, history=texts)
def test_tokens(text, history):
    tokens = tokens_of(text, history)
    known = oracles.vocabulary(history + text, ALPHABET)
    assert oracles.trie_words(tokens.vocabulary) == as_symbols(known)
    whole = oracles.tokens(oracles.simplify(history + text, ALPHABET))
    assert tokens.ids.tolist() == [known.index(oracles.known_word(t)) for t in whole]
    ends = np.cumsum([len(t) for t in whole])
    assert tokens.first == sum(int(e) <= len(history) for e in ends)
    for word, attributes in zip(known, tokens.attributes, strict=True):
        letters = word[:-1] if word[-1] in " \n" else word
        assert attributes[LENGTH] == len(letters)
        assert int(attributes[HASH]) == oracles.string_hash(letters, ALPHABET)
        assert int(attributes[LOWER_HASH]) == oracles.string_hash(oracles.lower_word(letters, ALPHABET), ALPHABET)


@given(texts)
def test_trie_round_trip(text):
    vocabulary = tokens_of(text).vocabulary
    packed, lengths = vocabulary_words(vocabulary)
    again = build_trie(packed, lengths)
    assert again.size == vocabulary.size == len(lengths)
    assert all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(vocabulary[:3], again[:3], strict=True))
    assert vocabulary.n_bytes == sum(x.nbytes for x in vocabulary[:3])
    unpacked = [tuple(int(row[d // 9]) >> 7 * (8 - d % 9) & 127 for d in range(n)) for row, n in zip(packed, lengths.tolist(), strict=True)]
    assert unpacked == oracles.trie_words(vocabulary)


@given(texts)
def test_find_child(text):
    """Walking down a word's letters finds exactly the words that start so."""
    v = tokens_of(text).vocabulary
    for word in oracles.trie_words(v):
        node = 0
        for s in word:
            child = int(find_child(node, s, v.first_child, v.symbol))
            assert child < v.first_child[node + 1] and v.symbol[child] == s
            node = child
        assert v.first_child[node] == v.first_child[node + 1]
    children = v.symbol[v.first_child[0] : v.first_child[1]].tolist()
    for s in range(128):
        assert find_child(0, s, v.first_child, v.symbol) == v.first_child[0] + sum(c < s for c in children)


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(-1, 31), st.data())
def test_lower_bound(values, wanted, data):
    values = np.array(sorted(values), np.uint32)
    lo = data.draw(st.integers(0, values.size))
    hi = data.draw(st.integers(lo, values.size))
    assert lower_bound(values, lo, hi, wanted) == lo + sum(int(v) < wanted for v in values[lo:hi])


def word_state(letters, alphabet=ALPHABET):
    info, state = model_symbol_info(alphabet), np.zeros(WORD_STATE, np.uint64)
    for c in letters:
        extend_word(state, oracles.symbol(c, alphabet), info)
    return state


@given(st.text(alphabet="abcABC012.é", max_size=2 * MAX_WORD + 3))
def test_extend_word(letters):
    letters = oracles.simplify(letters, ALPHABET)
    state, known = word_state(letters), letters[:MAX_WORD]
    assert state[LENGTH] == len(letters)
    assert int(state[HASH]) == oracles.string_hash(known, ALPHABET)
    assert int(state[LOWER_HASH]) == oracles.string_hash(oracles.lower_word(known, ALPHABET), ALPHABET)
    if letters:
        kinds = ("space", "lower", "upper", "digit", "other")
        assert kinds[int(state[FIRST_KIND])] == oracles.char_class(letters[0])
        assert int(state[LAST_THREE]) == oracles.pack(oracles.symbol(c, ALPHABET) for c in (oracles.RARE * 3 + known)[-3:])


@given(st.lists(st.text(alphabet="abcABC012.é", min_size=1, max_size=MAX_WORD), max_size=7))
def test_push_word(words):
    """The features after some words, against the strings they stand for."""
    words = [oracles.simplify(w, ALPHABET) for w in words]
    features = np.zeros(N_FEATURES, np.uint64)
    for w in words:
        s = word_state(w)
        shape = np.uint64(word_shape(s[LENGTH], s[FIRST_KIND], s[LAST_THREE]))
        push_word(
            features, s[HASH], s[LOWER_HASH], shape, s[FIRST_KIND], s[LAST_THREE], *class_features(NO_LABELS, -1, shape)
        )  # fmt: skip
    wanted = oracles.word_features(words, ALPHABET, oracles.ClassesTwin())
    assert features.tolist() == [oracles.feature_number(name, wanted[name], ALPHABET) for name in oracles.FIELDS]


def test_short_words_have_suffixes_of_their_own():
    """Symbol 0 is a letter like any other: "s" and "as" do not end alike because 'a' happens to be symbol 0."""
    alphabet = Alphabet.from_text("s as aas a aa aaa abas\n" * 3)
    zero = alphabet.chars[0]
    for name in ("p.suffix", "p.suffixes"):
        words = ["s", zero + "s", zero * 2 + "s", zero, zero * 2, zero * 3]
        distinct = {w[-3:] if name == "p.suffix" else w[-2:] for w in words}
        table = count(" ".join(words) + " ", contexts=(parse_context(name),), alphabet=alphabet)[name]
        wanted, _ = oracles.word_counts(" ".join(words) + " ", "", alphabet, parse_context(name))
        assert table.n_contexts == len(wanted) >= len(distinct)


def test_lower_case():
    """Only letters whose lower case has a symbol are lowered; İ, whose lower case is two characters, stays."""
    alphabet = Alphabet.from_text("aAbBİiẞC")
    info = model_symbol_info(alphabet)
    lower = {c: info.lower[alphabet.symbol_of[c]] for c in alphabet.chars}
    assert lower["A"] == lower["a"] == alphabet.symbol_of["a"]
    assert all(lower[c] == alphabet.symbol_of[c] for c in "İẞC")


def test_words_are_known_by_32_characters():
    stem = "abcABC01" * 4
    assert len(stem) == MAX_WORD
    text = f"{stem} {stem}a {stem}b\n{stem[:31]} {stem[:31]}\n"
    tokens = tokens_of(text)
    assert tokens.vocabulary.size == 3  # the stem with anything behind it; 31 characters and a space; and a newline
    assert tokens.ids[0] == tokens.ids[1] == tokens.ids[2]
    assert len({*tokens.ids.tolist()}) == 3


def test_many_words():
    """More distinct words than the first hash table holds: it grows twice."""
    n = 150_000
    alphabet = Alphabet.from_text("0123456789 ")
    text = " ".join(str(i * 7919 % n) for i in range(n)) + " "
    tokens = tokens_of(text, alphabet=alphabet)
    assert tokens.vocabulary.size == n
    key = {d: i for i, d in enumerate(sorted("0123456789 ", key=alphabet.symbol_of.__getitem__))}
    ranks = {w: i for i, w in enumerate(sorted((f"{i} " for i in range(n)), key=lambda w: [key[c] for c in w]))}
    assert tokens.ids.tolist() == [ranks[f"{i * 7919 % n} "] for i in range(n)]


@pytest.mark.parametrize("threads", [1, 3])
def test_more_tokens_than_one_snapshot(threads):
    """Threads start in the middle of the tokens, from saved features: pairs of words against a plain count."""
    rng = np.random.default_rng(5)
    words = np.array(["a", "b", "c", "0", "A", ""])[rng.integers(0, 6, SNAPSHOT_TOKENS + 70_000)]
    text = " ".join(words) + " "
    contexts = (parse_context("p.w1"), parse_context("p.number"))
    parts = count(text, contexts=contexts, threads=threads)
    pairs, numbers, previous, number = Counter(), Counter(), None, None
    for w in words.tolist():
        pairs[previous, w] += 1
        numbers[number, w] += 1
        previous = w or previous
        number = "0" if w == "0" else number
    for table, wanted in ((parts["p.w1"], pairs), (parts["p.number"], numbers)):
        assert sorted(table.counts().tolist()) == sorted(wanted.values())
        assert table.n_contexts == len({c for c, _ in wanted})


@given(texts, texts)
def test_merge_vocabularies(a, b):
    va, vb = tokens_of(a).vocabulary, tokens_of(b).vocabulary
    merged, (ids_a, ids_b) = merge_vocabularies(va, vb)
    words = oracles.trie_words(merged)
    assert words == sorted(set(oracles.trie_words(va)) | set(oracles.trie_words(vb)))
    assert [words[i] for i in ids_a] == oracles.trie_words(va)
    assert [words[i] for i in ids_b] == oracles.trie_words(vb)
