"""Columns that several chapters have and no result's table: the schema's are in `costmodel.view.columns`."""

from __future__ import annotations

from costmodel.view import Column

INFERENCE_PEAK = Column("inference_peak_bytes", "inference", "bytes", "peak of requested bytes in a forward pass")
TRAINING_PEAK = Column("training_peak_bytes", "training", "bytes", "peak of requested bytes in a training step")
OUTPUT_SHARE = Column("output_share", "of outputs", "percent", "share of the bytes that all layers write")
TIME_SHARE = Column("time_share", "of time", "percent", "share of the network's bound")
SPEEDUP = Column("speedup", "speed-up", "times", "how many times faster than the first row")
SOURCE = Column("source", "source", "prose", "where a number is from")
NOTE = Column("note", "note", "prose", "what else its source says")
