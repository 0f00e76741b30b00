"""What predicts a compressed file: a built model, or a model without counts that learns everything from the file itself.

    with a model     the file is small, and needs the same model to be read
    text             characters, with the 127 most frequent ones as symbols (the alphabet is in the header) and all contexts
    bytes            every byte as two symbols, its high and its low half, 16 of each; character orders and sparse contexts only

Bytes are two symbols because a model has 127 symbols of its own and escapes are all alike to its contexts: 256 values in 127 symbols
would blind it where binary files differ most. Bytes that are not UTF-8 are characters, too (U+DC80 .. U+DCFF, Python's surrogateescape), so
that text with a few of them stays text, and so does text in another one-byte encoding.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from charstat import __version__
from charstat.alphabet import Alphabet
from charstat.codec.container import BYTES, TEXT, WITH_MODEL, Header
from charstat.errors import FormatError, UserError
from charstat.model import Model, ModelWriter
from charstat.ngram.contexts import Context, check_order, select_contexts
from charstat.ngram.table import empty_table
from charstat.storage import MemoryColumns, array_sha256
from charstat.tree import CodeTree

TEXT_ORDER, BYTES_ORDER = 14, 14  # highest character order of a model without counts; of bytes: of their halves
TEXT_CONTEXTS, BYTES_CONTEXTS = "plain", "chars"  # nothing is counted, so no word has a class
TABLE_PARTS = ("buckets", "records", "rows", "sums")
NOT_MIXED = (*TABLE_PARTS, "betas")  # columns that are checked table by table, or that the mixture does not read
NAME_BYTES = 64  # of a model's name in a header


@dataclass(frozen=True)
class Source:
    """A mode, a model to predict with, and what the header says about them."""

    mode: int
    model: Model
    checksum: bytes = b""
    name: str = ""
    order: int = 0

    def header(self, engine: int) -> Header:
        alphabet = self.model.alphabet if self.mode == TEXT else None
        return Header(self.mode, __version__, engine, self.checksum, self.name, self.order, alphabet)


def source_with(model: Model) -> Source:
    """For texts that are read with the same model. UserError for a model of bytes."""
    if model.alphabet.of_bytes:
        raise UserError("a model of bytes cannot compress yet: without a model, any file can be compressed, as bytes if it is no text")
    name = (model.path or "").rstrip("/").rpartition("/")[2].encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", "ignore")
    return Source(WITH_MODEL, model, model_checksum(model), name)


def source_of_text(alphabet: Alphabet, order: int | None = None) -> Source:
    """For a text of this alphabet, without counts. ContextError for an order that does not exist."""
    order = check_order(TEXT_ORDER if order is None else order)
    return Source(TEXT, empty_model(alphabet, select_contexts(TEXT_CONTEXTS, order)), order=order)


def source_of_bytes(order: int | None = None) -> Source:
    """For any bytes, without counts. order: in halves of bytes."""
    order = check_order(BYTES_ORDER if order is None else order)
    return Source(BYTES, empty_model(HALVES, select_contexts(BYTES_CONTEXTS, order)), order=order)


def source_for(header: Header, model: Model | None) -> Source:
    """What decodes a file with this header. UserError if it needs a model and none was given, or another one."""
    if header.mode == WITH_MODEL:
        wanted = f"the model {header.name}".rstrip() + f" (checksum {header.checksum.hex()})"
        if model is None:
            raise UserError(f"compressed with {wanted}: name its directory with --model")
        source = source_with(model)
        if source.checksum != header.checksum:
            raise UserError(f"compressed with {wanted}, not with {source.name or 'this one'} ({source.checksum.hex()})")
        return source
    return source_of_text(header.alphabet, header.order) if header.mode == TEXT else source_of_bytes(header.order)


def check_engine(header: Header, engine: int) -> None:
    """FormatError if the file was written by a mixture with other numbers."""
    if header.engine != engine:
        raise FormatError(
            f"compressed by charstat {header.version} with another mixture than that of this charstat {__version__} (engine "
            f"{header.engine:08x}, here {engine:08x}): decompress it with the version that wrote it"
        )


def model_checksum(model: Model) -> bytes:
    """16 bytes that two models share only if the mixture predicts the same with both, in memory or wherever they lie on disk.

    Reads all of the model: a second a gigabyte.
    """
    start = (model.manifest.get("start") or {}).get("layout")
    about = [model.alphabet.to_dict(), [c.name for c in model.contexts], model.warm_start_chars, start]
    parts = {name: [values] for name, values in model.all_columns.items() if name not in NOT_MIXED}
    for name in TABLE_PARTS:  # subtle: not the columns, in which the tables lie in whatever order they were counted
        parts[name] = [part for table in model.tables.values() if (part := getattr(table, name)) is not None]
    with ThreadPoolExecutor() as pool:
        sums = list(pool.map(lambda name: array_sha256(*parts[name]), sorted(parts)))
    return hashlib.sha256(json.dumps([about, sums], sort_keys=True).encode()).digest()[:16]


def empty_model(alphabet: Alphabet, contexts: tuple[Context, ...]) -> Model:
    """A model that has counted nothing."""
    writer = ModelWriter(MemoryColumns())
    for context in contexts:
        writer.add(empty_table(context))
    return writer.finish(alphabet, contexts, {})


def _halves() -> Alphabet:
    """High halves of bytes are the symbols 0..15 ("A".."P"), low halves 16..31 ("a".."p"); four decisions each below the first."""

    def balanced(leaves: list) -> object:
        half = len(leaves) // 2
        return (balanced(leaves[:half]), balanced(leaves[half:])) if half else leaves[0]

    high, low = ([chr(ord(first) + i) for i in range(16)] for first in "Aa")
    return Alphabet("".join(high + low), CodeTree.from_pairs((balanced(high), balanced([*low[:-1], (low[-1], "escape")]))))


HALVES = _halves()


def halves_of(data: bytes) -> np.ndarray:
    """The symbols of bytes: uint8 [2 n]."""
    values = np.frombuffer(data, np.uint8)
    halves = np.empty((values.size, 2), np.uint8)
    halves[:, 0], halves[:, 1] = values >> 4, 16 + (values & 15)
    return halves.ravel()


def bytes_of(halves: np.ndarray) -> bytes:
    """The inverse of halves_of(). FormatError if these are no halves of bytes."""
    pairs = halves[: halves.size // 2 * 2].reshape(-1, 2)
    if halves.size % 2 or (pairs[:, 0] > 15).any() or (pairs[:, 1] < 16).any() or (pairs[:, 1] > 31).any():
        raise FormatError("its halves do not make bytes")
    return (pairs[:, 0] << 4 | pairs[:, 1] - 16).astype(np.uint8).tobytes()
