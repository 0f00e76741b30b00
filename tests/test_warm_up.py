"""warm_up.py: nothing is left to compile where seconds are measured."""

import subprocess
import sys

import numpy as np
import pytest

from charstat import counting
from charstat.counting import build_model, choose_backend
from charstat.gpu.backend import GPUBackend
from charstat.warm_up import HELD_OUT_CHARS, WARM_WORDS, warm_text, warm_up

READY = """
import sys
from numba.core.registry import CPUDispatcher
from charstat.counting import build_model, choose_backend
from charstat.warm_up import warm_up

def ready():
    modules = [m for name, m in sys.modules.items() if name.startswith("charstat")]
    return {(f.py_func.__name__, s) for m in modules for f in vars(m).values() if isinstance(f, CPUDispatcher) for s in f.overloads}

engine, _ = choose_backend("cpu", 2)
options = {"order": 9, "contexts": "wide", "models": ["mix", "ctw"]}
warm_up(engine, learns=True, **options)
before = ready()
assert len(before) > 10, before  # those that Python calls: what they call is compiled into them, and cached with them
text = open(sys.argv[1], encoding="utf-8").read()
for out in (None, sys.argv[1] + ".model"):
    build_model(text, held_out_chars=500, threads=2, backend="cpu", memory_bytes=1 << 40, out=out, **options)
print(sorted(ready() - before, key=str))
"""


def test_the_text_has_everything():
    text = warm_text(1000)
    assert len(set(text.split())) >= WARM_WORDS and len(set(text)) > 127 and "\n = Title = \n" in text


def test_a_build_finds_all_its_kernels_ready(train_text, tmp_path):
    (tmp_path / "t.txt").write_text(train_text * 30, encoding="utf-8")  # long enough for threads
    found = subprocess.run([sys.executable, "-c", READY, str(tmp_path / "t.txt")], check=False, capture_output=True, text=True, timeout=400)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(("models", "weights"), [(["mix"], False), (["mix", "ctw"], True), (["advised"], True)])
def test_what_is_run(monkeypatch, models, weights):
    asked, built = [], []
    engine = GPUBackend(np)
    monkeypatch.setattr(engine, "warm_up", lambda **options: asked.append(options))
    monkeypatch.setattr(counting, "build_model", lambda text, **options: built.append(options) or build_model(text, **options))
    for learns in (False, True):
        warm_up(engine, 3, "o0,o3,p", models, learns)
    assert asked == [{"weights": weights}] * 2
    assert [b["held_out_chars"] for b in built] == [0, HELD_OUT_CHARS] and {b["backend"] for b in built} == {"cpu"}


def test_the_cpu_has_nothing_of_its_own():
    warm_up(choose_backend("cpu", 1)[0], 2, "o0,o2", ["ppm"], False)
