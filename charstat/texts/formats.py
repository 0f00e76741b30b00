"""One file of text, by its name: plain UTF-8, JSON lines or Parquet, maybe compressed; read in pieces, documents kept apart.

    .txt .raw, any other     one document
    .jsonl .ndjson           one JSON object a line; its text field is a document
    .parquet                 one document a row, from the text field's column
    .gz .zst behind these    decompressed on the way

Every document ends in a newline: one is added where there is none, so that no word runs from one document into the next. An empty document,
or one that is null, is nothing. Line ends are not translated, and encodings are not guessed.

Memory holds one block of bytes, one line or one batch of rows at a time.
"""

from __future__ import annotations

import codecs
import gzip
import json
import textwrap
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from charstat.errors import CorpusError

TEXT, LINES, PARQUET = (".txt", ".raw"), (".jsonl", ".ndjson"), (".parquet",)
PACKED = (".gz", ".zst")
BLOCK = 1 << 20  # bytes read at a time
ROWS = 1 << 10  # rows of a table read at a time
DEFAULT_FIELD = "text"


def split_name(name: str) -> tuple[str, str]:
    """(what is inside, how it is packed) by a file's name: (".jsonl", ".zst"), (".txt", ""), ("", ".gz")."""
    path = Path(name.lower())
    packed = path.suffix if path.suffix in PACKED else ""
    return (Path(path.stem).suffix if packed else path.suffix), packed


def is_text(name: str) -> bool:
    """Whether a file of that name is taken for text when a directory is read."""
    inside, packed = split_name(name)
    return inside in (*TEXT, *LINES, *PARQUET) and not (packed and inside in PARQUET)


def file_pieces(path: Path, field: str = DEFAULT_FIELD) -> Iterator[str]:
    """The text of one file, in pieces. CorpusError, naming the file and the place in it, if it is damaged or is not what its name says."""
    inside, packed = split_name(path.name)
    if inside in PARQUET:
        return _parquet_pieces(path, field)
    blocks = _unpacked(path, packed)
    return line_pieces(blocks, str(path), field) if inside in LINES else plain_pieces(blocks, str(path))


def plain_pieces(blocks: Iterable[bytes], shown: str, first: int = 0, closes: bool = True) -> Iterator[str]:
    """The text of one document, given as blocks of UTF-8. shown: what messages call it; first: the offset of its first byte; closes: a newline
    ends it. CorpusError for anything else than UTF-8."""
    last = "\n"
    for piece, _ in decoded(blocks if first else _without_mark(blocks), shown, first):
        yield piece
        last = piece[-1:] or last
    if closes and last != "\n":
        yield "\n"


def line_pieces(blocks: Iterable[bytes], shown: str, field: str, first: int = 0) -> Iterator[str]:
    """The documents in the text field of JSON lines. first: the offset of the first byte. CorpusError with line and offset for a line that
    has none."""
    rest, offset, number = b"", first, 0  # rest: the start of a line that has not ended yet; offset: where it starts

    def documents(lines: list[bytes]) -> Iterator[str]:
        nonlocal offset, number
        for line in lines:
            number += 1
            if line.strip():
                place = "the line" if first else f"line {number:,}"
                yield document(_field_of(line, field), f"{shown!r}, {place} at byte offset {offset:,}")
            offset += len(line) + 1

    for block in blocks if first else _without_mark(blocks):
        head, newline, tail = block.rpartition(b"\n")
        if newline:
            yield "".join(documents((rest + head).split(b"\n")))
            rest = b""
        rest += tail
    yield "".join(documents([rest]))


def _field_of(line: bytes, field: str) -> object:
    """The value of the field in a line; an exception's text says what is wrong, for document() to place it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as e:  # also a UnicodeDecodeError
        return CorpusError(f"is not JSON ({textwrap.shorten(str(e), 120)})")
    if not isinstance(record, dict):
        return CorpusError(f"is a JSON {type(record).__name__}, not an object with a field {field!r}")
    if field not in record:
        return CorpusError(f"has no field {field!r}, but {_names(record)}: name the field with --text-field")
    return record[field]


def document(value: object, where: str) -> str:
    """A document's text, ending in a newline; nothing for null. CorpusError for a value that is no string."""
    if isinstance(value, CorpusError):
        raise CorpusError(f"{where}: this {value}")
    if not value and (value is None or value == ""):
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{where}: the text field holds a {type(value).__name__}, not a string")
    return value if value.endswith("\n") else value + "\n"


def _names(names: Iterable[str]) -> str:
    return textwrap.shorten(", ".join(repr(str(name)) for name in names) or "none", 120, placeholder=" ...")


def decoded(blocks: Iterable[bytes], shown: str, first: int = 0) -> Iterator[tuple[str, int]]:
    """(the characters of each block, where the bytes not decoded yet start); first: the offset of the first byte.

    A character that lies across two blocks comes with the second. CorpusError with the offset of the first bad byte.
    """
    data = b""  # subtle: starts with what the previous block left of a character, so error positions count from `first`
    try:
        for block in blocks:
            data += block
            text, used = codecs.utf_8_decode(data, "strict", False)
            data, first = data[used:], first + used
            yield text, first
        codecs.utf_8_decode(data, "strict", True)  # a character cut off by the end
    except UnicodeDecodeError as e:
        where = f"byte {e.object[e.start]:#04x} at byte offset {first + e.start}"
        raise CorpusError(f"{shown!r} is not UTF-8: {where} ({e.reason}); convert it first, for example with iconv") from e


def _without_mark(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks without a byte order mark at the start."""
    blocks = iter(blocks)
    yield next(blocks, b"").removeprefix(codecs.BOM_UTF8)
    yield from blocks


def stream_blocks(stream: BinaryIO, shown: str) -> Iterator[bytes]:
    """The bytes of a stream, block by block. CorpusError, with the offset, where they cannot be read or unpacked."""
    offset = 0
    try:
        while block := stream.read(BLOCK):
            offset += len(block)
            yield block
    except (OSError, EOFError, zlib.error) as e:  # gzip.BadGzipFile and pyarrow's errors of damaged files are OSErrors
        cause = textwrap.shorten(str(getattr(e, "strerror", None) or e), 120)
        raise CorpusError(f"{shown!r} cannot be read beyond byte offset {offset:,} of its content: {cause}") from e


def _unpacked(path: Path, packed: str) -> Iterator[bytes]:
    with _opened(path, packed) as stream:
        yield from stream_blocks(stream, str(path))


@contextmanager
def _opened(path: Path, packed: str) -> Iterator[BinaryIO]:
    try:
        if packed == ".zst":
            stream = _pyarrow("zst").input_stream(str(path), compression="zstd")
        else:
            stream = gzip.open(path, "rb") if packed == ".gz" else open(path, "rb")  # noqa: SIM115 (closed below)
    except OSError as e:
        raise CorpusError(f"cannot read {str(path)!r}: {e.strerror or e}") from e
    with stream:
        yield stream


def _pyarrow(what: str):
    try:
        import pyarrow
    except ImportError as e:
        raise CorpusError(f".{what} files are read with pyarrow, which is not installed: pip install pyarrow") from e
    return pyarrow


def _parquet_pieces(path: Path, field: str) -> Iterator[str]:
    arrow = _pyarrow("parquet")
    from pyarrow import parquet

    row = 0
    try:
        with parquet.ParquetFile(str(path)) as file:
            if field not in file.schema_arrow.names:
                raise CorpusError(
                    f"{str(path)!r} has no column {field!r}, but {_names(file.schema_arrow.names)}: name the column with --text-field"
                )
            for batch in file.iter_batches(ROWS, columns=[field]):
                where = f"{str(path)!r}, rows from {row:,}"
                yield "".join([document(value, where) for value in batch.column(0).to_pylist()])
                row += batch.num_rows
    except (OSError, arrow.ArrowException, UnicodeDecodeError) as e:
        raise CorpusError(f"{str(path)!r} cannot be read beyond row {row:,}: {textwrap.shorten(str(e), 120)}") from e
