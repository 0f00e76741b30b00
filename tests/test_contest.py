"""Entering the contest: the bundle, the runner, and their agreement with the independent runner in ../shared/harness."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import charstat
from charstat.charmodel_api import evaluate
from charstat.cli import cli
from charstat.contest import entry, environment
from charstat.contest.bundle import submission_source, write_bundle
from charstat.contest.child import contest_module
from charstat.contest.presets import PRESETS, Preset, choose_text, next_article
from charstat.contest.runner import BrokenSubmission, exit_status, run_contest
from charstat.contest.wheel import build_wheel
from charstat.counting import build_model, choose_backend
from charstat.energy import EnergyMeter, EnergyReader
from charstat.errors import FormatError, ResourceError, UserError
from charstat.ngram.contexts import select_contexts

ROOT = Path(__file__).resolve().parents[1]
HARNESS = ROOT.parent / "shared" / "harness" / "run_contest.py"
TINY = "".join(
    f"\n = Title {i} = \n\n\n The quick brown fox number {i} jumps over the lazy dogs , again and again . \n\n" for i in range(6)
)[:485]
PRESET = Preset("test", 60_000, "first", "default", 6)
PEAK = 200.0  # joules


# The pieces -------------------------------------------------------------------------------------------------------------------


class TestPresets:
    def test_they_can_be_built(self):
        for name, preset in PRESETS.items():
            assert preset.name == name and Preset(**preset.to_dict()) == preset
            assert select_contexts(preset.contexts, preset.order)

    @pytest.mark.parametrize("wrong", [{"sample": "best"}, {"chars": 0}, {"order": 99}, {"contexts": "nonsense"}])
    def test_mistakes_are_told(self, wrong):
        with pytest.raises(UserError):
            replace(PRESETS["gate"], **wrong)


def articles(n: int, paragraphs: int = 3) -> list[str]:
    """Articles in the contest's layout, with sections, and a paragraph that starts like a title."""
    return [
        f"\n = Article {i} = \n\n"
        + "".join(f"\n Words of {i} . \n\n\n = = Part {j} = = \n\n\n = 5 is no title . \n\n" for j in range(1, paragraphs + i % 4))
        for i in range(n)
    ]


class TestChoosing:
    def test_the_first_characters(self):
        assert choose_text("abcdef", 4) == "abcd"
        assert choose_text("abc", 4) == choose_text("abc", None) == "abc"

    def test_titles_are_found_and_sections_are_not(self):
        made = articles(5)
        text, starts, at = "".join(made), [], 0
        while (at := next_article(text, at, len(text))) < len(text):
            starts.append(at)
            at += 1
        assert starts == [sum(map(len, made[:i])) for i in range(5)]

    def test_whole_articles_from_all_over_the_text(self):
        made = articles(400)
        text = "".join(made)
        taken = choose_text(text, len(text) // 10, "articles")
        assert len(taken) == len(text) // 10
        whole = [piece for piece in re.split(r"(?=\n = Article)", taken) if piece]
        assert all(piece in made for piece in whole[:-1]) and text.find(whole[-1]) >= 0
        numbers = [int(n) for n in re.findall(r"= Article (\d+) =", taken)]
        assert numbers == sorted(set(numbers)) and numbers[0] < 40 and numbers[-1] > 340
        assert taken == choose_text(text, len(text) // 10, "articles")

    @given(st.text(alphabet="\n =aB", max_size=300), st.integers(1, 310))
    def test_always_as_many_as_asked_for(self, text, chars):
        taken = choose_text(text, chars, "articles")
        assert len(taken) == min(chars, len(text))
        assert sorted(taken) == sorted(text) if chars >= len(text) else set(taken) <= set(text)

    def test_a_text_without_titles(self):
        assert choose_text("ab" * 500, 300, "articles") == ("ab" * 500)[:300]


class TestWheel:
    def test_it_is_the_same_every_time(self):
        code = "from charstat.contest.wheel import build_wheel as b; import hashlib; print(hashlib.sha256(b()[1]).hexdigest())"
        found = {
            subprocess.run(
                [sys.executable, "-c", code],
                cwd=ROOT,
                env={**os.environ, "PYTHONHASHSEED": seed},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for seed in ("0", "77")
        }
        assert found == {hashlib.sha256(build_wheel()[1]).hexdigest() + "\n"}

    def test_the_record_lists_every_file(self):
        name, wheel = build_wheel()
        assert name == f"charstat-{charstat.__version__}-py3-none-any.whl"
        archive = zipfile.ZipFile(io.BytesIO(wheel))
        record = archive.read(f"charstat-{charstat.__version__}.dist-info/RECORD").decode().splitlines()
        assert [line.split(",")[0] for line in record] == archive.namelist()
        for line in record[:-1]:
            path, digest, size = line.split(",")
            content = archive.read(path)
            assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert int(size) == len(content)
        assert "charstat/mixers/mixture.py" in archive.namelist() and not any("__pycache__" in path for path in archive.namelist())

    def test_pip_installs_it(self, tmp_path):
        name, wheel = build_wheel()
        (tmp_path / name).write_bytes(wheel)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target"]
        done = subprocess.run([*pip, str(tmp_path / "lib"), str(tmp_path / name)], check=False, capture_output=True, text=True)
        if "No module named pip" in done.stderr:
            pytest.skip("no pip here")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "lib/charstat/counting.py").read_bytes() == (ROOT / "charstat/counting.py").read_bytes()


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
        monkeypatch.setattr(environment.site, "getsitepackages", environment.site.getsitepackages)
        return calls

    def test_what_is_missing_is_installed_once_and_comes_last(self, tmp_path, monkeypatch):
        calls, said = self.fake_pip(monkeypatch), []
        assert environment.provide("charstat_absent", ("absent>=1",), str(tmp_path), said.append) is None
        assert sys.path[-1].startswith(str(tmp_path)) and len(calls) == 1 and "absent>=1" in calls[0]
        assert any(each.startswith("numpy==") for each in calls[0])  # the numpy that is there stays
        assert "charstat_absent" in said[0] and "not metered" in said[0]
        assert environment.site.getsitepackages()[-1] == sys.path[-1]  # where CuPy looks for NVRTC
        sys.path.pop()
        assert environment.provide("charstat_absent", ("absent>=1",), str(tmp_path), said.append) is None and len(calls) == 1

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
        for cuda in (12, 13, 14, None):
            monkeypatch.setattr(environment, "cuda_version", lambda cuda=cuda: cuda)
            environment.provide_packages(str(tmp_path), "auto", lambda message: None)
        assert [wanted[0] for module, wanted in asked if module == "cupy"] == ["cupy-cuda12x[ctk]>=13", *["cupy-cuda13x[ctk]>=13.6"] * 2]


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

    def test_the_counts_are_those_of_build_model(self, train_text):
        engine, _ = choose_backend("cpu", 2)
        ours = entry.count(train_text, PRESET, engine)
        theirs = build_model(train_text, order=PRESET.order, contexts=PRESET.contexts, backend="cpu")
        assert list(ours.tables) == list(theirs.tables) and ours.alphabet == theirs.alphabet
        assert all((ours.columns[name] == theirs.columns[name]).all() for name in theirs.columns)

    def test_a_start_is_that_of_build_model(self, train_text):
        engine, _ = choose_backend("cpu", 2)
        preset = replace(PRESET, held_out_chars=6000)
        ours = entry.count(train_text, preset, engine)
        theirs = build_model(train_text, order=PRESET.order, contexts=PRESET.contexts, held_out_chars=6000, backend="cpu")
        assert ours.start_chars == 6000 and (ours.start == theirs.start).all()
        assert all((ours.columns[name] == theirs.columns[name]).all() for name in theirs.columns)
        assert entry.count(train_text[: entry.HELD_OUT_FROM * 6000], preset, engine).start_chars == 0  # too short to spare any
        said = []
        entry.Entry(replace(preset, held_out_chars=2000).to_dict(), "cpu", contest_module("main").CharModel, said.append).train(train_text)
        assert said[-1].startswith("counted 58,000 of 80,000 characters and learned a start from 2,000 on")

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

    def test_a_gpu_that_fails_is_left_for_the_cpu(self, monkeypatch, train_text):
        class Failing:
            name, device = "gpu", "a broken device"

            def warm_up(self, chars=None):
                self.count = self.fail

            def count(self, *args):
                yield from choose_backend("cpu", 1)[0].count(*args)

            def fail(self, *args):
                raise RuntimeError("out of order")

        def choose(backend, *args):
            return (Failing(), "a test") if backend == "auto" else choose_backend("cpu", 1)

        monkeypatch.setattr(entry, "choose_backend", choose)
        for when in ("warm-up", "train"):
            said = []
            if when == "train":  # works in the warm-up, fails later
                monkeypatch.setattr(Failing, "warm_up", lambda self, chars=None: None)
            made = entry.Entry(PRESET.to_dict(), "auto", contest_module("main").CharModel, said.append)
            if when == "train":
                made._engine.count = made._engine.fail
            made.train(train_text[:5000])
            assert any("RuntimeError: out of order" in each and "going on with the CPU" in each for each in said)
            assert "(cpu)" in said[-1]

    def test_empty_text(self):
        model = entry.Entry(PRESET.to_dict(), "cpu", contest_module("dev").CharModel, lambda message: None).train("")
        model.reset()
        assert isinstance(model.predict(), str)

    def test_a_preset_without_a_limit_takes_what_time_and_memory_allow(self, train_text, monkeypatch):
        said = []
        full = replace(PRESET, chars=None)
        made = entry.Entry(full.to_dict(), "cpu", contest_module("dev").CharModel, said.append)
        assert made._chars() > 100_000
        monkeypatch.setattr(made, "_rate", 5000 / (entry.TIME_SHARE * full.count_s))
        made.train(train_text)
        assert "5,000 of 80,000 characters" in said[-1]


# The runner -------------------------------------------------------------------------------------------------------------------

MODEL = """
import sys, wikitext
class Model(wikitext.CharModel):
    def reset(self): self.last = ""
    def predict(self): return PREDICT
    def observe(self, char): self.last = char
"""
REPEAT = MODEL.replace("PREDICT", "{self.last: 1.0} if self.last else {}") + "def train(train_text): return Model()\n"


def submit(tmp_path, source: str, *, train: str = "abc", val: str = "aabbbc" * 20, **options) -> dict:
    path = tmp_path / "submission.py"
    path.write_text(source, encoding="utf-8")
    return run_contest(path, train, val, **options)


def fake_meter(gpu=None, cpu=None, seconds: float = 2.0, present: bool | None = False):
    """Meters whose counters rise by gpu and cpu joules a window; None: there is no such counter."""

    class Counter(EnergyReader):
        def __init__(self, step):
            self.step, self.at = step, 0.0

        def find(self):
            self.name, self.device_present = ("Fake GPU", True) if self.step is not None else (None, present)
            return None if self.step is not None else "no NVIDIA driver"

        def read_j(self):
            self.at += self.step
            return self.at

    ticks = iter(range(1000))
    return lambda: EnergyMeter(Counter(gpu), Counter(cpu), clock=lambda: seconds * next(ticks))


class TestRunner:
    def test_the_rules(self, tmp_path):
        result = submit(tmp_path, REPEAT)
        assert result["val_char_accuracy"] == 0.5 and result["val_chars"] == 120
        assert result["reason"] == "val_accuracy_below_floor" and result["acc_min"] == 0.70 and exit_status(result) == 2
        assert submit(tmp_path, REPEAT, acc_min=0.5)["disqualified"] is False
        assert result["submission"] == "submission" and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\+00:00", result["date_utc"])
        assert result["unmetered"]["import"]["seconds"] > 0 < result["unmetered"]["evaluation"]["seconds"]

    def test_dev_scores_a_string_and_a_dict_not_at_all(self, tmp_path):
        text = MODEL.replace("PREDICT", "self.last") + "def train(train_text): return Model()\n"
        assert submit(tmp_path, text, contract="dev")["val_char_accuracy"] == 0.5
        assert submit(tmp_path, REPEAT, contract="dev")["val_char_accuracy"] == 0

    def test_the_first_of_equals_wins_and_nothing_is_wrong(self, tmp_path):
        for predicted, wanted in (("{'a': .5, 'b': .5}", 2 / 6), ("{'b': .5, 'a': .5}", 3 / 6), ("{}", 0), ("None", 0), ("{'ab': 1.}", 0)):
            source = MODEL.replace("PREDICT", predicted) + "def train(train_text): return Model()\n"
            assert submit(tmp_path, source)["val_char_accuracy"] == pytest.approx(wanted)

    def test_every_character_arrives(self, tmp_path):
        text = "a戦\n\ud800🐝 "
        source = REPEAT.replace("def train(train_text):", f"def train(train_text):\n    assert train_text == {text!r} * 30000\n   ")
        assert submit(tmp_path, source, train=text * 30_000, val="戦戦\ud800\ud800🐝🐝")["val_char_accuracy"] == 0.5

    def test_the_fields_of_both_contracts(self, tmp_path):
        main = submit(tmp_path, REPEAT, meter=fake_meter(gpu=PEAK, cpu=7.0))
        assert main["training_energy_J"] == PEAK - 50 * 2 and main["training_duration_s"] == 2 and main["gpu_name"] == "Fake GPU"
        assert main["cpu_measured_J"] == 7 and not main["reasons"] and "total_energy_J" not in main
        assert main["unmetered"]["import"] == {"seconds": 2, "gpu_gross_J": PEAK, "cpu_measured_J": 7, "reasons": {}}
        dev = submit(tmp_path, REPEAT, contract="dev", meter=fake_meter(gpu=PEAK))
        assert (dev["cpu_energy_J"], dev["total_energy_J"]) == (85, PEAK - 100 + 85)
        dev = submit(tmp_path, REPEAT, contract="dev", meter=fake_meter(gpu=1.0))
        assert (dev["training_energy_J"], dev["total_energy_J"]) == (0, 100)

    def test_no_counter_is_null_with_a_reason(self, tmp_path):
        result = submit(tmp_path, REPEAT, contract="dev", meter=fake_meter())
        assert result["training_energy_J"] is result["gpu_name"] is result["cpu_measured_J"] is None
        assert result["reasons"]["training_energy_J"] == result["reasons"]["gpu_name"] == "no NVIDIA driver"
        assert result["total_energy_J"] == 100 and any("50 W" in note for note in result["notes"])
        unknown = submit(tmp_path, REPEAT, contract="dev", meter=fake_meter(present=None))
        assert unknown["total_energy_J"] is None and "total_energy_J" in unknown["reasons"]

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("x = 1\n", "it defines no train()"),
            ("def train(:\n", "SyntaxError"),
            ("raise ValueError('at import')\n", "ValueError: at import"),
            ("import os; os._exit(3)\n", r"ended \(status 3\)"),
            ("def train(train_text): raise ZeroDivisionError('in train')\n", "ZeroDivisionError: in train"),
            ("def train(train_text): raise SystemExit(0)\n", "SystemExit"),
            ("def train(train_text): return object()\n", "returned object, not the runner's CharModel"),
            ("def train(train_text): return None\n", "returned NoneType"),
            (MODEL.replace("PREDICT", "{}") + "def train(train_text): return Model\n", "returned (ABCMeta|type)"),
            (MODEL.replace("def observe", "def overlook") + "def train(train_text): return Model()\n", "TypeError"),
            (MODEL.replace("PREDICT", "'a'") + "def train(train_text): return Model()\n", "returned str, not a dict"),
            (MODEL.replace("PREDICT", "{'a': 1, 'b': 'x'}") + "def train(train_text): return Model()\n", "TypeError"),
            (MODEL.replace("PREDICT", "1 / 0") + "def train(train_text): return Model()\n", "ZeroDivisionError"),
            (REPEAT.replace("self.last = char", "raise KeyError(char)"), "KeyError"),
            (
                REPEAT + "import os, sys\nfor fd in range(3, 64):\n    try: os.write(fd, b'x' * 64)\n    except OSError: pass\n",
                "broken submission",
            ),
        ],
    )
    def test_broken_submissions(self, source, message, tmp_path, capfd):
        with pytest.raises(BrokenSubmission, match=message):
            submit(tmp_path, source)
        assert BrokenSubmission.exit_code == 1

    def test_the_time_limit(self, tmp_path):
        source = MODEL.replace("PREDICT", "{}") + "import time\ndef train(train_text): time.sleep(60)\n"
        started = time.monotonic()
        result = submit(tmp_path, source, max_train_s=0.3)
        assert time.monotonic() - started < 10
        assert result["reason"] == "train_time_exceeded" and result["max_train_seconds"] == 0.3 and exit_status(result) == 2
        assert (
            result["val_char_accuracy"] is None and 0.3 <= result["training_duration_s"] < 5 and result["unmetered"]["evaluation"] is None
        )

    def test_nothing_is_left_running(self, tmp_path):
        source = (
            REPEAT
            + f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid))\n"
        )
        submit(tmp_path, source)
        pid = int((tmp_path / "pid").read_text())
        for _ in range(100):
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                return
            if state in "ZX":
                return
            time.sleep(0.02)
        pytest.fail("the submission's own child still runs")

    def test_the_meter_and_the_text_are_out_of_reach(self, tmp_path):
        source = REPEAT + textwrap.dedent("""
            import sys, time
            time.perf_counter = time.monotonic = lambda: 0.0
            assert "charstat" not in sys.modules and "pynvml" not in sys.modules
            sys.stdout.write("noise")
        """)
        result = submit(tmp_path, source + "__author__ = 'me'\n")
        assert result["training_duration_s"] > 0 and result["author"] == "me"

    def test_valid_text_is_never_given(self, tmp_path):
        source = REPEAT.replace("(train_text)", "(train_text, valid_text=None)").replace(
            "return Model()", "assert valid_text is None; return Model()"
        )
        assert any("valid_text" in note for note in submit(tmp_path, source)["notes"])

    def test_mistakes(self, tmp_path):
        with pytest.raises(ResourceError, match="cannot read the submission"):
            run_contest(tmp_path / "none.py", "a", "a")
        with pytest.raises(UserError, match="empty"):
            submit(tmp_path, REPEAT, val="")


# The command ------------------------------------------------------------------------------------------------------------------


def write_data(directory: Path, train: str, val: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for split, text in (("train", train), ("valid", val)):
        (directory / f"wiki.{split}.raw").write_bytes(text.encode())
    return directory


class TestCommands:
    def test_bundle(self, tmp_path):
        args = [
            "bundle",
            "--out",
            str(tmp_path / "out"),
            "--preset",
            "full",
            "--backend",
            "cpu",
            "--author",
            'A "quoted" \\ name\n',
            "--json",
        ]
        for _ in range(2):  # a bundle may be replaced
            result = CliRunner().invoke(cli, args)
            assert result.exit_code == 0, result.output
        shown = json.loads(result.stdout)
        source = (tmp_path / "out/submission.py").read_text()
        assert shown["bytes"] == len(source.encode()) and shown["preset"] == PRESETS["full"].to_dict() and shown["wheel_sha256"] in source
        names: dict = {}
        exec(source.split("def _say")[0].replace("import wikitext", ""), names)  # noqa: S102
        assert (
            names["__author__"] == 'A "quoted" \\ name\n' and names["BACKEND"] == "cpu" and Preset(**names["SETTINGS"]) == PRESETS["full"]
        )
        assert not re.search(r'"@\w+@"', source)
        full = CliRunner().invoke(cli, ["bundle", "--out", str(tmp_path / "full"), "--preset", "full"], env={"COLUMNS": "250"})
        assert "the last 1,000,000 are not counted" in full.stdout
        table = CliRunner().invoke(cli, ["bundle", "--out", str(tmp_path / "other")], env={"COLUMNS": "250"})
        assert table.exit_code == 0 and "submission.py" in table.stdout and "gate" in table.stdout

    def test_another_submission_is_not_overwritten(self, tmp_path):
        (tmp_path / "submission.py").write_text("# mine\n")
        with pytest.raises(FormatError, match="no charstat bundle"):
            write_bundle(tmp_path)
        assert (tmp_path / "submission.py").read_text() == "# mine\n"
        with pytest.raises(UserError, match="no preset"):
            write_bundle(tmp_path / "x", "best")
        with pytest.raises(UserError, match="no backend"):
            write_bundle(tmp_path / "x", backend="tpu")
        (tmp_path / "file").write_text("")
        with pytest.raises(ResourceError, match="cannot write"):
            write_bundle(tmp_path / "file" / "x")

    def test_contest(self, tmp_path):
        data = write_data(tmp_path / "data", "abc", "aabbbc" * 20)
        (tmp_path / "mine.py").write_text("print('noise')\n" + REPEAT)
        args = [
            sys.executable,
            "-m",
            "charstat.cli",
            "contest",
            str(tmp_path / "mine.py"),
            "--data",
            str(data),
            "--chars",
            "60",
            "--limit-train",
            "2",
        ]
        done = subprocess.run([*args, "--json"], cwd=ROOT, check=False, capture_output=True, text=True)
        result = json.loads(done.stdout)
        assert done.returncode == 2 and "noise" in done.stderr
        assert (result["submission"], result["val_chars"], result["train_chars"], result["contract"]) == ("mine", 60, 2, "main")
        shown = CliRunner().invoke(cli, [*args[3:], "--contract", "dev"], env={"COLUMNS": "120"})
        assert shown.exit_code == 2
        for each in ("DISQUALIFIED: val_accuracy_below_floor (0.7)", "Not metered by the contest", "import and warm-up", "evaluation"):
            assert each in shown.stdout
        (tmp_path / "mine.py").write_text("x = 1\n")
        broken = CliRunner().invoke(cli, [*args[3:], "--json"])
        assert broken.exit_code == 1 and broken.stdout == "" and broken.stderr == "error: broken submission: it defines no train()\n"


# The bundle as it will be run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle_source() -> str:
    return submission_source(PRESET, "cpu", "the tests")[0]


@pytest.fixture(scope="module")
def bundle(bundle_source, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "submission.py"
    path.write_text(bundle_source)
    return path


@pytest.fixture(scope="module")
def cache() -> Path:
    """The private directory of bundles of this very package: what numba compiles for them is kept between runs of the tests."""
    build = ROOT / "build"
    for old in build.glob("contest-*"):
        if time.time() - old.stat().st_mtime > 86_400:
            shutil.rmtree(old, ignore_errors=True)
    path = build / f"contest-{hashlib.sha256(build_wheel()[1]).hexdigest()[:16]}"
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
        assert ours.exit_code == 2 and result["reason"] == "val_accuracy_below_floor" and result["author"] == "the tests"
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

    def test_a_loaded_charstat_that_is_the_same_stays_and_twice_is_no_trouble(self, bundle, tmp_path):
        code = """
            import charstat
            first, base = load(sys.argv[1], "dict[str, float]")
            second, other = load(sys.argv[1], str)
            assert sys.modules["charstat"] is charstat and first is not second
            text = open(sys.argv[2], newline="").read()
            for submission, kind, wanted in ((first, base, dict), (second, other, str)):
                model = submission.train(text)
                model.reset()
                assert isinstance(model, kind) and isinstance(model.predict(), wanted)
                model.observe("T")
        """
        (tmp_path / "text").write_text(TINY)
        drive(code, bundle, tmp_path / "text", XDG_CACHE_HOME=str(tmp_path / "home"))
        assert not list((tmp_path / "home/charstat").glob("package-*"))

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
        assert "charstat 0.0.1 that is loaded already differs" in done.stderr

    def test_nothing_is_compiled_in_train_and_evaluation(self, bundle, english, tmp_path):
        code = """
            import charstat
            from numba.core.dispatcher import Dispatcher

            def compiled():
                modules = [module for name, module in list(sys.modules.items()) if name.startswith("charstat")]
                return {f"{each.__module__}.{each.__name__}": each.signatures for m in modules for each in vars(m).values() if isinstance(each, Dispatcher)}

            submission, base = load(sys.argv[1], "dict[str, float]")
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
        drive(code, bundle, tmp_path / "text", XDG_CACHE_HOME=str(tmp_path / "home"))

    def test_read_only_places(self, bundle_source, tmp_path):
        place = tmp_path / "place"
        place.mkdir()
        (place / "submission.py").write_text(bundle_source)
        (place / "not-a-directory").write_text("")
        (tmp_path / "temp").mkdir()
        place.chmod(0o555)
        try:
            code = "import charstat\nsubmission, base = load(sys.argv[1], str)\nassert isinstance(submission.train('a b c'), base)\n"
            done = drive(code, "submission.py", cwd=place, XDG_CACHE_HOME=str(place / "not-a-directory"), TMPDIR=str(tmp_path / "temp"))
        finally:
            place.chmod(0o755)
        assert "cannot be used" in done.stderr and str(tmp_path / "temp") in done.stderr
        assert sorted(f.name for f in place.iterdir()) == ["not-a-directory", "submission.py"]

    @pytest.mark.parametrize("damage", ["a letter", "cut", "no base64"])
    def test_a_damaged_bundle_says_so(self, damage, bundle_source, tmp_path, capfd):
        head, wheel, tail = bundle_source.rpartition('"""')[0].rpartition('"""')[0], *bundle_source.split('"""')[-2:]
        middle = len(wheel) // 2
        swapped = wheel[:middle] + wheel[middle:].replace("A", "B", 1)
        wheel = {"a letter": swapped, "cut": wheel[: middle - middle % 141 + 1], "no base64": wheel[:middle] + "?!" + wheel[middle:]}[
            damage
        ]
        with pytest.raises(BrokenSubmission, match=r"submission.py is damaged: .*make it again with `charstat bundle`"):
            submit(tmp_path, f'{head}"""{wheel}"""{tail}')

    def test_a_changed_or_foreign_directory_is_not_used(self, bundle, tmp_path):
        """What lies in the cache under the right name, but with other content, is left alone and not run."""
        names = {}
        source = bundle.read_text()
        exec(source[: source.index("def _start")].replace("import wikitext", ""), {**names, "__file__": "x"}, names)  # noqa: S102
        for function in ("_holds", "_unpack"):
            names[function].__globals__.update(names)
        first = names["_unpack"]({"charstat/a.py": b"1"}, str(tmp_path))
        assert names["_unpack"]({"charstat/a.py": b"1"}, str(tmp_path)) == first
        Path(first, "charstat/a.py").write_text("tampered")
        second = names["_unpack"]({"charstat/a.py": b"1"}, str(tmp_path))
        assert second != first and Path(second, "charstat/a.py").read_bytes() == b"1"
