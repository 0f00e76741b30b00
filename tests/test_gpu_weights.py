"""gpu/weights.py against the CPU's weights: on NumPy, on the imitation of CuPy, and on a device (marked gpu; skips where there is none)."""

from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
from fake_cupy import ON_GPU, FakeCupy, real_cupy
from hypothesis import given
from hypothesis import strategies as st

from charstat.alphabet import Alphabet
from charstat.counting import build_model
from charstat.cpu.backend import CPUBackend
from charstat.ctw.links import parent_links
from charstat.gpu.arrays import NumpyArrays
from charstat.gpu.backend import GPUBackend
from charstat.gpu.keys import Text
from charstat.gpu.weights import Level, _links

CHAINS = ["o0,o1,o2,o3", "o0,o2,o8,o9", "o0,o1,o2,o3,o4,o5,o6,o8,o11,o14", "o0,o10,o12,o17,o24", "o0"]


@pytest.fixture(params=["numpy", "fake", pytest.param("gpu", marks=ON_GPU), pytest.param("gpu twins", marks=ON_GPU)])
def make(request):
    """make(): a GPU backend on the array module. The weights have no CUDA kernels; without them the backend takes smaller chunks."""
    if request.param == "numpy":
        return lambda: GPUBackend(np)
    if request.param == "fake":
        return lambda: GPUBackend(FakeCupy(), kernels=False)
    return lambda: GPUBackend(real_cupy(), kernels=request.param == "gpu")


def phase(name):
    assert name == "weights"
    return nullcontext()


def counted(text, contexts, border=0):
    """(tables, the highest order first, the text's symbols, border, the tree)."""
    alphabet = Alphabet.from_text(text)
    model = build_model(text[border:], contexts=contexts, order=14, history=text[:border], alphabet=alphabet, backend="cpu", threads=1)
    tables = sorted(model.tables.values(), key=lambda table: -table.context.param)
    return tables, alphabet.encode(text), border, alphabet.tree.arrays


def assert_close(found, expected):
    assert list(found) == list(expected)
    for name, betas in expected.items():
        assert found[name].dtype == np.float32 and type(found[name]) is np.ndarray
        np.testing.assert_allclose(found[name], betas, rtol=1e-6, atol=0)


def check(backend, counts, alpha=0.2):
    expected = dict(CPUBackend(2).weigh(*counts, alpha, phase))
    assert_close(dict(backend.weigh(*counts, alpha, phase)), expected)


@pytest.mark.parametrize("contexts", CHAINS)
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_weights_equal_the_cpus(make, english, contexts, alpha):
    check(make(), counted(english[:5_000], contexts), alpha)


@pytest.mark.parametrize(
    "text", ["a", "ab", "a" * 5_000, "".join(chr(0x100 + i) for i in range(300)) * 2, "Žluťoučký kůň 12 – 戦 🐝\n" * 20]
)
@pytest.mark.parametrize("contexts", [CHAINS[0], CHAINS[2]])
def test_odd_texts(make, text, contexts):
    check(make(), counted(text, contexts))


def test_history_is_context_only(make, english):
    check(make(), counted(english[:1_500], CHAINS[2], border=700))


@given(text=st.text("abcdefg", min_size=1, max_size=80) | st.text("aA1 \n-é", min_size=1, max_size=80), border=st.integers(0, 20))
def test_any_short_text(text, border):
    check(GPUBackend(np), counted(text, CHAINS[2], min(border, len(text) - 1)))


def test_parts_of_a_level(make, english, monkeypatch):
    """A chunk of 128 rows, the least that holds any context, in place of all: the same betas."""
    monkeypatch.setattr("charstat.gpu.weights.chunk_size", lambda *_: 1)
    check(make(), counted(english[:1_200], CHAINS[1]))


def test_parents_that_lack_symbols(make, english, monkeypatch):
    """What two contexts of one hash can do at worst: links to any context at all. No access out of range, and numbers in range."""
    counts = counted(english[:3_000], CHAINS[2])
    rng = np.random.default_rng(3)

    def shuffled(longer, shorter, *_):
        return rng.integers(0, shorter.n_contexts, longer.n_contexts).astype(np.uint32)

    monkeypatch.setattr("charstat.ctw.weights.parent_links", shuffled)
    backend = make()
    monkeypatch.setattr("charstat.gpu.weights._links", lambda arrays, text, border, a, b, n: arrays.to_device(shuffled(a.table, b.table)))
    for found in (CPUBackend(2).weigh(*counts, 0.2, phase), backend.weigh(*counts, 0.2, phase)):
        for _, betas in found:
            assert (betas > 0).all() and np.isfinite(betas).all()
    assert backend.notes == []


def test_links_equal_the_cpus(make, english):
    backend = make()
    copier = backend.arrays.copier()
    tables, symbols, border, _ = counted(english[:3_000], CHAINS[2], border=500)
    text = Text(copier.upload(symbols), backend.arrays.to_device(np.zeros(128, np.uint8)))
    levels = [Level(backend.arrays, table, copier.upload) for table in tables]
    for longer, shorter in pairwise(levels):
        found = backend.arrays.to_host(_links(backend.arrays, text, border, longer, shorter, 1_000))
        assert np.array_equal(found, parent_links(longer.table, shorter.table, symbols, border, 2))
        assert np.array_equal(backend.arrays.to_host(longer.identities), longer.table.context_identities())
    copier.close()


def test_without_enough_memory_the_cpu_does_it(english):
    counts = counted(english[:20_000], CHAINS[2])
    expected = dict(CPUBackend(2).weigh(*counts, 0.2, phase))
    device = FakeCupy()
    list(GPUBackend(device, kernels=False).weigh(*counts, 0.2, phase))
    assert device.memory.live == 0
    for share in (0.01, 0.3, 0.7):
        small = FakeCupy(int(share * device.memory.peak))
        backend = GPUBackend(small, kernels=False, threads=2)
        assert_close(dict(backend.weigh(*counts, 0.2, phase)), expected)
        assert len(backend.notes) == (share < 0.5) and small.memory.live == 0  # above, smaller chunks do
    for fail_at in (1, 50, 500, 1_500):  # after some orders were done, too
        broken = FakeCupy()
        broken.memory.fail_at = fail_at
        backend = GPUBackend(broken, kernels=False)
        assert_close(dict(backend.weigh(*counts, 0.2, phase)), expected)
        assert backend.notes == ["the weights were computed on the CPU: not enough device memory"] and broken.memory.live == 0


def test_too_many_slots_for_32_bits(english, monkeypatch):
    monkeypatch.setattr("charstat.gpu.weights.MAX_SLOTS", 1_000)
    backend = GPUBackend(np)
    check(backend, counted(english[:2_000], CHAINS[2]))
    assert len(backend.notes) == 1


def test_a_model_built_through_it(english, monkeypatch):
    monkeypatch.setattr("charstat.counting.choose_backend", lambda *_: (GPUBackend(np), "asked for"))
    model = build_model(english[:5_000], order=11, models=("ctw",))
    cpu = build_model(english[:5_000], order=11, models=("ctw",))
    assert model.weights == cpu.weights and np.allclose(model.betas, cpu.betas, rtol=1e-6, atol=0)
    assert "weights" in [part["name"] for part in model.manifest["build"]["phases"]]


def test_parts_end_where_contexts_do(english):
    table = counted(english[:3_000], "o0,o3")[0][0]
    level = Level(NumpyArrays(), table, lambda host: host)
    assert list(level.parts(10**9)) == [(0, table.n_rows)]
    parts = list(level.parts(1))
    assert len(parts) > 5 and all(0 < hi - lo <= 128 for lo, hi in parts)
    assert [hi for _, hi in parts[:-1]] == [lo for lo, _ in parts[1:]] and {lo for lo, _ in parts} <= set(table.starts().tolist())
