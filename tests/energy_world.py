"""A world with a clock and two energy counters that tests move by hand."""

from charstat.energy import EnergyMeter, EnergyReader


class World:
    """A clock and two counters, moved by hand: spend(2, gpu_j=300) is two seconds at 150 W."""

    def __init__(self):
        self.now_s = 1000.0
        self.gpu_j = 5_000_000.0
        self.cpu_j = 70.0

    def clock(self):
        return self.now_s

    def spend(self, seconds, gpu_j=0.0, cpu_j=0.0):
        self.now_s += seconds
        self.gpu_j += gpu_j
        self.cpu_j += cpu_j


class FakeReader(EnergyReader):
    def __init__(self, counter, read, *, unavailable=None, present=True, name="Fake GPU", resolution_s=0.0):
        self.counter = counter
        self.read_j = read
        self.note = f"{counter} note"
        self.resolution_s = resolution_s
        self._found = (unavailable, present, name)

    def find(self):
        unavailable, self.device_present, self.name = self._found
        return unavailable


def make_meter(world, *, gpu=None, cpu=None, **options):
    gpu = gpu or FakeReader("NVML", lambda: world.gpu_j, resolution_s=0.1)
    cpu = cpu or FakeReader("RAPL", lambda: world.cpu_j, resolution_s=0.001)
    return EnergyMeter(gpu, cpu, clock=world.clock, **options)


def absent_gpu():
    return FakeReader("NVML", None, unavailable="no NVIDIA driver", present=False, name=None)
