"""The levels of a whole model (worth.py): of every table's rows and contexts, of every word, and what is left of it at each level."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from charstat.ctw.links import is_exact, parent_links
from charstat.errors import FormatError
from charstat.model import KEPT, Model, ModelWriter
from charstat.ngram.hashing import CHARS
from charstat.ngram.parts import TableParts
from charstat.ngram.table import ROW_SHIFT, CountTable, table_bits
from charstat.ngram.words import Vocabulary, build_trie, vocabulary_words
from charstat.pruning import worth
from charstat.pruning.spans import Scratch, Span, each_span, spans
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
MAX_THREADS = 16
Shape = Callable[[np.ndarray], np.ndarray]
Priors = Callable[[Span, np.ndarray], np.ndarray]
"""p' of every row of a span with these counts: float32."""


class Whole(NamedTuple):
    """What there is of a table before any cut: worth.tally() of its contexts, and of its rows."""

    contexts: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, table: CountTable, threads: int) -> Whole:
        def tally(span: Span) -> tuple[np.ndarray, np.ndarray]:
            counts = span.counts()
            return worth.tally(worth.context_totals(span.starts(), counts)), worth.tally(counts)

        return cls(*(sum(column) for column in zip(*each_span(table, tally, threads), strict=True)))

    def sizes(self) -> dict[str, int]:
        return {"contexts": int(self.contexts.sum()), "rows": int(self.rows.sum())}


class TableLevels(NamedTuple):
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
            _add_left(writer, found, level, ids, shape)

    def narrowed(self, level: int, shape: Shape | None = None) -> ModelLevels:
        """The same levels of a smaller model in memory, of what is left at a level: to look for a higher one among less."""
        vocabulary, ids = self._vocabulary(level)
        writer = ModelWriter(MemoryColumns())
        writer.add(vocabulary)
        writer.add(self.model.classes)
        kept = {}
        for name, found in self.tables.items():
            kept[name] = _add_left(writer, found, level, ids, shape)
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


def _parts(found: TableLevels, level: int) -> Iterator[tuple[np.ndarray, ...]]:
    """What is left of a table, span by span: (starts, identities, symbols or word ids, counts, levels of the rows)."""
    for span in spans(found.table):
        levels, starts, counts = found.levels[span.rows], span.starts(), span.counts()
        left = (np.empty(starts.size, np.uint32), np.empty(starts.size - 1, np.uint64), *np.empty((2, counts.size), np.uint32))
        n, m = worth.keep_rows(starts, span.identities(), span.symbols(), counts, levels, level, *left)
        yield left[0][: n + 1], left[1][:n], left[2][:m], left[3][:m], levels[levels >= level]


def _add_left(writer: ModelWriter, found: TableLevels, level: int, ids: np.ndarray, shape: Shape | None) -> np.ndarray:
    """Add what is left of a table to a writer; returns the levels of its rows. ids: new ids of words."""
    context, kept = found.table.context, [np.empty(0, np.uint16)]
    table = TableParts(writer.columns.append, context, int(found.contexts_at[level]), int(found.rows_at[level]))
    for starts, identities, values, counts, levels in _parts(found, level):
        counts = counts if shape is None else shape(counts)
        if context.is_words:
            sums = np.zeros(counts.size + 1, np.uint32)
            np.cumsum(counts, out=sums[1:])
            table.add(identities, starts, ids[values], sums)
        else:
            table.add(identities, starts, pack_rows(values, counts))
        kept.append(levels)
    writer.tables[context.name] = table.finish()
    return np.concatenate(kept)


def _collect(model: Model, levels: dict[str, np.ndarray], words: np.ndarray, nodes: np.ndarray, threads: int = 1) -> ModelLevels:
    found = {}
    for name, table in model.tables.items():
        own = levels[name]

        def tally(span: Span, own: np.ndarray = own) -> tuple[np.ndarray, np.ndarray]:
            part = own[span.rows]
            return numbers_of(worth.context_levels(span.starts(), part)), numbers_of(part)

        found[name] = TableLevels(table, own, *(left_at(sum(column)) for column in zip(*each_span(table, tally, threads), strict=True)))
    return ModelLevels(model, found, words, left_at(numbers_of(words)), left_at(numbers_of(nodes)))


def pack_rows(symbols: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """table.pack_row() of arrays: uint32."""
    return (counts << ROW_SHIFT) | symbols


def no_words() -> Vocabulary:
    nothing = np.empty(0, np.uint32)
    return Vocabulary(nothing, np.empty(0, np.uint8), nothing, 0)


def weigh(
    model: Model,
    costs: Costs,
    min_count: int = 1,
    tell: Callable[[int, int], None] | None = None,
    scratch: Scratch | None = None,
    threads: int | None = None,
    whole: Mapping[str, Whole] | None = None,
) -> ModelLevels:
    """The levels of a model's rows, contexts and words. min_count: contexts with fewer counts go first. tell: (tables done, tables). whole: of
    tables that such contexts were left out of already.

    scratch: makes the arrays of the work, in memory by default: two bytes a row; of the exact orders, four a context, and eight a row of two
    orders at a time. FormatError for tables that no text has together.
    """
    scratch, threads, whole = scratch or Scratch(), threads or min(MAX_THREADS, os.cpu_count() or 1), whole or {}
    tables = model.tables
    chain = [t for t in tables.values() if t.context.kind == CHARS and is_exact(t)]
    levels: dict[str, np.ndarray] = {}
    parents: dict[str, np.ndarray] = {}

    def weigh_table(table: CountTable, priors: Priors, shares: np.ndarray | None = None) -> None:
        context = table.context
        uses = [worth.expected_uses(tally) for tally in whole.get(context.name) or Whole.of(table, threads)]
        own = levels[context.name] = scratch.empty(table.n_rows, np.uint16)

        def weigh_span(span: Span) -> None:
            starts, counts = span.starts(), span.counts()
            prior = priors(span, counts)
            worth.row_levels(starts, counts, prior, *uses, worth.priority(context), *costs.of(table), min_count, own[span.rows])
            if shares is not None:
                worth.shares(starts, counts, prior, shares[span.rows])

        each_span(table, weigh_span, threads)
        if tell:
            tell(len(levels), len(tables))

    shorter, shorter_shares = None, None
    for table in chain:
        shares = scratch.empty(table.n_rows, np.float32) if table is not chain[-1] else None
        if shorter is None:
            weigh_table(table, _even(model.alphabet.size), shares)
        else:
            links = parents[table.context.name] = _links(table, shorter, scratch, threads)
            weigh_table(table, _from_shorter(links, shorter, shorter_shares), shares)
        shorter, shorter_shares = table, shares
    if chain and chain[0].context.param == 0:
        levels[chain[0].context.name][:] = HIGHEST  # what every stream falls back on
    of_words = word_priors(model)
    for table in tables.values():
        if table.context.name in levels:
            continue
        if not table.context.is_words:
            weigh_table(table, _of_its_own(worth.assumed_share(table.context)))
        elif table.context.param:
            weigh_table(table, lambda span, counts: of_words[span.symbols()])
        else:
            weigh_table(table, _even(max(1, table.n_rows)))
    for table, shorter in zip(chain[:0:-1], chain[-2::-1], strict=True):  # one after another: spans write to the same rows
        links, own, theirs = parents.pop(table.context.name), levels[table.context.name], levels[shorter.context.name]
        for span in spans(table):
            worth.close_orders(
                span.starts(),
                span.symbols(),
                own[span.rows],
                links[span.contexts],
                shorter.start_bits,
                shorter.records,
                shorter.rows,
                theirs,
            )
    words = np.zeros(model.vocabulary.size, np.uint16)
    for name, table in tables.items():
        if table.context.is_words:
            worth.word_levels(table.rows, levels[name], words)
    if "p" in tables:
        levels["p"] = np.maximum(levels["p"], words[tables["p"].rows])
    nodes = np.zeros(model.vocabulary.symbol.size, np.uint16)
    worth.node_levels(model.vocabulary.first_child, model.vocabulary.first_id, words, nodes)
    return _collect(model, levels, words, nodes, threads)


def _even(among: int) -> Priors:
    return lambda span, counts: np.full(counts.size, 1.0 / among, np.float32)


def _from_shorter(links: np.ndarray, shorter: CountTable, shares: np.ndarray) -> Priors:
    def priors(span: Span, counts: np.ndarray) -> np.ndarray:
        out = np.empty(counts.size, np.float32)
        worth.parent_priors(
            span.starts(), span.symbols(), links[span.contexts], shorter.start_bits, shorter.records, shorter.rows, shares, out
        )
        return out

    return priors


def _of_its_own(share: float) -> Priors:
    def priors(span: Span, counts: np.ndarray) -> np.ndarray:
        out = np.empty(counts.size, np.float32)
        worth.own_priors(span.starts(), counts, share, out)
        return out

    return priors


def _links(table: CountTable, shorter: CountTable, scratch: Scratch, threads: int) -> np.ndarray:
    try:
        return parent_links(table, shorter, np.zeros(0, np.uint8), 0, threads, scratch.empty(table.n_contexts, np.uint32))
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


def numbers_of(levels: np.ndarray) -> np.ndarray:
    """How many there are of each level: int64 [HIGHEST + 1]."""
    return np.bincount(levels, minlength=HIGHEST + 1)


def left_at(numbers: np.ndarray) -> np.ndarray:
    """How many are left at each level, of the numbers of each: int64 [HIGHEST + 1], falling."""
    return np.cumsum(numbers[::-1])[::-1].copy()
