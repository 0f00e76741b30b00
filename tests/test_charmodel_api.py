"""charmodel_api.py: the contest's scoring, replayed on toys of both contracts, and on the mixture."""

import json
import math

import numpy as np
import pytest

from charstat.charmodel_api import CURVE_CHARS, CharModel, EvalResult, evaluate
from charstat.errors import ArgumentError

TEXT = "abracadabra"


class Recorder:
    """Writes down what is called; predicts what a function of the characters so far says."""

    def __init__(self, rule):
        self.rule, self.calls, self.seen = rule, [], ""

    def reset(self):
        self.calls.append("reset")
        self.seen = ""

    def predict(self):
        self.calls.append("predict")
        return self.rule(self.seen)

    def observe(self, char):
        self.calls.append(char)
        self.seen += char


class LastCharacter(CharModel):
    """Repeats the last character with 3/4."""

    def reset(self):
        self.last = ""

    def predict(self):
        return {c: 0.75 if c == self.last else 0.05 for c in "abcdrx"} if self.last else {}

    def observe(self, char):
        self.last = char


def contest_accuracy(model, text) -> float:
    """The contest's own loop, both contracts: argmax of the dictionary, ties by insertion order, empty wrong; or a string."""
    model.reset()
    right = 0
    for char in text:
        predicted = model.predict()
        if isinstance(predicted, dict):
            best, guess = None, None
            for c, p in predicted.items():
                if best is None or p > best:
                    best, guess = p, c
        else:
            guess = predicted
        right += guess == char
        model.observe(char)
    return right / len(text)


def test_order_of_calls():
    model = Recorder(lambda seen: "")
    evaluate(model, "abc")
    assert model.calls == ["reset", "predict", "a", "predict", "b", "predict", "c"]


RULES = {
    "dict": lambda seen: {"a": 0.5, "b": 0.25, "r": 0.25},
    "ties go to the first": lambda seen: {"b": 0.4, "a": 0.4, "r": 0.2},
    "ties go to the first, turned round": lambda seen: {"a": 0.4, "b": 0.4, "r": 0.2},
    "empty is wrong": lambda seen: {},
    "a string": lambda seen: "a",
    "abstains": lambda seen: "",
    "sometimes abstains": lambda seen: "a" if len(seen) % 2 else "",
    "knows all": lambda seen: {TEXT[len(seen)]: 1.0},
    "unnormalised": lambda seen: {"a": 3.0, "b": 2.0},
    "zeros": lambda seen: {"a": 0.0, "b": 0.0},
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_accuracy_is_the_contests(rule):
    result = evaluate(Recorder(rule), TEXT)
    assert result.accuracy == contest_accuracy(Recorder(rule), TEXT)
    assert result.chars == len(TEXT) and result.correct.sum() == round(result.accuracy * len(TEXT))


def test_by_hand():
    dict_model = evaluate(Recorder(RULES["dict"]), TEXT)
    assert dict_model.accuracy == 5 / 11
    bits = [-math.log2({"a": 0.5, "b": 0.25, "r": 0.25}.get(c, 0.0) or 0.5**999) for c in TEXT]
    assert dict_model.bits[:4].tolist() == bits[:4] and dict_model.bits[4] == math.inf  # c is not in the dictionary
    assert dict_model.bits_per_char == math.inf
    assert evaluate(Recorder(RULES["ties go to the first"]), TEXT).accuracy == 2 / 11
    assert evaluate(Recorder(RULES["empty is wrong"]), TEXT).accuracy == 0.0
    whole = evaluate(Recorder(RULES["knows all"]), TEXT)
    assert whole.accuracy == 1.0 and whole.bits_per_char == 0.0


def test_guesses_have_no_bits():
    result = evaluate(Recorder(RULES["a string"]), TEXT)
    assert result.bits_per_char is None and result.bits is None and result.accuracy == 5 / 11


def test_a_stream_of_strings():
    for stream in (TEXT, list(TEXT), iter(["abra", "", "cadabra"])):
        assert evaluate(Recorder(RULES["a string"]), stream).chars == 11


@pytest.mark.parametrize("wrong", [None, 3, b"abc", [1], np.array("abc"), np.array(["a", "b"])[:, None]])
def test_no_text(wrong):
    with pytest.raises(ArgumentError, match="the text to evaluate on"):
        evaluate(Recorder(RULES["dict"]), wrong)


def test_nothing_to_score():
    result = evaluate(Recorder(RULES["dict"]), "")
    assert (result.chars, result.accuracy, result.bits_per_char, result.curve) == (0, 0.0, None, {})


def test_curve():
    """Accuracy of the first 10, 20, 30 and 60 thousand characters, as far as the text goes."""
    text = "a" * 10_000 + "b" * 10_000 + "a" * 5_000
    result = evaluate(Recorder(lambda seen: "a"), text)
    assert result.curve == {10_000: 1.0, 20_000: 0.5}
    assert evaluate(Recorder(lambda seen: "a"), "a" * 30_000).curve == {10_000: 1.0, 20_000: 1.0, 30_000: 1.0}
    assert CURVE_CHARS == (10_000, 20_000, 30_000, 60_000)


def test_progress():
    told = []
    evaluate(Recorder(RULES["a string"]), "ab" * 5_000, progress=told.append)
    assert told == sorted(told) and told[-1] == 10_000 and len(told) > 1


def test_result_as_json():
    result = evaluate(Recorder(RULES["a string"]), TEXT)
    d = json.loads(json.dumps(result.to_dict()))
    assert d["accuracy"] == 5 / 11 and d["bits_per_char"] is None and "correct" not in d and "bits" not in d
    assert {"chars", "accuracy", "bits_per_char", "seconds", "chars_per_s", "curve"} == set(d)
    assert isinstance(result, EvalResult) and result.seconds > 0


# What CharModel gives to a model that has only the three methods.


def test_default_methods():
    model = LastCharacter()
    model.reset()
    assert model.predict_char() == ""
    assert model.score("aab").tolist() == [math.inf, -math.log2(0.75), -math.log2(0.05)]
    assert model.predict_char() == "b"
    with pytest.raises(TypeError):
        CharModel()


# The mixture: evaluate() takes its compiled loop, and nobody could tell.


class OnlyThreeMethods:
    def __init__(self, stream):
        self.reset, self.predict, self.observe = stream.reset, stream.predict, stream.observe


@pytest.mark.parametrize("which", ["model", "crowded_model"])
def test_the_fast_way_is_the_slow_way(which, held_out, request):
    """Rare characters under 1 % are listed by nobody, so the dictionary has no bits for them; all else is the same."""
    model = request.getfixturevalue(which)
    text = held_out[:900]
    fast, slow = evaluate(model.stream(), text), evaluate(OnlyThreeMethods(model.stream()), text)
    assert fast.correct.tolist() == slow.correct.tolist() and fast.accuracy == slow.accuracy
    own = np.array([c in model.alphabet.symbol_of for c in text])
    assert np.allclose(fast.bits[own], slow.bits[own], rtol=0, atol=1e-12)
    assert np.isfinite(fast.bits).all()
    assert contest_accuracy(OnlyThreeMethods(model.stream()), text) == fast.accuracy


def test_evaluating_twice_gives_the_same(model, held_out):
    stream = model.stream()
    first, second = evaluate(stream, held_out), evaluate(stream, held_out)
    assert np.array_equal(first.bits, second.bits) and np.array_equal(first.correct, second.correct)
    assert (first.accuracy, first.bits_per_char) == (second.accuracy, second.bits_per_char)
    assert np.array_equal(evaluate(model.stream(), held_out).bits, first.bits)
