"""What is explained: a text given in the command, a file, or stdin; of a long one its beginning, or evenly spaced windows.

Of a file only the windows are read, and some text before each of them, which the model reads first: its start is nobody's fault.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from typing import BinaryIO, NamedTuple

from charstat.errors import ArgumentError, CorpusError

STANDARD = "-"
LEAD_BYTES = 1 << 14  # of text before a window
MOST_BYTES = 4  # of a character


class Window(NamedTuple):
    """A stretch of a text. at: the byte where it starts; lead: the text before it that the model reads first."""

    at: int
    lead: str
    text: str


class Sample(NamedTuple):
    """What is explained of a source. n_bytes: of the whole source, None if that is not known; whole: whether the windows are all of it."""

    name: str
    windows: tuple[Window, ...]
    n_bytes: int | None
    whole: bool

    @property
    def chars(self) -> int:
        return sum(len(window.text) for window in self.windows)

    def about(self) -> str:
        """What was taken, in words."""
        if self.whole:
            return f"all of it, {self.chars:,} characters"
        of = f" of {self.n_bytes:,} bytes" if self.n_bytes is not None else ""
        if len(self.windows) == 1:
            return f"only the first {self.chars:,} characters{of}"
        return f"{self.chars:,} characters{of}, in {len(self.windows)} evenly spaced windows"


def is_file(source: str) -> bool:
    """Whether the source names a file; a text otherwise. CorpusError for what looks like the name of a file that is not there."""
    if source == STANDARD or os.path.exists(source):
        return True
    if re.fullmatch(r"\S*(/\S*|\.[A-Za-z]\w{0,4})", source):
        raise CorpusError(f"there is no file {source!r}: to explain these very characters, add --text")
    return False


def take(source: str, chars: int, windows: int = 1, as_text: bool = False) -> Sample:
    """At most `chars` characters of a file, of stdin (-) or of the source itself, in so many windows.

    CorpusError if the file cannot be read, is empty or binary, or is not UTF-8.
    """
    if as_text or not is_file(source):
        data = source.encode("utf-8", "surrogateescape")
        return _sample("the text", io.BytesIO(data), len(data), chars, windows)
    if source == STANDARD:
        if windows > 1:
            raise ArgumentError("stdin cannot be sampled in windows: give a file, or leave --windows out")
        data = sys.stdin.buffer.read(MOST_BYTES * chars + 1)
        ended = len(data) <= MOST_BYTES * chars
        return _sample("stdin", io.BytesIO(data), len(data) if ended else None, chars, 1)
    try:
        with open(source, "rb") as file:
            return _sample(source, file, os.fstat(file.fileno()).st_size, chars, windows)
    except OSError as e:
        raise CorpusError(f"cannot read {source!r}: {e.strerror or e}") from e


def _sample(name: str, file: BinaryIO, n_bytes: int | None, chars: int, windows: int) -> Sample:
    first, complete = _characters(name, file, 0, chars)
    if not first:
        raise CorpusError(f"{name} is empty: there is nothing to explain")
    if complete and n_bytes is not None:
        return Sample(name, (Window(0, "", first),), n_bytes, True)
    if windows == 1 or n_bytes is None:
        return Sample(name, (Window(0, "", first),), n_bytes, False)
    step, found = n_bytes // windows, []
    for i in range(windows):
        at = _boundary(file, i * step)
        start = _boundary(file, max(0, at - LEAD_BYTES))
        lead, _ = _characters(name, file, start, at - start, at - start)
        text, _ = _characters(name, file, at, max(1, chars // windows), step)
        found.append(Window(at, lead, text))
    return Sample(name, tuple(window for window in found if window.text), n_bytes, False)


def _boundary(file: BinaryIO, at: int) -> int:
    """The first byte from `at` on where a character starts."""
    file.seek(at)
    after = file.read(MOST_BYTES - 1)
    return at + next((i for i, byte in enumerate(after) if byte & 0xC0 != 0x80), 0 if at == 0 else len(after))


def _characters(name: str, file: BinaryIO, at: int, chars: int, most_bytes: int | None = None) -> tuple[str, bool]:
    """(at most so many characters from byte `at` on, whether the file ends there)."""
    file.seek(at)
    wanted = MOST_BYTES * chars + 1 if most_bytes is None else min(MOST_BYTES * chars, most_bytes)
    data = b""
    while len(data) < wanted and (part := file.read(wanted - len(data))):
        data += part
    ended = len(data) < wanted
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, ended)
    except UnicodeDecodeError as e:
        raise CorpusError(f"{name} is not UTF-8 ({e.reason} at byte {at + e.start:,}): explain reads text") from e
    if "\0" in text:
        raise CorpusError(f"{name} has NUL characters and looks like a binary file: explain reads text")
    return text[:chars], ended and len(text) <= chars
