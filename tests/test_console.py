"""console.py, kernel_cache.py and the command's small promises: outputs that close or fill up, encodings, signals, places, sizes."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from test_cli import ROOT, built, command, run, run_json, text_file, workplace  # noqa: F401 (fixtures)

from charstat import kernel_cache
from charstat.cli import cli

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def shell(line: str, **env: str) -> subprocess.CompletedProcess:
    """A command line with `charstat` in it."""
    line = line.replace("charstat", f"{sys.executable} -m charstat")
    options = {"env": {**os.environ, "PYTHONPATH": str(ROOT), **env}, "capture_output": True, "text": True, "errors": "replace"}
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], check=False, **options)


@pytest.mark.parametrize("args", ["--help", "inspect --contexts", "inspect --contexts --json", "--version"])
def test_an_output_that_closes(args):
    done = shell(f"charstat {args} | true")
    assert (done.returncode, done.stderr) in [(141, ""), (0, "")]  # 0: it was written before the reader went
    done = shell(f"(sleep 0.5; exec charstat {args}) | true")
    assert (done.returncode, done.stderr) == (141, "")


@needs_full
@pytest.mark.parametrize("args", ["--help", "inspect --contexts", "inspect --contexts --json", "--version"])
def test_an_output_that_is_full(args):
    done = shell(f"charstat {args} > /dev/full")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "No space left on device" in done.stderr


@needs_full
@pytest.mark.parametrize("json", ["", "--json"])
def test_a_model_whose_report_cannot_be_printed(text_file, workplace, json):  # noqa: F811
    done = shell(f"charstat build --data '{text_file}' --limit 5000 --contexts o0,o1 --out m {json} > /dev/full")
    assert done.returncode == 2 and done.stderr == "error: No space left on device; the model at m was written, and is complete\n"
    run("inspect", "m")


def test_tables_keep_their_columns_in_any_encoding(built):  # noqa: F811
    for env in (
        {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ):
        done = shell(f"charstat inspect '{built}' && charstat inspect --contexts", COLUMNS="100", **env)
        assert done.returncode == 0 and "\\u" not in done.stdout
        widths = {len(line) for line in done.stdout.splitlines() if line.startswith(("|", "+"))}
        tables, width = 0, None
        for line in done.stdout.splitlines():
            if line.startswith("+") and width is None:
                width, tables = len(line), tables + 1
            elif line.startswith(("|", "+")):
                assert len(line) == width, line
            else:
                width = None
        assert tables >= 4 and widths


def test_an_interrupt_before_anything_happens(text_file, workplace):  # noqa: F811
    """From the first moment on: no traceback, nothing left."""
    for delay in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8):
        process = command("build", "--data", text_file, "--out", "m", "--limit", 20_000, how=("-m", "charstat"))
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        started = "charstat" in said or "error" in said or not said  # else the interpreter was still starting
        assert not started or "Traceback" not in said or "<frozen" in said, said
        assert process.returncode in (0, 130, -signal.SIGINT, 1) and not [p for p in workplace.iterdir() if p.name.startswith(".")]
        shutil.rmtree("m", ignore_errors=True)


@pytest.mark.parametrize("size", ["9" * 400, "9" * 400 + "T", "1e5", "99999999999999T", "9" * 30 + "." + "9" * 30])
def test_sizes_that_no_machine_has(size):
    assert "memory" in run("build", "--memory", size, code=2).stderr


def test_many_threads_are_no_slower(text_file, workplace):  # noqa: F811
    started = time.perf_counter()
    assert run_json("build", "--data", text_file, "--limit", 18_000, "--threads", 4096, "--contexts", "o0,o3,o9")["chars"] == 18_000
    assert time.perf_counter() - started < 30


def test_the_text_may_not_lie_in_the_place(text_file, workplace):  # noqa: F811
    run("build", "--data", text_file, "--limit", 5000, "--contexts", "o0", "--out", "m")
    shutil.copy(text_file, "m/text.txt")
    assert "lies in" in run("build", "--data", "m/text.txt", "--contexts", "o0", "--out", "m", code=2).stderr
    assert "'text.txt'" in run("build", "--data", text_file, "--contexts", "o0", "--out", "m", code=2).stderr
    assert Path("m/text.txt").read_bytes() == text_file.read_bytes()


def test_a_text_that_has_changed(english, workplace):  # noqa: F811
    """Cut, grown, or another: refused, unless it is named; then the result says so. The same text passes, moved borders or not."""
    text = Path("t.txt")
    for held_out, limit in ((0, None), (500, None), (0, 9000), (500, 9000)):
        more = ["--held-out", held_out] + (["--limit", limit] if limit else [])
        text.write_text(english[:20_000], encoding="utf-8")
        run("build", "--data", text, "--contexts", "o0,o2,o3", "--out", "m", "--order", 3, *more)
        evaluate = ("eval", "--model", "m", "--gate", 0, "--chars", 200)
        assert not [n for n in run_json(*evaluate)["notes"] if "changed" in n]
        for change in (english[:10_000] if not limit else english[:8000], english[1:20_001], english[:25_000]):
            text.write_text(change, encoding="utf-8")
            if limit and len(change) == 25_000:
                assert not [n for n in run_json(*evaluate)["notes"] if "changed" in n]  # what was counted is not in val
                continue
            assert "has changed since the model was built" in run(*evaluate, code=2).stderr
            assert [n for n in run_json(*evaluate, "--data", text)["notes"] if "has changed since" in n]
    Path("other.txt").write_text(english[:9000], encoding="utf-8")
    assert not [n for n in run_json(*evaluate, "--data", "other.txt")["notes"] if "changed" in n]


# the kernel cache -------------------------------------------------------------------------------------------------------------


def test_where_kernels_go(tmp_path, monkeypatch):
    """Beside the package, in the user's cache, where NUMBA_CACHE_DIR says; a temporary place only if none of these can be written."""
    package = tmp_path / "package"
    package.mkdir()
    writable = set()
    monkeypatch.setattr(kernel_cache, "_writable", lambda folder: folder in writable)
    monkeypatch.setattr(kernel_cache, "temporary", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for folder in (package / "__pycache__", tmp_path / "cache" / "numba", tmp_path / "mine"):
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
        writable.clear()
        writable.add(folder)
        assert kernel_cache.provide_cache(package) is None and os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "mine")
    monkeypatch.undo()
    (tmp_path / "file").touch()
    assert kernel_cache._writable(tmp_path / "not" / "there" / "yet") and not kernel_cache._writable(tmp_path / "file" / "x")


def test_a_package_and_a_home_that_cannot_be_written(tmp_path):
    """As in many containers: kernels go to a temporary directory, which is gone afterwards."""
    package = tmp_path / "lib" / "charstat"
    shutil.copytree(ROOT / "charstat", package, ignore=shutil.ignore_patterns("__pycache__"))
    if os.geteuid() == 0:
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path / "home")]
        (tmp_path / "home").mkdir()
        if subprocess.run(["mount", "--bind", str(package), str(package)], capture_output=True, check=False).returncode:
            pytest.skip("root may write everywhere, and cannot mount here")
        subprocess.run(["mount", "-o", "remount,ro,bind", str(package)], capture_output=True, check=True)
        subprocess.run(mount, capture_output=True, check=True)
    else:
        for folder, _, _ in os.walk(package):
            os.chmod(folder, 0o555)
        (tmp_path / "home").mkdir(mode=0o555)
    try:
        env = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
        env |= {"PYTHONPATH": str(tmp_path / "lib"), "HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
        where = {"env": env, "cwd": tmp_path, "capture_output": True, "text": True}
        code = "import charstat, os; from charstat.ngram.hashing import mix57; import numpy as np; mix57(np.uint64(1)); print(os.environ['NUMBA_CACHE_DIR'])"
        done = subprocess.run([sys.executable, "-c", code], check=False, **where)
        assert done.returncode == 0, done.stderr
        assert "charstat-kernels-" in done.stdout and not Path(done.stdout.strip()).exists()
        done = subprocess.run([sys.executable, "-m", "charstat", "inspect", "--contexts"], check=False, **where)
        assert done.returncode == 0 and done.stderr.startswith("note: no place to keep compiled kernels") and done.stderr.count("\n") == 1
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(package), str(tmp_path / "home")], check=False)


@pytest.mark.parametrize("method", ["make_context", "parse_args", "invoke"])
def test_an_interrupt_inside_of_click_is_one(method, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(click.Group, method, interrupted)
    result = CliRunner().invoke(cli, ["inspect", "--contexts"])
    assert (result.exit_code, result.stdout) == (130, "") and result.stderr == "error: interrupted; nothing was changed\n"


AFTER_CLICK = """
import os, signal
from charstat import cli, console

def interrupted(ctx):
    os.kill(os.getpid(), signal.SIGINT)

cli.click.Context.close = interrupted
console.run(lambda: cli.cli(["--version"], prog_name="charstat"))
"""


def test_an_interrupt_that_click_reports_is_one():
    done = subprocess.run([sys.executable, "-c", AFTER_CLICK], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and "Traceback" not in done.stderr


SIGNAL_AT_EVERY_LINE = """
import os, signal, sys
from charstat import console

def at_line(n, number):
    left = n
    def trace(frame, event, arg):
        nonlocal left
        if frame.f_code.co_filename != console.__file__:
            return None
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), number)
        return trace
    sys.settrace(trace)
    try:
        console.run(lambda: None)
    finally:
        sys.settrace(None)
        if left > 0:
            print("done", flush=True)
            os._exit(99)

signal.signal(signal.SIGINT, signal.SIG_DFL)
number, n, ended = getattr(signal, sys.argv[1]), 0, set()
while 99 not in ended:
    n += 1
    child = os.fork()
    if not child:
        at_line(n, number)
    ended.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(n, sorted(ended))
"""


@pytest.mark.parametrize(("name", "wanted"), [("SIGINT", {-2, 0, 99, 130}), ("SIGTERM", {-15, 0, 99, 143})])
def test_a_signal_at_any_line_around_a_command_is_no_traceback(name, wanted):
    done = subprocess.run([sys.executable, "-c", SIGNAL_AT_EVERY_LINE, name], capture_output=True, text=True, check=True, timeout=60)
    lines, ended = done.stdout.splitlines()[-1].split(" ", 1)
    assert int(lines) > 20 and set(ast.literal_eval(ended)) == wanted
    assert set(done.stderr.splitlines()) <= {"error: interrupted; nothing was changed"}
