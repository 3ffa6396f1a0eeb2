"""Whether anything else ran while a device was calibrated: one operation, timed again and again from beginning to end.

It is a matrix product and a pass over a tensor that no cache holds, so that whoever takes arithmetic or bandwidth away
shows in it. On a machine of one's own its times lie a few percent apart, and a device's clock may change by a tenth.
"""

from __future__ import annotations

from functools import partial

import torch

from costmodel.devices import Device
from costmodel.hardware.clock import Clock, Timing

DISTURBED = 0.25
"""From this noise on a calibration is not to be trusted: the shapes that it is fitted on lie as far off themselves."""


class Reference:
    """The operation, and how long it took each time."""

    def __init__(self, clock: Clock, cache_bytes: int) -> None:
        size = 2048 if clock.on_cuda else 512
        a, b = (torch.randn(size, size, device=clock.device) for _ in range(2))
        x = torch.ones(cache_bytes // 2, device=clock.device)  # four bytes each
        self._clock, self._calls = clock, [partial(torch.mm, a, b), partial(x.mul_, 1.0)]
        self.timings: list[Timing] = []
        clock.time(self._calls, repetitions=1, least_seconds=0.5)  # a device that slept wakes up

    def run(self) -> None:
        """Time it once more."""
        self.timings.append(self._clock.time(self._calls, repetitions=5))

    @property
    def noise(self) -> float:
        """How much longer it took in the slowest moment than ever, as a share of that; 0 before there is one."""
        if not self.timings:
            return 0.0
        slowest = max(timing.median_seconds for timing in self.timings)
        return slowest / min(timing.best_seconds for timing in self.timings) - 1


def noise_of(device: Device) -> float:
    """The noise of a device's calibration; 0 if there is none, or if nobody looked."""
    return (device.calibration.noise if device.calibration else None) or 0.0


def disturbance(device: Device) -> str:
    """What to say about a device that was disturbed while it was calibrated; "" for any other."""
    if noise_of(device) < DISTURBED:
        return ""
    return (
        f"something else ran during the calibration, and one operation took up to {1 + noise_of(device):.1f} times as "
        "long as at best: calibrate again when the machine has nothing else to do."
    )
