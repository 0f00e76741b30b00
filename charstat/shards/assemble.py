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
from charstat.ngram.parts import TableParts
from charstat.shards.files import read_array
from charstat.shards.reduce import Part
from charstat.verify import MAX_TOTAL


def check_sizes(context: Context, parts: Sequence[Part]) -> tuple[int, int]:
    """(contexts, rows) of a table. ResourceError if it is more than a model's files have room for."""
    contexts, rows, counted = (sum(column) for column in list(zip(*parts, strict=True))[1:4])
    if rows > MAX_ROWS:
        raise ResourceError(
            f"the table {context.name} would have {rows:,} rows; a model has room for {MAX_ROWS:,}: build with a lower --order, fewer --contexts "
            "or a higher --min-count"
        )
    if counted > MAX_TOTAL:
        raise ResourceError(
            f"the text has {counted:,} words; a model has room for {MAX_TOTAL:,}: build without word contexts (--contexts chars)"
        )
    return contexts, rows


def add_table(writer: ModelWriter, folder: Path, context: Context, parts: Sequence[Part]) -> None:
    """Add a context's table, of its parts in the order of their identities."""
    table = TableParts(writer.columns.append, context, *check_sizes(context, parts))
    for part in parts:
        table.add(*read_part(folder, context, part))
    writer.tables[context.name] = table.finish()


def read_part(folder: Path, context: Context, part: Part) -> tuple[np.ndarray | None, ...]:
    """(identities, starts, rows, sums) of a part; sums is None for characters."""
    path, n, m = folder / part.file, part.contexts, part.rows
    sums = read_array(path, np.uint32, 8 * n + 4 * (n + 1) + 4 * m, m + 1) if context.is_words else None
    starts = read_array(path, np.uint32, 8 * n, n + 1)
    return read_array(path, np.uint64, 0, n), starts, read_array(path, np.uint32, 8 * n + 4 * (n + 1), m), sums
