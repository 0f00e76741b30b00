"""Some of each kind of hostile trial (fuzz.py); `make fuzz MINUTES=30` runs many. Seeds are hypothesis's: a failure names its own."""

import fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import charstat.warm_up

BUDGET = {
    "texts": 4,
    "api": 4,
    "directories": 12,
    "manifests": 16,
    "traced": 8,
    "moments": 6,
    "races": 3,
    "disks": 4,
    "coded": 6,
    "damaged": 8,
}  # a minute
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    words = charstat.warm_up.WARM_WORDS
    yield fuzz.World(tmp_path_factory.mktemp("world"))
    charstat.warm_up.WARM_WORDS = words  # World makes it small


def test_every_kind_is_tried():
    assert set(BUDGET) == set(fuzz.KINDS)


@pytest.mark.parametrize("kind", BUDGET)
def test_nothing_is_found(world, kind):
    @settings(max_examples=BUDGET[kind], database=None)
    @given(st.integers(0, 10**6))
    def trial(seed):
        fuzz.run(kind, world, seed)

    trial()


def test_a_child_that_crashes_hangs_or_raises_is_found():
    """The harness itself: what it must never miss."""
    import os
    import signal
    import time

    for work in (lambda: time.sleep(60), lambda: 1 / 0, lambda: os._exit(3)):
        with pytest.raises(fuzz.Found):
            fuzz.in_child(work, 0.5)
    value, _ = fuzz.in_child(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(fuzz.Found, match="crashes: SIGSEGV"):
        fuzz.sane(value, "")
    assert fuzz.in_child(lambda: (print("said"), 7)[1]) == (7, "said\n")
