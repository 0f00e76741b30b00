"""The first pass: text from anywhere into files of pieces, with how often each character occurs; then shards of whole pieces.

A file of the work directory holds pieces of at most PIECE_CHARS characters, in UTF-8, one after another in the text's order. Many input
files are read by the workers, a group at a time, and large ones in parts; any other text (a small file, the hub, standard input), and a text
that is cut with --limit, by the process that builds, as a stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from charstat.alphabet import CODE_POINTS, count_code_points
from charstat.errors import ResourceError
from charstat.shards.files import finished, read_array, write_file
from charstat.texts.collection import Collection, file_bytes
from charstat.texts.parts import PART_BYTES, FilePart, can_be_cut, cut_file, part_pieces

PIECE_CHARS = 1 << 21


class Span(NamedTuple):
    """The first `chars` characters of a piece, which lies in a file of the work directory."""

    file: str
    at: int
    n_bytes: int
    chars: int


@dataclass
class Scanned:
    """A file of pieces: [bytes, characters] of each; the code points that occur, and how often; the input files that were left out, and why."""

    file: str
    pieces: list[list[int]] = field(default_factory=list)
    points: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    part_of: str = ""  # the input file, where it is not whole

    @property
    def chars(self) -> int:
        return sum(chars for _, chars in self.pieces)

    def spans(self) -> Iterator[Span]:
        at = 0
        for n_bytes, chars in self.pieces:
            yield Span(self.file, at, n_bytes, chars)
            at += n_bytes


def groups_of(files: Sequence[Path], group_bytes: int = PART_BYTES) -> Iterator[list[Path] | FilePart]:
    """Consecutive files, as many together as have group_bytes on disk; a larger one in parts, if it can be cut. CorpusError if it cannot be
    read."""
    group, held = [], 0
    for path in files:
        size = file_bytes(path)
        if size > 2 * group_bytes and can_be_cut(path):
            if group:
                yield group
            yield from cut_file(path, 0, size, group_bytes)
            group, held = [], 0
            continue
        group.append(path)
        held += size
        if held >= group_bytes:
            yield group
            group, held = [], 0
    if group:
        yield group


def scan_files(folder: Path, number: int, key: str, files: Collection, piece_chars: int, part: FilePart | None = None) -> Scanned:
    """Read a group of files, or a part of a single one. CorpusError for a bad one, unless bad ones are skipped."""
    if part is None:
        text = (piece for one in files.files for piece in files.pieces_of(one))
        return scan_stream(folder, number, key, text, piece_chars, skipped=files.skipped)
    text = files.checked(part.path, lambda: part_pieces(part, files.text_field))
    return scan_stream(folder, number, key, text, piece_chars, skipped=files.skipped, part_of=str(part.path))


def scan_stream(
    folder: Path,
    number: int,
    key: str,
    text: Iterable[str],
    piece_chars: int,
    limit: int | None = None,
    skipped: dict[Path, str] | None = None,
    part_of: str = "",
) -> Scanned:
    """Write a stream of text as pieces, unless that is done already. limit: of characters in all."""
    path = folder / f"text-{number:06}.text"
    done = finished(path, key)
    if done is not None:
        return Scanned(**done)
    about, tally = Scanned(path.name, part_of=part_of), np.zeros(CODE_POINTS, np.int64)

    def parts() -> Iterator[bytes]:
        for piece in cut(text, piece_chars, limit):
            data = piece.encode("utf-8", "surrogatepass")
            about.pieces.append([len(data), len(piece)])
            tally.__iadd__(count_code_points(piece, 1))
            yield data

    def result() -> dict:
        points = np.flatnonzero(tally)
        about.points, about.counts = points.tolist(), tally[points].tolist()
        about.skipped = {str(path): why for path, why in (skipped or {}).items()}
        return vars(about)

    write_file(path, parts(), key, result)
    return about


def cut(text: Iterable[str], piece_chars: int, limit: int | None = None) -> Iterator[str]:
    """The text in pieces of piece_chars characters, and a shorter last one; its first `limit` characters at most."""
    held, chars, missing = [], 0, limit
    for part in text:
        if missing is not None:
            part = part[:missing]
            missing -= len(part)
        held.append(part)
        chars += len(part)
        if chars >= piece_chars:
            joined = "".join(held)
            whole = chars // piece_chars * piece_chars
            for at in range(0, whole, piece_chars):
                yield joined[at : at + piece_chars]
            held, chars = [joined[whole:]], chars - whole
        if missing == 0:
            break
    if chars:
        yield "".join(held)


def span_text(folder: Path, span: Span) -> str:
    """The characters of a span. ResourceError if its file was changed."""
    data = read_array(folder / span.file, np.uint8, span.at, span.n_bytes)
    try:
        return str(data.data, "utf-8", "surrogatepass")[: span.chars]
    except UnicodeDecodeError as e:
        raise ResourceError(f"{folder / span.file} in the work directory was changed: build again without --resume") from e


def first_chars(spans: Iterable[Span], end: int) -> list[Span]:
    """The spans of the first `end` characters."""
    kept, missing = [], end
    for span in spans:
        if missing <= 0:
            break
        kept.append(span._replace(chars=min(span.chars, missing)))
        missing -= span.chars
    return kept


def last_text(folder: Path, spans: Sequence[Span], chars: int) -> str:
    """The last characters of the text."""
    parts, missing = [], chars
    for span in reversed(spans):
        if missing <= 0:
            break
        text = span_text(folder, span)
        parts.append(text[max(0, len(text) - missing) :])
        missing -= len(parts[-1])
    return "".join(reversed(parts))


def tally_after(folder: Path, spans: Iterable[Span], end: int) -> np.ndarray:
    """How often each code point occurs after the first `end` characters: int64 [0x110000]."""
    counts, at = np.zeros(CODE_POINTS, np.int64), 0
    for span in spans:
        if at + span.chars > end:
            counts += count_code_points(span_text(folder, span)[max(0, end - at) :], 1)
        at += span.chars
    return counts


def tally_of(scans: Iterable[Scanned]) -> np.ndarray:
    """How often each code point occurs: int64 [0x110000]."""
    counts = np.zeros(CODE_POINTS, np.int64)
    for scanned in scans:
        counts[scanned.points] += np.array(scanned.counts, np.int64)
    return counts


def shards_of(spans: Sequence[Span], shard_chars: int, at_a_time: int = 1) -> list[list[Span]]:
    """The spans in shards of about equal size, and of shard_chars at most where no span is larger.

    Their number is a multiple of at_a_time if there is more than one, or close to it.
    """
    total = sum(span.chars for span in spans)
    n = max(1, -(-total // shard_chars))
    n = n if n == 1 else -(-n // at_a_time) * at_a_time
    shards: list[list[Span]] = []
    done = held = 0
    for span in spans:
        if not shards or held + span.chars > shard_chars or done * n >= len(shards) * total:
            shards.append([])
            held = 0
        shards[-1].append(span)
        held += span.chars
        done += span.chars
    return shards
