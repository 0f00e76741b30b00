"""The mixture as a stream: a distribution at every step, the same bits on every path, causal, against a slow twin."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import ESCAPE, MixtureTwin
from streams import argmax, assert_distribution, assert_paths_agree, fresh

from charstat.alphabet import CODE_POINTS, Alphabet
from charstat.counting import build_model
from charstat.errors import ContextError, StateError
from charstat.mixers.layout import MixerRates

WORD_OF_32 = "abcdefghijklmnop" * 2


# A distribution at every step.


@pytest.mark.parametrize("which", ["model", "crowded_model"])
def test_distributions_on_english(which, held_out, request):
    model = request.getfixturevalue(which)
    stream = fresh(model)
    chars = [*stream.alphabet.chars, "戦", "\U0010ffff", *stream.alphabet.rare][:140]
    for i, c in enumerate(held_out[:700]):
        if i % 7 == 0:
            assert_paths_agree(stream, chars if i % 35 == 0 else c)
            assert_distribution(stream)
        stream.observe(c)


def test_the_escape_is_listed_when_it_is_likely(crowded_model, crowded_text):
    """A text full of rare characters: they appear in predict(), can be the guess, and all of Unicode adds up to 1."""
    stream = fresh(crowded_model)
    guesses = set()
    seen = []
    for c in crowded_text[-600:]:
        listed = stream.predict()
        seen.append(len(listed) > 127)
        if seen[-1]:
            assert stream.unlisted_mass < stream.probabilities()[ESCAPE]
            unseen = CODE_POINTS - 127 - len(stream.alphabet.rare)
            assert math.isclose(stream.unlisted_mass, unseen * stream.probability("\U0010ffff"), rel_tol=1e-6)
        guesses.add(stream.predict_char())
        assert stream.predict_char() == argmax(listed)
        stream.observe(c)
    assert 0 < sum(seen) < len(seen)


def test_a_rare_character_can_be_the_guess():
    """Symbols that are all alike, and one rare character that is most of the escape."""
    own = "".join(chr(0x4E00 + i) for i in range(127))
    for rare in ("z", "\0", "\ud800", "\U0001f41d"):
        model = build_model((own * 4 + rare * 3) * 2, order=1, contexts="chars", alphabet=Alphabet.from_text(own * 9 + rare * 8), threads=1)
        stream = fresh(model)
        guesses, _ = stream.guess_and_score(rare * 60)
        assert guesses[-1] == rare
        assert stream.predict_char() == rare == argmax(stream.predict())
        assert_distribution(stream)


texts = st.one_of(
    st.text(alphabet="ab \ncé", max_size=80),
    st.lists(st.sampled_from(["the ", "cat ", "a", " ", "\n", WORD_OF_32, WORD_OF_32 + "xyz", "0", "A", "戦"]), max_size=12).map("".join),
)


@given(train=texts.filter(len), text=texts, contexts=st.sampled_from(["default", "wide", "chars", "p"]), order=st.sampled_from([1, 3, 12]))
@example(train=WORD_OF_32 + "xyz " + WORD_OF_32 + " ", text=WORD_OF_32 + "xyz " + WORD_OF_32 + "\n", contexts="default", order=3)
def test_distributions_on_any_text(train, text, contexts, order):
    stream = fresh(build_model(train, order=order, contexts=contexts, threads=1))
    for i, c in enumerate(text):
        if i % 3 == 0:
            assert_paths_agree(stream, {*text, "x", "é"})
            assert_distribution(stream)
        stream.observe(c)
    assert_distribution(stream)


@pytest.mark.parametrize("contexts", ["p", "default", "wide"])
def test_beyond_the_part_by_which_a_word_is_known(contexts):
    """At the 33rd character of a word that the training text has, words know nothing: every way of asking agrees on it."""
    model = build_model(f"x {WORD_OF_32}abcd y\n{WORD_OF_32}kl z ", order=2, contexts=contexts, threads=1)
    stream, other, twin = fresh(model), fresh(model), MixtureTwin(model)
    for c in f"x {WORD_OF_32}abcd y\n{WORD_OF_32[:31]} {WORD_OF_32}kl":
        assert_paths_agree(stream, stream.alphabet.chars)
        p = stream.probability(c)
        stream.observe(c)
        assert abs(twin.observe(c) - p) < 1e-5
        assert other.score(c)[0] == -np.log2(p)


def test_a_shard_with_history_can_be_streamed(english):
    """Its vocabulary has words that only the history had: no table has rows for them."""
    model = build_model(english[3_000:6_000], history=english[:3_000], order=3, contexts="wide", threads=1)
    stream, twin = fresh(model), MixtureTwin(model)
    for i, c in enumerate(english[5_900:6_300]):
        if i % 5 == 0:
            assert_paths_agree(stream, "e the\n" if i % 25 else stream.alphabet.chars)
            assert_distribution(stream)
        p = stream.probability(c)
        assert abs(twin.observe(c) - p) < 1e-5
        stream.observe(c)


@pytest.mark.parametrize("contexts", ["o9", "c16", "s8", "o24,p"])
def test_tables_without_rows(contexts):
    """A text shorter than its only contexts: there is nothing to look up, and nothing is read."""
    stream = fresh(build_model("abc", order=8, contexts=contexts.replace("c16", "o9,c16").replace("s8", "o9,s8"), threads=1))
    for c in "abcabcabcd " * 9:
        assert_paths_agree(stream, "abcd")
        stream.observe(c)
        assert_distribution(stream)


def test_some_of_the_contexts(train_text, held_out):
    """A stream on a part of the model's contexts is one on a model that has no others."""
    chosen = ["o1", "o4", "c14", "p.w1"]
    model = build_model(train_text, order=4, contexts="plain", threads=1)  # word classes, where there are any, are also for selector sets
    stream = fresh(model, contexts=chosen)
    assert [c.name for c in stream.contexts] == chosen
    assert [c.name for c in fresh(model).contexts] == [c.name for c in model.contexts if c.name != "o0"]
    smaller = build_model(train_text, order=4, contexts=",".join(chosen), threads=1)
    assert stream.score(held_out[:300]).tolist() == fresh(smaller).score(held_out[:300]).tolist()
    assert_paths_agree(stream, "e qz")
    assert_distribution(stream)
    for bad in (["o7"], ["o1", "nope"], [""]):
        with pytest.raises(ContextError, match="the model has no context"):
            model.stream(contexts=bad)


@pytest.mark.parametrize("options", [{"contexts": []}, {"contexts": [], "match": False}, {"contexts": ["o0"]}, {"match": False}])
def test_with_little_to_mix(model, held_out, options):
    stream = fresh(model, **options)
    for i, c in enumerate(held_out[:200]):
        if i % 10 == 0:
            assert_paths_agree(stream, "e qz戦")
            assert_distribution(stream)
        stream.observe(c)


@given(st.text(alphabet="abcdefgABCDEFG0123456 \n.,;", min_size=1, max_size=60))
def test_a_tie_goes_to_the_first_of_equals(text):
    """With weights of zero every decision is even, so that all symbols at one depth of the tree are equally likely."""
    stream = fresh(
        build_model(text, order=1, contexts="o0", threads=1), rates=MixerRates(weights=0.0, initial_evidence=0.0, initial_chain=0.0)
    )
    listed = stream.predict()
    depth = stream.alphabet.tree.arrays.depth
    assert all(p == 0.5 ** depth[s] for s, p in enumerate(listed[c] for c in stream.alphabet.chars))
    assert stream.predict_char() == argmax(listed) == min(stream.alphabet.chars, key=lambda c: depth[stream.alphabet.symbol_of[c]])


def test_improbable_parts_of_the_tree(train_text):
    """Where a decision is certain its other side is below the pruning threshold; score and distribution still agree."""
    model = build_model("ab" * 20_000 + train_text[:3000], order=8, threads=1)
    stream = fresh(model)
    stream.score("ab" * 4000)
    assert_paths_agree(stream, [*stream.alphabet.chars, "é"])
    assert_distribution(stream)
    p = stream.probabilities()
    assert p.max() > 0.999 and 0.0 < p[p > 0].min() < 1e-7
    for c in sorted(stream.alphabet.chars, key=lambda c: p[stream.alphabet.symbol_of[c]])[:20]:
        q = stream.probability(c)
        assert stream.score(c)[0] == -np.log2(q)
        assert_paths_agree(stream, stream.alphabet.chars[::9])
        assert_distribution(stream)


# The fast paths are the slow ones.


@pytest.mark.parametrize("which", ["model", "crowded_model"])
def test_score_is_the_log_of_the_prediction(which, held_out, request):
    stream, other = fresh(request.getfixturevalue(which)), fresh(request.getfixturevalue(which))
    text = held_out[:600]
    wanted = []
    for c in text:
        s = stream.alphabet.symbol_of.get(c, ESCAPE)
        p = stream.probabilities()[s]
        wanted.append(-np.log2(p * stream.alphabet.rare_probability(c) if s == ESCAPE else p))
        stream.observe(c)
    assert other.score(text).tolist() == wanted


def test_guess_and_score_is_predict_char_and_observe(model, held_out):
    text = held_out[:800]
    one, two, three = fresh(model), fresh(model), fresh(model)
    guesses, bits = one.guess_and_score(text)
    slow_guesses, slow_bits = [], []
    for c in text:
        slow_guesses.append(two.predict_char())
        slow_bits.append(-math.log2(two.probability(c)))
        two.observe(c)
    assert guesses == slow_guesses
    assert np.allclose(bits, slow_bits, rtol=0, atol=1e-12)
    assert np.array_equal(bits, three.score(text))


def test_distributions(model, held_out):
    """All probabilities before each of many characters: those of probabilities(), in one call, cut anywhere."""
    text = held_out[:300]
    one, two, three = fresh(model), fresh(model), fresh(model)
    whole = one.distributions(text)
    assert whole.shape == (300, 128) and whole.dtype == np.float64
    for p, c in zip(whole, text, strict=True):
        assert np.array_equal(two.probabilities(), p)
        two.observe(c)
    out = np.empty((299, 128))
    assert np.array_equal(three.distributions(text[:1]), whole[:1])
    assert three.distributions(text[1:], out=out) is out and np.array_equal(out, whole[1:])
    assert one.probabilities().tolist() == two.probabilities().tolist() == three.probabilities().tolist()
    assert one.distributions("").shape == (0, 128)
    assert np.array_equal(two.score(held_out[300:400]), three.score(held_out[300:400]))


def test_predict_char_is_the_argmax(model, held_out):
    stream = fresh(model)
    for c in held_out[:500]:
        assert stream.predict_char() == argmax(stream.predict())
        stream.observe(c)


@given(cuts=st.lists(st.integers(0, 600), max_size=8), asked=st.booleans())
@settings(max_examples=8)
def test_chunks_do_not_matter(model, held_out, cuts, asked):
    text, edges = held_out[:600], sorted({0, 600, *cuts})
    stream, parts = fresh(model), []
    for a, b in pairwise(edges):
        if asked:
            stream.predict(), stream.predict_char(), stream.probability("q")
        parts += stream.score(text[a:b]).tolist()
    assert parts == fresh(model).score(text).tolist()


def test_chunks_do_not_matter_in_a_long_text(train_text, english):
    """The tables that the stream grows into must not depend on how many characters come in one call."""
    model = build_model(train_text[:20_000], order=3, contexts="chars", threads=1)
    text = english[100_000:110_000]
    whole = fresh(model).score(text)
    stream = fresh(model)
    assert np.array_equal(np.concatenate([stream.score(text[:1]), stream.score(text[1:9_001]), stream.score(text[9_001:])]), whole)
    stream = fresh(model)
    assert np.array_equal([stream.score(c)[0] for c in text], whole)


def test_chunks_do_not_matter_when_contexts_are_forgotten(train_text, english):
    model = build_model(train_text[:5_000], order=5, contexts="o2,o5", threads=1)
    text = english[100_000:140_000]
    whole = fresh(model, overlay_limit=1).score(text)  # the smallest limit there is: 8,192 contexts
    stream = fresh(model, overlay_limit=1)
    edges = [0, 1, 10_000, 10_100, 25_000, 40_000]
    assert np.array_equal(np.concatenate([stream.score(text[a:b]) for a, b in pairwise(edges)]), whole)


def test_forgetting_costs_little(train_text, english):
    """A small overlay limit changes predictions, but not by much, and never the distribution's sum."""
    model = build_model(train_text[:5_000], order=5, contexts="chars", threads=1)
    text = english[100_000:125_000]
    small, large = fresh(model, overlay_limit=1), fresh(model)
    a, b = small.score(text), large.score(text)
    assert not np.array_equal(a, b) and np.array_equal(a[:8192], b[:8192])
    assert abs(a.mean() - b.mean()) < 0.1
    assert_paths_agree(small, small.alphabet.chars)
    assert_distribution(small)


# Causality.


def test_the_future_changes_nothing_before_it(model, held_out):
    text = held_out[:900]
    for at in (1, 450, 899):
        other = text[:at] + "".join(reversed(text[at:])) + "戦 x"
        one, two = fresh(model), fresh(model)
        guesses, bits = one.guess_and_score(text)
        other_guesses, other_bits = two.guess_and_score(other)
        assert np.array_equal(bits[:at], other_bits[:at])
        assert guesses[: at + 1] == other_guesses[: at + 1]


def test_every_character_counts(model, held_out):
    """The other way round: each observed character changes what is predicted later."""
    text = held_out[:200]
    whole = fresh(model).score(text)
    for at in (0, 50, 198):
        changed = fresh(model).score(text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :])
        assert not np.array_equal(changed[at + 1 :], whole[at + 1 :])


def test_asking_changes_nothing(model, held_out):
    """predict() and its kin, any number of times, in any order: the same answers now and later."""
    text = held_out[:150]
    quiet, asked = fresh(model), fresh(model)
    for c in text:
        first = asked.predict()
        asked.probability("e"), asked.predict_char(), asked.probability("戦"), asked.log_probs()
        assert asked.predict() == first
        assert asked.probabilities().tolist() == quiet.probabilities().tolist()
        quiet.observe(c)
        asked.observe(c)
    assert quiet.score(held_out[150:300]).tolist() == asked.score(held_out[150:300]).tolist()


def test_out_is_filled_and_returned(model):
    stream = fresh(model)
    out = np.full(128, 7.0)
    assert stream.probabilities(out) is out and abs(out.sum() - 1.0) < 1e-9
    wanted = stream.log_probs()
    assert stream.log_probs(out) is out and np.array_equal(out, wanted)
    kept = stream.predict()
    stream.observe("x")
    stream.predict()
    assert kept == fresh(model).predict()  # a dictionary that was handed out does not change any more


def test_streams_are_independent(model, held_out):
    one, two = fresh(model), fresh(model)
    wanted = fresh(model).score(held_out[:300])
    got = []
    for i, c in enumerate(held_out[:300]):
        got.append(one.score(c)[0])
        two.score(held_out[-1 - i])
    assert np.array_equal(got, wanted)


def test_two_builds_give_the_same_stream(train_text, held_out):
    a, b = (build_model(train_text[:20_000], order=5, threads=t) for t in (1, 2))
    assert np.array_equal(fresh(a).score(held_out[:300]), fresh(b).score(held_out[:300]))


# reset


@pytest.mark.parametrize("which", ["model", "crowded_model"])
def test_reset_restores_the_built_state(which, held_out, request):
    stream = fresh(request.getfixturevalue(which))
    first_p = stream.probabilities().tolist()
    first = stream.guess_and_score(held_out[:700])
    stream.reset()
    assert stream.probabilities().tolist() == first_p
    again = stream.guess_and_score(held_out[:700])
    assert first[0] == again[0] and np.array_equal(first[1], again[1])
    stream.reset()
    stream.reset()
    assert np.array_equal(stream.score(held_out[:100]), first[1][:100])


def test_keep_learning_forgets_only_the_context(model, held_out):
    text = held_out[:700]
    stream = fresh(model)
    first = stream.score(text)
    stream.reset(keep_learning=True)
    second = stream.score(text)
    assert second.mean() < 0.6 * first.mean()  # what it saw the first time is known
    # The context is that of a start: after different texts, but nothing learned, predictions are those of reset().
    frozen = fresh(model, rates=MixerRates(weights=0.0, evidence=0.0))
    start = frozen.probabilities().tolist()
    frozen.observe("q")
    frozen.observe(" ")
    frozen.reset(keep_learning=True)
    kept = frozen.probabilities()
    assert abs(kept.sum() - 1.0) < 1e-9
    frozen.reset()
    assert frozen.probabilities().tolist() == start
    stream.reset(keep_learning=True)
    a = stream.probabilities().tolist()
    stream.reset(keep_learning=True)
    assert stream.probabilities().tolist() == a
    assert_distribution(stream)
    stream.reset()
    assert np.array_equal(stream.score(text), first)


def test_what_was_kept_grows_old_in_order():
    """After reset(keep_learning=True) the overlay's clock goes on: of the first text its end is forgotten last."""
    rng = np.random.default_rng(3)
    first, second = ("".join(rng.choice(list("abcdefgh"), n)) for n in (6_144, 2_000))
    model = build_model("abcdefgh", order=9, contexts="o9", threads=1)
    stream = fresh(model, overlay_limit=1, rates=MixerRates(weights=0.0, evidence=0.0))  # 8,192 contexts
    unknown = stream.score(first)[-1_500:].mean()
    stream.reset(keep_learning=True)
    stream.score(second)  # no room for all: about half of the first text goes
    stream.reset(keep_learning=True)
    assert stream.score(first[-1_500:]).mean() < 0.5 * unknown


def test_keep_learning_of_a_new_stream_is_reset(model, held_out):
    stream = model.stream()
    stream.reset(keep_learning=True)
    assert np.array_equal(stream.score(held_out[:100]), fresh(model).score(held_out[:100]))


# Wrong use.


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.predict(), lambda s: s.predict_char(), lambda s: s.probabilities(), lambda s: s.log_probs(), lambda s: s.probability("a"),
        lambda s: s.observe("a"), lambda s: s.score("abc"), lambda s: s.score(""), lambda s: s.distributions(""), lambda s: s.guess_and_score("abc"),
    ],
)  # fmt: skip
def test_before_reset(model, call):
    with pytest.raises(StateError, match=r"reset\(\)"):
        call(model.stream())


@pytest.mark.parametrize("bad", [None, "", "ab", 7, b"a", ["a"], "e\u0301"])
def test_observe_wants_one_character(model, bad):
    stream, other = fresh(model), fresh(model)
    for method in (stream.observe, stream.probability):
        with pytest.raises(ValueError, match="one character"):
            method(bad)
    assert stream.predict() == other.predict()  # and nothing happened


def test_empty_score(model):
    stream = fresh(model)
    assert stream.score("").shape == (0,) and stream.guess_and_score("")[0] == []
    assert stream.probabilities().tolist() == fresh(model).probabilities().tolist()


# Against the twin.


@pytest.mark.parametrize(
    ("contexts", "order", "chars"), [("wide", 14, 450), ("chars", 24, 300), ("o1,p.suffix", 1, 300), ("default", 1, 300)]
)
def test_against_the_twin(english, held_out, contexts, order, chars):
    """Every probability while learning, to float32 accuracy; all of the distribution now and then."""
    model = build_model(english[:30_000], order=order, contexts=contexts, threads=1)
    stream, twin = fresh(model), MixtureTwin(model)
    text = english[:40] + held_out[: chars - 140] + english[20_000:20_100]
    for i, c in enumerate(text):
        p = stream.probabilities()
        if i % 40 == 7:
            assert np.abs(twin.distribution() - p).max() < 1e-5
        q = twin.observe(c)
        assert abs(p[stream.alphabet.symbol_of.get(c, ESCAPE)] - q) < 1e-5, (i, c)
        stream.observe(c)


def test_against_the_twin_with_rare_characters_and_matches(crowded_model, crowded_text):
    """A repeated text, so that the match model works, of which a fifth are rare characters; other rates of learning."""
    rates = MixerRates(weights=1e-3, boost=2.0, boost_chars=100.0, evidence=0.1, initial_evidence=1.5, initial_chain=0.3)
    stream, twin = fresh(crowded_model, rates=rates), MixtureTwin(crowded_model, rates)
    for i, c in enumerate((crowded_text[:20] + crowded_text[500:640]) * 3):
        p = stream.probabilities()
        if i % 60 == 0:
            assert np.abs(twin.distribution() - p).max() < 1e-5
        assert abs(p[stream.alphabet.symbol_of.get(c, ESCAPE)] - twin.observe(c)) < 1e-5, (i, c)
        stream.observe(c)


def test_against_the_twin_without_matches(model, held_out):
    stream, twin = fresh(model, match=False), MixtureTwin(model, match=False)
    for c in held_out[:60] * 3:
        p = stream.probabilities()[stream.alphabet.symbol_of.get(c, ESCAPE)]
        assert abs(p - twin.observe(c)) < 1e-5
        stream.observe(c)


# Quality on real text: a floor that only a broken model misses.


def test_learning_helps(model, english):
    text = english[100_000:106_000]
    stream = fresh(model)
    learned = stream.score(text)
    frozen = fresh(model, rates=MixerRates(weights=0.0, evidence=0.0)).score(text)
    assert learned.mean() < frozen.mean() < 3.5
    assert learned[3000:].mean() < 2.6


def test_on_wikitext(wikitext_val):
    """The gains that the design relies on, on genuine text: words and classes beside characters, higher orders."""
    train, text = wikitext_val[20_000:], wikitext_val[:6_000]
    chars = fresh(build_model(train, order=4, contexts="chars", threads=1)).score(text).mean()
    default = fresh(build_model(train, order=8, threads=1)).score(text).mean()
    assert default < chars < 3.2
