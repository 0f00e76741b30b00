"""Putting a finished directory in its place: in one step, over nothing but what a charstat build wrote.

    <parent>/.<name>.XXXXXXXX.charstat-new      where a build writes; its lock says that the build is alive
    <parent>/.<name>.XXXXXXXX.charstat-old      where the earlier model waits, on systems that cannot exchange two names

Linux exchanges the two directories atomically (renameat2, RENAME_EXCHANGE), so that there is a whole model at `path` at every moment.
Elsewhere two renames do it, and whoever finds nothing at `path` but an earlier model waiting puts it back (recover).

A directory is replaced if it is empty, or holds a model's manifest and no other file than that one lists; anything else is refused,
by name. It is looked at before a build, and again after the exchange, when nobody can put a file into it by its path any more: if there
is one, the exchange is undone. Files are removed one by one, by name, and then the directory if it is empty.

Signals that would stop the program wait while a name changes hands (uninterrupted), and leftovers of builds that were killed go with the
next build (sweep).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from charstat import manifest
from charstat.columns import COLUMNS, PACKED, TOKEN_COLUMNS
from charstat.errors import FormatError, ResourceError

NEW, OLD = ".charstat-new", ".charstat-old"
AT_FDCWD, RENAME_EXCHANGE = -100, 2
NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
LOCK_S = 5.0
TRIES = 100  # of an exchange with other builds that go to the same place
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals with a Python handler wait until the block is left; then the first of them is handled. Only the main thread handles any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers: dict[int, Callable] = {}
    try:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            handlers[number](number, None)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone among charstat's processes, as far as the file system has locks; held for as long as a few renames take.

    Nobody waits longer than LOCK_S: what holds it for so long is not charstat, and all it does is keep builds out of each other's way.
    """
    handle, end = lock(folder), time.monotonic() + LOCK_S
    while handle is None and time.monotonic() < end and _has_locks(folder):
        time.sleep(0.002)
        handle = lock(folder)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _has_locks(folder: Path) -> bool:
    """Whether the directory can be opened for a lock at all, so that waiting for one makes sense."""
    return sys.platform != "win32" and os.access(folder, os.R_OK)


def lock(folder: str | os.PathLike) -> int | None:
    """A descriptor that holds the directory's lock until it is closed; None if another process has it, or there are no locks here."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (ImportError, OSError, AttributeError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as e:
        os.close(handle)
        if isinstance(e, OSError):
            return None
        raise
    return handle


def new_directory(path: Path) -> tuple[Path, int | None]:
    """A directory beside `path` to build in, and the descriptor that keeps it locked. Leftovers of dead builds of `path` are removed."""
    parent = path.absolute().parent
    with locked(parent):
        sweep(path)
        temp = Path(tempfile.mkdtemp(NEW, f".{path.name}.", parent))
        return temp, lock(temp)


def sweep(path: Path) -> None:
    """Remove what builds of `path` that were killed have left beside it: directories of our name without a living owner, our files in them."""
    for found in _beside(path, NEW):
        handle = lock(found)
        if handle is not None:
            with suppress(OSError):
                remove_model(found)
            os.close(handle)


def _beside(path: Path, suffix: str) -> list[Path]:
    head = f".{path.name}."
    try:
        with os.scandir(path.absolute().parent) as entries:
            names = [e.name for e in entries if e.name.startswith(head) and e.name.endswith(suffix) and e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [path.absolute().parent / name for name in sorted(names) if len(name) == len(head) + 8 + len(suffix)]


def own_names(folder: Path) -> set[str]:
    """The names of the files that charstat has written into a model directory, as its manifest lists them; empty for any other."""
    about = peek(folder)
    if about is None:
        return set()
    arrays = about.get("arrays")
    if "packed" in about:
        return {manifest.MANIFEST, PACKED}
    return (
        {manifest.MANIFEST, *(f"{name}.npy" for name in arrays if re.fullmatch("[a-z_]{1,40}", name))}
        if isinstance(arrays, dict)
        else set()
    )


def peek(folder: str | os.PathLike) -> dict | None:
    """The manifest of a directory as it stands there, of whatever kind and version; None unless it is a charstat model's."""
    try:
        data = read_file(os.path.join(folder, manifest.MANIFEST), manifest.MAX_BYTES)
        about = manifest.parse(data)
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("format") in tuple(manifest.KINDS) else None


def read_file(name: str | os.PathLike, most: int, dir_fd: int | None = None) -> bytes:
    """The bytes of a regular file. OSError for any other kind (a pipe could wait for ever), and for more than `most` bytes."""
    handle = open_file(name, dir_fd)
    try:
        if os.fstat(handle).st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(name))
        parts = []
        while part := os.read(handle, 1 << 22):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(handle)


def open_file(name: str | os.PathLike, dir_fd: int | None = None) -> int:
    """A descriptor of a regular file. OSError, without waiting, for anything else."""
    handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0), dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(name))
    return handle


def check_target(path: Path, shown: Path | None = None) -> bool:
    """Whether something is there that may be replaced. FormatError, naming it, if it may not; OSError if it cannot be looked at.

    shown: what messages call it.
    """
    shown = path if shown is None else shown
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(mode):
        raise FormatError(f"{shown} exists and is not a directory: choose another --out")
    names = sorted(os.listdir(path))
    own = own_names(path)
    if names and not own:
        raise FormatError(f"{shown} is a directory with other files, not a charstat model: choose another --out")
    foreign = [name for name in names if name not in own or not os.path.isfile(os.path.join(path, name))]
    if foreign:
        listed = ", ".join(map(repr, foreign[:3])) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise FormatError(f"{shown} holds what charstat did not write ({listed}): move that elsewhere, or choose another --out")
    return True


def remove_model(folder: Path) -> None:
    """Remove the files that charstat has written there, and the directory if it is empty then. OSError if it is not."""
    for name in {*(f"{c}.npy" for c in (*COLUMNS, *TOKEN_COLUMNS)), PACKED, *own_names(folder)}:
        if name != manifest.MANIFEST:
            with suppress(FileNotFoundError):
                os.unlink(folder / name)
    with suppress(FileNotFoundError):  # last, because it says what is ours
        os.unlink(folder / manifest.MANIFEST)
    os.rmdir(folder)


def place(temp: Path, path: Path) -> None:
    """Move a finished directory to `path`, over an earlier model, which is removed.

    FormatError if what is there by now may not be replaced; then nothing has changed. OSError likewise.
    """
    with locked(path.absolute().parent):
        for _ in range(TRIES):
            try:
                if not check_target(path):
                    os.rename(temp, path)  # fails if something but an empty directory has appeared there
                    return
                if exchange(temp, path):
                    break
                if _replace_in_two_steps(temp, path):
                    return
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR) or not temp.is_dir():
                    raise
        else:
            raise ResourceError(f"cannot write a model at {path}: what is there changes faster than it can be replaced")
        try:
            check_target(temp, path)  # what was there until now
        except (FormatError, OSError):
            try:
                exchange(temp, path)
            except FileNotFoundError:  # somebody has removed the new model already
                os.rename(temp, path)
            raise
        _remove_earlier(temp, path)


def _remove_earlier(earlier: Path, path: Path) -> None:
    """Remove a model that was replaced. A file that somebody has put into it since goes back to where its name was."""
    with suppress(OSError):  # the new model is in place: what is left of the old one is no reason to fail
        try:
            remove_model(earlier)
        except OSError as e:
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            for name in os.listdir(earlier):
                if not os.path.lexists(path / name):
                    os.rename(earlier / name, path / name)
            os.rmdir(earlier)


def exchange(a: Path, b: Path) -> bool:
    """Exchange two names atomically. False where the system or the file system cannot; OSError if one of them is not there."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    if renameat2(AT_FDCWD, ctypes.c_char_p(os.fsencode(a)), AT_FDCWD, ctypes.c_char_p(os.fsencode(b)), ctypes.c_uint(RENAME_EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(a), None, str(b))


def _replace_in_two_steps(temp: Path, path: Path) -> bool:
    """Without exchange: the earlier model waits under a name of its own. False if it was gone."""
    waiting = temp.with_name(temp.name.removesuffix(NEW) + OLD)
    try:
        os.rename(path, waiting)
    except FileNotFoundError:
        return False
    try:
        check_target(waiting, path)
        os.rename(temp, path)
    except BaseException:  # also an interrupt between the two
        if not os.path.lexists(path):
            os.rename(waiting, path)
        raise
    _remove_earlier(waiting, path)
    return True


def recover(path: Path) -> None:
    """Put back an earlier model that waits beside `path`, if nothing is there: a build was killed between two renames."""
    if os.path.lexists(path) or not _beside(path, OLD):
        return
    with suppress(OSError), locked(path.absolute().parent):
        if not os.path.lexists(path) and (waiting := _beside(path, OLD)):
            os.rename(max(waiting, key=lambda p: p.stat().st_mtime), path)
