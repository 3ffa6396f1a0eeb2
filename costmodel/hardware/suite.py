"""Calibrate a machine and measure the networks on it, in one call that can be repeated until all is done.

Each result is written as soon as it is there, and a suite that is called again skips the results that its folder holds.
A step that fails (a batch that does not fit into memory) is logged, and the next one follows. A step that ends the
process, or after which the device no longer responds, ends the suite too; the next call tries it once more and then
skips it. An interrupt or a time limit does not count as a failure. All results in a folder come from one device, number
of threads and version of torch: a folder with others is refused.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import structs

from costmodel.devices import read_device, to_toml
from costmodel.errors import CostModelError, HardwareError, InputError
from costmodel.files import write_whole
from costmodel.hardware.calibrate import FULL, Effort, calibrate
from costmodel.hardware.clock import answers, device_title, environment, threads, torch_device
from costmodel.hardware.measure import measure, measurement
from costmodel.hardware.rates import disturbance
from costmodel.hardware.record import DEFAULTS, PrecisionSettings, read
from costmodel.networks import Network, find
from costmodel.progress import Progress, silent
from costmodel.view import Table

SCHEMA = "costmodel/suite/1"

DEVICE_FILE = "device.toml"
"""The calibrated device, beside the records that were made on it."""

LOG_FILE = "suite.json"

DONE, THERE, FAILED, NO_TIME, GIVEN_UP = "done", "there already", "failed", "no time", "given up"
BEGUN, BEGUN_AGAIN = "begun", "begun again"
"""The state of a running step in the log, which stays there if the step ends the process."""


class Precision(NamedTuple):
    """In what a network runs."""

    name: str
    dtype: str
    settings: PrecisionSettings


TF32 = Precision("tf32", "float32", DEFAULTS)
PLAIN = Precision("fp32", "float32", DEFAULTS)
"""A CPU's, which knows no TF32."""

STRICT = Precision("strict", "float32", structs.replace(DEFAULTS, cudnn_allow_tf32=False))
BF16 = Precision("bf16", "bfloat16", DEFAULTS)


class Task(NamedTuple):
    """A network at one batch; those of one file share network and precision."""

    model: str
    precision: Precision
    batch: int
    train: bool

    @property
    def file(self) -> str:
        """The file that its run is written to."""
        return f"{self.model.rpartition(':')[2]}-{self.precision.name}.json"

    @property
    def text(self) -> str:
        """It in words."""
        return f"{self.model} {self.precision.name} batch {self.batch} {'training' if self.train else 'forward'}"


class Outcome(NamedTuple):
    """How a step of the suite went."""

    step: str
    state: str
    """DONE, THERE, FAILED, NO_TIME or GIVEN_UP; in the log also BEGUN or BEGUN_AGAIN."""

    seconds: float = 0.0
    detail: str = ""


def suite_table(outcomes: Sequence[Outcome]) -> Table:
    """One row a step of a suite."""
    return Table.of(Outcome._fields, outcomes, title="Suite")


_BOOK = ("alexnet", "vgg16", "vgg11", "vgg19")
_HELD_OUT = ("torchvision:resnet50", "torchvision:mobilenet_v2")
_SINGLE_THREAD = (
    "alexnet", "vgg11", "vgg16", "torchvision:resnet18", "torchvision:resnet50", "torchvision:mobilenet_v2",
    "torchvision:googlenet", "torchvision:squeezenet1_1",
)  # fmt: skip


def plan(device: str) -> tuple[Task, ...]:
    """What is measured, the most telling first: a suite may be cut off."""
    if device == "cpu":
        tasks = [Task(model, PLAIN, batch, False) for batch in (1, 8) for model in _SINGLE_THREAD]
        tasks.append(Task("alexnet", PLAIN, 8, True))
        return (*tasks, *(Task(model, PLAIN, batch, False) for batch in (2, 4, 16) for model in ("alexnet", "vgg11")))
    tasks = [Task(model, TF32, batch, False) for batch in (1, 64, 8, 256) for model in _BOOK]
    tasks += [Task(model, TF32, batch, True) for batch in (64, 8, 256) for model in _BOOK]
    tasks += [
        Task(model, TF32, batch, train) for batch, train in ((1, False), (64, False), (64, True)) for model in _HELD_OUT
    ]
    tasks += [
        Task(model, precision, batch, train)
        for precision in (BF16, STRICT)
        for batch, train in ((64, False), (64, True), (1, False))
        for model in (*_BOOK, *_HELD_OUT)
    ]
    tasks += [Task(model, TF32, batch, False) for batch in (2, 4, 16, 32, 128) for model in ("alexnet", "vgg16")]
    return tuple(tasks)


@dataclass(frozen=True)
class Suite:
    """What to do where, and for how long at most."""

    device: str
    folder: Path
    tasks: tuple[Task, ...]
    budget_seconds: float = 480.0
    """Nothing is begun after that."""

    run_seconds: float = 0.5
    """How long each run is timed, and how long it is profiled."""

    threads: int | None = None
    command: str = ""
    effort: Effort | None = FULL
    """How much to calibrate; None for not at all."""

    _networks: dict[str, Network] = field(default_factory=dict, repr=False, compare=False)
    """Those that were built; weights take longer to draw than to run."""

    def run(self, tell: Progress = silent) -> list[Outcome]:
        """Do it.

        Raises HardwareError where the device is not there, or no longer responds, InputError for a folder that
        cannot be used, and KeyboardInterrupt for Ctrl-C or SIGTERM.
        """
        torch_device(self.device)
        if self.folder.is_dir():
            with threads(self.threads):
                _check_folder(self.folder, {task.file for task in self.tasks}, environment(self.device))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write into {self.folder}: {error.strerror}.") from None
        with _ended_by_signals():
            return self._run(tell)

    def _run(self, tell: Progress) -> list[Outcome]:
        steps = [*self._calibrating(), *self._measuring()]
        log = self._log()
        start = time.perf_counter()
        outcomes: list[Outcome] = []
        for index, (name, step) in enumerate(steps):
            tell(name, index, len(steps))
            before, begun = log.get(name), time.perf_counter()
            if begun - start > self.budget_seconds:
                outcomes.append(Outcome(name, NO_TIME))
                log.setdefault(name, outcomes[-1])
                continue
            if before and before.state in (BEGUN_AGAIN, GIVEN_UP):
                log[name] = Outcome(name, GIVEN_UP, detail="it ended the suite twice, and was not tried again")
                outcomes.append(log[name])
                continue
            again = before is not None and before.state == BEGUN
            self._write_down(log | {name: Outcome(name, BEGUN_AGAIN if again else BEGUN)})
            try:
                state, detail = _attempted(step)
            except KeyboardInterrupt:
                self._write_down(log)
                raise
            if state == FAILED and not answers(self.device):
                raise HardwareError(
                    f"{self.device} no longer responds since {name} ({detail}): run the same command again."
                )
            log[name] = Outcome(name, state, round(time.perf_counter() - begun, 2), detail)
            outcomes.append(log[name])
            self._write_down(log)
        self._write_down(log)
        return outcomes

    def _calibrating(self) -> Iterator[tuple[str, Step]]:
        if self.effort is not None:
            yield "calibration", lambda: self._calibrate(self.effort)

    def _calibrate(self, effort: Effort | None) -> tuple[str, str]:
        path = self.folder / DEVICE_FILE
        if path.exists():
            read_device(path)
            return THERE, ""
        device = calibrate(self.device, cpu_threads=self.threads, command=self.command, effort=effort)
        write_whole(path, to_toml(device).encode())
        return DONE, disturbance(device)

    def _measuring(self) -> Iterator[tuple[str, Step]]:
        for task in self.tasks:
            yield task.text, lambda task=task: self._measure(task)  # type: ignore[misc]

    def _measure(self, task: Task) -> tuple[str, str]:
        path = self.folder / task.file
        before = read(path) if path.exists() else None
        if before and before.precision_settings != task.precision.settings:
            raise InputError(f"{path} was measured with other precision settings: give another folder.")
        if before and any((run.batch, run.train) == (task.batch, task.train) for run in before.runs):
            return THERE, ""
        if task.model not in self._networks:
            self._networks[task.model] = find(task.model, real=True)
        network = self._networks[task.model]
        run = measure(
            network.module,
            network.inputs(task.batch),
            device=self.device,
            batch=task.batch,
            dtype=task.precision.dtype,
            train=task.train,
            precision_settings=task.precision.settings,
            thread_count=self.threads,
            seconds=self.run_seconds,
            name=network.name,
        )
        made = measurement(
            [*(before.runs if before else ()), run],
            device=self.device,
            precision_settings=task.precision.settings,
            thread_count=self.threads,
            command=self.command,
        )
        made.save(path)
        return DONE, run.failure

    def _log(self) -> dict[str, Outcome]:
        """Each step's last outcome in the folder's log; nothing where the log is missing or damaged."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            steps = json.loads((self.folder / LOG_FILE).read_text(encoding="utf-8"))["steps"]
            return {each["step"]: Outcome(**each) for each in steps}
        return {}

    def _write_down(self, log: Mapping[str, Outcome]) -> None:
        steps = [outcome._asdict() for outcome in log.values()]
        document = {"schema": SCHEMA, "device": self.device, "steps": steps}
        write_whole(self.folder / LOG_FILE, (json.dumps(document, indent=1) + "\n").encode())


Step = Callable[[], tuple[str, str]]


def _attempted(step: Step) -> tuple[str, str]:
    """What a step says, or why it failed: a suite goes on."""
    try:
        return step()
    except Exception as error:
        own = "" if isinstance(error, CostModelError) else f"{type(error).__name__}: "
        return FAILED, own + " ".join(str(error).split())[:300]


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """While this lasts SIGTERM, which a time limit sends, interrupts as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_folder(folder: Path, records: Collection[str], environment: Mapping[str, Any]) -> None:
    """Raises InputError, before anything runs, for a folder that a suite cannot continue in.

    In it are only files of the suite itself, all made on the same device, with as many threads and the same torch as
    now: otherwise what is there would be taken for what is measured now. Of `records`, the files that the suite may
    write, a damaged one is left to the step that needs it.
    """
    now = _origin(device_title(environment), environment["versions"].get("torch"))
    for path in sorted(folder.iterdir()):
        if path.name == LOG_FILE or path.name.startswith("."):
            continue
        try:
            made = _device_origin(path) if path.name == DEVICE_FILE else _record_origin(path)
        except InputError:
            if path.name in (DEVICE_FILE, *records):
                continue
            made = ""
        if not made:
            raise InputError(f"{folder} holds {path.name}, which no suite wrote: give a folder of its own (--output).")
        if made != now:
            raise InputError(f"{path} was made on {made}, and this is {now}: give another folder (--output).")


def _device_origin(path: Path) -> str:
    """Where a device was calibrated; "" if it was not."""
    device = read_device(path)
    if "calibration" not in device.facts:
        return ""
    said = [each for each in device.facts["calibration"].source.via.split(", ") if each.startswith("torch ")]
    return _origin(device.title.removesuffix(", calibrated"), said[0].removeprefix("torch ") if said else None)


def _record_origin(path: Path) -> str:
    record = read(path)
    return _origin(device_title(record.environment), record.environment["versions"].get("torch"))


def _origin(device: str, torch: str | None) -> str:
    return f"{device}, with torch {torch}"
