"""Streams that predict without learning (freeze), learn afterwards (commit), and travel as pickles; evidence for gates."""

import pickle

import numpy as np
import pytest
from streams import after, fresh

from charstat import Advice, FormatError, Model, StateError
from charstat.counting import build_model
from charstat.mixers.warm_start import learn_warm_start, pack
from charstat.symbol_model import SymbolModel

MODELS = ("ppm", "ppm-inherit", "ctw", "kneser-ney", "match", "mix", "advised")


@pytest.mark.parametrize("name", MODELS)
def test_a_frozen_view_learns_nothing(model, held_out, name):
    stream, whole = fresh(model, name), fresh(model, name)
    stream.score(held_out[:600])
    whole.score(held_out[:600])
    before = stream.predict()
    view = stream.freeze()
    bits = view.score(held_out[600:700])
    assert stream.predict() == before
    again = stream.freeze()
    stepwise = [-np.log2(again.predict().get(c, np.nan)) for c in held_out[600:700] if again.observe(c) is None]
    assert len(stepwise) == 100 and np.array_equal(stream.freeze().score(held_out[600:700]), bits)
    assert bits[0] == whole.score(held_out[600])[0]
    learned = whole.score(held_out[601:700])
    assert name == "kneser-ney" or not np.array_equal(bits[1:], learned)
    stream.commit(held_out[600:700])
    assert np.array_equal(stream.score(held_out[700:800]), whole.score(held_out[700:800]))


def test_frozen_steps_and_calls_agree(model, held_out):
    stream = fresh(model, experts=1)
    stream.score(held_out[:300])
    text = held_out[300:400]
    advice = np.random.default_rng(1).dirichlet([0.3] * 128, (100, 1))
    rows = stream.distributions(text, advice=advice, learn=False)
    guesses, bits = stream.freeze().guess_and_score(text, advice)
    view = stream.freeze()
    for i, c in enumerate(text):
        view.advise(advice[i])
        assert (
            np.array_equal(view.probabilities(), rows[i]) and view.predict_char() == guesses[i] and -np.log2(view.probability(c)) == bits[i]
        )
        view.observe(c)


def test_a_view_of_a_long_text(model, english):
    """Longer than the room of the match model, and than a block."""
    stream = fresh(model)
    stream.score(english[100_000:104_000])
    view = stream.freeze()
    pieces = [view.score(english[at : at + 1777]) for at in range(104_000, 113_000, 1777)]
    assert np.array_equal(np.concatenate(pieces), stream.freeze().score(english[104_000 : 104_000 + 6 * 1777]))


def test_a_view_ends_when_the_stream_learns(model):
    stream = fresh(model)
    view = stream.freeze()
    view.score("abc")
    for refused in (view.reset, lambda: view.commit("a")):
        with pytest.raises(StateError, match="frozen view"):
            refused()
    stream.observe("a")
    with pytest.raises(StateError, match="take a new view"):
        view.predict()
    view = stream.freeze()
    stream.reset()
    stream.observe("a")
    with pytest.raises(StateError, match="take a new view"):
        view.score("x")
    with pytest.raises(StateError, match=r"reset\(\) comes first"):
        model.stream().freeze()


def test_a_model_that_cannot_be_frozen(model):
    class Immovable(type(model.char_model("ppm"))):
        _move_on = SymbolModel._move_on

    stream = Immovable(model)
    stream.reset()
    with pytest.raises(StateError, match="Immovable cannot predict without learning"):
        stream.freeze()


def test_distributions_as_logarithms_and_in_float32(model, held_out):
    text = held_out[:5000]
    rows = fresh(model).distributions(text)
    single = fresh(model).distributions(text, dtype=np.float32)
    assert single.dtype == np.float32 and np.array_equal(single, rows.astype(np.float32))
    assert np.abs(single.sum(axis=1, dtype=np.float64) - 1).max() < 1e-6
    with np.errstate(divide="ignore"):
        assert np.array_equal(fresh(model).distributions(text, log=True), np.log(rows))
    out = np.empty((len(text), 128), np.float32)
    assert fresh(model).distributions(text, out=out, dtype=np.float32) is out
    for wrong in (np.float16, np.int64, "float", None):
        with pytest.raises(ValueError, match="float64 or float32"):
            fresh(model).distributions("ab", dtype=wrong)
    with pytest.raises(ValueError, match="not float32"):
        fresh(model).distributions("ab", out=np.empty((2, 128)), dtype=np.float32)


def test_evidence_is_that_of_the_longest_context(train_text):
    model = build_model("abcabcabdxyz" * 3, order=3, contexts="o1,o2,o3", threads=1)
    view = fresh(model).freeze()
    found = view.evidence("abcab?")
    assert found.order.tolist()[:5] == [-1, 1, 2, 3, 3] and found.order[5] == 3
    assert found.count[1] == 9 and found.distinct[1] == 1 and found.entropy[1] == 0.0  # "a": always "b"
    assert found.count[5] == 6 and found.distinct[5] == 2  # "cab": "c" three times, "d" three times
    assert found.entropy[5] == pytest.approx(1.0)
    learned = fresh(model)
    later = learned.evidence("qqqq" + "abcab")
    assert later.order[2] == 1 and later.count[2] == 1.0  # a context of this text alone
    assert np.array_equal(learned.score("xyz"), after(model, "qqqqabcab").score("xyz"))


@pytest.mark.parametrize("name", MODELS[:-1])
def test_a_pickle_has_the_model_s_path_and_what_was_learned(train_text, held_out, tmp_path, name):
    stored = build_model(train_text[:30_000], order=4, threads=1).save(tmp_path / "m")
    stream = fresh(stored, name)
    stream.score(held_out[:500])
    pickled = pickle.dumps(stream)
    again = pickle.loads(pickled)
    assert not any(stored.columns[c].tobytes() in pickled for c in ("rows", "records", "buckets"))
    assert again.model.path == str(tmp_path / "m")
    fork = again.fork()
    wanted = stream.score(held_out[500:900])
    assert np.array_equal(again.score(held_out[500:900]), wanted) and np.array_equal(fork.score(held_out[500:900]), wanted)
    build_model(train_text[:20_000], order=4, threads=1).save(tmp_path / "m")
    with pytest.raises(FormatError, match="not the one that was pickled"):
        pickle.loads(pickled)


def test_a_pickled_model_in_memory_is_whole(model):
    again = pickle.loads(pickle.dumps(model))
    assert isinstance(again, Model) and not any(a.flags.writeable for a in again.columns.values())
    assert all(np.array_equal(again.arrays[c], model.arrays[c]) for c in model.arrays)


def test_a_warm_start_learned_with_an_expert(train_text, english):
    """It begins with the trust that the expert has earned; without the expert's advice it is the plain one."""
    model = build_model(train_text, order=4, threads=1)
    text, later = english[200_000:206_000], english[206_000:206_800]
    vocab = [*sorted(model.alphabet.chars), "<unk>"]

    def advice(piece):
        rows = np.full((len(piece), len(vocab)), 0.2 / len(vocab))
        for i, c in enumerate(piece):
            rows[i, vocab.index(c) if c in vocab else -1] += 0.8
        return Advice(vocab, rows, "<unk>")

    learned = learn_warm_start(model, text, advice=advice(text))
    assert (learned.chars, learned.experts) == (6000, 1)
    streams = [fresh(model, experts=1, warm_start=start) for start in (learned, False)]
    warm, cold = (stream.score(later, advice(later)).mean() for stream in streams)
    assert warm < cold - 0.02
    one_piece = fresh(model, experts=1)
    one_piece.score(text, advice(text))
    assert np.array_equal(learned.values, pack(one_piece.mixer))
    array = advice(text).aligned(model.alphabet)[:, np.newaxis]
    assert np.array_equal(learn_warm_start(model, text, advice=array).values, learned.values)
    assert fresh(model, experts=2, warm_start=learned).warm_start_chars == 6000
    plain = learn_warm_start(model, text)
    assert np.array_equal(fresh(model, experts=1, warm_start=plain).score(later), fresh(model, warm_start=plain).score(later))
    with pytest.raises(FormatError, match="1 experts, and the stream has 0"):
        model.stream(warm_start=learned)
    with pytest.raises(FormatError, match="other contexts"):
        model.stream(experts=1, contexts=["o1", "o2"], warm_start=learned)
    with pytest.raises(ValueError, match="a row for each"):
        learn_warm_start(model, text, advice=advice(text[:50]))


def held_bytes(state):
    """Bytes of what a state alone holds, as far as they were written."""
    overlay = state.overlay
    own = [part for part in state if isinstance(part, np.ndarray)] + list(state.mixer) + list(state.match)
    return sum(part.nbytes for part in own) + (overlay.slots.nbytes if overlay.used.any() else 0) + 8 * int(overlay.heap[0])


def test_forks_share_what_was_learned(model, english):
    """Long enough for the online counts to be shared; both go on as if there had been no fork, across blocks, and so do forks of forks."""
    start, here, there = english[100_000:112_000], english[120_000:134_000], english[140_000:154_000]
    stream, plain, other = fresh(model), fresh(model), fresh(model)
    for each in (stream, plain, other):
        each.score(start)
    assert not stream.state.overlay.layered
    view = stream.freeze()
    seen = stream.freeze().score(there[:300])
    fork = stream.fork()
    assert fork.state.overlay.layered and fork.state.overlay.base_slots is stream.state.overlay.base_slots
    assert held_bytes(fork.state) < 10e6
    assert np.array_equal(view.score(there[:300]), seen) and np.array_equal(fork.freeze().score(there[:300]), seen)
    fork = stream.fork()
    whole, parts = other.score(there), []
    for at in range(0, len(there), 1777):
        fork.predict()
        again = fork.fork()
        parts.append(fork.score(there[at : at + 1777]))
        assert np.array_equal(again.score(there[at : at + 50]), parts[-1][:50])
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(stream.score(here), plain.score(here))
    assert not stream.state.overlay.layered  # grown, and in one piece again
    assert np.array_equal(pickle.loads(pickle.dumps(fork)).score(here), other.score(here))
