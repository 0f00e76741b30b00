"""The reduced parts of a context, one after another, into the columns of one model: the table that counting the whole text would give.

Only here is it known how many contexts and rows there are in all, and so how wide buckets and records are. A part at a time is in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from charstat.errors import ResourceError
from charstat.manifest import MAX_ROWS
from charstat.model import ModelWriter
from charstat.ngram.contexts import Context
from charstat.ngram.table import _fill_buckets, _fill_records, identity_bits, table_bits
from charstat.shards.files import read_array
from charstat.shards.reduce import Part
from charstat.verify import MAX_TOTAL


def check_sizes(context: Context, parts: Sequence[Part]) -> tuple[int, int]:
    """(contexts, rows) of a table. ResourceError if it is more than a model's files have room for."""
    contexts, rows, counted = (sum(column) for column in list(zip(*parts, strict=True))[1:])
    if rows > MAX_ROWS:
        raise ResourceError(
            f"the table {context.name} would have {rows:,} rows; a model has room for {MAX_ROWS:,}: build with a lower --order or fewer --contexts"
        )
    if counted > MAX_TOTAL:
        raise ResourceError(
            f"the text has {counted:,} words; a model has room for {MAX_TOTAL:,}: build without word contexts (--contexts chars)"
        )
    return contexts, rows


def add_table(writer: ModelWriter, folder: Path, context: Context, parts: Sequence[Part]) -> None:
    """Add a context's table, of its parts in the order of their identities, which have whole buckets each."""
    n, m = check_sizes(context, parts)
    bits, start_bits = table_bits(context, n, m)
    width, part_bits = identity_bits(context), (len(parts) - 1).bit_length()
    low_bits = width - bits
    add = writer.columns.append
    places = {"buckets": None, "records": None, "rows": None, "sums": None}

    def append(column: str, values: np.ndarray) -> None:
        at = add(column, values)
        places[column] = at if places[column] is None else places[column]

    context_at = row_at = sum_at = 0
    for number, part in enumerate(parts):
        identities, starts, rows, sums = read_part(folder, context, part)
        buckets = np.zeros((1 << (bits - part_bits)) + 1, np.uint32)
        _fill_buckets(identities - np.uint64(number << (width - part_bits)), low_bits, buckets)
        records = np.empty(part.contexts + 1, np.uint64)
        _fill_records(identities, starts + np.uint32(row_at), start_bits, records)
        append("buckets", buckets[:-1] + np.uint32(context_at))
        append("records", records[:-1])
        append("rows", rows)
        if context.is_words:
            append("sums", sums[:-1] + np.uint32(sum_at))
            sum_at += int(sums[-1])
        context_at, row_at = context_at + part.contexts, row_at + part.rows
    append("buckets", np.array([n], np.uint32))
    append("records", np.array([m], np.uint64))
    if context.is_words:
        append("sums", np.array([sum_at], np.uint32))
    writer.tables[context.name] = {
        "bits": bits, "start_bits": start_bits, "contexts": n, "rows": m,
        "bucket_at": places["buckets"], "record_at": places["records"], "row_at": places["rows"], "sum_at": places["sums"] or 0,
    }  # fmt: skip


def read_part(folder: Path, context: Context, part: Part) -> tuple[np.ndarray, ...]:
    """(identities, starts, rows, sums) of a part; sums is empty for characters."""
    path, n, m = folder / part.file, part.contexts, part.rows
    sums = read_array(path, np.uint32, 8 * n + 4 * (n + 1) + 4 * m, m + 1) if context.is_words else np.empty(0, np.uint32)
    starts = read_array(path, np.uint32, 8 * n, n + 1)
    return read_array(path, np.uint64, 0, n), starts, read_array(path, np.uint32, 8 * n + 4 * (n + 1), m), sums
