"""Copies of what a stream holds, which is nested tuples of arrays: in memory for fork(), and for pickle.

A fork shares the arrays that nothing writes to. A pickle leaves the model's arrays to the model: of an array that is part of a column, it
stores where it lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from charstat.ngram.overlay import Overlay

if TYPE_CHECKING:
    from charstat.model import Model

T = TypeVar("T")


def copied(state: T) -> T:
    """A copy of nested tuples of arrays; arrays that are read-only (a model's tables) are shared."""
    if isinstance(state, np.ndarray):
        return state.copy() if state.flags.writeable else state
    if isinstance(state, Overlay):
        return state.copied()
    if isinstance(state, tuple):
        return _rebuilt(state, [copied(part) for part in state])
    return state


class Part(NamedTuple):
    """column[start:start + size] of a model."""

    column: str
    start: int
    size: int


class ReadOnly(NamedTuple):
    """An array that nothing writes to: pickle forgets that, but kernels are compiled for it, and forks share such arrays."""

    array: np.ndarray


def without_columns(value: Any, model: Model) -> Any:
    """Nested tuples with each array that lies in one of the model's columns replaced by a Part, other read-only ones by ReadOnly."""
    if isinstance(value, tuple):
        return _rebuilt(value, [without_columns(part, model) for part in value])
    if not isinstance(value, np.ndarray) or value.flags.writeable:
        return value
    if value.ndim != 1 or not value.size or not value.flags.c_contiguous:
        return ReadOnly(value)
    at = value.__array_interface__["data"][0]
    for name, column in model.arrays.items():
        offset = at - column.__array_interface__["data"][0]
        if value.dtype == column.dtype and 0 <= offset and offset + value.nbytes <= column.nbytes:
            return Part(name, offset // value.itemsize, value.size)
    return ReadOnly(value)


def with_columns(value: Any, model: Model) -> Any:
    """The inverse of without_columns."""
    if isinstance(value, Part):
        column = model.arrays[value.column]
        return column if value.size == column.size else column[value.start : value.start + value.size]
    if isinstance(value, ReadOnly):
        value.array.setflags(write=False)
        return value.array
    if isinstance(value, tuple):
        return _rebuilt(value, [with_columns(part, model) for part in value])
    return value


def _rebuilt(like: tuple, parts: list) -> tuple:
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)
