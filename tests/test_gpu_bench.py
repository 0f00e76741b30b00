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
    options = (
        f"--text {source} --sizes 1k,2k --cpu-up-to 1k --repeats 2 --weights-up-to 1k --threads 1 --json {out} --markdown {page}".split()
    )
    monkeypatch.setattr(sys, "argv", ["bench/gpu_build.py", *options])
    bench.main()
    written = json.loads(out.read_text())
    assert [(r["chars"], r["backend"]) for r in written["results"]] == [
        (1000, "cpu"),
        *([(1000, "gpu"), (2000, "gpu")] if with_device else []),
    ]
    for r in written["results"]:
        assert r["seconds"]["n"] == 2 and r["tables"] == written["results"][0]["tables"] or r["chars"] == 2000
    assert [(w["chars"], w["backend"], len(w["seconds"])) for w in written["weights"]] == [
        (1000, "cpu", 2),
        *([(1000, "gpu", 2)] if with_device else []),
    ]
    assert all(w["failed"] is None and w["betas"] == written["weights"][0]["betas"] and w["notes"] == [] for w in written["weights"])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "earlier" not in text
    assert ("copies with 1 in 8" in text) == with_device
    assert ("no device was found" in text) != with_device and ("Floors by bytes moved" in text) == with_device
    assert "no device was found" in capsys.readouterr().out or with_device


def without_device(bench, monkeypatch, tmp_path, options):
    monkeypatch.setitem(sys.modules, "cupy", None)
    source, out = tmp_path / "text", tmp_path / "out.json"
    source.write_text("The quick brown fox\njumps over 13 lazy dogs. " * 60, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["bench/gpu_build.py", *f"--text {source} --threads 1 --json {out} {options}".split()])
    bench.main()
    return json.loads(out.read_text())["results"]


def test_repeats_for_each_size(bench, monkeypatch, tmp_path, capsys):
    results = without_device(bench, monkeypatch, tmp_path, "--sizes 1k,2k,9k --repeats 3,1,2 --cpu-up-to 2k --memory 1G")
    assert [(r["chars"], r["seconds"]["n"]) for r in results] == [(1000, 3), (2000, 1)]
    shown = capsys.readouterr().out
    assert "| 1,000 | cpu | 3 | " in shown and "| 2,000 | cpu | 1 | " in shown and "9,000" not in shown


def test_weights_that_fail_are_a_line_of_the_report(bench, monkeypatch, tmp_path, capsys):
    def fail(*_):
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr("charstat.cpu.backend.CPUBackend.weigh", fail)
    results = without_device(bench, monkeypatch, tmp_path, "--sizes 1k,2k --repeats 1")
    shown = capsys.readouterr().out
    assert (
        len(results) == 2 and "| 2,000 | cpu | 0 | – | 0 | 0 |" in shown and "- 1,000 cpu: RuntimeError: an illegal memory access" in shown
    )


def test_what_was_measured_is_kept(bench, monkeypatch, tmp_path):
    """The files are written after every size: when a later one fails, the earlier ones are there."""
    measure = bench.measure

    def fail(machine, name, text, repeats, args):
        if len(text) > 1000:
            raise MemoryError
        return measure(machine, name, text, repeats, args)

    monkeypatch.setattr(bench, "measure", fail)
    with pytest.raises(MemoryError):
        without_device(bench, monkeypatch, tmp_path, "--sizes 1k,2k --repeats 1")
    assert [r["chars"] for r in json.loads((tmp_path / "out.json").read_text())["results"]] == [1000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--sizes 1k,2k --repeats 1,2,3", "--repeats has 3 numbers for 2 sizes"),
        ("--sizes 1k --repeats 0", "'0' is not a number such as 5M"),
        ("--sizes 1k,", "'' is not a number such as 5M"),
        ("--sizes big", "'big' is not a number such as 5M"),
        ("--memory infG", "'infG' is not a number such as 5M"),
        ("--sizes 2k --cpu-up-to 1k", "no size is within --cpu-up-to"),
    ],
)
def test_mistakes(bench, monkeypatch, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        without_device(bench, monkeypatch, tmp_path, options)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("chunk", [7, 160, 1 << 24])
def test_extended_text_is_the_text_and_then_changes(bench, monkeypatch, chunk):
    whole = bench.extend("abcdefgh 123 ß–\n" * 10, 1000)
    monkeypatch.setattr(bench, "CHUNK_CHARS", chunk)
    text = bench.extend("abcdefgh 123 ß–\n" * 10, 1000)
    assert text == whole
    assert len(text) == 1000 and text[:160] == "abcdefgh 123 ß–\n" * 10
    copies = [text[i : i + 160] for i in range(160, 960, 160)]
    assert len(set(copies)) == len(copies)
    assert all(sum(a != b for a, b in zip(c, text, strict=False)) < 30 and c[13] == "ß" for c in copies)
