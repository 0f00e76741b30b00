"""A model of token ids: the tree of a vocabulary and count tables of its contexts; built, saved, loaded, merged, opened as a stream.

    model = charstat.build_tokens(ids, 2048, token_bytes=pieces, out="models/tokens")
    model = charstat.TokenModel.load("models/tokens")
    nats = model.stream().score(ids)

A directory like a character model's (storage.py), with a manifest of its own kind:

    buckets records rows sums    the tables of all contexts (table.py)
    id_of counts                 the ids by leaf, and how often each id was seen: the tree is made from them (tree.py)
    piece_bytes piece_ends       the bytes of all tokens, one after the other; empty where the model was not told
    start                        what streams begin with, where ids were held out for it (start.py)
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from charstat import __version__
from charstat.arguments import check_call, check_path, check_whole
from charstat.columns import TOKEN_COLUMNS
from charstat.counting import choose_backend, energy_meter
from charstat.errors import ArgumentError, FormatError, MergeError, ResourceError, UserError
from charstat.manifest import MAX_PARTS, TOKEN_MODEL, check_data, check_token_manifest
from charstat.pipeline import Progress
from charstat.storage import DirectoryColumns, check_sums, open_model
from charstat.tokens.contexts import (
    DEFAULT_ORDER,
    MAX_ORDER,
    MAX_VOCAB,
    Pieces,
    TokenContext,
    check_token_bytes,
    describe_pieces,
    no_pieces,
    parse_token_context,
    token_contexts,
)
from charstat.tokens.counting import count_on_cpu, count_on_device, id_bits
from charstat.tokens.cutting import MEASURED_TOKENS, check_cut, cut
from charstat.tokens.layout import TokenLayout
from charstat.tokens.seen import seen_tables
from charstat.tokens.start import TokenStart, start_size
from charstat.tokens.stream import TokenStream, check_ids, learn_start
from charstat.tokens.table import TokenTable, merge_token_tables, table_bits
from charstat.tokens.tree import TokenTree, order_by_bytes, order_by_neighbours, token_tree
from charstat.verify import run_jobs, table_jobs

PLACES = ("bits", "start_bits", "bucket_at", "record_at", "row_at", "sum_at")
MAX_TOKENS = (1 << 31) - (1 << 28)  # counts of a context are int32 in the kernels, a stream's own (128 entries of 2**20) added
START_MAX = 1e4
NOTHING = np.empty(0, np.float32)
KEPT = ("text", "data", "build", "start", "pruned")  # of a manifest, when a model is saved


class TokenModel:
    """Count tables of token ids; see build_tokens and load. ValueError if manifest and columns do not fit each other."""

    def __init__(self, manifest: dict, columns: dict[str, np.ndarray], path: str | None = None):
        self.manifest, self.columns, self.path = manifest, columns, path
        self.vocab_size: int = manifest["vocab_size"]
        self.contexts: tuple[TokenContext, ...] = tuple(parse_token_context(name) for name in manifest["tables"])
        self.token_bytes = self._token_bytes()
        self.pieces: Pieces = no_pieces(self.vocab_size) if self.token_bytes is None else describe_pieces(self.token_bytes)
        if self.contexts != token_contexts(MAX_ORDER, self.token_bytes is not None, [c.name for c in self.contexts]):
            raise ValueError("the contexts are not in their order")  # the kernels take orders to come first
        id_of, counts = columns["id_of"], columns["counts"]
        if id_of.size != self.vocab_size or counts.size != self.vocab_size or not (np.sort(id_of) == np.arange(self.vocab_size)).all():
            raise ValueError("id_of.npy and counts.npy do not describe the vocabulary")
        self.tree: TokenTree = token_tree(id_of, counts)
        self.tables: dict[str, TokenTable] = {c.name: self._table(c) for c in self.contexts}
        self._check_places()
        self.start = self._stored_start()

    def _token_bytes(self) -> list[bytes] | None:
        ends, data = self.columns["piece_ends"].astype(np.int64), self.columns["piece_bytes"]
        if not ends.size and not data.size:
            return None
        if ends.size != self.vocab_size or (np.diff(ends, prepend=0) < 0).any() or ends[-1] != data.size:
            raise ValueError("piece_ends.npy does not divide piece_bytes.npy")
        whole = data.tobytes()
        return [whole[a:b] for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]

    def _table(self, context: TokenContext) -> TokenTable:
        e, width = self.manifest["tables"][context.name], 64 - id_bits(self.vocab_size)
        if (e["bits"], e["start_bits"]) != table_bits(width, e["contexts"], e["rows"]):
            raise ValueError(f"the table {context.name} does not have the bits of {e['contexts']} contexts and {e['rows']} rows")

        def part(column: str, at: int, size: int) -> np.ndarray:
            if at + size > self.columns[column].size:
                raise ValueError(f"the table {context.name} reaches beyond {column}.npy")
            return self.columns[column][at : at + size]

        table = TokenTable(
            context, width, e["bits"], e["start_bits"],
            part("buckets", e["bucket_at"], (1 << e["bits"]) + 1), part("records", e["record_at"], e["contexts"] + 1),
            part("rows", e["row_at"], e["rows"]), part("sums", e["sum_at"], e["rows"] + 1),
        )  # fmt: skip
        if int(table.buckets[0]) != 0 or int(table.buckets[-1]) != e["contexts"] or int(table.records[-1]) != e["rows"]:
            raise ValueError(f"the table {context.name} does not have {e['contexts']} contexts and {e['rows']} rows")
        return table

    def _check_places(self) -> None:
        """ValueError unless the tables fill their columns exactly: kernels do not look for the ends."""
        for column, at, size in (
            ("buckets", "bucket_at", lambda e: (1 << e["bits"]) + 1),
            ("records", "record_at", lambda e: e["contexts"] + 1),
            ("rows", "row_at", lambda e: e["rows"]),
            ("sums", "sum_at", lambda e: e["rows"] + 1),
        ):
            end = 0
            for first, n in sorted((e[at], size(e)) for e in self.manifest["tables"].values()):
                if first != end:
                    raise ValueError(f"the tables do not fill {column}.npy")
                end += n
            if end != self.columns[column].size:
                raise ValueError(f"the tables do not fill {column}.npy")

    def _stored_start(self) -> TokenStart | None:
        about, values = self.manifest.get("start"), self.columns["start"]
        if (about is None) != (values.size == 0):
            raise ValueError("start.npy is not what the manifest says of it")
        return None if about is None else TokenStart(values, about["layout"], about["tokens"])

    @property
    def places(self) -> dict[TokenContext, tuple[int, ...]]:
        """Where each context's table lies in the columns: PLACES."""
        return {c: tuple(self.manifest["tables"][c.name][name] for name in PLACES) for c in self.contexts}

    @property
    def tokens(self) -> int:
        """How many tokens were counted."""
        return int(self.columns["counts"].sum(dtype=np.int64))

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in self.columns.values())

    def stream(self, **options: Any) -> TokenStream:
        """A new stream on this model; options are those of TokenStream."""
        return TokenStream(self, **options)

    @property
    def pruned(self) -> bool:
        """Whether it was cut to a size: its counts are no longer whole."""
        return "pruned" in self.manifest

    def save(self, path: str | os.PathLike, *, max_bytes: int | None = None, min_count: int = 1, held_out: Any = None) -> TokenModel:
        """Write the model as a directory and return it, loaded from there. ResourceError, FormatError: see storage.py.

        max_bytes, min_count: cut it (cutting.py); UserError if nothing fits. held_out: ids that were not counted; the manifest says what the
        cut costs on the first of them.
        """
        about, tables = {k: v for k, v in self.manifest.items() if k in KEPT}, self.tables.values()
        if check_cut(max_bytes, min_count):
            tables, about["pruned"] = cut(self, max_bytes, min_count)
            held = check_ids([] if held_out is None else held_out, self.vocab_size, "held_out")
            if held.size:
                about["pruned"]["held_out"] = cost_in_bits(self, _finish(tables, self.columns | {"start": NOTHING}, {}, None), held)
        return _finish(tables, self.columns, about, path)

    @classmethod
    def load(cls, path: str | os.PathLike, verify: str = "full") -> TokenModel:
        """Memory-map a token model's directory. FormatError says what is wrong with it.

        verify: "full" looks at every value, so that no directory, whoever made it, can crash what is opened on the model; "fast" at the
        manifest, its checksum, and the types and sizes of all files.
        """
        if verify not in ("full", "fast"):
            raise UserError(f"verify is 'full' or 'fast', not {verify!r}")
        manifest, columns = open_model(path, TOKEN_MODEL, TOKEN_COLUMNS)
        try:
            check_token_manifest(manifest)
            model = cls(manifest, columns, str(path))
            if verify == "full":
                model._check_values()
        except (ValueError, KeyError, TypeError) as e:
            raise FormatError(f"{path} is damaged: {e}") from None
        if verify == "full":
            check_sums(path, manifest, columns)
        return model

    @classmethod
    def seen(cls, stream: TokenStream) -> TokenModel:
        """What a stream has seen, counted without decay: the model that build_tokens() counts of these ids, for merge().

        The ids are those since reset(), and its `history` the text before them. StateError if the stream no longer knows all of it: if it forgot
        old contexts (overlay_limit), or met more than 128 different tokens after one context.
        """
        model, tables = stream.model, seen_tables(stream)
        observed = stream.observed_leaves()
        counts = np.bincount(model.columns["id_of"][observed], minlength=model.vocab_size).astype(np.uint32)
        columns = {name: model.columns[name] for name in ("id_of", "piece_bytes", "piece_ends")} | {"counts": counts, "start": NOTHING}
        return _finish(tables, columns, {"text": {"tokens": int(observed.size)}}, None)

    def _check_values(self) -> None:
        """ValueError unless every value is one that the kernels can trust."""
        none = np.zeros(1, np.uint8)
        run_jobs([job for table in self.tables.values() for job in table_jobs(table, table.width, True, none, self.vocab_size)])
        for table in self.tables.values():
            if int(table.sums[-1]) > MAX_TOKENS:
                raise ValueError(f"sums.npy, table {table.context.name}: more tokens than a model can count")
        values = self.columns["start"]
        if values.size and not (np.abs(values) <= START_MAX).all():  # not so for nan either
            raise ValueError("start.npy holds values that no text teaches")

    @classmethod
    def merge(cls, a: TokenModel, b: TokenModel, out: str | os.PathLike | None = None) -> TokenModel:
        """The model whose counts are the sums of both: of two shards of a text, exactly the model of the whole.

        The second shard is built with history= (the ids before it; contexts of words look back three words, at most), and, where the bytes
        of the tokens are not known, with like= (the first), so that their leaves have one order. A warm start is not kept: the other part
        may have counted its ids. MergeError if the models do not fit.
        """
        for model in (a, b):
            if not isinstance(model, TokenModel):
                raise MergeError(f"token models are what can be merged here, not {type(model).__name__}")
        if a.vocab_size != b.vocab_size or a.token_bytes != b.token_bytes:
            raise MergeError("the models have different vocabularies")
        if a.contexts != b.contexts:
            names = {c.name for c in a.contexts} ^ {c.name for c in b.contexts}
            raise MergeError(f"the models have different contexts: {', '.join(sorted(names))}")
        if not np.array_equal(a.columns["id_of"], b.columns["id_of"]):
            raise MergeError("the leaves of the models have different orders: build one shard with build_tokens(..., like=the other)")
        if a.pruned or b.pruned:
            raise MergeError("a model that was cut to a size cannot be merged: its counts are not whole")
        if a.tokens + b.tokens > MAX_TOKENS:
            raise MergeError(f"the sum would count {a.tokens + b.tokens:,} tokens: tables have room for {MAX_TOKENS:,}")
        tables = (merge_token_tables(table, b.tables[name]) for name, table in a.tables.items())
        columns = {name: a.columns[name] for name in ("id_of", "piece_bytes", "piece_ends")}
        columns |= {"counts": a.columns["counts"] + b.columns["counts"], "start": np.empty(0, np.float32)}
        parts = [part for m in (a, b) for part in (m.manifest.get("text") or {}).get("parts", [m.manifest.get("text") or {}])]
        builds = [one for m in (a, b) for one in (m.manifest.get("build") or {}).get("merged", [m.manifest.get("build")])]
        about = {"text": {"tokens": a.tokens + b.tokens, "parts": parts[:MAX_PARTS]}, "build": {"merged": builds[:MAX_PARTS]}}
        return _finish(tables, columns, about, out)


def cost_in_bits(before: TokenModel, after: TokenModel, ids: np.ndarray) -> dict[str, Any]:
    """Bits per token of the first MEASURED_TOKENS ids, by streams of two models without warm starts."""
    ids, bits = ids[:MEASURED_TOKENS], []
    for model in (before, after):
        stream = model.stream(warm_start=False)
        stream.reset()
        bits.append(float(stream.score(ids).mean() / math.log(2)))
    return {"tokens": ids.size, "before": bits[0], "after": bits[1]}


def _finish(
    tables: Iterable[TokenTable], columns: dict[str, np.ndarray], about: dict | Callable[[], dict], out: str | os.PathLike | None
) -> TokenModel:
    """The model of these tables, in memory or in its directory. columns: those that are not of tables. about: of the manifest; a function is
    called once there are all tables."""
    writer = _Parts() if out is None else DirectoryColumns(check_path(out, "out"), TOKEN_MODEL, TOKEN_COLUMNS)
    try:
        entries = {}
        for t in tables:
            entries[t.context.name] = {
                "bits": t.bits, "start_bits": t.start_bits, "contexts": t.n_contexts, "rows": t.n_rows,
                "bucket_at": writer.append("buckets", t.buckets), "record_at": writer.append("records", t.records),
                "row_at": writer.append("rows", t.rows), "sum_at": writer.append("sums", t.sums),
            }  # fmt: skip
        for name in ("id_of", "counts", "piece_bytes", "piece_ends", "start"):
            writer.append(name, columns[name])
        more = about() if callable(about) else about
        facts = {"charstat_version": __version__, "vocab_size": columns["id_of"].size, "tables": entries, **more}
        if isinstance(writer, _Parts):
            return TokenModel(facts, writer.finish())
        return TokenModel(*writer.commit(facts), str(out))
    finally:
        if isinstance(writer, DirectoryColumns):
            writer.discard()


class _Parts:
    """Columns in memory: parts that finish() joins."""

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in TOKEN_COLUMNS}

    def append(self, column: str, values: np.ndarray) -> int:
        at = sum(part.size for part in self._parts[column])
        self._parts[column].append(np.asarray(values, TOKEN_COLUMNS[column]))
        return at

    def finish(self) -> dict[str, np.ndarray]:
        """All columns, read-only. A column's parts are freed when they are joined."""
        columns = {}
        for name, dtype in TOKEN_COLUMNS.items():
            parts = self._parts.pop(name)
            columns[name] = np.concatenate(parts) if parts else np.empty(0, dtype)
            columns[name].setflags(write=False)
        return columns


def build_tokens(
    ids: Any,
    vocab_size: int,
    *,
    order: int = DEFAULT_ORDER,
    contexts: Sequence[str] | str | None = None,
    token_bytes: Sequence[bytes] | None = None,
    history: Any = None,
    like: TokenModel | None = None,
    held_out: int = 0,
    backend: str = "auto",
    threads: int | None = None,
    memory_bytes: int | None = None,
    max_bytes: int | None = None,
    min_count: int = 1,
    out: str | os.PathLike | None = None,
    data: dict | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TokenModel:
    """Count token ids and return the model; with `out`, written there as a model directory and memory-mapped.

    ids: whole numbers from 0 to vocab_size - 1, [n], of any type; bytes are ids, too, with vocab_size=256. vocab_size: 2 to 65,536. order:
    the longest context of tokens, 1 to 16 (shorter ones: contexts.ORDERS); contexts: which to count instead, all of 1 .. 8 for example.
    token_bytes: the bytes of every token, for contexts of words and for the order of the tree's leaves; without them, leaves are ordered by
    their neighbours. history: ids before these, context only (for shards). like: a model of the same vocabulary whose leaves are in the
    order wanted (for shards without token_bytes). held_out: how many ids at the end are not counted; streams begin with what is learned
    from them. backend, threads, memory_bytes: as in build_model. max_bytes, min_count: cut the model after counting, as TokenModel.save
    does. data: a description for the manifest. progress: called with a Progress.

    ArgumentError for ids outside the vocabulary and other impossible arguments; ContextError; BackendUnavailable; ResourceError if the
    disk is full.
    """
    vocab_size = check_whole(vocab_size, "vocab_size", 2, MAX_VOCAB)
    order = check_whole(order, "order", 1, MAX_ORDER)
    check_call(progress, "progress")
    check_data(data)
    ids, before = check_ids(ids, vocab_size), check_ids([] if history is None else history, vocab_size, "history")
    if like is not None and (not isinstance(like, TokenModel) or like.vocab_size != vocab_size):
        raise ArgumentError("like must be a TokenModel of the same vocabulary")
    pieces_of = token_bytes if token_bytes is not None or like is None else like.token_bytes
    names = None if pieces_of is None else check_token_bytes(pieces_of, vocab_size)
    held_out = check_whole(held_out, "held_out", 0)
    if held_out >= ids.size:
        raise ArgumentError(
            f"cannot hold {held_out:,} tokens out of {ids.size:,}: nothing would be left to count"
            if ids.size
            else "there are no ids to count"
        )
    counted, held = ids[: ids.size - held_out], ids[ids.size - held_out :]
    if counted.size + before.size > MAX_TOKENS:
        raise ResourceError(f"there are {counted.size:,} tokens; the tables hold {MAX_TOKENS:,} at most: build shards and merge them")
    chosen = token_contexts(order, names is not None, contexts)
    engine, why = choose_backend(backend, threads, memory_bytes, 2 * ids.size)
    cuts = check_cut(max_bytes, min_count)
    started, steps, meter = time.perf_counter(), len(chosen) + 1 + cuts + bool(held_out), energy_meter(engine)

    def tell(phase: str, done: int) -> None:
        if progress:
            progress(Progress(phase, done, steps))

    counts = np.bincount(counted, minlength=vocab_size).astype(np.uint32)
    if like is not None:
        id_of = like.columns["id_of"]
    elif names is not None:
        id_of = order_by_bytes(names)
    else:
        id_of = order_by_neighbours(counted, counts, engine.threads)
    tree, pieces = token_tree(id_of, counts), no_pieces(vocab_size) if names is None else describe_pieces(names)
    all_ids = np.concatenate([before, counted]) if before.size else counted
    if engine.name == "gpu":
        found = count_on_device(engine.arrays, all_ids, before.size, chosen, tree.leaf_of, pieces, meter.phase)
    else:
        found = count_on_cpu(all_ids, before.size, chosen, tree.leaf_of, pieces, engine.threads, engine.budget_bytes, meter.phase)

    def counted_tables() -> Iterable[TokenTable]:
        for i, table in enumerate(found):
            tell(table.context.name, i + 1)
            yield table

    ends = np.cumsum([len(piece) for piece in names or []], dtype=np.uint32)
    columns = {
        "id_of": id_of, "counts": counts, "piece_bytes": np.frombuffer(b"".join(names or []), np.uint8), "piece_ends": ends,
        "start": np.empty(0, np.float32),
    }  # fmt: skip
    tell("tables", 0)
    about = {"text": {"tokens": counted.size, "sha256": hashlib.sha256(counted.tobytes()).hexdigest(), "history_tokens": before.size}}
    if data is not None:
        about["data"] = data
    about["build"] = {"backend": engine.name, "device": engine.device, "reason": why, "notes": list(getattr(engine, "notes", []))}
    with ExitStack() as measured:  # subtle: tables are counted as they are asked for, so that only one is held at a time
        measured.enter_context(meter)

        def facts() -> dict:
            measured.close()
            energy = meter.report()
            about["build"] |= {"seconds": time.perf_counter() - started, "phases": energy.phases, "energy": energy.to_dict()}
            return about

        tables: Iterable[TokenTable] = counted_tables()
        if held_out or cuts:
            model = _finish(tables, columns, {}, None)
            tables = model.tables.values()
        if cuts:
            later = 4 * start_size(TokenLayout(chosen, vocab_size)) if held_out else 0
            with meter.phase("prune"):
                tables, about["pruned"] = cut(model, max_bytes, min_count, later)
                whole, model = model, _finish(tables, columns, {}, None)
                if held_out:
                    about["pruned"]["held_out"] = cost_in_bits(whole, model, held)
                del whole
            tell("prune", len(chosen) + 1)
        if held_out:
            with meter.phase("learn"):
                start = learn_start(model, held)
            columns["start"], about["start"] = start.values, {"tokens": start.tokens, "layout": start.layout}
            tell("learn", steps)
        return _finish(tables, columns, facts, out)
