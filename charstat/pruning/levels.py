"""The levels of a whole model (worth.py): of every table's rows and contexts, of every word, and what is left of it at each level."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from charstat.ctw.links import is_exact, parent_links
from charstat.errors import FormatError
from charstat.model import KEPT, Model, ModelWriter
from charstat.ngram.hashing import CHARS
from charstat.ngram.table import ROW_SHIFT, CountTable, assemble, table_bits
from charstat.ngram.words import Vocabulary, build_trie, vocabulary_words
from charstat.pruning import worth
from charstat.pruning.worth import HIGHEST
from charstat.storage import MemoryColumns


class Costs(NamedTuple):
    """Bytes that a context and a row take, by the kind of table: what a unit of worth is paid with."""

    exact_context: float
    hashed_context: float
    word_context: float
    row: float
    word_row: float

    def of(self, table: CountTable) -> tuple[float, float]:
        if table.context.is_words:
            return self.word_context, self.word_row
        return (self.exact_context if table.context.kind == CHARS and is_exact(table) else self.hashed_context), self.row


MAPPED_COSTS = Costs(9.5, 9.5, 9.5, 4.0, 8.0)  # a record and its share of the buckets; a row, and its sum
PACKED_COSTS = Costs(1.5, 5.5, 3.2, 0.9, 1.2)  # measured on packed models of 5 and 16 MB
Shape = Callable[[np.ndarray], np.ndarray]


@dataclass
class TableLevels:
    """levels: uint16 [rows]. contexts_at, rows_at: how many are left at each level, int64 [HIGHEST + 1]."""

    table: CountTable
    levels: np.ndarray
    contexts_at: np.ndarray
    rows_at: np.ndarray


@dataclass
class ModelLevels:
    """The levels of a model. words: uint16 [vocabulary]; words_at, nodes_at: of the vocabulary and its trie, int64 [HIGHEST + 1]."""

    model: Model
    tables: dict[str, TableLevels]
    words: np.ndarray
    words_at: np.ndarray
    nodes_at: np.ndarray

    def mapped_bytes(self, level: int) -> int:
        """Bytes of the arrays of tables and vocabulary at a level, as a model directory has them."""
        nodes = int(self.nodes_at[level]) if self.words_at[level] else 0
        total = 9 * nodes + 4 * bool(nodes)
        for t in self.tables.values():
            contexts, rows = int(t.contexts_at[level]), int(t.rows_at[level])
            bits, _ = table_bits(t.table.context, contexts, rows)
            total += 4 * ((1 << bits) + 1) + 8 * (contexts + 1) + 4 * rows + (4 * (rows + 1) if t.table.context.is_words else 0)
        return total

    def packed_bytes(self, level: int) -> float:
        """About what tables and vocabulary take in a packed model; good for comparing levels."""
        total = 0.7 * self.nodes_at[level]
        for t in self.tables.values():
            per_context, per_row = PACKED_COSTS.of(t.table)
            total += per_context * t.contexts_at[level] + per_row * t.rows_at[level]
        return float(total)

    def write(self, writer: ModelWriter, level: int, shape: Shape | None = None) -> None:
        """Add what is left at a level to a writer: vocabulary, word classes, tables. shape: changes the counts that are left."""
        vocabulary, ids = self._vocabulary(level)
        writer.add(vocabulary)
        writer.add(self.model.classes)
        for found in self.tables.values():
            writer.add(_cut(found, level, ids, shape)[0])

    def narrowed(self, level: int, shape: Shape | None = None) -> ModelLevels:
        """The same levels of a smaller model in memory, of what is left at a level: to look for a higher one among less."""
        vocabulary, ids = self._vocabulary(level)
        writer = ModelWriter(MemoryColumns())
        writer.add(vocabulary)
        writer.add(self.model.classes)
        kept = {}
        for name, found in self.tables.items():
            table, kept[name] = _cut(found, level, ids, shape)
            writer.add(table)
        words, nodes = self.words[self.words >= level], np.zeros(vocabulary.symbol.size, np.uint16)
        worth.node_levels(vocabulary.first_child, vocabulary.first_id, words, nodes)
        keep = {k: v for k, v in self.model.manifest.items() if k in KEPT}
        model = writer.finish(self.model.alphabet, self.model.contexts, {k: v for k, v in keep.items() if k not in ("ctw", "start")})
        return _collect(model, kept, words, nodes)

    def _vocabulary(self, level: int) -> tuple[Vocabulary, np.ndarray]:
        """The words that are left at a level, and for every word its new id: uint32 [vocabulary]."""
        old, kept = self.model.vocabulary, self.words >= level
        if kept.all():
            return old, np.arange(old.size, dtype=np.uint32)
        ids = (np.cumsum(kept) - kept).astype(np.uint32)
        packed, lengths = vocabulary_words(old)
        return build_trie(packed[kept], lengths[kept]) if kept.any() else no_words(), ids


def _cut(found: TableLevels, level: int, ids: np.ndarray, shape: Shape | None) -> tuple[CountTable, np.ndarray]:
    """What is left of a table, and the levels of its rows. ids: new ids of words."""
    table, n, m = found.table, int(found.contexts_at[level]), int(found.rows_at[level])
    starts, identities = np.zeros(n + 1, np.uint32), np.empty(n, np.uint64)
    values, counts = np.empty(m, np.uint32), np.empty(m, np.uint32)
    worth.keep_rows(
        table.starts(), table.context_identities(), table.symbols(), table.counts(), found.levels, level, starts, identities, values, counts
    )
    levels = found.levels[found.levels >= level]
    counts = counts if shape is None else shape(counts)
    if table.sums is None:
        return assemble(table.context, identities, starts, pack_rows(values, counts)), levels
    sums = np.zeros(m + 1, np.uint32)
    np.cumsum(counts, out=sums[1:])
    return assemble(table.context, identities, starts, ids[values], sums), levels


def _collect(model: Model, levels: dict[str, np.ndarray], words: np.ndarray, nodes: np.ndarray) -> ModelLevels:
    found = {
        name: TableLevels(table, levels[name], left_at(worth.context_levels(table.starts(), levels[name])), left_at(levels[name]))
        for name, table in model.tables.items()
    }
    return ModelLevels(model, found, words, left_at(words), left_at(nodes))


def pack_rows(symbols: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """table.pack_row() of arrays: uint32."""
    return (counts << ROW_SHIFT) | symbols


def no_words() -> Vocabulary:
    nothing = np.empty(0, np.uint32)
    return Vocabulary(nothing, np.empty(0, np.uint8), nothing, 0)


def weigh(model: Model, costs: Costs, min_count: int = 1, tell: Callable[[int, int], None] | None = None) -> ModelLevels:
    """The levels of a model's rows, contexts and words. min_count: contexts with fewer counts go first. tell: (tables done, tables).

    Memory: two bytes a row, and for the largest table 12 more. FormatError for tables that no text has together.
    """
    tables = model.tables
    chain = [t for t in tables.values() if t.context.kind == CHARS and is_exact(t)]
    of_words = word_priors(model)
    levels: dict[str, np.ndarray] = {}
    done = 0

    def finished() -> None:
        nonlocal done
        done += 1
        if tell:
            tell(done, len(tables))

    parents, before = {}, None
    for table in chain:
        starts, counts = table.starts(), table.counts()
        if before is None:
            prior = np.full(table.n_rows, 1.0 / model.alphabet.size, np.float32)
        else:
            shorter, shorter_shares = before
            parents[table.context.name] = _links(table, shorter)
            prior = np.empty(table.n_rows, np.float32)
            worth.parent_priors(
                starts, table.symbols(), parents[table.context.name], shorter.starts(), shorter.symbols(), shorter_shares, prior
            )
        levels[table.context.name] = _levels(table, starts, counts, prior, costs, min_count)
        out = np.empty(table.n_rows, np.float32)
        worth.shares(starts, counts, prior, out)
        before = table, out
        finished()
    if chain and chain[0].context.param == 0:
        levels[chain[0].context.name][:] = HIGHEST  # what every stream falls back on
    for table in tables.values():
        name = table.context.name
        if name in levels:
            continue
        starts, counts = table.starts(), table.counts()
        if table.context.is_words:
            prior = of_words[table.rows] if table.context.param else np.full(table.n_rows, 1.0 / max(1, table.n_rows), np.float32)
        else:
            prior = np.empty(table.n_rows, np.float32)
            worth.own_priors(starts, counts, worth.assumed_share(table.context), prior)
        levels[name] = _levels(table, starts, counts, prior, costs, min_count)
        finished()
    for table, shorter in zip(chain[:0:-1], chain[-2::-1], strict=True):
        worth.close_orders(
            table.starts(), table.symbols(), levels[table.context.name], parents[table.context.name],
            shorter.starts(), shorter.symbols(), levels[shorter.context.name],
        )  # fmt: skip
    words = np.zeros(model.vocabulary.size, np.uint16)
    for name, table in tables.items():
        if table.context.is_words:
            worth.word_levels(table.rows, levels[name], words)
    if "p" in tables:
        levels["p"] = np.maximum(levels["p"], words[tables["p"].rows])
    nodes = np.zeros(model.vocabulary.symbol.size, np.uint16)
    worth.node_levels(model.vocabulary.first_child, model.vocabulary.first_id, words, nodes)
    return _collect(model, levels, words, nodes)


def _levels(table: CountTable, starts: np.ndarray, counts: np.ndarray, prior: np.ndarray, costs: Costs, min_count: int) -> np.ndarray:
    levels = np.empty(table.n_rows, np.uint16)
    context_uses = worth.expected_uses(worth.context_totals(starts, counts))
    worth.row_levels(
        starts, counts, prior, context_uses, worth.expected_uses(counts), worth.priority(table.context), *costs.of(table), min_count, levels
    )
    return levels


def _links(table: CountTable, shorter: CountTable) -> np.ndarray:
    try:
        return parent_links(table, shorter, np.zeros(0, np.uint8), 0, os.cpu_count() or 1)
    except ValueError as e:
        raise FormatError(f"the model's tables do not belong together: {e}") from None


def word_priors(model: Model) -> np.ndarray:
    """Every word's share of the text: float32 [vocabulary]; even where the model does not count words alone."""
    words = model.vocabulary.size
    out = np.full(words, 1.0 / max(1, words), np.float32)
    if "p" in model.tables:
        table = model.tables["p"]
        out[table.rows] = (table.counts() / max(1, table.total())).astype(np.float32)
    return out


def left_at(levels: np.ndarray) -> np.ndarray:
    """How many of them are left at each level: int64 [HIGHEST + 1], falling."""
    return np.cumsum(np.bincount(levels, minlength=HIGHEST + 1)[::-1])[::-1].copy()
