"""Clocks, memory, energy and device readings, with the hardware behind them replaced."""

import time
from pathlib import Path

import pytest

from sana_bench.core.errors import UsageError
from sana_bench.generators.base import OutOfMemoryError, Stage
from sana_bench.profiling.hardware import CpuProbe, GpuProbe, Hardware, Monitor, Reading
from sana_bench.profiling.memory import CpuMemory, MemoryUse, available_bytes
from sana_bench.profiling.power import EnergyMeter, integrate_power
from sana_bench.profiling.stages import StageClock
from sana_bench.profiling.sweep import SweepSettings, sweep
from sana_bench.profiling.timers import WallTimer, timer_for
from sana_bench.profiling.trace import trace_path

MIB = 2**20


class FakeNvml:
    """A GPU that has used 5 J more at every question."""

    def __init__(self, counter: bool = True, slowdowns: tuple[str, ...] = ()) -> None:
        self._counter, self._energy, self._slowdowns = counter, 1000, slowdowns

    def energy_mj(self) -> int | None:
        self._energy += 5000
        return self._energy if self._counter else None

    def power_w(self) -> float:
        return 300.0

    def clock_mhz(self) -> float:
        return 1700.0

    def temperature_c(self) -> float:
        return 61.0

    def slowdowns(self) -> tuple[str, ...]:
        return self._slowdowns

    def memory_bytes(self) -> int:
        return 7 * MIB

    def driver(self) -> str:
        return "570.1"


def test_energy_is_the_difference_of_the_counter():
    meter = EnergyMeter(FakeNvml(), "")
    meter.start()
    assert meter.stop().joules == 5.0


def test_without_a_counter_power_is_integrated():
    clock = iter([10.0, 12.0])
    meter = EnergyMeter(
        FakeNvml(counter=False), "", lambda: [(10.5, 100.0), (11.5, 300.0)], lambda: next(clock)
    )
    meter.start()
    used = meter.stop()
    # 0.5 s of 100 W, 1 s of 200 W on average, 0.5 s of 300 W.
    assert used.joules == pytest.approx(50 + 200 + 150)
    assert "integrated" in used.method


@pytest.mark.parametrize("nvml", [None, FakeNvml(counter=False)])
def test_energy_that_was_not_measured_is_never_zero(nvml):
    meter = EnergyMeter(nvml, "not measured on a CPU")
    meter.start()
    used = meter.stop()
    assert used.joules is None
    assert used.method


def test_power_outside_the_stretch_does_not_count():
    assert integrate_power([(0.0, 500.0), (9.0, 500.0)], 1.0, 2.0) is None
    assert integrate_power([(1.5, 100.0), (9.0, 500.0)], 1.0, 2.0) == pytest.approx(100.0)


def test_the_monitor_reads_while_work_runs_and_flags_slowdowns():
    with Monitor(GpuProbe(FakeNvml(slowdowns=("thermal (hardware)",))), interval_s=0.005) as monitor:
        began = time.perf_counter()
        while len(monitor.readings) < 2:
            time.sleep(0.005)
        ended = time.perf_counter()
    summary = monitor.summary()
    assert summary["clock_mhz"] == [1700.0] * 3
    assert summary["slowdowns"] == {"thermal (hardware)": 1.0}
    assert monitor.slowdowns_between(began, ended) == ("thermal (hardware)",)
    assert monitor.slowdowns_between(began - 100, began - 99) == ()


def test_a_broken_probe_is_not_passed_over():
    def broken() -> Reading:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"), Monitor(broken, interval_s=0.001):
        pass


def test_even_the_shortest_work_is_looked_at():
    with Monitor(GpuProbe(FakeNvml()), interval_s=600) as monitor:
        pass
    assert monitor.summary()["readings"] == 1


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_processor_that_throttles_is_noticed(tmp_path):
    cpu = tmp_path / "sys/devices/system/cpu/cpu0"
    write(cpu / "cpufreq/scaling_cur_freq", "2400000")
    write(cpu / "thermal_throttle/core_throttle_count", "3")
    probe = CpuProbe(tmp_path)
    assert (probe().clock_mhz, probe().slowdowns) == (2400.0, ())
    write(cpu / "thermal_throttle/core_throttle_count", "4")
    assert probe().slowdowns == ("thermal",)
    assert probe().slowdowns == ()


def test_a_processor_that_tells_nothing_is_read_as_such(tmp_path):
    assert CpuProbe(tmp_path)().clock_mhz is None
    write(tmp_path / "proc/cpuinfo", "cpu MHz\t\t: 2000.0\ncpu MHz\t\t: 3000.0\n")
    assert CpuProbe(tmp_path)().clock_mhz == 2500.0


def test_cpu_memory_sees_what_was_taken_and_given_back():
    meter = CpuMemory()
    meter.start()
    block = bytearray(64 * MIB)
    del block
    used = meter.stop()
    # bytearray zeroes its pages, so all of them were resident; other threads may have freed a little meanwhile.
    assert used.growth > 56 * MIB
    assert used.peak >= used.growth


def test_available_memory_is_the_tighter_of_machine_and_group(tmp_path):
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    write(meminfo, "MemTotal: 4096 kB\nMemAvailable: 2048 kB\n")
    assert available_bytes(meminfo, group) == 2048 * 1024
    write(group / "memory.max", "1048576\n")
    write(group / "memory.current", "1000000\n")
    assert available_bytes(meminfo, group) == 48576
    write(group / "memory.max", "max\n")
    assert available_bytes(meminfo, group) == 2048 * 1024
    assert available_bytes(tmp_path / "none", tmp_path / "none") is None


def test_stages_are_timed_and_left_as_they_were():
    class Owner:
        def work(self, seconds: float) -> float:
            time.sleep(seconds)
            return seconds

    owner, timer = Owner(), WallTimer()
    clock = StageClock([Stage("work", owner, "work")], timer)
    with clock.watching():
        assert owner.work(0.002) == 0.002
        owner.work(0.004)
    times = clock.milliseconds()["work"]
    # sleep never returns early; it may return late.
    assert len(times) == 2
    assert times[0] >= 2
    assert times[1] >= 4
    assert "work" not in vars(owner)
    with pytest.raises(RuntimeError), clock.watching():
        raise RuntimeError
    assert "work" not in vars(owner)
    # What torch.compile gives has its methods on the object, and keeps them.
    owner.work = own = lambda seconds: seconds
    with clock.watching():
        owner.work(0)
    assert owner.work is own
    assert len(clock.milliseconds()["work"]) == 1


def test_the_clock_follows_the_device():
    assert timer_for("cpu").name == "perf_counter"
    assert timer_for("cuda").name == "cuda events"


class FakeSubject:
    """Takes 10 MiB an image; batches above `largest` do not fit."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.made: list[int] = []

    def batch(self, size, memory=None):
        if size > self.largest:
            raise OutOfMemoryError("no room")
        self.made.append(size)
        return 0.001 * size, None if memory is None else MemoryUse(size * 10 * MIB, size * 10 * MIB, "test")


def test_the_sweep_ends_where_memory_ends_and_goes_on_for_the_others():
    small, large = FakeSubject(2), FakeSubject(100)
    found = sweep(
        [small, large], None or object(), SweepSettings(8, repeats=2), lambda _: None, predict=False
    )
    assert [batch.size for batch in found[0].batches] == [1, 2]
    assert "out of memory at a batch of 4" in found[0].stopped
    assert [batch.size for batch in found[1].batches] == [1, 2, 4, 8]
    assert "largest batch asked for, 8" in found[1].stopped
    assert all(len(batch.seconds) == 2 for one in found for batch in one.batches)


@pytest.mark.parametrize(
    ("settings", "available"),
    [(SweepSettings(64, limit_bytes=50 * MIB), None), (SweepSettings(64, share=0.5), 100 * MIB)],
)
def test_a_cpu_stops_before_its_memory_is_full(settings, available):
    subject = FakeSubject(100)
    (found,) = sweep([subject], object(), settings, lambda _: None, predict=True, available=lambda: available)
    # 40 MiB for a batch of 4 are inside 50, 80 for one of 8 are not, and it is not tried.
    assert max(subject.made) == 4
    assert found.stopped.startswith("memory limit: a batch of 8 would add about 80 MiB")


def test_times_of_other_threads_have_another_identity():
    one, two = (Hardware("cpu", "Some CPU", threads, "Some CPU") for threads in (1, 2))
    assert one.identity != two.identity
    # The host's threads are not what a GPU's times depend on.
    gpus = [Hardware("cuda", "NVIDIA H200", threads, "Some CPU") for threads in (1, 2)]
    assert gpus[0].identity == gpus[1].identity


def test_one_trace_file_is_for_one_variant(tmp_path):
    assert trace_path(tmp_path / "t.json", "a", 1) == tmp_path / "t.json"
    assert trace_path(tmp_path, "a", 2) == tmp_path / "a.json"
    with pytest.raises(UsageError, match="folder"):
        trace_path(tmp_path / "t.json", "a", 2)
