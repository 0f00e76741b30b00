"""A packed model: every array of a model directory in one file, which is decoded into memory when the model is loaded.

    lengths     uint64, little-endian, of the parts that follow: as many as there are tables, and two more
    arrays      LZMA, byte planes of all arrays that are not of tables or of the vocabulary (in columns.COLUMNS' order)
    trie        the vocabulary, by trie.py
    tables      p first, because the others name words by their rank in it; then in the manifest's order, by tables.py

What is decoded is what was packed, array by array: the manifest has the checksums of the decoded arrays. coarse() makes counts cheaper
before: it changes the model, so that a model cut to a size says so (`pruned` in the manifest).
"""

from __future__ import annotations

import lzma
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from charstat.columns import COLUMNS, TABLE_COLUMNS
from charstat.ngram.contexts import parse_context
from charstat.ngram.table import CountTable
from charstat.ngram.words import Vocabulary
from charstat.packing.tables import pack_table, unpack_table
from charstat.packing.trie import pack_trie, unpack_trie

OTHERS = tuple(name for name in COLUMNS if name not in TABLE_COLUMNS)
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
EXACT_COUNTS = 16  # counts below are kept; above, two bits after the leading one
MOST_PER_BYTE = 4096  # values that a packed byte can stand for; more is no model
MANTISSA = np.uint32(0xFFFFF000)  # of a float32: 11 bits are left


def coarse(counts: np.ndarray) -> np.ndarray:
    """Counts rounded down to four steps a doubling, from EXACT_COUNTS on: uint32."""
    bits = np.frexp(counts.astype(np.float64))[1].astype(np.uint32)  # 1 + floor(log2)
    shift = np.where(counts < EXACT_COUNTS, 0, np.maximum(bits, 3) - 3).astype(np.uint32)
    return (counts >> shift) << shift


def coarse_start(values: np.ndarray) -> np.ndarray:
    """A warm start rounded to 11 bits after the leading one: float32."""
    return (values.view(np.uint32) & MANTISSA).view(np.float32)


def pack(columns: dict[str, np.ndarray], tables: list[CountTable], vocabulary: Vocabulary) -> bytes:
    """All arrays of a model: Model.all_columns, its tables and its vocabulary. The bytes depend on them alone."""
    first = [t for t in tables if t.context.name == "p"]
    rank_of = np.argsort(words_by_rank(first[0] if first else None, vocabulary.size)).astype(np.uint32)
    own = np.arange(rank_of.size, dtype=np.uint32)
    with _pool() as pool:
        parts = [pool.submit(compressed, {name: columns[name] for name in OTHERS}), pool.submit(pack_trie, vocabulary)]
        parts += [pool.submit(pack_table, t, own if t in first else rank_of) for t in (*first, *(t for t in tables if t not in first))]
        packed = [part.result() for part in parts]
    return np.array([len(p) for p in packed], "<u8").tobytes() + b"".join(packed)


def compressed(columns: dict[str, np.ndarray]) -> bytes:
    """Arrays as byte planes, by LZMA."""
    planes = b"".join(np.ascontiguousarray(a).view(np.uint8).reshape(-1, a.itemsize).T.tobytes() for a in columns.values())
    return lzma.compress(planes, lzma.FORMAT_RAW, filters=FILTERS)


def unpack(data: bytes, manifest: dict) -> dict[str, np.ndarray]:
    """The arrays that pack() packed, read-only. ValueError if the bytes are not what the manifest describes."""
    entries = {name: (parse_context(name), e) for name, e in manifest["tables"].items()}
    sizes = {name: manifest["arrays"][name]["size"] for name in COLUMNS}
    if sum(sizes.values()) > MOST_PER_BYTE * len(data):
        raise ValueError("it claims more values than it can hold")
    head = 8 * (2 + len(entries))
    lengths = np.frombuffer(data[:head].ljust(head, b"\0"), "<u8").astype(object)
    if head + sum(lengths) != len(data):
        raise ValueError("its parts do not add up")
    ends = np.cumsum([head, *lengths])
    parts = [data[a:b] for a, b in pairwise(ends)]
    names = sorted(entries, key=lambda name: name != "p")
    columns = _unpack_planes(parts[0], sizes)
    vocabulary = unpack_trie(parts[1], sizes["trie_symbol"], manifest["words"])
    words = manifest["words"]

    def table(name: str, part: bytes, word_of: np.ndarray) -> CountTable:
        context, e = entries[name]
        return unpack_table(part, context, e["contexts"], e["rows"], word_of)

    done: dict[str, CountTable] = {}
    if names and names[0] == "p":
        done["p"] = table("p", parts[2], np.arange(words, dtype=np.uint32))
    word_of = words_by_rank(done.get("p"), words)
    rest = sorted(zip(names[len(done) :], parts[2 + len(done) :], strict=True), key=lambda found: -len(found[1]))
    with _pool() as pool:
        for name, found in [(name, pool.submit(table, name, part, word_of)) for name, part in rest]:
            done[name] = found.result()
    places = sorted(done, key=lambda name: (entries[name][1]["row_at"], entries[name][1]["bucket_at"]))
    found = {
        name: np.concatenate([np.empty(0, COLUMNS[name]), *(v for t in places if (v := getattr(done[t], name)) is not None)])
        for name in ("buckets", "records", "rows", "sums")
    }
    found |= {"first_child": vocabulary.first_child, "trie_symbol": vocabulary.symbol, "first_id": vocabulary.first_id, **columns}
    for name, size in sizes.items():
        found[name].setflags(write=False)
        if found[name].size != size:
            raise ValueError(f"{name} has {found[name].size:,} values, not {size:,}")
    return found


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def words_by_rank(p: CountTable | None, words: int) -> np.ndarray:
    """The words by falling frequency in p: uint32 [words]; in their own order where p does not have all of them."""
    if p is None or p.n_rows != words:
        return np.arange(words, dtype=np.uint32)
    return np.argsort(-p.counts().astype(np.int64), kind="stable").astype(np.uint32)


def _unpack_planes(part: bytes, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    wanted = {name: sizes[name] * np.dtype(COLUMNS[name]).itemsize for name in OTHERS}
    try:
        planes = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS).decompress(part, max_length=sum(wanted.values()) + 1)
    except lzma.LZMAError as e:
        raise ValueError(str(e)) from None
    if len(planes) != sum(wanted.values()):
        raise ValueError("arrays of another size")
    columns, at = {}, 0
    for name, size in wanted.items():
        dtype = np.dtype(COLUMNS[name])
        plane = np.frombuffer(planes, np.uint8, size, at).reshape(dtype.itemsize, -1)
        columns[name] = np.ascontiguousarray(plane.T).view(dtype).ravel()
        at += size
    return columns
