"""The clock: what it says about a measurement, and what it refuses. No time is asserted."""

from __future__ import annotations

import pytest
import torch

from costmodel.errors import HardwareError, InputError
from costmodel.hardware import clock as module
from costmodel.hardware.clock import COLD, Clock, Timing, check_threads, environment, threads, torch_device


def test_median_and_spread_of_repetitions() -> None:
    # sorted 1 2 3 4 9: median 3, quartiles 2 and 4, so a spread of (4 - 2) / 3
    timing = Timing((3.0, 1.0, 9.0, 2.0, 4.0), COLD)
    assert timing.median_seconds == 3.0 and timing.best_seconds == 1.0
    assert timing.spread == pytest.approx(2 / 3)
    assert Timing((5.0,), COLD).spread == 0.0


def test_calls_are_made_in_turn_and_after_a_warm_up() -> None:
    made: list[str] = []
    timing = Clock("cpu").time(
        [lambda: made.append("a"), lambda: made.append("b")], repetitions=3, least_seconds=0, warmup=2, cache=COLD
    )
    assert len(timing.seconds) == 3 and timing.cache == COLD and all(second > 0 for second in timing.seconds)
    assert made == ["a", "b"] * (2 + 1 + 3)  # warm-up, one round to find out how long it takes, repetitions


def test_a_single_call_comes_after_what_prepares_it() -> None:
    made: list[str] = []
    clock = Clock("cpu")
    assert clock.once(lambda: made.append("call"), lambda: made.append("before")) > 0
    assert made == ["before", "call"]


def test_nothing_cannot_be_timed() -> None:
    with pytest.raises(InputError, match="nothing to time"):
        Clock("cpu").time([])
    with pytest.raises(InputError, match="nothing to time"):
        Clock("cpu").time(lambda: None, repetitions=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_cuda_device_that_is_not_there_is_exit_code_4() -> None:
    with pytest.raises(HardwareError, match=r"no CUDA device here.*--device cpu") as caught:
        Clock("cuda")
    assert caught.value.exit_code == 4


def test_a_second_cuda_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert torch_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(HardwareError, match="no cuda:1: this machine has 1"):
        torch_device("cuda:1")


@pytest.mark.parametrize("name", ["tpu", "", "mps", "cuda:x"])
def test_another_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="use cpu, cuda"):
        torch_device(name)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads(1) as count:
        assert count == torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="0 threads"), threads(0):
        pass


def test_circumstances_say_what_a_measurement_must() -> None:
    about = environment("cpu", "costmodel measure alexnet")
    assert about["device"]["type"] == "cpu" and about["device"]["name"]
    assert about["versions"]["torch"] == torch.__version__ and about["threads"] == torch.get_num_threads()
    assert about["date"].startswith("20") and about["command"] == "costmodel measure alexnet"


def test_nvidia_smi_is_read_and_its_gaps_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        stdout = "570.1, 1980, 2619, 1980, [N/A], 41\n"

    monkeypatch.setattr(module.subprocess, "run", lambda *args, **kwargs: Answer)
    assert module._nvidia_smi("x") == {
        "driver": "570.1",
        "clock_hertz": 1980e6,
        "memory_clock_hertz": 2619e6,
        "highest_clock_hertz": 1980e6,
        "celsius": 41.0,
    }
    monkeypatch.setattr(module.subprocess, "run", lambda *args, **kwargs: (_ for _ in ()).throw(FileNotFoundError()))
    assert module._nvidia_smi("") == {}


class FakeEvent:
    """A device event of a device on which each call of the queue takes 2 ms."""

    queue = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = FakeEvent.queue

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: FakeEvent) -> float:
        return 2.0 * (end.at - self.at)  # milliseconds


def test_on_cuda_the_device_is_timed_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[int] = []

    class Nothing:
        def __init__(self, device: torch.device) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", Nothing)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "_sleep", delays.append, raising=False)

    def call() -> None:
        FakeEvent.queue += 1

    clock = Clock("cuda")
    timing = clock.time(call, repetitions=2, least_seconds=0.01)
    assert timing.seconds == pytest.approx((2e-3, 2e-3))
    assert clock.once(call) == pytest.approx(2e-3)
    assert delays and all(cycles > 0 for cycles in delays)


def test_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    check_threads(4)
    check_threads(None)
    for count in (0, 5, 9999):
        with pytest.raises(InputError, match=rf"{count} threads cannot run: give 1 to 4"), threads(count):
            pass
