"""The records that come with costmodel: what real devices did, as `costmodel suite` wrote it."""

from __future__ import annotations

from pathlib import Path


def packaged() -> Path:
    """The folder of those records, with one subfolder a device.

    In a checkout, `measurements` beside this file is a link to `reports/measurements`, where records are committed; a
    wheel holds the files themselves.
    """
    return Path(__file__).with_name("measurements")
