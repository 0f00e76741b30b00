"""CTW against the definition: a sum over all tree sources, published small values, and what must hold for every model."""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import LOBSTER, model_of

from charstat.ctw import ContextTreeWeighting
from charstat.ctw.kernels import USED
from charstat.ctw.weights import gamma_table, log_estimate
from charstat.errors import ContextError
from charstat.tree import ESCAPE

PROSE = LOBSTER * 3


def kt(zeros: int, ones: int) -> Fraction:
    """The Krichevsky-Trofimov block probability, by its sequential definition."""
    p, a, b = Fraction(1), 0, 0
    for _ in range(zeros):
        p *= Fraction(2 * a + 1, 2 * (a + b) + 2)
        a += 1
    for _ in range(ones):
        p *= Fraction(2 * b + 1, 2 * (a + b) + 2)
        b += 1
    return p


def sources(depth: int, context: str = ""):
    """(cost in bits, leaves) of every binary tree source: a set of contexts, none the suffix of another, that covers all pasts."""
    yield int(len(context) < depth), [context]
    if len(context) < depth:
        for (c0, s0), (c1, s1) in itertools.product(sources(depth, "a" + context), sources(depth, "b" + context)):
            yield 1 + c0 + c1, s0 + s1


def weighted(counts, depth) -> Fraction:
    """P of everything counted: the sum over all tree sources."""
    return sum(Fraction(1, 2**cost) * math.prod((kt(*counts[s]) for s in leaves), start=Fraction(1)) for cost, leaves in sources(depth))


def count(counts, history, char, depth):
    for k in range(min(depth, len(history)) + 1):
        counts[history[len(history) - k :]][char == "b"] += 1


def test_number_of_sources():
    assert [len(list(sources(d))) for d in range(3)] == [1, 2, 5]
    assert [sum(Fraction(1, 2**cost) for cost, _ in sources(d)) for d in range(3)] == [1, 1, 1]


def test_published_values():
    """Willems, Shtarkov and Tjalkens 1995: table of KT, and the example 0110100 after ...010 with depth 3: P_w = 95/32768."""
    table = {
        (1, 0): "1/2",
        (1, 1): "1/8",
        (2, 0): "3/8",
        (2, 1): "1/16",
        (2, 2): "3/128",
        (3, 0): "5/16",
        (3, 1): "5/128",
        (4, 3): "5/2048",
    }
    gammas = gamma_table(0.5)
    for (a, b), value in table.items():
        assert kt(a, b) == Fraction(value)
        assert math.exp(log_estimate(a, b, 0.5, gammas)) == pytest.approx(float(Fraction(value)), rel=1e-12)
    assert math.exp(log_estimate(5000, 1, 0.5, gammas)) == pytest.approx(float(kt(5000, 1)), rel=1e-7)
    counts = defaultdict(lambda: [0, 0])
    text = "010" + "0110100"
    text = text.replace("0", "a").replace("1", "b")
    for i in range(3, len(text)):
        count(counts, text[i - 3 : i], text[i], 3)
    assert weighted(counts, 3) == Fraction(95, 32768)


def share_of_b(ctw) -> float:
    """P(b) where the next character is a or b: the decision at the node that tells them apart."""
    p = ctw.probabilities()
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    a, b = (p[ctw.alphabet.symbol_of[c]] for c in "ab")
    return b / (a + b)


binary_texts = st.text("ab", min_size=3, max_size=24).filter(lambda t: len(set(t)) == 2)


@given(train=binary_texts, stream=binary_texts, depth=st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_against_the_sum_over_all_tree_sources(train, stream, depth):
    """Static weights from the tables, then online updates: P(next) = P_w(all counts and it) / P_w(all counts), at every step."""
    model = model_of(train, "o0,o1,o2")
    ctw = ContextTreeWeighting(model, max_order=depth)
    ctw.reset()
    counts = defaultdict(lambda: [0, 0])
    for i in range(len(train)):
        count(counts, train[max(0, i - depth) : i], train[i], depth)
    learning = ctw.state.settings
    ctw.state = ctw.state._replace(settings=learning._replace(online=False))  # the past of the batch form: seen, not counted
    ctw.score(stream[:depth])
    ctw.state = ctw.state._replace(settings=learning)
    for i in range(depth, len(stream)):
        history, before = stream[i - depth : i], weighted(counts, depth)
        for char, p in (("b", share_of_b(ctw)), ("a", 1.0 - share_of_b(ctw))):
            if char == stream[i]:
                count(counts, history, char, depth)
                assert p == pytest.approx(float(weighted(counts, depth) / before), rel=1e-4)
        ctw.observe(stream[i])


def test_multi_symbol_steps_weigh_like_the_definition():
    """A chain that skips order 1: a node's children are its extensions by two symbols."""
    train = "abracadabra abracadabra"
    model = model_of(train, "o0,o2")
    ctw = ContextTreeWeighting(model, online=False)
    ctw.reset()
    ctw.score("br")
    tree, symbol = model.alphabet.tree.arrays, model.alphabet.symbol_of
    p = ctw.probabilities()
    for v in range(tree.child.shape[0]):
        counts = defaultdict(lambda: [0, 0])
        for i, c in enumerate(train):
            if tree.lowest[v] <= symbol[c] < tree.end[v]:
                counts[""][int(symbol[c] >= tree.mid[v])] += 1
                if i >= 2:
                    counts[train[i - 2 : i]][int(symbol[c] >= tree.mid[v])] += 1

        def block(root, leaf, counts=counts):
            others = math.prod((kt(*n) for c, n in counts.items() if c and c != "br"), start=Fraction(1))
            return kt(*root) / 2 + others * kt(*leaf) / 2

        (r0, r1), (l0, l1) = counts[""], counts["br"]
        want = block((r0, r1 + 1), (l0, l1 + 1)) / block((r0, r1), (l0, l1))
        mass, one = p[tree.lowest[v] : tree.end[v]].sum(), p[tree.mid[v] : tree.end[v]].sum()
        assert one / mass == pytest.approx(float(want), rel=1e-5)


EVERY = [
    functools.partial(ContextTreeWeighting),
    functools.partial(ContextTreeWeighting, max_order=2),
    functools.partial(ContextTreeWeighting, alpha=0.1, online_weight=8.0, decay=0.8, static_cap=100.0, beta_limit=1e3),
    functools.partial(ContextTreeWeighting, online=False),
]


@pytest.mark.parametrize("make", EVERY)
def test_probabilities_sum_to_one_at_every_step(make):
    ctw = make(model_of(PROSE))
    ctw.reset()
    for char in PROSE[100:200] + "ßqz€" + PROSE[:50]:
        p = ctw.probabilities()
        assert p.sum() == pytest.approx(1.0, abs=1e-9) and (p >= 0).all()
        assert (p[: ctw.alphabet.size] > 0).all() and p[ctw.alphabet.size : ESCAPE].sum() == 0
        ctw.observe(char)


@pytest.mark.parametrize("make", EVERY)
def test_steps_batches_paths_and_reset_agree(make):
    ctw = make(model_of(PROSE))
    stream = PROSE[40:140] + "ß" + PROSE[:60]
    ctw.reset()
    guesses, bits = ctw.guess_and_score(stream)
    ctw.reset()
    for i, char in enumerate(stream):
        assert ctw.predict_char() == guesses[i]
        assert -np.log2(ctw.probability(char)) == bits[i]
        ctw.observe(char)
    ctw.reset()
    assert (ctw.score(stream) == bits).all()


@pytest.mark.parametrize("make", EVERY[:2])
def test_the_future_does_not_change_the_past(make):
    one, two = make(model_of(PROSE)), make(model_of(PROSE))
    one.reset(), two.reset()
    assert (one.score(PROSE[:120] + "abc")[:120] == two.score(PROSE[:120] + "zzzzzzzz")[:120]).all()


def test_learning_online_pays_on_repeated_text():
    ctw = ContextTreeWeighting(model_of(PROSE))
    ctw.reset()
    first, second = ctw.score("qwerty zxcvb " * 2).reshape(2, -1).sum(axis=1)
    assert second < 0.8 * first


def test_hashed_orders_learn_their_weights_online():
    model = model_of(PROSE, "o0,o1,o2,o4,o8,o11")
    ctw = ContextTreeWeighting(model)
    assert ctw.state is None and (ctw._beta_at >= 0).tolist() == [True] * 4 + [False, False]
    ctw.reset()
    assert np.isfinite(ctw.score(PROSE)).all()


def test_forgetting_bounds_memory():
    ctw = ContextTreeWeighting(model_of(PROSE), record_limit=2000)
    ctw.reset()
    rng = np.random.default_rng(5)
    bits = ctw.score("".join(rng.choice(list("abcdefgh"), 3000)))
    assert np.isfinite(bits).all()
    assert ctw.state.at[USED] < 2000 + 256 * ctw._deepest * 4
    assert ctw.probabilities().sum() == pytest.approx(1.0, abs=1e-9)


def test_user_mistakes():
    with pytest.raises(ContextError, match="alpha must be a positive number, not 0"):
        ContextTreeWeighting(model_of(PROSE), alpha=0.0)
