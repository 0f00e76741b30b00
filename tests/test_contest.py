"""Entering the contest: what is counted, the entry, the bundle, and its agreement with the independent runner in ../shared/harness."""

import builtins
import copy
import dis
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from streams import write_data

import charstat
from charstat.charmodel_api import evaluate
from charstat.cli import cli
from charstat.contest import cuda, entry, environment
from charstat.contest.bundle import embedded_sources, submission_source, write_bundle
from charstat.contest.channel import BrokenSubmission
from charstat.contest.child import contest_module
from charstat.contest.presets import PRESETS, Preset
from charstat.contest.runner import run_contest
from charstat.contest.statement import MEASURED, load_measured
from charstat.counting import build_model
from charstat.cpu.backend import CPUBackend
from charstat.errors import DeviceMemoryError, FormatError, ResourceError, UserError
from charstat.ngram.contexts import select_contexts

ROOT = Path(__file__).resolve().parents[1]
HARNESS = ROOT.parent / "shared" / "harness" / "run_contest.py"
TINY = "".join(
    f"\n = Title {i} = \n\n\n The quick brown fox number {i} jumps over the lazy dogs , again and again . \n\n" for i in range(6)
)[:485]
PRESET = Preset("test", 60_000, 60_000, "default", 6)
LARGEST = {"gate": 180_500, "full": 199_000}  # bytes of submission.py


# The pieces -------------------------------------------------------------------------------------------------------------------


class TestPresets:
    def test_they_can_be_built(self):
        for name, preset in PRESETS.items():
            assert preset.name == name and Preset(**preset.to_dict()) == preset
            assert select_contexts(preset.contexts, preset.order)

    @pytest.mark.parametrize("wrong", [{"chars": 0}, {"gpu_chars": 0}, {"held_out_chars": -1}, {"order": 99}, {"contexts": "nonsense"}])
    def test_mistakes_are_told(self, wrong):
        with pytest.raises(UserError):
            replace(PRESETS["gate"], **wrong)


class TestEnvironment:
    def fake_pip(self, monkeypatch, status: int = 0):
        calls = []

        def run(command, **options):
            calls.append(command)
            target = Path(command[command.index("--target") + 1])
            if not status:
                (target / "charstat_absent.py").write_text("here = True\n")
            return subprocess.CompletedProcess(command, status, "", "noise\nERROR: No matching distribution\nmore noise\n")

        monkeypatch.setattr(environment.subprocess, "run", run)
        monkeypatch.setattr(sys, "path", list(sys.path))
        return calls

    def test_what_is_missing_is_installed_once_and_comes_last(self, tmp_path, monkeypatch):
        calls, said = self.fake_pip(monkeypatch), []
        assert environment.provide("charstat_absent", ("absent==1.0",), str(tmp_path), said.append) is None
        assert sys.path[-1].startswith(str(tmp_path)) and len(calls) == 1 and "absent==1.0" in calls[0]
        assert any(each.startswith("numpy==") for each in calls[0])  # the numpy that is there stays
        assert "charstat_absent" in said[0] and "not metered" in said[0]
        sys.path.pop()
        assert environment.provide("charstat_absent", ("absent==1.0",), str(tmp_path), said.append) is None and len(calls) == 1

    def test_a_failure_is_told_in_one_line(self, tmp_path, monkeypatch):
        self.fake_pip(monkeypatch, 1)
        monkeypatch.setattr(environment, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"numba is missing, .*ERROR: No matching distribution.*: pip install numba"):
            environment.provide_packages(str(tmp_path), "cpu", lambda message: None)
        assert not list(tmp_path.iterdir())

    def test_what_is_there_is_left_alone(self, tmp_path, monkeypatch):
        calls = self.fake_pip(monkeypatch)
        environment.provide_packages(str(tmp_path), "cpu", lambda message: None)
        assert not calls and not list(tmp_path.iterdir())

    def test_cupy_for_the_driver(self, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr(environment, "provide", lambda module, wanted, home, say: asked.append((module, wanted)))
        for version in (12, 13, 14, None):
            monkeypatch.setattr(cuda, "cuda_version", lambda version=version: version)
            environment.provide_packages(str(tmp_path), "auto", lambda message: None)
        assert [wanted[0].partition("=")[0] for module, wanted in asked if module == "cupy"] == [
            "cupy-cuda12x[ctk]",
            *["cupy-cuda13x[ctk]"] * 2,
        ]

    def test_versions_are_pinned(self):
        assert all("==" in each for each in (*environment.NUMBA, *(name for names in cuda.CUPY_FOR_CUDA.values() for name in names)))

    def test_the_toolkit_beside_cupy_is_announced_and_nothing_patched(self, tmp_path, monkeypatch):
        (tmp_path / "nvidia/cuda_runtime/include").mkdir(parents=True)
        monkeypatch.delenv("CUDA_PATH", raising=False)
        cuda._announce_toolkit(str(tmp_path))
        assert os.environ.pop("CUDA_PATH") == str(tmp_path / "nvidia/cuda_runtime")


class RunnerTimeout(RuntimeError):
    """What the contest's runner raises inside train(), of a class of its own."""


class Device(CPUBackend):
    """A GPU backend over the CPU's, that fails in count() as it is told, from its second call on: the first is the warm-up's."""

    name = "gpu"
    device = "a test's device"
    error: BaseException | None = None
    calls = 0

    def warm_up(self, chars=None):
        """Nothing to compile."""

    def count(self, *args):
        self.calls += 1
        if self.calls > 1 and self.error is not None:
            raise self.error
        yield from super().count(*args)


@pytest.fixture
def device(monkeypatch):
    """Device in place of what "auto" finds."""
    made = Device(1)
    monkeypatch.setattr("charstat.counting.choose_backend", lambda backend, *args: (made, "a test"))
    return made


def cupy_error(name: str, base: type) -> Exception:
    return type(name, (base,), {"__module__": "cupy_backends.cuda.api.runtime"})("out of order")


class TestEntry:
    def test_the_contract_by_its_annotation(self):
        for annotation, wanted in (
            (str, "dev"),
            ("str", "dev"),
            ("'str'", "dev"),
            (dict[str, float], "main"),
            ("dict[str, float]", "main"),
        ):
            base = contest_module("main").CharModel
            base.predict.__annotations__["return"] = annotation
            assert entry.contract_of(base) == wanted

    @pytest.mark.parametrize("held_out_chars", [0, 6000])
    def test_the_counts_and_the_start_are_those_of_build_model(self, held_out_chars, train_text):
        preset = replace(PRESET, held_out_chars=held_out_chars)
        ours = entry.count(train_text, preset, CPUBackend(2, overlap=True))
        theirs = build_model(train_text, order=PRESET.order, contexts=PRESET.contexts, held_out_chars=held_out_chars, backend="cpu")
        assert list(ours.manifest["tables"]) == list(theirs.tables) and ours.alphabet == theirs.alphabet
        assert list(ours.columns) == list(theirs.columns)
        assert all((ours.columns[name] == theirs.columns[name]).all() for name in theirs.columns)
        assert ours.warm_start_chars == held_out_chars and (ours.warm_start == theirs.warm_start).all()
        if held_out_chars:
            assert ours.stream().warm_start_chars == held_out_chars
            short = entry.count(train_text[: entry.HELD_OUT_FROM * held_out_chars], preset, CPUBackend(1))
            assert short.warm_start_chars == 0  # too short to spare any

    @pytest.mark.parametrize("contract", ["main", "dev"])
    def test_the_model(self, contract, train_text, held_out):
        base, said = contest_module(contract).CharModel, []
        model = entry.Entry(PRESET.to_dict(), "cpu", base, said.append).train(train_text)
        assert isinstance(model, base) and "60,000 of 80,000 characters on" in said[-1] and "(cpu)" in said[-1]
        text = held_out[:400]
        found = evaluate(model, text)
        stream = build_model(train_text[:60_000], order=6, backend="cpu").stream()
        assert found.accuracy == evaluate(stream, text).accuracy
        assert model.predict() == (stream.predict() if contract == "main" else stream.predict_char())

    @pytest.mark.parametrize("contract", ["main", "dev"])
    def test_the_model_can_be_pickled_and_copied_in_the_middle_of_a_text(self, contract, train_text, held_out, monkeypatch):
        runner = contest_module(contract)
        monkeypatch.setitem(sys.modules, "wikitext", runner)
        model = entry.Entry(PRESET.to_dict(), "cpu", runner.CharModel, lambda message: None).train(train_text)
        model.reset()
        for char in held_out[:100]:
            model.observe(char)
        for again in (lambda: pickle.loads(pickle.dumps(model)), lambda: copy.deepcopy(model)):
            other = again()
            assert isinstance(other, runner.CharModel) and other is not model
            for char in held_out[100:160]:
                assert other.predict() == model.predict()
                other.observe(char)
                model.observe(char)

    def test_empty_text(self):
        model = entry.Entry(PRESET.to_dict(), "cpu", contest_module("dev").CharModel, lambda message: None).train("")
        model.reset()
        assert isinstance(model.predict(), str)

    def test_the_empty_model_compiles_what_any_other_runs(self, train_text):
        real, empty = entry.count(train_text, PRESET, CPUBackend(1)).stream(), entry.empty_model().stream()
        for stream in (real, empty):
            stream.reset()
        kinds = [
            [(a.dtype, a.ndim, a.flags.writeable) for a in stream._fixed.tables if isinstance(a, np.ndarray)] for stream in (real, empty)
        ]
        assert kinds[0] == kinds[1]


class TestDevices:
    """What is caught in train(), and what is not."""

    @pytest.mark.parametrize(
        "error", [RunnerTimeout("over"), RuntimeError("over"), KeyboardInterrupt(), SystemExit(3), MemoryError(), TimeoutError()]
    )
    def test_what_the_runner_raises_goes_through(self, error, device, train_text):
        made = entry.Entry(PRESET.to_dict(), "auto", contest_module("main").CharModel, lambda message: None)
        device.error = error
        started = time.monotonic()
        with pytest.raises(type(error)) as caught:
            made.train(train_text)
        assert caught.value is error and device.calls == 2 and time.monotonic() - started < 5

    def test_the_runners_own_alarm_goes_through(self, device, train_text, monkeypatch):
        """By the contest's means: an interval timer whose handler raises, while a device is at work."""
        import signal

        def handler(*_):
            raise RunnerTimeout("over")

        made = entry.Entry(PRESET.to_dict(), "auto", contest_module("main").CharModel, lambda message: None)

        def slow(*args):
            time.sleep(30)
            yield

        monkeypatch.setattr(device, "count", slow)
        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(RunnerTimeout):
                made.train(train_text)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    @pytest.mark.parametrize(
        "error", [cupy_error("CUDARuntimeError", RuntimeError), cupy_error("OutOfMemoryError", MemoryError), DeviceMemoryError("full")]
    )
    def test_the_cpu_goes_on_where_a_device_fails(self, error, device, train_text):
        said = []
        made = entry.Entry(PRESET.to_dict(), "auto", contest_module("main").CharModel, said.append)
        device.error = error
        model = made.train(train_text)
        assert "going on with the CPU" in said[-2] and type(error).__name__ in said[-2] and "s are left" in said[-2] and "(cpu)" in said[-1]
        model.reset()
        assert model.predict()

    def test_the_cpu_is_not_tried_where_the_time_left_is_too_short(self, device, train_text):
        said = []
        preset = replace(PRESET, cpu_s=entry.LIMIT_S)
        made = entry.Entry(preset.to_dict(), "auto", contest_module("main").CharModel, said.append)
        device.error = cupy_error("CUDARuntimeError", RuntimeError)
        with pytest.raises(RuntimeError, match="out of order"):
            made.train(train_text)
        assert "too few for the CPU" in said[-1]

    def test_a_device_that_fails_in_the_warm_up(self, device, train_text, monkeypatch):
        said = []
        for error, caught in (
            (cupy_error("CUDARuntimeError", RuntimeError), True),
            (ImportError("libnvrtc"), True),
            (KeyboardInterrupt(), False),
            (RunnerTimeout(), False),
        ):

            def warm_up(chars=None, error=error):
                raise error

            monkeypatch.setattr(device, "warm_up", warm_up)
            if caught:
                made = entry.Entry(PRESET.to_dict(), "auto", contest_module("main").CharModel, said.append)
                assert any("the GPU failed in the warm-up" in each for each in said) and "(cpu" in said[-1]
                assert made.train(train_text)
            else:
                with pytest.raises(type(error)):
                    entry.Entry(PRESET.to_dict(), "auto", contest_module("main").CharModel, said.append)

    def test_the_numbers_of_characters_are_the_presets(self, device, train_text):
        said = []
        preset = replace(PRESET, gpu_chars=70_000)
        entry.Entry(preset.to_dict(), "auto", contest_module("main").CharModel, said.append).train(train_text)
        assert "70,000 of 80,000 characters on a test's device (gpu)" in said[-1]
        entry.Entry(preset.to_dict(), "cpu", contest_module("main").CharModel, said.append).train(train_text)
        assert "60,000 of 80,000 characters" in said[-1]


class TestDeadline:
    def test_a_count_that_would_break_the_limit_stops_and_says_so(self, train_text, monkeypatch):
        said = []
        made = entry.Entry(PRESET.to_dict(), "cpu", contest_module("main").CharModel, said.append)
        monkeypatch.setattr(entry, "LIMIT_S", entry.RESERVE_S)  # nothing is left from the start
        with pytest.raises(RuntimeError, match="counting takes more than 5 s"):
            made.train(train_text)
        assert said[-1].startswith("STOPPED: counting 60,000 characters")

    def test_a_start_that_would_break_it_is_left_out_and_said(self, train_text, monkeypatch):
        said = []
        preset = replace(PRESET, held_out_chars=5000)
        made = entry.Entry(preset.to_dict(), "cpu", contest_module("main").CharModel, said.append)
        from charstat.mixers import warm_start

        def late(model, text, progress):
            monkeypatch.setattr(entry.time, "perf_counter", lambda: 1e12)
            progress(1)

        monkeypatch.setattr(warm_start, "learn_warm_start", late)
        model = made.train(train_text)
        assert "NOT the preset's result" in said[-2] and model.stream.warm_start_chars == 0


# The command and the sources --------------------------------------------------------------------------------------------------


class TestCommands:
    def test_bundle(self, tmp_path):
        args = ["bundle", "--out", str(tmp_path / "out"), "--preset", "full", "--author", "@some-one", "--json"]
        for _ in range(2):  # a bundle may be replaced
            result = CliRunner().invoke(cli, args)
            assert result.exit_code == 0, result.output
        shown = json.loads(result.stdout)
        source = (tmp_path / "out/submission.py").read_text()
        assert shown["bytes"] == len(source.encode()) and shown["preset"] == PRESETS["full"].to_dict() and shown["sources_sha256"] in source
        names: dict = {}
        exec(source.split("def _say")[0].replace("import wikitext", ""), names)  # noqa: S102
        assert names["__author__"] == "@some-one" and names["BACKEND"] == "cpu" and Preset(**names["SETTINGS"]) == PRESETS["full"]
        assert not re.search(r'"@\w+@"', source) and sorted(f.name for f in (tmp_path / "out").iterdir()) == ["README.md", "submission.py"]
        full = CliRunner().invoke(
            cli, ["bundle", "--out", str(tmp_path / "full"), "--preset", "full", "--author", "@x"], env={"COLUMNS": "250"}
        )
        assert "the last 1,000,000 are not counted" in full.stdout
        table = CliRunner().invoke(cli, ["bundle", "--out", str(tmp_path / "other"), "--author", "@x"], env={"COLUMNS": "250"})
        assert table.exit_code == 0 and "submission.py" in table.stdout and "gate" in table.stdout

    @pytest.mark.parametrize("author", [None, "", "name", '@"quoted"', "@wheel@", "@two words", "@a\n"])
    def test_a_handle_is_required(self, author, tmp_path):
        args = ["bundle", "--out", str(tmp_path / "out"), *([] if author is None else ["--author", author])]
        result = CliRunner().invoke(cli, args)
        assert result.exit_code == 2 and "author" in result.stderr and not (tmp_path / "out").exists()

    def test_other_files_are_not_overwritten(self, tmp_path):
        for name in ("submission.py", "README.md"):
            (tmp_path / name).write_text("# mine\n")
            with pytest.raises(FormatError, match="no charstat bundle"):
                write_bundle(tmp_path, author="@x")
            assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [(name, "# mine\n")]
            (tmp_path / name).unlink()
        os.mkfifo(tmp_path / "README.md")
        with pytest.raises(FormatError, match="no plain file"):
            write_bundle(tmp_path, author="@x")
        with pytest.raises(UserError, match="no preset"):
            write_bundle(tmp_path / "x", "best", author="@x")
        with pytest.raises(UserError, match="no backend"):
            write_bundle(tmp_path / "x", backend="tpu", author="@x")
        (tmp_path / "file").write_text("")
        with pytest.raises(ResourceError, match="cannot write"):
            write_bundle(tmp_path / "file" / "x", author="@x")


def globals_used(code) -> set[str]:
    """The global names that code and the code in it load."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(globals_used(each) for each in code.co_consts if hasattr(each, "co_code")))


def missing_names(sources: dict[str, str]) -> dict[str, set[str]]:
    """{path: global names that a source uses and nothing defines}."""
    known = {*vars(builtins), "__name__", "__file__", "__module__", "__qualname__", "__annotations__"}
    missing = {}
    for path, source in sources.items():
        code = compile(source, path, "exec")
        bound = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_NAME", "IMPORT_NAME")}
        inner = {i.argval for c in code.co_consts if hasattr(c, "co_code") for i in dis.get_instructions(c) if i.opname == "STORE_NAME"}
        missing[path] = globals_used(code) - bound - inner - known
    return {path: names for path, names in missing.items() if names}


class TestSources:
    """What a submission carries."""

    @pytest.mark.parametrize("backend", ["cpu", "auto"])
    @pytest.mark.parametrize("preset", PRESETS)
    def test_no_name_is_missing_in_it(self, preset, backend):
        assert missing_names(embedded_sources(PRESETS[preset], backend)) == {}

    def test_only_what_the_entry_needs(self):
        paths = set(embedded_sources(PRESETS["gate"], "cpu"))
        assert {"charstat/contest/entry.py", "charstat/mixers/kernels.py", "charstat/cpu/backend.py"} <= paths
        parts = ("gpu", "ppm", "ctw", "energy", "cli", "report", "runner", "corpus", "warm_start", "counting.py")
        assert not [path for path in paths if any(part in path for part in parts)]
        assert "charstat/mixers/warm_start.py" in embedded_sources(PRESETS["full"], "cpu")
        assert "charstat/gpu/backend.py" in embedded_sources(PRESETS["gate"], "auto")

    def test_imports_come_before_those_that_use_them(self):
        paths = list(embedded_sources(PRESETS["gate"], "cpu"))
        assert paths.index("charstat/tree.py") < paths.index("charstat/mixers/kernels.py") < paths.index("charstat/mixers/mixture.py")
        assert max(paths.index("charstat/contest/entry.py"), paths.index("charstat/contest/environment.py")) == len(paths) - 1

    def test_the_same_from_the_same_sources(self):
        code = "from charstat.contest.bundle import *; import hashlib; print(hashlib.sha256(submission_source(PRESETS['gate'], 'cpu', '@x')[0].encode()).hexdigest())"
        command, env = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}
        found = {
            subprocess.run(command, cwd=ROOT, env={**env, "PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True).stdout
            for seed in ("0", "77")
        }
        assert found == {hashlib.sha256(submission_source(PRESETS["gate"], "cpu", "@x")[0].encode()).hexdigest() + "\n"}

    @pytest.mark.parametrize("preset", PRESETS)
    def test_size_and_form(self, preset):
        source, files = submission_source(PRESETS[preset], "cpu", "@x")
        assert len(source.encode()) < LARGEST[preset]
        assert max(map(len, source.splitlines())) <= 160 and "base64" not in source
        assert all(f"\n# ---- {path} ----\nFILES[{path!r}] = r'''\n" in source for path in files if files[path])


class TestRecords:
    """bench/contest/ and measured.json are those of today's sources: `python bench/contest/record.py DATA` writes them again."""

    def test_gate_is_recorded(self):
        assert load_measured()["gate"]["contracts"] == ["main", "dev"]

    @pytest.mark.parametrize("preset", load_measured())
    def test_they_are_of_todays_sources(self, preset):
        _, sources = submission_source(PRESETS[preset], "cpu", "@charstat")
        from charstat.contest.bundle import sources_sha256

        recorded = load_measured()[preset]
        assert recorded["sources_sha256"] == sources_sha256(sources), "python bench/contest/record.py DATA"
        for contract in recorded["contracts"]:
            run = json.loads((ROOT / f"bench/contest/{preset}-{contract}-cpu.json").read_text())
            assert run["sources_sha256"] == recorded["sources_sha256"] and run["val_char_accuracy"] == recorded["accuracy"]
            assert not run["disqualified"] and run["contract"] == contract
        assert MEASURED.is_file()

    def test_the_readme_beside_a_submission_has_the_figures(self, tmp_path):
        for preset in load_measured():
            write_bundle(tmp_path / preset, preset, author="@some-one")
            page, m = (tmp_path / preset / "README.md").read_text(), load_measured()[preset]
            assert f"**{m['accuracy']:.4f}**" in page and f"**{m['seconds']:.2f} s**" in page and "@some-one" in page
            assert "measure again" not in page and f"`submissions/charstat_{preset}`" in page
            for part in ("Hypothesis", "Method", "metered", "Expected", "Provenance", "reproduce", "submit"):
                assert part in page


# The bundle as it will be run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle_source() -> str:
    return submission_source(PRESET, "cpu", "@tests")[0]


@pytest.fixture(scope="module")
def bundle(bundle_source, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "submission.py"
    path.write_text(bundle_source)
    return path


@pytest.fixture(scope="module")
def cache(bundle_source) -> Path:
    """The private directory of bundles of this very package: what numba compiles for them is kept between runs of the tests."""
    build = ROOT / "build"
    for old in build.glob("contest-*"):
        if time.time() - old.stat().st_mtime > 86_400:
            shutil.rmtree(old, ignore_errors=True)
    path = build / f"contest-{hashlib.sha256(bundle_source.encode()).hexdigest()[:16]}"
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def contest_env(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


DRIVE = """
import importlib.util, inspect, sys
from abc import ABC, abstractmethod
import types

def contest_module(annotation):
    class CharModel(ABC):
        @abstractmethod
        def reset(self): ...
        @abstractmethod
        def predict(self): ...
        @abstractmethod
        def observe(self, char): ...
    CharModel.predict.__annotations__["return"] = annotation
    module = types.ModuleType("wikitext")
    module.CharModel = CharModel
    return module

def load(path, annotation):
    sys.modules["wikitext"] = module = contest_module(annotation)
    spec = importlib.util.spec_from_file_location("submission", path)
    submission = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(submission)
    return submission, module.CharModel
"""


def drive(code: str, *args: object, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, warnings as errors; the charstat of the tests can be imported there."""
    command = [sys.executable, "-W", "error", "-c", DRIVE + textwrap.dedent(code), *map(str, args)]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **env}, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


class TestBundle:
    @pytest.mark.slow
    @pytest.mark.parametrize("contract", ["main", "dev"])
    def test_it_runs_here_and_in_the_independent_runner(self, contract, bundle, contest_env, english, tmp_path):
        data = write_data(tmp_path / "data", english[:70_000], english[200_000:203_000])
        ours = CliRunner().invoke(cli, ["contest", str(bundle), "--data", str(data), "--contract", contract, "--json"])
        result = json.loads(ours.stdout)
        assert ours.exit_code == 2 and result["reason"] == "val_accuracy_below_floor" and result["author"] == "@tests"
        stream = build_model(english[:60_000], order=PRESET.order, contexts=PRESET.contexts, backend="cpu").stream()
        assert result["val_char_accuracy"] == evaluate(stream, english[200_000:203_000]).accuracy  # charstat build && charstat eval
        if not HARNESS.is_file():
            pytest.skip("../shared/harness is not there")
        command = [
            sys.executable,
            str(HARNESS),
            str(bundle),
            "--data",
            str(data),
            "--contract",
            contract,
            "--json",
            str(tmp_path / "out.json"),
        ]
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        theirs = json.loads((tmp_path / "out.json").read_text())
        assert done.returncode == ours.exit_code, done.stderr
        assert (theirs["accuracy"], theirs["chars"], theirs["reason"]) == (
            result["val_char_accuracy"],
            result["val_chars"],
            result["reason"],
        )
        assert f"{contract} contract" in done.stderr and "60,000 of 70,000 characters on" in done.stderr

    @pytest.mark.parametrize("contract", ["main", "dev"])
    def test_the_tiny_fixture_qualifies(self, contract, bundle, contest_env):
        result = run_contest(bundle, TINY, TINY[:400], contract=contract)
        assert not result["disqualified"] and result["train_chars"] == 485

    def test_three_times_in_one_process_and_by_another_name(self, bundle_source, cache, tmp_path):
        code = """
            text = open(sys.argv[2], newline="").read()
            for annotation, kind in (("dict[str, float]", dict), (str, str), ("dict[str, float]", dict)):
                submission, base = load(sys.argv[1], annotation)
                package = sys.modules["charstat"]
                model = submission.train(text)
                model.reset()
                assert isinstance(model, base) and isinstance(model.predict(), kind)
                model.observe("T")
                package.seen = getattr(package, "seen", 0) + 1
            assert package.seen == 3
        """
        (tmp_path / "text").write_text(TINY)
        (tmp_path / "any_name.py").write_text(bundle_source)
        drive(code, tmp_path / "any_name.py", tmp_path / "text", XDG_CACHE_HOME=str(cache), PYTHONPATH="")

    def test_another_charstat_gives_way(self, bundle, cache, tmp_path):
        (tmp_path / "old/charstat").mkdir(parents=True)
        (tmp_path / "old/charstat/__init__.py").write_text("__version__ = '0.0.1'\n")
        (tmp_path / "old/charstat/errors.py").write_text("raise RuntimeError('the wrong charstat')\n")
        code = """
            import charstat
            assert charstat.__version__ == "0.0.1"
            submission, base = load(sys.argv[1], str)
            import charstat.errors
            assert sys.modules["charstat"].__version__ == sys.argv[2] and "package-" in sys.path[0]
            model = submission.train("some text , some text . \\n" * 20)
            model.reset()
            assert isinstance(model, base) and len(model.predict()) == 1
        """
        done = drive(code, bundle, charstat.__version__, cwd=tmp_path, PYTHONPATH=str(tmp_path / "old"), XDG_CACHE_HOME=str(cache))
        assert "another charstat is loaded (0.0.1)" in done.stderr

    @pytest.mark.parametrize("annotation", ["dict[str, float]", "str"])
    def test_nothing_is_compiled_in_train_and_evaluation(self, annotation, bundle, cache, english, tmp_path):
        code = """
            from numba.core.dispatcher import Dispatcher

            def compiled():
                modules = [module for name, module in list(sys.modules.items()) if name.startswith("charstat")]
                return {f"{each.__module__}.{each.__name__}": each.signatures for m in modules for each in vars(m).values() if isinstance(each, Dispatcher)}

            submission, base = load(sys.argv[1], sys.argv[3])
            before = compiled()
            text = open(sys.argv[2], encoding="utf-8", newline="").read()
            model = submission.train(text)
            model.reset()
            for char in text[1000:2000] + "戦\\n":
                model.predict()
                model.observe(char)
            after = compiled()
            assert after == before, [name for name in after if after[name] != before.get(name)]
        """
        (tmp_path / "text").write_text(english[:200_000], encoding="utf-8")
        drive(code, bundle, tmp_path / "text", annotation, XDG_CACHE_HOME=str(cache), PYTHONPATH="")

    def places(self, bundle_source, tmp_path, cache, **env):
        """Import it in a place that cannot be written; (stderr, what lies in the temporary directory afterwards)."""
        place, temp = tmp_path / "place", tmp_path / "temp"
        place.mkdir(exist_ok=True)
        temp.mkdir(exist_ok=True)
        (place / "submission.py").write_text(bundle_source)
        shutil.copytree(cache / "charstat", temp / f"charstat-{os.getuid()}", dirs_exist_ok=True)  # compiled already
        (temp / f"charstat-{os.getuid()}").chmod(0o700)
        code = "submission, base = load(sys.argv[1], str)\nassert isinstance(submission.train('a b c'), base)\n"
        done = drive(code, "submission.py", cwd=place, TMPDIR=str(temp), PYTHONPATH="", **env)
        assert [f.name for f in place.iterdir()] == ["submission.py"]
        return done.stderr, sorted(f.name for f in temp.iterdir())

    def test_an_unwritable_home_leaves_one_directory_however_often(self, bundle_source, bundle, cache, contest_env, tmp_path):
        run_contest(bundle, TINY, TINY[:50], contract="dev")  # fills the cache
        (tmp_path / "file").write_text("")
        for _ in range(2):
            said, left = self.places(bundle_source, tmp_path, cache, XDG_CACHE_HOME=str(tmp_path / "file"))
            assert "cannot be used" in said and left == [f"charstat-{os.getuid()}"]

    def test_no_home_at_all_makes_no_directory_of_its_name(self, bundle_source, bundle, cache, contest_env, tmp_path, monkeypatch):
        run_contest(bundle, TINY, TINY[:50], contract="dev")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME", raising=False)
        source = bundle_source.replace('os.path.expanduser("~")', '"~"')  # as where there is no entry in the table of users
        _, left = self.places(source, tmp_path, cache)
        assert left == [f"charstat-{os.getuid()}"]

    def test_two_cold_starts_at_once_leave_one_package(self, bundle_source, tmp_path):
        """The unpacking alone, thirty times, by four processes each."""
        start = bundle_source.index("def _start")
        code = (
            bundle_source[:start].replace("import wikitext", "import time")
            + bundle_source[bundle_source.index("\nFILES = {}") : bundle_source.rindex("_ENTRY =")]
        )
        (tmp_path / "unpack.py").write_text(code + "\nwhile time.time() < float(sys.argv[2]): pass\nprint(_unpack(sys.argv[1]))\n")
        for i in range(10):
            home = tmp_path / f"home{i}"
            home.mkdir()
            command = [sys.executable, str(tmp_path / "unpack.py"), str(home), str(time.time() + 0.4)]
            made = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
            told = {process.communicate()[0] for process in made}
            assert len(told) == 1 and [f.name for f in home.iterdir()] == [Path(told.pop().strip()).name]

    def test_a_directory_of_others_is_not_used(self, bundle_source, tmp_path):
        names: dict = {"__file__": "x"}
        start = bundle_source.index("def _start")
        exec(bundle_source[:start].replace("import wikitext", ""), names)  # noqa: S102
        (tmp_path / "link").symlink_to(tmp_path)
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        for name, why in (("link", "no directory"), ("open", "others can write it")):
            with pytest.raises(OSError, match=why):
                names["_own_directory"](str(tmp_path / name))
        assert names["_own_directory"](str(tmp_path / "new")) and (tmp_path / "new").stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("damage", ["a letter", "a file less"])
    def test_a_damaged_bundle_says_so(self, damage, bundle_source, tmp_path, capfd):
        path = "charstat/tree.py"
        damaged = {
            "a letter": bundle_source.replace("the escape rightmost", "the escape leftmost"),
            "a file less": bundle_source.replace("_ENTRY = _start()", f"del FILES[{path!r}]\n_ENTRY = _start()"),
        }[damage]
        assert damaged != bundle_source
        (tmp_path / "submission.py").write_text(damaged)
        with pytest.raises(BrokenSubmission, match=r"submission.py is damaged: .*make it again with `charstat bundle`"):
            run_contest(tmp_path / "submission.py", "abc", "abc")

    def test_a_changed_directory_is_not_used(self, bundle_source, tmp_path):
        """What lies in the cache under the right name, but with other content, is left alone and not run."""
        names: dict = {"__file__": "x"}
        start = bundle_source.index("def _start")
        exec(bundle_source[:start].replace("import wikitext", ""), names)  # noqa: S102
        names["FILES"] = {"charstat/a.py": "1"}
        first = names["_unpack"](str(tmp_path))
        assert names["_unpack"](str(tmp_path)) == first
        Path(first, "charstat/a.py").write_text("tampered")
        removed = []
        names["atexit"] = type("atexit", (), {"register": lambda *args, **options: removed.append(args[1])})
        second = names["_unpack"](str(tmp_path))
        assert second != first and Path(second, "charstat/a.py").read_text() == "1" and removed == [second]
