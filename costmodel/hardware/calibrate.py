"""Measure what a device reaches in practice, and describe it as a device file that every command takes.

Three things are measured, in a few minutes: bandwidth over working sets and matrix products over sizes (`rates`),
and the operations of `shapes`, class by class (`samples`). From the last come the fitted rates of `costmodel.estimate`
(`fit`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from costmodel import devices
from costmodel.devices import Calibration, Device, Fact, FittedRates, Source
from costmodel.errors import InputError
from costmodel.hardware.clock import Clock, device_title, environment, threads
from costmodel.hardware.fit import CONFIDENCE, Guess, Sample, fit, least_squares, rounded
from costmodel.hardware.rates import (
    PATHS,
    Reference,
    bandwidths,
    effective_cache,
    fresh_from,
    launch_seconds,
    product_rates,
    runs,
)  # fmt: skip
from costmodel.hardware.samples import FULL, QUICK, Effort, Timed, sampled
from costmodel.hardware.shapes import SAMPLERS
from costmodel.progress import Progress, silent

__all__ = ["FULL", "QUICK", "Effort", "calibrate"]

AT_PEAK = {"cpu": ("conv_1x1", "conv_3x3", "conv_large", "gemm"), "cuda": ("conv_1x1", "gemm")}
"""The classes whose rates are peaks too, if no matrix product is faster: not where Winograd's convolution may run."""


def calibrate(
    device: str = "cpu",
    *,
    cpu_threads: int | None = None,
    name: str = "",
    command: str = "",
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> Device:
    """Measure what a device reaches.

    Args:
        device: "cpu", "cuda", "cuda:1".
        cpu_threads: threads of the CPU; torch's own number if None.
        name: what to call the device; made of its model's name if empty.
        command: the command line, for the record.
        effort: how much to measure.
        progress: called at each step.

    A GPU that has a file of ours keeps the peaks and bandwidth of its datasheet; for any other device they are the
    highest rates measured. `calibration.noise` says how far something else ran meanwhile (see `rates.Reference`).

    Raises HardwareError if the device is not there, and InputError where scipy is not installed.
    """
    least_squares()  # rather now than after minutes of measuring
    clock = Clock(device)
    tell = progress or silent
    with threads(cpu_threads), torch.no_grad():
        about = environment(clock.device, command)
        cache = _nominal_cache(about)
        effort = _suited(effort or FULL, clock, cache)
        reference = Reference(clock, cache)

        def step(text: str, done: int, total: int) -> None:
            reference.run()
            tell(text, done, total)

        step("bandwidth", 0, 1)
        bandwidth = bandwidths(clock, cache, effort.most_bytes)
        memory_bandwidth = max(rate for size, rate in bandwidth.items() if size >= min(max(bandwidth), 8 * cache))
        cache = effective_cache(bandwidth, cache, memory_bandwidth)
        step("matrix products", 0, 1)
        paths = [path for path in PATHS[clock.device.type] if runs(path, clock)]
        products = {path.name: product_rates(clock, path, effort.sizes) for path in paths}
        launch = launch_seconds(clock)
        samples = sampled(clock, paths, products, cache, effort, step)
        near = bandwidth[min(bandwidth, key=lambda size: abs(math.log(size / (cache / 4))))]
        classes = _fitted(samples, products, near, memory_bandwidth, clock)
        noise = rounded(reference.noise)
        calibration = Calibration(cache, fresh_from(clock, cache), CONFIDENCE, classes, products, bandwidth, noise)
        peaks = {path: max(rates.values()) for path, rates in products.items()}
        for each in samples:
            if each.name in AT_PEAK[clock.device.type]:
                peaks[each.path] = max(peaks[each.path], each.unpadded * each.sample.demand.flops / each.sample.seconds)
        about = environment(clock.device, command)  # clocks under load
        return _device(about, name, calibration, peaks, memory_bandwidth, launch)


def _suited(effort: Effort, clock: Clock, cache: int) -> Effort:
    sizes = effort.sizes or ((256, 512, 1024, 2048, 4096, 8192) if clock.on_cuda else (128, 256, 512, 1024, 1536))
    largest = min(2**29, torch.cuda.mem_get_info(clock.device)[0] // 16) if clock.on_cuda else max(2**27, 4 * cache)
    most = effort.most_bytes or largest
    return effort._replace(sizes=sizes, most_bytes=most)


def _nominal_cache(about: Mapping[str, Any]) -> int:
    """Bytes of the last-level cache by what the system says; 32 MiB where it says nothing."""
    return max(about["device"].get("cache_bytes", {}).values(), default=0) or 2**25


def _fitted(
    samples: Sequence[Timed],
    products: Mapping[str, Mapping[int, float]],
    near: float,
    far: float,
    clock: Clock,
) -> dict[str, dict[str, FittedRates]]:
    """The fitted rates of each class and path that were measured."""
    by_class: dict[str, dict[str, list[Sample]]] = {}
    for each in samples:
        by_class.setdefault(each.name, {}).setdefault(each.path, []).append(each.sample)
    found: dict[str, dict[str, FittedRates]] = {}
    for name in SAMPLERS:
        for path, timed in by_class.get(name, {}).items():
            fitted_rates = fit(timed, Guess(max(products[path].values()), near, far))
            if name == "view" and clock.on_cuda:
                fitted_rates = replace(fitted_rates, fixed_seconds=0.0)  # the host's time, while the device goes on
            found.setdefault(name, {})[path] = fitted_rates
    return found


def _device(
    about: Mapping[str, Any],
    name: str,
    calibration: Calibration,
    peaks: Mapping[str, float],
    memory_bandwidth: float,
    launch_seconds: float,
) -> Device:
    """The device's file: what is known of it already, and what was measured."""
    hardware, versions = about["device"], about["versions"]
    on_cpu = hardware["type"] == "cpu"
    command = about.get("command") or "costmodel.hardware.calibrate"
    details = [f"{key} {value}" for key, value in versions.items() if key != "costmodel"]
    details += [f"{about['threads']} threads" if about["threads"] > 1 else "1 thread"] if on_cpu else []
    details += [str(hardware[key]) for key in ("instructions", "driver") if key in hardware]
    clocks = hardware["clocks_hertz"] if on_cpu else [hardware[key] for key in ("clock_hertz",) if key in hardware]
    details += [f"clock read as {max(clocks) / 1e9:.2f} GHz"] if clocks else []
    run = Source(
        f"Measured by costmodel {versions['costmodel']}: {command}", about["date"][:10], via=", ".join(details)
    )
    title = device_title(about)
    known = None if on_cpu else _known(hardware["name"])
    numbers: dict[str, float] = {"memory_bandwidth": memory_bandwidth}
    numbers |= {f"peaks.{path}": rate for path, rate in peaks.items()}
    sizes = {"memory_bytes": hardware.get("memory_bytes"), "units": about["threads"] if on_cpu else hardware["units"]}
    sizes["clock_hertz"] = max(clocks, default=None)
    sizes |= {f"{level}_bytes": hardware.get("cache_bytes", {}).get(level) for level in ("l2", "l3")}
    facts = {key: Fact(rounded(value), run, "the highest rate measured") for key, value in numbers.items()}
    facts |= {key: Fact(value, run) for key, value in sizes.items() if value}
    if known is not None:
        facts = dict(known.facts)
    facts["launch_seconds"] = Fact(rounded(launch_seconds), run)
    facts["calibration"] = Fact(calibration.cache_bytes, run)
    plain = {key: fact.value for key, fact in facts.items() if not key.startswith("peaks.") and key != "calibration"}
    return Device(
        name=name or "-".join(title.lower().replace(",", "").split()),
        title=f"{title}, calibrated",
        kind="cpu" if on_cpu else "gpu",
        architecture=known.architecture if known else "",
        peaks={key.removeprefix("peaks."): fact.value for key, fact in facts.items() if key.startswith("peaks.")},
        calibration=calibration,
        facts=facts,
        **plain,  # type: ignore[arg-type]
    )


def _known(model: str) -> Device | None:
    """Our device of that name, with its datasheet's numbers."""
    try:
        return devices.device(model)
    except InputError:
        return None
