"""charstat.energy: the meter and its report, with fake counters and a fake clock."""

import json
import math

import pytest
from energy_world import FakeReader, World, absent_gpu, make_meter

from charstat import energy
from charstat.energy import EnergyMeter, EnergyReport, format_energy
from charstat.errors import FormatError, StateError, UserError


@pytest.fixture
def world():
    return World()


# --- the formulas ------------------------------------------------------------------------------------------------------------------------


def test_all_values_by_hand(world):
    with make_meter(world, idle_watts=60) as meter:
        world.spend(2.0, gpu_j=300.0, cpu_j=90.0)
    report = meter.report()
    assert report.seconds == 2.0
    assert report.gpu_name == "Fake GPU"
    assert report.idle_watts == 60.0
    assert report.gpu_gross_j == 300.0
    assert report.gpu_net_j == 180.0  # 300 − 60 · 2
    assert report.cpu_j == 90.0
    assert report.contest_main_j == 200.0  # 300 − 50 · 2, whatever idle_watts says
    assert report.contest_dev_j == 285.0  # 200 + 42.5 · 2, over 50 · 2
    assert report.reasons == {}
    assert report.warnings == []
    assert report.notes == ["NVML note", "RAPL note"]


@pytest.mark.parametrize(
    ("gross_j", "seconds", "main_j", "dev_j"),
    [
        (60.0, 1.0, 10.0, 52.5),  # 10 + 42.5
        (57.0, 1.0, 7.0, 50.0),  # 7 + 42.5 = 49.5, under the floor
        (57.5, 1.0, 7.5, 50.0),  # exactly on it
        (40.0, 1.0, 0.0, 50.0),  # under idle: clamped
        (3000.0, 30.0, 1500.0, 2775.0),  # 1500 + 1275
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_contest_formulas(world, gross_j, seconds, main_j, dev_j):
    assert energy.contest_main_energy_j(gross_j, seconds) == main_j
    assert energy.contest_dev_energy_j(gross_j, seconds) == dev_j
    with make_meter(world) as meter:
        world.spend(seconds, gpu_j=gross_j, cpu_j=1.0)
    report = meter.report()
    assert (report.contest_main_j, report.contest_dev_j) == (main_j, dev_j)
    assert report.gpu_net_j == main_j  # idle_watts is 50 by default


def test_constants():
    assert energy.CONTEST_IDLE_GPU_W == 50.0
    assert energy.CODECARBON_FALLBACK_CPU_W == 42.5


@pytest.mark.parametrize("idle_watts", [-1.0, math.nan, math.inf])
def test_idle_watts_must_make_sense(idle_watts):
    with pytest.raises(UserError, match="idle_watts"):
        EnergyMeter(idle_watts=idle_watts)


# --- missing measurements ----------------------------------------------------------------------------------------------------------------


def test_no_gpu_leaves_the_dev_floor(world):
    with make_meter(world, gpu=absent_gpu()) as meter:
        world.spend(3.0, cpu_j=600.0)
    report = meter.report()
    assert report.gpu_gross_j is report.gpu_net_j is report.contest_main_j is report.gpu_name is None
    assert report.contest_dev_j == 150.0  # max(0 + 42.5 · 3, 50 · 3)
    assert report.cpu_j == 600.0
    assert report.reasons == dict.fromkeys(("gpu_gross_j", "gpu_net_j", "contest_main_j", "gpu_name"), "no NVIDIA driver")
    assert any("no GPU" in note for note in report.notes)
    assert "NVML note" not in report.notes
    assert report.phases == [{"name": "other", "seconds": 3.0, "gpu_gross_j": None, "cpu_j": 600.0}]


@pytest.mark.parametrize("present", [True, None])
def test_unreadable_gpu_leaves_no_dev_value(world, present):
    gpu = FakeReader("NVML", None, unavailable="Not Supported", present=present, name="Old GPU" if present else None)
    with make_meter(world, gpu=gpu) as meter:
        world.spend(3.0)
    report = meter.report()
    assert report.contest_dev_j is None
    assert report.contest_main_j is None
    assert report.reasons["contest_dev_j"] == "Not Supported"
    assert report.gpu_name == ("Old GPU" if present else None)
    assert ("gpu_name" in report.reasons) == (not present)


def test_nothing_measurable_still_reports_seconds(world):
    cpu = FakeReader("RAPL", None, unavailable="no RAPL", name=None)
    with make_meter(world, gpu=absent_gpu(), cpu=cpu) as meter:
        world.spend(0.01)
    report = meter.report()
    assert report.seconds == pytest.approx(0.01)
    assert report.cpu_j is None
    assert report.reasons["cpu_j"] == "no RAPL"
    assert report.warnings == []  # a short window matters to counters only


def test_reader_that_raises_in_find(world):
    class Broken(FakeReader):
        def find(self):
            raise OSError("bus error")

    with make_meter(world, gpu=Broken("NVML", None)) as meter:
        world.spend(1.0)
    assert meter.report().reasons["gpu_gross_j"] == "the NVML counter cannot be read: bus error"


def test_counter_failing_inside_the_block(world):
    def read():
        if world.now_s > 1001:
            raise OSError("GPU is lost")
        return world.gpu_j

    with make_meter(world, gpu=FakeReader("NVML", read)) as meter:
        with meter.phase("good"):
            world.spend(1.0, gpu_j=100.0, cpu_j=1.0)
        with meter.phase("bad"):
            world.spend(1.0, gpu_j=100.0, cpu_j=2.0)
    report = meter.report()
    assert report.gpu_gross_j is report.contest_dev_j is None
    assert "failed inside the block: GPU is lost" in report.reasons["gpu_gross_j"]
    assert report.gpu_name == "Fake GPU"
    assert [phase["gpu_gross_j"] for phase in report.phases] == [100.0, None, None]
    assert report.cpu_j == 3.0


def test_counter_going_backwards(world):
    with make_meter(world) as meter:
        world.spend(1.0, gpu_j=-1.0, cpu_j=1.0)
    report = meter.report()
    assert report.gpu_gross_j is None
    assert "backwards" in report.reasons["gpu_gross_j"]


# --- warnings ----------------------------------------------------------------------------------------------------------------------------


def test_short_window(world):
    with make_meter(world) as meter:
        world.spend(0.043, gpu_j=1.0, cpu_j=1.0)
    assert meter.report().warnings == ["window of 0.043 s is shorter than the 100 ms the NVML counter needs"]


def test_short_phase(world):
    with make_meter(world) as meter:
        for seconds in (0.5, 0.0625):
            with meter.phase("sort"):
                world.spend(seconds, gpu_j=10.0, cpu_j=1.0)
        with meter.phase("key"):
            world.spend(0.5, gpu_j=10.0, cpu_j=1.0)
    assert meter.report().warnings == ["phases shorter than the 100 ms the NVML counter needs: sort"]


def test_frozen_counter(world):
    with make_meter(world) as meter:
        world.spend(1.0, gpu_j=100.0)
    assert meter.report().warnings == ["the RAPL counter did not move in 1.000 s"]


# --- phases ------------------------------------------------------------------------------------------------------------------------------


def test_phases_accumulate_and_add_up(world):
    with make_meter(world) as meter:
        world.spend(0.25, gpu_j=1.0, cpu_j=2.0)
        for _ in range(2):
            with meter.phase("read"):
                world.spend(1.0, gpu_j=10.0, cpu_j=20.0)
            with meter.phase("sort"):
                world.spend(2.0, gpu_j=200.0, cpu_j=5.0)
        world.spend(0.5, gpu_j=4.0, cpu_j=3.0)
    report = meter.report()
    assert report.phases == [
        {"name": "read", "seconds": 2.0, "gpu_gross_j": 20.0, "cpu_j": 40.0},
        {"name": "sort", "seconds": 4.0, "gpu_gross_j": 400.0, "cpu_j": 10.0},
        {"name": "other", "seconds": 0.75, "gpu_gross_j": 5.0, "cpu_j": 5.0},
    ]
    for key, total in (("seconds", report.seconds), ("gpu_gross_j", report.gpu_gross_j), ("cpu_j", report.cpu_j)):
        assert math.fsum(phase[key] for phase in report.phases) == total


def test_phases_must_not_nest(world):
    meter = make_meter(world)
    with pytest.raises(StateError, match="'sort' starts inside phase 'read'"), meter, meter.phase("read"):
        world.spend(1.0, gpu_j=60.0)
        with meter.phase("sort"):
            pytest.fail("the inner phase must not start")
    assert meter.report().phases[0]["seconds"] == 1.0


@pytest.mark.parametrize("used", [False, True])
def test_phase_outside_the_block(world, used):
    meter = make_meter(world)
    if used:
        with meter:
            pass
    with pytest.raises(StateError, match="outside"), meter.phase("read"):
        pytest.fail("the phase must not start")


def test_block_that_ends_inside_a_phase(world):
    meter = make_meter(world)
    phase = meter.phase("read")
    with meter:
        phase.__enter__()
        world.spend(1.0, gpu_j=60.0, cpu_j=1.0)
    before = meter.report().to_dict()
    phase.__exit__(None, None, None)
    assert before["phases"][0] == {"name": "read", "seconds": 1.0, "gpu_gross_j": 60.0, "cpu_j": 1.0}
    assert meter.report().to_dict() == before


# --- the life of a meter -----------------------------------------------------------------------------------------------------------------


def test_entering_twice(world):
    meter = make_meter(world)
    with meter, pytest.raises(StateError, match="one block"):
        meter.__enter__()
    with pytest.raises(StateError, match="one block"):
        meter.__enter__()


def test_report_before_the_end(world):
    meter = make_meter(world)
    with pytest.raises(StateError, match="finished"):
        meter.report()
    with meter, pytest.raises(StateError, match="finished"):
        meter.report()


def test_exception_inside_the_block_closes_the_reading(world):
    meter = make_meter(world)
    with pytest.raises(ZeroDivisionError), meter:
        with meter.phase("read"):
            world.spend(1.0, gpu_j=70.0, cpu_j=5.0)
        with meter.phase("sort"):
            world.spend(2.0, gpu_j=150.0, cpu_j=6.0)
            raise ZeroDivisionError
    report = meter.report()
    assert (report.seconds, report.gpu_gross_j, report.cpu_j) == (3.0, 220.0, 11.0)
    assert [phase["seconds"] for phase in report.phases] == [1.0, 2.0, 0.0]
    assert report.warnings == ["the block ended with ZeroDivisionError: the numbers cover the time up to it"]


def test_one_reader_serves_block_after_block(world):
    gpu = FakeReader("NVML", lambda: world.gpu_j)
    for joules in (100.0, 200.0):
        world.spend(10.0, gpu_j=999.0)
        with make_meter(world, gpu=gpu) as meter:
            world.spend(1.0, gpu_j=joules, cpu_j=1.0)
        assert meter.report().gpu_gross_j == joules


def test_default_clock_is_real():
    with EnergyMeter(absent_gpu(), FakeReader("RAPL", None, unavailable="no RAPL")) as meter:
        sum(range(1000))
    assert 0 < meter.report().seconds < 60


# --- synchronize -------------------------------------------------------------------------------------------------------------------------


def test_synchronize_comes_before_every_reading(world):
    queued = [(0.5, 30.0)]
    calls = []

    def synchronize():
        calls.append(world.now_s)
        while queued:
            world.spend(*queued.pop())

    with make_meter(world, synchronize=synchronize) as meter, meter.phase("sort"):
        queued.append((2.0, 400.0))  # a kernel was launched, and the call came back at once
    report = meter.report()
    assert report.gpu_gross_j == 400.0  # the work queued before the block is not in it
    assert report.phases[0]["seconds"] == 2.0
    assert len(calls) == 4


def test_synchronize_error_is_raised_after_the_reading(world):
    def synchronize():
        if world.now_s > 1000:
            raise RuntimeError("illegal address")

    meter = make_meter(world, synchronize=synchronize)
    with pytest.raises(RuntimeError, match="illegal address"), meter:
        world.spend(1.0, gpu_j=60.0)
    assert meter.report().gpu_gross_j == 60.0


def test_synchronize_error_does_not_hide_the_first(world):
    def synchronize():
        if world.now_s > 1000:
            raise RuntimeError("illegal address")

    meter = make_meter(world, synchronize=synchronize)
    with pytest.raises(KeyError, match="mine"), meter, meter.phase("sort"):
        world.spend(1.0, gpu_j=60.0)
        raise KeyError("mine")
    assert meter.report().phases[0]["gpu_gross_j"] == 60.0


# --- reports -----------------------------------------------------------------------------------------------------------------------------


def reports():
    for gpu in (None, absent_gpu()):
        world = World()
        with make_meter(world, gpu=gpu) as meter, meter.phase("read"):
            world.spend(0.05, gpu_j=7.25, cpu_j=0.5)
        yield meter.report()


@pytest.mark.parametrize("report", list(reports()), ids=["gpu", "no gpu"])
def test_round_trip(report):
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert EnergyReport.from_dict(data) == report
    assert EnergyReport.from_dict(data | {"from_a_later_version": 1}) == report
    data["phases"].clear()
    assert report.phases
    report.to_dict()["reasons"]["x"] = "a copy"
    assert "x" not in report.reasons


def test_report_is_frozen(world):
    with make_meter(world) as meter:
        pass
    with pytest.raises(AttributeError):
        meter.report().seconds = 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": "1"},
        {"seconds": None},
        {"gpu_gross_j": "lots"},
        {"reasons": None},
        {"phases": [{"name": "read"}]},
        {"phases": 3},
        {"notes": None},
    ],
    ids=str,
)
def test_from_dict_refuses_what_is_no_report(change):
    good = next(reports()).to_dict()
    with pytest.raises(FormatError, match="not an energy report"):
        EnergyReport.from_dict(good | change)


def test_from_dict_names_the_missing_key():
    data = next(reports()).to_dict()
    del data["cpu_j"]
    with pytest.raises(FormatError, match="cpu_j"):
        EnergyReport.from_dict(data)
    with pytest.raises(FormatError):
        EnergyReport.from_dict([])


def test_format_measured(world):
    with make_meter(world, idle_watts=60) as meter, meter.phase("sort"):
        world.spend(2.0, gpu_j=1300.0, cpu_j=9.5)
    rows = format_energy(meter.report())
    assert rows == [
        ("Time", "2.000 s"),
        ("GPU", "Fake GPU"),
        ("GPU gross", "1,300.0 J"),
        ("GPU net of 60 W idle", "1,180.0 J"),
        ("CPU", "9.500 J"),
        ("Contest, main rule", "1,200.0 J"),
        ("Contest, dev rule", "1,285.0 J"),
        ("Phase sort", "2.000 s, GPU 1,300.0 J, CPU 9.500 J"),
        ("Phase other", "0.000 s, GPU 0.000 J, CPU 0.000 J"),
        ("Note", "NVML note"),
        ("Note", "RAPL note"),
    ]


def test_format_missing(world):
    cpu = FakeReader("RAPL", None, unavailable="no permission")
    with make_meter(world, gpu=absent_gpu(), cpu=cpu) as meter:
        world.spend(1.0)
    rows = dict(format_energy(meter.report()))
    assert rows["GPU"] == rows["GPU gross"] == rows["Contest, main rule"] == "— (no NVIDIA driver)"
    assert rows["CPU"] == "— (no permission)"
    assert rows["Contest, dev rule"] == "50.0 J"
    assert rows["Phase other"] == "1.000 s"
