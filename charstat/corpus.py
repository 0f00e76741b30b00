"""Text to count and to evaluate on: WikiText-103 or another data set from the hub, files, standard input, or the embedded sample.

    "wikitext-103"   the hub's Salesforce/wikitext, wikitext-103-raw-v1, through `datasets` (imported only then)
    DIR              wiki.train.raw, wiki.valid.raw, wiki.test.raw; only those that you ask for must be there
    FILE             any UTF-8 text, split 90/5/5 by character position
    DIR, GLOB, FILE  many files, or compressed ones, JSON lines, Parquet: one text to count, without splits (texts/collection.py)
    hub:OWNER/NAME   a data set of the hub, streamed; hub:OWNER/NAME:CONFIG (texts/hub.py)
    -                standard input, read once; JSON lines if a text field is given
    "sample"         the documentation topics that come with CPython, split the same way; not WikiText

WikiText comes out in the contest's layout, "\\n".join(rows), where text rows end in "\\n" and blank ones are empty. A directory
in the original release's layout, one row a line, is converted on reading, so that figures are comparable; other text is left as it is.

    rows       ["", " = A = \\n", "", " Text . \\n"]
    contest    "\\n = A = \\n\\n\\n Text . \\n"
    release    " \\n = A = \\n \\n Text . \\n"

Documents end in a newline: one is added where there is none, so that no word runs on into the next document (texts/formats.py).

It does not download (`datasets` does, into its own cache), tokenise, clean, translate line ends, or guess encodings.
Files are decoded in chunks. Of a FILE, all bytes are checked, because its borders depend on all of them; with a limit that lies within
train whatever follows, and in a directory, bytes that are not decoded are not checked.
"""

import codecs
import hashlib
import os
import platform
import socket
import stat
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from charstat.arguments import check_call
from charstat.errors import CorpusError
from charstat.texts.collection import Collection, find_files
from charstat.texts.formats import DEFAULT_FIELD, LINES, PACKED, PARQUET, decoded, line_pieces, plain_pieces, split_name, stream_blocks
from charstat.texts.hub import PREFIX, stream_rows

__all__ = ["SPLITS", "Corpus", "HubUnavailable", "normalise_split", "open_corpus", "text_fingerprint"]

SPLITS = ("train", "val", "test")
HUB_DATASET = ("Salesforce/wikitext", "wikitext-103-raw-v1")
_ALIASES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_RAW_FILES = {"train": "wiki.train.raw", "val": "wiki.valid.raw", "test": "wiki.test.raw"}
_GET_WIKITEXT = "use --data wikitext-103 (the hub), a directory with wiki.train.raw, wiki.valid.raw and wiki.test.raw, or --data sample"
_HEAD_BYTES = 100_000  # what layout detection looks at
_CHUNK = 1 << 20  # bytes read, or characters hashed, at a time
_HUB_ROWS = 1 << 16  # rows joined at a time


Progress = Callable[[int, int], object]
"""Called with how much is done, and of how much: bytes of a file, rows from the hub, or characters if a limit comes first."""


class HubUnavailable(CorpusError):
    """The hub's WikiText-103 is not available: `datasets` is missing, or neither the hub nor a cached copy answers."""


class TrainFile(NamedTuple):
    """Bytes of a file that hold the train split. divided: they hold the others, too, behind it."""

    path: Path
    first: int
    stop: int
    divided: bool

    def chars(self, n: int) -> int:
        """How many of the n characters are train."""
        return _cuts(n)["train"][1] if self.divided else n


@dataclass(frozen=True)
class Corpus:
    """Named text in splits. open_corpus() makes one and reads next to nothing; text() reads a split.

    name         what the user typed: "wikitext-103", "sample", or a path as given
    kind         "hub", "directory", "file", "sample"; without splits of their own: "files", "dataset", "stdin"
    layout       "contest", "release" (detected, and converted to the contest's on reading) or "plain" (left as it is)
    description  one line for people
    """

    name: str
    kind: str
    layout: str
    description: str
    _path: Path | None = field(default=None, repr=False)  # absolute: a later chdir changes nothing
    _many: Collection | None = field(default=None, repr=False, compare=False)
    _field: str | None = field(default=None, repr=False)  # of JSON lines and tables, if given

    @property
    def collection(self) -> Collection | None:
        """The files of a text that comes in many; None for any other."""
        return self._many

    @property
    def about(self) -> dict:
        """What a manifest says of how the text was read, beside its name: order and number of files, the text field, files left out."""
        if self._many is not None:
            return self._many.about()
        return {"text_field": self._field or DEFAULT_FIELD} if self.kind == "dataset" or self._field else {}

    def train_file(self) -> TrainFile | None:
        """The one file of plain text whose bytes are the train split, or begin with it; None for any other text."""
        if self.kind == "file":
            return TrainFile(self._path, *_content_bytes(self._path), True)
        if self.kind == "directory" and self.layout != "release" and "train" in self.splits():
            path = self._path / _RAW_FILES["train"]
            return TrainFile(path, *_content_bytes(path), False)
        return None

    def splits(self) -> tuple[str, ...]:
        """The splits that are there, in the order of SPLITS (for the hub: all of them, without asking it)."""
        if self.kind in ("files", "stdin"):
            return ("train",)
        if self.kind != "directory":
            return SPLITS
        return tuple(split for split in SPLITS if _stat(self._path / _RAW_FILES[split]) is not None)

    def text(self, split: str, limit: int | None = None, progress: Progress | None = None) -> str:
        """The text of one split, or its first `limit` characters (counted after conversion of the layout).

        progress is called with (done, total) after every chunk, and with done == total at the end. The unit can change and the total
        can be refined on the way: use done / total.
        Errors: CorpusError for an unknown or missing split, a negative limit, and a file that is unreadable, empty or
        not UTF-8 (with its byte offset); HubUnavailable. A tiny file can have an empty val or test split: that is not an error.
        """
        split = normalise_split(split)
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise CorpusError(f"limit is {limit!r:.40}: it counts characters, so it is 0 or more")
        check_call(progress, "progress")
        kept, missing = [], sys.maxsize if limit is None else limit

        def tell(done: int, total: int) -> None:
            if progress is None:
                return
            if limit and (limit - missing) * total > done * limit:  # the limit comes before the end
                done, total = limit - missing, limit
            progress(2 * done, 3 * total)  # joining the pieces takes half as long as reading them, or longer where memory is slow

        pieces = self._pieces(split, limit, tell)
        while missing > 0 and (piece := next(pieces, None)) is not None:
            kept.append(piece[:missing])
            missing -= len(kept[-1])
        text = "".join(kept)  # peak: the text twice (measured; io.StringIO takes as much)
        if progress is not None:
            progress(1, 1)
        return text

    def data(self, split: str, limit: int | None = None) -> bytes:
        """The bytes of one split, or its first `limit`: of a FILE as they are, whatever they are, split 90/5/5 by their number; of any other text
        its characters in UTF-8. Errors: as for text()."""
        split = normalise_split(split)
        if self.kind != "file":
            return self.text(split, limit).encode("utf-8", "surrogatepass")[:limit]
        size = os.path.getsize(self._path)
        first, stop = _cuts(size)[split]
        return b"".join(_read(self._path, first, stop if limit is None else min(stop, first + limit), _CHUNK))

    def fingerprint(self, split: str, *sizes: int) -> list[dict]:
        """text_fingerprint() of the split's characters in stretches of these sizes, one after another, and "chars" of what follows.

        The last entry is the rest: {"chars": n}, not hashed. Nothing is held in memory but a piece. Errors: as for text().
        """
        pieces = self._pieces(normalise_split(split), None, lambda done, total: None)
        found, piece = [], ""
        for size in sizes:
            digest, missing = hashlib.sha256(), size
            while missing > 0 and (piece or (piece := next(pieces, ""))):
                digest.update(piece[:missing].encode("utf-8", "surrogatepass"))
                missing, piece = missing - min(missing, len(piece)), piece[missing:]
            found.append({"chars": size - missing, "sha256": digest.hexdigest()})
        return [*found, {"chars": len(piece) + sum(map(len, pieces))}]

    def data_fingerprint(self, split: str, *sizes: int) -> list[dict]:
        """fingerprint() of the split's bytes (data)."""
        data, at, found = self.data(split), 0, []
        for size in sizes:
            found.append(text_fingerprint(data[at : at + size]))
            at += size
        return [*found, {"chars": max(0, len(data) - at)}]

    def pieces(self, split: str, limit: int | None = None, progress: Progress | None = None) -> Iterator[str]:
        """The text of a split in pieces, which are not held. limit: nothing beyond so many characters is needed. progress, errors: see text()."""
        return self._pieces(normalise_split(split), limit, progress or (lambda done, total: None))

    def _pieces(self, split: str, limit: int | None, tell: Progress) -> Iterator[str]:
        if split not in self.splits() and self.kind in ("files", "stdin"):
            raise CorpusError(f"{self.name!r} is one text to count, and has no {split} split: name another text with --data")
        if self._many is not None:
            return self._many.pieces(tell)
        if self.kind == "stdin":
            return _stdin_pieces(self._field)
        if self.kind == "dataset":
            return _dataset_pieces(self.name, split, self._field or DEFAULT_FIELD)
        if self.kind == "hub":
            return _hub_pieces(split, tell)
        if self.kind == "sample":
            text = _sample_text()
            return iter((text[slice(*_cuts(len(text))[split])],))
        if self.kind == "file":
            return _file_pieces(self._path, split, limit, tell)
        path = self._path / _RAW_FILES[split]
        if _stat(path) is None:
            found = ", ".join(_RAW_FILES[other] for other in self.splits()) or "none of them"
            raise CorpusError(f"no {split} split in {self.name!r}: looked for {path.name}, found {found}; put it there, or {_GET_WIKITEXT}")
        pieces = _decode(path, *_content_bytes(path), tell)
        return _release_to_contest(pieces) if self.layout == "release" else pieces


def open_corpus(data: str | os.PathLike, text_field: str | None = None, skip_bad_files: bool = False) -> Corpus:
    """Open "wikitext-103" (or "wikitext"), "sample", "hub:OWNER/NAME", "-", a directory, a glob or a file. Reads at most 100 kB;
    `datasets` is not imported yet.

    A str is looked up as a name first; "./sample" or a Path means a path of that name. text_field: of JSON lines, Parquet and data sets,
    "text" by default. skip_bad_files: of many files, leave out those that are damaged or repeated (Corpus.about says which, once read).
    Errors: CorpusError for a path that does not exist, cannot be read, is empty, is a device, or is a directory without text in it.
    """
    if not isinstance(data, str | bytes | os.PathLike):
        raise CorpusError(f"a text is named by its path, or wikitext-103, or sample, not {data!r:.40}")
    name = os.fsdecode(data)
    if isinstance(data, str) and data in ("wikitext-103", "wikitext"):
        return Corpus(name, "hub", "contest", f"WikiText-103 from the hub ({', '.join(HUB_DATASET)})")
    if isinstance(data, str) and data == "sample":
        note = f"pydoc topics of Python {platform.python_version()} (other versions differ), split 90/5/5"
        return Corpus(name, "sample", "plain", f"embedded sample, not WikiText: {note}")
    if isinstance(data, str) and data == "-":
        return Corpus(name, "stdin", "plain", "standard input", None, None, text_field)
    if isinstance(data, str) and data.startswith(PREFIX) and data != PREFIX:
        return Corpus(name, "dataset", "plain", f"{data.removeprefix(PREFIX)} from the hub, streamed", None, None, text_field)
    path = Path(name).absolute()
    found = _stat(path) if name else None
    if found is None:
        if name and (many := find_files(name, text_field or DEFAULT_FIELD, skip_bad_files)):
            return _many_files(name, path, many)
        hint = f"; a data set of the hub is named {PREFIX}{name}" if name.count("/") == 1 and not Path(name).suffix else ""
        raise CorpusError(f"no such file or directory: {name!r}{hint}; {_GET_WIKITEXT}")
    if not stat.S_ISDIR(found.st_mode):
        _content_bytes(path)
        inside, packed = split_name(path.name)
        if packed in PACKED or inside in (*LINES, *PARQUET):
            return _many_files(name, path, find_files(name, text_field or DEFAULT_FIELD, skip_bad_files))
        return Corpus(name, "file", "plain", f"{name}: {found.st_size:,} bytes, split 90/5/5 by position", path)
    files = [path / raw for raw in _RAW_FILES.values() if _stat(path / raw) is not None]
    if not files:
        if many := find_files(name, text_field or DEFAULT_FIELD, skip_bad_files):
            return _many_files(name, path, many)
        raise CorpusError(
            f"no text in the directory {name!r}: no files named .txt, .raw, .jsonl or .parquet, nor with .gz or .zst behind; also looked "
            f"for {', '.join(_RAW_FILES.values())}; {_GET_WIKITEXT}"
        )
    first, stop = _content_bytes(files[0])
    layout = _detect_layout(next(_read(files[0], first, stop, _HEAD_BYTES), b""))
    what = "release layout, converted to the contest's" if layout == "release" else f"{layout} layout, left as it is"
    return Corpus(name, "directory", layout, f"{name}: {', '.join(file.name for file in files)} ({what})", path)


def normalise_split(name: str) -> str:
    """ "train", "val" or "test" for a split's name or alias ("valid", "validation"). Errors: CorpusError."""
    if not isinstance(name, str) or name not in _ALIASES:
        raise CorpusError(f"unknown split {name!r}; known: train, val (also valid, validation), test")
    return _ALIASES[name]


def text_fingerprint(text: str | bytes, end: int | None = None) -> dict:
    """Of text[:end]: {"chars": length in characters, "sha256": hex digest of the UTF-8 bytes}; lone surrogates count as three bytes. Of bytes:
    how many, and the digest of themselves."""
    digest = hashlib.sha256()
    end = len(text) if end is None else min(end, len(text))
    if isinstance(text, bytes | bytearray):
        return {"chars": end, "sha256": hashlib.sha256(memoryview(text)[:end]).hexdigest()}
    for first in range(0, end, _CHUNK):  # no full-size encoded copy
        digest.update(text[first : min(first + _CHUNK, end)].encode("utf-8", "surrogatepass"))
    return {"chars": end, "sha256": digest.hexdigest()}


def _cuts(n: int) -> dict[str, tuple[int, int]]:
    """(first, stop) of each split among n characters: 90/5/5, covering all of them. A single character is train's."""
    ends = (0, max(min(n, 1), n * 90 // 100), max(min(n, 1), n * 95 // 100), n)
    return {split: (ends[i], ends[i + 1]) for i, split in enumerate(SPLITS)}


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as exc:  # ValueError: a NUL character in the path
        raise CorpusError(f"cannot read {str(path)!r}: {_cause(exc)}") from exc


def _content_bytes(path: Path) -> tuple[int, int]:
    """(first, stop) of a file's text, after a byte order mark. Errors: CorpusError unless it is a readable file with text in it."""
    found = _stat(path)
    if found is None or not stat.S_ISREG(found.st_mode):  # checked before opening: opening a FIFO can block for ever
        raise CorpusError(f"{str(path)!r} is not a regular file (a directory, device, pipe or socket); give a text file")
    first = 3 if next(_read(path, 0, 3, 3), b"") == codecs.BOM_UTF8 else 0
    if found.st_size == first:
        raise CorpusError(f"{str(path)!r} is empty: there is no text to read")
    return first, found.st_size


def _read(path: Path, first: int, stop: int, step: int) -> Iterator[bytes]:
    """The bytes from first to stop in blocks of `step`. Errors: CorpusError."""
    try:
        with open(path, "rb") as file:
            file.seek(first)
            while first < stop and (block := file.read(min(step, stop - first))):
                first += len(block)
                yield block
    except OSError as exc:
        raise CorpusError(f"cannot read {str(path)!r}: {_cause(exc)}") from exc


def _decode(path: Path, first: int, stop: int, tell: Progress) -> Iterator[str]:
    """The characters of the bytes from first to stop, a chunk at a time. Errors: CorpusError with the offset of the first bad byte."""
    for text, at in decoded(_read(path, first, stop, _CHUNK), str(path), first):
        yield text
        tell(at - first, stop - first)


def _file_pieces(path: Path, split: str, limit: int | None, tell: Progress) -> Iterator[str]:
    """The characters of a 90/5/5 split by character position, which are counted by their first bytes, without decoding."""
    first, stop = _content_bytes(path)
    if split == "train" and limit is not None and limit <= (stop - first) // 4 * 90 // 100:
        return _decode(path, first, stop, tell)  # within train whatever the characters are (4 bytes at most each): nothing to count
    counted = stop - first  # bytes that are read twice, and the second time those of the split alone
    a, b = _cuts(counted)[split]
    counts = []
    whole = _decode(path, first, stop, lambda done, total: None)  # the other splits are checked, too: bad bytes may have moved the borders
    for block in _read(path, first, stop, _CHUNK):
        next(whole, None)
        counts.append(np.count_nonzero(_starts(block)))
        tell(min(len(counts) * _CHUNK, counted), counted + b - a)
    next(whole, None)  # a character that the end cuts off
    ends = np.cumsum(counts)

    def offset(char: int) -> int:
        i = int(np.searchsorted(ends, char, side="right"))  # the block that holds this character's first byte
        if i == len(ends):
            return stop
        block_first = first + i * _CHUNK
        positions = np.flatnonzero(_starts(next(_read(path, block_first, stop, _CHUNK))))
        return block_first + int(positions[char - (ends[i] - counts[i])])

    a, b = _cuts(int(ends[-1]))[split]  # subtle: every byte, valid or not, falls into exactly one split
    a, b = (first if split == "train" else offset(a)), (stop if split == "test" else offset(b))
    return _decode(path, a, b, lambda done, total: tell(counted + done, counted + total))


def _starts(block: bytes) -> np.ndarray:
    return np.frombuffer(block, np.int8) > -65  # bool: not a continuation byte, 0x80..0xBF


def _detect_layout(head: bytes) -> str:
    spaced, doubled = head.startswith(b" \n") + head.count(b"\n \n"), head.count(b"\n\n")
    if spaced > doubled:  # a stray empty line is possible in either kind of text
        return "release"
    return "contest" if doubled and not spaced else "plain"


def _release_to_contest(pieces: Iterable[str]) -> Iterator[str]:
    """The contest's layout of a release text that comes in pieces, cut anywhere."""
    tail, joint = [], ""  # pieces of a row that has not ended yet; what stands before the next row

    def joined(rows: list[str]) -> str:
        return joint + "\n".join(row + "\n" if row.strip() else "" for row in rows)  # blank as the hub's own script sees it

    for piece in pieces:
        head, newline, rest = piece.rpartition("\n")
        if newline:
            yield joined(("".join(tail) + head).split("\n"))
            tail, joint = [], "\n"
        tail.append(rest)
    if last := "".join(tail):
        yield joined([last])


def _sample_text() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as exc:
        raise CorpusError(f"this Python has no pydoc_data.topics, so there is no sample ({_cause(exc)}); use --data FILE") from exc
    return "\n".join(topics[key] for key in sorted(topics))


def _many_files(name: str, path: Path, many: Collection) -> Corpus:
    files = f"{len(many.files):,} files, sorted by name" if len(many.files) > 1 else "1 file"
    return Corpus(name, "files", "plain", f"{name}: {files}, {many.n_bytes:,} bytes", path, many)


def _stdin_pieces(text_field: str | None) -> Iterator[str]:
    """Standard input, as it comes. Errors: CorpusError if it is closed, or not UTF-8."""
    if sys.stdin is None or sys.stdin.closed:
        raise CorpusError("standard input is closed: there is nothing to read")
    blocks = stream_blocks(sys.stdin.buffer, "standard input")
    return line_pieces(blocks, "standard input", text_field) if text_field else plain_pieces(blocks, "standard input")


def _dataset_pieces(name: str, split: str, text_field: str) -> Iterator[str]:
    """A split of a data set of the hub, streamed. Errors: HubUnavailable for any failure to reach or read it; CorpusError for the column."""
    cause = ""
    try:
        cause = _hub_settings()
        yield from stream_rows(name, _HUB_SPLITS[split], text_field)
    except (MemoryError, CorpusError):
        raise
    except Exception as exc:  # subtle: as for _hub_pieces
        raise HubUnavailable(f"{name} cannot be read from the hub ({cause}{_cause(exc)})") from exc


def _hub_pieces(split: str, tell: Progress) -> Iterator[str]:
    """The split's rows, joined; 65,536 rows at a time. Errors: HubUnavailable for any failure, with the cause in brief."""
    cause = ""
    try:
        cause = _hub_settings()
        import datasets

        column = datasets.load_dataset(*HUB_DATASET)[_HUB_SPLITS[split]]["text"]
        for first in range(0, len(column), _HUB_ROWS):
            yield ("\n" if first else "") + "\n".join(column[first : first + _HUB_ROWS])
            tell(min(first + _HUB_ROWS, len(column)), len(column))
    except MemoryError:
        raise
    except Exception as exc:  # subtle: ConnectionError, FileNotFoundError, ValueError, httpx and requests errors: it varies with versions
        raise HubUnavailable(f"WikiText-103 is not available from the hub ({cause}{_cause(exc)}); use --data DIR or --data sample") from exc


def _hub_settings() -> str:
    """Set short time-outs, and offline mode if the hub does not answer; returns what to tell the user then, or "".

    Offline mode still finds a cached copy, and saves 23 s of retries (datasets 5.2), or minutes where packets are dropped.
    """
    if "datasets" in sys.modules or "huggingface_hub" in sys.modules or find_spec("datasets") is None:
        return ""  # the environment is read at their first import only
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    if getproxies() or "HF_HUB_OFFLINE" in os.environ or "HF_DATASETS_OFFLINE" in os.environ:
        return ""
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        socket.create_connection((hub.hostname, hub.port or (80 if hub.scheme == "http" else 443)), timeout=5).close()
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
        return "no connection, and no copy in the cache: "
    return ""


def _cause(exc: BaseException) -> str:
    words = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
    return textwrap.shorten(f"{type(exc).__name__}: {words}", 200, placeholder=" …")
