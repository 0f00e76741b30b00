"""The readers of charstat.energy, over a fake pynvml, a fake powercap tree, and on this machine."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
from energy_world import World, make_meter

from charstat import energy
from charstat.energy import EnergyMeter, EnergyReport, NvmlReader, RaplReader


@pytest.fixture
def world():
    return World()


# --- NVML --------------------------------------------------------------------------------------------------------------------------------


class FakeNVMLError(Exception):
    def __init__(self, value, text):
        super().__init__(text)
        self.value = value


def fake_nvml(millijoules=(123_456,), *, init_error=None, energy_error=None, name_error=None):
    """A module with the calls that NvmlReader makes, over one device per entry of millijoules."""

    def init():
        if init_error:
            raise init_error

    def total_energy(handle):
        if energy_error:
            raise energy_error
        return nvml.millijoules[handle]

    def device_name(handle):
        if name_error:
            raise name_error
        return f"GPU {handle}"

    def by_bus(bus_id):
        return {"0000:01:00.0": 0, "0000:02:00.0": 1}[bus_id]

    nvml = types.SimpleNamespace(
        NVMLError=FakeNVMLError,
        NVML_ERROR_DRIVER_NOT_LOADED=9,
        NVML_ERROR_LIBRARY_NOT_FOUND=12,
        millijoules=list(millijoules),
        nvmlInit=init,
        nvmlDeviceGetCount=lambda: len(nvml.millijoules),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByPciBusId=by_bus,
        nvmlDeviceGetName=device_name,
        nvmlDeviceGetTotalEnergyConsumption=total_energy,
        nvmlDeviceGetPowerUsage=lambda handle: 61_500 + handle,
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1410}[kind],
    )
    return nvml


@pytest.fixture
def install(monkeypatch):
    def put(nvml):
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return nvml

    return put


def test_nvml_reads_joules(install, tmp_path):
    nvml = install(fake_nvml([1000, 123_456]))
    reader = NvmlReader(1, dev_root=tmp_path)
    assert reader.power_w() is reader.sm_clock_mhz() is None  # not open yet
    assert reader.open()
    assert (reader.reason, reader.name, reader.device_present) == (None, "GPU 1", True)
    assert reader.read_j() == 123.456
    nvml.millijoules[1] += 2000
    assert reader.read_j() == 125.456
    assert reader.power_w() == 61.501
    assert reader.sm_clock_mhz() == 1410
    assert reader.resolution_s == 0.1
    assert "20 to 100 ms" in reader.note


def test_nvml_by_pci_bus_id(install, tmp_path):
    install(fake_nvml([1, 2]))
    reader = NvmlReader(pci_bus_id="0000:02:00.0", dev_root=tmp_path)
    assert reader.open()
    assert reader.name == "GPU 1"


def test_nvml_in_the_meter(install, tmp_path, world):
    nvml = install(fake_nvml())
    with make_meter(world, gpu=NvmlReader(dev_root=tmp_path)) as meter:
        nvml.millijoules[0] += 90_500
        world.spend(1.0, cpu_j=1.0)
    report = meter.report()
    assert report.gpu_gross_j == pytest.approx(90.5)
    assert report.gpu_net_j == pytest.approx(40.5)
    assert report.notes[0] == NvmlReader.note


@pytest.mark.parametrize(("node", "present"), [(None, False), ("nvidia0", True), ("nvidiactl", False)])
@pytest.mark.parametrize("value", [9, 12])
def test_nvml_without_driver(install, tmp_path, node, present, value):
    install(fake_nvml(init_error=FakeNVMLError(value, "NVML Shared Library Not Found")))
    if node:
        (tmp_path / node).touch()
    reader = NvmlReader(dev_root=tmp_path)
    assert not reader.open()
    assert reader.device_present is present
    assert reader.reason == ("NVML does not start: NVML Shared Library Not Found" if present else "no NVIDIA driver")


@pytest.mark.parametrize(("node", "present"), [(False, None), (True, True)])
def test_nvml_broken_driver_is_not_an_absent_gpu(install, tmp_path, node, present):
    install(fake_nvml(init_error=FakeNVMLError(18, "Driver/library version mismatch")))
    if node:
        (tmp_path / "nvidia0").touch()
    reader = NvmlReader(dev_root=tmp_path)
    assert not reader.open()
    assert reader.device_present is present
    assert "version mismatch" in reader.reason


@pytest.mark.parametrize(
    ("nvml", "index", "present", "reason"),
    [
        (fake_nvml([]), 0, False, "no NVIDIA device"),
        (fake_nvml([1, 2]), 2, True, "no NVIDIA device 2, this machine has 2"),
        (fake_nvml([1, 2]), -1, True, "no NVIDIA device -1, this machine has 2"),
        (fake_nvml(energy_error=FakeNVMLError(3, "Not Supported")), 0, True, "the NVML counter cannot be read: Not Supported"),
    ],
)
def test_nvml_unavailable(install, tmp_path, nvml, index, present, reason):
    install(nvml)
    reader = NvmlReader(index, dev_root=tmp_path)
    assert not reader.open()
    assert reader.reason == reason
    assert reader.device_present is present


def test_nvml_without_a_name(install, tmp_path, world):
    nvml = install(fake_nvml(name_error=FakeNVMLError(999, "Unknown")))
    with make_meter(world, gpu=NvmlReader(dev_root=tmp_path)) as meter:
        nvml.millijoules[0] += 60_000
        world.spend(1.0, cpu_j=1.0)
    report = meter.report()
    assert report.gpu_gross_j == pytest.approx(60.0)
    assert report.reasons == {"gpu_name": "the driver gives no name"}


def test_pynvml_not_installed(install, tmp_path):
    install(None)  # import raises ImportError
    reader = NvmlReader(dev_root=tmp_path / "nowhere")
    assert not reader.open()
    assert "nvidia-ml-py" in reader.reason
    assert reader.device_present is False


def test_import_is_cheap():
    """Importing the module and making a meter do not import pynvml: only a reader's find() may."""
    code = "import sys; from charstat.energy import EnergyMeter; EnergyMeter(); assert 'pynvml' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(energy.__file__).parents[1], timeout=60)


# --- RAPL --------------------------------------------------------------------------------------------------------------------------------


RANGE_UJ = 262_143_328_850


def put_zone(root, zone, name, energy_uj, range_uj=RANGE_UJ):
    folder = root / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder / "energy_uj"


def deny(monkeypatch, denied):
    """Reading `denied` fails as for a user without the right; modes would not stop a root user."""
    read_text = Path.read_text

    def guarded(path, *args, **kwargs):
        if path == denied:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", guarded)


def test_rapl_sums_packages_only(tmp_path):
    first = put_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = put_zone(tmp_path, "intel-rapl:1", "package-1", 9_000_000)
    others = [
        put_zone(tmp_path, "intel-rapl:0:0", "core", 1),
        put_zone(tmp_path, "intel-rapl:0:1", "dram", 1),
        put_zone(tmp_path, "intel-rapl:2", "psys", 1),
        put_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1),
        put_zone(tmp_path, "dtpm:0", "package-0", 1),
    ]
    (tmp_path / "intel-rapl").mkdir()  # the control type itself
    reader = RaplReader(tmp_path)
    assert reader.open()
    assert reader.device_present
    assert reader.wrap_s == pytest.approx(262.143, abs=0.001)
    start = reader.read_j()
    first.write_text("3500000\n")
    second.write_text("9250000\n")
    for path in others:
        path.write_text("900000000\n")
    assert reader.read_j() - start == pytest.approx(2.75)


def test_rapl_amd_names(tmp_path):
    path = put_zone(tmp_path, "amd-rapl:0", "package-0", 0)
    reader = RaplReader(tmp_path)
    assert reader.open()
    path.write_text("1500000")
    assert reader.read_j() == 1.5


def test_rapl_wraps(tmp_path, world):
    path = put_zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, range_uj=10_000_000)
    other = put_zone(tmp_path, "intel-rapl:1", "package-1", 0, range_uj=10**12)
    with make_meter(world, cpu=RaplReader(tmp_path)) as meter:
        with meter.phase("read"):
            path.write_text("500000")  # 1.5 J on, over the end
            other.write_text("1000000")
            world.spend(0.005, gpu_j=1.0)
        with meter.phase("sort"):
            path.write_text("400000")  # 9.9 J on, over the end again
            world.spend(0.005, gpu_j=1.0)
    report = meter.report()
    assert [phase["cpu_j"] for phase in report.phases] == pytest.approx([2.5, 9.9, 0.0])
    assert report.cpu_j == pytest.approx(12.4)
    assert not [text for text in report.warnings if "wrapped" in text]


def test_rapl_warns_of_unseen_wraps(tmp_path, world):
    path = put_zone(tmp_path, "intel-rapl:0", "package-0", 0, range_uj=65_000_000_000)  # 65 kJ: 65 s at 1000 W
    with make_meter(world, cpu=RaplReader(tmp_path)) as meter:
        path.write_text("1000000")
        world.spend(70.0, gpu_j=1.0)
    assert meter.report().warnings == ["the RAPL counter may have wrapped unnoticed in 70 s: use phases under 65 s"]


def test_rapl_wrap_between_blocks_is_not_counted(tmp_path, world):
    path = put_zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, range_uj=10_000_000)
    reader = RaplReader(tmp_path)
    with make_meter(world, cpu=reader):
        world.spend(1.0)
    path.write_text("1000000")
    with make_meter(world, cpu=reader) as meter:
        path.write_text("1250000")
        world.spend(1.0)
    assert meter.report().cpu_j == 0.25


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
def test_rapl_permission_denied(tmp_path, monkeypatch, world, file):
    put_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    put_zone(tmp_path, "intel-rapl:1", "package-1", 0)
    deny(monkeypatch, tmp_path / "intel-rapl:1" / file)
    with make_meter(world, cpu=RaplReader(tmp_path)) as meter:
        world.spend(1.0, gpu_j=60.0)
    report = meter.report()
    assert report.cpu_j is None
    assert "Permission denied" in report.reasons["cpu_j"]
    assert file in report.reasons["cpu_j"]
    assert report.contest_dev_j == 52.5  # its CPU term is a constant


@pytest.mark.parametrize("zones", [[], [("intel-rapl:0", "psys")], [("intel-rapl:0:0", "core")]], ids=["empty", "psys", "core"])
def test_rapl_without_packages(tmp_path, zones):
    for zone, name in zones:
        put_zone(tmp_path, zone, name, 0)
    reader = RaplReader(tmp_path)
    assert not reader.open()
    assert reader.device_present is False
    assert "no RAPL counters" in reader.reason


def test_rapl_without_powercap(tmp_path):
    reader = RaplReader(tmp_path / "nowhere")
    assert not reader.open()
    assert "no RAPL counters" in reader.reason


def test_rapl_nonsense_in_the_file(tmp_path):
    put_zone(tmp_path, "intel-rapl:0", "package-0", "no number")
    reader = RaplReader(tmp_path)
    assert not reader.open()
    assert "cannot be read" in reader.reason


# --- this machine ------------------------------------------------------------------------------------------------------------------------


def test_discovery_on_this_machine_never_raises():
    with EnergyMeter() as meter, meter.phase("work"):
        sum(range(10_000))
    report = meter.report()
    assert EnergyReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    for field in ("gpu_name", "gpu_gross_j", "gpu_net_j", "cpu_j", "contest_main_j", "contest_dev_j"):
        assert (getattr(report, field) is None) == (field in report.reasons)
