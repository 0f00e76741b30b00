"""A built model: an alphabet, count tables, and a report of the build; saved, loaded, merged, and opened as a stream.

    model = build_model(text, order=8)         counting.py
    model.save("models/wiki"); model = Model.load("models/wiki")
    stream = model.stream()                    the mixture, a CharModel: reset, predict, observe
    stream = model.char_model("ctw")           a model of registry.py by name; without a name the one it was built for

Building and merging happen in memory or straight into a directory (storage.py); a loaded model is memory-mapped. A Model is data: it
knows none of the predictors that read it, and asks the registry to open one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from charstat import __version__
from charstat.alphabet import Alphabet
from charstat.arguments import check_path
from charstat.columns import CLASS_COLUMNS, TABLE_COLUMNS
from charstat.errors import ContextError, FormatError, MergeError, UserError
from charstat.manifest import MAX_WORDS, check_manifest
from charstat.merging import check_pair, merged_info, merged_parts
from charstat.ngram.classes import WordClasses
from charstat.ngram.contexts import Context, context_rank, parse_context
from charstat.ngram.hashing import CHARS
from charstat.ngram.table import CountTable, table_bits
from charstat.ngram.words import Vocabulary
from charstat.storage import DirectoryColumns, MemoryColumns, check_sums, open_model

if TYPE_CHECKING:
    from charstat.charmodel_api import CharModel

Columns = MemoryColumns | DirectoryColumns
KEPT = ("text", "data", "order", "preset", "build", "models", "ctw", "start", "pruned")  # of a manifest, when a model is saved
NOTHING = np.empty(0, np.float32)
START_VALUES = 1 << 24  # of a start, at most: a mixture of all contexts has fewer
START_MAX = 1e4  # of the weights and logits of a start, in absolute value; texts teach values up to some 10


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a context tree that a model was built with: see ctw/weights.py.

    levels: {context name: (start, size)} in Model.betas, for every character order but the highest, rising.
    """

    alpha: float
    levels: dict[str, tuple[int, int]]

    @classmethod
    def from_manifest(cls, entry: dict | None, tables: dict[str, CountTable], size: int) -> StoredWeights | None:
        """What the manifest says about `size` betas; None if there are none. ValueError, KeyError or TypeError unless it fits the tables."""
        if entry is None:
            if size:
                raise ValueError("betas.npy is not empty")
            return None
        chain = sorted((t for t in tables.values() if t.context.kind == CHARS), key=lambda t: t.context.param)[:-1]
        levels = {t.context.name: (int(entry["levels"][t.context.name][0]), 3 * t.n_rows - 2 * t.n_contexts) for t in chain}
        if entry["levels"] != {name: list(place) for name, place in levels.items()}:
            raise ValueError("the levels of ctw are not those of the tables")
        end = 0
        for at, n in sorted(levels.values()):
            if at != end:
                raise ValueError("the levels of ctw do not fill betas.npy")
            end += n
        alpha = entry["alpha"]
        if end != size or not isinstance(alpha, float) or not 0.0 < alpha < math.inf:
            raise ValueError("ctw does not describe betas.npy")
        return cls(alpha, levels)


class ModelWriter:
    """Collects the tables of a model as they are counted, in any order."""

    def __init__(self, columns: Columns):
        self.columns = columns
        self.tables: dict[str, dict] = {}
        self._levels: dict[str, list[int]] = {}
        self.words = 0

    def add(self, part: CountTable | Vocabulary | WordClasses) -> None:
        if isinstance(part, WordClasses):
            for name, values in zip(CLASS_COLUMNS, part, strict=True):
                self.columns.append(name, values.ravel())
            return
        if isinstance(part, Vocabulary):
            if part.size == 0:  # a text without separators: no words, no trie
                return
            self.words = part.size
            for name, values in (("first_child", part.first_child), ("trie_symbol", part.symbol), ("first_id", part.first_id)):
                self.columns.append(name, values)
            return
        self.tables[part.context.name] = {
            "bits": part.bits,
            "start_bits": part.start_bits,
            "contexts": part.n_contexts,
            "rows": part.n_rows,
            "bucket_at": self.columns.append("buckets", part.buckets),
            "record_at": self.columns.append("records", part.records),
            "row_at": self.columns.append("rows", part.rows),
            "sum_at": 0 if part.sums is None else self.columns.append("sums", part.sums),
        }

    def add_weights(self, name: str, betas: np.ndarray) -> None:
        """The betas of a context's level of the context tree: float32."""
        self._levels[name] = [self.columns.append("betas", betas), betas.size]

    def read_table(self, context: Context) -> CountTable:
        """The table of a character context that was added, read back where it is on disk."""
        e, read = self.tables[context.name], self.columns.read
        buckets = read("buckets", e["bucket_at"], (1 << e["bits"]) + 1)
        records, rows = read("records", e["record_at"], e["contexts"] + 1), read("rows", e["row_at"], e["rows"])
        return CountTable(context, e["bits"], e["start_bits"], buckets, records, rows)

    def add_start(self, values: np.ndarray) -> None:
        """What the mixture begins with (mixers/warm_start.py): float32."""
        self.columns.append("start", values)

    def preview(self, alphabet: Alphabet, contexts: Iterable[Context]) -> Model:
        """The model of what was added so far, to learn a warm start with; it holds until anything but that is added, or finish() is called."""
        return Model(self._manifest(alphabet, contexts, {}), {**self.columns.view(), "betas": NOTHING, "start": NOTHING})

    def _manifest(self, alphabet: Alphabet, contexts: Iterable[Context], info: dict) -> dict:
        return {
            "charstat_version": __version__,
            "alphabet": alphabet.to_dict(),
            "tables": {c.name: self.tables[c.name] for c in contexts},
            "words": self.words,
            **info,
        }

    def finish(self, alphabet: Alphabet, contexts: Iterable[Context], info: dict) -> Model:
        """The model. info goes into the manifest: text, data, order, build, models, start, alpha of weights. A directory
        is put in place."""
        manifest = self._manifest(alphabet, contexts, info)
        if "ctw" in info:
            manifest["ctw"] = {**info["ctw"], "levels": self._levels}
        if hasattr(self.columns, "commit"):  # of a directory
            return Model(*self.columns.commit(manifest), str(self.columns.path))
        return Model(manifest, self.columns.finish())


@dataclass(frozen=True)
class Model:
    """A built model. manifest: as in manifest.json; columns: the concatenated arrays of all tables (columns.TABLE_COLUMNS).

    classes: of words, with topics; of no words where no context looks at them. betas: the weights of a context tree, if it was built
    with them, described by `weights` (None without). warm_start: what the mixture begins with, learned from warm_start_chars characters
    that were not counted (mixers/warm_start.py); empty and 0 without.
    """

    manifest: dict = field(repr=False)
    columns: dict[str, np.ndarray] = field(repr=False)
    path: str | None = None

    def __post_init__(self) -> None:
        betas, start = self.columns["betas"], self.columns["start"]
        flat = [self.columns[name] for name in CLASS_COLUMNS]
        object.__setattr__(self, "arrays", self.columns)
        object.__setattr__(self, "columns", {name: self.columns[name] for name in TABLE_COLUMNS})
        try:
            check_manifest(self.manifest)
            alphabet = Alphabet.from_dict(self.manifest["alphabet"])
            tables = {name: self._table(parse_context(name), entry) for name, entry in self.manifest["tables"].items()}
            c, words = self.columns, int(self.manifest["words"])
            vocabulary = Vocabulary(c["first_child"], c["trie_symbol"], c["first_id"], words)
            self._check_places(words)
            if flat[0].size > MAX_WORDS:
                raise ValueError("more word classes than a vocabulary has words")
            classes = WordClasses.from_flat(*flat)
            weights = StoredWeights.from_manifest(self.manifest.get("ctw"), tables, betas.size)
            models = self.manifest.get("models", ["mix"])
            start_chars = (self.manifest.get("start") or {"chars": 0})["chars"]
            if bool(start_chars) != bool(start.size) or start.size > START_VALUES:
                raise ValueError("start does not describe start.npy")
            if not (np.abs(start) <= START_MAX).all():  # not so for nan either
                raise ValueError("start.npy holds values that no mixture learns")
            contexts = [t.context for t in tables.values()]
            if len({(c.kind, c.param) for c in contexts}) != len(contexts) or contexts != sorted(contexts, key=context_rank):
                raise ValueError("the tables are not in the order of their contexts, or one is there twice")
            order = max((c.param for c in contexts if c.kind == CHARS), default=0)
            if order != self.manifest.get("order", order):
                raise ValueError(f"order is not that of the tables, {order}")
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise FormatError(f"the manifest of {self.path or 'the model'} is damaged: {type(e).__name__}: {e}") from e
        values = {
            "alphabet": alphabet,
            "tables": tables,
            "vocabulary": vocabulary,
            "classes": classes,
            "weights": weights,
            "betas": betas,
            "models": tuple(models),
            "warm_start": start,
            "warm_start_chars": start_chars,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    arrays: dict[str, np.ndarray] = field(init=False, repr=False)  # all that the directory holds: storage.COLUMNS
    alphabet: Alphabet = field(init=False)
    tables: dict[str, CountTable] = field(init=False, repr=False)
    vocabulary: Vocabulary = field(init=False, repr=False)
    classes: WordClasses = field(init=False, repr=False)
    weights: StoredWeights | None = field(init=False, repr=False)
    betas: np.ndarray = field(init=False, repr=False)
    models: tuple[str, ...] = field(init=False)
    warm_start: np.ndarray = field(init=False, repr=False)
    warm_start_chars: int = field(init=False)

    @property
    def start(self) -> np.ndarray:
        """The former name of warm_start; the next version will not have it."""
        return self.warm_start

    @property
    def start_chars(self) -> int:
        """The former name of warm_start_chars; the next version will not have it."""
        return self.warm_start_chars

    def _table(self, context: Context, entry: dict) -> CountTable:
        c, n, m, bits = self.columns, entry["contexts"], entry["rows"], entry["bits"]

        def part(column: str, at: int, size: int) -> np.ndarray:
            if at < 0 or at + size > c[column].size:
                raise ValueError(f"the table {context.name} reaches beyond {column}.npy")
            return c[column][at : at + size]

        if (bits, entry["start_bits"]) != table_bits(context, n, m):
            raise ValueError(f"the table {context.name} does not have the bits of {n} contexts and {m} rows")
        if context.is_words and context.param == 0 and n > 1:
            raise ValueError("the table p has more contexts than the one that there is")
        table = CountTable(
            context,
            bits,
            entry["start_bits"],
            part("buckets", entry["bucket_at"], (1 << bits) + 1),
            part("records", entry["record_at"], n + 1),
            part("rows", entry["row_at"], m),
            part("sums", entry["sum_at"], m + 1) if context.is_words else None,
        )
        if int(table.buckets[0]) != 0 or int(table.buckets[-1]) != n or int(table.records[-1]) != m:
            raise ValueError(f"the table {context.name} does not have {n} contexts and {m} rows")
        return table

    def _check_places(self, words: int) -> None:
        """ValueError unless the tables fill the columns exactly and the trie is one: kernels do not look for the ends."""
        entries = {parse_context(name): e for name, e in self.manifest["tables"].items()}
        places: dict[str, list[tuple[int, int]]] = {
            "buckets": [(e["bucket_at"], (1 << e["bits"]) + 1) for e in entries.values()],
            "records": [(e["record_at"], e["contexts"] + 1) for e in entries.values()],
            "rows": [(e["row_at"], e["rows"]) for e in entries.values()],
            "sums": [(e["sum_at"], e["rows"] + 1) for c, e in entries.items() if c.is_words],
        }
        for column, parts in places.items():
            end = 0
            for at, size in sorted(parts):
                if at != end:
                    raise ValueError(f"the tables do not fill {column}.npy")
                end += size
            if end != self.columns[column].size:
                raise ValueError(f"the tables do not fill {column}.npy")
        first_child, nodes = self.columns["first_child"], self.columns["trie_symbol"].size
        sizes = (first_child.size, self.columns["first_id"].size)
        if sizes != ((nodes + 1, nodes) if nodes else (0, 0)) or np.count_nonzero(first_child[1:] == first_child[:-1]) != words:
            raise ValueError(f"the trie does not have {words} words")

    @property
    def contexts(self) -> tuple[Context, ...]:
        """The model's contexts, in the order of its tables."""
        return tuple(t.context for t in self.tables.values())

    @property
    def all_columns(self) -> dict[str, np.ndarray]:
        """Every stored array, flat, by its name in columns.COLUMNS: what Model() takes, in a dictionary of its own."""
        return dict(self.arrays)

    @property
    def n_rows(self) -> int:
        return sum(t.n_rows for t in self.tables.values())

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in self.arrays.values())

    @property
    def order(self) -> int:
        """The highest character order; 0 without any."""
        return max((c.param for c in self.contexts if c.kind == CHARS), default=0)

    @property
    def pruned(self) -> bool:
        """Whether it was cut to a size: its counts are no longer whole."""
        return "pruned" in self.manifest

    def require_all_counts(self, reader: str) -> None:
        """ContextError for a pruned model. reader: who needs every context that was counted."""
        if self.pruned:
            raise ContextError(
                f"{reader} needs all counts, and this model was cut to a size: open mix, ppm, ppmc, ppm-inherit or match, or build it "
                "without max_bytes and min_count"
            )

    def char_model(self, name: str | None = None, **options) -> CharModel:
        """A new CharModel on this model: the one of that name in the registry, by default the first that it was built for.

        options: those of the CharModel's class. ContextError if none has that name, or if it needs a context that this model lacks.
        """
        from charstat.registry import open_model  # the one arrow up: all that the data knows of what reads it

        return open_model(self, self.models[0] if name is None else name, **options)

    def stream(self, **options) -> CharModel:
        """A new mixture on this model; options are those of mixers.mixture.Mixture."""
        return self.char_model("mix", **options)

    def save(self, path: str | os.PathLike, *, max_bytes: int | None = None, min_count: int = 1, packed: bool | None = None) -> Model:
        """Write the model as a directory and return it, loaded from there. ResourceError, FormatError: see storage.py.

        max_bytes, min_count: cut it to a size; packed: all arrays in one file, decoded when it is loaded. See pruning.cut.prune.
        """
        if max_bytes is not None or min_count != 1 or packed:
            from charstat.registry import save_cut

            return save_cut(self, path, max_bytes, min_count, packed)
        columns = DirectoryColumns(path)
        try:
            writer = ModelWriter(columns)
            writer.add(self.vocabulary)
            writer.add(self.classes)
            for table in self.tables.values():
                writer.add(table)
            for name, (at, size) in sorted(self.weights.levels.items(), key=lambda level: level[1]) if self.weights else ():
                writer.add_weights(name, self.betas[at : at + size])
            if self.warm_start_chars:
                writer.add_start(self.warm_start)
            keep = {k: v for k, v in self.manifest.items() if k in KEPT}
            return writer.finish(self.alphabet, self.contexts, keep)
        finally:
            columns.discard()

    @classmethod
    def load(cls, path: str | os.PathLike, verify: str | bool = "full") -> Model:
        """Memory-map a model directory. FormatError says what is wrong with it.

        verify: "full" checks every value; after that, no directory, whoever made it, can crash or hang what is opened on the model. It
        reads all arrays twice, once for what the kernels rely on (verify.py) and once for the checksums. "fast" checks the manifest, its
        checksum, and the types and sizes of all files: use it for directories that nobody else can have changed. (True and False, as in
        earlier versions, mean "full" and "fast".)
        """
        level = {True: "full", False: "fast"}.get(verify, verify) if isinstance(verify, bool | str) else None
        if level not in ("full", "fast"):
            raise UserError(f"verify is 'full' or 'fast', not {verify!r}")
        manifest, columns = open_model(path)
        model = cls(manifest, columns, str(path))
        if level == "full":
            from charstat.verify import check_arrays

            try:  # before the checksums, because it ends at the first bad value
                check_arrays(model.alphabet.size, model.vocabulary, model.tables.values(), model.betas)
            except ValueError as e:
                raise FormatError(f"{path} is damaged: {e}") from None
            check_sums(path, manifest, columns)
        return model

    def __reduce__(self) -> tuple:
        """Pickled as its path and a checksum of its manifest, which has those of all arrays; a model in memory, with its arrays."""
        if self.path is None:
            return _from_memory, (self.manifest, self.arrays)
        return _loaded_again, (os.path.abspath(self.path), manifest_digest(self.manifest))

    @classmethod
    def merge(cls, a: Model, b: Model, out: str | os.PathLike | None = None) -> Model:
        """The model whose counts are the sums of both: of two shards of a text, exactly the model of the whole text (merging.py).

        Both must have one alphabet, the same contexts and, if they have any, the same word classes: build shards with alphabet= and
        classes=. Give a shard the text before it as history=, so that the n-grams and words across its start are counted, once;
        without it, those few are missing. Weights of a context tree and the warm start are not kept. MergeError if the models do not fit.
        """
        for model in (a, b):
            if not isinstance(model, Model):
                raise MergeError(f"only models can be merged, not {type(model).__name__}")
        if out is not None:
            check_path(out, "out")
        check_pair(a, b)
        columns = MemoryColumns() if out is None else DirectoryColumns(out)
        try:
            writer = ModelWriter(columns)
            for part in merged_parts(a, b):
                writer.add(part)
            return writer.finish(a.alphabet, a.contexts, merged_info(a, b))
        finally:
            if isinstance(columns, DirectoryColumns):
                columns.discard()


def manifest_digest(manifest: dict) -> str:
    """SHA-256 of a manifest."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _from_memory(manifest: dict, arrays: dict[str, np.ndarray]) -> Model:
    """The model of a pickle that holds its arrays."""
    for array in arrays.values():
        array.setflags(write=False)
    return Model(manifest, arrays)


def _loaded_again(path: str, digest: str) -> Model:
    """The model of a pickle. FormatError if another one is there by now, or none."""
    model = Model.load(path, verify="fast")
    if manifest_digest(model.manifest) != digest:
        raise FormatError(
            f"the model at {path} is not the one that was pickled: it was built again, or changed; restore it, or make the stream anew"
        )
    return model
