"""Between tokens and bytes or characters, exactly: sums over the pieces that fit, never a root of a token's probability.

A token model says P(token) at the start of a token. Of that token's first bytes some are known, the prefix; then

    P(next byte = b) = P(pieces that start with prefix + b) / P(pieces that start with prefix)
    P(it ends here)  = P(the piece that is the prefix)      / P(pieces that start with prefix)

and the factors of a piece's bytes and of its end multiply to P(token). Spreading -log P(token) evenly over the bytes instead adds up to
the same for the token that came, but over all bytes that could have come to more than 1.

The other way, a byte model gives P(text starts with a piece) for every piece; of pieces that are prefixes of each other the longest that
fits is meant (greedy segmentation):

    P(token = v) = P(starts with v) - sum of P(starts with w) over the next longer pieces w that start with v

    pieces t, th, the, e ...       next longer of t: th; of th: the
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from charstat.errors import ArgumentError

SUM_TOLERANCE = 2e-3
BYTES = 256


class TokenBridge:
    """token_bytes: the bytes of every token, in order of their ids; b"" for tokens that are no text (they may have no probability here).

    ArgumentError if two tokens have the same bytes, or one is no bytes.
    """

    def __init__(self, token_bytes: Sequence[bytes]):
        self.token_bytes = list(token_bytes)
        for i, piece in enumerate(self.token_bytes):
            if not isinstance(piece, bytes):
                raise ArgumentError(f"token {i} is {type(piece).__name__}, not bytes")
        self._ids = sorted((i for i, piece in enumerate(self.token_bytes) if piece), key=self.token_bytes.__getitem__)
        self._pieces = [self.token_bytes[i] for i in self._ids]
        for one, other in zip(self._pieces, self._pieces[1:], strict=False):
            if one == other:
                raise ArgumentError(f"two tokens are {one!r}: their probabilities cannot be told apart")
        if not self._pieces:
            raise ArgumentError("no token has any bytes")
        self._textless = np.array([not piece for piece in self.token_bytes])

    @property
    def vocab_size(self) -> int:
        return len(self.token_bytes)

    def bytes_of(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The text of tokens. ArgumentError for ids outside the vocabulary."""
        return b"".join([self.token_bytes[i] for i in self._checked_ids(ids).tolist()])

    def n_bytes(self, ids: Sequence[int] | np.ndarray) -> int:
        """How many bytes tokens stand for: what bits per byte are divided by."""
        return len(self.bytes_of(ids))

    def bits_per_byte(self, nll: np.ndarray, ids: Sequence[int] | np.ndarray) -> float:
        """Nats of each token, as bits per byte of their pieces. ArgumentError if they have another length, or stand for no bytes."""
        nll, n = np.asarray(nll, np.float64), self.n_bytes(ids)
        if nll.shape != (len(ids),):
            raise ArgumentError(f"nll must have a number for each of the {len(ids)} tokens, not the shape {nll.shape}")
        if not n:
            raise ArgumentError("these tokens stand for no bytes")
        return math.fsum(nll) / math.log(2) / n

    def next_bytes(self, p: np.ndarray, prefix: bytes = b"", after: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """(P(next byte), P(the token ends with the prefix)): float64 [256] and a number, which add up to 1.

        p: what the model says at the start of the token, float [vocab_size]. prefix: the token's bytes so far. after: what it says at the
        start of the next token, if this one is the prefix: the end's share then goes to the first byte of that, and 0.0 is left for it.
        ArgumentError if no token with any probability starts with the prefix.
        """
        p = self._checked(p)
        lo, hi = self._range(prefix)
        sums = np.concatenate([[0.0], np.cumsum(p[self._ids[lo:hi]])])
        if lo == hi or not sums[-1] > 0.0:
            raise ArgumentError(f"no token that can come starts with {prefix!r}")
        out, at = np.zeros(BYTES), lo
        end = float(p[self._ids[lo]]) if self._pieces[lo] == prefix else 0.0
        at += self._pieces[lo] == prefix
        while at < hi:
            byte = self._pieces[at][len(prefix)]
            stop = self._range(prefix + bytes([byte]))[1]
            out[byte] = sums[stop - lo] - sums[at - lo]
            at = stop
        total = math.fsum(out) + end
        out, end = out / total, end / total
        if after is None or end == 0.0:
            return out, end
        return out + end * self.next_bytes(after)[0], 0.0

    def next_chars(self, p: np.ndarray, prefix: bytes = b"") -> tuple[dict[str, float], float]:
        """({next character: P}, P(the token ends before a whole character)), which add up to 1; UTF-8 pieces.

        p, prefix: as for next_bytes; the prefix may end inside a character, whose bytes so far then count as known. Pieces that are not
        UTF-8 from there on count as the rest. ArgumentError if no token with any probability starts with the prefix.
        """
        p = self._checked(p)
        lo, hi = self._range(prefix)
        start = _char_start(prefix)
        shares: dict[str, list[float]] = {}
        rest: list[float] = []
        for i in self._ids[lo:hi]:
            char = _first_char(self.token_bytes[i][start:])
            (rest if char is None else shares.setdefault(char, [])).append(float(p[i]))
        total = math.fsum([q for share in shares.values() for q in share] + rest)
        if not total > 0.0:
            raise ArgumentError(f"no token that can come starts with {prefix!r}")
        return {char: math.fsum(share) / total for char, share in shares.items()}, math.fsum(rest) / total

    def byte_charges(self, p: np.ndarray, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Bits of every byte of a text of tokens: float64 [n_bytes(ids)]; the end of a token is charged with its last byte.

        p: what the model says before each token, float [n, vocab_size]. Of each token they add up to -log2 P(token).
        """
        ids = self._checked_ids(ids)
        rows = np.asarray(p)
        if rows.shape != (len(ids), self.vocab_size):
            raise ArgumentError(f"p must have the shape {(len(ids), self.vocab_size)}, a row before each token, not {rows.shape}")
        charges = []
        for i, row in zip(ids.tolist(), rows, strict=True):
            piece, ordered = self.token_bytes[i], np.concatenate([[0.0], np.cumsum(self._checked(row)[self._ids])])
            masses = []
            for k in range(len(piece) + 1):
                lo, hi = self._range(piece[:k])
                masses.append(ordered[hi] - ordered[lo])
            masses.append(float(row[i]))  # of the piece that ends here
            with np.errstate(divide="ignore"):
                bits = -np.diff(np.log2(np.maximum(masses, 0.0))) if masses[-1] > 0.0 else np.full(len(masses) - 1, math.inf)
            if piece:
                charges.append(np.append(bits[: len(piece) - 1], bits[len(piece) - 1] + bits[len(piece)]))
        return np.concatenate(charges) if charges else np.zeros(0)

    def token_probs(self, next_byte: Callable[[bytes], np.ndarray]) -> np.ndarray:
        """P(token) of a byte model, if text is cut into the longest pieces that fit: float64 [vocab_size].

        next_byte(prefix) -> P(next byte) after the prefix, float [256]; it is asked once for every prefix of a piece. The sum is 1 where
        every byte that can come starts some piece, and the rest is for bytes that start none.
        """
        starts: dict[bytes, float] = {b"": 1.0}
        rows: dict[bytes, np.ndarray] = {}
        out = np.zeros(self.vocab_size)
        open_pieces: list[int] = []  # pieces that are prefixes of the current one, the longest last
        for i in self._ids:
            piece = self.token_bytes[i]
            for k in range(len(piece)):
                head = piece[:k]
                if head not in rows:
                    rows[head] = _checked_bytes(next_byte(head))
                starts[piece[: k + 1]] = starts[head] * float(rows[head][piece[k]])
            while open_pieces and not piece.startswith(self.token_bytes[open_pieces[-1]]):
                open_pieces.pop()
            if open_pieces:
                out[open_pieces[-1]] -= starts[piece]
            out[i] += starts[piece]
            open_pieces.append(i)
        return np.maximum(out, 0.0)

    def _range(self, prefix: bytes) -> tuple[int, int]:
        """The pieces that start with a prefix, in sorted order: first, end."""
        lo = bisect_left(self._pieces, prefix)
        upper = prefix.rstrip(b"\xff")
        hi = bisect_left(self._pieces, upper[:-1] + bytes([upper[-1] + 1])) if upper else len(self._pieces)
        return lo, max(lo, hi)

    def _checked_ids(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        ids = np.asarray(ids, np.int64) if len(ids) == 0 else np.asarray(ids)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or not ((ids >= 0) & (ids < self.vocab_size)).all():
            raise ArgumentError(f"ids must be whole numbers from 0 to {self.vocab_size - 1}, in one dimension")
        return ids

    def _checked(self, p: np.ndarray) -> np.ndarray:
        p = np.asarray(p, np.float64)
        if p.shape != (self.vocab_size,):
            raise ArgumentError(f"p must have a probability for each of the {self.vocab_size} tokens, not the shape {p.shape}")
        if not (np.isfinite(p).all() and (p >= 0.0).all() and abs(p.sum() - 1.0) <= SUM_TOLERANCE):
            raise ArgumentError(f"p must be probabilities that add up to 1, not to {p.sum():.6g}: take softmax() of logits first")
        return np.where(self._textless, 0.0, p)


def _checked_bytes(row: np.ndarray) -> np.ndarray:
    row = np.asarray(row, np.float64)
    if row.shape != (BYTES,) or not ((row >= 0.0).all() and row.sum() <= 1.0 + SUM_TOLERANCE):  # not so for nan either
        raise ArgumentError("next_byte() must return 256 probabilities that add up to 1 at most")
    return row


def _char_start(prefix: bytes) -> int:
    """Where the last character of some UTF-8 starts if it is cut off, else the end."""
    for back in range(1, min(4, len(prefix)) + 1):
        byte = prefix[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 1 if byte < 0x80 else 2 if byte >> 5 == 6 else 3 if byte >> 4 == 14 else 4
        return len(prefix) - back if length > back else len(prefix)
    return len(prefix)


def _first_char(data: bytes) -> str | None:
    """The first character of some UTF-8; None if it is cut off, or none."""
    for length in range(1, min(4, len(data)) + 1):
        try:
            return data[:length].decode("utf-8")
        except UnicodeDecodeError:
            continue
    return None
