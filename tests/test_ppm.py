"""PPM-C and its inheriting variant: hand-worked values, slow pure-Python twins, and what must hold for every model."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import LOBSTER, model_of

from charstat.counting import build_model
from charstat.errors import ContextError, StateError
from charstat.ngram.chain import build_chain
from charstat.ngram.continuation import with_continuation
from charstat.ngram.hashing import MASK57, mix57, unmix57
from charstat.ppm import PPMC, InheritingPPM
from charstat.ppm.inheritance import COUNT_BUCKETS, FLAGS, HIGH_LOGIT, LOW_LOGIT, ONLINE_EDGES, POINTS, TYPE_BUCKETS, initial_escapes
from charstat.tree import ESCAPE

PROSE = (LOBSTER + "In life , the lobsters are blue .\n") * 3


@pytest.fixture(scope="module")
def abracadabra():
    return model_of("abracadabra", "o0,o1,o2")


def after(model, history: str, **options) -> dict[str, float]:
    """P of every symbol after a history; the escape is None."""
    ppm = PPMC(model, **options)
    ppm.reset()
    ppm.score(history)
    p = ppm.probabilities()
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    return {**{c: p[s] for c, s in model.alphabet.symbol_of.items()}, None: p[ESCAPE]}


# ---- worked by hand --------------------------------------------------------------------------------------------------------


def test_abracadabra_method_c_by_hand(abracadabra):
    """After "ra" (Cleary and Teahan 1997, table 1), over the alphabet a b c d r and the escape.

    order 2  ra -> c 1                     c 1/2                                escape 1/2
    order 1  a -> b 2, d 1 (c excluded)    b 2/6 d 1/6: three types in all      escape 3/6
    order 0  a 5, r 2 (b c d excluded)     a 5/12 r 2/12: five types            escape 5/12
    order -1                               the one symbol that is left          1
    """
    p = after(abracadabra, "ra", online=False)
    assert p["c"] == pytest.approx(1 / 2)
    assert p["b"] == pytest.approx(1 / 2 * 2 / 6)
    assert p["d"] == pytest.approx(1 / 2 * 1 / 6)
    assert p["a"] == pytest.approx(1 / 2 * 3 / 6 * 5 / 12)
    assert p["r"] == pytest.approx(1 / 2 * 3 / 6 * 2 / 12)
    assert p[None] == pytest.approx(1 / 2 * 3 / 6 * 5 / 12)


@pytest.mark.parametrize(
    ("escape", "c", "b"),
    [
        ("A", 1 / 2, 1 / 2 * 2 / 4),  # order 2: 1 of 1 + 1; order 1, c excluded: b 2, d 1, escape 1
        ("D", 1 / 2, 1 / 2 * 1.5 / 3.5),  # b 2 - 1/2, d 1 - 1/2, escape 3/2
        ("X", 1 / 3, 2 / 3 * 2 / 5),  # once-seen types: c, escape 2; order 1: d, escape 2
    ],
)
def test_other_escape_methods_by_hand(abracadabra, escape, c, b):
    p = after(abracadabra, "ra", online=False, escape=escape)
    assert p["c"] == pytest.approx(c)
    assert p["b"] == pytest.approx(b)


def test_start_at_the_shortest_deterministic_context():
    # "arabra": "ar" was followed by a once, r alone by a twice; both are deterministic, r is the shorter one.
    model = model_of("arabra", "o0,o1,o2")
    p = after(model, "ar", online=False, start="deterministic")
    assert p["a"] == pytest.approx(2 / 3)
    assert p["b"] == pytest.approx(1 / 3 * 1 / (2 + 1 + 3))  # order 0 without a: r 2, b 1, three types
    longest = after(model, "ar", online=False)
    assert longest["a"] == pytest.approx(1 / 2)


def test_update_exclusion_counts_continuations(abracadabra):
    # Order 0 counts in how many order-1 contexts a symbol was seen: a after b? no; after c, d, r: 3; b, c, d after a: 1; r after b: 1.
    p = after(abracadabra, "", online=False, update_exclusion=True)
    total = 3 + 1 + 1 + 1 + 1 + 5
    assert p["a"] == pytest.approx(3 / total)
    assert p["r"] == pytest.approx(1 / total)


def test_update_exclusion_after_hand_streaming():
    # Static counts a 1 b 1; streamed "a" is counted at order 0 (nothing longer existed), then "b": order 1 had never seen it.
    ppm = PPMC(model_of("ab", "o0,o1"), update_exclusion=True)
    ppm.reset()
    ppm.score("ab")  # a -> b was in the table: order 0 must not count this b again
    ppm.probabilities()
    counts = {int(ppm.state.counts.symbol[0, i]): ppm.state.counts.count[0, i] for i in range(ppm.state.counts.size[0])}
    symbol = ppm.alphabet.symbol_of
    assert counts == {symbol["a"]: 2.0, symbol["b"]: 1.0}


# ---- continuation counts ---------------------------------------------------------------------------------------------------


@given(st.integers(0, (1 << 56) - 1))
@settings(max_examples=50, deadline=None)
def test_unmix_is_the_inverse_of_mix(x):
    assert unmix57(mix57(np.uint64(x))) == x and 0 <= mix57(np.uint64(x)) <= MASK57


def test_continuation_counts_against_sets():
    text = PROSE[:300]
    model = model_of(text, "o0,o1,o2,o4")
    chain = with_continuation(build_chain(model))
    symbol = model.alphabet.symbol_of
    for k, (order, longer) in enumerate(((0, 1), (1, 2), (2, 4))):
        seen = {text[i - longer : i + 1] for i in range(longer, len(text))}
        want = Counter(g[-order - 1 :] for g in seen)
        for i in range(order):  # n-grams that nothing was before count once
            want.setdefault(text[i : i + order + 1], 1)
        table = model.tables[f"o{order}"]
        got, identities, starts = chain.continued[chain.continued_at[k] :], table.context_identities(), table.starts()
        for gram in {text[i - order : i + 1] for i in range(order, len(text))}:
            packed = functools.reduce(lambda p, c: p << 7 | symbol[c], gram[:-1], 0)
            at = int(np.searchsorted(identities, mix57(np.uint64(packed))))
            found = {int(row & 127): int(row >> 7) for row in got[starts[at] : starts[at + 1]]}
            assert found[symbol[gram[-1]]] == max(1, want[gram]), gram
    assert chain.continued_at[3] == -1


# ---- slow twins ------------------------------------------------------------------------------------------------------------


class SlowCounts:
    """Static and online counts per context in dictionaries; online counts in the overlay's fixed point."""

    def __init__(self, text, orders, decay):
        self.orders, self.factor = orders, round(decay * 65536)
        self.static = defaultdict(Counter)
        self.online = defaultdict(dict)
        self.history = ""
        for k in orders:
            for i in range(k, len(text)):
                self.static[k, text[i - k : i]][text[i]] += 1

    def contexts(self):
        return [(k, self.history[len(self.history) - k :]) for k in self.orders if k <= len(self.history)]

    def observe(self, char, lowest=0):
        for key in self.contexts():
            if key[0] < lowest:
                continue
            entries = self.online[key]
            for c in entries:
                if c != char:
                    entries[c] = max(1, entries[c] * self.factor >> 16)
            entries[char] = entries.get(char, 0) + 4096
        self.history += char

    def combined(self, key, static, online):
        counts = {c: static * n for c, n in self.static[key].items()}
        for c, n in self.online[key].items():
            counts[c] = counts.get(c, 0.0) + online * n / 4096
        return counts


def slow_ppm(twin, alphabet, escape, start, static, online):
    """P of every character of the alphabet (a list), by the definition."""
    levels = [c for c in (twin.combined(key, static, online) for key in twin.contexts()) if c]
    if start == "deterministic":
        for i, counts in enumerate(levels):
            if len(counts) == 1:
                levels = levels[: i + 1]
                break
    p, mass, left = dict.fromkeys(alphabet, 0.0), 1.0, set(alphabet)
    for counts in reversed(levels):
        fresh = {c: n for c, n in counts.items() if c in left}
        if not fresh:
            continue
        types = sum(min(1.0, n) for n in counts.values())
        e = {
            "A": 1.0,
            "C": types,
            "D": types / 2,
            "X": 1.0 + sum(min(1.0, n) for n in fresh.values() if n <= 1.0),
        }[escape]
        weights = {c: n - min(1.0, n) / 2 if escape == "D" else n for c, n in fresh.items()}
        left -= set(fresh)
        if not left:
            e = 0.0
        whole = sum(weights.values()) + e
        for c, w in weights.items():
            p[c] = mass * w / whole
        mass *= e / whole
    for c in left:
        p[c] = mass / len(left)
    return [p[c] for c in alphabet]


short_texts = st.text("abc d", min_size=1, max_size=40)


@given(
    train=short_texts, stream=short_texts, escape=st.sampled_from("ACDX"), start=st.sampled_from(["longest", "deterministic"]),
    weight=st.sampled_from([1.0, 4.0]), decay=st.sampled_from([1.0, 0.5]), exclusion=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_ppm_agrees_with_its_slow_twin(train, stream, escape, start, weight, decay, exclusion):
    model = build_model(train, contexts="o0,o1,o3", backend="cpu", threads=1)
    options = {"online_weight": weight, "decay": decay, "escape": escape, "start": start}
    if exclusion:
        options = {**options, "update_exclusion": True, "static_weight": 0.0}  # online counts alone: as published
    ppm = PPMC(model, **options)
    ppm.reset()
    twin = SlowCounts("" if exclusion else train, (0, 1, 3), decay)
    alphabet = [*model.alphabet.chars, None]
    for char in (c for c in stream if c in model.alphabet.symbol_of):
        got = ppm.probabilities()
        want = slow_ppm(twin, alphabet, escape, start, 1.0, weight)
        assert got[[*range(len(alphabet) - 1), ESCAPE]] == pytest.approx(want, abs=1e-12)
        assert got.sum() == pytest.approx(1.0, abs=1e-12)
        known = [key[0] for key in twin.contexts() if char in twin.online[key]]
        ppm.observe(char)
        twin.observe(char, max(known, default=0) if exclusion else 0)


class SlowInheriting:
    """The inheriting variant in plain Python, over SlowCounts."""

    def __init__(self, counts, alphabet, levels, h=0.6, floor=0.007, trust=5.0):
        self.counts, self.alphabet, self.levels, self.h, self.floor = counts, alphabet, levels, h, floor
        self.escape = initial_escapes(2 * levels).tolist()
        self.visits = [trust] * len(self.escape)
        self.spoke = []

    def layers(self):
        for level, key in enumerate(self.counts.contexts()):
            static = {c: float(n) for c, n in self.counts.static[key].items()}
            online = {c: n / 4096 for c, n in self.counts.online[key].items()}
            yield level, 0, 0, static
            yield self.levels + level, 1, int(not static), online

    def predict(self):
        q = dict.fromkeys(self.alphabet, 1.0 / len(self.alphabet))
        self.spoke = []
        for layer, online, flag, counts in self.layers():
            if not counts:
                continue
            n, mass = sum(counts.values()), sum(q[c] for c in counts)
            inner = {c: (1 - self.h) * counts[c] / n + self.h * q[c] / mass for c in counts}
            if len(counts) == len(self.alphabet) or mass >= 1 - 1e-12:
                q = {c: inner.get(c, 0.0) for c in q}
                continue
            inside = min(max(mass, 1e-6), 1 - 1e-6)
            point = (np.log(inside / (1 - inside)) - LOW_LOGIT) * (POINTS - 1) / (HIGH_LOGIT - LOW_LOGIT)
            point = min(max(point, 0.0), POINTS - 1.001)
            bucket = sum(n >= e for e in ONLINE_EDGES) if online else min(COUNT_BUCKETS - 1, max(0, int(np.floor(np.log2(n / 1.5))) + 1))
            types = sum(len(counts) > t for t in (1, 2, 3, 4, 6, 10, 20))
            at = (((layer * COUNT_BUCKETS + bucket) * TYPE_BUCKETS + types) * FLAGS + flag) * POINTS + int(point)
            part = point - int(point)
            e = min(max((1 - part) * self.escape[at] + part * self.escape[at + 1], 1e-5), 1 - 1e-5)
            self.spoke.append((at + (part >= 0.5), set(counts)))
            q = {c: (1 - e) * inner[c] if c in counts else e * q[c] / (1 - mass) for c in q}
        return [q[c] for c in self.alphabet]

    def observe(self, char):
        for at, offered in self.spoke:
            self.escape[at] += max(1 / (self.visits[at] + 1.5), self.floor) * ((char not in offered) - self.escape[at])
            self.visits[at] += 1
        self.counts.observe(char)


@given(train=short_texts, stream=short_texts)
@settings(max_examples=30, deadline=None)
def test_inheriting_ppm_agrees_with_its_slow_twin(train, stream):
    model = build_model(train, contexts="o0,o1,o3", backend="cpu", threads=1)
    ppm = InheritingPPM(model, decay=0.6)
    ppm.reset()
    alphabet = [*model.alphabet.chars, None]
    twin = SlowInheriting(SlowCounts(train, (0, 1, 3), 0.6), alphabet, 3)
    for char in (c for c in stream if c in model.alphabet.symbol_of):
        got = ppm.probabilities()
        assert got[[*range(len(alphabet) - 1), ESCAPE]] == pytest.approx(twin.predict(), abs=1e-9)
        ppm.observe(char)
        twin.observe(char)


# ---- what must hold for every model ------------------------------------------------------------------------------------------

EVERY = [
    functools.partial(PPMC),
    functools.partial(PPMC, escape="D", start="deterministic", online_weight=16.0, decay=0.8),
    functools.partial(PPMC, escape="X", update_exclusion=True, max_order=2),
    functools.partial(PPMC, escape="A", online=False),
    functools.partial(InheritingPPM),
]


@pytest.mark.parametrize("make", EVERY)
def test_probabilities_sum_to_one_at_every_step(make):
    ppm = make(model_of(PROSE))
    ppm.reset()
    for char in PROSE[100:250] + "ßqz€" + PROSE[:50]:
        p = ppm.probabilities()
        assert p.sum() == pytest.approx(1.0, abs=1e-9) and (p >= 0).all()
        assert (p[: ppm.alphabet.size] > 0).all() and p[ppm.alphabet.size : ESCAPE].sum() == 0
        ppm.observe(char)


@pytest.mark.parametrize("make", EVERY)
def test_steps_batches_and_reset_agree(make):
    ppm = make(model_of(PROSE))
    stream = PROSE[40:140] + "ß" + PROSE[:60]
    ppm.reset()
    guesses, bits = ppm.guess_and_score(stream)
    ppm.reset()
    for i, char in enumerate(stream):
        listed = ppm.predict()
        assert sum(listed.values()) + ppm.unlisted_mass == pytest.approx(1.0, abs=1e-9)
        assert ppm.predict_char() == guesses[i]
        assert -np.log2(ppm.probability(char)) == bits[i]
        ppm.observe(char)
    ppm.reset()
    assert (ppm.score(stream) == bits).all()


@pytest.mark.parametrize("make", EVERY)
def test_the_future_does_not_change_the_past(make):
    one, two = make(model_of(PROSE)), make(model_of(PROSE))
    one.reset(), two.reset()
    assert (one.score(PROSE[:120] + "abc")[:120] == two.score(PROSE[:120] + "zzzzzzzz")[:120]).all()


def test_learning_online_pays_on_repeated_text():
    for make in (PPMC, InheritingPPM):
        ppm = make(model_of(PROSE))
        ppm.reset()
        first, second = ppm.score("qwerty zxcvb " * 4).reshape(4, -1).sum(axis=1)[[0, 3]]
        assert second < 0.6 * first


def test_halving_keeps_counts_in_range():
    ppm = PPMC(model_of("ab", "o0,o1"))
    ppm.reset()
    bits = ppm.score("a" * 5000)
    assert np.isfinite(bits).all() and bits[-1] < 0.01
    assert ppm.probabilities().sum() == pytest.approx(1.0, abs=1e-9)


def test_overlay_limit_bounds_memory():
    ppm = PPMC(model_of(PROSE), overlay_limit=1)  # the least that is possible: two chunks
    ppm.reset()
    rng = np.random.default_rng(5)
    ppm.score("".join(rng.choice(list("abcdefgh"), 30_000)))
    assert ppm.state.overlay.used.max() <= 2 * 4096 + 4096
    assert ppm.probabilities().sum() == pytest.approx(1.0, abs=1e-9)


def test_user_mistakes():
    model = model_of("abracadabra", "o0,o1,o2")
    with pytest.raises(ContextError, match="A, C, D, X"):
        PPMC(model, escape="B")
    with pytest.raises(StateError, match="reset"):
        PPMC(model).predict()
    with pytest.raises(ContextError, match="o0"):
        PPMC(model_of("abracadabra", "o1,o2"))
    ppm = PPMC(model)
    ppm.reset()
    with pytest.raises(ValueError, match="one character"):
        ppm.observe("ab")
