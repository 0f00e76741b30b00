"""Experts of a mixture: other models' probabilities as inputs."""

import numpy as np
import pytest
from oracles import ESCAPE, MixtureTwin
from streams import assert_distribution, assert_paths_agree, fresh

from charstat.mixers.combine import AdvisedMixture


def random_advice(n, experts, alphabet, seed=1):
    """Distributions over the alphabet's symbols and the escape, now and then none, or all in one place."""
    rng = np.random.default_rng(seed)
    used = [*range(alphabet.size), ESCAPE]
    advice = np.zeros((n, experts, 128))
    advice[:, :, used] = rng.dirichlet([0.3] * len(used), (n, experts))
    advice[::7, 0] = 0.0
    advice[3::7, -1] = np.eye(128)[used[5]]
    return advice


def test_experts_against_the_twin(model, held_out):
    stream, twin = fresh(model, experts=2), MixtureTwin(model, experts=2)
    text = held_out[:200]
    for c, advice in zip(text, random_advice(200, 2, model.alphabet), strict=True):
        stream.advise(advice)
        twin.advice = advice
        assert_paths_agree(stream, c + "e")
        assert_distribution(stream)
        p = stream.probabilities()[stream.alphabet.symbol_of.get(c, ESCAPE)]
        assert abs(p - twin.observe(c)) < 1e-4  # of mass 1e-12 little is left in a difference of cumulative sums
        stream.observe(c)


def test_advice_in_one_call_and_step_by_step(model, held_out):
    text = held_out[:250]
    advice = random_advice(250, 2, model.alphabet)
    whole = fresh(model, experts=2).score(text, advice)
    guesses, bits = fresh(model, experts=2).guess_and_score(text, advice)
    assert np.array_equal(bits, whole)
    all_p = fresh(model, experts=2).distributions(text, advice=advice)
    stream, parts = fresh(model, experts=2), fresh(model, experts=2)
    assert np.array_equal(np.concatenate([parts.score(text[:99], advice[:99]), parts.score(text[99:], advice[99:])]), whole)
    for i, c in enumerate(text):
        stream.advise(advice[i])
        assert stream.predict_char() == guesses[i]
        p = stream.probabilities()
        assert np.array_equal(p, all_p[i])
        s = stream.alphabet.symbol_of.get(c, ESCAPE)
        assert whole[i] == -np.log2(p[s] * stream.alphabet.rare_probability(c) if s == ESCAPE else p[s])
        stream.observe(c)
    assert not np.array_equal(whole, fresh(model, experts=2).score(text))


def test_advice_is_causal(model, held_out):
    """Advice for later characters changes nothing before them; it does not outlive its character."""
    text = held_out[:200]
    advice = random_advice(200, 1, model.alphabet)
    other = advice.copy()
    other[120:] = random_advice(80, 1, model.alphabet, seed=2)
    a, b = fresh(model, experts=1).score(text, advice), fresh(model, experts=1).score(text, other)
    assert np.array_equal(a[:120], b[:120]) and not np.array_equal(a[120:], b[120:])
    one, two = fresh(model, experts=1), fresh(model, experts=1)
    one.advise(advice[1])
    two.advise(advice[1])
    one.observe("x")
    two.observe("x")
    two.advise(np.zeros((1, 128)))
    assert one.predict() == two.predict()
    one.reset()
    assert one.predict() == fresh(model, experts=1).predict()


def test_an_expert_that_knows_is_listened_to(model, held_out):
    text = held_out[:1000]
    advice = np.full((1000, 1, 128), 1e-4)
    advice[np.arange(1000), 0, model.alphabet.encode(text)] = 0.99
    own = np.array([c in model.alphabet.symbol_of for c in text])
    assert fresh(model, experts=1).score(text, advice)[own].mean() < 0.7 * fresh(model).score(text)[own].mean()


@pytest.mark.parametrize(
    "bad",
    [np.ones(128), np.ones((2, 128)), np.ones((1, 127)), np.full((1, 128), np.nan), np.full((1, 128), -0.1), np.full((1, 128), np.inf)],
)
def test_bad_advice(model, bad):
    stream = fresh(model, experts=1)
    with pytest.raises(ValueError, match="advice"):
        stream.advise(bad)
    with pytest.raises(ValueError, match="advice"):
        stream.score("a", bad[np.newaxis])
    assert stream.predict() == fresh(model, experts=1).predict()


def test_no_advice_for_no_text(model):
    stream = fresh(model, experts=1)
    assert stream.score("", np.empty((0, 1, 128))).shape == (0,)
    assert stream.distributions("", advice=np.empty((0, 1, 128))).shape == (0, 128)


class Ignorant:
    """An expert that ignores `out` and returns an array of its own, a new one or always the same."""

    def __init__(self, alphabet, same):
        self.alphabet, self.same, self.row = alphabet, same, np.zeros(128)

    def reset(self):
        self.observe("e")

    def observe(self, char):
        if not self.same:
            self.row = np.zeros(128)
        self.row[: self.alphabet.size] = 0.3 / self.alphabet.size
        self.row[ESCAPE] = 0.1
        self.row[self.alphabet.symbol_of.get(char, 5)] = 0.6

    def probabilities(self, out=None):
        return self.row


@pytest.mark.parametrize("same", [False, True])
def test_fast_and_stepwise_agree_for_an_expert_of_any_kind(model, held_out, same):
    def advised():
        mixture = AdvisedMixture(model.stream(experts=2), [Ignorant(model.alphabet, same), model.char_model("ppm")])
        mixture.reset()
        return mixture

    text, steps = held_out[:400], advised()
    guesses, bits = advised().guess_and_score(text)
    for guess, b, c in zip(guesses, bits, text, strict=True):
        assert steps.predict_char() == guess
        s = model.alphabet.symbol_of.get(c, ESCAPE)
        p = steps.probabilities()[s]
        assert b == -np.log2(p * model.alphabet.rare_probability(c) if s == ESCAPE else p)
        steps.observe(c)


def test_an_expert_with_rows_of_another_length(model):
    expert = Ignorant(model.alphabet, True)
    expert.probabilities = lambda out=None: np.zeros(127)
    mixture = AdvisedMixture(model.stream(experts=1), [expert])
    mixture.reset()
    for ask in (mixture.predict, lambda: mixture.score("abc")):
        with pytest.raises(ValueError, match=r"Ignorant\.probabilities\(\) must return"):
            ask()
