"""Cutting a model to a size: find the level at which what is left fits, and write that.

    small = prune(model, max_bytes=100_000_000, out="models/small")

Decided globally: one level for the rows of all tables, and for the words (worth.py). The budget is for everything that the directory
holds, the manifest included. The same model and options give the same bytes.

    mapped    the arrays as they are, memory-mapped when the model is loaded; their bytes at a level are known without writing them
    packed    one file, decoded when the model is loaded (packing/form.py), with coarse counts: some five times as many rows fit. The level is
              found by packing, PACKINGS times at most
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from charstat.arguments import check_call, check_path, check_whole
from charstat.columns import COLUMNS
from charstat.errors import ArgumentError, UserError
from charstat.manifest import seal
from charstat.model import KEPT, Model, ModelWriter
from charstat.packing.directory import PackedColumns
from charstat.packing.form import coarse, coarse_start, compressed, pack
from charstat.pruning.levels import MAPPED_COSTS, PACKED_COSTS, ModelLevels, Whole, weigh
from charstat.pruning.spans import Scratch
from charstat.pruning.worth import HIGHEST, MIDDLE, STEPS
from charstat.storage import HEADER_BYTES, DirectoryColumns, MemoryColumns

PACKED_BELOW = 40_000_000  # smaller budgets get the packed form, unless told otherwise: they are decoded within seconds
PACKINGS = 6
NEAR = 0.985  # of the budget: near enough
MANIFEST_ROOM = 2048  # for what the manifest says of the arrays
MEASURED_CHARS = 20_000  # of a held-out text, on which the cost is measured
Tell = Callable[[str, float], None]


class Cut:
    """A model to be cut, and the level to cut it at.

    max_bytes: of the whole directory, None for no limit; min_count: contexts with fewer counts go, whatever the size; packed: the form.
    later_bytes: what will be written beside tables, vocabulary and word classes (a warm start, a build's report). scratch, whole: as in
    levels.weigh.
    """

    def __init__(
        self,
        model: Model,
        max_bytes: int | None,
        min_count: int,
        packed: bool,
        later_bytes: int = 0,
        tell: Tell | None = None,
        scratch: Scratch | None = None,
        whole: Mapping[str, Whole] | None = None,
    ):
        self.model, self.max_bytes, self.min_count, self.packed, self.later_bytes = model, max_bytes, min_count, packed, later_bytes
        tell = tell or (lambda name, share: None)
        costs = PACKED_COSTS if packed else MAPPED_COSTS
        self.levels: ModelLevels = weigh(model, costs, min_count, lambda done, n: tell("weighing", done / n), scratch, None, whole)
        self._whole = whole or {}
        self._shape = coarse if packed else None
        tell("cutting", 0.0)
        self.level = self._packed_level() if packed and max_bytes is not None else self._mapped_level()

    def _fixed_bytes(self) -> int:
        """Bytes of the manifest, with all numbers at their longest, and of what will be written later."""
        about = {k: v for k, v in self.model.manifest.items() if k in (*KEPT, "alphabet")}
        about["tables"] = {name: dict.fromkeys(entry, 1 << 40) for name, entry in self.model.manifest["tables"].items()}
        about["pruned"] = self.about(HIGHEST) | {"max_bytes": 1 << 60}
        return len(seal(about)) + MANIFEST_ROOM + self.later_bytes

    def _mapped_level(self) -> int:
        fixed = self._fixed_bytes() + HEADER_BYTES * len(COLUMNS) + self.model.classes.n_bytes
        lowest = 1 if self.min_count > 1 else 0
        if self.max_bytes is None:
            return lowest
        if (least := fixed + self.levels.mapped_bytes(HIGHEST)) > self.max_bytes:
            raise self._too_small(least)
        return first_level(lowest, HIGHEST, lambda level: fixed + self.levels.mapped_bytes(level) <= self.max_bytes)

    def _packed_level(self) -> int:
        """Packs at levels that come nearer, until one fits and is near enough. self.levels are those of what is left half way from then on."""
        fixed, budget = self._fixed_bytes(), self.max_bytes
        lowest = 1 if self.min_count > 1 else 0
        start = first_level(lowest, HIGHEST, lambda level: self.levels.packed_bytes(level) <= 2.0 * budget)
        self.levels = self.levels.narrowed(start, coarse)
        low, high, ratio = start - 1, HIGHEST, 1.0  # too much is left at low
        for _ in range(PACKINGS):
            level = first_level(low + 1, high, lambda level, ratio=ratio: fixed + ratio * self.levels.packed_bytes(level) <= 0.995 * budget)
            left = self.levels.narrowed(level).model
            size = fixed + len(pack(left.all_columns, list(left.tables.values()), left.vocabulary))
            if size <= budget:
                high = level
                if size >= NEAR * budget or level == low + 1:
                    return level
            elif level == HIGHEST:
                raise self._too_small(size)
            else:
                low = level
            ratio = max(size - fixed, 1) / max(self.levels.packed_bytes(level), 1.0)
        return high

    def _too_small(self, least: int) -> UserError:
        what = "alphabet, order 0, manifest" + (", word classes" if self.model.classes.hashes.size else "")
        return UserError(
            f"no model fits in {self.max_bytes:,} bytes: what cannot be cut takes {least:,} ({what}, and a warm start if it has one)"
        )

    def about(self, level: int) -> dict[str, Any]:
        """What the manifest says: the sizes are those before the cut."""
        before = self.model.manifest.get("pruned")
        tables = {
            name: self._whole[name].sizes() if name in self._whole else {"contexts": t.n_contexts, "rows": t.n_rows}
            for name, t in self.model.tables.items()
        }
        return {
            "max_bytes": self.max_bytes,
            "min_count": max(self.min_count, before["min_count"]) if before else self.min_count,
            "level": level,
            "bits_per_byte": 2.0 ** ((level - MIDDLE) / STEPS),
            "coarse": self.packed or bool(before and before["coarse"]),
            "words": before["words"] if before else self.model.vocabulary.size,
            "tables": before["tables"] if before else tables,
        }

    def write(self, writer: ModelWriter) -> None:
        """Add what is left to a writer."""
        self.levels.write(writer, self.level, self._shape)


def first_level(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The lowest level from `low` on that fits; `high` if none below it does. Less is left at higher levels."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def default_packed(max_bytes: int | None) -> bool:
    """Whether a budget gets the packed form where nobody says."""
    return max_bytes is not None and max_bytes < PACKED_BELOW


def check_limits(max_bytes: int | None, min_count: int, packed: bool | None) -> tuple[int | None, int, bool]:
    """The three, with the form settled. ArgumentError for values that have no meaning."""
    if packed is not None and not isinstance(packed, bool):
        raise ArgumentError(f"packed must be True, False or None, not {packed!r:.40}")
    if max_bytes is not None:
        max_bytes = check_whole(max_bytes, "max_bytes", 1)
    min_count = check_whole(min_count, "min_count", 1, (1 << 31) - 1)
    return max_bytes, min_count, default_packed(max_bytes) if packed is None else packed


def new_columns(out: str | os.PathLike | None, packed: bool) -> MemoryColumns | DirectoryColumns:
    """Where a model goes: memory, or a directory in one of the two forms."""
    if out is None:
        return MemoryColumns()
    return PackedColumns(out, Model) if packed else DirectoryColumns(out)


def prune(
    model: Model,
    *,
    out: str | os.PathLike | None = None,
    max_bytes: int | None = None,
    min_count: int = 1,
    packed: bool | None = None,
    held_out: str = "",
    progress: Tell | None = None,
) -> Model:
    """The model without what is worth least per byte; with `out`, written there as a model directory.

    max_bytes: everything that the directory holds; None for no limit. min_count: contexts that were seen fewer times go. packed: the form of
    the directory, by default packed for budgets below PACKED_BELOW; counts and warm start are coarse then. held_out: a text that was not
    counted; the manifest says what the cut costs on its first MEASURED_CHARS, and a warm start is learned anew from all of it. progress: told
    what is being done and how much of it is. What the models ctw, kneser-ney and advised read is not kept: they need all counts.

    UserError if nothing fits: its message says how many bytes the least model takes. ResourceError, FormatError: see storage.py.
    """
    if not isinstance(model, Model):
        raise ArgumentError(f"a Model is what can be pruned, not {type(model).__name__}")
    if out is not None:
        check_path(out, "out")
    if held_out:
        model.alphabet.text(held_out)  # of the model's kind
    check_call(progress, "progress")
    max_bytes, min_count, packed = check_limits(max_bytes, min_count, packed)
    columns = new_columns(out, packed)
    try:
        start = coarse_start(model.warm_start) if packed else model.warm_start
        learns = bool(held_out and start.size)
        cut = Cut(model, max_bytes, min_count, packed, start_bytes(model, packed) if learns else stored_bytes(start, packed), progress)
        writer = ModelWriter(columns)
        cut.write(writer)
        info = {k: v for k, v in model.manifest.items() if k in KEPT and k != "ctw"} | {"pruned": cut.about(cut.level)}
        if held_out:
            small = writer.preview(model.alphabet, model.contexts)
            info["pruned"]["held_out"] = cost_in_bits(model, small, held_out)
            if learns:
                from charstat.corpus import text_fingerprint
                from charstat.mixers.warm_start import learn_warm_start

                learned = learn_warm_start(small, held_out)
                start = coarse_start(learned.values) if packed else learned.values
                info["start"] = {"chars": len(held_out), "layout": learned.layout, "text": text_fingerprint(held_out)}
        if start.size:
            writer.add_start(start)
        return writer.finish(model.alphabet, model.contexts, info)
    finally:
        if not isinstance(columns, MemoryColumns):
            columns.discard()


def save(model: Model, path: str | os.PathLike, max_bytes: int | None, min_count: int, packed: bool | None) -> Model:
    """What Model.save() does where it is told more than a path."""
    if max_bytes is not None or min_count != 1:
        return prune(model, out=path, max_bytes=max_bytes, min_count=min_count, packed=packed)
    return repack(model, path, bool(packed))


def repack(model: Model, path: str | os.PathLike, packed: bool) -> Model:
    """The whole model as a directory in the other form: nothing is cut or rounded."""
    columns = new_columns(path, packed)
    try:
        for name, values in model.all_columns.items():
            columns.append(name, values)
        keep = {k: v for k, v in model.manifest.items() if k not in ("arrays", "packed", "sha256", "format", "format_version")}
        return Model(*columns.commit(keep), str(path))
    finally:
        columns.discard()


def stored_bytes(start: np.ndarray, packed: bool) -> int:
    """Bytes that a warm start takes in a model directory."""
    return len(compressed({"start": start})) if packed else start.nbytes


def start_bytes(model: Model, packed: bool) -> int:
    """Bytes that a warm start for a model takes, at most."""
    from charstat.mixers.warm_start import learn_warm_start

    mapped = learn_warm_start(model, "").values.nbytes
    return mapped * 21 // 32 if packed else mapped  # 20 of 32 bits are left of each value, and LZMA adds next to nothing


def cost_in_bits(before: Model, after: Model, text: str) -> dict[str, Any]:
    """Bits per character of a text's first MEASURED_CHARS, by the mixtures of two models without warm starts."""
    text = text[:MEASURED_CHARS]
    bits = []
    for model in (before, after):
        stream = model.stream(warm_start=False)
        stream.reset()
        bits.append(float(stream.score(text).mean()))
    return {"chars": len(text), "before": bits[0], "after": bits[1]}
