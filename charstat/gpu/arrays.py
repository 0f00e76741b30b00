"""The array module that the counting runs on: CuPy on a device, or NumPy, so that the same steps can be tested without one.

Steps with the same calls in both modules use `arrays.xp`. This file has those that differ or need care on a device: sorting, kernel
launches, free memory, copies from and to the host.

    rules for the steps     every operand has the same dtype, scalars are numpy scalars (CuPy 13 and 14 promote differently),
                            no bare Python int beside a uint64; arrays are 1-D and contiguous; index arrays are not converted
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charstat.gpu.kernels import MAX_BLOCKS, THREADS, source
from charstat.gpu.transfer import DeviceCopier, HostCopier

Array = Any  # numpy.ndarray or cupy.ndarray
SPARE_BYTES = 1 << 20  # for a radix sort's digit counts, beside its second key buffer
TWIN_CHUNK = 1 << 20  # positions that array operations take at a time: their temporaries are several times as large


class NumpyArrays:
    """The array steps on NumPy. limit_bytes: the free memory that the planner assumes; None for no limit."""

    xp = np
    device = "NumPy on the host"
    chunk = TWIN_CHUNK
    pci_bus_id: str | None = None

    def __init__(self, limit_bytes: int | None = None):
        self.limit_bytes = limit_bytes

    def free_bytes(self) -> int | None:
        return self.limit_bytes

    def synchronize(self) -> None:
        """Nothing to do: NumPy has finished when a call returns."""

    def release(self) -> None:
        """Nothing to do: NumPy frees memory at once."""

    def copier(self) -> HostCopier:
        return HostCopier()

    def sort(self, keys: Array) -> None:
        """Sort unsigned keys in place."""
        keys.sort()

    def argsort(self, keys: Array) -> Array:
        """The indices (int64) that sort the keys; a stable sort."""
        return np.argsort(keys, kind="stable")

    def launch(self, name: str, n: int, *args: Any) -> bool:
        """Run a CUDA kernel over n elements; False if there are no kernels and the caller must use array operations."""
        return False

    def to_device(self, host: np.ndarray) -> Array:
        """A small array, as the steps need it."""
        return host

    def to_host(self, array: Array) -> np.ndarray:
        """A small array, copied to the host before this returns."""
        return array


class CupyArrays:
    """The array steps on the current CUDA device. limit_bytes: use no more of its memory. kernels=False: array operations only."""

    def __init__(self, cupy: Any, limit_bytes: int | None = None, kernels: bool = True):
        self.xp = cupy
        self.limit_bytes = limit_bytes
        self.device_id = int(cupy.cuda.runtime.getDevice())
        name = cupy.cuda.runtime.getDeviceProperties(self.device_id)["name"]
        self.device = name.decode() if isinstance(name, bytes) else str(name)
        self.pci_bus_id = cupy.cuda.Device(self.device_id).pci_bus_id
        self.chunk = 1 << 40 if kernels else TWIN_CHUNK
        self._pool = cupy.get_default_memory_pool()
        self._module = cupy.RawModule(code=source()) if kernels else None
        self._kernels: dict[str, Any] = {}

    def free_bytes(self) -> int | None:
        """Memory available to new arrays: free on the device, or cached in CuPy's pool."""
        free, _ = self.xp.cuda.runtime.memGetInfo()
        free += self._pool.free_bytes()
        return free if self.limit_bytes is None else min(free, self.limit_bytes - self._pool.used_bytes())

    def synchronize(self) -> None:
        """Wait for the counting stream; copies to the host go on (see transfer.py)."""
        self.xp.cuda.get_current_stream().synchronize()

    def release(self) -> None:
        """Return the pool's unused blocks to the device: the next allocations have other sizes."""
        self.synchronize()
        self._pool.free_all_blocks()

    def copier(self) -> DeviceCopier:
        return DeviceCopier(self.xp, self.device_id)

    def sort(self, keys: Array) -> None:
        if keys.size > 1:  # CuPy 13 passes an empty array's null pointer to thrust
            self._reserve(keys.nbytes)
            keys.sort()

    def argsort(self, keys: Array) -> Array:
        if keys.size < 2:
            return self.xp.arange(keys.size, dtype=np.int64)
        self._reserve(keys.nbytes, 3 * keys.nbytes)  # the indices, a copy of the keys, and the second buffer of both
        return keys.argsort()

    def _reserve(self, nbytes: int, more: int = 0) -> None:
        """Raise MemoryError now if a sort's workspace does not fit.

        subtle: before version 14.1, CuPy's sort ignores a failed allocation of its workspace and returns wrong results without an
        error (cupy/cupy#9894). The block reserved here goes back to the pool, and the sort gets it from there.
        """
        self.xp.empty(more + nbytes + nbytes // 4 + SPARE_BYTES, np.uint8)

    def launch(self, name: str, n: int, *args: Any) -> bool:
        if self._module is None:
            return False
        if n:
            if name not in self._kernels:
                self._kernels[name] = self._module.get_function(name)
            self._kernels[name]((min(-(-n // THREADS), MAX_BLOCKS),), (THREADS,), args)
        return True

    def to_device(self, host: np.ndarray) -> Array:
        return self.xp.asarray(host)

    def to_host(self, array: Array) -> np.ndarray:
        return array.get()


Arrays = NumpyArrays | CupyArrays


def spans(n: int, chunk: int) -> list[tuple[int, int]]:
    """0..n split into ranges of at most `chunk`."""
    return [(lo, min(lo + chunk, n)) for lo in range(0, n, chunk)]
