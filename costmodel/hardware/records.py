"""The records that come with costmodel: what real devices did, as `costmodel suite` and `measure --trace` wrote it."""

from __future__ import annotations

from pathlib import Path


def packaged() -> Path:
    """The folder of those that were measured here, with one subfolder a device.

    In a checkout, `measurements` beside this file is a link to `reports/measurements`, where records are committed; a
    wheel holds the files themselves.
    """
    return Path(__file__).with_name("measurements")


def of_traces() -> Path:
    """The folder of those that were read from traces that others published; each names its source."""
    return Path(__file__).with_name("traces")
