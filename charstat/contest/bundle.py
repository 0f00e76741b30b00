"""Writes submission.py: template.py with the settings and the package's wheel in it."""

from __future__ import annotations

import base64
import hashlib
import os
import pprint
import tempfile
from dataclasses import dataclass
from pathlib import Path

from charstat.contest.presets import PRESETS, Preset
from charstat.contest.wheel import build_wheel
from charstat.counting import BACKENDS
from charstat.errors import FormatError, ResourceError, UserError

FILE_NAME = "submission.py"
MARK = "made by `charstat bundle`"  # in the template's first line: what carries it may be overwritten
LINE = 140
DEFAULT_AUTHOR = "charstat"


@dataclass(frozen=True)
class Bundle:
    """A written submission."""

    path: Path
    preset: Preset
    backend: str
    author: str
    wheel_name: str
    wheel_sha256: str
    wheel_bytes: int
    bytes: int


def submission_source(preset: Preset, backend: str = "auto", author: str = DEFAULT_AUTHOR) -> tuple[str, str, bytes]:
    """(source of submission.py, name of the wheel, wheel); the same for the same arguments and package."""
    if backend not in BACKENDS:
        raise UserError(f"no backend is named {backend!r}: there are {', '.join(BACKENDS)}")
    name, wheel = build_wheel()
    encoded = base64.b64encode(wheel).decode()
    lines = "\n".join(encoded[at : at + LINE] for at in range(0, len(encoded), LINE))
    source = (Path(__file__).parent / "template.py").read_text(encoding="utf-8")
    values = {
        "author": repr(author),
        "settings": pprint.pformat(preset.to_dict(), width=100, sort_dicts=False),
        "backend": repr(backend),
        "wheel_name": repr(name),
        "wheel_sha256": repr(hashlib.sha256(wheel).hexdigest()),
        "wheel": f'"""\n{lines}\n"""',
    }
    for key, value in values.items():
        assert source.count(f'"@{key}@"') == 1, key
        source = source.replace(f'"@{key}@"', value)
    return source, name, wheel


def write_bundle(out: str | os.PathLike, preset: str | Preset = "gate", backend: str = "auto", author: str = DEFAULT_AUTHOR) -> Bundle:
    """Write out/submission.py and say what is in it. A submission that is there already is replaced if it is a bundle.

    UserError for a preset or backend that does not exist; FormatError if another submission.py is there; ResourceError if the directory
    cannot be written.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise UserError(f"no preset is named {preset!r}: there are {', '.join(PRESETS)}")
        preset = PRESETS[preset]
    source, name, wheel = submission_source(preset, backend, author)
    data, path = source.encode(), Path(out) / FILE_NAME
    try:
        if path.exists() and MARK not in path.read_bytes()[:200].decode("utf-8", "replace"):
            raise FormatError(f"{path} is there and no charstat bundle: choose another --out, or remove it")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temp = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=path.parent)
        try:
            with open(handle, "wb") as f:
                f.write(data)
            os.chmod(temp, 0o644)
            os.replace(temp, path)
        except BaseException:
            os.unlink(temp)
            raise
    except OSError as e:
        raise ResourceError(f"cannot write {path}: {e.strerror or e}") from e
    return Bundle(path, preset, backend, author, name, hashlib.sha256(wheel).hexdigest(), len(wheel), len(data))
