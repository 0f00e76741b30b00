"""What the README shows is run: its Python, its commands (on a small text, without the network), and its make targets."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from charstat.cli import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def on_a_small_text(line: str) -> list[str]:
    """The arguments of a README command; what would need the hub is done on the embedded sample."""
    name, *args = shlex.split(line, comments=True)
    assert name == "charstat"
    if args[0] == "build":
        args += ["--limit", "20000"] + ([] if "--data" in args else ["--data", "sample"])
    if args[0] == "eval" and "--chars" not in args:
        args += ["--chars", "1000"]
    return args


def test_the_commands_run(english, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-text.txt").write_text(english[:40_000], encoding="utf-8")
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert {shlex.split(line)[1] for line in lines} == {"build", "eval", "inspect"}
    for line in lines:
        args = on_a_small_text(line)
        result = CliRunner().invoke(cli, args)
        assert result.exit_code in ((0, 4) if args[0] == "eval" else (0,)), f"{line}\n{result.output}"


def test_the_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102
    assert re.fullmatch(r"0\.\d{4} right, \d\.\d{4} bits per character\n", capsys.readouterr().out)
    assert names["guess"] in names["probabilities"] and len(names["bits"]) == len(" is executed")
    assert abs(sum(names["probabilities"].values()) + names["stream"].unlisted_mass - 1) < 1e-9
    assert names["whole"].n_rows == names["charstat"].build_model(names["text"]).n_rows


def test_the_files_it_names_exist():
    names = re.findall(r"`((?:[\w-]+/)*[\w-]+\.py|[a-z]+/)`", README)
    assert len(names) > 10
    written = {"submission.py"}  # by `charstat bundle`
    missing = [name for name in names if not (ROOT / name).exists() and not (ROOT / "charstat" / name).exists()]
    assert set(missing) <= written | {"models/"}


def test_the_exit_statuses_are_those_of_the_code():
    from charstat import cli as module
    from charstat.errors import CharstatError, GateMissed, UserError

    statuses = {int(status) for status in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert statuses == {0, CharstatError.exit_code, UserError.exit_code, GateMissed.exit_code, module.INTERRUPTED}


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("target", ["run", "test", "test-gpu", "lint", "clean", "help"])
def test_the_make_targets_exist(target):
    plan = subprocess.run(["make", "-n", target, "DATA=my texts"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    assert target != "run" or "build --order 8 --data 'my texts'" in plan.stdout


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 and "make test" in script.read_text()
