"""The `charstat` command: what it prints, its exit statuses, and what it leaves on the disk when something goes wrong."""

import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

import charstat
from charstat.cli import cli
from charstat.corpus import HubUnavailable
from charstat.ngram.contexts import PRESETS, parse_context, select_contexts
from charstat.progress import Steps
from charstat.report import _plot

ROOT = Path(__file__).resolve().parents[1]
BUILD_KEYS = {
    "data",
    "chars",
    "order",
    "contexts",
    "rows",
    "bytes",
    "seconds",
    "phases",
    "energy",
    "backend",
    "device",
    "out",
    "peak_rss_bytes",
}
EVAL_KEYS = {"model", "data", "split", "chars", "accuracy", "bits_per_char", "chars_per_s", "gate", "passed", "seconds", "curve"}


def run(*args, code: int = 0):
    """Run the command in this process; check its status, and that nobody sees a traceback."""
    result = CliRunner().invoke(cli, [str(a) for a in args])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result


def run_json(*args, code: int = 0) -> dict:
    """The one JSON object on stdout, which holds no nan and no infinity."""

    def refuse(name):
        raise AssertionError(f"{name} in JSON")

    return json.loads(run(*args, "--json", code=code).stdout, parse_constant=refuse)


def command(*args, **options) -> subprocess.Popen:
    """Start the command in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *options.pop("how", ("-m", "charstat.cli")), *map(str, args)], env=env, **pipes, **options)


def snapshot(path: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in path.iterdir()}


@pytest.fixture(scope="module")
def text_file(english, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "a text.txt"
    path.write_text(english[:60_000], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def built(text_file, tmp_path_factory) -> Path:
    """A model directory whose name has a space."""
    out = tmp_path_factory.mktemp("models") / "a model"
    run("build", "--data", text_file, "--out", out)
    return out


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_hub(monkeypatch):
    def refuse(split, tell):
        raise HubUnavailable("WikiText-103 is not available from the hub (no network here)\nat all")

    monkeypatch.setattr("charstat.corpus._hub_pieces", refuse)


# the package ----------------------------------------------------------------------------------------------------------------


def test_importing_charstat_and_asking_for_help_loads_nothing_heavy():
    code = "import sys, charstat, charstat.cli; print(sorted({'numpy', 'numba', 'rich', 'datasets', 'cupy'} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=env).strip() == "[]"


def test_every_public_name_is_there_and_others_are_not():
    assert charstat.__all__ == sorted(charstat.__all__, key=lambda name: (name.islower(), name))
    assert set(charstat.__all__) == set(charstat._HOME_OF)
    for name in charstat.__all__:
        assert getattr(charstat, name).__name__ == name
        assert name in dir(charstat)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        charstat.nonsense  # noqa: B018


def test_help_and_version():
    assert charstat.__version__ in run("--version").stdout
    assert {"build", "eval", "inspect"} <= set(run("--help").stdout.split())
    for name in ("build", "eval", "inspect"):
        assert "--json" in run(name, "-h").stdout


# build ----------------------------------------------------------------------------------------------------------------------


def test_build_prints_one_json_object(text_file, workplace):
    result = run_json(
        "build", "--data", text_file, "--contexts", "chars", "--order", 5, "--limit", 20_000, "--threads", 1, "--memory", "1.5GiB"
    )
    assert result.keys() >= BUILD_KEYS
    assert (result["chars"], result["order"], result["contexts"]) == (20_000, 5, ["o0", "o1", "o2", "o3", "o4", "o5"])
    assert result["data"]["kind"] == "file" and not result["sample"]
    assert result["rows"] == sum(family["rows"] for family in result["families"].values()) > 0
    assert result["bytes"] == sum(f.stat().st_size for f in Path(result["out"]).iterdir())
    assert result["out"] == os.path.join("models", "a_text-o5-chars-first-20000")
    read, *counting = result["phases"]
    assert counting == result["energy"]["phases"] and "read" not in {phase["name"] for phase in counting}
    assert read["name"] == "read" and 0 < read["seconds"] <= result["read_seconds"] and read.keys() == counting[0].keys()
    assert math.isclose(result["energy"]["seconds"], sum(phase["seconds"] for phase in counting))


def test_build_prints_tables(text_file, workplace):
    out = run("build", "--data", text_file, "--contexts", "chars", "--order", 3).stdout
    for word in ("54,000", "o0 o1 o2 o3", "Peak memory", "Phases", "read", "encode", "Contest, dev rule", "models/a_text-o3-chars"):
        assert word in out
    assert "sample" not in out


def test_default_names_tell_models_apart(text_file, workplace):
    def out(*args):
        return run_json("build", "--data", text_file, "--order", 1, *args)["out"]

    names = [out("--contexts", "chars"), out("--contexts", "o1"), out("--contexts", "o0"), out("--contexts", "o1", "--limit", 500)]
    assert len(set(names)) == 4
    sample = workplace / "sample"
    shutil.copy(text_file, sample)
    assert "embedded" not in run_json("build", "--data", "./sample", "--order", 1, "--contexts", "o1")["out"]


def test_the_line_of_the_gate_stands_at_its_label():
    correct = np.concatenate([np.arange(400) % 50 < 31, np.arange(9600) % 100 < 69])  # from 0.62 to 0.69: rows of 0.6 + 0.025 n
    result = {"gate": 0.7, "accuracy": correct.mean(), "chars": correct.size}
    rows = _plot(result, correct).plain.splitlines()[1:7]
    assert [row[:6].strip() for row in rows].count("0.70") == 1


@pytest.mark.parametrize(
    "args, message",
    [
        (["--order", 0], "order 0 is out of range"),
        (["--order", 99], "1..24"),
        (["--order", "x"], "not a valid integer"),
        (["--contexts", "nonsense"], "no context is named 'nonsense'"),
        (["--contexts", ","], "empty name"),
        (["--limit", 0], "--limit"),
        (["--threads", 0], "--threads"),
        (["--memory", "lots"], "not a size"),
        (["--memory", "5"], "too small"),
        (["--memory", "infG"], "not a size"),
        (["--backend", "tpu"], "--backend"),
        (["--data", "nowhere.txt"], "no such file"),
        (["--data", ""], "no such file"),
        (["--data", "full"], "no text in the directory"),
        (["--out", "text.txt"], "not a directory"),
        (["--out", "text.txt/model"], "cannot write a model"),
        (["--out", "full"], "not a charstat model"),
        (["--out", "."], "working directory"),
        (["--out", ""], "working directory"),
        (["--out", ".."], "working directory"),
    ],
)
def test_mistakes_of_build_are_told_before_any_text_is_read(args, message, workplace, monkeypatch):
    (workplace / "text.txt").write_text("text " * 100)
    (workplace / "full").mkdir()
    (workplace / "full" / "file").touch()
    monkeypatch.setattr("charstat.corpus.Corpus.text", lambda *_: pytest.fail("the text was read"))
    result = run("build", "--data", "text.txt", *args, code=2)
    assert message in result.stderr and result.stdout == ""
    assert sorted(p.name for p in workplace.iterdir()) == ["full", "text.txt"] or (workplace / "models").is_dir()


@pytest.mark.parametrize("content, message", [(b"", "is empty"), (b"abc" * 100 + b"\xff" + b"d" * 900, "byte offset 300")])
def test_bad_texts(content, message, workplace):
    (workplace / "text.txt").write_bytes(content)
    assert message in run("build", "--data", "text.txt", "--limit", 10**6, code=2).stderr


@pytest.mark.parametrize(
    "text",
    ["a", "ab", "a" * 5000, "戦" * 40 + "\n" * 10, "".join(map(chr, range(0x4E00, 0x5000)))],
    ids=["one", "two", "equal", "few", "rare"],
)
def test_strange_texts_give_working_models(text, workplace):
    (workplace / "text.txt").write_text(text, encoding="utf-8")
    run("build", "--data", "text.txt", "--order", 24)
    result = run_json("eval", "--split", "train", "--chars", 0, "--gate", 0)
    assert result["chars"] == max(1, len(text) * 90 // 100) and result["bits_per_char"] >= 0
    run("eval", "--split", "train", "--gate", 0)
    run("inspect")


# where the text comes from ----------------------------------------------------------------------------------------------------


def test_without_the_hub_build_goes_on_with_the_sample_and_says_so(no_hub, workplace):
    result = run("build", "--limit", 20_000, "--order", 4, "--contexts", "chars")
    assert result.stderr.count("\n") == 1 and "no network here" in result.stderr and "NOT WikiText" in result.stderr
    assert "embedded sample, NOT WikiText" in result.stdout
    [out] = (workplace / "models").iterdir()
    assert out.name == "embedded-sample-o4-chars-first-20000"
    assert json.loads((out / "manifest.json").read_text())["data"]["kind"] == "sample"
    assert "embedded sample, NOT WikiText" in run("inspect").stdout
    assert "Evaluation: embedded sample, NOT WikiText" in run("eval", "--chars", 500, "--gate", 0).stdout
    evaluated = run_json("eval", "--chars", 500, "--gate", 0)
    assert evaluated["sample"] and evaluated["data"]["kind"] == "sample" and any("NOT WikiText" in text for text in evaluated["notes"])


def test_with_json_the_fallback_leaves_stdout_pure(no_hub, workplace):
    result = run_json("build", "--limit", 5000, "--order", 2, "--contexts", "chars")
    assert result["sample"] and result["data"]["kind"] == "sample"


@pytest.mark.parametrize("name", ["wikitext-103", "wikitext"])
def test_the_hub_asked_for_by_name_is_never_replaced(name, no_hub, workplace):
    result = run("build", "--data", name, code=2)
    assert result.stderr.startswith("error: WikiText-103 is not available") and result.stderr.count("\n") == 1
    assert list((workplace / "models").iterdir()) == []


# eval -------------------------------------------------------------------------------------------------------------------------


def test_eval_prints_one_json_object_and_repeats_itself(built, text_file):
    first, second = (run_json("eval", "--model", built, "--gate", 0.1) for _ in range(2))
    assert first.keys() >= EVAL_KEYS
    assert (first["split"], first["chars"], first["passed"], first["data"]["path"]) == ("val", 3000, True, str(text_file))
    assert 0.4 < first["accuracy"] < 1 and 0 < first["bits_per_char"] < 4 and not first["sample"]
    assert [first[key] for key in ("accuracy", "bits_per_char", "curve")] == [second[key] for key in ("accuracy", "bits_per_char", "curve")]
    assert "only 3,000 of the 60,000" in first["notes"][0]


def test_a_missed_gate_has_its_own_status(built):
    accuracy = run_json("eval", "--model", built, "--gate", 0)["accuracy"]
    assert run_json("eval", "--model", built, "--gate", accuracy)["passed"]
    result = run_json("eval", "--model", built, "--gate", 0.999, code=4)
    assert not result["passed"] and result["accuracy"] == accuracy
    assert f"MISSED by {99.9 - 100 * accuracy:.2f} pp" in run("eval", "--model", built, "--gate", 0.999, code=4).stdout
    assert "PASS" in run("eval", "--model", built, "--gate", 0.1).stdout


def test_eval_shows_the_curve(text_file, built):
    out = run("eval", "--model", built, "--split", "train", "--chars", 12_000, "--gate", 0.5).stdout
    assert "10,000" in out and "12,000" in out and "says little about new text" in out
    assert "gate" in out and "█" in out and "stretches of 200 characters" in out
    run("eval", "--model", built, "--chars", 1, "--gate", 0)


@pytest.mark.parametrize(
    "args, message",
    [
        (["--gate", 1.5], "not an accuracy"),
        (["--gate", "nan"], "not an accuracy"),
        (["--gate", -0.1], "not an accuracy"),
        (["--chars", -1], "--chars"),
        (["--split", "nonsense"], "unknown split"),
        (["--model", "nowhere"], "no model at nowhere"),
        (["--data", "nowhere"], "no such file"),
        (["--data", "tiny.txt"], "val split of 'tiny.txt' is empty"),
        (["--data", "empty"], "no text in the directory"),
        (["--data", "raw"], "looked for wiki.valid.raw"),
    ],
)
def test_mistakes_of_eval(args, message, built, workplace):
    (workplace / "tiny.txt").write_text("abcde")
    (workplace / "empty").mkdir()
    (workplace / "raw").mkdir()
    (workplace / "raw" / "wiki.train.raw").write_text("text")
    result = run("eval", "--model", built, *args, code=2)
    assert message in result.stderr and result.stdout == ""


def test_eval_and_inspect_take_the_newest_model(text_file, workplace):
    assert "there is no model in models/" in run("eval", code=2).stderr
    assert "there is no model in models/" in run("inspect", code=2).stderr
    for order, age_s in ((2, 0), (1, 100)):
        out = run_json("build", "--data", text_file, "--order", order, "--contexts", "chars")["out"]
        os.utime(Path(out) / "manifest.json", (time.time() - age_s,) * 2)
    shutil.copytree(out, Path("models", ".half-written.tmp"))  # what a killed build may leave
    assert run_json("eval", "--gate", 0)["order"] == run_json("inspect")["order"] == 2


def test_a_model_finds_its_text_from_elsewhere(workplace, monkeypatch):
    (workplace / "text.txt").write_text("the text of a model " * 200)
    run("build", "--data", "text.txt", "--out", "m")
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    assert run_json("eval", "--model", "../m", "--gate", 0)["chars"] == 200


def test_a_model_that_does_not_name_its_text(model, workplace, text_file):
    model.save("m")
    assert "pass --data" in run("eval", "--model", "m", code=2).stderr
    assert run_json("eval", "--model", "m", "--data", text_file, "--gate", 0)["built_from"] == {}
    run("inspect", "m")


# inspect ----------------------------------------------------------------------------------------------------------------------


def test_inspect_tells_what_is_in_a_model(built, english):
    result, out = run_json("inspect", built), run("inspect", built).stdout
    assert result["contexts"] == [c.name for c in select_contexts()] and result["checked"]
    assert result["text_sha256"] == charstat.Model.load(built).manifest["text"]["sha256"]
    assert result["alphabet"] and set(result["alphabet"]) <= set(english)
    for name, family in result["families"].items():
        assert family["kind"] == {"o": "characters", "c": "classes", "s": "sparse", "p": "words"}[name[0]]
        assert f"{family['rows']:,}" in out
    assert f"{result['words']:,} words" in out and result["text_sha256"][:40] in out


def test_inspect_prints_discounts(built, workplace):
    rows = run_json("inspect", built, "--discounts")["discounts"]
    assert [row["order"] for row in rows] == [0, 1, 2, 3, 4, 5, 6, 8] and rows[-1]["counts"] == "plain"
    lines = run("inspect", built, "--discounts").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for row in rows:
        line = next(line for line in lines if line.split("│")[1:2] and line.split("│")[1].strip(" *") == str(row["order"]))
        assert f"{row['d1']:.4f}" in line and f"{row['d3']:.4f}" in line


def test_inspect_prints_the_table_of_contexts(workplace):
    result = run_json("inspect", "--contexts")
    rows = {row["name"]: row for row in result["contexts"]}
    assert set(rows) >= {name for names in PRESETS.values() for name in names} | {"o0", "o8", "o24"}
    for name, row in rows.items():
        assert row["bits"] == parse_context(name).identity_width
        if not name.startswith("o"):
            assert row["presets"] == {preset: name in names for preset, names in PRESETS.items()}
    out = run("inspect", "--contexts").stdout
    assert all(f" {name} " in out for name in rows) and max(map(len, out.splitlines())) <= 80
    assert "use it without DIR" in run("inspect", "x", "--contexts", code=2).stderr
    assert "choose one" in run("inspect", "--discounts", "--contexts", code=2).stderr


@pytest.mark.parametrize("harm", ["changed", "truncated", "missing", "foreign", "garbage"])
def test_harmed_models_are_told_from_whole_ones(harm, built, workplace):
    shutil.copytree(built, "m")
    rows, manifest = Path("m/rows.npy"), Path("m/manifest.json")
    data = bytearray(rows.read_bytes())
    if harm == "changed":
        data[-1] ^= 1
        rows.write_bytes(data)
    elif harm == "truncated":
        rows.write_bytes(data[:-8])
    elif harm == "missing":
        rows.unlink()
    else:
        manifest.write_text("{}" if harm == "foreign" else '{"format":')
    for args in (["inspect", "m"], ["eval", "--model", "m"]):
        result = run(*args, code=2)
        assert result.stderr.startswith("error: m") and result.stderr.count("\n") == 1


# faults -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault, code, message",
    [
        (RuntimeError("boom"), 1, "error: unexpected RuntimeError: boom (set CHARSTAT_DEBUG=1 to see the traceback)"),
        (charstat.CharstatError("two\nlines"), 1, "error: two lines"),
        (MemoryError(), 2, "error: not enough memory"),
        (OSError(28, "No space left on device", "x"), 2, "error: No space left on device: 'x'"),
        (KeyboardInterrupt(), 130, "error: interrupted; nothing was changed"),
    ],
)
def test_faults_are_one_line_and_a_status(fault, code, message, text_file, workplace, monkeypatch):
    def fail(*args, **options):
        raise fault

    monkeypatch.setattr("charstat.counting.build_model", fail)
    result = run("build", "--data", text_file, code=code)
    assert result.stderr.startswith(message) and result.stderr.count("\n") == 1 and result.stdout == ""
    debugged = CliRunner().invoke(cli, ["--debug", "build", "--data", str(text_file)])
    assert debugged.exit_code == code and ("Traceback" in debugged.stderr) == (code != 130)
    debugged = CliRunner(env={"CHARSTAT_DEBUG": "1"}).invoke(cli, ["build", "--data", str(text_file)])
    assert ("Traceback" in debugged.stderr) == (code != 130)


def test_a_closed_pipe_is_silent(built):
    process = command("inspect", built)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait()


def test_a_read_only_place(text_file, workplace, monkeypatch):
    (workplace / "closed").mkdir(mode=0o500)
    if os.geteuid() == 0:  # root may write everywhere
        denied = PermissionError(13, "Permission denied")
        monkeypatch.setattr("charstat.placing.tempfile.mkdtemp", lambda *_: (_ for _ in ()).throw(denied))
    result = run("build", "--data", text_file, "--out", "closed/m", code=2)
    assert result.stderr == "error: cannot write a model at closed/m: Permission denied\n"
    assert os.listdir("closed") == []


def test_a_full_disk_leaves_the_earlier_model_unharmed(built, text_file, workplace):
    shutil.copytree(built, "m")
    before = snapshot(Path("m"))
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); from charstat.cli import main; main()"
    process = command("build", "--data", text_file, "--out", "m", "--json", how=("-c", code))
    out, error = process.communicate(timeout=60)
    assert process.returncode == 2 and out == "", error
    assert error.startswith("error: cannot write the model at m") and error.count("\n") == 1
    assert snapshot(Path("m")) == before and os.listdir() == ["m"]


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_stopped_build_leaves_the_earlier_model_and_nothing_else(number, status, built, english, workplace):
    shutil.copytree(built, "out/m")
    before = snapshot(Path("out/m"))
    (workplace / "long.txt").write_text(english * 40, encoding="utf-8")  # seconds of counting
    process = command("build", "--data", "long.txt", "--order", 14, "--out", "out/m")
    deadline = time.monotonic() + 60

    def counting() -> bool:
        return any(f.stat().st_size > 10_000 for f in Path("out").glob(".m.*/rows.npy"))

    while not counting() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == status and out == "", error
    assert "Traceback" not in error and (number != signal.SIGINT or error == "error: interrupted; nothing was changed\n")
    assert snapshot(Path("out/m")) == before and os.listdir("out") == ["m"]


# as people run it -------------------------------------------------------------------------------------------------------------


def test_the_command_in_a_process_of_its_own(text_file, workplace):
    process = command("build", "--data", text_file, "--out", "my models/one", "--json")
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0 and error == ""
    assert json.loads(out)["out"] == "my models/one"
    process = command("eval", "--model", "my models/one", "--gate", 0.999, env={"PYTHONIOENCODING": "ascii", "COLUMNS": "80"})
    out, error = process.communicate(timeout=120)
    assert process.returncode == 4 and error == "" and "MISSED" in out and out.isascii()
    assert max(map(len, out.splitlines())) <= 80


def test_progress_is_drawn_on_terminals_only():
    screen = io.StringIO()
    steps = Steps()
    steps._console = Console(file=screen, force_terminal=True, width=100, highlight=False)
    with steps("predicting [bold]", total=200) as tell:
        tell(100)
        time.sleep(0.25)
    with steps.reading("some/where/corpus.txt") as tell:
        tell(300, 400)
        time.sleep(0.25)
    with steps.build(select_contexts("chars", 3)) as tell:
        for done, phase in enumerate(["encode", "orders", "o3", "o2", "o1", "o0", "finish"]):
            tell(charstat.Progress(phase, done, 6))
    with steps.build(select_contexts("chars", 3), held_out_share=0.1) as tell:
        for share in (0.0, 0.5, 1.0):
            tell(charstat.Progress("learn", 6, 8, share))
        tell(charstat.Progress("finish", 8, 8))
        time.sleep(0.25)
    assert "99%" in screen.getvalue().rpartition("counting: finish")[2]  # o0 to o3 were not told of
    assert "predicting [bold]" in screen.getvalue() and "50%" in screen.getvalue() and " left" in screen.getvalue()
    assert "reading corpus.txt" in screen.getvalue() and "75%" in screen.getvalue()
    plain = io.StringIO()
    steps._console = Console(file=plain)
    with steps("predicting", total=200) as tell:
        tell(100)
    assert plain.getvalue() == ""
