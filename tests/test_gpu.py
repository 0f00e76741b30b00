"""charstat.gpu: its tables against the CPU backend's, in every array, on three array modules.

    numpy    the array twins on the host
    fake     FakeCupy below: a strict imitation of the CuPy calls that are used, with memory accounting, copies that happen only when
             somebody waits for them, and the CUDA kernels compiled for the host by g++ (without g++: the array twins, and a skip says so)
    gpu      CuPy on a CUDA device (marked gpu; skips where there is none)

FakeCupy refuses what would depend on CuPy's version, or fail on a device: operands of different dtypes, Python numbers beside arrays,
host arrays mixed with device arrays, indices out of range, sorting views that are not contiguous. What it cannot show: see bench/GPU.md.
"""

import ctypes
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
import types
import warnings
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charstat import counting
from charstat.alphabet import Alphabet
from charstat.counting import build_model, choose_backend
from charstat.cpu.backend import CPUBackend
from charstat.energy import EnergyMeter
from charstat.errors import BackendUnavailable, ResourceError
from charstat.gpu import arrays, device, kernels, tokens
from charstat.gpu.arrays import CupyArrays, NumpyArrays
from charstat.gpu.backend import GPUBackend
from charstat.gpu.memory import MAX_PIECES, Plan, chunk_size, least_bytes, plan_sort
from charstat.gpu.runs import insert
from charstat.gpu.transfer import DeviceCopier
from charstat.model import model_symbol_info
from charstat.ngram.contexts import select_contexts
from charstat.ngram.words import Vocabulary

# A strict imitation of CuPy


class FakeOutOfMemory(MemoryError):
    pass


class FakeMemory:
    """The device's memory: live and peak bytes, a limit, and an allocation that is to fail."""

    def __init__(self, limit=1 << 40):
        self.limit, self.live, self.peak, self.count, self.fail_at = limit, 0, 0, 0, None
        self.lock = threading.RLock()  # a collection inside can free a block

    def block(self, nbytes):
        return FakeBlock(self, int(nbytes))


class FakeBlock:
    def __init__(self, memory, nbytes):
        self.memory, self.nbytes = memory, 0
        with memory.lock:
            memory.count += 1
            if memory.live + nbytes > memory.limit or memory.count == memory.fail_at:
                raise FakeOutOfMemory(f"{nbytes} bytes")
            self.nbytes = nbytes
            memory.live += nbytes
            memory.peak = max(memory.peak, memory.live)

    def __del__(self):
        with self.memory.lock:
            self.memory.live -= self.nbytes


class FakeArray:
    """A device array. _block holds the memory, and is shared by views."""

    __array_ufunc__ = None  # a numpy scalar or array on the left defers to the methods here

    def __init__(self, memory, values, block=None):
        self._memory = memory
        self._block = memory.block(values.nbytes) if block is None else block
        self._a = values

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion of a device array to a host array")

    def __iter__(self):
        raise TypeError("iteration over a device array")

    __bool__ = __int__ = __len__ = __iter__

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    size = property(lambda self: self._a.size)
    nbytes = property(lambda self: self._a.nbytes)

    def _new(self, values):
        return FakeArray(self._memory, values)

    def _operand(self, other):
        if isinstance(other, FakeArray):
            if other.shape != self.shape:
                raise TypeError(f"shapes {self.shape} and {other.shape}")
            other = other._a
        elif not isinstance(other, np.generic):
            raise TypeError(f"a {type(other).__name__} beside a device array")
        if other.dtype != self.dtype:
            raise TypeError(f"{self.dtype} beside {other.dtype}: the result depends on CuPy's version")
        return other

    def _binary(name):
        def operate(self, other):
            return self._new(getattr(self._a, name)(self._operand(other)))

        return operate

    for _name in ("add", "sub", "mul", "and", "or", "xor", "lshift", "rshift", "eq", "ne", "lt", "le", "gt", "ge"):
        locals()[f"__{_name}__"] = _binary(f"__{_name}__")

    def _inplace(name):
        def operate(self, other):
            getattr(self._a, name)(self._operand(other))
            return self

        return operate

    for _name in ("iadd", "ior", "ilshift", "irshift"):
        locals()[f"__{_name}__"] = _inplace(f"__{_name}__")
    del _name, _binary, _inplace

    def __neg__(self):
        return self._new(-self._a)

    def _key(self, key):
        if isinstance(key, slice):
            return key
        if not isinstance(key, FakeArray) or key.dtype.kind not in "iu":
            raise TypeError(f"a device array is indexed by slices and integer arrays here, not by {key!r}")
        if key.size and (key._a.min() < 0 or key._a.max() >= self.size):
            raise IndexError("an index out of range, which CuPy would wrap around")
        return key._a

    def __getitem__(self, key):
        values = self._a[self._key(key)]
        return FakeArray(self._memory, values, self._block) if isinstance(key, slice) else self._new(values)

    def __setitem__(self, key, value):
        if isinstance(value, bool) and self.dtype == np.bool_:
            value = np.bool_(value)
        target = self._new(self._a[self._key(key)]) if isinstance(value, FakeArray) else self
        self._a[self._key(key)] = target._operand(value)

    def astype(self, dtype):
        return self._new(self._a.astype(dtype))

    def view(self, dtype):
        return FakeArray(self._memory, self._a.view(dtype), self._block)

    def sort(self):
        if not self._a.flags.c_contiguous or self._a.dtype.kind != "u":
            raise TypeError("sorts here are of contiguous unsigned keys")
        workspace = self._memory.block(self.nbytes + self.nbytes // 8)
        self._a.sort()
        del workspace

    def argsort(self):
        held = [self._memory.block(self.nbytes) for _ in range(3)], self._memory.block(self.nbytes // 8)
        order = self._new(np.argsort(self._a, kind="stable"))
        del held
        return order

    def get(self, stream=None, out=None, blocking=True):
        if stream is None:
            return self._a.copy()
        assert out is not None and not blocking and out.dtype == self.dtype and out.shape == self.shape and out.flags.c_contiguous
        out[...] = 0xAA  # until the copy is waited for
        stream.later(lambda: np.copyto(out, self._a))
        return out

    def set(self, arr, stream):
        assert type(arr) is np.ndarray and arr.dtype == self.dtype and arr.shape == self.shape and self._a.flags.c_contiguous
        stream.later(lambda: np.copyto(self._a, arr))


class FakeStream:
    """Copies on it happen when an event after them, or the stream, is synchronised."""

    def __init__(self, non_blocking=False):
        self.work, self.lock = [], threading.Lock()

    def later(self, task):
        with self.lock:
            self.work.append(task)

    def wait_event(self, event):
        assert event.recorded

    def synchronize(self, upto=None):
        with self.lock:
            n = len(self.work) if upto is None else upto - self.done if (upto := max(upto, self.done)) else 0
            for task in self.work[:n]:
                task()
            del self.work[:n]
            self.done += n

    done = 0

    def mark(self):
        with self.lock:
            return self.done + len(self.work)


class FakeEvent:
    def __init__(self, block=False, disable_timing=False):
        self.recorded = None

    def record(self, stream=None):
        self.recorded = (stream, 0 if stream is None else stream.mark())

    def synchronize(self):
        stream, mark = self.recorded
        if stream is not None:
            stream.synchronize(mark)


class FakeUfunc:
    def __init__(self, ufunc):
        self.ufunc = ufunc

    def __call__(self, a, b):
        return a._new(self.ufunc(a._a, a._operand(b)))

    def at(self, a, indices, b):
        assert a.dtype == b.dtype and a.dtype.name in ("int32", "int64", "uint32", "uint64") and indices.shape == b.shape
        self.ufunc.at(a._a, a._key(indices), b._a)


HOST_SHIM = """
struct Place { unsigned x; };
static thread_local Place blockIdx, threadIdx, blockDim, gridDim;
#define __global__
#define __device__
#define __forceinline__ inline
extern "C" void place(unsigned b, unsigned t, unsigned blocks, unsigned threads) {
    blockIdx.x = b; threadIdx.x = t; gridDim.x = blocks; blockDim.x = threads;
}
"""
C_TYPES = {"u8": ("uint8", "bool"), "u32": ("uint32",), "u64": ("uint64",), "i64": ("int64",)}


@cache
def host_kernels(directory):
    """The CUDA source as a host library; None without g++."""
    if shutil.which("g++") is None:
        return None
    (directory / "kernels.cpp").write_text(HOST_SHIM + kernels.source())
    command = ["g++", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(directory / "kernels.so"), str(directory / "kernels.cpp")]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(directory / "kernels.so"))


class FakeRawModule:
    """Kernels that run on the host, one thread after another, after a check of every argument against the kernel's declaration."""

    library = None

    def __init__(self, *, code):
        self.code = code

    def get_function(self, name):
        declared = re.search(rf"__global__ void {name}\(([^)]*)\)", self.code).group(1)
        parameters = [p.rsplit(None, 1)[0].replace("const ", "").strip() for p in declared.split(",")]

        def launch(grid, block, args):
            assert 1 <= grid[0] <= kernels.MAX_BLOCKS and block == (kernels.THREADS,) and len(args) == len(parameters)
            converted = []
            for parameter, arg in zip(parameters, args, strict=True):
                if parameter.endswith("*"):
                    assert isinstance(arg, FakeArray) and arg.dtype.name in C_TYPES[parameter[:-1]], (parameter, arg)
                    assert arg._a.flags.c_contiguous
                    converted.append(ctypes.c_void_p(arg._a.ctypes.data))
                else:
                    kind, c_type = {"int": (np.int32, ctypes.c_int), "i64": (np.int64, ctypes.c_longlong)}[parameter]
                    assert type(arg) is kind, (parameter, arg)
                    converted.append(c_type(arg))
            for b in range(2):  # the loops are grid-stride, so any grid does: this one has 2 blocks of 3 threads
                for t in range(3):
                    self.library.place(b, t, 2, 3)
                    getattr(self.library, name)(*converted)

        return launch


class FakeCupy:
    """What charstat.gpu uses of the module `cupy`, and nothing else."""

    __version__ = "14.2.0"

    def __init__(self, limit=1 << 40, library=None):
        self.memory = memory = FakeMemory(limit)
        self.minimum = FakeUfunc(np.minimum)
        self.RawModule = type("RawModule", (FakeRawModule,), {"library": library})
        pool = types.SimpleNamespace(free_bytes=lambda: 0, used_bytes=lambda: memory.live, free_all_blocks=lambda: None)
        self.get_default_memory_pool = lambda: pool
        self.cuda = types.SimpleNamespace(
            runtime=types.SimpleNamespace(
                getDevice=lambda: 0,
                getDeviceCount=lambda: 1,
                getDeviceProperties=lambda i: {"name": b"Fake GPU"},
                memGetInfo=lambda: (memory.limit - memory.live, memory.limit),
                runtimeGetVersion=lambda: 13000,
            ),
            Device=FakeDevice,
            Stream=FakeStream,
            Event=FakeEvent,
            alloc_pinned_memory=lambda nbytes: np.empty(nbytes, np.uint8),
            get_current_stream=FakeStream,
        )

    def _array(self, values):
        return FakeArray(self.memory, values)

    def asarray(self, host):
        assert isinstance(host, np.ndarray)
        return self._array(host.copy())

    def empty(self, shape, dtype):
        values = np.empty(shape, dtype)
        values.view(np.uint8)[...] = 0xA5
        return self._array(values)

    def zeros(self, shape, dtype):
        return self._array(np.zeros(shape, dtype))

    def ones(self, shape, dtype):
        return self._array(np.ones(shape, dtype))

    def full(self, shape, value, dtype):
        return self._array(np.full(shape, value, dtype))

    def arange(self, *args, dtype):
        return self._array(np.arange(*args, dtype=dtype))

    def flatnonzero(self, a):
        return a._new(np.flatnonzero(a._a))

    def logical_not(self, a):
        return a._new(np.logical_not(a._a))

    def cumsum(self, a, dtype):
        return a._new(np.cumsum(a._a, dtype=dtype))

    def concatenate(self, arrays):
        assert len({a.dtype for a in arrays}) == 1
        return self._array(np.concatenate([a._a for a in arrays]))

    def searchsorted(self, a, v, side="left"):
        assert a.dtype == v.dtype and (a._a[1:] >= a._a[:-1]).all()
        return a._new(np.searchsorted(a._a, v._a, side))

    def bincount(self, x, minlength):
        assert x.dtype.kind in "iu"
        return x._new(np.bincount(x._a, minlength=minlength))


class FakeDevice:
    pci_bus_id = "0000:17:00.0"

    def __init__(self, device_id):
        assert device_id == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


# What is counted


def phase(name):
    assert name in ("transfer", "key", "sort", "reduce", "words", "fetch", "orders", "hashed")
    return nullcontext()


def counted(backend, text, border, contexts, order):
    """{name: part} of a text, and the symbols' alphabet being the text's own."""
    alphabet = Alphabet.from_text(text)
    parts = backend.count(alphabet.encode(text), border, select_contexts(contexts, order), model_symbol_info(alphabet), phase)
    return {"words" if isinstance(p, Vocabulary) else p.context.name: p for p in parts}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        table = ("bits", "start_bits", "buckets", "records", "rows", "sums")
        for field in ("first_child", "symbol", "first_id", "size") if name == "words" else table:
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


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return host_kernels(tmp_path_factory.mktemp("kernels"))


# On a device, a warning of CuPy's or the driver's is no failure.
ON_GPU = [pytest.param(name, marks=[pytest.mark.gpu, pytest.mark.filterwarnings("default")]) for name in ("gpu", "gpu twins")]


@pytest.fixture(params=["numpy", "fake", "fake twins", *ON_GPU])
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


def real_cupy():
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    with warnings.catch_warnings(action="ignore"):
        cupy = importlib.import_module("cupy")
    try:
        found = cupy.cuda.runtime.getDeviceCount() > 0
    except cupy.cuda.runtime.CUDARuntimeError as e:
        pytest.skip(f"no CUDA device: {e}")
    if not found:
        pytest.skip("no CUDA device")
    return cupy


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


@pytest.mark.parametrize("module", ["fake", ON_GPU[0]])
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
        assert backend.notes and all(n.startswith("counted on the CPU, for want of device memory: ") for n in backend.notes)
        assert fake.memory.live == 0


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

    def refuse(nbytes):
        raise RuntimeError("cudaErrorMemoryAllocation")

    fake.cuda.alloc_pinned_memory = refuse
    copier = DeviceCopier(fake, 0, slots=2, slot_bytes=64)
    assert copier.fetch([copier.upload(np.arange(99))], lambda hosts: hosts[0].tolist()).result() == list(range(99))
    copier.close()


def test_warm_up_touches_everything(library):
    GPUBackend(np).warm_up()
    GPUBackend(FakeCupy(library=library), kernels=library is not None).warm_up(1_000)


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


# Choosing a backend


def fake_driver(monkeypatch, version):
    def query():
        if version is None:
            raise RuntimeError("no driver")
        return version

    nvml = types.SimpleNamespace(nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlSystemGetCudaDriverVersion_v2=query)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (12040, "the NVIDIA driver supports CUDA 12.4: pip install 'cupy-cuda12x[ctk]'"),
        (13000, "the NVIDIA driver supports CUDA 13.0: pip install 'cupy-cuda13x[ctk]'"),
        (14010, "the NVIDIA driver supports CUDA 14.1: pip install 'cupy-cuda13x[ctk]'"),
        (11080, "the NVIDIA driver supports CUDA 11.8, CuPy needs 12: update the driver"),
        (None, "no NVIDIA driver was found here; where there is one: pip install 'cupy-cuda13x[ctk]', or 'cupy-cuda12x[ctk]' for CUDA 12"),
    ],
)
def test_without_cupy_the_advice_fits_the_driver(monkeypatch, version, advice):
    fake_driver(monkeypatch, version)
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy: ModuleNotFoundError
    with pytest.raises(BackendUnavailable) as e:
        choose_backend("gpu")
    assert str(e.value) == f"CuPy is not installed; {advice}"
    backend, why = choose_backend("auto", threads=2)
    assert backend.name == "cpu" and why == f"no GPU: CuPy is not installed; {advice}"


def test_the_cpu_backend_does_not_look_for_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "charstat.gpu.device", None)
    assert choose_backend("cpu")[1] == "asked for"
    with pytest.raises(BackendUnavailable, match="no backend is named 'tpu'"):
        choose_backend("tpu")


def test_a_device_that_works_is_chosen(monkeypatch, library):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(200 << 30, library))
    monkeypatch.setattr(device, "driver_cuda_version", lambda: (13, 0))
    if library is None:
        monkeypatch.setattr(CupyArrays, "launch", lambda *_: False)
    for name in ("gpu", "auto"):
        backend, why = choose_backend(name, chars=540_000_000)
        assert backend.name == "gpu" and backend.pci_bus_id == backend.energy_reader().pci_bus_id == "0000:17:00.0"
        assert backend.device == "Fake GPU" and why == "Fake GPU with 214.7 GB free"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.cuda.runtime.__setattr__("getDeviceCount", lambda: 0), "CuPy finds no CUDA device (CUDA_VISIBLE_DEVICES may hide it)"),
        (
            lambda c: c.cuda.runtime.__setattr__("getDeviceCount", lambda: 1 // 0),
            (
                "CuPy 14.2.0 finds no CUDA device (integer division or modulo by zero); "
                "the NVIDIA driver supports CUDA 12.4: pip install 'cupy-cuda12x[ctk]'; this CuPy is for CUDA 13: uninstall it first"
            ),
        ),
        (
            lambda c: c.__setattr__("RawModule", lambda code: 1 // 0),
            "the GPU does not work (integer division or modulo by zero); the NVIDIA driver supports CUDA 12.4: pip install 'cupy-cuda12x[ctk]'",
        ),
        (
            lambda c: c.memory.__setattr__("limit", 1 << 30),
            f"Fake GPU has 1.1 GB of memory to use, counting 540,000,000 characters takes {least_bytes(540_000_000) / 1e9:.1f}",
        ),
    ],
)
def test_a_device_that_does_not_work_is_not_chosen(monkeypatch, library, change, message):
    fake = FakeCupy(library=library)
    change(fake)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(device, "driver_cuda_version", lambda: (12, 4))
    if library is None:
        monkeypatch.setattr(CupyArrays, "launch", lambda *_: False)
    with pytest.raises(BackendUnavailable) as e:
        choose_backend("gpu", chars=540_000_000)
    assert str(e.value) == message
    assert choose_backend("auto", chars=540_000_000)[1] == f"no GPU: {message}"


def test_a_model_built_on_the_gpu_backend_is_the_same(monkeypatch, text, library):
    fake = GPUBackend(FakeCupy(library=library), kernels=library is not None)
    by_cpu = build_model(text("english"), backend="cpu", threads=1)
    monkeypatch.setattr(counting, "choose_backend", lambda *_: (fake, "a fake"))
    by_gpu = build_model(text("english"), backend="gpu")
    assert by_gpu.manifest["build"]["backend"] == "gpu" and by_gpu.manifest["build"]["device"] == "Fake GPU"
    for name, table in by_cpu.tables.items():
        for field in ("buckets", "records", "rows"):
            assert np.array_equal(getattr(table, field), getattr(by_gpu.tables[name], field))


def test_importing_charstat_does_not_import_cupy():
    code = (
        "import sys, charstat.counting, charstat.model, charstat.gpu, charstat.gpu.device, charstat.gpu.backend\n"
        "charstat.counting.choose_backend('cpu')\n"
        "assert not any(m.split('.')[0] in ('cupy', 'cupyx', 'cupy_backends') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The CUDA source


def test_every_kernel_is_declared():
    assert re.findall(r"__global__ void (\w+)\(", kernels.source()) == list(kernels.NAMES)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_the_cuda_source_compiles(tmp_path, arch):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    file = tmp_path / "kernels.cu"
    file.write_text(kernels.source())
    options = f"-arch={arch} -cubin -Werror all-warnings -Xptxas -v -o {tmp_path / 'kernels.cubin'}".split()
    log = subprocess.run([nvcc, *options, str(file)], check=True, capture_output=True, text=True).stderr
    assert len(re.findall("Compiling entry function", log)) == len(kernels.NAMES)
    assert set(re.findall(r"(\d+) bytes spill stores", log)) == {"0"}


def test_cupy_has_what_is_used():
    """Of an installed CuPy, device or not: the names that FakeCupy stands in for."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    with warnings.catch_warnings(action="ignore"):
        cupy = importlib.import_module("cupy")
    fake = FakeCupy()
    names = [n for n in (*vars(FakeCupy), *vars(fake)) if not n.startswith("_") and n not in ("memory", "cuda")]
    assert [n for n in names if not hasattr(cupy, n)] == []
    assert [n for n in vars(fake.cuda) if not hasattr(cupy.cuda, n)] == []
    assert [n for n in vars(fake.cuda.runtime) if not hasattr(cupy.cuda.runtime, n)] == []
    methods = [n for n in vars(FakeArray) if not n.startswith("_") or n.startswith("__") and n in dir(np.ndarray)]
    assert [n for n in methods if not hasattr(cupy.ndarray, n)] == []
    assert callable(cupy.minimum.at)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)


# The benchmark


@pytest.fixture
def bench(monkeypatch):
    path = Path(__file__).resolve().parents[1] / "bench" / "gpu_build.py"
    spec = importlib.util.spec_from_file_location("gpu_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ENERGY_S", 0.0)
    return module


@pytest.mark.parametrize("with_device", [False, True])
def test_the_benchmark_runs(bench, monkeypatch, library, tmp_path, capsys, with_device):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(1 << 30, library) if with_device else None)
    if library is None:
        monkeypatch.setattr(CupyArrays, "launch", lambda *_: False)
    source, out, page = tmp_path / "text", tmp_path / "out.json", tmp_path / "page.md"
    source.write_text("The quick brown fox\njumps over 13 lazy dogs. " * 30, encoding="utf-8")
    page.write_text(f"before\n{bench.MARKS[0]}\nearlier numbers\n{bench.MARKS[1]}\nafter\n", encoding="utf-8")
    options = f"--text {source} --sizes 1k,2k --cpu-up-to 1k --repeats 2 --threads 1 --json {out} --markdown {page}".split()
    monkeypatch.setattr(sys, "argv", ["bench/gpu_build.py", *options])
    bench.main()
    written = json.loads(out.read_text())
    assert [(r["chars"], r["backend"]) for r in written["results"]] == [
        (1000, "cpu"),
        *([(1000, "gpu"), (2000, "gpu")] if with_device else []),
    ]
    for r in written["results"]:
        assert r["seconds"]["n"] == 2 and r["tables"] == written["results"][0]["tables"] or r["chars"] == 2000
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "earlier" not in text
    assert ("copies with 1 in 8" in text) == with_device
    assert ("no device was found" in text) != with_device and ("Floors by bytes moved" in text) == with_device
    assert "no device was found" in capsys.readouterr().out or with_device


def test_extended_text_is_the_text_and_then_changes(bench):
    text = bench.extend("abcdefgh 123 ß–\n" * 10, 1000)
    assert len(text) == 1000 and text[:160] == "abcdefgh 123 ß–\n" * 10
    copies = [text[i : i + 160] for i in range(160, 960, 160)]
    assert len(set(copies)) == len(copies)
    assert all(sum(a != b for a, b in zip(c, text, strict=False)) < 30 and c[13] == "ß" for c in copies)
