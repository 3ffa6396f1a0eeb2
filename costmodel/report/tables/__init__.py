"""Results -> data frames in base units: which columns each table has, in which order. `columns` says what they mean.

`network` is what networks hold and do, `time` how long they take on a device, `memory` what a run keeps, `chip` what
accelerators make of them; `frames` is what all of these share, and what is done with a finished frame.

A frame holds no totals, so that pandas can sum and sort it; `total_of` makes the row that stands below it. Counts stay
whole numbers, also in a column where some are missing.
"""

from __future__ import annotations

from costmodel.report.tables.chip import (
    accelerators_table,
    designs_table,
    evaluation_table,
    fusion_table,
    traffic_table,
    what_ifs_table,
)
from costmodel.report.tables.frames import TOTAL, csv, frame_of, records, total_of
from costmodel.report.tables.memory import fits_table, levels_table, memory_table, memory_what_ifs_table, peak_table
from costmodel.report.tables.network import (
    GROUPS,
    compare_table,
    groups_table,
    layers_table,
    networks_table,
    shares_table,
    validation_table,
)
from costmodel.report.tables.time import batches_table, calibration_table, devices_table, prediction_table

__all__ = [
    "GROUPS",
    "TOTAL",
    "accelerators_table",
    "batches_table",
    "calibration_table",
    "compare_table",
    "csv",
    "designs_table",
    "devices_table",
    "evaluation_table",
    "fits_table",
    "frame_of",
    "fusion_table",
    "groups_table",
    "layers_table",
    "levels_table",
    "memory_table",
    "memory_what_ifs_table",
    "networks_table",
    "peak_table",
    "prediction_table",
    "records",
    "shares_table",
    "total_of",
    "traffic_table",
    "validation_table",
    "what_ifs_table",
]
