"""Where compiled kernels are kept, and when they are dropped.

Numba compiles a cached kernel again when the file it stands in has changed, but not when a function that was inlined into it
has changed in another file: after a `git pull` an old kernel could meet arrays of a new layout. So all cached kernels of the
package go when any of its files has changed. Caches elsewhere (NUMBA_CACHE_DIR) are the business of whoever set it.

Numba keeps kernels beside their source, or in the user's cache directory. Where neither can be written, as in many containers, it
refuses to compile at all: then a temporary directory is used, which goes at the end of the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path

STAMP = "__pycache__/kernels.stamp"
VARIABLE = "NUMBA_CACHE_DIR"


def drop_stale_kernels(package: Path) -> bool:
    """Remove the package's cached kernels if its sources changed since they were stamped; returns whether it did so."""
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(package)):
        for name in sorted(n for n in names if n.endswith(".py")):
            status = os.stat(os.path.join(folder, name))
            digest.update(f"{folder}/{name} {status.st_mtime_ns} {status.st_size}\n".encode("utf-8", "surrogateescape"))
    stamp = package / STAMP
    try:
        if stamp.read_text() == digest.hexdigest():
            return False
    except (OSError, ValueError):
        pass
    # A package that cannot be written is one whose kernels are cached elsewhere.
    with contextlib.suppress(OSError):
        stamp.parent.mkdir(exist_ok=True)
        for kernel in package.rglob("__pycache__/*.nb[ic]"):
            kernel.unlink(missing_ok=True)
        stamp.write_text(digest.hexdigest())
    return True


temporary: str | None = None  # the cache of this process alone, where there is no other


def provide_cache(package: Path) -> str | None:
    """Have numba keep its kernels in a temporary directory if there is no other place; returns that directory, or None."""
    global temporary
    chosen = os.environ.get(VARIABLE)
    if temporary or (chosen and _writable(Path(chosen))) or _writable(package / "__pycache__") or _writable(_user_cache()):
        return temporary
    import atexit
    import shutil
    import tempfile

    with contextlib.suppress(OSError):
        temporary = tempfile.mkdtemp(prefix="charstat-kernels-")
        owner, folder = os.getpid(), temporary
        atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
        os.environ[VARIABLE] = temporary
        if "numba" in sys.modules:  # it has read the environment already
            sys.modules["numba"].config.CACHE_DIR = temporary
    return temporary


def _user_cache() -> Path:
    """Where numba keeps kernels whose source's directory cannot be written."""
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        return Path(home, "Library", "Caches", "numba")
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home, "numba")
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "numba")


def _writable(folder: Path) -> bool:
    """Whether a file can be made there: tried, because permissions do not tell of file systems that refuse."""
    name = folder / f".charstat-{os.getpid()}"
    try:
        os.makedirs(folder, exist_ok=True)
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.unlink(name)
    except OSError:
        return False
    return True
