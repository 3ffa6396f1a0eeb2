"""Traces kept between processes: used while nothing has changed, and never otherwise."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fresh_process import Processes

import costmodel
from costmodel.networks import cache, find
from costmodel.tracer import trace

if not hasattr(os, "fork"):
    pytest.skip("these tests fork", allow_module_level=True)


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


class Got(NamedTuple):
    """What a process got when it asked for a trace."""

    text: str
    hit: bool
    printed: str


ASK = """
from costmodel.networks import Reference
result, references = [], {}
for spec, how, options in arguments:
    reference = references.setdefault(f"{spec} {how}", Reference(spec, **how))
    try:
        text = reference.trace(**options).to_json()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    result.append([text, "network" not in vars(reference)])
"""


class User:
    """Somebody with a folder and a cache who asks for traces, each time in a new process."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes = processes
        self.folder = folder / "work"
        self.folder.mkdir()
        self.cache = folder / "cache"

    def run(self, code: str, *arguments: Any, **environment: str) -> Any:
        return self.processes.run(code, self.folder, *arguments, **{"COSTMODEL_CACHE": str(self.cache)} | environment)

    def ask(self, spec: str, batch: int = 1, **environment: str) -> Got:
        done = self.run(ASK, (spec, {}, {"batch": batch}), **environment)
        return Got(*done.result[0], done.stderr)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def entries(self) -> list[Path]:
        return sorted(self.cache.glob("*.answer"))


@pytest.fixture
def user(processes: Processes, tmp_path: Path) -> User:
    return User(processes, tmp_path)


def linear(width: str, before: str = "", inside: str = "") -> str:
    """A file that makes a network of one linear layer."""
    return (
        f"from torch import nn\n{before}\ndef net():\n    {inside or 'pass'}\n"
        f"    return nn.Linear({width}, 3)\nnet.input_shape = (2,)\n"
    )


# What is asked


def test_what_is_kept_is_what_would_be_traced(user: User) -> None:
    """Each of these is another trace, and each is found again as it was, to the byte."""
    step = {"train": True}
    asked = [
        ("lenet", {}, {}),
        ("lenet", {}, {"batch": 3}),
        ("lenet", {"classes": 7}, {}),
        ("lenet", {"shapes": ["1x32x32"]}, {}),
        ("lenet", {}, {"dtype": "float64"}),
        ("lenet", {}, {"autocast": "bfloat16"}),
        ("lenet", {}, {"channels_last": True}),
        ("lenet", {}, {"target": "cpu", **step}),
        ("lenet", {}, {"name": "another"}),
        ("lenet", {}, step),
        ("lenet", {}, {"optimizer": "adam", **step}),
        ("lenet", {}, {"optimizer_options": {"momentum": 0.9}, **step}),
        ("lenet", {}, {"first_step": True, **step}),
        ("lenet", {}, {"set_to_none": False, **step}),
        ("lenet", {}, {"accumulate": 2, **step}),
        ("lenet", {}, {"checkpoint": ["net.0"], **step}),
        ("lenet-relu", {}, step),
        ("lenet-relu", {}, {"inplace": True, **step}),
        ("torchvision:squeezenet1_0", {}, {}),
    ]  # fmt: skip
    cold, warm = (user.run(ASK, *asked).result for _ in range(2))
    assert [hit for _, hit in cold] == [False] * len(asked)
    assert [hit for _, hit in warm] == [True] * len(asked)
    assert warm == [[text, True] for text, _ in cold]
    assert len({text for text, _ in cold}) == len(asked)
    for (spec, how, options), (text, _) in zip(asked, warm, strict=True):
        network = find(spec, **how)
        given = {"batch": 1, "name": network.name} | options
        if "inplace" not in given:
            assert trace(network.module, network.inputs(given.pop("batch")), **given).to_json() == text


@pytest.mark.parametrize("what", ["costmodel.__version__", "sys.version", "torch", "torch's version", "torchvision"])
def test_another_installation_has_another_answer(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.question(None, "trace", "lenet")
    if what.startswith("torch"):  # one that is found first, and then another version of it
        package = what.partition("'")[0]
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        if what == "torch's version":
            (tmp_path / "torch-2.98.dist-info").mkdir()
            before = cache.question(None, "trace", "lenet")
            (tmp_path / "torch-2.98.dist-info").rename(tmp_path / "torch-2.99.dist-info")
    else:
        monkeypatch.setattr(what, "3.99")
    after = cache.question(None, "trace", "lenet")
    assert before and after and before.key != after.key


def test_what_is_no_plain_value_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert cache.question(None, "trace", {"dtype": torch.float64}) is None
    assert cache.question(None, "trace", {"loss": len}) is None
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.float64)
    assert cache.question(None, "trace") is None


# What is damaged


def _truncated(whole: bytes) -> bytes:
    return whole[:-1]


def _flipped(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


DAMAGE = {
    "truncated": _truncated,
    "flipped": _flipped,
    "flipped at the start": lambda whole: bytes([whole[0] ^ 1]) + whole[1:],
    "empty": lambda whole: b"",
    "JSON": lambda whole: b'{"schema": "costmodel/trace/1"}',
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_replaced(damage: Any, user: User) -> None:
    good = user.ask("lenet")
    (entry,) = user.entries()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert user.ask("lenet") == good  # no hit, and not a word about it
    assert entry.read_bytes() == whole
    assert user.ask("lenet").hit


def test_an_entry_under_another_name_is_none(user: User) -> None:
    user.ask("lenet"), user.ask("lenet", batch=2)
    one, other = user.entries()
    one.write_bytes(other.read_bytes())
    answers = {batch: user.ask("lenet", batch=batch) for batch in (1, 2)}
    assert sorted(got.hit for got in answers.values()) == [False, True]
    assert [json.loads(got.text)["inputs"][0][0][0] for got in answers.values()] == [1, 2]


def test_a_file_in_the_folders_place_is_borne(user: User) -> None:
    user.cache.write_text("")
    assert [user.ask("lenet").hit for _ in range(2)] == [False, False]
    assert user.ask("lenet").printed == ""


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_borne(user: User) -> None:
    user.cache.mkdir(mode=0o500)
    assert [user.ask("lenet") for _ in range(2)] == [user.ask("lenet")] * 2
    assert not user.entries()


def test_off(user: User) -> None:
    assert [user.ask("lenet", COSTMODEL_CACHE="off").hit for _ in range(2)] == [False, False]
    assert not (user.folder / "off").exists()


def test_not_kept(user: User) -> None:
    user.run("from costmodel.networks import traced; traced('lenet', kept=False)")
    assert not user.entries()


def test_real_runs_are_not_kept(user: User) -> None:
    user.run(ASK, ("lenet", {"real": True}, {"run": True}))
    assert not user.entries()


def test_many_write_at_once(user: User) -> None:
    """Two processes write the same entry again and again while two read it: it is always whole."""
    good = user.ask("lenet")
    (entry,) = user.entries()
    code = """
import os
from costmodel.networks import cache
from costmodel.networks.reference import _Answer
asked = cache.question(None, "trace", "lenet", None, False, [], {}, (1, None))
answer = cache.recall(asked, _Answer)
children = []
for number in range(4):
    children.append(os.fork())
    if not children[-1]:
        for _ in range(30):
            if number % 2:
                cache.keep(asked, answer)
            elif cache.recall(asked, _Answer) != answer:
                os._exit(1)
        os._exit(0)
result = [answer is not None, [os.waitpid(child, 0)[1] for child in children]]
"""
    assert user.run(code).result == [True, [0] * 4]
    assert user.entries() == [entry]
    assert user.ask("lenet") == good._replace(hit=True)


def test_the_least_recently_used_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"old": 30, "older": 40, "new": 50}
    for age, name in enumerate(["new", "old", "older"]):
        path = tmp_path / f"{name}.answer"
        path.write_bytes(bytes(sizes[name]))
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "mine.txt").write_text("not an answer")
    abandoned = tmp_path / ".new.answer.77"
    abandoned.write_text("")
    os.utime(abandoned, (1e9, 1e9))
    monkeypatch.setattr(cache, "LIMIT_BYTES", 80)  # 50 + 30 fit
    cache._drop_oldest(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "new.answer", "old.answer"]


def test_what_is_used_is_young(user: User) -> None:
    user.ask("lenet")
    (entry,) = user.entries()
    os.utime(entry, (1e9, 1e9))
    assert user.ask("lenet").hit
    assert entry.stat().st_mtime > 1e9


# Anybody's code


def test_a_users_file_is_kept(user: User) -> None:
    user.write("own.py", linear("2"))
    cold, warm = user.ask("own.py:net"), user.ask("own.py:net")
    assert (cold.hit, warm.hit) == (False, True)
    assert cold.text == warm.text
    assert parameters(cold) == 2 * 3 + 3


def parameters(got: Got) -> int:
    return costmodel.count(costmodel.Trace.from_json(got.text)).parameters


@pytest.mark.parametrize("spec", ["own.py:net", "own:net"])
def test_an_edited_file_is_traced_again(spec: str, user: User) -> None:
    user.write("own.py", linear("2"))
    user.ask(spec)
    user.write("own.py", linear("4"))
    user.write("own.py", linear("4").replace("(2,)", "(4,)"))
    changed = user.ask(spec)
    assert not changed.hit
    assert parameters(changed) == 4 * 3 + 3
    assert user.ask(spec).hit


CHANGES = {
    "a helper's text": ("helper.py", "WIDTH = 2", "WIDTH = 3", linear("WIDTH", "from helper import WIDTH")),
    "a helper in a package": (
        "parts/sizes.py", "WIDTH = 2", "WIDTH = 3", linear("WIDTH", "from parts.sizes import WIDTH")
    ),
    "a helper imported late": (
        "helper.py", "WIDTH = 2", "WIDTH = 3", linear("WIDTH", "", "from helper import WIDTH")
    ),
    "a table read while it is imported": (
        "width.txt", "2", "3", linear("WIDTH", "WIDTH = int(open('width.txt').read())")
    ),
    "a table read while it is built": (
        "width.txt", "2", "3", linear("w", "from pathlib import Path", "w = int(Path('width.txt').read_text())")
    ),
    "a table that was not there": (
        "width.txt", None, "3",
        linear("WIDTH", "try:\n    WIDTH = int(open('width.txt').read())\nexcept OSError:\n    WIDTH = 2"),
    ),
    "a module that was not there": (
        "helper.py", None, "WIDTH = 3",
        linear("WIDTH", "try:\n    from helper import WIDTH\nexcept ImportError:\n    WIDTH = 2"),
    ),
    "a folder's files": (
        "tables/b.txt", None, "", linear("WIDTH", "import os\nWIDTH = 2 + len(os.listdir('tables'))")
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "before", "after", "code"), CHANGES.values(), ids=CHANGES)
def test_what_the_code_reads_counts(name: str, before: str | None, after: str, code: str, user: User) -> None:
    if name.startswith("tables"):
        user.write("tables/a.txt", "")
        code = code.replace("2 + len", "1 + len")
    user.write("own.py", code)
    if before is not None:
        user.write(name, before)
    cold = user.ask("own.py:net")
    assert parameters(cold) == 2 * 3 + 3
    assert user.ask("own.py:net") == cold._replace(hit=True)
    user.write(name, after)
    changed = user.ask("own.py:net")
    assert not changed.hit
    assert changed.text.startswith("TraceError")  # 3 inputs where the file says that it takes 2


def test_the_environment_counts_where_it_is_read(user: User) -> None:
    user.write("own.py", linear("int(os.getenv('WIDTH'))", "import os"))
    user.write("deaf.py", linear("2"))
    for spec in ("own.py:net", "deaf.py:net"):
        assert not user.ask(spec, WIDTH="2").hit
        assert user.ask(spec, WIDTH="2").hit
    assert not user.ask("own.py:net", WIDTH="3").hit
    assert user.ask("deaf.py:net", WIDTH="3").hit


NOT_KEPT = {
    "random numbers": linear("random.choice([2])", "import random"),
    "numpy's random numbers": linear("2 + 0 * np.random.randint(3)", "import numpy as np"),
    "another program": linear("2", "import subprocess\nsubprocess.run(['true'])"),
    "the network": linear("2", "import socket\nsocket.socket().close()"),
    "a file written": linear("2", "open('log.txt', 'w').write('built')"),
    "a rule": linear("2", "import costmodel as cm\n@cm.rule('mine.scale', kind='other')\ndef scale(op): pass"),
    "torch's default type": linear("2", "import torch\ntorch.set_default_dtype(torch.float64)"),
}


@pytest.mark.parametrize("code", list(NOT_KEPT.values())[:-1], ids=list(NOT_KEPT)[:-1])
def test_what_nobody_can_vouch_for_is_not_kept(code: str, user: User) -> None:
    user.write("own.py", code)
    assert not user.ask("own.py:net").hit
    assert not user.ask("own.py:net").hit
    assert not user.entries()


def test_after_others_code_nothing_is_certain(user: User) -> None:
    """A file that changes torch's default type, and what is traced after it in the same process."""
    user.write("own.py", NOT_KEPT["torch's default type"])
    user.write("other.py", linear("2"))
    asked = [(spec, {}, {}) for spec in ("own.py:net", "lenet", "other.py:net")]
    assert ["float64" in text for text, _ in user.run(ASK, *asked).result] == [True] * 3
    assert [user.ask(spec).hit for spec, _, _ in asked] == [True, False, False]
    assert ["float64" in user.ask(spec).text for spec, _, _ in asked] == [True, False, False]


def test_a_file_changed_after_the_start_is_not_kept(user: User) -> None:
    """Nobody knows whether it changed before or after it was read."""
    user.write("own.py", linear("2"))
    code = "import os; from costmodel.networks import traced; os.utime('own.py'); traced('own.py:net')"
    user.run(code)
    assert not user.entries()


def test_what_was_printed_is_printed_again(user: User) -> None:
    code = """
import sys, warnings
from torch import nn
print("imported")
class Net(nn.Module):
    input_shape = (2,)
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)
        warnings.warn("built")
    def forward(self, x):
        print("run at", len(x), file=sys.stderr)
        return self.layer(x)
"""
    user.write("own.py", code)
    asked = [("own.py:Net", {}, {"batch": batch}) for batch in (1, 2)]
    cold = user.run(ASK, *asked)
    assert cold.stderr.count("imported") == 1
    assert cold.stderr.count("UserWarning: built") == 1
    warm = user.run(ASK, *asked)
    assert [hit for _, hit in warm.result] == [True, True]
    assert warm.stderr == cold.stderr


def test_several_traces_of_one_network_import_it_once(user: User) -> None:
    """Also where only the first is known: what was printed in building is not printed twice."""
    user.write("own.py", linear("2", "print('imported')"))
    user.ask("own.py:net")
    asked = [("own.py:net", {}, {"batch": batch}) for batch in (1, 2)]
    done = user.run(ASK, *asked)
    assert [hit for _, hit in done.result] == [True, False]
    assert done.stderr.count("imported") == 1


def test_errors_are_kept(user: User) -> None:
    user.write("own.py", linear("5"))
    cold = user.ask("own.py:net")
    assert cold.text.startswith("TraceError: the forward of the network")
    assert user.ask("own.py:net") == cold._replace(hit=True)


def test_an_error_of_the_machines_is_not_kept(user: User) -> None:
    full = "class Full(nn.Linear):\n    def forward(self, x):\n        raise MemoryError"
    user.write("own.py", linear("2", full).replace("return nn.Linear", "return Full"))
    assert user.ask("own.py:net").text.startswith("TraceError: the forward of the network")
    assert not user.entries()


# The list of names


def test_the_list_of_names_is_kept(user: User) -> None:
    code = "import sys; from costmodel.networks import names; result = [names(), 'torchvision' in sys.modules]"
    cold, warm = (user.run(code).result for _ in range(2))
    assert [*map(tuple, cold[0])] == costmodel.networks.names(kept=False)
    assert warm == [cold[0], False]
