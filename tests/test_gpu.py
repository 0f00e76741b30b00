"""charstat.gpu: its tables against the CPU backend's, in every array, on three array modules; its memory; its parts.

    numpy    the array twins on the host
    fake     FakeCupy, with the CUDA kernels compiled for the host by g++ (without g++: the array twins, and a skip says so)
    gpu      CuPy on a CUDA device (marked gpu; skips where there is none)

FakeCupy: fake_cupy.py. Choosing a device, and the CUDA source: test_gpu_device.py.
"""

from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
from fake_cupy import ON_GPU, FakeCupy, real_cupy
from hypothesis import given
from hypothesis import strategies as st

from charstat import counting
from charstat.alphabet import Alphabet
from charstat.counting import build_model
from charstat.cpu.backend import CPUBackend
from charstat.energy import EnergyMeter
from charstat.errors import ResourceError
from charstat.gpu import arrays, tokens
from charstat.gpu.arrays import NumpyArrays
from charstat.gpu.backend import GPUBackend, _Job
from charstat.gpu.memory import MAX_PIECES, Plan, chunk_size, least_bytes, plan_sort
from charstat.gpu.runs import Runs, insert
from charstat.gpu.transfer import DeviceCopier
from charstat.ngram.classes import WordClasses
from charstat.ngram.contexts import select_contexts
from charstat.ngram.words import Vocabulary, model_symbol_info

# What is counted


def phase(name):
    assert name in ("transfer", "key", "sort", "reduce", "words", "fetch", "orders", "hashed", "classes")
    return nullcontext()


def counted(backend, text, border, contexts, order):
    """{name: part} of a text, and the symbols' alphabet being the text's own."""
    alphabet = Alphabet.from_text(text)
    parts = backend.count(alphabet.encode(text), border, select_contexts(contexts, order), model_symbol_info(alphabet), phase)
    names = {Vocabulary: "words", WordClasses: "classes"}
    return {names.get(type(p)) or p.context.name: p for p in parts}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        table = ("bits", "start_bits", "buckets", "records", "rows", "sums")
        fields = {"words": ("first_child", "symbol", "first_id", "size"), "classes": ("hashes", "labels", "scores")}
        for field in fields.get(name, table):
            a, b = getattr(found[name], field), getattr(part, field)
            if isinstance(b, np.ndarray):
                assert type(a) is np.ndarray and a.dtype == b.dtype and np.array_equal(a, b), (name, field)
            else:
                assert a == b, (name, field)


def noise(n, letters, seed):
    return "".join(np.random.default_rng(seed).choice(list(letters), n))


TEXTS = {
    "english": None,  # the fixture's, see text()
    "accents": "Žluťoučký kůň 12 úpěl ďábelské ódy – 戦 🐝 7 Ěščř, 3.14 NATO\n" * 40,
    "noise": noise(20_000, "ab cD1\n", 1),
    "crowded": noise(15_000, [chr(0x4E00 + i) for i in range(300)] + [" "] * 20, 2),
    "one": "x",
    "separator": " ",
    "eight": "abcdefgh",
    "nine": "abcdefghi",
    "thirteen": "a b c d\n\n e f",
    "run": "a" * 5_000,
    "separators": " \n" * 700,
    "no words": noise(3_000, "abcdef", 3),
    "unfinished": "the cat sat on the",
    "long words": " ".join("abcdefgh"[: 1 + i % 7] * (i % 23) + str(i % 5) for i in range(600)) + " ",
    "32 and 33": ("x" * 31 + " " + "x" * 32 + " " + "x" * 33 + " " + "x" * 34 + " ") * 9,
    "abracadabra": "abracadabra",
}


@pytest.fixture(scope="session")
def text(english):
    return lambda name: english[:60_000] if TEXTS[name] is None else TEXTS[name]


@cache
def on_cpu(text, border, contexts, order):
    return counted(CPUBackend(1), text, border, contexts, order)


@pytest.fixture(params=["numpy", "fake", "fake twins", pytest.param("gpu", marks=ON_GPU), pytest.param("gpu twins", marks=ON_GPU)])
def make_backend(request, library):
    """A function that makes a backend on the array module, given a limit of its memory."""
    module, _, twins = request.param.partition(" ")
    if module == "numpy":
        return lambda limit=None: GPUBackend(np, limit)
    if module == "fake":
        if library is None and not twins:
            pytest.skip("no g++: the CUDA kernels cannot be run on the host")
        return lambda limit=None: GPUBackend(FakeCupy(limit or 1 << 40, library), kernels=not twins)
    return lambda limit=None: GPUBackend(real_cupy(), limit, kernels=not twins)


@pytest.mark.parametrize("name", TEXTS)
def test_tables_are_those_of_the_cpu(make_backend, text, name):
    backend = make_backend()
    for order in (14, 24):
        assert_equal(counted(backend, text(name), 0, "wide", order), on_cpu(text(name), 0, "wide", order))
    assert backend.notes == []


@pytest.mark.parametrize("border", [1, 7, 8, 9, 23, 30_000, 59_985, 59_992, 59_999])
def test_history_is_context_only(make_backend, text, border):
    found = counted(make_backend(), text("english"), border, "wide", 24)
    assert_equal(found, on_cpu(text("english"), border, "wide", 24))


@pytest.mark.parametrize("border", range(14))
def test_every_border_of_a_short_text(make_backend, text, border):
    found = counted(make_backend(), text("thirteen")[:13], min(border, 13), "wide", 14)
    assert_equal(found, on_cpu(text("thirteen")[:13], min(border, 13), "wide", 14))


def test_every_kind_of_context_has_its_own_key(make_backend, text):
    names = [*(f"o{k}" for k in range(25)), *(f"c{k}" for k in range(1, 17))]
    names = ",".join([*names, "s1", "s8", "s2.5", "s1.2.3.4.5.6.7.8", "p.w4", "p.lower2"])
    assert_equal(counted(make_backend(), text("english"), 17, names, 8), on_cpu(text("english"), 17, names, 8))


def test_class_contexts(make_backend, text):
    """Classes are learned from the ids of the device's tokens, and their features are keys like the others."""
    names = "p,p.k1,p.k2,p.k1.k2.k3.k4,p.K1,p.K2,p.topic,p.w1.K2.suffixes.topic"
    for n_history in (0, 20_000):
        expected = on_cpu(text("english"), n_history, names, 1)
        assert_equal(counted(make_backend(), text("english"), n_history, names, 1), expected)
    assert np.unique(expected["classes"].labels[:, 0]).size > 50 and expected["p.topic"].n_contexts > 3


def test_class_contexts_that_do_not_fit(text, library):
    """The CPU counts what the device has no memory for, with the classes that were learned already."""
    names = "p.k1.k2,p.w1.topic"
    expected = on_cpu(text("english"), 0, names, 1)
    for limit in (100_000, 400_000, 700_000, 1_500_000):
        backend = GPUBackend(FakeCupy(limit, library), kernels=library is not None)
        assert_equal(counted(backend, text("english"), 0, names, 1), expected)


def test_orders_that_start_late_or_stop_early(make_backend, text):
    for names in ("o3", "o8", "o0", "o5,o2"):
        assert_equal(counted(make_backend(), text("noise"), 5, names, 1), on_cpu(text("noise"), 5, names, 1))


@given(
    st.text("ab X1\n\u6226", min_size=1, max_size=70),
    st.integers(0, 70),
    st.lists(
        st.sampled_from(["o0", "o1", "o5", "o8", "o9", "o17", "c3", "s2.3", "p", "p.w1.w3", "p.number", "p.shapes.suffixes"]), min_size=1
    ),
)
def test_any_text_any_border_any_contexts(library, text, border, names):
    border, names = min(border, len(text)), ",".join(names)
    expected = counted(CPUBackend(1), text, border, names, 2)
    assert_equal(counted(GPUBackend(np), text, border, names, 2), expected)
    assert_equal(counted(GPUBackend(FakeCupy(library=library), kernels=library is not None), text, border, names, 2), expected)


# Memory


@pytest.mark.parametrize("name", ["english", "noise", "run", "crowded"])
@pytest.mark.parametrize("limit", [300_000, 700_000])
def test_pieces_under_a_limit_make_the_same_tables(text, name, limit):
    backend = GPUBackend(np, limit)
    assert_equal(counted(backend, text(name), 100, "wide", 14), on_cpu(text(name), 100, "wide", 14))
    assert backend.notes == []


@pytest.mark.parametrize("module", ["fake", pytest.param("gpu", marks=ON_GPU)])
def test_a_device_limit_is_kept(english, library, module, monkeypatch):
    """The planner's sizes are right: nothing runs out of memory, although an allocation beyond the limit fails."""
    monkeypatch.setattr(arrays, "SPARE_BYTES", 0)
    limit = 6_500_000
    assert not plan_sort(150_000, limit, 1 << 40).whole
    backend = GPUBackend(FakeCupy(limit, library) if module == "fake" else real_cupy(), limit, kernels=library is not None)
    text = english[:50_000] * 3  # a text so short has more distinct n-grams than a long one, and laying out their table is not planned
    assert_equal(counted(backend, text, 0, "wide", 14), on_cpu(text, 0, "wide", 14))
    assert backend.notes == []


def test_a_text_too_large_for_the_device_is_counted_on_the_cpu(text, library):
    for limit in (20_000, 90_000, 200_000, 400_000):
        fake = FakeCupy(limit, library)
        backend = GPUBackend(fake, kernels=library is not None)
        assert_equal(counted(backend, text("english"), 100, "wide", 14), on_cpu(text("english"), 100, "wide", 14))
        assert backend.notes and all(n.startswith("counted on the CPU, not enough device memory: ") for n in backend.notes)
        assert fake.memory.live == 0


@pytest.mark.parametrize("names", ["wide", "o2,s1.3", "p,p.w1"])
def test_contexts_without_a_kernel_are_counted_on_the_cpu(text, monkeypatch, names):
    unknown = {"o3", "s1.3", "p", "p.w1", "p.shapes"}
    monkeypatch.setattr("charstat.gpu.backend.has_kernel", lambda context: context.name not in unknown)
    backend = GPUBackend(np)
    assert_equal(counted(backend, text("thirteen"), 3, names, 4), on_cpu(text("thirteen"), 3, names, 4))
    left = [c.name for c in select_contexts(names, 4) if c.name in unknown]
    assert backend.notes == [f"counted on the CPU, no kernel for the device: {', '.join(left)}"]


def test_an_allocation_that_fails_changes_nothing(text, library):
    """Whichever allocation fails, the tables are the same, and no device memory is lost."""
    names = "o8,o0,o14,s1.3,p.w1.number"
    expected = on_cpu(text("thirteen"), 2, names, 1)

    def count(fail_at):
        fake = FakeCupy(library=library)
        fake.memory.fail_at = fail_at
        assert_equal(counted(GPUBackend(fake, kernels=library is not None), text("thirteen"), 2, names, 1), expected)
        assert fake.memory.live == 0
        return fake.memory.count

    for k in range(1, count(None)):
        count(k)


def test_the_planner():
    assert plan_sort(1000, None, 64) == Plan(1000, 1000, 64)
    assert plan_sort(0, 1 << 30, 64) == Plan(0, 0, 1)
    assert plan_sort(540_000_000, 130 << 30, 1 << 40).whole
    small = plan_sort(540_000_000, 8 << 30, 1 << 40)
    assert not small.whole and 2 <= -(-540_000_000 // small.piece) <= 8
    assert 44 * small.piece + 64 * small.chunk < 8 << 30
    assert plan_sort(540_000_000, 100 << 20, 1 << 40) is None
    plans = [small]
    while (plan := plans[-1].smaller()) is not None:
        plans.append(plan)
    assert all(p.piece * MAX_PIECES >= p.n for p in plans) and len(plans) > 2
    assert Plan(1, 1, 1).smaller() is None
    assert chunk_size(10, None, 64) == 10 and chunk_size(0, None, 64) == 1 and chunk_size(1 << 20, 1 << 20, 1 << 20) < 1 << 15
    assert least_bytes(540_000_000) < 14 << 30


def test_too_many_words_are_refused(text, monkeypatch):
    monkeypatch.setattr(tokens, "WORD_ID_BITS", 6)
    with pytest.raises(ResourceError, match="more than 64 distinct words"):
        counted(GPUBackend(np), text("english"), 0, "words", 1)


# Parts


def test_insert_counts_new_and_known_ngrams():
    keys, counts = np.array([3, 5, 9], np.uint64), np.array([1, 2, 3], np.int64)
    more = np.array([1, 3, 3, 7, 7, 12], np.uint64)
    keys, counts = insert(NumpyArrays(), keys, counts, more)
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == {1: 1, 3: 3, 5: 2, 7: 2, 9: 3, 12: 1}
    assert keys.tolist() == sorted(keys.tolist())


def test_copies_through_a_tiny_ring_arrive_whole():
    fake = FakeCupy()
    copier = DeviceCopier(fake, 0, slots=3, slot_bytes=64)
    host = [np.arange(n, dtype=d) for n in (0, 1, 7, 8, 9, 500) for d in (np.uint8, np.uint32, np.uint64)]
    there = [copier.upload(h) for h in host]
    futures = [copier.fetch([a, b], lambda hosts: hosts) for a, b in zip(there, reversed(there), strict=True)]
    back = [f.result() for f in futures]
    copier.drain()
    for pair, a, b in zip(back, host, reversed(host), strict=True):
        assert np.array_equal(pair[0], a) and np.array_equal(pair[1], b) and pair[0].dtype == a.dtype
    copier.close()


def test_pinned_memory_may_be_refused():
    fake = FakeCupy()
    device_error = type("CUDARuntimeError", (RuntimeError,), {"__module__": "cupy_backends.cuda.api.runtime"})

    def refuse(nbytes):
        raise device_error("cudaErrorMemoryAllocation")

    fake.cuda.alloc_pinned_memory = refuse
    copier = DeviceCopier(fake, 0, slots=2, slot_bytes=64)
    assert copier.fetch([copier.upload(np.arange(99))], lambda hosts: hosts[0].tolist()).result() == list(range(99))
    copier.close()


def test_a_table_that_has_arrived_holds_no_device_memory():
    fake, table = FakeCupy(), on_cpu("abracadabra", 0, "o2", 1)["o2"]
    runs = Runs(*map(fake.asarray, (table.context_identities(), table.starts().astype(np.uint32), table.rows, np.empty(0, np.uint32))))
    job = _Job(GPUBackend(fake, kernels=False), np.zeros(1, np.uint8), 0, (table.context,), None, phase, None)
    done = job._fetch_table(table.context, runs)
    del runs
    live = []
    done.add_done_callback(lambda _: live.append(fake.memory.live))
    assert_equal({"o2": done.result()}, {"o2": table})
    job.close()
    assert live == [0]


def test_warm_up_touches_everything(library):
    GPUBackend(np).warm_up()
    GPUBackend(FakeCupy(library=library), kernels=library is not None).warm_up(1_000)


@pytest.mark.parametrize("weights", [False, True])
def test_warm_up_weighs_only_when_asked(monkeypatch, weights):
    fake, seen = FakeCupy(), []
    monkeypatch.setattr(fake, "log1p", lambda a, log1p=fake.log1p: seen.append(a.size) or log1p(a))
    backend = GPUBackend(fake, kernels=False)
    backend.warm_up(weights=weights)
    assert bool(seen) == weights and backend.notes == [] and fake.memory.live == 0


def test_phases_do_not_nest_and_have_their_names(text, library):
    class Silent:
        reason, note, name, device_present = "not here", "", None, False

        def open(self):
            return False

        def step_j(self):
            return None

        def warnings(self, *_):
            return iter(())

    for limit in (1 << 40, 3_000_000, 300_000):
        backend = GPUBackend(FakeCupy(limit, library), kernels=library is not None)
        alphabet = Alphabet.from_text(text("english"))
        meter = EnergyMeter(Silent(), Silent(), synchronize=backend.synchronize)
        with meter:
            list(backend.count(alphabet.encode(text("english")), 0, select_contexts("wide", 14), model_symbol_info(alphabet), meter.phase))
        names = {p["name"] for p in meter.report().phases}
        assert names >= {"transfer", "words", "other"} and (limit < 1 << 20 or names >= {"key", "sort", "reduce", "fetch"})


def test_a_model_built_on_the_gpu_backend_is_the_same(monkeypatch, text, library):
    fake = GPUBackend(FakeCupy(library=library), kernels=library is not None)
    by_cpu = build_model(text("english"), backend="cpu", threads=1)
    monkeypatch.setattr(counting, "choose_backend", lambda *_: (fake, "a fake"))
    by_gpu = build_model(text("english"), backend="gpu")
    assert by_gpu.manifest["build"]["backend"] == "gpu" and by_gpu.manifest["build"]["device"] == "Fake GPU"
    for name, table in by_cpu.tables.items():
        for field in ("buckets", "records", "rows"):
            assert np.array_equal(getattr(table, field), getattr(by_gpu.tables[name], field))
