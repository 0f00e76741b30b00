"""Many files as one text: listed once, sorted by name, each read in turn; a bad or repeated file is named, or left out and counted.

    DIR      all files in it, and in its directories, whose names say that they hold text (formats.py); hidden ones are left out
    GLOB     what matches, ** for directories of any depth; a file of another name is read as plain text
    FILE     compressed, JSON lines, or Parquet

The order is that of the names, relative to DIR, or as the glob gives them: by code point, wherever the files lie and whoever lists them.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from charstat.errors import CorpusError
from charstat.texts.formats import BLOCK, DEFAULT_FIELD, file_pieces, is_text

LISTED = 100  # bad files that a manifest lists; all are counted


@dataclass
class Collection:
    """Files that are one text. skip_bad: leave out files that cannot be read, and repeated ones; skipped says which, and why."""

    files: list[Path]
    text_field: str = DEFAULT_FIELD
    skip_bad: bool = False
    skipped: dict[Path, str] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """Bytes of all files, as they are on disk."""
        return sum(map(file_bytes, self.files))

    def pieces(self, tell: Callable[[int, int], object] = lambda done, total: None) -> Iterator[str]:
        """The whole text, file by file. tell(done, total): bytes of the files that are done."""
        self.check_repeated()
        total, done = self.n_bytes, 0
        for path in self.files:
            yield from self.pieces_of(path)
            done += file_bytes(path)
            tell(done, total)

    def pieces_of(self, path: Path) -> Iterator[str]:
        """The text of one of the files; nothing of one that is left out."""
        return self.checked(path, lambda: file_pieces(path, self.text_field))

    def checked(self, path: Path, pieces: Callable[[], Iterator[str]]) -> Iterator[str]:
        """What `pieces` gives of a file. With skip_bad, it is asked twice: what was given out cannot be taken back."""
        if self.skip_bad:
            if path in self.skipped:
                return
            try:
                for _ in pieces():
                    pass
            except CorpusError as e:
                self.skipped[path] = str(e)
                return
        yield from pieces()

    def check_repeated(self) -> None:
        """CorpusError if two files hold the same bytes, or with skip_bad the second is left out. Reads only files of equal size."""
        by_size: dict[int, list[Path]] = {}
        for path in self.files:
            if size := file_bytes(path):
                by_size.setdefault(size, []).append(path)
        for same_size in by_size.values():
            seen: dict[bytes, Path] = {}
            for path in same_size if len(same_size) > 1 else ():
                first = seen.setdefault(_digest(path), path)
                if first is path:
                    continue
                if not self.skip_bad:
                    raise CorpusError(
                        f"{str(first)!r} and {str(path)!r} hold the same bytes: remove one of them, or leave out repeated files "
                        "with --skip-bad-files"
                    )
                self.skipped[path] = f"{str(path)!r} holds the same bytes as {str(first)!r}"

    def about(self) -> dict:
        """What a manifest says of the files."""
        about = {"files": len(self.files), "order": "sorted by name", "text_field": self.text_field, "skip_bad_files": self.skip_bad}
        if self.skipped:
            listed = sorted(self.skipped.items())[:LISTED]
            about |= {"skipped": len(self.skipped), "skipped_files": [{"file": str(p)[:4096], "reason": why[:4096]} for p, why in listed]}
        return about


def find_files(name: str, text_field: str, skip_bad: bool) -> Collection | None:
    """The files that a directory, a glob or the name of one file stands for; None if there is nothing there. CorpusError: see list_directory."""
    path = Path(name).absolute()
    if path.is_dir():
        files = list_directory(path)
    elif path.exists():
        files = [path]
    else:
        files = [Path(os.path.abspath(found)) for found in sorted(glob.glob(name, recursive=True)) if os.path.isfile(found)]
    return Collection(files, text_field, skip_bad) if files else None


def list_directory(folder: Path) -> list[Path]:
    """The files of text in a directory and below it, sorted by name. CorpusError for a directory that cannot be listed."""

    def refuse(e: OSError) -> None:
        raise CorpusError(f"cannot list {e.filename!r}: {e.strerror}") from e

    found = []
    for at, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(at, name) for name in names if is_text(name) and not name.startswith(".")]
    return sorted((path for path in found if path.is_file()), key=lambda path: path.relative_to(folder).as_posix())


def file_bytes(path: Path) -> int:
    """Bytes of a file on disk; 0 if it cannot be asked: reading it will say why."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError:  # reading it will say why
        return os.fsencode(path)
    return digest.digest()
