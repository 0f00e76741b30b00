"""The contest's runner: its rules, its energy, and what a submission tries against it."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from streams import write_data

from charstat.cli import cli
from charstat.contest import carbon
from charstat.contest.channel import BrokenSubmission
from charstat.contest.runner import exit_status, run_contest
from charstat.energy import EnergyMeter, EnergyReader
from charstat.errors import ResourceError, UserError

ROOT = Path(__file__).resolve().parents[1]
PEAK = 200.0  # joules


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

    def test_the_cpu_time_of_train(self, tmp_path):
        source = (
            REPEAT
            + "import time\ndef train(train_text):\n    until = time.process_time() + 0.3\n    while time.process_time() < until: pass\n    return Model()\n"
        )
        assert 0.25 < submit(tmp_path, source)["train_cpu_s"] < 0.5

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


# What a submission tries against the runner ---------------------------------------------------------------------------------------

WRITE_EVERYWHERE = """
import os
def write_everywhere(data):
    for fd in range(3, 64):
        try: os.write(fd, data)
        except OSError: pass
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(path: Path) -> str:
    for _ in range(250):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    pytest.fail(f"{path} was not written")


class TestAttacks:
    """Each is a submission that got through the runner before."""

    @pytest.mark.parametrize(
        "forged",
        [
            "(2).to_bytes(8, 'big') + b'O{}'",  # the answer of an earlier version
            "bytes(16) + b'O' + (2).to_bytes(8, 'big') + b'{}'",  # the form of this one
            "b'x'",
            "b'x' * 4096",
            "bytes(16) + b'O' + b'\\xff' * 8",  # a message that is longer than all memory
        ],
    )
    def test_the_answer_of_train_cannot_be_forged_blindly(self, forged, tmp_path):
        source = f"{REPEAT}{WRITE_EVERYWHERE}\ndef train(train_text):\n    write_everywhere({forged})\n    import time; time.sleep(3)\n    return Model()\n"
        started = time.monotonic()
        try:
            result = submit(tmp_path, source, max_train_s=1.0)
        except BrokenSubmission as e:
            assert "something other than the runner wrote" in str(e)
        else:  # too short for a message: the runner waits for the rest, as long as train() may take
            assert result["reason"] == "train_time_exceeded" and result["training_duration_s"] >= 1.0
        assert time.monotonic() - started < 10

    @pytest.mark.parametrize("data", ["b'x'", "b''"])
    def test_the_time_limit_holds_whatever_arrives(self, data, tmp_path):
        """One byte of an answer made the runner wait for the rest for ever."""
        source = f"{REPEAT}{WRITE_EVERYWHERE}\ndef train(train_text):\n    write_everywhere({data})\n    import time; time.sleep(60)\n"
        started = time.monotonic()
        result = submit(tmp_path, source, max_train_s=0.5)
        assert result["reason"] == "train_time_exceeded" and time.monotonic() - started < 10

    def test_a_signal_does_not_stop_the_limit(self, tmp_path):
        ignoring = "import signal, time\nfor s in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM): signal.signal(s, signal.SIG_IGN)\n"
        source = REPEAT + ignoring + "def train(train_text):\n    while True: pass\n"
        assert submit(tmp_path, source, max_train_s=0.5)["reason"] == "train_time_exceeded"

    def test_the_texts_are_not_in_any_command_line(self, tmp_path):
        data = write_data(tmp_path / "secret place", "abc", "aabbbc" * 20)
        look = textwrap.dedent(f"""
            from pathlib import Path
            seen = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
            Path({str(tmp_path / "seen")!r}).write_text("found" if any(b"secret place" in each for each in seen) else "nothing")
        """)
        (tmp_path / "mine.py").write_text(REPEAT + look)
        command = [sys.executable, "-m", "charstat.cli", "contest", str(tmp_path / "mine.py"), "--data", str(data), "--json"]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert (tmp_path / "seen").read_text() == "nothing"

    def test_the_command_line_is_back_afterwards(self, tmp_path):
        before = Path("/proc/self/cmdline").read_bytes()
        submit(tmp_path, REPEAT)
        assert Path("/proc/self/cmdline").read_bytes() == before and before.strip(b"\0")

    @pytest.mark.skipif(os.getuid() == 0, reason="the superuser reads every process")
    def test_the_runners_memory_is_its_own(self, tmp_path):
        source = (
            REPEAT
            + "import os\nfor name in ('mem', 'environ', 'maps'):\n    try: open(f'/proc/{os.getppid()}/{name}', 'rb')\n    except PermissionError: continue\n    raise SystemExit(name)\n"
        )
        submit(tmp_path, source)

    def test_a_grandchild_in_a_session_of_its_own_is_ended(self, tmp_path):
        source = REPEAT + textwrap.dedent(f"""
            import os, time
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.setsid()
                    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
                    time.sleep(60)
                os._exit(0)
        """)
        submit(tmp_path, source)
        pid = int(wait_for(tmp_path / "pid"))
        assert not running(pid)

    def test_a_grandchild_that_multiplies_is_ended(self, tmp_path):
        source = REPEAT + textwrap.dedent(f"""
            import os, time
            if os.fork() == 0:
                os.setsid()
                for _ in range(200):  # each generation ends when the next one lives
                    if os.fork():
                        os._exit(0)
                    os.setsid()
                    time.sleep(0.01)
                    open({str(tmp_path / "alive")!r}, "a").write(f"{{time.monotonic()}}\\n")  # one that is ended leaves no empty file
                os._exit(0)
            while not os.path.exists({str(tmp_path / "alive")!r}) or not os.path.getsize({str(tmp_path / "alive")!r}):
                time.sleep(0.005)  # so that there is something to end
        """)
        submit(tmp_path, source)
        wait_for(tmp_path / "alive")
        time.sleep(0.3)
        last = (tmp_path / "alive").read_text()
        time.sleep(0.3)
        assert (tmp_path / "alive").read_text() == last

    def test_the_pipe_held_open_holds_up_nobody(self, tmp_path):
        source = (
            REPEAT
            + "import os, time\ndef train(train_text):\n    if os.fork() == 0:\n        os.setsid(); time.sleep(60)\n    os._exit(5)\n"
        )
        started = time.monotonic()
        with pytest.raises(BrokenSubmission, match=r"its process ended \(status 5\)"):
            submit(tmp_path, source)
        assert time.monotonic() - started < 10

    @pytest.mark.parametrize(
        ("source", "limit", "what"),
        [
            ("import time; time.sleep(60)\n", "import_limit_s", "its import takes longer than 0.5 s"),
            (REPEAT.replace('self.last = ""', "__import__('time').sleep(60)"), "step_limit_s", "a step of it takes longer than 0.5 s"),
            (MODEL.replace("PREDICT", "__import__('time').sleep(60)") + "def train(t): return Model()\n", "step_limit_s", "a step of it"),
            (REPEAT.replace("self.last = char", "__import__('time').sleep(60)"), "step_limit_s", "a step of it takes longer than 0.5 s"),
            (
                REPEAT.replace("self.last = char", "__import__('time').sleep(0.02)"),
                "evaluate_limit_s",
                "the evaluation takes longer than 0.5 s",
            ),
        ],
    )
    def test_every_step_has_a_limit(self, source, limit, what, tmp_path):
        started = time.monotonic()
        with pytest.raises(BrokenSubmission, match=what):
            submit(tmp_path, source, **{limit: 0.5})
        assert time.monotonic() - started < 10

    @pytest.mark.parametrize(
        "answer",
        [
            "b'O', b'not json'",
            "b'O', b'[1]'",
            "b'O', b'[' * 100000",
            "b'G', b'{}'",
            "b'F', b'\\xff'",
            "b'?', b''",
            "b'O', b'x' * (1 << 21)",
        ],
    )
    def test_a_malformed_answer_is_a_broken_submission(self, answer, tmp_path):
        """From a submission that takes the runner's own objects apart: it has the right nonce."""
        source = f"import sys\nmain = sys.modules['__main__']\npipe = next(f for f in __import__('gc').get_objects() if type(f) is main.Pipe)\npipe.answer({answer})\n"
        with pytest.raises(BrokenSubmission, match="broken submission: "):
            submit(tmp_path, source + REPEAT)

    def test_a_guess_that_is_no_text(self, tmp_path):
        source = REPEAT.replace("{self.last: 1.0} if self.last else {}", "self.cheat()") + textwrap.dedent("""
            def cheat(self):
                main = sys.modules["__main__"]
                next(f for f in __import__("gc").get_objects() if type(f) is main.Pipe).answer(b"G", b"\\xff\\xfe")
            Model.cheat = cheat
        """)
        with pytest.raises(BrokenSubmission, match="none of the runner's messages"):
            submit(tmp_path, source)

    def test_an_error_of_the_kind_that_ends_the_pipe_is_told(self, tmp_path):
        with pytest.raises(BrokenSubmission, match="EOFError: mine"):
            submit(tmp_path, REPEAT + "def train(t): raise EOFError('mine')\n")

    def test_the_child_ends_with_the_runner(self, tmp_path):
        source = REPEAT + f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
        (tmp_path / "mine.py").write_text(source)
        data = write_data(tmp_path / "data", "abc", "abc")
        runner = subprocess.Popen(
            [sys.executable, "-m", "charstat.cli", "contest", str(tmp_path / "mine.py"), "--data", str(data)],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        pid = int(wait_for(tmp_path / "pid"))
        runner.kill()
        runner.wait()
        for _ in range(100):
            if not running(pid):
                return
            time.sleep(0.02)
        pytest.fail("the child outlives a runner that was killed")

    def test_children_of_ours_stay(self, tmp_path):
        ours = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        try:
            submit(tmp_path, REPEAT)
            assert ours.poll() is None
        finally:
            ours.kill()
            ours.wait()

    def test_training_that_hides_in_reset_is_told(self, tmp_path):
        source = REPEAT.replace('self.last = ""', "self.last = ''; __import__('time').sleep(1.2)")
        assert any("reset() and the first predict() took" in note for note in submit(tmp_path, source)["notes"])


class FakeTracker:
    """As much of CodeCarbon as the contest uses: a start that takes its time, and joules in kilowatt-hours."""

    starts = 0

    def __init__(self, **options):
        assert options == {"save_to_file": False, "log_level": "error", "measure_power_secs": 1.0}

    def start(self):
        FakeTracker.starts += 1
        time.sleep(0.2)

    def stop(self):
        self._total_cpu_energy = type("Energy", (), {"kWh": 36.0 / 3.6e6})()


class TestCarbon:
    def test_codecarbon_itself_where_it_is(self, tmp_path, monkeypatch):
        fake = type(sys)("codecarbon")
        fake.EmissionsTracker, fake.__version__ = FakeTracker, "3.9.9"
        monkeypatch.setitem(sys.modules, "codecarbon", fake)
        monkeypatch.setattr(FakeTracker, "starts", 0)
        dev = submit(tmp_path, REPEAT, contract="dev", meter=fake_meter(gpu=PEAK))
        assert FakeTracker.starts == 2 and dev["cpu_counted_by"] == "codecarbon 3.9.9" and dev["cpu_energy_J"] == pytest.approx(36.0)
        # As in the contest: the GPU's counter covers the tracker's start, the 50 W are taken off for the clock's seconds alone.
        assert dev["training_duration_s"] < 0.2 and dev["training_energy_J"] == pytest.approx(PEAK - 50 * dev["training_duration_s"])
        assert dev["total_energy_J"] == pytest.approx(dev["training_energy_J"] + 36.0)
        assert dev["no_op"]["seconds"] < 0.2 <= dev["no_op"]["whole_seconds"] and dev["no_op"]["total_energy_J"] == pytest.approx(
            PEAK + 36, abs=10
        )
        main = submit(tmp_path, REPEAT, meter=fake_meter(gpu=PEAK))
        assert FakeTracker.starts == 2 and "cpu_energy_J" not in main and "no_op" not in main

    def test_the_constant_is_named_where_it_is_not(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "codecarbon", None)
        dev = submit(tmp_path, REPEAT, contract="dev", meter=fake_meter(gpu=PEAK))
        assert "42.5 W" in dev["cpu_counted_by"] and "charstat[contest]" in dev["cpu_counted_by"] and dev["no_op"] is None
        assert carbon.codecarbon_tracker()[0] is None

    def test_the_table_shows_both(self, tmp_path, monkeypatch):
        fake = type(sys)("codecarbon")
        fake.EmissionsTracker, fake.__version__ = FakeTracker, "3.9.9"
        monkeypatch.setitem(sys.modules, "codecarbon", fake)
        (tmp_path / "mine.py").write_text(REPEAT)
        data = write_data(tmp_path / "data", "abc", "aabbbc" * 20)
        shown = CliRunner().invoke(
            cli, ["contest", str(tmp_path / "mine.py"), "--data", str(data), "--contract", "dev"], env={"COLUMNS": "160"}
        )
        assert (
            "codecarbon 3.9.9" in shown.stdout and "A train() of nothing" in shown.stdout and "CodeCarbon's start included" in shown.stdout
        )


class TestCommand:
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
