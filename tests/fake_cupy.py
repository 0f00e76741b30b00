"""FakeCupy: a strict imitation of the CuPy calls that charstat.gpu uses, for tests on machines without a device.

It counts live bytes and fails beyond a limit, makes copies only when somebody waits for them, and runs the CUDA kernels compiled for
the host by g++ (host_kernels; without g++ its RawModule has no library: use the array twins).

It refuses what would depend on CuPy's version, or fail on a device: operands of different dtypes, Python numbers beside arrays,
host arrays mixed with device arrays, indices out of range, one place assigned to twice, sorting views that are not contiguous.
What it cannot show: see bench/GPU.md.
"""

import ctypes
import importlib
import importlib.util
import re
import shutil
import subprocess
import threading
import types
import warnings
from functools import cache, partial

import numpy as np
import pytest

from charstat.gpu import kernels

UNARY = ("log", "exp", "log1p", "rint", "absolute", "reciprocal", "logical_not")
BINARY = ("add", "minimum", "maximum")

# On a device, a warning of CuPy's or the driver's is no failure.
ON_GPU = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


def real_cupy():
    """CuPy itself, for the tests marked ON_GPU; skips where it or a device is missing."""
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


class FakeOutOfMemory(MemoryError):
    __module__ = "cupy.cuda.memory"  # as the real one's: by it, a failure of the device is told from any other


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
        if isinstance(key, FakeArray) and np.unique(key._a).size != key.size:
            raise IndexError("a place assigned to twice, which of the values it gets is left open")
        target = self._new(self._a[self._key(key)]) if isinstance(value, FakeArray) else self
        self._a[self._key(key)] = target._operand(value)

    def astype(self, dtype):
        return self._new(self._a.astype(dtype))

    def view(self, dtype):
        return FakeArray(self._memory, self._a.view(dtype), self._block)

    def sort(self):
        if not self._a.flags.c_contiguous or self._a.dtype.kind != "u":
            raise TypeError("sorts here are of contiguous unsigned keys")
        assert self.size, "a sort of nothing: CuPy 13 hands it to thrust, with a null pointer"
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
    """A ufunc whose at() takes only what CuPy's scattering has atomics for (cupy/_core/_routines_indexing.pyx): no int64."""

    def __init__(self, ufunc):
        self.ufunc = ufunc

    def __call__(self, a, b):
        return a._new(self.ufunc(a._a, a._operand(b)))

    def at(self, a, indices, b):
        assert a.dtype.name in ("int32", "float32", "float64", "uint32", "uint64"), f"{a.dtype} has no atomics in CuPy"
        assert a.dtype == b.dtype and indices.shape == b.shape
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
C_TYPES = {"u8": ("uint8", "bool"), "u16": ("uint16",), "u32": ("uint32",), "u64": ("uint64",), "i64": ("int64",)}


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
        for name in BINARY:
            setattr(self, name, FakeUfunc(getattr(np, name)))
        for name in UNARY:
            setattr(self, name, partial(self._unary, getattr(np, name)))
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

    @staticmethod
    def _unary(function, a):
        return a._new(function(a._a))

    def where(self, condition, a, b):
        assert condition.dtype == np.bool_ and a.dtype == b.dtype and condition.shape == a.shape == b.shape
        return a._new(np.where(condition._a, a._a, b._a))

    def cumsum(self, a, dtype):
        return a._new(np.cumsum(a._a, dtype=dtype))

    def cumprod(self, a, dtype):
        return a._new(np.cumprod(a._a, dtype=dtype))

    def concatenate(self, arrays):
        assert len({a.dtype for a in arrays}) == 1
        return self._array(np.concatenate([a._a for a in arrays]))

    def searchsorted(self, a, v, side="left"):
        assert a.dtype == v.dtype and (a._a[1:] >= a._a[:-1]).all()
        return a._new(np.searchsorted(a._a, v._a, side))

    def bincount(self, x, minlength):
        assert x.dtype.kind in "iu" and x.size, "CuPy 13 has no bincount of nothing"
        return x._new(np.bincount(x._a, minlength=minlength))


class FakeDevice:
    pci_bus_id = "0000:17:00.0"

    def __init__(self, device_id):
        assert device_id == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None
