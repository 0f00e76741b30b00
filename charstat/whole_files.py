"""Putting one file in its place, complete or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from charstat.errors import ResourceError, UserError

STANDARD = "-"  # for stdin or stdout


def check_free(name: str, force: bool) -> None:
    """ResourceError if something is there that must not be overwritten."""
    if name == STANDARD:
        if sys.stdout.isatty() and not force:
            raise ResourceError("compressed bytes do not go to a terminal: redirect stdout, or say with -o where they go")
    elif os.path.isdir(name):
        raise ResourceError(f"{name} is a directory: say with -o which file in it")
    elif os.path.lexists(name) and not force:
        raise ResourceError(f"{name} exists: --force overwrites it")


def check_page(name: str, force: bool) -> None:
    """check_free() for a page, which does not go to stdout, before the work that leads to it."""
    if name == STANDARD:
        raise UserError("a page goes to a file: give its name")
    folder = Path(name).absolute().parent
    if not folder.is_dir():
        raise ResourceError(f"cannot write {name}: there is no directory {folder}")
    check_free(name, force)


def write(name: str, data: bytes, like: str, force: bool) -> None:
    """Write a file beside its place and move it there, with the permissions of the file `like`; or write to stdout."""
    if name == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    try:
        handle, temp = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.absolute().parent)
        try:
            with open(handle, "wb") as f:
                f.write(data)
            with contextlib.suppress(OSError):
                os.chmod(temp, _mode(like))
            check_free(name, force)
            os.replace(temp, name)
        except BaseException:  # an interrupt, too
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temp)
            raise
    except OSError as e:
        raise ResourceError(f"cannot write {name}: {e.strerror or e}; nothing was changed") from e


def _mode(like: str) -> int:
    if like != STANDARD:
        return os.stat(like).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
