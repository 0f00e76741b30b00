"""Word classes and topics: ngram/classes.py against its slow twin, cpu/classes.py, and what a model does with them."""

from collections import Counter

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tables import ALPHABET, assert_layout, assert_same, assert_word_table, count, texts

from charstat import Alphabet, Model, build_model
from charstat.cpu.backend import CPUBackend
from charstat.cpu.words import token_features, tokenize
from charstat.errors import FormatError, MergeError, UserError
from charstat.ngram.class_examples import class_rows, class_words
from charstat.ngram.classes import LARGE, SMALL, TOPIC_STEP, TOPICS, YOUNG, WordClasses, find_word, no_classes
from charstat.ngram.contexts import parse_context, select_contexts
from charstat.ngram.words import model_symbol_info
from charstat.storage import COLUMNS

CONTEXTS = tuple(parse_context(n) for n in ("p.k1", "p.K2", "p.k1.k2.k3.k4", "p.w1.K1.topic", "p.topic", "p.k2.topic"))


def made_classes(words, seed=1, alphabet=ALPHABET):
    """Classes of these words, drawn at random; every third word says nothing of the topic."""
    r = np.random.default_rng(seed)
    hashes = np.array(sorted({oracles.string_hash(w[:32], alphabet) for w in words}), np.uint64)
    labels = np.stack([r.integers(0, SMALL, hashes.size), r.integers(0, LARGE, hashes.size)], axis=1).astype(np.uint16)
    scores = r.integers(-128, 128, (hashes.size, TOPICS)).astype(np.int8)
    scores[::3] = 0
    return WordClasses(hashes, labels, scores)


CLASSES = made_classes(["a", "b", "ab", "A", "0a", ".", "abc" * 11, "B" * 70])


def count_with(text, history, classes, threads=1, budget=None, contexts=CONTEXTS, alphabet=ALPHABET):
    return count(text, history, contexts, alphabet, threads, budget, classes)


@given(text=texts, history=texts)
def test_tables_are_those_of_the_twin(text, history):
    parts = count_with(text, history, CLASSES)
    vocabulary = parts.pop("words")
    assert set(parts) == {c.name for c in CONTEXTS}
    for table in parts.values():
        assert_word_table(table, vocabulary, text, history, classes=CLASSES)
        assert_layout(table)


def test_topics_of_a_longer_text(english):
    """Hundreds of words with scores, so that sums fade and topics change; with a history."""
    history, text = english[:3_000], english[3_000:20_000]
    alphabet = Alphabet.from_text(english)
    rare = [w for w, n in Counter(english[:20_000].split()).items() if n <= 6]  # a frequent one would have its own topic win throughout
    classes = made_classes(rare, alphabet=alphabet)
    parts = count_with(text, history, classes, alphabet=alphabet)
    vocabulary = parts.pop("words")
    assert parts["p.topic"].n_contexts > 5
    for table in parts.values():
        assert_word_table(table, vocabulary, text, history, alphabet, classes)


@given(text=texts, history=texts, threads=st.integers(2, 3), budget=st.sampled_from([None, 64]))
@settings(max_examples=12)
def test_threads_and_budgets_change_nothing(text, history, threads, budget):
    one, other = count_with(text, history, CLASSES), count_with(text, history, CLASSES, threads, budget)
    for name in (context.name for context in CONTEXTS):
        assert_same(one[name], other[name])


@given(st.lists(st.integers(0, (1 << 64) - 1), unique=True, max_size=40), st.integers(0, (1 << 64) - 1))
def test_find_word(hashes, other):
    values = np.array(sorted(hashes), np.uint64)
    assert [find_word(values, h) for h in values] == list(range(values.size))
    assert find_word(values, np.uint64(other)) == (sorted(hashes).index(other) if other in hashes else -1)


def topics_of(text, classes=None, alphabet=ALPHABET):
    """The topic before every token of a text, by the kernel that counting runs."""
    tokens = tokenize(alphabet.encode(text), 0, model_symbol_info(alphabet))
    return token_features(tokens, classes or CLASSES, model_symbol_info(alphabet).heading).topics.tolist()


def test_the_topic_is_looked_for_at_every_word_of_a_young_article_and_at_every_eighth_later():
    classes = made_classes(["ab", "b"])
    classes.scores[:] = 0
    quiet, loud = ("b", "ab") if oracles.string_hash("ab", ALPHABET) == int(classes.hashes[1]) else ("ab", "b")
    classes.scores[1, 7] = 1
    found = topics_of(f"{quiet} {loud} {quiet} " * 3, classes)
    assert found == [0, 0, 8, 8, 8, 8, 8, 8, 8]
    classes.scores[0, 3], classes.scores[1, 7] = 1, 127
    first, second = ("ab ", "b ") if loud == "ab" else ("b ", "ab ")
    for old in (YOUNG - 1, 2 * YOUNG - 1, 3 * YOUNG):  # words when the scores change; the sum of the old ones fades long after
        found = topics_of(first * old + second * 2_000, classes)
        assert found[old - 1] == 8 and found.index(4) > old and found.index(4) % TOPIC_STEP == 0


TITLED = Alphabet.from_text("abc =\n.")


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (" = b = \n", True),
        ("\n = b c = \n", True),
        (" = = b = = \n", False),  # a section
        (" a = b ", False),  # in a line
        (" = \n b ", False),  # nothing after the sign
        ("  =  b ", False),
        (" . = b = \n", False),
    ],
)
def test_a_title_begins_an_article_with_sums_of_its_own(text, begins):
    classes = made_classes(["=", "a", "b"], alphabet=TITLED)
    a, b = (classes.hashes.tolist().index(oracles.string_hash(w, TITLED)) for w in "ab")
    classes.scores[:] = 0
    classes.scores[a, 7], classes.scores[b, 3] = 100, 1
    found = topics_of("a " * 300 + text + "b c ", classes, TITLED)
    assert found[299] == 8 and found[-1] == (4 if begins else 8)


def test_without_the_sign_among_the_words_nothing_begins():
    classes = made_classes(["a", "b"], alphabet=TITLED)
    a, b = (classes.hashes.tolist().index(oracles.string_hash(w, TITLED)) for w in "ab")
    classes.scores[:] = 0
    classes.scores[a, 7], classes.scores[b, 3] = 100, 1
    assert topics_of("a " * 300 + " = b = b ", classes, TITLED)[-1] == 8


@given(text=st.text(alphabet="abc =\n", max_size=120), history=st.text(alphabet="ab =\n", max_size=30))
def test_topics_of_texts_with_titles_are_those_of_the_twin(text, history):
    classes = made_classes(["=", "a", "b", "ab", "c", "ca"], seed=3, alphabet=TITLED)
    parts = count_with(text, history, classes, contexts=(parse_context("p.topic"),), alphabet=TITLED)
    vocabulary = parts.pop("words")
    assert_word_table(parts["p.topic"], vocabulary, text, history, TITLED, classes)


# What is learned.


def learned(text, threads=1, alphabet=None, contexts=CONTEXTS):
    alphabet = alphabet or Alphabet.from_text(text)
    parts = CPUBackend(threads).count(alphabet.encode(text), 0, contexts, model_symbol_info(alphabet), oracles.no_phase)
    return next(part for part in parts if isinstance(part, WordClasses))


@pytest.fixture(scope="module")
def built(train_text):
    return build_model(train_text, order=4, contexts="wide", threads=1)


def test_any_number_of_threads_learns_the_same(english):
    one = learned(english[:200_000])
    assert one.hashes.size > 500 and np.unique(one.labels[:, 0]).size > 50
    for threads in (2, 3):
        assert learned(english[:200_000], threads).same_as(one)


def test_words_in_the_same_places_share_a_class():
    """Two kinds of words, each with neighbours of its own, and two kinds of passages, each with words of its own."""
    r = np.random.default_rng(5)
    nouns, verbs = [f"n{i}" for i in range(20)], [f"v{i}" for i in range(20)]
    topics = [[f"t{k}x{i}" for i in range(30)] for k in range(2)]
    frequent = [f"f{i}" for i in range(100)]
    text = []
    for passage in range(60):
        for _ in range(120):
            noun, verb = r.choice(nouns), r.choice(verbs)
            text += ["the", noun, "will", verb, "a", r.choice(topics[passage % 2]), ".", *r.choice(frequent, 8)]
    model = build_model(" ".join(text) + " ", order=2, contexts="wide", threads=1)
    names, _ = class_words(model)
    label = dict(zip(names, model.classes.labels[:, 0].tolist(), strict=True))
    assert {label[n] for n in nouns}.isdisjoint({label[v] for v in verbs})
    score = dict(zip(names, model.classes.scores.astype(np.int64), strict=True))
    first, second = (sum(score[w] for w in topic) for topic in topics)
    assert first[int(first.argmax())] > 0 > second[int(first.argmax())]  # what goes with the one kind does not with the other
    assert first[int(second.argmax())] < 0 < second[int(second.argmax())]


@pytest.mark.parametrize("text", ["a", "\n\n", "a ", "one ", "aa " * 50, "ab cd " * 7, "x y z " * 3000])
def test_tiny_texts(text):
    """No words, one word, fewer words than classes."""
    model = build_model(text, order=2, contexts="wide", threads=1)
    assert model.classes.hashes.size <= len(set(text.split()))
    stream = model.stream()
    stream.reset()
    assert np.isfinite(stream.score(text * 2 + "new words ")).all()
    assert abs(stream.probabilities().sum() - 1.0) < 1e-9


# The stream.


def test_the_stream_counts_as_the_tables_do(built, train_text):
    """After any text, the stream's class features and its topic are those of the twin; however the text was cut."""
    text = train_text[:30_000]
    whole, cut = built.stream(), built.stream()
    whole.reset()
    cut.reset()
    expected = whole.score(text)
    pieces = [text[:1], text[1:4_097], text[4_097:4_100], text[4_100:20_001], text[20_001:]]
    assert np.array_equal(np.concatenate([cut.score(piece) for piece in pieces]), expected)
    for stream in (whole, cut):
        tokens = [oracles.known_word(token[:-1]) for token in oracles.tokens(oracles.simplify(text, built.alphabet))]
        wanted = oracles.word_features(tokens, built.alphabet, oracles.ClassesTwin(built.classes))
        found = dict(zip(oracles.FIELDS, stream.state.features.tolist(), strict=True))
        assert found == {name: oracles.feature_number(name, wanted[name], built.alphabet) for name in oracles.FIELDS}
        assert found["topic"] > 0


def test_a_new_text_has_no_topic_yet(built, train_text):
    stream = built.stream()
    stream.reset()
    stream.score(train_text[:20_000])
    stream.reset(keep_learning=True)
    assert not stream.state.topic.any() and not stream.state.features.any()


def test_what_comes_later_changes_nothing(built, held_out):
    """Causality: bits of a text's start do not depend on how it goes on."""
    stream = built.stream()
    stream.reset()
    start = stream.score(held_out[:1_500])
    stream.reset()
    assert np.array_equal(stream.score(held_out[:1_500] + held_out[:300][::-1])[:1_500], start)


def test_one_path_and_the_whole_tree_agree(built, held_out):
    stream = built.stream()
    stream.reset()
    bits = []
    for char in held_out[:400]:
        bits.append(-np.log2(stream.probability(char)))
        assert abs(stream.probabilities().sum() - 1.0) < 1e-9
        stream.observe(char)
    stream.reset()
    assert np.array_equal(stream.score(held_out[:400]), np.array(bits))


# The model.


def test_save_and_load(built, train_text, tmp_path):
    loaded = built.save(tmp_path / "m")
    assert loaded.classes.same_as(built.classes)
    out = build_model(train_text, order=4, contexts="wide", threads=2, out=tmp_path / "direct")
    assert out.classes.same_as(built.classes)
    streams = [m.stream() for m in (built, loaded, out)]
    for stream in streams:
        stream.reset()
    bits = [stream.score(train_text[:3_000]) for stream in streams]
    assert np.array_equal(bits[0], bits[1]) and np.array_equal(bits[0], bits[2])


def test_a_model_without_class_contexts_has_none(train_text):
    model = build_model(train_text[:20_000], order=2, contexts="plain", threads=1)
    assert model.classes.same_as(no_classes())
    with pytest.raises(UserError, match="--contexts default"):
        class_rows(model)


def test_damaged_classes_are_refused(built):
    def damaged(**changes):
        columns = {**built.columns, "betas": built.betas, "start": built.start, "class_hashes": built.classes.hashes}
        columns |= {"class_labels": built.classes.labels.ravel(), "topic_scores": built.classes.scores.ravel()}
        return Model(built.manifest, columns | changes)

    assert damaged().classes.same_as(built.classes)
    labels = built.classes.labels.ravel().copy()
    labels[0] = SMALL
    wrong = [{"class_hashes": built.classes.hashes[::-1].copy()}, {"class_labels": labels}, {"class_labels": labels[:-1]}]
    wrong += [{"topic_scores": built.classes.scores.ravel()[1:]}, {"class_hashes": np.empty(0, np.uint64)}]
    for change in wrong:
        with pytest.raises(FormatError, match="word classes"):
            damaged(**change)
    assert {"class_hashes", "class_labels", "topic_scores"} <= set(COLUMNS)


def test_shards_with_the_same_classes_add_up(train_text, built):
    a, b = train_text[:50_000], train_text[50_000:]
    options = {"order": 4, "contexts": "wide", "threads": 1, "alphabet": built.alphabet, "classes": built.classes}
    whole = build_model(train_text, **options)
    for name, table in built.tables.items():
        assert_same(whole.tables[name], table)  # given or learned
    merged = Model.merge(build_model(a, **options), build_model(b, history=a, **options))
    assert merged.classes.same_as(built.classes)
    for name, table in built.tables.items():
        assert_same(merged.tables[name], table)
    with pytest.raises(MergeError, match="classes="):
        Model.merge(build_model(a, **options), build_model(b, **{**options, "classes": None}))


def test_classes_without_their_alphabet_are_refused(built, train_text):
    with pytest.raises(UserError, match="alphabet="):
        build_model(train_text, order=2, contexts="wide", classes=built.classes)


def test_classes_are_measured_as_a_phase(built):
    assert "classes" in [phase["name"] for phase in built.manifest["build"]["phases"]]


def test_examples(built):
    rows = class_rows(built, 3)
    names, counts = class_words(built)
    assert (len(rows["small"]), len(rows["large"]), len(rows["topics"])) == (SMALL, LARGE, TOPICS)
    assert sum(row["words"] for row in rows["small"]) == sum(row["words"] for row in rows["large"]) == len(names)
    assert all(names) and (counts > 0).all()
    most = names[int(counts.argmax())]
    assert [row["class"] for row in rows["small"] if most in row["examples"][:1]] == [built.classes.labels[counts.argmax(), 0]]
    assert any(len(row["marks"]) == 3 for row in rows["topics"])


def test_every_class_context_has_a_meaning():
    for context in select_contexts("wide", 3):
        assert context.needs_classes == any(f in context.name.split(".") for f in ("k1", "k2", "k3", "k4", "K1", "K2", "topic"))
