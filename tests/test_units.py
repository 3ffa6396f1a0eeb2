"""Numbers to text and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.errors import InputError, nearest
from costmodel.units import iec, joules, parse_bytes, percent, plural, seconds, si


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 MAC"),
        (7, "7 MAC"),
        (999, "999 MAC"),
        (1000, "1.00 kMAC"),
        (714_188_480, "714 MMAC"),
        (999_499, "999 kMAC"),
        (999_500, "1.00 MMAC"),
        (15_470_264_320, "15.5 GMAC"),
        (-2_500_000, "-2.50 MMAC"),
        (10**21, "1,000 EMAC"),
        (0.5, "0.500 MAC"),
        (math.inf, "inf MAC"),
    ],
)
def test_si(value: float, text: str) -> None:
    assert si(value, "MAC") == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.00 KiB"),
        (244_403_360, "233 MiB"),  # 244403360 / 2^20 = 233.08
        (1_048_575, "1.00 MiB"),
        (141 * 10**9, "131 GiB"),  # 141e9 / 2^30 = 131.3
        (-2048, "-2.00 KiB"),
    ],
)
def test_iec(count: int, text: str) -> None:
    assert iec(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (1.5, "1.50 s"), (0.00123, "1.23 ms"), (4.2e-5, "42.0 µs"), (9.9999e-4, "1.00 ms"), (120, "120 s")],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


def test_joules() -> None:
    assert (joules(0.00123), joules(2.5e-12), joules(0)) == ("1.23 mJ", "2.50 pJ", "0 J")


def test_percent() -> None:
    assert percent(0.9613) == "96.1 %"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("32768", 32768), ("32KiB", 32768), ("32 kib", 32768), ("108 kB", 108_000), ("1.5GiB", 3 * 2**29), ("2K", 2048),
        ("1e3", 1000), ("0", 0), (77, 77), ("1 MB", 10**6), ("3b", 3),
    ],
)  # fmt: skip
def test_parse_bytes(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "KiB", "-1", "1.5", "12 parsecs", "1e400", -5, "0x10", "1,000"])
def test_parse_bytes_refuses(text: str | int) -> None:
    with pytest.raises(InputError):
        parse_bytes(text)


@given(st.integers(0, 2**60))
def test_bytes_round_trip_within_the_digits_shown(count: int) -> None:
    shown = parse_bytes_float(iec(count, digits=6))
    assert shown == pytest.approx(count, rel=1e-5)


def parse_bytes_float(text: str) -> float:
    number, unit = text.replace(",", "").split()
    return float(number) * 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)


def test_nearest() -> None:
    assert nearest("VGG1", ["vgg16", "vgg19x", "lenet"]) == " Did you mean vgg16, vgg19x?"
    assert nearest("transformer", ["vgg16"]) == ""


def test_plural() -> None:
    assert [plural(count, "group") for count in (0, 1, 2, 1024)] == ["0 groups", "1 group", "2 groups", "1,024 groups"]
