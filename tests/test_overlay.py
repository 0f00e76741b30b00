"""ngram/overlay.py against a dictionary: decay in integers, growth, forgetting at the limit, reuse of freed room."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import FAST, MOST, MOST_SEEN, SLOW, UNIT, OverlayTwin

from charstat.ngram import layers
from charstat.ngram import overlay as overlay_module
from charstat.ngram.overlay import count_symbol, ensure_room, find_slot, new_overlay, slot_list

GENERATION = 4096  # positions


class Probe:
    """All that these tests know of the layout: entries are seen << 55 | slow << 31 | fast << 7 | symbol."""

    def __init__(self, families=1, **sizes):
        self.overlay = new_overlay(families, **sizes)
        self.position = 0

    def make_room(self, steps, **limit):
        before = self.overlay
        self.overlay = ensure_room(layers.bounded(self.overlay, steps, **limit), steps, self.position, **limit)
        return self.overlay is not before

    def observe(self, family, key, symbol):
        o = self.overlay
        p = find_slot(o.slots, family, np.uint64(key))
        count_symbol(o.slots, o.used, o.pool, o.heap, o.free, family, p, np.uint64(key), symbol, self.position)

    def get(self, family, key):
        p = find_slot(self.overlay.slots, family, np.uint64(key))
        at, length = slot_list(self.overlay.slots, family, p)
        return {int(e) & 127: [int(e) >> 7 & 0xFFFFFF, int(e) >> 31 & 0xFFFFFF, int(e) >> 55] for e in self.overlay.pool[at : at + length]}

    def blocks(self):
        """(offset, room) of every list in the pool, free ones included: they must not overlap."""
        found = []
        for family in self.overlay.slots:
            for key, packed in family.tolist():
                if key:
                    found.append((packed & 0xFFFFFFFF, 1 << (packed >> 40 & 15)))
        for size_class, block in enumerate(self.overlay.free.tolist()):
            while block != 2**64 - 1:
                found.append((block, 1 << size_class))
                block = int(self.overlay.pool[block])
        return sorted(found)


def assert_pool_is_sound(probe):
    blocks = probe.blocks()
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(blocks))
    assert sum(n for _, n in blocks) == probe.overlay.heap[0] <= probe.overlay.pool.size


def assert_equal(probe, twin):
    for (family, key), counts in twin.counts.items():
        assert probe.get(family, key) == counts
    assert probe.overlay.used.tolist() == [sum(f == family for f, _ in twin.counts) for family in range(probe.overlay.used.size)]


def test_one_context_by_hand():
    probe = Probe()
    probe.make_room(10)
    for s in (5, 5, 9):
        probe.observe(0, 77, s)
    assert probe.get(0, 77) == {5: [2 * UNIT * FAST >> 16, 2 * UNIT * SLOW >> 16, 2], 9: [UNIT, UNIT, 1]}
    assert abs(probe.get(0, 77)[5][0] / UNIT - 2 * 0.4) < 1e-3 and abs(probe.get(0, 77)[5][1] / UNIT - 2 * 0.95) < 1e-3
    assert probe.get(0, 78) == {}


# Keys differ above bit 20, where slots are chosen, or only below it, so that they collide.
keys = st.one_of(st.integers(1, 6), st.integers(1, 6).map(lambda k: k << 20), st.integers(1, 2**64 - 1))
events = st.lists(st.tuples(st.integers(0, 1), keys, st.integers(0, 127)), max_size=200)


@given(events)
def test_against_the_twin(events):
    probe, twin = Probe(families=2, capacity=4, entries=4), OverlayTwin()
    for family, key, symbol in events:
        probe.make_room(1)
        probe.observe(family, key, symbol)
        twin.observe(family, key, symbol)
        assert probe.get(family, key) == twin.get(family, key)
        assert list(probe.get(family, key)) == list(twin.get(family, key))
    assert_equal(probe, twin)
    assert_pool_is_sound(probe)


@given(st.integers(0, 2**32), st.integers(1, 50))
@settings(max_examples=10)
def test_many_contexts_and_growth(seed, chunk):
    """Growing a step or many at a time moves every count along unchanged."""
    rng = np.random.default_rng(seed)
    probe, twin = Probe(families=2, capacity=4, entries=4), OverlayTwin()
    contexts = rng.integers(1, 2**64, 150, np.uint64).tolist()
    grown = 0
    for i in range(600):
        if i % chunk == 0:
            grown += probe.make_room(chunk)
        family, key, symbol = int(rng.integers(2)), contexts[int(rng.integers(150))], int(rng.integers(128) ** 2 // 128)
        probe.observe(family, key, symbol)
        twin.observe(family, key, symbol)
    assert grown >= 3
    assert_equal(probe, twin)
    assert_pool_is_sound(probe)


def test_all_symbols_in_one_context():
    """A list grows through every room, 1 to 128; its old rooms serve other contexts."""
    probe, twin = Probe(entries=4), OverlayTwin()
    for symbol in range(128):
        probe.make_room(1)
        probe.observe(0, 1 << 30, symbol)
        twin.observe(0, 1 << 30, symbol)
    assert_equal(probe, twin)
    heap = int(probe.overlay.heap[0])
    assert heap == 255  # 1 + 2 + 4 + .. + 128
    assert sorted(n for _, n in probe.blocks()) == [1, 2, 4, 8, 16, 32, 64, 128]
    for size in (64, 32, 16, 8, 4, 2, 1):  # each new list climbs only into rooms that were left
        for symbol in range(size):
            probe.make_room(1)
            probe.observe(0, (1 << 30) + size, symbol)
            twin.observe(0, (1 << 30) + size, symbol)
    assert_equal(probe, twin)
    assert_pool_is_sound(probe)
    assert probe.overlay.heap[0] < heap + 255


def test_counts_stop_at_the_top_and_never_vanish():
    probe, twin = Probe(), OverlayTwin()
    probe.make_room(6000)
    for symbol in [3] * 2100 + [4] * 400 + [3]:
        probe.observe(0, 1 << 25, symbol)
        twin.observe(0, 1 << 25, symbol)
    assert_equal(probe, twin)
    assert probe.get(0, 1 << 25)[4][0] == 400 * UNIT * FAST >> 16
    for _ in range(2100):
        probe.observe(0, 1 << 26, 3)
    assert probe.get(0, 1 << 26) == {3: [MOST, MOST, 256 + (2100 - 512) % 256]}  # the times seen are halved at 512, 768, 1024 ...
    for _ in range(2000):
        probe.observe(0, 1 << 26, 4)
    assert probe.get(0, 1 << 26)[3][0] == 1 and min(probe.get(0, 1 << 26)[3][1:]) >= 1
    assert 128 * MOST < 2**31  # all counts of a context add up in an int32


def test_decay_follows_the_integers():
    probe, fast, slow = Probe(), UNIT, UNIT
    probe.make_room(600)
    probe.observe(0, 1 << 21, 3)
    for _ in range(500):
        probe.observe(0, 1 << 21, 4)
        fast, slow = max(1, fast * FAST >> 16), max(1, slow * SLOW >> 16)
        assert probe.get(0, 1 << 21)[3] == [fast, slow, 1]
    assert (fast, slow) == (1, 1)


def test_forgetting_keeps_the_most_recent():
    """A family that would hold more than the limit keeps the half that was seen last, with its counts."""
    limit = 4 * GENERATION
    probe, twin = Probe(families=2), OverlayTwin()
    total = 5 * GENERATION
    for i in range(total):
        if i % 256 == 0:
            probe.position = i
            probe.make_room(256, limit=limit)
            assert probe.overlay.used.max() + 256 <= limit
        probe.position = i
        key = (i + 1) << 21
        probe.observe(0, key, i % 128)
        probe.observe(0, 7 << 40, i % 3)  # seen all the time
        twin.observe(0, key, i % 128)
        twin.observe(0, 7 << 40, i % 3)
        if i < 10:
            probe.observe(1, key, 1)
            twin.observe(1, key, 1)
    held = [i for i in range(total) if probe.get(0, (i + 1) << 21)]
    assert held == list(range(held[0], total)) and held[0] > 0
    assert limit // 4 <= len(held) <= limit
    for i in held[::97]:
        assert probe.get(0, (i + 1) << 21) == twin.get(0, (i + 1) << 21)
    assert probe.get(0, 7 << 40) == twin.get(0, 7 << 40)
    assert all(probe.get(1, (i + 1) << 21) == twin.get(1, (i + 1) << 21) for i in range(10))  # families forget on their own
    assert probe.overlay.used[0] == len(held) + 1
    assert_pool_is_sound(probe)


def test_forgetting_across_the_end_of_the_generation_counter():
    """Generations are 20 bits of position >> 12: after 2**32 characters they start over, and ages still compare."""
    probe = Probe()
    first = (1 << 32) - 2 * GENERATION
    limit = 3 * GENERATION
    for i in range(4 * GENERATION):
        if i % 512 == 0:
            probe.position = first + i
            probe.make_room(512, limit=limit)
        probe.position = first + i
        probe.observe(0, (i + 1) << 21, 1)
    held = [i for i in range(4 * GENERATION) if probe.get(0, (i + 1) << 21)]
    assert held == list(range(held[0], 4 * GENERATION)) and limit // 4 <= len(held) <= limit


def test_memory_stays_bounded():
    """Repeated forgetting does not grow the tables; freed lists are not leaked."""
    probe, limit = Probe(), 2 * GENERATION
    sizes = set()
    for i in range(20 * GENERATION):
        if i % GENERATION == 0:
            probe.position = i
            probe.make_room(GENERATION, limit=limit)
            sizes.add((probe.overlay.slots.size, probe.overlay.pool.size))
        probe.observe(0, (i % (3 * GENERATION) + 1) << 21, i % 5)
    assert len(sizes) <= 6
    assert probe.overlay.slots.shape[1] <= 4 * limit
    assert_pool_is_sound(probe)


def test_room_is_enough():
    """The worst case of `steps` observations: every one a new context, or every one a longer list."""
    for pattern in (lambda i: (i + 1, 0), lambda i: (1 + i // 128, i % 128), lambda i: (1 + i % 40, i // 40)):
        probe = Probe(capacity=4, entries=4)
        for _ in range(3):
            probe.make_room(1000)
            for i in range(1000):
                key, symbol = pattern(i)
                probe.observe(0, key << 21, symbol)
        assert_pool_is_sound(probe)
        assert int(probe.overlay.used[0]) < probe.overlay.slots.shape[1]


def test_enough_room_is_left_alone():
    probe = Probe()
    assert probe.make_room(100_000)
    assert not probe.make_room(100_000)


@pytest.mark.parametrize(
    ("name", "value"), [("FAST_DECAY", 0.4), ("SLOW_DECAY", 0.95), ("UNIT", UNIT), ("MAX_FIXED", MOST), ("MOST_SEEN", MOST_SEEN)]
)
def test_constants(name, value):
    assert getattr(overlay_module, name) == value


def test_room_for_full_lists_that_all_grow_at_once():
    """A list that is full takes twice its room in one step, and a block can hold thousands of such steps."""
    families, contexts, block = 2, 3000, 4096
    overlay, position = new_overlay(families), 0
    for symbol in range(17):  # rooms of 1, 2, 4, 8 and 16 entries are full; then all grow to 32 in one block
        for start in range(0, contexts, block):
            overlay = ensure_room(overlay, block, position)
            for context in range(start, min(start + block, contexts)):
                key = np.uint64((context + 1) << 20)
                for family in range(families):
                    p = find_slot(overlay.slots, family, key)
                    count_symbol(*overlay[:5], family, p, key, symbol, position)
                position += 1
            assert int(overlay.heap[0]) <= overlay.pool.size


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=20, deadline=None)
def test_an_overlay_on_a_base(seed, small):
    """Shared, brought back where they are looked up, and joined again, contexts hold what they would hold without a fork."""
    rng, before = np.random.default_rng(seed), layers.LAYER_CAPACITY
    probe, twin = Probe(families=2, capacity=4, entries=4), OverlayTwin()
    contexts = rng.integers(1, 2**64, 60, np.uint64).tolist()
    joined, layered = 0, 0
    try:
        layers.LAYER_CAPACITY = 1 if small else 64
        for i in range(400):
            if i % 10 == 0:
                probe.make_room(10)
            if i % 97 == 50:
                probe.overlay = layers.shared(probe.overlay, 10)
                base, kept = probe.overlay.base_pool, probe.overlay.base_pool.copy()
            pair = np.array([rng.choice(contexts), 0], np.uint64)
            layered += probe.overlay.layered
            if probe.overlay.layered:
                overlay_module.bring_contexts(probe.overlay, pair, np.zeros(2, np.int64))
            symbol = int(rng.integers(128) ** 2 // 128)
            probe.observe(0, int(pair[0]), symbol)
            twin.observe(0, int(pair[0]), symbol)
            if probe.overlay.layered and i % 7 == 0:
                assert probe.get(0, int(pair[0])) == twin.get(0, int(pair[0])) and np.array_equal(base, kept)
                copy = probe.overlay.copied()
                copy.pool[:] = 0
            if probe.overlay.layered and i % 61 == 0:
                probe.overlay = layers.joined(probe.overlay, 10)
                joined += 1
        probe.overlay = layers.joined(probe.overlay, 10)
    finally:
        layers.LAYER_CAPACITY = before
    assert layered and (joined or not small)
    assert_equal(probe, twin)
    blocks = probe.blocks()
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(blocks)) and probe.overlay.heap[0] <= probe.overlay.pool.size


def test_a_stream_near_its_limit_is_copied_whole():
    """Only the start of a block may forget anything, so a fork must not."""
    probe = Probe(capacity=1 << 15)
    probe.observe(0, 1 << 25, 1)
    assert layers.shared(probe.overlay, 100, limit=19_000) is probe.overlay
    assert layers.shared(probe.overlay, 100, limit=20_000).layered
