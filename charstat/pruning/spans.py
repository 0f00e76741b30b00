"""A table in spans of consecutive contexts, and arrays beside it that need not fit in memory: how a model larger than that is cut."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from charstat.errors import ResourceError
from charstat.ngram.table import ROW_MASK, ROW_SHIFT, CountTable, _identities, identity_bits

SPAN_ROWS = 1 << 21  # about so many
SMALL_BYTES = 1 << 16  # arrays that stay in memory in any case


class Scratch:
    """Makes arrays in memory, or with a folder in files there that have no name: they go with the array, whatever ends the process.

    A file has its whole place on the disk from the start. ResourceError if the disk is full.
    """

    def __init__(self, folder: Path | None = None):
        self._folder = folder

    def empty(self, size: int, dtype: type) -> np.ndarray:
        n_bytes = size * np.dtype(dtype).itemsize
        if self._folder is None or n_bytes < SMALL_BYTES:
            return np.empty(size, dtype)
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                os.posix_fallocate(file.fileno(), 0, n_bytes)  # otherwise a full disk would be a signal, not an error
                return np.frombuffer(mmap.mmap(file.fileno(), n_bytes), dtype)
        except OSError as e:
            raise ResourceError(f"cannot keep {n_bytes:,} bytes in {self._folder} for cutting the model: {e.strerror or e}") from e


class Span:
    """The contexts first..end of a table, which are those of the buckets low..high, and their rows row..row_end."""

    def __init__(self, table: CountTable, low: int, high: int):
        self.table, self.low, self.high = table, low, high
        self.first, self.end = int(table.buckets[low]), int(table.buckets[high])
        mask = (1 << table.start_bits) - 1
        self.row, self.row_end = int(table.records[self.first]) & mask, int(table.records[self.end]) & mask

    @property
    def contexts(self) -> slice:
        return slice(self.first, self.end)

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row_end)

    def starts(self) -> np.ndarray:
        """First row of every context, counted from the span's: uint32 [contexts + 1]."""
        t = self.table
        return ((t.records[self.first : self.end + 1] & np.uint64((1 << t.start_bits) - 1)) - np.uint64(self.row)).astype(np.uint32)

    def symbols(self) -> np.ndarray:
        """As CountTable.symbols()."""
        rows = self.table.rows[self.rows]
        return rows if self.table.sums is not None else rows & ROW_MASK

    def counts(self) -> np.ndarray:
        """As CountTable.counts()."""
        if self.table.sums is not None:
            return np.diff(self.table.sums[self.row : self.row_end + 1])
        return self.table.rows[self.rows] >> ROW_SHIFT

    def identities(self) -> np.ndarray:
        """As CountTable.context_identities()."""
        t, width = self.table, identity_bits(self.table.context)
        out = np.empty(self.end - self.first, np.uint64)
        buckets = t.buckets[self.low : self.high + 1] - np.uint32(self.first)
        _identities(buckets, t.records[self.first : self.end + 1], t.bits, t.start_bits, width, out)
        return out + np.uint64(self.low << (width - t.bits))


def spans(table: CountTable) -> Iterator[Span]:
    """All contexts of a table, in order."""
    buckets = table.buckets.size - 1
    step = max(1, buckets * SPAN_ROWS // max(1, table.n_rows))
    for low in range(0, buckets, step):
        yield Span(table, low, min(low + step, buckets))


def each_span(table: CountTable, step: Callable[[Span], object], threads: int) -> list:
    """What step(span) returns for every span, in order; spans run at the same time."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(step, spans(table)))
