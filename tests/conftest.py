"""Shared by the whole suite: hypothesis profiles, and models small enough to build in a moment, built once."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from charstat.counting import build_model

pytest.register_assert_rewrite("streams")

# "suite" gives the same examples in every run; "explore" is for looking for bugs: pytest --hypothesis-profile explore
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", derandomize=True, max_examples=40, **_common)
settings.register_profile("explore", max_examples=1000, print_blob=True, **_common)
settings.load_profile("suite")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RARE = "戦–émü→∑☃🐝ßñ"  # characters that the English of the fixtures lacks


@pytest.fixture(scope="session")
def english() -> str:
    """Some 400,000 characters of real English: the documentation topics that every CPython carries."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


@pytest.fixture(scope="session")
def train_text(english) -> str:
    return english[:80_000]


@pytest.fixture(scope="session")
def held_out(english) -> str:
    """Text after the training text, with characters that it lacks."""
    piece = english[200_000:202_000]
    return "".join(c + (RARE[i // 97 % len(RARE)] if i % 97 == 50 else "") for i, c in enumerate(piece))


@pytest.fixture(scope="session")
def model(train_text):
    """The default contexts, order 8."""
    return build_model(train_text, order=8, threads=1)


@pytest.fixture(scope="session")
def crowded_text(english) -> str:
    """Text with far more than 127 distinct characters: English with every fifth letter from a large alphabet."""
    return "".join(chr(0x4E00 + i * i % 331) if i % 5 == 0 else c for i, c in enumerate(english[:30_000]))


@pytest.fixture(scope="session")
def crowded_model(crowded_text):
    """A model whose escape is frequent."""
    return build_model(crowded_text, order=5, threads=1)


@pytest.fixture(scope="session")
def wikitext_val() -> str:
    """The first 100,000 characters of WikiText-103 val; skips where ../shared/data is not there."""
    path = SHARED_DATA / "wiki.valid.raw"
    if not path.is_file():
        pytest.skip("../shared/data/wiki.valid.raw is not there")
    with open(path, encoding="utf-8", newline="") as f:
        return f.read(100_000)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The CUDA kernels compiled for the host, for FakeCupy; None without g++."""
    from fake_cupy import host_kernels

    return host_kernels(tmp_path_factory.mktemp("kernels"))
