"""bench/gpu_build.py, with and without a device (FakeCupy)."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from fake_cupy import FakeCupy

from charstat.gpu.arrays import CupyArrays


@pytest.fixture
def bench(monkeypatch):
    path = Path(__file__).resolve().parents[1] / "bench" / "gpu_build.py"
    spec = importlib.util.spec_from_file_location("gpu_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ENERGY_S", 0.0)
    return module


@pytest.mark.parametrize("with_device", [False, True])
def test_the_benchmark_runs(bench, monkeypatch, library, tmp_path, capsys, with_device):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(1 << 30, library) if with_device else None)
    if library is None:
        monkeypatch.setattr(CupyArrays, "launch", lambda *_: False)
    source, out, page = tmp_path / "text", tmp_path / "out.json", tmp_path / "page.md"
    source.write_text("The quick brown fox\njumps over 13 lazy dogs. " * 30, encoding="utf-8")
    page.write_text(f"before\n{bench.MARKS[0]}\nearlier numbers\n{bench.MARKS[1]}\nafter\n", encoding="utf-8")
    options = f"--text {source} --sizes 1k,2k --cpu-up-to 1k --repeats 2 --threads 1 --json {out} --markdown {page}".split()
    monkeypatch.setattr(sys, "argv", ["bench/gpu_build.py", *options])
    bench.main()
    written = json.loads(out.read_text())
    assert [(r["chars"], r["backend"]) for r in written["results"]] == [
        (1000, "cpu"),
        *([(1000, "gpu"), (2000, "gpu")] if with_device else []),
    ]
    for r in written["results"]:
        assert r["seconds"]["n"] == 2 and r["tables"] == written["results"][0]["tables"] or r["chars"] == 2000
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "earlier" not in text
    assert ("copies with 1 in 8" in text) == with_device
    assert ("no device was found" in text) != with_device and ("Floors by bytes moved" in text) == with_device
    assert "no device was found" in capsys.readouterr().out or with_device


def test_extended_text_is_the_text_and_then_changes(bench):
    text = bench.extend("abcdefgh 123 ß–\n" * 10, 1000)
    assert len(text) == 1000 and text[:160] == "abcdefgh 123 ß–\n" * 10
    copies = [text[i : i + 160] for i in range(160, 960, 160)]
    assert len(set(copies)) == len(copies)
    assert all(sum(a != b for a, b in zip(c, text, strict=False)) < 30 and c[13] == "ß" for c in copies)
