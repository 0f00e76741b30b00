"""Arguments of the public functions, checked where they come in, so that a mistake is told in the caller's words."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from typing import Any

from charstat.errors import ArgumentError


def check_text(value: Any, what: str = "a text") -> str:
    """The str. ArgumentError for anything else."""
    if not isinstance(value, str):
        hint = ": decode it first" if isinstance(value, bytes | bytearray) else ""
        raise ArgumentError(f"{what} must be a str, not {type(value).__name__}{hint}")
    return value


def check_whole(value: Any, what: str, least: int, most: int | None = None) -> int:
    """The whole number, as an int. ArgumentError for anything else, and out of range."""
    try:
        n = operator.index(value)
    except TypeError:
        n = None
    if n is None or n < least or (most is not None and n > most):
        upto = "" if most is None else f" to {most:,}"
        raise ArgumentError(f"{what} must be a whole number from {least:,}{upto or ' up'}, not {value!r:.40}")
    return n


def check_call(value: Any, what: str) -> Callable | None:
    """The function, or None. ArgumentError for anything else."""
    if value is not None and not callable(value):
        raise ArgumentError(f"{what} must be a function or None, not {type(value).__name__}")
    return value


def check_path(value: Any, what: str) -> str | os.PathLike:
    """The path. ArgumentError for anything else."""
    try:
        good = isinstance(value, str | os.PathLike) and os.fspath(value) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # a lone surrogate: no file can have that name
        good = False
    if not good:
        raise ArgumentError(f"{what} must be the path of a directory, not {value!r:.40}")
    return value
