"""manifest.json: sealed when it is written, read within bounds, and checked field by field.

    {"format": "charstat-model", ..., "arrays": {...}, "sha256": "..."}     sha256: of the file without that last field, byte for byte

Every field that charstat reads has its name, type and range here, and nowhere else. Names that are not listed here are refused, except
inside `data`, which describes the text in whatever words the caller chose. What must fit together (places in the columns, bits of a
table) is checked by model.py and verify.py.

What a manifest can cost is bounded: MAX_BYTES on disk, JSON nested as deep as Python's reader goes, and lists no longer than said here.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from charstat.errors import FormatError, UserError

FORMAT = "charstat-model"
FORMAT_VERSION = 3
TOKEN_FORMAT = "charstat-tokens"
TOKEN_FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAX_BYTES = 48 << 20  # 1.1 million rare characters, all that Unicode has room for, take 32 MB
MAX_CHARS = (1 << 31) - 1  # characters of a text that is counted at once: counts and row numbers have 32 bits
MAX_TEXT = 1 << 62  # characters of a text that is counted in shards
MAX_ROWS = (1 << 32) - 1
MAX_WORDS = 1 << 24  # hashing.WORD_ID_BITS
MAX_VALUES = 1 << 40  # of a column, all tables together
MAX_PARTS = 1000  # texts and builds that a merged model lists
MAX_STRING = 1 << 16


class Kind(NamedTuple):
    """A kind of model directory: its format's name and version, and what messages call it."""

    format: str
    version: int
    called: str


MODEL = Kind(FORMAT, FORMAT_VERSION, "a charstat model")
TOKEN_MODEL = Kind(TOKEN_FORMAT, TOKEN_FORMAT_VERSION, "a token model")
KINDS = {kind.format: kind for kind in (MODEL, TOKEN_MODEL)}

Check = Callable[[Any, str], None]
"""Raises ValueError, naming the field, if the value is none that may stand there."""


# What a field may hold ---------------------------------------------------------------------------------------------------


def _wrong(where: str, wanted: str, value: object) -> ValueError:
    shown = repr(value) if not isinstance(value, dict | list | str) or len(value) < 40 else type(value).__name__
    return ValueError(f"{where or 'the whole'} must be {wanted}, not {shown[:80]}")


def whole(low: int, high: int) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise _wrong(where, f"a whole number from {low:,} to {high:,}", value)

    return check


def number(low: float = -1e300, high: float = 1e300) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) not in (int, float) or not low <= value <= high:  # not so for nan either
            raise _wrong(where, f"a number from {low:g} to {high:g}", value)

    return check


def string(pattern: str | None = None, most: int = MAX_STRING) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or len(value) > most or (pattern is not None and re.fullmatch(pattern, value) is None):
            raise _wrong(where, "a string" if pattern is None else f"a string like {pattern}", value)

    return check


def maybe(check: Check) -> Check:
    """That, or null."""
    return lambda value, where: None if value is None else check(value, where)


def listed(check: Check, least: int = 0, most: int = MAX_PARTS) -> Check:
    def check_list(value: Any, where: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise _wrong(where, f"a list of {least} to {most:,}", value)
        for i, item in enumerate(value):
            check(item, f"{where}[{i}]")

    return check_list


def mapped(check_key: Check, check: Check, most: int) -> Check:
    def check_mapping(value: Any, where: str) -> None:
        if not isinstance(value, dict) or len(value) > most:
            raise _wrong(where, f"an object of at most {most:,} fields", value)
        for key, item in value.items():
            check_key(key, f"a name in {where}")
            check(item, f"{where}.{key[:40]}")

    return check_mapping


def record(fields: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """An object with these fields, all there, maybe the optional ones, and no others."""
    known = fields | (optional or {})

    def check_record(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        inside = f"{where}." if where else ""
        for name in fields:
            if name not in value:
                raise ValueError(f"{inside}{name} is missing")
        for name, item in value.items():
            if name not in known:
                raise ValueError(f"{inside}{str(name)[:40]} is no field that this charstat knows")
            known[name](item, f"{inside}{name}")

    return check_record


def anything(value: Any, where: str, depth: int = 8) -> None:
    """Any JSON value that is not nested deeper than `depth`."""
    if isinstance(value, dict | list) and depth > 0:
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise _wrong(where, "an object whose names are strings", value)
        for item in value.values() if isinstance(value, dict) else value:
            anything(item, where, depth - 1)
    elif not (value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))):
        raise _wrong(where, "a JSON value that is not nested deeply", value)
    elif type(value) is int and abs(value) >= 1 << 64:
        raise _wrong(where, "a number of at most 64 bits", value)


# The fields --------------------------------------------------------------------------------------------------------------


def _context(value: Any, where: str) -> None:
    from charstat.ngram.contexts import parse_context

    if parse_context(value).name != value:  # ContextError, a ValueError, if there is none of that name
        raise ValueError(f"{where}: {value} is not how that context is written")


def _token_context(value: Any, where: str) -> None:
    from charstat.tokens.contexts import parse_token_context

    parse_token_context(value)


def _character(value: Any, where: str) -> None:
    if not isinstance(value, str) or len(value) != 1:
        raise _wrong(where, "one character", value)


def _data(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    anything(value, where)
    for name, check in DATA.items():
        if name in value:
            check(value[name], f"{where}.{name}")


def _flag(value: Any, where: str) -> None:
    if type(value) is not bool:
        raise _wrong(where, "true or false", value)


ANY_TEXT = string()
HEX = string("[0-9a-f]{64}")
JOULES, SECONDS = maybe(number(-1e15, 1e15)), number(0, 1e12)
DATA: dict[str, Check] = {
    "name": ANY_TEXT, "kind": string("hub|directory|file|sample|files|dataset|stdin"), "layout": string("contest|release|plain"), "description": ANY_TEXT,
    "path": maybe(string("[^\0]*", 4096)), "split": string("train|val|test"), "limit": maybe(whole(1, 1 << 62)),
}  # fmt: skip
TEXT = record({}, {"chars": whole(0, MAX_TEXT), "sha256": HEX, "history_chars": whole(0, MAX_CHARS), "more_parts": whole(1, MAX_CHARS),
                   "parts": listed(record({}, {"chars": whole(0, MAX_CHARS), "sha256": HEX, "history_chars": whole(0, MAX_CHARS)}))})  # fmt: skip
PHASES = listed(record({"name": string(most=100), "seconds": SECONDS, "gpu_gross_j": JOULES, "cpu_j": JOULES}))
ENERGY = record({
    "seconds": SECONDS, "gpu_name": maybe(ANY_TEXT), "idle_watts": number(0, 1e9), "phases": PHASES,
    "gpu_gross_j": JOULES, "gpu_net_j": JOULES, "cpu_j": JOULES, "contest_main_j": JOULES, "contest_dev_j": JOULES,
    "reasons": mapped(string(most=100), ANY_TEXT, 100), "warnings": listed(ANY_TEXT), "notes": listed(ANY_TEXT),
})  # fmt: skip
ONE_BUILD = {"backend": string(most=100), "device": ANY_TEXT, "reason": ANY_TEXT, "notes": listed(ANY_TEXT), "seconds": SECONDS,
             "phases": PHASES, "energy": maybe(ENERGY)}  # fmt: skip
BUILD = record({}, ONE_BUILD | {"merged": listed(maybe(record({}, ONE_BUILD)))})
TABLE = record({
    "bits": whole(0, 57), "start_bits": whole(1, 32), "contexts": whole(0, MAX_ROWS), "rows": whole(0, MAX_ROWS),
    "bucket_at": whole(0, MAX_VALUES), "record_at": whole(0, MAX_VALUES), "row_at": whole(0, MAX_VALUES), "sum_at": whole(0, MAX_VALUES),
})  # fmt: skip
ALPHABET = record({
    "chars": listed(_character, 1, 127), "tree": string("[(.]{3,255}"), "rare": mapped(_character, whole(1, MAX_TEXT), 0x110000),
}, {"bytes": _flag})  # fmt: skip
CTW = record({"alpha": number(1e-9, 1e9), "levels": mapped(_context, listed(whole(0, MAX_VALUES), 2, 2), 100)})
PRUNED = record({
    "max_bytes": maybe(whole(1, 1 << 62)), "min_count": whole(1, MAX_CHARS), "level": whole(0, 1 << 16), "bits_per_byte": number(0, 1e12),
    "words": whole(0, MAX_WORDS), "coarse": _flag,
    "tables": mapped(_context, record({"contexts": whole(0, MAX_ROWS), "rows": whole(0, MAX_ROWS)}), 5000),
}, {"held_out": record({"chars": whole(1, MAX_CHARS), "before": number(0, 1e6), "after": number(0, 1e6)})})  # fmt: skip
CARRIED = record({
    "path": maybe(string("[^\0]*", 4096)), "sha256": HEX, "chars": whole(1, MAX_CHARS), "cold": listed(_context, most=5000),
    "left_out": listed(_context, most=5000), "characters": whole(0, 127), "nodes": whole(0, 127), "classes": whole(0, 1 << 16),
    "cold_rows": listed(string("[a-z0-9_]+", 40)),
})  # fmt: skip
START = record({"chars": whole(1, MAX_CHARS)}, {"text": TEXT, "layout": string("[0-9a-z]+", 64), "from": CARRIED})
FIELDS: dict[str, Check] = {
    "charstat_version": string(most=100), "alphabet": ALPHABET, "tables": mapped(_context, TABLE, 5000), "words": whole(0, MAX_WORDS),
}  # fmt: skip
MORE_FIELDS: dict[str, Check] = {
    "order": whole(0, 24), "preset": maybe(ANY_TEXT), "models": listed(string("[a-z][a-z0-9_-]*", 40), 1, 100), "ctw": CTW, "start": maybe(START),
    "text": maybe(TEXT), "data": maybe(_data), "build": maybe(BUILD), "pruned": PRUNED,
}  # fmt: skip
ARRAY = record({"dtype": string(most=8), "size": whole(0, MAX_VALUES), "sha256": HEX})


def _stored(kind: Kind) -> dict[str, Check]:
    arrays = mapped(string("[a-z_]+", 40), ARRAY, 100)
    return {"format": string(kind.format), "format_version": whole(kind.version, kind.version), "arrays": arrays, "sha256": HEX}


PACKED_FORM = record({"bytes": whole(0, MAX_VALUES), "sha256": HEX})
_CHECK = record(FIELDS, MORE_FIELDS | _stored(MODEL) | {"packed": PACKED_FORM})
TOKENS = record({}, {"tokens": whole(0, MAX_CHARS), "sha256": HEX, "history_tokens": whole(0, MAX_CHARS),
                     "parts": listed(record({}, {"tokens": whole(0, MAX_CHARS), "sha256": HEX, "history_tokens": whole(0, MAX_CHARS)}))})  # fmt: skip
TOKENS_PRUNED = record({
    "max_bytes": maybe(whole(1, 1 << 62)), "min_count": whole(1, 1 << 20),
    "tables": mapped(_token_context, record({"contexts": whole(0, MAX_ROWS), "rows": whole(0, MAX_ROWS)}), 100),
}, {"held_out": record({"tokens": whole(1, MAX_CHARS), "before": number(0, 1e6), "after": number(0, 1e6)})})  # fmt: skip
_CHECK_TOKENS = record(
    {"charstat_version": string(most=100), "vocab_size": whole(2, 1 << 16), "tables": mapped(_token_context, TABLE, 100)},
    {"text": TOKENS, "data": maybe(_data), "build": BUILD, "start": maybe(record({"tokens": whole(1, MAX_CHARS), "layout": HEX})), "pruned": TOKENS_PRUNED} | _stored(TOKEN_MODEL),
)  # fmt: skip


def check_manifest(manifest: dict) -> None:
    """ValueError, naming the field, unless every field is known and holds what it may."""
    _CHECK(manifest, "")
    names = [*manifest["alphabet"]["chars"], *manifest["alphabet"]["rare"]]
    if len(set(names)) != len(names):
        raise ValueError("alphabet: a character occurs twice")


def check_token_manifest(manifest: dict) -> None:
    """check_manifest() for a token model's."""
    _CHECK_TOKENS(manifest, "")


def check_data(data: object) -> None:
    """UserError unless it can stand in a manifest as the description of a text."""
    try:
        maybe(_data)(data, "data")
    except ValueError as e:
        raise UserError(f"this description of the text cannot be kept with a model: {e}") from None


# Files -------------------------------------------------------------------------------------------------------------------

_SEAL_HEAD, _SEAL_TAIL = b',\n "sha256": "', b'"\n}\n'
_SEAL_BYTES = len(_SEAL_HEAD) + 64 + len(_SEAL_TAIL)


def seal(manifest: dict) -> bytes:
    """The bytes of manifest.json: the fields as given, with the checksum of all of them last."""
    text = json.dumps({k: v for k, v in manifest.items() if k != "sha256"}, indent=1, allow_nan=False).encode()
    return text[:-2] + _SEAL_HEAD + hashlib.sha256(text).hexdigest().encode() + _SEAL_TAIL


def is_sealed(data: bytes) -> bool:
    """Whether the bytes are as seal() wrote them."""
    body, tail = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    return tail == _SEAL_HEAD + hashlib.sha256(body + b"\n}").hexdigest().encode() + _SEAL_TAIL


def parse(data: bytes) -> Any:
    """The JSON value in the bytes. ValueError for whatever is none, nested too deep, or holds numbers that JSON has not."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a number")

    def finite(digits: str) -> float:
        return value if math.isfinite(value := float(digits)) else refuse(digits)

    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read(data: bytes, path: object, kind: Kind = MODEL) -> dict:
    """The manifest in the bytes of a model directory's manifest.json, sealed and of this kind and version. FormatError says what is wrong."""
    try:
        manifest = parse(data)
    except ValueError as e:
        raise FormatError(f"{path}/{MANIFEST} cannot be read: {e}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != kind.format:
        other = KINDS.get(found) if isinstance(found, str) else None
        why = f"it is {other.called}" if other else f"its {MANIFEST} has another format"
        raise FormatError(f"{path} is not {kind.called}: {why}")
    version = manifest.get("format_version")
    if type(version) is not int or version != kind.version:
        raise FormatError(f"{path} has format version {str(version)[:20]}; this charstat reads version {kind.version}: build it again")
    if not is_sealed(data):
        raise FormatError(f"{path}/{MANIFEST} was changed after it was written: its checksum does not match")
    return manifest
