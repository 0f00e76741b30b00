"""Copies between host and device: pinned staging buffers, a stream of their own, and threads that fill and empty the buffers.

Page-locking memory costs as much as copying it several times, so only a small ring of buffers is pinned. The host arrays are
ordinary ones, and a few threads copy the ring to them (a single thread would wait for page faults, not for the bus).
fetch() returns at once: the device goes on with the next context while the last one's arrays are copied.

    device array ── copy engine ──▶ pinned buffer ── copier threads ──▶ host array        fetch
    host array ── copier threads ──▶ pinned buffer ── copy engine ──▶ device array        upload
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from charstat.errors import raised_by_device

SLOTS = 8
SLOT_BYTES = 16 << 20
COPIERS = 4


class HostCopier:
    """DeviceCopier's twin for arrays that are already on the host."""

    def upload(self, host: np.ndarray) -> np.ndarray:
        return host

    def fetch(self, arrays: Sequence[np.ndarray], finish: Callable[[list[np.ndarray]], Any]) -> Future:
        """A future of finish(host arrays)."""
        done: Future = Future()
        done.set_result(finish(list(arrays)))
        return done

    def drain(self) -> None:
        """Nothing to do: fetch() has copied everything."""

    def close(self) -> None:
        """Nothing to free."""


class _Slot:
    """One pinned buffer: `copied` is set once the copy engine has filled or read it, `emptied` once a thread has."""

    def __init__(self, cupy: Any, nbytes: int):
        try:
            self.bytes = np.frombuffer(cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)
        except (RuntimeError, MemoryError) as e:  # a limit on locked memory: copies from ordinary memory work, too, but more slowly
            if not raised_by_device(e):
                raise
            self.bytes = np.empty(nbytes, np.uint8)
        self.copied = cupy.cuda.Event(block=True, disable_timing=True)  # waiting threads sleep
        self.emptied: Future | None = None


class DeviceCopier:
    """Copies for one count() call. Close it when the last future is done."""

    def __init__(self, cupy: Any, device_id: int, slots: int = SLOTS, slot_bytes: int = SLOT_BYTES):
        self._cupy, self._device_id = cupy, device_id
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._slots = [_Slot(cupy, slot_bytes) for _ in range(slots)]
        self._slot_bytes, self._next = slot_bytes, 0
        self._driver = ThreadPoolExecutor(1)  # one at a time: the ring has one user
        self._copiers = ThreadPoolExecutor(min(COPIERS, os.cpu_count() or 1))

    def _slot(self) -> _Slot:
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if slot.emptied is not None:
            slot.emptied.result()
            slot.emptied = None
        return slot

    def _pieces(self, nbytes: int) -> list[tuple[int, int]]:
        return [(lo, min(lo + self._slot_bytes, nbytes)) for lo in range(0, nbytes, self._slot_bytes)]

    def upload(self, host: np.ndarray) -> Any:
        """A device copy of a one-dimensional array, complete before the current stream's next work."""
        out = self._cupy.empty(host.shape, host.dtype)
        if host.size == 0:
            return out
        ready = self._ready()
        self._driver.submit(self._upload, np.ascontiguousarray(host).view(np.uint8), out.view(np.uint8), ready).result()
        return out

    def _ready(self) -> Any:
        """An event after all work given to the current stream so far, which may still read where a new array lies."""
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record()
        return event

    def _upload(self, source: np.ndarray, target: Any, ready: Any) -> None:
        with self._cupy.cuda.Device(self._device_id):
            self._stream.wait_event(ready)
            filling = []
            for lo, hi in self._pieces(source.size):
                slot = self._slot()
                slot.emptied = self._copiers.submit(self._fill, slot, source[lo:hi], target[lo:hi])
                filling.append(slot.emptied)
            for done in filling:
                done.result()
            self._stream.synchronize()

    def _fill(self, slot: _Slot, source: np.ndarray, target: Any) -> None:
        with self._cupy.cuda.Device(self._device_id):
            staged = slot.bytes[: source.size]
            np.copyto(staged, source)
            target.set(staged, stream=self._stream)
            slot.copied.record(self._stream)
            slot.copied.synchronize()

    def fetch(self, arrays: Sequence[Any], finish: Callable[[list[np.ndarray]], Any]) -> Future:
        """A future of finish(host copies of the arrays). Starts when the current stream has finished the work given to it so far."""
        return self._driver.submit(self._fetch, list(arrays), self._ready(), finish)

    def _fetch(self, arrays: list[Any], ready: Any, finish: Callable[[list[np.ndarray]], Any]) -> Any:
        with self._cupy.cuda.Device(self._device_id):
            self._stream.wait_event(ready)
            emptying: list[Future] = []
            hosts = [self._copy_out(array, emptying) for array in arrays]
            for done in emptying:
                done.result()
        arrays.clear()  # the device memory is back in the pool before anyone waits for this future
        return finish(hosts)

    def _copy_out(self, array: Any, emptying: list[Future]) -> np.ndarray:
        host = np.empty(array.shape, array.dtype)
        if host.size == 0:
            return host
        source, target = array.view(np.uint8), host.view(np.uint8)
        for lo, hi in self._pieces(host.nbytes):
            slot = self._slot()
            source[lo:hi].get(stream=self._stream, out=slot.bytes[: hi - lo], blocking=False)
            slot.copied.record(self._stream)
            slot.emptied = self._copiers.submit(self._empty, slot, target[lo:hi])
            emptying.append(slot.emptied)
        return host

    def _empty(self, slot: _Slot, target: np.ndarray) -> None:
        with self._cupy.cuda.Device(self._device_id):
            slot.copied.synchronize()
            np.copyto(target, slot.bytes[: target.size])

    def drain(self) -> None:
        """Wait until all fetched arrays have arrived."""
        self._driver.submit(int).result()

    def close(self) -> None:
        """Stop the threads and give the pinned memory back."""
        self._driver.shutdown()
        self._copiers.shutdown()
        self._slots.clear()
