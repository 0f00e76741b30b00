"""Token models cut to a size: contexts that were seen fewer than N times go, from all tables alike.

    min_count    N itself
    max_bytes    the least N with which the directory, everything in it counted, is not larger

Rows of the contexts that stay are whole, so that their probabilities stay what they were; a context that went is predicted by the shorter ones.
Most contexts of long orders were seen once, so N = 2 already drops most of a model. Counts are not whole any more: such models are not merged.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from charstat.arguments import check_whole
from charstat.errors import UserError
from charstat.tokens.table import TokenTable, lay_out, table_bits

MOST_COUNT = 1 << 20  # no model is cut more than this
OVERHEAD_BYTES = 16_384 + 1_152  # manifest, and the heads of the arrays' files
MEASURED_TOKENS = 10_000  # of held-out ids, on which the cost of a cut is measured


class Whole(Protocol):
    """What is cut: a model.TokenModel, which imports this file."""

    tables: dict[str, TokenTable]
    columns: dict[str, np.ndarray]


class Cut(NamedTuple):
    """The tables that are left, and what a manifest says of the cut."""

    tables: list[TokenTable]
    about: dict[str, Any]


def check_cut(max_bytes: int | None, min_count: int) -> bool:
    """Whether anything is to be cut. ArgumentError for values that have no meaning."""
    if max_bytes is not None:
        check_whole(max_bytes, "max_bytes", 1)
    return check_whole(min_count, "min_count", 1, MOST_COUNT) > 1 or max_bytes is not None


def cut(model: Whole, max_bytes: int | None, min_count: int, later_bytes: int = 0) -> Cut:
    """Cut a model's tables. later_bytes: of what joins the model afterwards, a warm start. UserError if nothing fits into max_bytes."""
    sizes = {name: _Sizes(table) for name, table in model.tables.items()}
    fixed = (
        OVERHEAD_BYTES + later_bytes + sum(model.columns[name].nbytes for name in ("id_of", "counts", "piece_bytes", "piece_ends", "start"))
    )

    def size(n: int) -> int:
        return fixed + sum(of.n_bytes(n) for of in sizes.values())

    level = min_count
    if max_bytes is not None and size(level) > max_bytes:
        if size(MOST_COUNT) > max_bytes:
            raise UserError(f"max_bytes is {max_bytes:,}, and without any context the model still takes {size(MOST_COUNT):,}: allow more")
        least, level = level, MOST_COUNT  # size(least) is too large, size(level) fits
        while level - least > 1:
            middle = (least + level) // 2
            least, level = (middle, level) if size(middle) > max_bytes else (least, middle)
    before = {name: {"contexts": t.n_contexts, "rows": t.n_rows} for name, t in model.tables.items()}
    return Cut([_without(t, level) for t in model.tables.values()], {"max_bytes": max_bytes, "min_count": level, "tables": before})


class _Sizes:
    """How many contexts and rows of a table are left at each N."""

    def __init__(self, table: TokenTable):
        starts = table.starts().astype(np.int64)
        totals, rows = np.diff(table.sums[starts].astype(np.int64)), np.diff(starts)
        order = np.argsort(totals, kind="stable")
        self._width, self._totals = table.width, totals[order]
        self._rows = np.concatenate([[0], np.cumsum(rows[order])])

    def n_bytes(self, n: int) -> int:
        gone = int(np.searchsorted(self._totals, n))
        contexts, rows = self._totals.size - gone, int(self._rows[-1] - self._rows[gone])
        return 4 * ((1 << table_bits(self._width, contexts, rows)[0]) + 1) + 8 * (contexts + 1) + 2 * rows + 4 * (rows + 1)


def _without(table: TokenTable, n: int) -> TokenTable:
    """The table without the contexts that were seen fewer than n times."""
    if n == 1:
        return table
    starts, identities = table.starts().astype(np.int64), table.identities()
    stays = np.diff(table.sums[starts].astype(np.int64)) >= n
    sizes = np.diff(starts)
    rows = np.repeat(stays, sizes)
    left = np.concatenate([[0], np.cumsum(sizes[stays])]).astype(np.uint32)
    sums = np.concatenate([[0], np.cumsum(np.diff(table.sums)[rows])]).astype(np.uint32)
    return lay_out(np, table.context, table.width, identities[stays], left, table.rows[rows].astype(np.uint32), sums)
