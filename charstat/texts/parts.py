"""A large file of plain text or JSON lines in parts that are read apart from one another: cut where a character, or a line, begins.

The parts' texts, one after another, are the file's. A character has at most three bytes after its first, so that a border moves on by three at
most; and where more of such bytes follow, the text is damaged, and the part that holds the first bad byte says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from charstat.errors import CorpusError
from charstat.texts.formats import BLOCK, LINES, PARQUET, line_pieces, plain_pieces, split_name

PART_BYTES = 1 << 26  # of a file, that one task reads
REACH = 3


class FilePart(NamedTuple):
    """The bytes first..stop of a file. closes: a newline is added at the end of the part where there is none."""

    path: Path
    first: int
    stop: int
    closes: bool


def can_be_cut(path: Path) -> bool:
    """Whether the file is one that cut_file() knows, by its name."""
    inside, packed = split_name(path.name)
    return not packed and inside not in PARQUET


def cut_file(path: Path, first: int, stop: int, part_bytes: int = PART_BYTES, closes: bool = True) -> list[FilePart]:
    """The bytes first..stop of a file in parts of about part_bytes. closes: a newline ends the last one. CorpusError if it cannot be read."""
    lines = split_name(path.name)[0] in LINES
    try:
        with open(path, "rb") as file:
            borders = {first, stop}
            for nominal in range(first + part_bytes, stop, part_bytes):
                borders.add(min(stop, _next_line(file, nominal) if lines else _next_char(file, nominal)))
    except OSError as e:
        raise CorpusError(f"cannot read {str(path)!r}: {e.strerror or e}") from e
    return [FilePart(path, a, b, closes and b == stop) for a, b in pairwise(sorted(borders))]


def _next_char(file: BinaryIO, at: int) -> int:
    """The first byte from `at` on that begins a character, within REACH."""
    file.seek(at)
    for byte in file.read(REACH):
        if byte & 0xC0 != 0x80:
            break
        at += 1
    return at


def _next_line(file: BinaryIO, at: int) -> int:
    """Where the first line begins that does so at `at` or later; the end of the file if none does."""
    file.seek(at - 1)
    file.readline()
    return file.tell()


def part_pieces(part: FilePart, field: str) -> Iterator[str]:
    """The text of a part, in pieces. Errors: as for formats.file_pieces, with offsets in the whole file."""
    shown, blocks = str(part.path), _blocks(part)
    if split_name(part.path.name)[0] in LINES:
        return line_pieces(blocks, shown, field, part.first)
    return plain_pieces(blocks, shown, part.first, part.closes)


def _blocks(part: FilePart) -> Iterator[bytes]:
    at = part.first
    try:
        with open(part.path, "rb") as file:
            file.seek(at)
            while at < part.stop and (block := file.read(min(BLOCK, part.stop - at))):
                at += len(block)
                yield block
    except OSError as e:
        raise CorpusError(f"{str(part.path)!r} cannot be read beyond byte offset {at:,} of its content: {e.strerror or e}") from e
