"""The compressed file: a header, blocks, an end; each part with its own checksum.

    header   89 "CST"  magic
             version   1 byte: FORMAT_VERSION
             size      of the body, varint
             body      mode (1 byte); charstat version; engine (4 bytes); checksum and name of the model; order (varint); alphabet
             CRC32     of all that
    block    chars     varint, 1 .. BLOCK_CHARS
             size      of the code in bytes, varint
             CRC32     of the characters: their code points, 4 bytes each
             code      what the arithmetic coder wrote (coder.py)
             CRC32     of all that, begun with the block's number
    end      0, chars in all (varint), CRC32 of all characters, CRC32 as of a block

Numbers are little-endian, varints 7 bits a byte, lowest first; strings begin with their size as a varint. `engine` is a checksum of what
gives the numbers of the mixture their meaning (stream.CodingStream.engine): another engine would decode something else.

The second CRC of a block tells damage from a decoder whose floating-point numbers differ: if the code is intact and the characters are
not those that were encoded, the file was made on another platform or by other kernels. Nothing of such a block is given out.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

import numpy as np

from charstat.alphabet import Alphabet
from charstat.errors import FormatError

MAGIC = b"\x89CST"
FORMAT_VERSION = 1
WITH_MODEL, TEXT, BYTES = 1, 2, 3  # modes: a model's alphabet; the file's own; bytes as two nibbles each
BLOCK_CHARS = 1 << 20
CODE_ROOM = 32  # bytes that a character takes at most: decisions of at least 2**-17, rare characters 2**-53
MAX_HEADER = 1 << 26
MAX_VARINT = 9  # bytes
NOT_OURS = "not a file that charstat compressed"


class Incomplete(Exception):
    """The bytes end before the part that is being read does: more are to come, or the file is truncated."""


@dataclass(frozen=True)
class Header:
    """What a decoder must know. alphabet and order: of a file that needs no model; checksum and name: of the model otherwise."""

    mode: int
    version: str
    engine: int
    checksum: bytes = b""
    name: str = ""
    order: int = 0
    alphabet: Alphabet | None = None

    def pack(self) -> bytes:
        alphabet = b"" if self.alphabet is None else _pack_alphabet(self.alphabet)
        body = b"".join([
            bytes([self.mode]), _field(self.version.encode()), self.engine.to_bytes(4, "little"), _field(self.checksum),
            _field(self.name.encode("utf-8", "replace")), _varint(self.order), _field(alphabet),
        ])  # fmt: skip
        return _sealed(MAGIC + bytes([FORMAT_VERSION]) + _field(body), 0)


@dataclass(frozen=True)
class Block:
    """Characters of one block: how many, their CRC32, and their code."""

    chars: int
    crc: int
    code: bytes

    def pack(self, number: int) -> bytes:
        """number: of the block, from 1."""
        return _sealed(_varint(self.chars) + _field(self.code, self.crc.to_bytes(4, "little")), number)


@dataclass(frozen=True)
class End:
    """After the last block: how many characters there were in all, and their CRC32."""

    chars: int
    crc: int

    def pack(self, number: int) -> bytes:
        return _sealed(b"\0" + _varint(self.chars) + self.crc.to_bytes(4, "little"), number)


def characters_crc(points: np.ndarray, crc: int = 0) -> int:
    """CRC32 of code points (uint32), going on from that of those before."""
    return zlib.crc32(np.ascontiguousarray(points, "<u4").data, crc)


class Reader:
    """Parses a file that comes in pieces: feed(bytes), then header and next_part() as far as the bytes go.

    FormatError for bytes that no encoder writes; it says which block, not which file.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._header: Header | None = None
        self.number = 0  # of the block that is read next; 0: the header
        self.ended = False

    def feed(self, data: bytes) -> None:
        self._bytes += data

    @property
    def place(self) -> str:
        """What is being read."""
        return f"block {self.number}" if self.number else "the header"

    def header(self) -> Header | None:
        """The header; None before all of it has come."""
        if self._header is None:
            try:
                self._header = self._take(self._read_body, _parse_body)
            except Incomplete:
                if not MAGIC.startswith(self._bytes[: len(MAGIC)]):
                    raise FormatError(NOT_OURS) from None
        return self._header

    def next_part(self) -> Block | End | None:
        """The next block, or the end; None before all of it has come, and after the end."""
        if self.ended:
            if self._bytes:
                raise FormatError(f"{len(self._bytes):,} bytes follow its end")
            return None
        try:
            return self._take(self._read_part)
        except Incomplete:
            return None

    def check_end(self) -> None:
        """FormatError if the end is still to come."""
        if not self.ended:
            raise FormatError(f"truncated: it ends within {self.place}")

    def _take(self, read, parse=None):
        """What read(cursor) makes of the next bytes, if their checksum matches; parse, if given, sees it only then."""
        cursor = _Cursor(self._bytes, self.place)
        part = read(cursor)
        if zlib.crc32(memoryview(cursor.bytes)[: cursor.at], self.number) != int.from_bytes(cursor.take(4), "little"):
            raise cursor.damaged("its checksum does not match")
        part = parse(part) if parse else part
        del self._bytes[: cursor.at]
        self.number += 1
        self.ended = isinstance(part, End)
        return part

    def _read_body(self, cursor: _Cursor) -> bytes:
        if cursor.take(len(MAGIC)) != MAGIC:
            raise FormatError(NOT_OURS)
        version = cursor.take(1)[0]
        if version != FORMAT_VERSION:
            raise FormatError(f"it has format version {version}; this charstat reads version {FORMAT_VERSION}")
        return cursor.field()

    def _read_part(self, cursor: _Cursor) -> Block | End:
        chars = cursor.varint()
        if chars == 0:
            return End(cursor.varint(), int.from_bytes(cursor.take(4), "little"))
        if chars > BLOCK_CHARS:
            raise cursor.damaged(f"it claims {chars:,} characters")
        size = cursor.varint()
        if size > chars * CODE_ROOM:
            raise cursor.damaged(f"it claims {size:,} bytes for {chars:,} characters")
        return Block(chars, int.from_bytes(cursor.take(4), "little"), cursor.take(size))


class _Cursor:
    """A place in bytes that moves on as they are read. Incomplete where they end."""

    def __init__(self, data: bytes | bytearray, place: str):
        self.bytes, self.at, self.place = data, 0, place

    def damaged(self, why: str) -> FormatError:
        return FormatError(f"{self.place} is damaged: {why}")

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.bytes):
            raise Incomplete
        part = bytes(self.bytes[self.at : end])
        self.at = end
        return part

    def varint(self) -> int:
        value = 0
        for i in range(MAX_VARINT):
            byte = self.take(1)[0]
            value |= (byte & 127) << (7 * i)
            if byte < 128:
                return value
        raise self.damaged("a number in it is too long")

    def field(self) -> bytes:
        size = self.varint()
        if size > MAX_HEADER:
            raise self.damaged(f"a part of it claims {size:,} bytes")
        return self.take(size)


def _parse_body(body: bytes) -> Header:
    cursor = _Cursor(body, "the header")
    try:
        mode, version = cursor.take(1)[0], cursor.field().decode()
        engine, checksum = int.from_bytes(cursor.take(4), "little"), cursor.field()
        name, order = cursor.field().decode(), cursor.varint()
        packed = cursor.field()
        if cursor.at != len(body) or mode not in (WITH_MODEL, TEXT, BYTES) or (mode == TEXT) != bool(packed):
            raise ValueError("its fields are not those that an encoder writes")
        return Header(mode, version, engine, checksum, name, order, _parse_alphabet(packed) if packed else None)
    except (Incomplete, ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as e:
        raise cursor.damaged(f"{type(e).__name__}: {e}") from e


def _pack_alphabet(alphabet: Alphabet) -> bytes:
    return zlib.compress(json.dumps(alphabet.to_dict(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"), 9)


def _parse_alphabet(packed: bytes) -> Alphabet:
    inflate = zlib.decompressobj()
    d = json.loads(inflate.decompress(packed, MAX_HEADER).decode("utf-8", "surrogatepass"))
    alphabet = Alphabet.from_dict(d)
    if not inflate.eof or any(len(c) != 1 or n < 1 for c, n in alphabet.rare.items()) or set(alphabet.rare) & set(alphabet.chars):
        raise ValueError("not an alphabet")
    return alphabet


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _field(value: bytes, between: bytes = b"") -> bytes:
    return _varint(len(value)) + between + value


def _sealed(data: bytes, number: int) -> bytes:
    return data + zlib.crc32(data, number).to_bytes(4, "little")
