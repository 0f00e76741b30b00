"""What README and docs/ show is run: their Python, README's commands (on a small text, without the network), and its make targets."""

import importlib.util
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from click.testing import CliRunner

from charstat import build_model, evaluate, registry
from charstat.charmodel_api import CharModel
from charstat.cli import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def on_a_small_text(line: str) -> list[str]:
    """The arguments of a README command; what would need the hub is done on the embedded sample."""
    name, *args = shlex.split(line, comments=True)
    assert name == "charstat"
    if args[0] == "build":
        args += ["--limit", "20000"] + ([] if "--data" in args else ["--data", "sample"])
    if "--workers" in args:
        args += ["--workers", "1", "--worker-memory", "1G"]  # the last ones count; tests of shards have two
    if args[0] == "eval" and "--chars" not in args:
        args += ["--chars", "1000"]
    return args


def test_the_commands_run(english, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-text.txt").write_text(english[:40_000], encoding="utf-8")
    (tmp_path / "other.txt").write_text(english[40_000:42_000], encoding="utf-8")
    corpus = pyarrow.table({"text": [english[:15_000], english[15_000:30_000]]})
    (tmp_path / "corpus").mkdir()
    with pyarrow.output_stream(tmp_path / "corpus" / "one.jsonl.zst", compression="zstd") as out:
        out.write("".join(json.dumps(row) + "\n" for row in corpus.to_pylist()).encode())
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert {shlex.split(line)[1] for line in lines} == {"build", "eval", "inspect", "prune", "explain", "compress", "decompress"}
    for line in lines:
        args = on_a_small_text(line)
        result = CliRunner().invoke(cli, args)
        assert result.exit_code in ((0, 4) if args[0] == "eval" else (0,)), f"{line}\n{result.output}"


def run_python(page: str) -> dict:
    """The names that a page's blocks of Python have defined, run one after the other."""
    names: dict = {}
    for block in blocks("python", PAGES[page]):
        exec(compile(block, page, "exec"), names)  # noqa: S102
    return names


def test_the_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_python("README.md")
    assert re.fullmatch(r"0\.\d{4} right, \d\.\d{4} bits per character\n", capsys.readouterr().out)
    assert names["guess"] in names["probabilities"] and len(names["bits"]) == len(" is executed")
    assert abs(sum(names["probabilities"].values()) + names["stream"].unlisted_mass - 1) < 1e-9
    assert names["decompressed"] == "The statement is executed" and len(names["compressed"]) < 120
    assert (
        names["whole"].n_rows
        == names["charstat"].build_model(names["text"], alphabet=names["alphabet"], classes=names["left"].classes).n_rows
    )


def test_the_python_beside_a_net_runs():
    names = run_python("neural.md")
    assert len(names["costs"]) == len("looks at what was learned, learns nothing") and names["report"].clean


@pytest.mark.parametrize("page", PAGES)
def test_the_files_it_names_exist(page):
    names = re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|md)|[a-z]+/)`", PAGES[page])
    assert len(names) > 10 or page not in ("README.md", "extending.md")
    written = {"submission.py", "run_eval.py"}  # by `charstat bundle`; the contest's own
    missing = [name for name in names if not (ROOT / name).exists() and not (ROOT / "charstat" / name).exists()]
    assert set(missing) <= written | {"models/"}


@pytest.mark.parametrize("page", PAGES)
def test_its_links_lead_somewhere(page):
    here = ROOT if page == "README.md" else ROOT / "docs"
    links = [link for link in re.findall(r"\]\(([^)#]+)", PAGES[page]) if "://" not in link]
    assert [link for link in links if not (here / link).exists()] == []
    assert links or page != "README.md"


class TestTheModelOfTheWalkthrough:
    """docs/extending.md: its file as a module of the package, its entry in the registry."""

    @pytest.fixture
    def name(self, tmp_path, monkeypatch):
        file, entry = blocks("python", PAGES["extending.md"])[:2]
        where = re.match(r"# charstat/([\w/]+)\.py\n", file)[1]
        (tmp_path / "module.py").write_text(file, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"charstat.{where.replace('/', '.')}", tmp_path / "module.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setitem(sys.modules, spec.name, module)
        names = dict(vars(registry))
        opener, line = entry.split("\n\n\n")
        exec(compile(f"from __future__ import annotations\n{opener}", "extending.md", "exec"), names)  # noqa: S102
        made = eval(line, names)
        monkeypatch.setitem(registry.MODELS, made.name, made)
        return made.name

    def test_it_is_a_model_like_the_others(self, name, english):
        model, text = build_model(english[:20_000], models=(name,), threads=1), english[200_000:200_400]
        assert [c.name for c in model.contexts] == ["o0"]
        stream = model.char_model()
        result = evaluate(stream, text)
        assert 0.1 < result.accuracy < 0.6 and result.bits_per_char < math.log2(model.alphabet.size)
        assert stream.fork().score(text).mean() < result.bits_per_char - 0.5  # it has learned
        stream.reset()
        assert abs(sum(stream.predict().values()) + stream.unlisted_mass - 1) < 1e-9
        assert CharModel.score(stream, text).mean() == pytest.approx(result.bits_per_char)  # step by step


def test_the_exit_statuses_are_those_of_the_code():
    from charstat.console import CLOSED_PIPE, INTERRUPTED
    from charstat.errors import AuditFailed, CharstatError, GateMissed, UserError

    statuses = {int(status) for status in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    raised = {error.exit_code for error in (CharstatError, UserError, GateMissed, AuditFailed)}
    assert statuses == {0, *raised, INTERRUPTED, CLOSED_PIPE}


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("target", ["run", "test", "test-gpu", "lint", "clean", "help"])
def test_the_make_targets_exist(target):
    plan = subprocess.run(["make", "-n", target, "DATA=my texts"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    assert target != "run" or "build --order 8 --data 'my texts'" in plan.stdout


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 and "make test" in script.read_text()
