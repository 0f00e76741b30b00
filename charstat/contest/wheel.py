"""The package as a wheel, made with the standard library alone: the same bytes from the same sources, on any machine.

PEP 427: the package's files, and a dist-info directory with METADATA, WHEEL, entry_points.txt and RECORD (path, SHA-256, size).
"""

from __future__ import annotations

import base64
import hashlib
import io
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import charstat
from charstat.errors import ResourceError

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
FILES = ("*.py", "py.typed")


def package_files() -> dict[str, bytes]:
    """Path in the wheel -> content, of every source file of the running package, sorted by path. ResourceError if they cannot be read."""
    root = Path(charstat.__file__).resolve().parent
    try:
        found = sorted({file for pattern in FILES for file in root.rglob(pattern) if "__pycache__" not in file.parts})
        return {f"charstat/{file.relative_to(root).as_posix()}": file.read_bytes() for file in found}
    except OSError as e:
        raise ResourceError(f"cannot read the package's own files at {root}: {e.strerror or e}") from e


def requirements() -> list[str]:
    """The package's requirements: of the source tree's pyproject.toml, or of the installed distribution."""
    project = Path(charstat.__file__).resolve().parents[1] / "pyproject.toml"
    if project.is_file():
        about = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        extras = about.get("optional-dependencies", {})
        return [*about["dependencies"], *(f"{each}; extra == '{name}'" for name, group in extras.items() for each in group)]
    try:
        return metadata.requires("charstat") or []
    except metadata.PackageNotFoundError:
        return []


def build_wheel() -> tuple[str, bytes]:
    """(file name, content) of the running package's wheel."""
    version = charstat.__version__
    info = f"charstat-{version}.dist-info"
    about = [
        "Metadata-Version: 2.1", "Name: charstat", f"Version: {version}", "Summary: Statistical character language models",
        "License: MIT", "Requires-Python: >=3.11", *(f"Requires-Dist: {each}" for each in requirements()),
    ]  # fmt: skip
    tag = ["Wheel-Version: 1.0", "Generator: charstat", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    files = package_files()
    files[f"{info}/METADATA"] = _lines(about)
    files[f"{info}/WHEEL"] = _lines(tag)
    files[f"{info}/entry_points.txt"] = _lines(["[console_scripts]", "charstat = charstat.cli:main"])
    record = [f"{path},sha256={_record_hash(content)},{len(content)}" for path, content in files.items()]
    files[f"{info}/RECORD"] = _lines([*record, f"{info}/RECORD,,"])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return f"charstat-{version}-py3-none-any.whl", out.getvalue()


def _lines(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
