"""Encoder and Decoder: text or bytes to compressed bytes and back, in pieces.

    encoder = Encoder(model)
    data = encoder.encode("The statement") + encoder.encode(" is executed") + encoder.finish()
    decoder = Decoder(model)
    text = decoder.decode(data)
    decoder.finish()                    complains if the end is missing

Without a model nothing but the data is needed to read them: Encoder(alphabet=Alphabet.from_text(text)) takes text, Encoder() bytes.
What comes out does not depend on how the input is cut into calls. A block is given out when it is complete, or at flush().

The numbers are floating-point: files decode on any machine where the same versions of charstat, numba and numpy compile to the same
instructions. Where they do not, the checksums say so (container.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import astuple

import numpy as np

from charstat.alphabet import Alphabet
from charstat.codec.coder import Coder, finish, new_decoder, new_encoder, with_room
from charstat.codec.container import BLOCK_CHARS, BYTES, CODE_ROOM, Block, End, Reader, characters_crc
from charstat.codec.kernels import character_code, code_characters, new_scratch
from charstat.codec.sources import Source, bytes_of, check_engine, halves_of, source_for, source_of_bytes, source_of_text, source_with
from charstat.errors import FormatError, StateError
from charstat.mixers.mixture import Mixture
from charstat.model import Model
from charstat.symbol_model import one_at_a_time

ENGINE = 3  # raised with every change of the kernels that changes a probability
TELL_SYMBOLS = 1 << 14
Tell = Callable[[float], None]  # is told how much more of the input is done: characters of a text, bytes of what is decoded


class CodingStream(Mixture):
    """A mixture whose decisions go through an arithmetic coder."""

    def __init__(self, model: Model):
        super().__init__(model)
        self._characters = character_code(model.alphabet)
        self.reset()
        self._coder_scratch = new_scratch(self.state)

    @property
    def engine(self) -> int:
        """A checksum of what the probabilities depend on, the model and the compiler aside: 32 bits."""
        about = (ENGINE, self.layout.digest(), astuple(self._rates), self._limit, self.block_symbols)
        return zlib.crc32(repr(about).encode())

    @one_at_a_time
    def code(self, coder: Coder, points: np.ndarray, symbols: np.ndarray, decode: bool) -> Coder:
        """Encode characters, or fill points (uint32) and symbols (uint8) with what is decoded; returns the coder with more room."""
        for part in self._blocks(points.size):
            if not decode:
                coder = with_room(coder, CODE_ROOM * (part.stop - part.start))
            code_characters(self._fixed, self.state, coder, self._coder_scratch, self._characters, decode, points[part], symbols[part])
        return coder


class Encoder:
    """Compresses text (str, with a model or an alphabet) or bytes (with neither).

    order: the highest character order without a model. block_chars: characters in a block. TypeError for anything else to encode.
    """

    def __init__(
        self,
        model: Model | None = None,
        *,
        alphabet: Alphabet | None = None,
        order: int | None = None,
        block_chars: int = BLOCK_CHARS,
    ):
        if model is not None and (alphabet is not None or order is not None):
            raise TypeError("a model has its own alphabet and order")
        if not 1 <= block_chars <= BLOCK_CHARS:
            raise ValueError(f"block_chars must be 1..{BLOCK_CHARS}, not {block_chars}")
        source = source_with(model) if model else source_of_bytes(order) if alphabet is None else source_of_text(alphabet, order)
        self._begin(source, block_chars)

    @classmethod
    def on(cls, source: Source, block_chars: int = BLOCK_CHARS) -> Encoder:
        """An encoder on what sources.py made."""
        encoder = object.__new__(cls)
        encoder._begin(source, block_chars)
        return encoder

    def _begin(self, source: Source, block_chars: int) -> None:
        self.source, self._block_chars = source, block_chars
        self._stream = CodingStream(source.model)
        self._out = [source.header(self._stream.engine).pack()]
        self._number, self._total, self._crc = 1, 0, 0
        self._finished = False
        self._start_block()

    def _start_block(self) -> None:
        self._coder, self._chars, self._block_crc = new_encoder(1 << 12), 0, 0

    def encode(self, data: str | bytes, tell: Tell | None = None) -> bytes:
        """Compress more; returns what is complete by now, which may be nothing."""
        if self._finished:
            raise StateError("finish() has ended this text: open another Encoder")
        wanted = bytes if self.source.mode == BYTES else str
        if not isinstance(data, wanted):
            raise TypeError(f"this encoder takes {wanted.__name__}, not {type(data).__name__}")
        at, step = 0, TELL_SYMBOLS // 2 if wanted is bytes else TELL_SYMBOLS
        while at < len(data):
            piece = data[at : at + step]
            self._encode(piece)
            at += len(piece)
            if tell:
                tell(len(piece))
        return self._take()

    def _encode(self, piece: str | bytes) -> None:
        if isinstance(piece, bytes):
            symbols = halves_of(piece)
            points = symbols.astype(np.uint32)
        else:
            symbols = self.source.model.alphabet.encode(piece)
            points = np.array(np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), "<u4"), np.uint32)
        at = 0
        while at < points.size:
            part = slice(at, at + self._block_chars - self._chars)
            more = points[part]
            self._coder = self._stream.code(self._coder, more, symbols[part], False)
            self._block_crc, self._crc = characters_crc(more, self._block_crc), characters_crc(more, self._crc)
            self._chars += more.size
            at += more.size
            if self._chars == self._block_chars:
                self._end_block()

    def _end_block(self) -> None:
        if self._chars:
            self._out.append(Block(self._chars, self._block_crc, finish(self._coder)).pack(self._number))
            self._number += 1
            self._total += self._chars
            self._start_block()

    def _take(self) -> bytes:
        taken, self._out = b"".join(self._out), []
        return taken

    def flush(self) -> bytes:
        """End the block, so that all that was encoded can be decoded; costs some 15 bytes."""
        self._end_block()
        return self._take()

    def finish(self) -> bytes:
        """End the text. Nothing can be encoded after it."""
        if not self._finished:
            self._end_block()
            self._out.append(End(self._total, self._crc).pack(self._number))
            self._finished = True
        return self._take()


class Decoder:
    """The inverse of Encoder. model: the one that was compressed with, None for data that need none.

    UserError for another model, FormatError for damaged, truncated or foreign data; each says which block. What came before that block is
    intact.
    """

    def __init__(self, model: Model | None = None):
        self._model, self._reader = model, Reader()
        self._source: Source | None = None
        self._total, self._crc = 0, 0

    def decode(self, data: bytes, tell: Tell | None = None) -> str | bytes:
        """Decompress more: the text (or bytes) of the blocks that are complete by now."""
        self._reader.feed(data)
        if self._source is None and not self._open():
            return ""
        parts = []
        while part := self._reader.next_part():
            if isinstance(part, End):
                if (part.chars, part.crc) != (self._total, self._crc):
                    raise FormatError("its end is that of another text")
            else:
                parts.append(self._decode(part, tell))
        return (b"" if self._source.mode == BYTES else "").join(parts)

    def _open(self) -> bool:
        header = self._reader.header()
        if header is None:
            return False
        self._source = source_for(header, self._model)
        self._stream = CodingStream(self._source.model)
        check_engine(header, self._stream.engine)
        return True

    def _decode(self, block: Block, tell: Tell | None) -> str | bytes:
        coder = new_decoder(block.code)
        points, symbols = np.zeros(block.chars, np.uint32), np.zeros(block.chars, np.uint8)
        for at in range(0, block.chars, TELL_SYMBOLS):
            part = slice(at, at + TELL_SYMBOLS)
            self._stream.code(coder, points[part], symbols[part], True)
            if tell:
                tell(len(block.code) * points[part].size / block.chars)
        if self._source.mode == BYTES:
            points = symbols.astype(np.uint32)
        number = self._reader.number - 1
        if characters_crc(points) != block.crc:
            raise FormatError(
                f"block {number} is intact, but decodes to something else: it was compressed on another kind of machine, or with other "
                "versions of charstat, numba or numpy"
            )
        self._total, self._crc = self._total + block.chars, characters_crc(points, self._crc)
        return bytes_of(symbols) if self._source.mode == BYTES else points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def finish(self) -> None:
        """FormatError if the data ended before the text did."""
        self._reader.header()
        self._reader.check_end()
