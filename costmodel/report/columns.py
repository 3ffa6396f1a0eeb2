"""The columns of every table: what each name means, its unit, and what people see above it. A name means one thing.

Frames, CSV and JSON carry the names below and base units; tables for people carry the titles and human units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

QUANTITY = "quantity"
"""The kind of a value that is whatever its row's quantity is."""


class Column(NamedTuple):
    """One column."""

    title: str
    """What people see above it."""

    kind: str
    """What its values are: one of `costmodel.display.KINDS`, or QUANTITY."""

    meaning: str
    """What a value says, in one line."""

    rank: int = 1
    """What goes first where a table does not fit: the highest rank; 0 stays."""

    adds: bool = False
    """Whether its values add up to a total."""


COLUMNS: Mapping[str, Column] = {
    # what a row is about
    "layer": Column("layer", "layer", "dotted path of the module", 0),
    "block": Column("block", "layer", "dotted path of the module around the layers", 0),
    "operator": Column("operator", "text", "the ATen operator", 0),
    "phase": Column("phase", "term", "forward, backward or optimizer", 2),
    "kind": Column("kind", "term", "what a layer does: conv, linear, norm ...", 8),
    "part": Column("part", "text", "convolutions, fully connected layers, everything else; or all", 0),
    "quantity": Column("quantity", "text", "the name of the column that says what a row compares", 0),
    "type": Column("type", "text", "the module's class", 5),
    # counts
    "output_shape": Column("output", "shape", "shape of the layer's last output, batch first", 4),
    "parameter_formula": Column("formula", "term", "(F²·C+1)·K or (I+1)·O with the layer's numbers", 6),
    "operations": Column("operations", "count", "operator calls that move or compute something", 4, adds=True),
    "parameters": Column("parameters", "count", "elements of the parameters held, shared ones once", 0, adds=True),
    "parameter_bytes": Column("weights", "bytes", "bytes of the parameters held", 9, adds=True),
    "macs": Column("MACs", "macs", "multiply-accumulates of contractions", 0, adds=True),
    "flops": Column("FLOPs", "flops", "2 x MACs + vector FLOPs", 0, adds=True),
    "read_bytes": Column("read", "bytes", "bytes of the distinct tensors that its operations take", 1, adds=True),
    "write_bytes": Column("write", "bytes", "bytes of the distinct tensors that its operations make", 1, adds=True),
    "moved_bytes": Column("moved", "bytes", "read and write bytes", 1, adds=True),
    "arithmetic_intensity": Column("FLOP/B", "ratio", "FLOPs per byte moved", 2),
    "counted": Column("counted", "term", "all, or not all if an operation has no rule and counts as nothing", 0),
    # shares of a network's whole
    "parameters_share": Column("of parameters", "percent", "share of all parameters", 1, adds=True),
    "macs_share": Column("of MACs", "percent", "share of all MACs", 2, adds=True),
    "flops_share": Column("of FLOPs", "percent", "share of all FLOPs", 1, adds=True),
    "moved_share": Column("of bytes", "percent", "share of all read and write bytes", 1, adds=True),
    "bound_share": Column("of bound", "percent", "share of the network's bound", 1, adds=True),
    # predictions
    "path": Column("path", "term", "precision path of the largest operation", 2),
    "compute_seconds": Column("compute", "seconds", "time of the arithmetic at the path's peak", 4, adds=True),
    "memory_seconds": Column("memory", "seconds", "time of the traffic at the memory's bandwidth", 4, adds=True),
    "bound_seconds": Column("bound", "seconds", "least time of arithmetic and traffic at the peaks", 0, adds=True),
    "estimate_seconds": Column("estimate", "seconds", "what a calibrated device is expected to take", 0, adds=True),
    "low_seconds": Column("from", "seconds", "the lower end of the estimate's interval", 3),
    "high_seconds": Column("to", "seconds", "the upper end of the estimate's interval", 3),
    "samples_per_second": Column("samples/s", "ratio", "by wall time, the estimate or the bound", 0),
    "images_per_second": Column("images/s", "count", "images a second at the bound", 0),
    "binding": Column("bound by", "term", "compute or memory", 1),
    "flops_per_second": Column("rate", "flops_per_second", "FLOPs per second at the bound", 3),
    # calibrations
    "class": Column("class", "term", "the class of operations", 0),
    "fixed_seconds": Column("fixed", "seconds", "what each operation costs, however small", 1),
    "cold_seconds": Column("cold", "seconds", "what it costs more where not even the program is in the cache", 5),
    "class_flops": Column("FLOP/s", "flops_per_second", "the rate of arithmetic", 0),
    "near_bandwidth": Column("near", "bytes_per_second", "the rate of bytes in the last-level cache", 1),
    "far_bandwidth": Column("far", "bytes_per_second", "the rate of bytes in memory", 1),
    "fresh_bandwidth": Column("fresh", "bytes_per_second", "the rate of bytes written to memory newly taken", 4),
    "shapes": Column("shapes", "count", "how many operations were timed", 5),
    "error_share": Column("error", "percent", "median relative error of shapes held out", 0),
    "low": Column("from", "times", "the interval's lower end, as a multiple of the estimate", 2),
    "high": Column("to", "times", "the interval's upper end, as a multiple of the estimate", 2),
    # comparisons
    "value": Column("value", QUANTITY, "the quantity's", 0),
    "a": Column("A", QUANTITY, "the first network's", 0),
    "b": Column("B", QUANTITY, "the second network's", 0),
    "ratio": Column("B / A", "times", "the second as a multiple of the first", 0),
    # checks
    "contraction_flops": Column("2 x MACs", "flops", "FLOPs of contractions alone, as some programs count", 0),
    "source": Column("against", "text", "whose number it is: another program's, or a publication's", 0),
    "ours": Column("ours", "count", "our number", 0),
    "peer": Column("theirs", "count", "the other number", 0),
    "difference": Column("difference", "count", "theirs less ours", 3),
    "ok": Column("ok", "flag", "whether it is equal, or the difference is explained to the unit", 0),
    "explanation": Column("explanation", "prose", "what makes the difference", 1),
    # memory
    "peak_bytes": Column("peak memory", "bytes", "the most bytes of tensors alive at once", 0),
    "tensor": Column("tensor of", "layer", "the parameter's or buffer's name, or the layer that made it", 0),
    "shape": Column("shape", "shape", "shape of the tensor", 3),
    "role": Column("role", "text", "what bytes are held for", 0),
    "held_bytes": Column("bytes", "bytes", "bytes alive at the peak", 0, adds=True),
    "held_share": Column("of peak", "percent", "share of the bytes alive at the peak", 1, adds=True),
    # traffic between DRAM and chip
    "buffer_bytes": Column("buffer", "bytes", "size of the on-chip buffer", 0),
    "dram_bytes": Column("DRAM traffic", "bytes", "what the best schedule and tile move", 0, adds=True),
    "bound_bytes": Column("bound", "bytes", "what no schedule of each row by itself moves less than", 1, adds=True),
    "compulsory_bytes": Column("compulsory", "bytes", "each input, weight and output once", 2, adds=True),
    "schedule": Column("schedule", "term", "what stays on the chip while tiles stream past it", 1),
    "tile": Column("tile", "shape", "images, output and input channels, output rows and columns", 3),
    "input_bytes": Column("inputs", "bytes", "bytes of inputs", 9, adds=True),
    "weight_bytes": Column("weights", "bytes", "bytes of weights", 9, adds=True),
    "output_bytes": Column("outputs", "bytes", "bytes of outputs", 9, adds=True),
    "partial_bytes": Column("partial sums", "bytes", "bytes of partial sums, there and back", 9, adds=True),
    "level": Column("counted", "text", "requested, allocated, reserved or process", 0),
    "level_bytes": Column("bytes", "bytes", "the peak, counted so", 0),
    "added_bytes": Column("more", "bytes", "how much more than on the level below", 1),
    "adds": Column("for", "prose", "what it adds to the level below", 1),
    "batch": Column("batch", "count", "samples at once", 0),
    "requested_bytes": Column("requested", "bytes", "the peak of what tensors ask for", 0),
    "allocated_bytes": Column("allocated", "bytes", "the peak of the caching allocator's blocks", 2),
    "reserved_bytes": Column("reserved", "bytes", "the peak of the caching allocator's segments", 1),
    "process_bytes": Column("process", "bytes", "reserved, the CUDA context and cuBLAS's workspaces (assumed)", 1),
    "device": Column("device", "text", "the device's name for people", 0),
    "fits": Column("fits", "flag", "whether the device runs it", 0),
    "largest_batch": Column("largest batch", "count", "the largest batch that runs", 0),
    "batch_without_retries": Column("without retries", "count", "the largest batch without allocator retries", 1),
    "bound_batch": Column("bound", "count", "what the tensors alone would allow", 2),
    "what_if": Column("what-if", "text", "what is changed about the training step", 0),
    "saving_bytes": Column("saves", "bytes", "how much lower the peak is", 0),
    "saved_bytes": Column("saved for backward", "bytes", "what autograd saves", 3),
    "how": Column("in PyTorch", "prose", "what to write in a program", 4),
    "why": Column("why", "prose", "where the saving comes from, or why there is none", 0),
    "layers": Column("layers", "layer", "dotted paths of the modules that run as one", 0),
    "layer_by_layer_bytes": Column("alone", "bytes", "what its contractions move one by one", 1, adds=True),
    "pooling_bytes": Column("apart", "bytes", "what its activations and poolings move one by one", 2, adds=True),
    "recomputed_macs": Column("recomputed MACs", "macs", "multiply-accumulates that overlaps make again", 3, adds=True),
    # networks on accelerators
    "cycles": Column("cycles", "count", "clock cycles that the array takes", 5, adds=True),
    "active_pes": Column("active", "ratio", "processing elements at work while the array multiplies", 4),
    "utilisation": Column("of peak", "percent", "MACs done as a share of what the elements could do", 1),
    "array_seconds": Column("array", "seconds", "time of the arithmetic on the array", 1, adds=True),
    "buffer_seconds": Column("delivery", "seconds", "time of what the buffer delivers", 7, adds=True),
    "dram_seconds": Column("DRAM", "seconds", "time of the DRAM traffic", 1, adds=True),
    "overlapped_seconds": Column("overlapped", "seconds", "arithmetic and traffic hide each other", 0, adds=True),
    "serial_seconds": Column("serial", "seconds", "nothing hides anything", 2, adds=True),
    "mac_joules": Column("MACs", "joules", "energy of multiplying and adding", 4, adds=True),
    "pe_joules": Column("elements", "joules", "energy of registers and scratchpads", 4, adds=True),
    "buffer_joules": Column("buffer", "joules", "energy of the on-chip buffer", 4, adds=True),
    "dram_joules": Column("DRAM", "joules", "energy of the DRAM traffic", 4, adds=True),
    "joules": Column("energy", "joules", "energy, without leakage and clock wires", 2, adds=True),
    "mapping": Column("mapping", "term", "what the array's mapping chose, where it has a choice", 8),
    "delivered_bytes": Column("delivered", "bytes", "bytes between buffer and array, both ways", 4, adds=True),
    "input_dram_bytes": Column("inputs", "bytes", "DRAM traffic of inputs", 4, adds=True),
    "weight_dram_bytes": Column("weights", "bytes", "DRAM traffic of weights", 4, adds=True),
    "output_dram_bytes": Column("outputs", "bytes", "DRAM traffic of outputs, each once", 4, adds=True),
    "partial_dram_bytes": Column("part. sums", "bytes", "DRAM traffic of partial sums, both ways", 4, adds=True),
    # designs
    "network": Column("network", "text", "the network that runs", 0),
    "array": Column("array", "text", "rows x columns of processing elements", 0),
    "dataflow": Column("dataflow", "term", "how the array shares a layer's loops", 2),
    "operand": Column("operand", "term", "type of inputs, weights and outputs", 3),
    "clock_hertz": Column("clock", "hertz", "clock", 3),
    "dram_bandwidth": Column("bandwidth", "bytes_per_second", "bytes per second between chip and memory", 0),
    "frames_per_second": Column("frames/s", "ratio", "samples a second if arithmetic hides traffic", 0),
    "serial_frames_per_second": Column("serial fr./s", "ratio", "samples a second if nothing hides anything", 2),
    "area_mm2": Column("mm²", "ratio", "area of the chip", 0),
    "watts": Column("W", "ratio", "power while it runs, without leakage and clock wires", 1),
    "frames_per_joule": Column("frames/J", "ratio", "samples a joule: frames a second and watt", 1),
    "frames_per_second_per_mm2": Column("fr./s/mm²", "ratio", "samples a second and square millimetre", 2),
    "pes_marginal": Column("frames/s a mm² of elements", "ratio", "what a further mm² of elements brings", 1),
    "sram_marginal": Column("frames/s a mm² of SRAM", "ratio", "what a further mm² of buffer brings", 1),
    "interface_marginal": Column("frames/s a mm² of interface", "ratio", "what a further mm² of interface brings", 1),
    "joule_seconds": Column("J s", "ratio", "energy-delay product: energy of a frame x its time", 1),
    "joules_per_frame": Column("J/frame", "joules", "energy of a sample, without leakage and clock wires", 1),
    "macs_per_second": Column("MAC/s", "macs", "multiply-accumulates a second at most", 1),
    "technology": Column("technology", "text", "whose energies and areas", 3),
    "ridge_point": Column("MACs/B", "ratio", "MACs a byte at which arithmetic and memory take equally long", 1),
    # what-ifs
    "change": Column("what if", "text", "what is changed", 0),
    "speedup": Column("speedup", "times", "overlapped time before, as a multiple of that after", 0),
    "does_nothing": Column("does nothing", "prose", "when it does nothing", 3),
    # benchmarks
    "model": Column("network", "text", "the network that is analysed", 0),
    "program": Column("program", "text", "the program that analyses it", 0),
    "version": Column("version", "text", "the program's version", 5),
    "way": Column("given", "term", "as the README says, or on the meta device as an expert would", 1),
    "best_seconds": Column("best", "seconds", "the shortest time", 0),
    "median_seconds": Column("median", "seconds", "the median time", 2),
    "quartile_range_seconds": Column("quartiles", "seconds", "from the first quartile to the third", 6),
    "agrees": Column("agrees", "flag", "whether it reports as many multiply-accumulates as we do", 1),
    "times_ours": Column("times ours", "times", "its best time as a multiple of ours", 0),
    "problem": Column("problem", "text", "why there are no numbers", 3),
    # measurements
    "dtype": Column("dtype", "term", "the floating-point type that it ran in", 3),
    "run": Column("run", "term", "forward or training step", 3),
    "work_seconds": Column("work", "seconds", "sum of what the device did: kernels, or a CPU's operators", 1),
    "graph_seconds": Column("graph", "seconds", "replay as one CUDA graph", 1),
    "eager_seconds": Column("eager", "seconds", "wall time as a user writes it, without the profiler", 0),
    "rank_correlation": Column("rank correlation", "ratio", "Spearman's, of layers predicted and measured", 2),
    "noise": Column("noise", "percent", "how far repetitions lie apart, as a share of their median", 2),
    "profiler_ratio": Column("profiled", "times", "wall time under the profiler, as a multiple of that without", 4),
    "failure": Column("failure", "prose", "why there are no times", 1),
    "measured_seconds": Column("measured", "seconds", "the median over repetitions", 0, adds=True),
    "error": Column("error", "percent", "predicted less measured, as a share of the measured", 0),
    "executed_bound_seconds": Column("roof", "seconds", "the bound of what ran, where that beats the definition's", 3),
    "says_who": Column("total", "text", "whose number it is", 0),
    "says": Column("says", "seconds", "what a program or we say the whole takes", 0),
    "work_error": Column("vs work", "percent", "difference to the sum of kernels, as a share of it", 0),
    "graph_error": Column("vs graph", "percent", "difference to the CUDA graph's replay, as a share of it", 1),
    "eager_error": Column("vs eager", "percent", "difference to eager wall time, as a share of it", 0),
    "step": Column("step", "text", "what a suite does", 0),
    "state": Column("state", "term", "done, there already, failed, no time, given up", 0),
    "took_seconds": Column("took", "seconds", "how long it took", 1),
    # catalogues
    "name": Column("name", "text", "what a command takes", 0),
    "title": Column("title", "text", "its name for people", 1),
    "group": Column("group", "text", "where a network comes from, or what it is for", 2),
    "input": Column("input", "text", "shapes of the inputs without the batch", 1),
    "classes": Column("classes", "count", "how many classes it tells apart", 2),
    "fp64": Column("FP64", "flops_per_second", "dense peak of the float64 vector units", 7),
    "fp64_tensor": Column("FP64 tensor", "flops_per_second", "dense peak of float64 on tensor cores", 9),
    "fp32": Column("FP32", "flops_per_second", "dense peak of the float32 vector units", 0),
    "tf32": Column("TF32", "flops_per_second", "dense peak of TF32 on tensor cores", 2),
    "fp16": Column("FP16", "flops_per_second", "dense peak of float16 on tensor cores", 2),
    "bf16": Column("BF16", "flops_per_second", "dense peak of bfloat16 on tensor cores", 4),
    "fp8": Column("FP8", "flops_per_second", "dense peak of 8-bit floating point", 8),
    "int8": Column("INT8", "flops_per_second", "dense peak of 8-bit integers", 5),
    "memory_bandwidth": Column("bandwidth", "bytes_per_second", "bytes per second between chip and memory", 0),
    "memory_bytes": Column("memory", "bytes", "size of the memory", 1),
    "available_bytes": Column("memory", "bytes", "what the driver leaves of the memory, or its size if nobody says", 1),
    "l2_bytes": Column("L2", "bytes", "size of the level-2 cache", 5),
    "l3_bytes": Column("L3", "bytes", "size of the level-3 cache", 6),
    "units": Column("multiprocessors or cores", "count", "how many there are", 6),
    "launch_seconds": Column("launch", "seconds", "what starting one operation costs", 9),
    "sources": Column("sources", "text", "where the numbers come from", 10),
    "date": Column("date", "text", "date of the newest source", 9),
}  # fmt: skip


def column(name: str) -> Column:
    """The column of that name; one that is not described is a text under its own name."""
    return COLUMNS.get(name) or Column(name.replace("_", " "), "text", "")
