"""Numbers to text and back: SI prefixes for FLOPs, rates and seconds, IEC prefixes (KiB, MiB, GiB) for memory."""

from __future__ import annotations

import math
import re

from costmodel.errors import InputError

SI_UP = ("", "k", "M", "G", "T", "P", "E")
SI_DOWN = ("", "m", "µ", "n", "p")
IEC = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

_FACTORS = {"": 1, "B": 1}
_FACTORS |= {f"{prefix}B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T", "P"), start=1)}
_FACTORS |= {prefix: 1024**power for power, prefix in enumerate(IEC)}
_FACTORS |= {prefix.removesuffix("iB"): 1024**power for power, prefix in enumerate(IEC) if power}
_FACTORS_BY_LOWER = {name.lower(): factor for name, factor in _FACTORS.items()}


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """`value` with an SI prefix and `digits` significant digits: si(714188480, "MAC") is "714 MMAC"."""
    return _scaled(value, unit, digits, 1000, SI_UP)


def iec(count: float, digits: int = 3) -> str:
    """`count` bytes with an IEC prefix: iec(244403360) is "233 MiB"."""
    if not math.isfinite(count):
        return f"{count} B"
    magnitude, power = abs(count), 0
    while power < len(IEC) - 1 and float(_significant(magnitude, digits).replace(",", "")) >= 1024:
        magnitude, power = magnitude / 1024, power + 1
    sign = "-" if count < 0 else ""
    return f"{sign}{_significant(magnitude, digits) if power else format(int(magnitude), ',')} {IEC[power]}"


def seconds(value: float, digits: int = 3) -> str:
    """A time with the prefix that suits it: seconds(0.00123) is "1.23 ms"."""
    return _scaled_down(value, "s", digits)


def joules(value: float, digits: int = 3) -> str:
    """An energy with the prefix that suits it: joules(0.00123) is "1.23 mJ"."""
    return _scaled_down(value, "J", digits)


def percent(share: float, digits: int = 1) -> str:
    """A ratio as a percentage: percent(0.9613) is "96.1 %"."""
    return f"{100 * share:.{digits}f} %"


def plural(count: int, noun: str) -> str:
    """A number of things: "1 group", "1,024 groups"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def parse_bytes(text: str | int) -> int:
    """Bytes from "32768", "32KiB", "108 kB" or "1.5GiB"; K, M and G alone mean KiB, MiB and GiB.

    Raises InputError for anything else, for a negative size and for a fraction of a byte.
    """
    if isinstance(text, int):
        value: float = text
    else:
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*", text)
        factor = _FACTORS_BY_LOWER.get(match[2].lower()) if match else None
        if match is None or factor is None:
            raise InputError(f"cannot read a size from {text!r}: write bytes, or a number with KiB, MiB, GiB, kB, MB.")
        value = float(match[1]) * factor
    if not math.isfinite(value) or value < 0 or value != int(value):
        raise InputError(f"{text!r} is not a whole, non-negative number of bytes.")
    return int(value)


def _scaled_down(value: float, unit: str, digits: int) -> str:
    magnitude, power = abs(value), 0
    if magnitude == 0 or not math.isfinite(magnitude):
        return f"{value:.0f} {unit}"
    while power < len(SI_DOWN) - 1 and float(_significant(magnitude, digits).replace(",", "")) < 1:
        magnitude, power = magnitude * 1000, power + 1
    return f"{'-' if value < 0 else ''}{_significant(magnitude, digits)} {SI_DOWN[power]}{unit}"


def _scaled(value: float, unit: str, digits: int, base: int, prefixes: tuple[str, ...]) -> str:
    if not math.isfinite(value):
        return f"{value} {unit}".rstrip()
    magnitude, power = abs(value), 0
    while power < len(prefixes) - 1 and float(_significant(magnitude, digits).replace(",", "")) >= base:
        magnitude, power = magnitude / base, power + 1
    text = _significant(magnitude, digits) if power or value != int(value) else format(int(magnitude), ",")
    return f"{'-' if value < 0 else ''}{text} {prefixes[power]}{unit}".rstrip()


def _significant(magnitude: float, digits: int) -> str:
    """`digits` significant digits without an exponent, and never fewer than the integer part has."""
    if magnitude == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(magnitude)))
    rounded = round(magnitude, decimals)
    decimals = max(0, digits - 1 - math.floor(math.log10(rounded))) if rounded else decimals
    return f"{rounded:,.{decimals}f}"
