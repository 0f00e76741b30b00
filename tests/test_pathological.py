"""Texts that nobody writes: each gives a clear error or a working model, and nothing that is not a number."""

import time

import numpy as np
import pytest
from test_mixture import assert_distribution, assert_paths_agree, fresh
from test_model import assert_same_model

from charstat.alphabet import Alphabet
from charstat.charmodel_api import evaluate
from charstat.counting import build_model
from charstat.errors import CorpusError
from charstat.model import Model

MANY = 10_000_000
# The contest's tiny fixture has three short lines and 485 bytes of train.
TINY = (
    "\n = Robert Boulter = \n\n\n Robert Boulter is an English film , television and theatre actor . \n\n He had a guest role on the series The Bill in 2000 . \n"
    * 4
)[:485]

TEXTS = {
    "one character": "a",
    "one space": " ",
    "one newline": "\n",
    "one escape character": "\0",
    "two": "ab",
    "equal": "a" * 5000,
    "equal in words": "aaaa " * 1000,
    "only spaces": " " * 5000,
    "only newlines": "\n" * 5000,
    "spaces and newlines": " \n" * 2000,
    "no spaces": "abcdefghij" * 500,
    "485 bytes": TINY,
    "lone surrogates": "\ud800a\udfff b\udc00\n" * 200,
    "the highest code points": "\U0010ffff\U0010fffe \uffff" * 200,
    "control characters": "".join(map(chr, range(32))) * 50,
    "all the same digit": "7 7 7 77\n" * 300,
    "combining": "e\u0301 \u200d\ufeff" * 300,
    "more characters than symbols": "".join(map(chr, range(0x4E00, 0x4E00 + 2000))),
    "a line of 100,000": "x" * 50_000 + " " + "y" * 50_000,
    "long words": ("q" * 31 + " " + "q" * 32 + " " + "q" * 33 + "\n" + "qr" * 40 + " ") * 30,
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("contexts", "order"), [("wide", 14), ("chars", 1)])
def test_a_working_model(tmp_path, name, contexts, order):
    """Built, streamed over itself and over something else, saved, loaded, merged with itself."""
    text = TEXTS[name]
    model = build_model(text, order=order, contexts=contexts, threads=2)
    stream = fresh(model)
    assert_distribution(stream)
    result = evaluate(stream, text[:1500] + "the end \n戦\ud800")
    assert np.isfinite(result.bits).all() and (result.bits >= 0).all()
    assert_paths_agree(stream, [*stream.alphabet.chars[:20], "戦", "\0"])
    assert_distribution(stream)
    for c in text[-40:]:
        stream.observe(c)
        assert_paths_agree(stream, c + "a \0")
        assert_distribution(stream)
    total = Model.merge(model, build_model(text, order=order, contexts=contexts, threads=1), out=tmp_path / "m")
    bits = fresh(total).score(text[:500])
    assert np.isfinite(bits).all()
    if len(set(text)) == 1:
        assert result.accuracy > 0.4 or len(text) < 10


@pytest.mark.parametrize("name", ["one character", "485 bytes", "no spaces", "only newlines", "more characters than symbols", "long words"])
def test_other_ways_to_the_same_model(tmp_path, name):
    text = TEXTS[name]
    one = build_model(text, order=24, contexts="wide", threads=1)
    assert_same_model(one, build_model(text, order=24, contexts="wide", threads=3, out=tmp_path / "m"))
    half = len(text) // 2
    if half:
        alphabet = Alphabet.from_text(text)
        options = {"order": 24, "contexts": "wide", "threads": 1, "alphabet": alphabet, "classes": one.classes}
        assert_same_model(one, Model.merge(build_model(text[:half], **options), build_model(text[half:], history=text[:half], **options)))


def test_empty():
    with pytest.raises(CorpusError, match="the training text is empty"):
        build_model("")
    with pytest.raises(CorpusError, match="the training text is empty"):
        build_model("", history="something", alphabet=Alphabet.from_text("a"))


@pytest.mark.parametrize("text", ["戦", "戦争", "戦 争\n" * 50, "日本語のテキスト" * 40])
def test_only_rare_characters(text):
    """A text in which the alphabet, taken from elsewhere, knows nothing."""
    model = build_model(text.replace(" ", "語"), order=9, contexts="wide", alphabet=Alphabet.from_text("abc \n"), threads=1)
    assert model.tables["o0"].n_rows <= 2
    stream = fresh(model)
    assert_distribution(stream)
    result = evaluate(stream, text * 3 + "abc")
    assert np.isfinite(result.bits).all()
    assert_distribution(stream)
    assert stream.probabilities().argmax() in (127, *range(5))


def test_an_order_beyond_the_text():
    """Contexts that never come: empty tables, silent sources."""
    model = build_model("abc", order=24, contexts="wide,c16,o9", threads=1)
    assert {n: model.tables[n].n_contexts for n in ("o0", "o1", "o2", "o3", "o24", "c16", "p.w1")} == {
        "o0": 1, "o1": 2, "o2": 1, "o3": 0, "o24": 0, "c16": 0, "p.w1": 0,
    }  # fmt: skip
    stream = fresh(model)
    evaluate(stream, "abc" * 20)
    assert_distribution(stream)
    assert stream.predict_char() == "a"


def test_485_bytes():
    """The contest's fixture: it works, and knows something of a line like its own."""
    model = build_model(TINY, order=8, threads=1)
    assert len(TINY.encode()) == 485
    result = evaluate(model.stream(), TINY[:200])
    assert result.accuracy > 0.8 and result.bits_per_char < 2.5


@pytest.mark.parametrize("char", ["a", " "])
def test_one_character_ten_million_times(char):
    """One context, one count that large; as a space it is ten million words. Time stays linear."""
    started = time.perf_counter()
    model = build_model(char * MANY, order=8, contexts="chars,c14,o11,p,p.w1", threads=2)
    assert time.perf_counter() - started < 60.0
    assert model.tables["o0"].counts().tolist() == [MANY]
    assert model.tables["o8"].counts().tolist() == [MANY - 8]
    assert model.tables["o11"].counts().tolist() == [MANY - 11]
    words = model.tables["p.w1"]
    assert words.counts().tolist() == ([MANY] if char == " " else [])
    stream = fresh(model)
    assert stream.predict_char() == char
    result = evaluate(stream, char * 3000 + "b" + char * 20)
    assert np.isfinite(result.bits).all() and result.bits[2999] < 1e-4
    assert not result.correct[3000] and result.correct[:3000].all()
    assert_distribution(stream)


@pytest.mark.slow
def test_ten_million_in_all_default_contexts(tmp_path):
    model = build_model("a" * (MANY - 5) + "\nend ", order=8, threads=2, out=tmp_path / "m")
    assert model.n_rows < 1000
    stream = fresh(model)
    bits = stream.score("a" * 200_000)
    assert np.isfinite(bits).all() and bits.mean() < 1e-3


def test_a_long_stream_of_one_character():
    """Overlay counts reach their top, matches their longest; probabilities stay inside their clips."""
    stream = fresh(build_model(TINY, order=3, threads=1))
    bits = stream.score("e" * 10_000)
    assert np.isfinite(bits).all() and bits[-1] < 0.01
    assert_distribution(stream)
    assert stream.score("\U0001f41d")[0] < 200.0  # what was never expected costs much, not infinitely much
    assert_distribution(stream)


def test_every_code_point_has_a_probability():
    stream = fresh(build_model(TINY, order=3, threads=1))
    for c in ("\0", "\ud800", "\udfff", "\uffff", "\U0010ffff", "\u2028", "戦"):
        p = stream.probability(c)
        assert 0.0 < p < 1e-3
        assert stream.score(c)[0] == -np.log2(p)
