"""cpu/sorting.py: unsigned sorts of computed keys, run-lengths, groups within a budget; cpu/orders.py: what is added by hand."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charstat.cpu.backend import join_runs
from charstat.cpu.orders import add_ngrams, short_windows, sorted_ngrams
from charstat.cpu.sorting import CHUNK_KEYS, partition_groups, run_lengths, sorted_keys

M64 = (1 << 64) - 1
keys64 = st.lists(st.one_of(st.integers(0, M64), st.integers(0, 50), st.integers(M64 - 50, M64)), max_size=60)


def filler(keys):
    """A fill callback over an array; zero keys stand for positions without one."""

    def fill(lo, hi, out):
        some = keys[lo:hi][keys[lo:hi] != 0]
        out[: some.size] = some
        return some.size

    return fill


def collect(keys, bits=64, threads=1, budget=None):
    keys = np.array(keys, np.uint64)
    return [part.copy() for part in sorted_keys(filler(keys), keys.size, bits, threads, budget)]


@given(keys64, st.integers(1, 4), st.sampled_from([None, 1, 80]))
def test_sorted_keys(keys, threads, budget):
    """Unsigned order, the top bit set or not; the parts follow one another."""
    parts = collect(keys, 64, threads, budget)
    assert np.concatenate(parts).tolist() == sorted(k for k in keys if k)
    top = [{int(k) >> 52 for k in part} for part in parts]
    assert sum(len(t) for t in top) == len(set().union(*top))  # no partition lies in two parts
    if budget:
        assert all(part.nbytes <= budget or len(t) == 1 for part, t in zip(parts, top, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("bits", [63, 64])
def test_more_than_a_chunk(threads, bits):
    keys = np.random.default_rng(threads).integers(1, 1 << bits, 2 * CHUNK_KEYS + 777, np.uint64, endpoint=False)
    keys[::3] = keys[0]  # one large run
    wanted = np.sort(keys)
    for budget in (None, 1 << 20):
        parts = collect(keys, bits, threads, budget)
        assert np.array_equal(np.concatenate(parts), wanted)
        assert (len(parts) > 1) == (budget is not None)


def test_no_keys():
    assert [p.tolist() for p in collect([])] == [[]]
    assert [p.tolist() for p in collect([0, 0])] == [[]]
    assert [p.tolist() for p in collect([M64])] == [[M64]]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.one_of(st.none(), st.integers(1, 400)))
def test_partition_groups(sizes, budget):
    groups = partition_groups(np.array(sizes), budget)
    assert groups[0][0] == 0 and groups[-1][1] == len(sizes)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(groups))
    held = [sum(sizes[lo:hi]) for lo, hi in groups]
    if budget is None:
        assert len(groups) == 1
    else:
        assert all(h <= max(1, budget // 8) or sum(n > 0 for n in sizes[lo:hi]) == 1 for h, (lo, hi) in zip(held, groups, strict=True))


runs = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 3), st.integers((1 << 57) - 3, (1 << 57) - 1)),
        st.one_of(st.integers(0, 3), st.just(127)),
        st.integers(1, 5),
    ),
    max_size=25,
)


@given(runs, st.integers(1, 4), st.booleans())
def test_run_lengths(triples, threads, words):
    """Rows, contexts and sums against a Counter; the last representable context is among them."""
    shift = 24 if words else 7
    keys = sorted((context & ((1 << 64 - shift) - 1)) << shift | symbol for context, symbol, n in triples for _ in range(n))
    identities, starts, rows, sums = run_lengths(np.array(keys, np.uint64), shift, words, 3, threads)
    counted = sorted(Counter(keys).items())
    contexts = sorted({k >> shift for k in keys})
    mask = (1 << shift) - 1
    assert identities.tolist() == contexts
    assert starts.tolist() == [sum(k >> shift < c for k, _ in counted) for c in contexts] + [len(counted)]
    if words:
        assert rows.tolist() == [k & mask for k, _ in counted]
        assert sums.tolist() == np.cumsum([0, *(n for _, n in counted)]).tolist()
    else:
        assert rows.tolist() == [min(n, 3) << 7 | k & mask for k, n in counted]
        assert sums.size == 0


@given(runs, st.integers(0, 4), st.booleans())
def test_join_runs(triples, cuts, words):
    shift = 24 if words else 7
    keys = np.array(sorted((c & ((1 << 64 - shift) - 1)) << shift | s for c, s, n in triples for _ in range(n)), np.uint64)
    contexts = np.unique(keys >> np.uint64(shift))
    edges = [0, *(int(np.searchsorted(keys, contexts[i] << np.uint64(shift))) for i in range(0, contexts.size, max(1, cuts))), keys.size]
    parts = [run_lengths(keys[a:b].copy(), shift, words, 9, 1) for a, b in itertools.pairwise(edges)]
    whole = run_lengths(keys, shift, words, 9, 1)
    joined = join_runs(parts)
    for x, y in zip(joined[: 4 if words else 3], whole, strict=False):
        assert np.array_equal(x, y) and x.dtype == y.dtype


@given(st.lists(st.integers(0, 127), max_size=30), st.integers(0, 30), st.integers(0, 8), st.sampled_from([None, 1]))
def test_full_and_short_windows_are_all_ngrams(symbols, border, order, budget):
    """The n-grams whose last symbol is counted, each exactly once: those inside full windows, and the few at both ends."""
    border = min(border, len(symbols))
    array = np.array(symbols, np.uint8)
    keys, counts = sorted_ngrams(array, border, 1, budget)
    prefixes = Counter()
    for key, n in zip(keys.tolist(), counts.tolist(), strict=True):
        prefixes[key >> 7 * (8 - order)] += n
    prefix_keys = np.array(sorted(prefixes), np.uint64)
    prefix_counts = np.array([prefixes[k] for k in sorted(prefixes)], np.uint32)
    all_keys, all_counts = add_ngrams(prefix_keys, prefix_counts, short_windows(array, border, order))

    def packed(window):
        return sum(s << 7 * (order - j) for j, s in enumerate(window))

    wanted = Counter(packed(symbols[i - order : i + 1]) for i in range(max(border, order), len(symbols)))
    assert dict(zip(all_keys.tolist(), all_counts.tolist(), strict=True)) == wanted
    assert all_keys.tolist() == sorted(wanted) and all_keys.dtype == np.uint64
