"""Importing charstat stays light: what reads the hub is imported when the hub is read, and by nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("datasets", "pandas", "pyarrow")
BLOCKED = f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None  # import says that it is missing
sys.path.insert(0, {str(ROOT)!r})
"""


def blocked(code: str, *args: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", BLOCKED + code, *map(str, args)], check=False, capture_output=True, text=True)


def test_every_stream_runs_without_them():
    code = """
import charstat
for name in charstat.__all__:
    getattr(charstat, name)
from charstat.registry import MODELS
text = charstat.open_corpus("sample").text("train", limit=3000)
model = charstat.build_model(text, order=3, threads=1)
for name in MODELS:
    stream = model.char_model(name)
    stream.reset()
    assert stream.score("The end.").shape == (8,)
print(*sorted(set(sys.modules) & {"torch", "cupy", "matplotlib"}), "fine")
"""
    found = blocked(code)
    assert found.returncode == 0 and found.stdout.strip() == "fine", found.stderr


def test_the_hub_says_what_is_missing():
    found = blocked("import charstat\ncharstat.open_corpus('wikitext-103').text('val')")
    assert "HubUnavailable" in found.stderr and "import of datasets halted" in found.stderr


def test_the_character_net_runs(english, tmp_path):
    """The example beside a net, in a small size."""
    pytest.importorskip("torch", reason="the extra `examples` is not installed (torch)")
    (tmp_path / "text.txt").write_text(english, encoding="utf-8")
    code = """
import runpy
main = runpy.run_path(sys.argv[1], run_name="example")["main"]
size = "--chars 60000 --order 4 --cpu-seconds 3 --hidden 48 --tune-at 0 --windows 10000 12000 --window-chars 1000"
results = main(["--data", sys.argv[2], *size.split()])
bits = [[b for b, _ in row] for row in results.values()]
assert len(results) == 5 and all(len(row) == 2 for row in bits)
own, net, linear, softmax, advised = bits
for window in range(2):
    assert own[window] < net[window], bits  # three seconds of training
    assert linear[window] <= own[window] + 0.05 and softmax[window] < net[window] and advised[window] < own[window] + 0.05, bits
"""
    found = blocked(code, ROOT / "examples" / "torch_character_net.py", tmp_path / "text.txt")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "stream(experts=1), advice=" in found.stdout


def test_the_token_net_runs(english, tmp_path):
    """The example of token ids, in a small size: tables, hints, tilt and the audit."""
    for name in ("torch", "tokenizers"):
        pytest.importorskip(name, reason=f"the extra `examples` is not installed ({name})")
    (tmp_path / "text.txt").write_text(english, encoding="utf-8")
    code = """
import runpy
main = runpy.run_path(sys.argv[1], run_name="example")["main"]
size = "--chars 200000 --vocab 400 --held-out 2000 --cpu-seconds 4 --hidden 48 --windows 10000 12000 --window-chars 1000"
counted, empty, net, linear, tilted, beside_empty, beside = main(["--data", sys.argv[2], *size.split()]).values()
for window in range(2):
    assert counted[window] < net[window] and tilted[window] < net[window] and linear[window] < net[window]
    assert beside_empty[window] < min(empty[window], net[window]) and beside[window] < counted[window] + 0.05
"""
    found = blocked(code, ROOT / "examples" / "token_net.py", tmp_path / "text.txt")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "counted, advice_logp=" in found.stdout and "audit: clean (7 checks" in found.stdout
