"""Models of token ids: counting, the stream against its twin, storage, and what bad input says."""

import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_cupy import FakeCupy
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from token_twin import TokenTwin

import charstat
import charstat.manifest
from charstat import TokenModel, build_tokens
from charstat.errors import ArgumentError, ContextError, FormatError, MergeError, StateError, UserError
from charstat.gpu.arrays import CupyArrays, NumpyArrays
from charstat.ngram import layers
from charstat.tokens.contexts import describe_pieces, parse_token_context, token_contexts
from charstat.tokens.counting import count_on_cpu, count_on_device
from charstat.tokens.layout import TokenRates
from charstat.tokens.lookups import FEW_ROWS, SCANNED, lower_bound
from charstat.tokens.stream import learn_start
from charstat.tokens.tree import MAX_DEPTH, order_by_bytes, order_by_neighbours, token_tree

PIECES = [
    b" the",
    b"the",
    b" of",
    b" a",
    b"s",
    b" in",
    b"in",
    b"g",
    b" to",
    b"re",
    b" ",
    b",",
    b" Th",
    b"e",
    b"\n",
    b"'s",
    b" and",
    b"\xc3\xa9",
    b"2",
]


def pieces_of(text: str) -> list[bytes]:
    """A vocabulary of a text's bytes and its 60 most frequent words, with and without a space before."""
    words = [w for w, _ in Counter(text.split()).most_common(60)]
    return sorted({bytes([b]) for b in text.encode()} | {p.encode() for w in words for p in (w, f" {w}")})


def encode(text: str, pieces: list[bytes]) -> np.ndarray:
    """Ids of the longest pieces that fit, one after the other."""
    data, index, out, at = text.encode(), {p: i for i, p in enumerate(pieces)}, [], 0
    longest = max(map(len, pieces))
    while at < len(data):
        n = next(n for n in range(min(longest, len(data) - at), 0, -1) if data[at : at + n] in index)
        out.append(index[data[at : at + n]])
        at += n
    return np.array(out, np.uint16)


@pytest.fixture(scope="module")
def pieces(train_text, english):
    return pieces_of(english)


@pytest.fixture(scope="module")
def ids(pieces, train_text):
    return encode(train_text[:40_000], pieces)


@pytest.fixture(scope="module")
def new_ids(pieces, english):
    return encode(english[200_000:204_000], pieces)


@pytest.fixture(scope="module")
def model(ids, pieces):
    return build_tokens(ids, len(pieces), order=4, token_bytes=pieces, backend="cpu")


def fresh(model, **options):
    stream = model.stream(**options)
    stream.reset()
    return stream


def same_model(a, b):
    return a.manifest["tables"] == b.manifest["tables"] and all(np.array_equal(a.columns[name], b.columns[name]) for name in a.columns)


# counting ----------------------------------------------------------------------------------------------------------------

small_ids = st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=60)


def twin_of(ids, contexts, **options):
    return TokenTwin([int(i) for i in ids], len(PIECES), contexts, PIECES, **options)


@given(small_ids)
def test_tables_hold_what_a_dictionary_holds(ids):
    contexts = token_contexts(3, True, "o1,o2,o3,t2,t1.t3,p,p.w1,w1.w2,p.w3")
    model = build_tokens(ids, len(PIECES), contexts=[c.name for c in contexts], token_bytes=PIECES, backend="cpu")
    for found, wanted in zip(model.tables.values(), twin_of(ids, contexts).static, strict=True):
        starts, rows, counts = found.starts(), found.rows, np.diff(found.sums)
        lists = [tuple(zip(rows[a:b].tolist(), counts[a:b].tolist(), strict=True)) for a, b in itertools.pairwise(starts)]
        assert Counter(lists) == Counter(tuple(sorted(followers.items())) for followers in wanted.values())


@given(small_ids, st.integers(0, 30), st.sampled_from(["numpy", "numpy in pieces", "fake"]))
def test_array_steps_count_the_same(ids, n_history, module):
    """On NumPy, in several pieces too, and on the strict imitation of CuPy; no device has run this."""
    arrays = CupyArrays(FakeCupy(), kernels=False) if module == "fake" else NumpyArrays(3_000 if "pieces" in module else None)
    contexts = token_contexts(5, True)
    ids = np.array(ids, np.uint16)
    pieces, tree = describe_pieces(PIECES), token_tree(order_by_bytes(PIECES), np.bincount(ids, minlength=len(PIECES)).astype(np.uint32))
    args = ids, min(n_history, ids.size), contexts, tree.leaf_of, pieces
    for a, b in zip(count_on_cpu(*args, 2), count_on_device(arrays, *args), strict=True):
        assert a[:4] == b[:4]
        assert all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a[4:], b[4:], strict=True))


def test_shards_add_up_to_the_whole(ids, pieces, model, tmp_path):
    options = {"order": 4, "backend": "cpu"}
    first = build_tokens(ids[:5000], len(pieces), token_bytes=pieces, **options)
    second = build_tokens(ids[5000:], len(pieces), token_bytes=pieces, history=ids[4000:5000], **options)
    assert same_model(TokenModel.merge(first, second, tmp_path / "m"), model)
    assert TokenModel.load(tmp_path / "m").tokens == model.tokens == ids.size
    plain = build_tokens(ids, len(pieces), **options)
    first = build_tokens(ids[:5000], len(pieces), like=plain, **options)
    second = build_tokens(ids[5000:], len(pieces), like=plain, history=ids[4000:5000], **options)
    assert same_model(TokenModel.merge(first, second), plain)
    with pytest.raises(MergeError, match="other"):
        TokenModel.merge(first, build_tokens(ids[::-1][:3000], len(pieces), **options))
    with pytest.raises(MergeError, match="different vocabularies"):
        TokenModel.merge(first, model)


def test_any_type_of_ids(ids, pieces, model):
    for dtype in (np.uint32, np.int64, np.int32):
        assert same_model(build_tokens(ids.astype(dtype), len(pieces), order=4, token_bytes=pieces, backend="cpu"), model)
    assert build_tokens(b"abracadabra", 256, order=2, backend="cpu").tokens == 11


# the tree ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 1 << 31), min_size=2, max_size=300))
def test_trees_are_codes(counts):
    counts = np.array([min(c, (1 << 31) // len(counts)) for c in counts], np.uint32)
    tree = token_tree(np.arange(counts.size, dtype=np.uint16)[::-1].copy(), counts)
    assert sum(2.0 ** -int(d) for d in tree.depth) == 1.0 and tree.depth.max() <= MAX_DEPTH
    words = [f"{int(code):032b}"[:d] for code, d in zip(tree.codes, tree.depth, strict=True)]
    assert words == sorted(words) and len(set(words)) == len(words)
    assert (tree.leaf_of[tree.id_of] == np.arange(counts.size)).all()


def test_the_deepest_trees():
    for counts in (np.zeros(65_536), np.r_[2.0**31 - 1, np.zeros(65_535)], np.minimum(2.0 ** np.minimum(np.arange(65_536), 14), 2.0**14)):
        assert token_tree(np.arange(65_536, dtype=np.uint16), counts.astype(np.uint32)).depth.max() <= MAX_DEPTH


def test_like_neighbours_stand_together():
    """Two kinds of tokens that follow each other in turn: the first half of the leaves is of one kind."""
    rng = np.random.default_rng(1)
    ids = np.stack([rng.integers(0, 40, 4000), 40 + rng.integers(0, 40, 4000)], 1).ravel().astype(np.uint16)
    shuffled = rng.permutation(80).astype(np.uint16)
    order = order_by_neighbours(shuffled[ids], np.bincount(shuffled[ids], minlength=80).astype(np.uint32), 2)
    kinds = (np.argsort(shuffled)[order] < 40).tolist()
    assert kinds in ([True] * 40 + [False] * 40, [False] * 40 + [True] * 40)
    assert sorted(order.tolist()) == list(range(80))


# the stream --------------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(small_ids, small_ids)
def test_the_stream_is_its_twin(counted, ids):
    contexts = token_contexts(3, True)
    model = build_tokens(counted, len(PIECES), order=3, token_bytes=PIECES, backend="cpu")
    stream, twin = fresh(model), twin_of(counted, contexts)
    rows = np.exp(fresh(model).log_probs(ids).astype(np.float64))
    for i, token in enumerate(ids):
        if i in (0, 7, len(ids) - 1):
            assert np.abs(rows[i] - [twin.probability(v)[0] for v in range(len(PIECES))]).max() < 1e-6
        assert np.exp(-stream.score([token])[0]) == pytest.approx(twin.observe(token), rel=1e-4, abs=1e-7)


def test_the_stream_is_its_twin_on_english(pieces, ids, new_ids):
    counted, contexts = ids[:1500], token_contexts(2, True, "o1,o2,t2,p.w1")
    rates = replace(TokenRates(), weights=2e-3)
    model = build_tokens(counted, len(pieces), contexts="o1,o2,t2,p.w1", token_bytes=pieces, backend="cpu")
    rng = np.random.default_rng(1)
    advice = np.log(rng.dirichlet([0.2] * len(pieces), (60, 1)) + 1e-9).astype(np.float32)
    advice -= np.log(np.exp(advice).sum(axis=2, keepdims=True))
    twin = TokenTwin(counted.tolist(), len(pieces), contexts, pieces, rates=rates)
    nats = fresh(model, rates=rates, experts=1).score(new_ids[:60], advice)
    wanted = [-np.log(twin.observe(int(t), np.exp(row.astype(float)))) for t, row in zip(new_ids[:60], advice, strict=True)]
    assert np.abs(nats - wanted).max() < 1e-4


def test_rows_and_charges_agree_bit_for_bit(model, new_ids):
    n = 300
    nats, rows = fresh(model).score(new_ids[:n]), fresh(model).log_probs(new_ids[:n])
    assert rows.dtype == np.float32 and rows.shape == (n, model.vocab_size)
    assert np.abs(np.exp(rows.astype(np.float64)).sum(axis=1) - 1).max() < 1e-6
    assert np.array_equal(rows[np.arange(n), new_ids[:n]], (-nats).astype(np.float32))
    assert np.isfinite(rows).all() and nats.mean() < np.log(model.vocab_size) / 2


def test_pieces_of_a_text_cost_what_it_costs(model, new_ids):
    whole = fresh(model).score(new_ids)
    stream, parts, at = fresh(model), [], 0
    for step in (1, 0, 2, 500, 3, 40):
        parts.append(stream.score(new_ids[at : at + step]))
        at += step
    parts.append(stream.score(new_ids[at:]))
    assert np.array_equal(np.concatenate(parts), whole)
    stream.reset()
    assert np.array_equal(stream.score(new_ids), whole)


def test_forks_go_their_own_way(model, new_ids):
    stream, whole = fresh(model), fresh(model).score(new_ids)
    stream.score(new_ids[:400])
    fork = stream.fork()
    fork.score(new_ids[::-1])
    assert np.array_equal(stream.fork().score(new_ids[400:]), whole[400:])
    assert np.array_equal(stream.score(new_ids[400:]), whole[400:])


def test_old_online_counts_are_forgotten(model, new_ids):
    bounded = fresh(model, overlay_limit=2048)
    long = np.tile(new_ids, 8)
    assert np.isfinite(bounded.score(long)).all()
    assert bounded.state.overlay.used.max() <= 2048 < fresh(model).n_bytes


def test_what_is_forgotten_does_not_depend_on_calls(model, new_ids):
    bounded, long = fresh(model, overlay_limit=2048), np.tile(new_ids, 8)
    whole = bounded.score(long)
    bounded.reset()
    parts = [bounded.score(part) for part in np.split(long, [1, 700, 1024, 2500, 3001, 3002])]
    assert np.array_equal(np.concatenate(parts), whole)


def test_forks_share_online_counts(model, new_ids, monkeypatch):
    monkeypatch.setattr(layers, "LAYER_CAPACITY", 1024)
    long = np.tile(new_ids, 5)
    plain, stream = fresh(model), fresh(model)
    whole = plain.score(long)
    stream.score(long[:1200])
    fork = stream.fork()
    assert fork.state.overlay.layered and fork.state.overlay.base_slots is stream.state.overlay.base_slots
    assert np.array_equal(fork.fork().log_probs(long[1200:1300])[np.arange(100), long[1200:1300]], (-whole[1200:1300]).astype(np.float32))
    fork.score(long[::-1])
    assert np.array_equal(stream.score(long[1200:]), whole[1200:]) and not stream.state.overlay.layered


def test_hints_are_what_the_rows_say(model, new_ids):
    ids = new_ids[:200]
    rows, hints = fresh(model).log_probs(ids), fresh(model).hints(ids)
    known = hints.token >= 0
    assert known[1:].all() and not known[0] and hints.order[0] == hints.count[0] == 0
    assert np.array_equal(hints.token[known], rows.argmax(axis=1)[known])
    assert np.allclose(np.log(hints.confidence), rows.max(axis=1)) and set(hints.order.tolist()) <= {0, 1, 2, 3, 4}
    nll, logp = -rows[np.arange(200), ids], rows[np.arange(200), np.maximum(hints.token, 0)]
    tilted = charstat.tilt(nll, logp, hints.token, ids, np.where(hints.confidence > 0.5, 0.3, 0.0))
    assert np.isfinite(tilted).all() and not np.array_equal(tilted, nll)


def test_an_audit_finds_nothing(model, new_ids):
    report = charstat.audit(model.stream(), new_ids[:120], probes=20, positions=3)
    assert report.clean and report.tokens == 120 and report.bytes == sum(len(model.token_bytes[i]) for i in new_ids[:120])
    assert {c.id for c in report.checks if c.verdict == "passed"} >= {"causality", "sum", "one pass", "chunks", "denominator"}
    plain = build_tokens(new_ids, model.vocab_size, order=1, backend="cpu")
    report = charstat.audit(plain.stream(), new_ids[:60], probes=5, positions=2)
    assert report.clean and report.check("denominator").verdict == "not applicable" and report.to_dict()["bits_per_char"] is None


# advice ------------------------------------------------------------------------------------------------------------------


def random_advice(n, vocab, experts=1, seed=1):
    rows = np.random.default_rng(seed).normal(size=(n, experts, vocab)).astype(np.float32) * 3
    return rows - np.log(np.exp(rows).sum(axis=2, keepdims=True))


def test_advice_in_every_form(model, new_ids):
    ids, advice = new_ids[:300], random_advice(300, model.vocab_size)
    whole = fresh(model, experts=1).score(ids, advice)
    assert np.array_equal(fresh(model, experts=1).score(ids, advice[:, 0]), whole)
    assert np.array_equal(fresh(model, experts=1).score(ids, lambda start, end: advice[start:end]), whole)
    assert np.abs(fresh(model, experts=1).score(ids, advice.astype(np.float16)) - whole).max() < 0.02
    stream = fresh(model, experts=1)
    parts = [stream.score(ids[:100], advice[:100]), stream.score(ids[100:], advice[100:])]
    assert np.array_equal(np.concatenate(parts), whole)
    rows = fresh(model, experts=1).log_probs(ids, advice)
    assert np.array_equal(rows[np.arange(300), ids], (-whole).astype(np.float32))
    assert np.abs(np.exp(rows.astype(np.float64)).sum(axis=1) - 1).max() < 1e-6
    two = fresh(model, experts=2).score(ids, random_advice(300, model.vocab_size, 2))
    assert np.isfinite(two).all() and not np.array_equal(two, whole)


def test_an_expert_that_knows_is_listened_to(model, new_ids):
    advice = np.full((len(new_ids), model.vocab_size), 0.1 / (model.vocab_size - 1), np.float32)
    advice[np.arange(len(new_ids)), new_ids] = 0.9
    assert fresh(model, experts=1).score(new_ids, np.log(advice)).mean() < 0.4 * fresh(model).score(new_ids).mean()


def test_later_advice_changes_nothing_before(model, new_ids):
    a, b = random_advice(100, model.vocab_size), random_advice(100, model.vocab_size)
    b[50:] = random_advice(50, model.vocab_size, seed=2)
    one, two = (fresh(model, experts=1).score(new_ids[:100], advice) for advice in (a, b))
    assert np.array_equal(one[:50], two[:50]) and not np.array_equal(one[50:], two[50:])


# what is stored ----------------------------------------------------------------------------------------------------------


def test_a_loaded_model_gives_the_same_bits(model, new_ids, tmp_path):
    whole = fresh(model).score(new_ids)
    saved = model.save(tmp_path / "m")
    for other in (saved, TokenModel.load(tmp_path / "m"), TokenModel.load(tmp_path / "m", verify="fast")):
        assert same_model(other, model) and other.token_bytes == model.token_bytes
        assert np.array_equal(fresh(other).score(new_ids), whole)
    model.save(tmp_path / "m")  # over an earlier one


def test_a_warm_start_is_stored(ids, pieces, new_ids, tmp_path):
    warm = build_tokens(ids, len(pieces), order=3, token_bytes=pieces, held_out=3000, backend="cpu", out=tmp_path / "warm")
    cold = build_tokens(ids[:-3000], len(pieces), order=3, token_bytes=pieces, backend="cpu")
    assert all(np.array_equal(warm.columns[name], cold.columns[name]) for name in ("rows", "sums", "records"))
    loaded = TokenModel.load(tmp_path / "warm")
    charges = fresh(loaded).score(new_ids)
    assert loaded.start.tokens == 3000 and charges.sum() < fresh(cold).score(new_ids).sum()
    start = learn_start(cold, ids[-3000:])
    assert np.array_equal(fresh(cold, warm_start=start).score(new_ids), charges)
    assert np.array_equal(fresh(loaded, warm_start=False).score(new_ids), fresh(cold).score(new_ids))
    assert TokenModel.merge(loaded, cold).start is None
    advised = learn_start(cold, ids[-3000:], random_advice(3000, len(pieces)), experts=1)
    assert np.isfinite(fresh(cold, warm_start=advised, experts=1).score(new_ids[:50], random_advice(50, len(pieces)))).all()
    with pytest.raises(FormatError, match="pass experts="):
        cold.stream(warm_start=advised)
    with pytest.raises(FormatError, match="learn it again"):
        build_tokens(ids, len(pieces), order=2, backend="cpu").stream(warm_start=start)


@pytest.mark.parametrize("name", ["buckets", "records", "rows", "sums", "id_of", "counts", "piece_ends"])
def test_damaged_arrays_are_refused(name, ids, pieces, tmp_path):
    """Whatever stands in an array, a model either loads and works, or says which file is wrong; the checksums are those of the damage."""
    from charstat.storage import array_sha256

    model = build_tokens(ids[:2000], len(pieces), contexts="o1,o3,p", token_bytes=pieces, backend="cpu")
    good, rng, refused = dict(model.columns), np.random.default_rng(3), 0
    for _ in range(12):
        damaged = good[name].copy()
        at = rng.integers(0, damaged.size, 3)
        damaged[at] = rng.choice(np.array([0, 1, np.iinfo(damaged.dtype).max, damaged[0], damaged[-1]], damaged.dtype), 3)
        saved = model.save(tmp_path / "m")
        path, manifest = tmp_path / "m" / f"{name}.npy", saved.manifest
        data = bytearray(path.read_bytes())
        data[128:] = damaged.tobytes()
        path.write_bytes(data)
        manifest["arrays"][name]["sha256"] = array_sha256(damaged)
        (tmp_path / "m" / "manifest.json").write_bytes(charstat.manifest.seal(manifest))
        try:
            loaded = TokenModel.load(tmp_path / "m")
        except FormatError as e:
            refused += 1
            assert str(tmp_path / "m") in str(e)
        else:
            assert np.isfinite(fresh(loaded).score(ids[:50])).all()
    assert refused or name == "counts"


def test_manifests_that_lie(model, tmp_path):
    """Tables in another order, none at all, another vocabulary: refused, whoever sealed them."""
    good = model.save(tmp_path / "m").manifest
    tables = good["tables"]
    for change in (
        {"tables": dict(reversed(tables.items()))},
        {"tables": {}},
        {"tables": {("o9" if name == "o4" else name): table for name, table in tables.items()} | {"t99": tables["o1"]}},
        {"vocab_size": model.vocab_size - 1},
        {"start": {"tokens": 5, "layout": "0" * 64}},
        {"more": 1},
    ):
        (tmp_path / "m" / "manifest.json").write_bytes(charstat.manifest.seal(good | change))
        with pytest.raises(FormatError, match="is damaged"):
            TokenModel.load(tmp_path / "m")


def test_directories_that_are_none(model, tmp_path, train_text):
    with pytest.raises(FormatError, match="no model at"):
        TokenModel.load(tmp_path / "none")
    model.save(tmp_path / "m")
    with pytest.raises(FormatError, match="is not a charstat model: it is a token model"):
        charstat.Model.load(tmp_path / "m")
    charstat.build_model(train_text[:2000], order=1, contexts="chars", models="ppm", out=tmp_path / "chars")
    with pytest.raises(FormatError, match="is not a token model: it is a charstat model"):
        TokenModel.load(tmp_path / "chars")
    (tmp_path / "m" / "rows.npy").write_bytes((tmp_path / "m" / "rows.npy").read_bytes()[:-2])
    with pytest.raises(FormatError, match="truncated"):
        TokenModel.load(tmp_path / "m")


# what is refused ---------------------------------------------------------------------------------------------------------


def test_ids_outside_the_vocabulary(model):
    stream = fresh(model)
    for bad, says in (
        ([0, model.vocab_size], "ids\\[1\\] is"),
        ([3, -1], "ids\\[1\\] is -1"),
        (np.zeros((2, 2), int), "one dimension"),
        (np.array([0.5]), "whole numbers"),
    ):
        for call in (stream.score, stream.log_probs, stream.hints, lambda ids: build_tokens(ids, model.vocab_size)):
            with pytest.raises(ArgumentError, match=says):
                call(bad)
    assert stream.score([]).size == 0 and stream.log_probs([]).shape == (0, model.vocab_size)
    with pytest.raises(StateError, match="reset"):
        model.stream().score([1])


def test_advice_that_is_none(model, new_ids):
    ids, good = new_ids[:8], random_advice(8, model.vocab_size)[:, 0]
    stream = fresh(model, experts=1)
    before = stream.fork().score(ids, good)
    for bad, says in (
        (good[:7], "shape"),
        (good[:, 1:], "shape"),
        (good.astype(int), "floats"),
        (np.where(np.arange(8)[:, None] == 5, np.nan, good), "before token 5 adds up to nan"),
        (good + 0.1, "before token 0 adds up to 1.10"),
        (np.exp(good), "logarithms"),
        (lambda start, end: good[:3], "shape"),
    ):
        with pytest.raises(ArgumentError, match=says):
            stream.score(ids, bad)
    assert np.array_equal(stream.score(ids, good), before)
    with pytest.raises(ArgumentError, match="experts=1"):
        fresh(model).score(ids, good)


def test_builds_that_make_no_sense(ids, pieces):
    n = len(pieces)
    for options, error, says in (
        ({"vocab_size": 1}, ArgumentError, "vocab_size"),
        ({"vocab_size": 70_000}, ArgumentError, "vocab_size"),
        ({"order": 17}, ArgumentError, "order"),
        ({"contexts": "o1,x3"}, ContextError, "no token context 'x3'"),
        ({"contexts": "o1,t1"}, ContextError, "occurs twice"),
        ({"contexts": "p"}, ContextError, "pass token_bytes"),
        ({"token_bytes": pieces[1:]}, ArgumentError, "pieces"),
        ({"token_bytes": ["a"] * n}, ArgumentError, "token 0 is str"),
        ({"token_bytes": b"abc"}, ArgumentError, "list"),
        ({"held_out": ids.size}, ArgumentError, "nothing would be left"),
        ({"history": [n]}, ArgumentError, "history\\[0\\]"),
        ({"like": 3}, ArgumentError, "like must be"),
    ):
        with pytest.raises(error, match=says):
            build_tokens(ids, **{"vocab_size": n, **options})
    with pytest.raises(ArgumentError, match="no ids to count"):
        build_tokens([], 10)
    with pytest.raises(ContextError, match="16 tokens"):
        parse_token_context("o17")


@pytest.mark.parametrize("vocab", [2, 3, 65_536])
def test_the_smallest_and_the_largest_vocabulary(vocab):
    ids = np.random.default_rng(1).integers(0, vocab, 400)
    ids[-1] = vocab - 1
    model = build_tokens(np.tile(ids, 3), vocab, order=16, contexts=["o1", "o2", "o16", "t1.t16"], backend="cpu")
    stream = fresh(model)
    rows, nats = stream.fork().log_probs(ids[:3]), stream.score(ids)
    assert np.array_equal(rows[np.arange(3), ids[:3]], (-nats[:3]).astype(np.float32))
    assert np.abs(np.exp(rows.astype(np.float64)).sum(axis=1) - 1).max() < 1e-6


def test_contexts_that_thousands_of_tokens_followed():
    """On its path a token finds its counts by searching, scanning and walking through rows; a whole row adds up all of them."""
    followers = np.random.default_rng(1).integers(1, 4000, 6000)
    ids = np.stack([np.zeros_like(followers), followers], axis=1).ravel()
    model, new = build_tokens(ids, 4000, contexts="o1,t2", backend="cpu"), ids[-31:]
    assert model.tables["o1"].n_rows > 5 * SCANNED
    rows, nats = fresh(model).log_probs(new), fresh(model).score(new)
    assert np.array_equal(rows[np.arange(31), new], (-nats).astype(np.float32))
    assert np.abs(np.exp(rows.astype(np.float64)).sum(axis=1) - 1).max() < 1e-6


@njit(cache=True)
def find_row(rows, lo, hi, leaf):
    return lower_bound(rows, lo, hi, leaf)


@pytest.mark.parametrize("n", [0, 1, FEW_ROWS, SCANNED, SCANNED + 1, 5 * SCANNED])
def test_rows_are_found(n):
    rows = np.sort(np.random.default_rng(n).choice(65_536, n + 20, replace=False)).astype(np.uint16)
    leaves = [0, 65_535, *rows[:: max(1, n // 7)].tolist(), *(rows[:: max(1, n // 5)] + 1).tolist()]
    assert [find_row(rows, 10, 10 + n, leaf) for leaf in leaves] == (10 + np.searchsorted(rows[10 : 10 + n], leaves)).tolist()


def test_a_cut_leaves_whole_contexts(model, new_ids, tmp_path):
    """What is left is what a dictionary of all counts says, and the cut is the least that fits."""
    small = model.save(tmp_path / "m", min_count=3, held_out=new_ids)
    for name, table in model.tables.items():
        left = contents(small.tables[name])
        assert left == {key: rows for key, rows in contents(table).items() if sum(rows.values()) >= 3} and left != contents(table)
    assert small.pruned and small.manifest["pruned"]["held_out"]["tokens"] == min(10_000, new_ids.size)
    cost = small.manifest["pruned"]["held_out"]
    assert cost["after"] == pytest.approx(fresh(small).score(new_ids).mean() / np.log(2)) and cost["before"] != cost["after"]
    n_bytes = sum(f.stat().st_size for f in (tmp_path / "m").iterdir())
    fits = model.save(tmp_path / "fits", max_bytes=n_bytes + 20_000)
    assert fits.manifest["pruned"]["min_count"] in (1, 2, 3)
    assert sum(f.stat().st_size for f in (tmp_path / "fits").iterdir()) <= n_bytes + 20_000
    assert TokenModel.load(tmp_path / "m").save(tmp_path / "again").manifest["pruned"] == small.manifest["pruned"]
    for wrong in ({"max_bytes": 0}, {"min_count": 0}, {"max_bytes": 1.5}):
        with pytest.raises(ArgumentError, match="whole number"):
            model.save(tmp_path / "no", **wrong)
    with pytest.raises(UserError, match="still takes"):
        model.save(tmp_path / "no", max_bytes=100)
    with pytest.raises(MergeError, match="not whole"):
        TokenModel.merge(model, small)


def contents(table):
    """{identity: {leaf: count}} of a table."""
    starts, counts = table.starts().tolist(), np.diff(table.sums).tolist()
    return {
        identity: dict(zip(table.rows[a:b].tolist(), counts[a:b], strict=True))
        for identity, a, b in zip(table.identities().tolist(), starts, starts[1:], strict=False)
    }


def test_what_streams_have_seen_adds_up(model, new_ids):
    """Streams over parts of a text, each with the text before it: their counts are the whole text's, in every array."""
    long = np.concatenate([new_ids, new_ids[::-1], new_ids[:900]])
    streams, parts, at = [], [long[:700], long[700:701], long[701:]], 0
    for part in parts:
        streams.append(model.stream())
        streams[-1].reset(history=long[:at])
        streams[-1].score(part)
        at += part.size
    names = [c.name for c in model.contexts]
    whole = build_tokens(long, model.vocab_size, contexts=names, token_bytes=model.token_bytes, backend="cpu")
    first, *others = [TokenModel.seen(stream.fork()) for stream in streams]
    for other in others:
        first = TokenModel.merge(first, other)
    assert first.tokens == long.size and all(np.array_equal(first.columns[name], values) for name, values in whole.columns.items())
    counted = build_tokens(long[:700], model.vocab_size, contexts=names, token_bytes=model.token_bytes, backend="cpu")
    assert all(np.array_equal(TokenModel.seen(streams[0]).columns[name], values) for name, values in counted.columns.items())
    assert TokenModel.seen(fresh(model)).tokens == 0


def test_what_a_stream_has_forgotten_is_no_count(model, new_ids):
    bounded = fresh(model, overlay_limit=2048)
    bounded.score(np.tile(new_ids, 8))
    with pytest.raises(StateError, match="has forgotten some of what it saw"):
        TokenModel.seen(bounded)


def test_history_is_context_only(model, new_ids):
    stream = model.stream()
    stream.reset(history=new_ids[:500])
    twin = fresh(model)
    twin.score(new_ids[:500])
    assert np.array_equal(stream.state.history, twin.state.history) and np.array_equal(stream.state.match.state, twin.state.match.state)
    assert not stream.state.overlay.used.any() and stream.state.mixer.node_n.max() < twin.state.mixer.node_n.max()
    with pytest.raises(ArgumentError, match=r"history\[0\]"):
        stream.reset(history=[model.vocab_size])


def test_the_page_on_ranks_runs(new_ids, model):
    page = (Path(__file__).parents[1] / "docs" / "ranks.md").read_text(encoding="utf-8")
    names = {"charstat": charstat, "ids": new_ids, "n": 300, "vocab": model.vocab_size, "pieces": model.token_bytes, "model": model}
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        exec(compile(block, "ranks.md", "exec"), names)  # noqa: S102
    whole = build_tokens(new_ids, model.vocab_size, token_bytes=model.token_bytes)
    assert all(np.array_equal(names["whole"].columns[name], values) for name, values in whole.columns.items())
    assert names["grown"].tokens == model.tokens + new_ids.size
