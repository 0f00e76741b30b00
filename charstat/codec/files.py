"""Whole files: compress, decompress, read; whole_files.py puts the result in its place.

Without a model a file is text or bytes (sources.py), whichever is smaller on its beginning; text with few rare characters is not tried
as bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charstat.alphabet import Alphabet, count_code_points
from charstat.codec.container import BYTES, TEXT, WITH_MODEL
from charstat.codec.sources import Source, source_of_bytes, source_of_text, source_with
from charstat.codec.stream import Decoder, Encoder
from charstat.errors import FormatError, UserError
from charstat.model import Model
from charstat.whole_files import STANDARD

SUFFIX = ".cst"
SAMPLE_BYTES = 1 << 15
FEW_ESCAPES = 0.01  # rare characters, by all; a text with fewer is compressed as text
MODE_NAMES = {WITH_MODEL: "with a model", TEXT: "text", BYTES: "bytes"}
UNDECODABLE = "surrogateescape"  # every byte string is some text, and back

Progress = Callable[[float, int], None]  # (done, total)


@dataclass(frozen=True)
class Compressed:
    """A compressed file's bytes, how many characters (or bytes) it holds, and in which mode."""

    data: bytes
    chars: int
    mode: str


def as_text(data: bytes) -> str:
    """The text of any bytes: UTF-8, and a character U+DC80 .. U+DCFF for every byte that is no UTF-8."""
    return data.decode("utf-8", UNDECODABLE)


def choose_source(data: bytes, order: int | None = None) -> Source:
    """Text or bytes, without a model. ContextError for an order that does not exist."""
    as_bytes = source_of_bytes(order)
    if not data:
        return as_bytes
    text = as_text(data)
    alphabet = Alphabet.from_counts(count_code_points(text))
    as_characters = source_of_text(alphabet, order)
    if len(data) > SAMPLE_BYTES and sum(alphabet.rare.values()) <= FEW_ESCAPES * len(text):
        return as_characters
    sample = data[:SAMPLE_BYTES]

    def size(source: Source) -> int:
        encoder = Encoder.on(source)
        return len(encoder.encode(sample if source.mode == BYTES else as_text(sample)) + encoder.finish())

    return min((as_characters, as_bytes), key=size)


def compress(data: bytes, model: Model | None = None, order: int | None = None, progress: Progress | None = None) -> Compressed:
    """Any bytes, compressed. With a model they are read as text; without one, `order` is the highest character order."""
    source = choose_source(data, order) if model is None else source_with(model)
    content = data if source.mode == BYTES else as_text(data)
    encoder = Encoder.on(source)
    out = encoder.encode(content, _counter(progress, len(content))) + encoder.finish()
    return Compressed(out, len(content), MODE_NAMES[source.mode])


def decompress(data: bytes, model: Model | None = None, progress: Progress | None = None) -> bytes:
    """What compress() was given. FormatError for damaged, truncated or foreign data, UserError for another model."""
    decoder = Decoder(model)
    content = decoder.decode(data, _counter(progress, len(data)))
    decoder.finish()
    try:
        return content if isinstance(content, bytes) else content.encode("utf-8", UNDECODABLE)
    except UnicodeEncodeError as e:
        raise FormatError("it holds characters that stand for no bytes") from e


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache."""
    decompress(compress(b"charstat").data)


def _counter(progress: Progress | None, total: int) -> Callable[[float], None] | None:
    if progress is None:
        return None
    done = 0.0

    def tell(more: float) -> None:
        nonlocal done
        done += more
        progress(done, total)

    return tell


def compressed_name(name: str) -> str:
    return STANDARD if name == STANDARD else name + SUFFIX


def original_name(name: str) -> str:
    """UserError if the name does not say what the original was called."""
    if name == STANDARD:
        return STANDARD
    if not name.endswith(SUFFIX) or Path(name).name == SUFFIX:
        raise UserError(f"{name}: its name does not end in {SUFFIX}: say with -o where the result goes")
    return name[: -len(SUFFIX)]


def read(name: str) -> bytes:
    """The bytes of a file, or of stdin."""
    return sys.stdin.buffer.read() if name == STANDARD else Path(name).read_bytes()
