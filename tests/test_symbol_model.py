"""symbol_model.py: what all streams share: buffers that callers hand in, threads, forks, pickles, blocks."""

import copy
import pickle
import threading

import numpy as np
import pytest
from streams import after, assert_paths_agree, fresh

from charstat.errors import StateError

MODELS = ("ppm", "ppmd", "ctw", "ngram", "match", "mix")


@pytest.mark.parametrize("name", MODELS)
def test_buffers_that_cannot_be_filled(model, name):
    stream = fresh(model, name)
    stream.score("The state")
    bad = {
        "shape": [np.empty(127), np.empty((1, 128)), np.empty(0), np.empty(())],
        "dtype": [np.empty(128, np.float32), np.empty(128, np.int64), np.empty(128, ">f8"), np.empty(128, object)],
        "C-contiguous": [np.empty(256)[::2]],
        "aligned": [np.frombuffer(bytearray(128 * 8 + 1), np.uint8)[1:].view(np.float64)],
        "read-only": [np.frombuffer(bytes(128 * 8))],
        "numpy array": [[0.0] * 128, "x", 5],
    }
    for what, buffers in bad.items():
        for out in buffers:
            for ask in (stream.probabilities, stream.log_probs):
                with pytest.raises((ValueError, TypeError), match=what):
                    ask(out=out)
    for out in (np.empty((3, 128)), np.empty((2, 127)), np.empty((2, 128), np.float32), np.empty((128, 2)).T):
        with pytest.raises(ValueError, match="out cannot be filled"):
            stream.distributions("ab", out=out)
    out = np.empty((2, 128))
    assert stream.distributions("ab", out=out) is out and np.allclose(out.sum(axis=1), 1.0)


def test_advice_of_any_shape(model):
    stream = model.stream(experts=1)
    stream.reset()
    for advice in (
        None,
        "x",
        np.zeros((2, 128)),
        np.zeros(128),
        np.full((1, 128), 1e308),
        np.full((1, 128), np.nan),
        np.full((1, 128), -1.0),
    ):
        with pytest.raises(ValueError, match="advice must"):
            stream.advise(advice)
    with pytest.raises(ValueError, match="advice must have the shape"):
        stream.score("abc", np.zeros((2, 1, 128)))
    with pytest.raises(ValueError, match="advice must have the shape"):
        fresh(model, "ppm").score("abc", np.zeros((3, 1, 128)))


@pytest.mark.parametrize("name", MODELS)
def test_two_threads_on_one_stream(model, held_out, name):
    """One of them is told; nothing is damaged."""
    stream = fresh(model, name)
    stream.score("x")  # compiled
    errors, go = [], threading.Barrier(2)

    def work():
        go.wait()
        for _ in range(6):
            try:
                stream.score(held_out)
            except StateError as e:
                errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors and "another thread" in str(errors[0])
    stream.reset()
    other = fresh(model, name)
    assert np.array_equal(stream.score(held_out[:300]), other.score(held_out[:300]))


@pytest.mark.parametrize("name", [*MODELS, "advised"])
@pytest.mark.parametrize("how", [lambda s: s.fork(), copy.copy, copy.deepcopy])
def test_forks_go_their_own_way(model, held_out, name, how):
    stream, whole = fresh(model, name), fresh(model, name)
    stream.score(held_out[:700])
    whole.score(held_out[:700])
    fork = how(stream)
    assert np.array_equal(fork.score(held_out[700:900]), whole.score(held_out[700:900]))
    fork.score("something else altogether" * 20)
    assert np.array_equal(stream.score(held_out[700:1500]), after(model, held_out[:700], name).score(held_out[700:1500]))
    assert fork.model is stream.model


def test_a_stream_can_be_pickled(model, held_out):
    stream = fresh(model)
    stream.score(held_out[:500])
    again = pickle.loads(pickle.dumps(stream))
    assert np.array_equal(again.score(held_out[500:900]), stream.score(held_out[500:900]))
    assert_paths_agree(again, "e q")


@pytest.mark.parametrize("name", ["ctw", "ppm"])
def test_what_is_forgotten_does_not_depend_on_how_calls_are_cut(model, english, name):
    """With limits that a short text passes: whole, in odd pieces, step by step."""
    from charstat.ctw import ContextTreeWeighting
    from charstat.ppm import PPMC

    text = english[100_000:112_000]

    def limited():
        stream = ContextTreeWeighting(model, record_limit=20_000) if name == "ctw" else PPMC(model, overlay_limit=1)
        stream.reset()
        return stream

    whole, pieces, steps = limited(), limited(), limited()
    wanted = whole.score(text)
    assert np.array_equal(np.concatenate([pieces.score(text[at : at + 777]) for at in range(0, len(text), 777)]), wanted)
    for i, c in enumerate(text):
        if i % 1009 == 0:
            assert -np.log2(steps.probability(c)) == wanted[i]
        steps.observe(c)
    assert np.array_equal(steps.score(text[:50]), whole.score(text[:50]))
