"""Interpolated Kneser-Ney against a slow twin by the formulas, and against NLTK where it is installed."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import LOBSTER, model_of

from charstat.counting import build_model
from charstat.ngram.interpolated import KneserNey, modified_discounts
from charstat.tree import ESCAPE

PROSE = LOBSTER * 2


class SlowKneserNey:
    """Chen and Goodman 1998, equation 5.26, over a list of orders; P of every character of the alphabet."""

    def __init__(self, text, orders, alphabet, discounts=None):
        self.orders, self.alphabet = orders, alphabet
        self.counts = []
        for at, k in enumerate(orders):
            counts = defaultdict(Counter)
            if at == len(orders) - 1:
                for i in range(k, len(text)):
                    counts[text[i - k : i]][text[i]] += 1
            else:
                longer = orders[at + 1]
                for gram in {text[i - longer : i + 1] for i in range(longer, len(text))}:
                    counts[gram[longer - k : -1]][gram[-1]] += 1
                for i in range(k, min(longer, len(text))):  # too near the start for a longer context
                    counts[text[i - k : i]][text[i]] += counts[text[i - k : i]][text[i]] == 0
            self.counts.append(counts)
        self.discounts = discounts or [self.estimate(c) for c in self.counts]

    @staticmethod
    def estimate(counts):
        n = Counter(min(c, 5) for row in counts.values() for c in row.values())
        y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
        ds = [r - (r + 1) * y * n[r + 1] / n[r] if n[r] and n[r + 1] else y for r in (1, 2, 3)]
        return [d if 0 < d < r else y for r, d in zip((1, 2, 3), ds, strict=True)]

    def predict(self, history):
        p = {c: 1 / len(self.alphabet) for c in self.alphabet}
        for k, counts, ds in zip(self.orders, self.counts, self.discounts, strict=True):
            row = counts.get(history[len(history) - k :]) if k <= len(history) else None
            if not row:
                break
            n = sum(row.values())
            kept = sum(ds[min(c, 3) - 1] for c in row.values())
            p = {c: (max(row[c] - ds[min(row[c], 3) - 1], 0) if c in row else 0) / n + kept / n * p[c] for c in p}
        return p


@given(text=st.text("abc d", min_size=1, max_size=60), stream=st.text("abc d", max_size=12))
@settings(max_examples=40, deadline=None)
def test_agrees_with_the_formulas(text, stream):
    model = build_model(text, contexts="o0,o1,o3", backend="cpu", threads=1)
    kn = KneserNey(model)
    kn.reset()
    alphabet = [*model.alphabet.chars, None]
    twin = SlowKneserNey(text, (0, 1, 3), alphabet)
    assert kn.discounts == pytest.approx(np.array(twin.discounts))
    stream = "".join(c for c in stream if c in model.alphabet.symbol_of)
    for i in range(len(stream) + 1):
        want = twin.predict(stream[:i])
        got = kn.probabilities()
        assert got[[*range(len(alphabet) - 1), ESCAPE]] == pytest.approx([want[c] for c in alphabet], abs=1e-12)
        assert got.sum() == pytest.approx(1.0, abs=1e-12)
        if i < len(stream):
            kn.observe(stream[i])


def test_agrees_with_nltk():
    """NLTK's Kneser-Ney has one discount and no uniform floor: D1 = D2 = D3 = 0.75, none at order 0, where it divides by all bigram types."""
    nltk_lm = pytest.importorskip("nltk.lm")
    order, discount = 3, 0.75
    text = PROSE[1:201]  # its first character comes again: elsewhere, ours gives it a floor
    theirs = nltk_lm.KneserNeyInterpolated(order, discount=discount)
    grams = [tuple(text[i - k : i + 1]) for k in range(order) for i in range(k, len(text))]
    theirs.fit([grams], vocabulary_text=list(text))
    model = model_of(text, "o0,o1,o2")
    kn = KneserNey(model, discounts=np.array([[0.0] * 3] + [[discount] * 3] * (order - 1)))
    kn.reset()
    compared = 0
    for i in range(60, 140):
        context = text[i - order + 1 : i]
        kn.reset()
        kn.score(context)
        p = kn.probabilities()
        for char in sorted(set(text)):
            assert p[model.alphabet.symbol_of[char]] == pytest.approx(theirs.score(char, tuple(context)), abs=1e-9)
            compared += 1
    assert compared > 1000


def test_discounts_by_hand():
    # n1 = 10, n2 = 4, n3 = 2, n4 = 1: Y = 10/18
    y = 10 / 18
    assert modified_discounts(np.array([0, 10, 4, 2, 1])) == pytest.approx((1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.5))
    assert modified_discounts(np.array([0, 0, 0, 0, 0])) == (0.5, 0.5, 0.5)
    kn = KneserNey(model_of(PROSE))
    rows = kn.discount_rows()
    assert [row["counts"] for row in rows] == ["continued"] * 3 + ["plain"] and [row["order"] for row in rows] == [0, 1, 2, 3]
    for row, counts, discounts in zip(rows, kn.counts_of_counts, kn.discounts, strict=True):
        assert [row[f"n{r}"] for r in (1, 2, 3, 4)] == counts[1:].tolist() and [row[f"d{r}"] for r in (1, 2, 3)] == discounts.tolist()


@pytest.mark.parametrize("order", [0, 2, None])
def test_sums_batches_and_reset_agree(order):
    kn = KneserNey(model_of(PROSE), max_order=order)
    stream = PROSE[40:140] + "ß" + PROSE[:60]
    kn.reset()
    guesses, bits = kn.guess_and_score(stream)
    kn.reset()
    for i, char in enumerate(stream):
        p = kn.probabilities()
        assert p.sum() == pytest.approx(1.0, abs=1e-9) and (p >= 0).all()
        assert kn.predict_char() == guesses[i]
        assert -np.log2(kn.probability(char)) == bits[i]
        kn.observe(char)
    kn.reset()
    assert (kn.score(stream) == bits).all()


def test_hashed_orders_keep_plain_counts():
    kn = KneserNey(model_of(PROSE, "o0,o2,o8,o11"))
    assert (kn.chain.continued_at >= 0).tolist() == [True, True, False, False]
    kn.reset()
    assert np.isfinite(kn.score(PROSE[:100])).all()


def test_wrong_discounts():
    with pytest.raises(ValueError, match="discounts"):
        KneserNey(model_of(PROSE), discounts=np.ones((2, 3)))
