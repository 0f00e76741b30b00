"""Advice by name: columns go to the symbols of their characters, in whatever order they come; bad advice is refused."""

import numpy as np
import pytest
from streams import fresh

from charstat import Advice, Alphabet
from charstat.mixers.combine import AdvisedMixture

ESCAPE = 127


def net(text, vocab, seed=1):
    """What a fair net might say: mostly right, in the order of `vocab`, whose last entry is "<unk>"."""
    rows = np.random.default_rng(seed).dirichlet([0.2] * len(vocab), len(text)) * 0.2
    for i, c in enumerate(text):
        rows[i, vocab.index(c) if c in vocab else -1] += 0.8
    return rows


def test_the_order_of_columns_does_not_matter(model, held_out):
    text = held_out[:400]
    vocab = [*sorted(model.alphabet.chars), "<unk>"]
    rows = net(text, vocab)
    named = fresh(model, experts=1).score(text, Advice(vocab, rows, "<unk>"))
    order = np.random.default_rng(2).permutation(len(vocab))
    assert np.array_equal(named, fresh(model, experts=1).score(text, Advice([vocab[i] for i in order], rows[:, order], "<unk>")))
    in_symbol_order = model.alphabet.align(vocab, rows, "<unk>")
    assert np.array_equal(named, fresh(model, experts=1).score(text, in_symbol_order[:, np.newaxis]))
    assert named.mean() < 0.5 * fresh(model, experts=1).score(text).mean()
    stream, steps = fresh(model, experts=1), []
    for i, c in enumerate(text):
        stream.advise(Advice(vocab, rows[i], "<unk>"))
        steps.append(-np.log2(stream.probability(c)))
        stream.observe(c)
    assert np.array_equal(steps, named)


def test_several_experts_with_vocabularies_of_their_own(model, held_out):
    text = held_out[:100]
    one, two = [*sorted(model.alphabet.chars), "<unk>"], [*sorted(model.alphabet.chars[:40], reverse=True), "other"]
    advice = [Advice(one, net(text, one), "<unk>"), Advice(two, net(text, two).astype(np.float32), "other")]
    wanted = np.stack([part.aligned(model.alphabet) for part in advice], axis=1)
    assert np.array_equal(fresh(model, experts=2).score(text, advice), fresh(model, experts=2).score(text, wanted))
    assert np.array_equal(
        fresh(model, experts=2).distributions(text, advice=tuple(advice)), fresh(model, experts=2).distributions(text, advice=wanted)
    )


def test_an_expert_may_return_advice(model, held_out):
    class Net:
        def reset(self):
            self.i = 0

        def observe(self, char):
            self.i += 1

        def probabilities(self, out=None):
            return Advice(vocab, rows[self.i], "<unk>")

    text = held_out[:50]
    vocab = [*sorted(model.alphabet.chars), "<unk>"]
    rows = net(text, vocab)
    mixture = AdvisedMixture(model.stream(experts=1), [Net()])
    mixture.reset()
    assert np.array_equal(mixture.score(text), fresh(model, experts=1).score(text, Advice(vocab, rows, "<unk>")))


def test_align_by_hand():
    alphabet = Alphabet.from_text("aaab" * 3)
    a, b = alphabet.encode("ab")
    out = alphabet.align(["z", "b", "y"], [[0.5, 0.3, 0.2]])  # a: never said to come; y, z: rare here
    assert out.shape == (1, 128) and out[0, b] == 0.3 and out[0, ESCAPE] == 0.7 and out[0, a] == 0.0
    out = alphabet.align("b?", [0.4, 0.6], unknown="?")  # "?" for all but b: half to a, half to the escape
    assert out.shape == (128,) and (out[b], out[a], out[ESCAPE]) == (0.4, 0.3, 0.3)
    assert alphabet.align(["a", "b", "<unk>"], [[0.0, 0.0, 0.0]], "<unk>").sum() == 0.0


def test_decode():
    alphabet = Alphabet.from_text("hello world" * 3)
    assert alphabet.decode(alphabet.encode("hello")) == "hello" and alphabet.decode([]) == ""
    assert alphabet.decode(alphabet.encode("h戦o")) == "h\ufffdo" and alphabet.decode([ESCAPE], escape="?") == "?"
    for wrong in (-1, alphabet.size, 126, 128):
        with pytest.raises(ValueError, match="no symbol of this alphabet"):
            alphabet.decode([wrong])


BAD = {
    "twice": lambda: Advice("aba", np.full((2, 3), 1 / 3)),
    "no character": lambda: Advice(["a", "th"], np.full((2, 2), 0.5)),
    "is empty": lambda: Advice([], np.ones((2, 0))),
    "not be NoneType": lambda: Advice(None, np.ones((2, 1))),
    "vocab does not have": lambda: Advice("ab", np.full((2, 2), 0.5), "<unk>"),
    "must have a column for each": lambda: Advice("abc", np.full((2, 2), 0.5)),
    "not the shape": lambda: Advice("ab", np.full((2, 1, 2), 0.5)),
    "take exp": lambda: Advice("ab", np.log(np.full((2, 2), 0.5))),
    "finite": lambda: Advice("ab", np.full((2, 2), np.nan)),
    "row 1 of probs adds up to 0.9": lambda: Advice("ab", [[0.5, 0.5], [0.5, 0.4]]),
    "not str": lambda: Advice("ab", "half"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_advice(what):
    with pytest.raises(ValueError, match=what):
        BAD[what]()


def test_advice_that_does_not_fit_the_text(model):
    rows = np.full((3, 2), 0.5)
    with pytest.raises(ValueError, match="same characters: their rows are 3, 2"):
        fresh(model, experts=2).score("abc", [Advice("ab", rows), Advice("ab", rows[:2])])
    with pytest.raises(ValueError, match="advice must have the shape"):
        fresh(model, experts=1).score("abcd", Advice("ab", rows))
    with pytest.raises(ValueError, match="advice must have the shape"):
        fresh(model, experts=2).score("abc", Advice("ab", rows))
    with pytest.raises(ValueError, match="adds up to 2"):
        fresh(model, experts=1).score("a", np.full((1, 1, 128), 2 / 128))
