"""A submission to cybertronai/wikitext, made by `charstat bundle`: count tables from the training text, mixed online.

The package charstat is in this file as a wheel (see WHEEL_SHA256). On import, which is not metered, it is unpacked into a private
directory, numba (and CuPy, where there is an NVIDIA driver) are installed into another one if they are missing, and everything is
compiled. train() counts characters, and nothing else; whatever is learned besides is learned in observe(), after the prediction.
To look inside:  python -c "import base64; t = open('submission.py').read(); w = t.split(chr(34) * 3)[-2]; open('charstat.whl', 'wb').write(base64.b64decode(w))"
"""

import base64
import binascii
import hashlib
import importlib
import io
import os
import sys
import tempfile
import zipfile

import wikitext  # the runner's

__author__ = "@author@"

SETTINGS = "@settings@"
BACKEND = "@backend@"
WHEEL_NAME = "@wheel_name@"
WHEEL_SHA256 = "@wheel_sha256@"


def _say(message):
    print(f"charstat: {message}", file=sys.stderr, flush=True)


def _decode(text):
    """The wheel; ImportError if this file is damaged."""
    try:
        wheel = base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as e:
        raise ImportError(
            f"{__file__} is damaged: the embedded {WHEEL_NAME} is not base64 ({e}); make it again with `charstat bundle`"
        ) from None
    found = hashlib.sha256(wheel).hexdigest()
    if found != WHEEL_SHA256:
        raise ImportError(
            f"{__file__} is damaged: the embedded {WHEEL_NAME} has the SHA-256 {found[:16]}… where {WHEEL_SHA256[:16]}… is expected; "
            "make it again with `charstat bundle`"
        )
    return {entry.filename: archive.read(entry) for archive in [zipfile.ZipFile(io.BytesIO(wheel))] for entry in archive.infolist()}


def _private_directory():
    """A directory of this user that can be written: in the user's cache, or a temporary one."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(os.path.abspath(base), "charstat")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and os.stat(path).st_uid != os.getuid():
            raise OSError("it belongs to another user")
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as e:
        fallback = tempfile.mkdtemp(prefix="charstat-")
        _say(f"{path} cannot be used ({e.strerror or e}): everything goes into {fallback}")
        return fallback


def _holds(directory, files):
    """Whether the files of the package lie in there, unchanged."""
    try:
        for name, content in files.items():
            with open(os.path.join(directory, name), "rb") as f:
                if f.read() != content:
                    return False
    except OSError:
        return False
    return True


def _unpack(files, home):
    """The directory, named by the wheel's checksum, that holds the package's files."""
    target = os.path.join(home, f"package-{WHEEL_SHA256[:16]}")
    if _holds(target, files):
        return target
    made = tempfile.mkdtemp(prefix="package-", dir=home)
    for name, content in files.items():
        path = os.path.join(made, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(content)
    try:
        os.rename(made, target)
    except OSError:  # another process was faster, or what lies there is not ours: then the new one is used where it is
        return target if _holds(target, files) else made
    return target


def _enter(files, home):
    """Make `import charstat` mean the embedded package. A charstat that is loaded already stays if it is the same, file by file."""
    loaded = sys.modules.get("charstat")
    package = {name: content for name, content in files.items() if name.startswith("charstat/")}
    if loaded is not None and loaded.__file__ and _holds(os.path.dirname(os.path.dirname(os.path.abspath(loaded.__file__))), package):
        return
    directory = _unpack(files, home)
    if loaded is not None:
        _say(f"the charstat {getattr(loaded, '__version__', '?')} that is loaded already differs: the embedded one takes its place")
        for name in [name for name in sys.modules if name == "charstat" or name.startswith("charstat.")]:
            del sys.modules[name]
    sys.path[:] = [directory, *(path for path in sys.path if path != directory)]
    importlib.invalidate_caches()
    os.environ["NUMBA_CACHE_DIR"] = cache = os.path.join(home, "numba")
    if "numba" in sys.modules:  # the variable is read at its import only
        sys.modules["numba"].config.CACHE_DIR = cache
    os.environ.setdefault("CUPY_CACHE_DIR", os.path.join(home, "cupy"))


def _start():
    home = _private_directory()
    _enter(_decode(WHEEL), home)
    from charstat.contest.environment import provide_packages

    provide_packages(home, BACKEND, _say)
    from charstat.contest.entry import Entry

    return Entry(SETTINGS, BACKEND, wikitext.CharModel, _say)


def train(train_text: str) -> wikitext.CharModel:
    """Count the training text; the runner's CharModel, ready for reset()."""
    return _ENTRY.train(train_text)


WHEEL = "@wheel@"

_ENTRY = _start()
