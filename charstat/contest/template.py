"""A submission to cybertronai/wikitext, made by `charstat bundle`: count tables from the training text, mixed online. MIT licence.

How to read it: this page unpacks and imports what follows; FILES holds the sources, one heading a file, imports before those that use
them, up to charstat/contest/entry.py with train() and the model. Each is what the release named below has under that path, without the
definitions that nothing here uses. `charstat bundle` of that release writes this file again, byte for byte.

On import, which is not metered, the sources go into a private directory of the user's cache, numba is installed into another one
if it is missing (see charstat/contest/environment.py for the versions), and what runs is compiled. train() counts characters; where SETTINGS
hold some out at the end of the text, it also learns from them what the mixer begins with.
"""

import atexit
import hashlib
import importlib
import os
import shutil
import stat
import sys
import tempfile

import wikitext  # the runner's

__author__ = "@author@"

RELEASE = "@version@"
SETTINGS = "@settings@"
BACKEND = "@backend@"
SOURCES_SHA256 = "@sha256@"  # of FILES: "path\nsource" of each, one after the other


def _say(message):
    print(f"charstat: {message}", file=sys.stderr, flush=True)


def _check():
    """ImportError if this file is damaged."""
    found = hashlib.sha256("".join(f"{path}\n{source}" for path, source in FILES.items()).encode()).hexdigest()
    if found != SOURCES_SHA256:
        raise ImportError(
            f"{__file__} is damaged: its sources have the SHA-256 {found[:16]}… where {SOURCES_SHA256[:16]}… is expected; "
            "make it again with `charstat bundle`"
        )


def _own_directory(path):
    """Whether path is, or can be made, a directory that this user alone can write; OSError says why not."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    about = os.lstat(path)
    if not stat.S_ISDIR(about.st_mode):
        raise OSError("it is no directory")
    if hasattr(os, "getuid") and about.st_uid != os.getuid():
        raise OSError("it belongs to another user")
    if about.st_mode & 0o022:
        raise OSError("others can write it")
    with tempfile.TemporaryFile(dir=path):
        return path


def _private_directory():
    """A directory for sources, packages and compiled code: in the user's cache; else one in the temporary directory, the same every time;
    else a new one, which is removed at the end."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    places = [os.path.join(base, "charstat")] if os.path.isabs(base) else []
    places.append(os.path.join(tempfile.gettempdir(), f"charstat-{user}"))
    for path in places:
        try:
            return _own_directory(path)
        except OSError as e:
            _say(f"{path} cannot be used ({e.strerror or e})")
    return _until_the_end(tempfile.mkdtemp(prefix="charstat-"))


def _until_the_end(path):
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _holds(directory):
    """Whether the sources lie in there, unchanged."""
    try:
        for name, content in FILES.items():
            with open(os.path.join(directory, name), encoding="utf-8", newline="") as f:
                if f.read() != content:
                    return False
    except (OSError, ValueError):
        return False
    return True


def _unpack(home):
    """The directory, named by the checksum, that holds the sources as files: what numba compiles is cached beside them."""
    target = os.path.join(home, f"package-{SOURCES_SHA256[:16]}")
    if _holds(target):
        return target
    made = tempfile.mkdtemp(prefix="package-", dir=home)
    for name, content in FILES.items():
        path = os.path.join(made, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as f:
            f.write(content)
    try:
        os.rename(made, target)
        return target
    except OSError:
        if _holds(target):  # another process was faster
            shutil.rmtree(made, ignore_errors=True)
            return target
        return _until_the_end(made)  # what lies there is not ours: it is left alone, and not run


def _enter(home):
    """Make `import charstat` mean the sources in this file. Those that are loaded already stay."""
    directory, loaded = _unpack(home), sys.modules.get("charstat")
    if loaded is not None and os.path.dirname(os.path.dirname(getattr(loaded, "__file__", None) or "")) == directory:
        return
    if loaded is not None:
        _say(f"another charstat is loaded ({getattr(loaded, '__version__', '?')}): the one in this file takes its place")
        for name in [name for name in sys.modules if name == "charstat" or name.startswith("charstat.")]:
            del sys.modules[name]
    sys.path[:] = [directory, *(path for path in sys.path if path != directory)]
    importlib.invalidate_caches()


def _start():
    _check()
    home = _private_directory()
    _enter(home)
    from charstat.contest.environment import provide_packages

    provide_packages(home, BACKEND, _say)
    from charstat.contest.entry import Entry

    return Entry(SETTINGS, BACKEND, wikitext.CharModel, _say)


def train(train_text: str) -> wikitext.CharModel:
    """Count the training text; the runner's CharModel, ready for reset()."""
    return _ENTRY.train(train_text)


FILES = "@files@"

_ENTRY = _start()
