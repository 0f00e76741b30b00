"""Tilting, and the bridge between tokens and bytes: against sums over everything, by hand, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charstat import TokenBridge, tilt


def tilted(p, hint, beta):
    q = p * np.exp(beta * (np.arange(len(p)) == hint))
    return q / q.sum()


class TestTilt:
    def test_against_the_whole_distribution(self):
        rng = np.random.default_rng(1)
        p = rng.dirichlet([0.5] * 6, 200)
        hint, target = rng.integers(-1, 6, 200), rng.integers(0, 6, 200)
        beta = rng.uniform(-3, 3, 200)
        wanted = [-np.log(tilted(row, h, b)[t] if h >= 0 else row[t]) for row, h, t, b in zip(p, hint, target, beta, strict=True)]
        at = np.arange(200)
        found = tilt(-np.log(p[at, target]), np.log(p[at, np.maximum(hint, 0)]), hint, target, beta)
        assert np.allclose(found, wanted, rtol=0, atol=1e-12)

    def test_it_stays_a_distribution(self):
        p = np.array([0.7, 0.2, 0.1])
        for beta in (-5.0, 0.0, 0.1, 8.0, 800.0):
            nll = tilt(-np.log(p), np.full(3, np.log(0.2)), np.full(3, 1), np.arange(3), beta)
            assert math.fsum(np.exp(-nll)) == pytest.approx(1.0, abs=1e-12)
        assert np.array_equal(tilt(-np.log(p), np.zeros(3), np.full(3, -1), np.arange(3), 4.0), -np.log(p))

    def test_a_certain_hint(self):
        assert tilt([0.0], [0.0], [3], [3], 2.0) == [0.0]
        assert tilt([math.inf], [0.0], [3], [4], 2.0) == [math.inf]

    @pytest.mark.parametrize(
        ("what", "arguments"),
        [
            ("one length", ([1.0, 1.0], [-1.0], [0, 0], [1, 1], 1.0)),
            ("one length", ([[1.0]], [[-1.0]], [[0]], [[1]], 1.0)),
            ("one length", ([1.0], [-1.0], [0], [1], [1.0, 2.0])),
            ("token ids", ([1.0], [-1.0], [0.5], [1], 1.0)),
            ("nan", ([math.nan], [-1.0], [0], [1], 1.0)),
            ("infinite beta", ([1.0], [-1.0], [0], [1], math.inf)),
            ("0 at most", ([1.0], [1.0], [0], [1], 1.0)),
            ("of one distribution", ([1.0], [-2.0], [1], [1], 1.0)),
        ],
    )
    def test_what_is_refused(self, what, arguments):
        with pytest.raises(ValueError, match=what):
            tilt(*arguments)


PIECES = [b"t", b"th", b"the", b"tha", b"e", b"a", b"h", b" ", b" the", b""]


def fair(seed, pieces=PIECES):
    p = np.random.default_rng(seed).dirichlet([0.5] * len(pieces))
    p[[i for i, piece in enumerate(pieces) if not piece]] = 0.0
    return p / p.sum()


class TestTokensToBytes:
    def test_by_hand(self):
        p = np.zeros(10)
        p[:5] = 0.1, 0.2, 0.3, 0.15, 0.25  # t, th, the, tha, e
        bridge = TokenBridge(PIECES)
        first, end = bridge.next_bytes(p)
        assert end == 0.0 and first[ord("t")] == pytest.approx(0.75) and first[ord("e")] == pytest.approx(0.25)
        then, end = bridge.next_bytes(p, b"th")
        assert (then[ord("e")], then[ord("a")], end) == pytest.approx((0.3 / 0.65, 0.15 / 0.65, 0.2 / 0.65))
        after = np.zeros(10)
        after[4:6] = 0.5  # e, a
        then, end = bridge.next_bytes(p, b"th", after)
        assert end == 0.0 and then[ord("e")] == pytest.approx(0.3 / 0.65 + 0.2 / 0.65 * 0.5) and then.sum() == pytest.approx(1.0)

    @given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=30, unique=True), st.integers(0, 99))
    def test_against_sums_over_all_pieces(self, pieces, seed):
        p, bridge = fair(seed, pieces), TokenBridge(pieces)
        for prefix in {b"", pieces[0][:1], pieces[0], pieces[-1][:2], b"\xff"}:
            fits = [i for i, piece in enumerate(pieces) if piece.startswith(prefix)]
            total = math.fsum(p[fits])
            if not total > 0.0:
                with pytest.raises(ValueError, match="no token that can come"):
                    bridge.next_bytes(p, prefix)
                continue
            found, end = bridge.next_bytes(p, prefix)
            assert found.sum() + end == pytest.approx(1.0, abs=1e-12)
            for byte in range(256):
                wanted = math.fsum(p[i] for i in fits if pieces[i][len(prefix) : len(prefix) + 1] == bytes([byte])) / total
                assert found[byte] == pytest.approx(wanted, abs=1e-12)
            assert end == pytest.approx(math.fsum(p[i] for i in fits if pieces[i] == prefix) / total, abs=1e-12)

    def test_the_bytes_of_a_token_cost_what_it_costs(self):
        bridge, ids = TokenBridge(PIECES), [8, 0, 1, 2, 9, 3, 4]
        p = np.stack([fair(seed) for seed in range(len(ids))])
        p[4] = 0.9 * p[4]
        p[4, 9] = 0.1  # a token without bytes
        charges = bridge.byte_charges(p, ids)
        assert charges.shape == (bridge.n_bytes(ids),) == (len(b" the" + b"t" + b"th" + b"the" + b"tha" + b"e"),)
        costs = [-np.log2(row[i]) for row, i in zip(p, ids, strict=True) if PIECES[i]]
        ends = np.cumsum([len(PIECES[i]) for i in ids if PIECES[i]])
        assert np.allclose([part.sum() for part in np.split(charges, ends[:-1])], costs, atol=1e-9)

    def test_characters(self):
        pieces = ["é".encode(), "éa".encode(), "é".encode()[:1], "戦".encode()[:2], b"a", b"\xff"]
        bridge, p = TokenBridge(pieces), np.array([0.1, 0.2, 0.05, 0.15, 0.4, 0.1])
        chars, rest = bridge.next_chars(p)
        assert chars == pytest.approx({"é": 0.3, "a": 0.4}) and rest == pytest.approx(0.3)
        chars, rest = bridge.next_chars(p, "é".encode()[:1])  # inside the character
        assert chars == pytest.approx({"é": 0.3 / 0.35}) and rest == pytest.approx(0.05 / 0.35)
        chars, rest = bridge.next_chars(p, "é".encode())
        assert chars == pytest.approx({"a": 0.2 / 0.3}) and rest == pytest.approx(0.1 / 0.3)

    def test_bits_per_byte(self):
        bridge = TokenBridge(PIECES)
        assert bridge.bits_per_byte(np.full(3, math.log(2)), [8, 0, 1]) == pytest.approx(3 / 7)
        assert bridge.bytes_of(np.array([8, 4], np.uint16)) == b" thee"


class TestBytesToTokens:
    def test_against_all_texts(self):
        """A memoryless byte model over three letters: the longest piece that starts each of all texts of six letters."""
        letters, weights = b"abc", (0.5, 0.3, 0.2)
        pieces = [b"a", b"b", b"c", b"ab", b"abc", b"aba", b"bb"]
        row = np.zeros(256)
        row[list(letters)] = weights
        wanted = np.zeros(len(pieces))
        for k in range(3**6):
            digits = [k // 3**d % 3 for d in range(6)]
            text = bytes(letters[d] for d in digits)
            longest = max((piece for piece in pieces if text.startswith(piece)), key=len)
            wanted[pieces.index(longest)] += math.prod(weights[d] for d in digits)
        assert np.allclose(TokenBridge(pieces).token_probs(lambda prefix: row), wanted, atol=1e-12)

    def test_there_and_back(self):
        """Pieces of which none starts another: bytes of tokens, and tokens of those bytes."""
        pieces = [b"aa", b"ab", b"b", b"ca", b"cb"]
        bridge, p = TokenBridge(pieces), fair(5, [b"aa", b"ab", b"b", b"ca", b"cb"])
        assert np.allclose(bridge.token_probs(lambda prefix: bridge.next_bytes(p, prefix)[0]), p, atol=1e-12)


BAD = {
    "two tokens are b'a'": lambda b: TokenBridge([b"a", b"b", b"a"]),
    "token 1 is str": lambda b: TokenBridge([b"a", "b"]),
    "no token has any bytes": lambda b: TokenBridge([b""]),
    "from 0 to 9": lambda b: b.n_bytes([10]),
    "in one dimension": lambda b: b.bytes_of([[1]]),
    "each of the 10 tokens": lambda b: b.next_bytes(np.ones(9) / 9),
    "take softmax": lambda b: b.next_bytes(np.ones(10)),
    "starts with b'x'": lambda b: b.next_bytes(fair(1), b"x"),
    "starts with b'z'": lambda b: b.next_chars(fair(1), b"z"),
    "a number for each of the 2 tokens": lambda b: b.bits_per_byte(np.ones(3), [1, 2]),
    "no bytes": lambda b: b.bits_per_byte(np.ones(1), [9]),
    "a row before each token": lambda b: b.byte_charges(fair(1), [1]),
    "256 probabilities": lambda b: b.token_probs(lambda prefix: np.ones(256)),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_refused(what):
    with pytest.raises((ValueError, TypeError), match=what):
        BAD[what](TokenBridge(PIECES))
