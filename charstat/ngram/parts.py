"""A table written in parts: what table.assemble() makes of all its contexts at once, with one part in memory at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from charstat.ngram.contexts import Context
from charstat.ngram.table import _fill_records, identity_bits, table_bits

Append = Callable[[str, np.ndarray], int]
"""Adds values to a column and says where they start: storage's columns."""


@njit(cache=True, nogil=True)
def _fill_buckets_from(identities, shift, bucket, context_at, out):
    """out[i] := how many contexts come before bucket + i; context_at of them before these identities."""
    s, at = np.uint64(shift), 0
    for i in range(out.shape[0]):
        while at < identities.shape[0] and np.int64(identities[at] >> s) < bucket + i:
            at += 1
        out[i] = np.uint32(context_at + at)


class TableParts:
    """Writes a table of so many contexts and rows. Its columns must get nothing else meanwhile."""

    def __init__(self, append: Append, context: Context, contexts: int, rows: int):
        self._append, self._context, self._contexts, self._rows = append, context, contexts, rows
        self._bits, self._start_bits = table_bits(context, contexts, rows)
        self._shift = identity_bits(context) - self._bits
        self._places: dict[str, int] = {}
        self._bucket = self._context_at = self._row_at = self._sum_at = 0

    def add(self, identities: np.ndarray, starts: np.ndarray, rows: np.ndarray, sums: np.ndarray | None = None) -> None:
        """The next contexts. identities: uint64 [n], rising; starts: uint32 [n + 1]; rows: uint32 [m]; sums, of words: uint32 [m + 1]. starts
        and sums count from the part's first row."""
        n = identities.size
        if n == 0:
            return
        buckets = np.empty(int(identities[-1] >> np.uint64(self._shift)) + 1 - self._bucket, np.uint32)
        _fill_buckets_from(identities, self._shift, self._bucket, self._context_at, buckets)
        records = np.empty(n + 1, np.uint64)
        _fill_records(identities, starts + np.uint32(self._row_at), self._start_bits, records)
        self._put("buckets", buckets)
        self._put("records", records[:-1])
        self._put("rows", rows)
        if sums is not None:
            self._put("sums", sums[:-1] + np.uint32(self._sum_at))
            self._sum_at += int(sums[-1])
        self._bucket, self._context_at, self._row_at = self._bucket + buckets.size, self._context_at + n, self._row_at + rows.size

    def finish(self) -> dict[str, int]:
        """The table's entry in a manifest. ValueError unless the contexts and rows were as many as was said."""
        if (self._context_at, self._row_at) != (self._contexts, self._rows):
            raise ValueError(f"the table {self._context.name} got {self._context_at} contexts and {self._row_at} rows")
        self._put("buckets", np.full((1 << self._bits) + 1 - self._bucket, self._contexts, np.uint32))
        self._put("records", np.array([self._rows], np.uint64))
        self._put("rows", np.empty(0, np.uint32))
        if self._context.is_words:
            self._put("sums", np.array([self._sum_at], np.uint32))
        return {
            "bits": self._bits, "start_bits": self._start_bits, "contexts": self._contexts, "rows": self._rows,
            "bucket_at": self._places["buckets"], "record_at": self._places["records"], "row_at": self._places["rows"],
            "sum_at": self._places.get("sums", 0),
        }  # fmt: skip

    def _put(self, column: str, values: np.ndarray) -> None:
        self._places.setdefault(column, self._append(column, values))
