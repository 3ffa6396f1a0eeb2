"""The columns of every table: one schema. A name means one thing, has one unit and is shown in one way.

Frames, CSV and JSON carry the names and base units; tables for people carry the titles and human units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from costmodel.errors import InputError, nearest
from costmodel.view.kinds import FIELD, QUANTITY


class Column(NamedTuple):
    """One column."""

    name: str
    """What programs call it. It holds no unit that the kind does not say, and no batch: that is a column of its own."""

    title: str
    """What people see above it."""

    kind: str
    """What its values are: one of `costmodel.view.KINDS`. It says how they are written and sorted, and their tone."""

    meaning: str
    """What a value says, in one line."""

    rank: int = 1
    """What goes first where a table does not fit: the highest rank; 0 stays."""

    adds: bool = False
    """Whether its values add up to a total."""

    of: tuple[str, str] | None = None
    """For a ratio, which in a total is that of sums: the columns that are divided by each other."""


def column(name: str, **changes: Any) -> Column:
    """The column of that name; for one table perhaps with another title or rank.

    Raises InputError for a name that the schema does not have.
    """
    if name not in COLUMNS:
        raise InputError(f"no column is called {name!r}.{nearest(name, COLUMNS)}")
    return COLUMNS[name]._replace(**changes)


_RATE = ("flops", "bound_seconds")

_COLUMNS = (
    # what a row is about
    Column("layer", "layer", "layer", "dotted path of the module", 0),
    Column("block", "block", "layer", "dotted path of the module around the layers", 0),
    Column("operator", "operator", "text", "the ATen operator", 0),
    Column("phase", "phase", "term", "forward, backward or optimizer", 2),
    Column("kind", "kind", "term", "what a layer does: conv, linear, norm ...", 8),
    Column("part", "part", "text", "convolutions, fully connected layers, everything else; or all", 0),
    Column("quantity", "quantity", FIELD, "the name of the column that says what a row compares", 0),
    Column("type", "type", "name", "the module's class", 5),
    # counts
    Column("output_shape", "output", "shape", "shape of the layer's last output, batch first", 4),
    Column("parameter_formula", "formula", "term", "(F²·C+1)·K or (I+1)·O with the layer's numbers", 6),
    Column("operations", "operations", "count", "operator calls that move or compute something", 4, adds=True),
    Column("parameters", "parameters", "count", "elements of the parameters held, shared ones once", 0, adds=True),
    Column("parameter_bytes", "weights", "bytes", "bytes of the parameters held", 9, adds=True),
    Column("macs", "MACs", "macs", "multiply-accumulates of contractions", 0, adds=True),
    Column("flops", "FLOPs", "flops", "2 x MACs + vector FLOPs", 0, adds=True),
    Column("read_bytes", "read", "bytes", "bytes of the distinct tensors that its operations take", 1, adds=True),
    Column("write_bytes", "write", "bytes", "bytes of the distinct tensors that its operations make", 1, adds=True),
    Column("moved_bytes", "moved", "bytes", "read and write bytes", 1, adds=True),
    Column("arithmetic_intensity", "FLOP/B", "ratio", "FLOPs per byte moved", 2, of=("flops", "moved_bytes")),
    Column("counted", "counted", "verdict", "all, or not all if an operation has no rule and counts as nothing", 0),
    # shares of a network's whole
    Column("parameters_share", "of parameters", "percent", "share of all parameters", 1, adds=True),
    Column("macs_share", "of MACs", "percent", "share of all MACs", 2, adds=True),
    Column("flops_share", "of FLOPs", "percent", "share of all FLOPs", 1, adds=True),
    Column("moved_share", "of bytes", "percent", "share of all read and write bytes", 1, adds=True),
    Column("bound_share", "of bound", "percent", "share of the network's bound", 1, adds=True),
    # predictions
    Column("path", "path", "term", "precision path of the largest operation", 2),
    Column("compute_seconds", "compute", "seconds", "time of the arithmetic at the path's peak", 4, adds=True),
    Column("memory_seconds", "memory", "seconds", "time of the traffic at the memory's bandwidth", 4, adds=True),
    Column("bound_seconds", "bound", "seconds", "least time of arithmetic and traffic at the peaks", 0, adds=True),
    Column("estimate_seconds", "estimate", "seconds", "what a calibrated device is expected to take", 0, adds=True),
    Column("low_seconds", "from", "seconds", "the lower end of the estimate's interval", 3),
    Column("high_seconds", "to", "seconds", "the upper end of the estimate's interval", 3),
    Column("samples_per_second", "samples/s", "ratio", "by wall time, the estimate or the bound", 0),
    Column("images_per_second", "images/s", "count", "images a second at the bound", 0),
    Column("binding", "bound by", "term", "compute or memory", 1),
    Column("flops_per_second", "rate", "flops_per_second", "FLOPs per second at the bound", 3, of=_RATE),
    # calibrations
    Column("class", "class", "term", "the class of operations", 0),
    Column("fixed_seconds", "fixed", "seconds", "what each operation costs, however small", 1),
    Column("cold_seconds", "cold", "seconds", "what it costs more where not even the program is in the cache", 5),
    Column("near_bytes_per_second", "near", "bytes_per_second", "the rate of bytes in the last-level cache", 1),
    Column("far_bytes_per_second", "far", "bytes_per_second", "the rate of bytes in memory", 1),
    Column("fresh_bytes_per_second", "fresh", "bytes_per_second", "the rate of bytes written to memory newly taken", 4),
    Column("overlap", "overlap", "ratio", "the p of the norm by which arithmetic and traffic add up", 9),
    Column("shapes", "shapes", "count", "how many operations were timed", 5),
    Column("low", "from", "times", "the interval's lower end, as a multiple of the estimate", 2),
    Column("high", "to", "times", "the interval's upper end, as a multiple of the estimate", 2),
    # comparisons
    Column("verdict", "verdict", "verdict", "how it turned out", 0),
    Column("value", "value", QUANTITY, "the quantity's", 0),
    Column("a", "A", QUANTITY, "the first network's", 0),
    Column("b", "B", QUANTITY, "the second network's", 0),
    Column("ratio", "B / A", "times", "the second as a multiple of the first", 0),
    # checks
    Column("contraction_flops", "2 x MACs", "flops", "FLOPs of contractions alone, as some programs count", 0),
    Column("source", "against", "prose", "whose number it is: another program's, or a publication's", 0),
    Column("ours", "ours", "count", "our number", 0),
    Column("peer", "theirs", "count", "the other number", 0),
    Column("difference", "difference", "count", "theirs less ours", 3),
    Column("ok", "ok", "check", "whether it is equal, or the difference is explained to the unit", 0),
    Column("explanation", "explanation", "prose", "what makes the difference", 1),
    # memory
    Column("peak_bytes", "peak memory", "bytes", "the most bytes of tensors alive at once", 0),
    Column("tensor", "tensor of", "layer", "the parameter's or buffer's name, or the layer that made it", 0),
    Column("shape", "shape", "shape", "shape of the tensor", 3),
    Column("role", "role", "text", "what bytes are held for", 0),
    Column("held_bytes", "bytes", "bytes", "bytes alive at the peak", 0, adds=True),
    Column("held_share", "of peak", "percent", "share of the bytes alive at the peak", 1, adds=True),
    Column("limit_bytes", "for tensors", "bytes", "what the device leaves for tensors", 9),
    Column("exhaustive", "all tried", "flag", "whether every batch up to the bound was tried", 9),
    Column("extrapolated", "extrapolated", "flag", "whether it follows from traces of other batches", 9),
    Column("pool", "pool", "text", "of small or of large blocks", 0),
    Column("segment_bytes", "segment", "bytes", "size of a segment", 0),
    Column("segments", "how many", "count", "segments of that size", 0),
    # traffic between DRAM and chip
    Column("buffer_bytes", "buffer", "bytes", "size of the on-chip buffer", 0),
    Column("dram_bytes", "DRAM traffic", "bytes", "what the best schedule and tile move", 0, adds=True),
    Column("bound_bytes", "bound", "bytes", "what no schedule of each row by itself moves less than", 1, adds=True),
    Column("compulsory_bytes", "compulsory", "bytes", "each input, weight and output once", 2, adds=True),
    Column("schedule", "schedule", "term", "what stays on the chip while tiles stream past it", 1),
    Column("tile", "tile", "shape", "images, output and input channels, output rows and columns", 3),
    Column("input_bytes", "inputs", "bytes", "bytes of inputs", 9, adds=True),
    Column("weight_bytes", "weights", "bytes", "bytes of weights", 9, adds=True),
    Column("output_bytes", "outputs", "bytes", "bytes of outputs", 9, adds=True),
    Column("partial_bytes", "partial sums", "bytes", "bytes of partial sums, there and back", 9, adds=True),
    Column("level", "counted", "text", "requested, allocated, reserved or process", 0),
    Column("level_bytes", "bytes", "bytes", "the peak, counted so", 0),
    Column("added_bytes", "more", "bytes", "how much more than on the level below", 1),
    Column("adds", "for", "prose", "what it adds to the level below", 1),
    Column("batch", "batch", "count", "samples at once", 0),
    Column("requested_bytes", "requested", "bytes", "the peak of what tensors ask for", 0),
    Column("allocated_bytes", "allocated", "bytes", "the peak of the caching allocator's blocks", 2),
    Column("reserved_bytes", "reserved", "bytes", "the peak of the caching allocator's segments", 1),
    Column("process_bytes", "process", "bytes", "reserved, the CUDA context and cuBLAS's workspaces (assumed)", 1),
    Column("device", "device", "text", "the device's name for people", 0),
    Column("fits", "fits", "flag", "whether the device runs it", 0),
    Column("largest_batch", "largest batch", "count", "the largest batch that runs", 0),
    Column("batch_without_retries", "without retries", "count", "the largest batch without allocator retries", 1),
    Column("bound_batch", "bound", "count", "what the tensors alone would allow", 2),
    Column("what_if", "what-if", "text", "what is changed about the training step", 0),
    Column("saving_bytes", "saves", "bytes", "how much lower the peak is", 0),
    Column("saved_bytes", "saved for backward", "bytes", "what autograd saves", 3),
    Column("how", "in PyTorch", "prose", "what to write in a program", 4),
    Column("why", "why", "prose", "where the saving comes from, or why there is none", 0),
    Column("layers", "its layers", "layers", "dotted paths of the modules that run as one", 0),
    Column("layer_by_layer_bytes", "alone", "bytes", "what its contractions move one by one", 1, adds=True),
    Column("pooling_bytes", "apart", "bytes", "what its activations and poolings move one by one", 2, adds=True),
    Column("recomputed_macs", "recomputed MACs", "macs", "multiply-accumulates that overlaps make again", 3, adds=True),
    Column("steps", "steps", "count", "steps of the staircase of traffic against buffer", 1),
    Column("smallest_buffer_bytes", "smallest buffer", "bytes", "the least that holds a tile", 0),
    Column("most_dram_bytes", "traffic there", "bytes", "DRAM traffic behind the smallest buffer", 0),
    Column("sufficient_buffer_bytes", "buffer that suffices", "bytes", "from which on traffic is compulsory", 0),
    Column("footprint_bytes", "buffer used", "bytes", "what of the buffer the tiles fill", 3),
    # loop nests
    Column("groups", "groups", "count", "groups of channels", 2),
    Column("out_channels", "out channels", "count", "output channels of a group", 0),
    Column("in_channels", "in channels", "count", "input channels of a group", 0),
    Column("out_rows", "out rows", "count", "rows of the output", 1),
    Column("out_columns", "out columns", "count", "columns of the output", 1),
    Column("filter_rows", "filter rows", "count", "rows of the window", 1),
    Column("filter_columns", "filter columns", "count", "columns of the window", 1),
    Column("stride", "stride", "shape", "of the window, down and across", 2),
    Column("dilation", "dilation", "shape", "of the window, down and across", 5),
    Column("padding", "padding", "shape", "before and after the rows, before and after the columns", 5),
    Column("in_rows", "in rows", "count", "rows of the input", 5),
    Column("in_columns", "in columns", "count", "columns of the input", 5),
    Column("transposed", "transposed", "flag", "whether it is a transposed convolution", 6),
    Column("input_numel", "input words", "count", "elements of the input that are read", 3, adds=True),
    Column("weight_numel", "weight words", "count", "elements of the weights", 3, adds=True),
    Column("output_numel", "output words", "count", "elements of the output", 3, adds=True),
    # networks on accelerators
    Column("cycles", "cycles", "count", "clock cycles that the array takes", 5, adds=True),
    Column("active_pes", "active", "ratio", "processing elements at work while the array multiplies", 4),
    Column("utilisation", "of peak", "percent", "MACs done as a share of what the PEs could do", 1),
    Column("array_seconds", "array", "seconds", "time of the arithmetic on the array", 1, adds=True),
    Column("buffer_seconds", "delivery", "seconds", "time of what the buffer delivers", 7, adds=True),
    Column("dram_seconds", "DRAM", "seconds", "time of the DRAM traffic", 1, adds=True),
    Column("overlapped_seconds", "overlapped", "seconds", "arithmetic and traffic hide each other", 0, adds=True),
    Column("serial_seconds", "serial", "seconds", "nothing hides anything", 2, adds=True),
    Column("mac_joules", "MACs", "joules", "energy of multiplying and adding", 4, adds=True),
    Column("pe_joules", "PEs", "joules", "energy of registers and scratchpads", 4, adds=True),
    Column("buffer_joules", "buffer", "joules", "energy of the on-chip buffer", 4, adds=True),
    Column("dram_joules", "DRAM", "joules", "energy of the DRAM traffic", 4, adds=True),
    Column("joules", "energy", "joules", "energy, without leakage and clock wires", 2, adds=True),
    Column("mapping", "mapping", "term", "what the array's mapping chose, where it has a choice", 8),
    Column("delivered_bytes", "delivered", "bytes", "bytes between buffer and array, both ways", 4, adds=True),
    Column("input_dram_bytes", "inputs", "bytes", "DRAM traffic of inputs", 4, adds=True),
    Column("weight_dram_bytes", "weights", "bytes", "DRAM traffic of weights", 4, adds=True),
    Column("output_dram_bytes", "outputs", "bytes", "DRAM traffic of outputs, each once", 4, adds=True),
    Column("partial_dram_bytes", "part. sums", "bytes", "DRAM traffic of partial sums, both ways", 4, adds=True),
    # designs
    Column("number", "number", "text", "which number of a thing", 0),
    Column("amount", "amount", "text", "how much, as people write it", 0),
    Column("square_metres", "area", "square_metres", "an area", 0),
    Column("derived", "derived", "flag", "whether it follows from other numbers", 3),
    Column("note", "note", "prose", "what else there is to say", 2),
    Column("area_share", "of the area", "percent", "share of the area", 0),
    Column("marginal", "frames/s a mm²", "ratio", "what a further mm² of it brings", 0),
    Column("rows", "rows", "count", "rows of processing elements", 3),
    Column("columns", "columns", "count", "columns of processing elements", 3),
    Column("network", "network", "name", "the network that runs", 0),
    Column("array", "array", "text", "rows x columns of processing elements", 0),
    Column("dataflow", "dataflow", "term", "how the array shares a layer's loops", 2),
    Column("operand", "operand", "term", "type of inputs, weights and outputs", 3),
    Column("clock_hertz", "clock", "hertz", "clock", 3),
    Column("dram_bandwidth", "bandwidth", "bytes_per_second", "bytes per second between chip and memory", 0),
    Column("frames_per_second", "frames/s", "ratio", "samples a second if arithmetic hides traffic", 0),
    Column("serial_frames_per_second", "serial fr./s", "ratio", "samples a second if nothing hides anything", 2),
    Column("area_mm2", "mm²", "ratio", "area of the chip", 0),
    Column("watts", "W", "ratio", "power while it runs, without leakage and clock wires", 1),
    Column("frames_per_joule", "frames/J", "ratio", "samples a joule: frames a second and watt", 1),
    Column("frames_per_second_per_mm2", "fr./s/mm²", "ratio", "samples a second and square millimetre", 2),
    Column("pes_marginal", "frames/s a mm² of PEs", "ratio", "what a further mm² of PEs brings", 1),
    Column("sram_marginal", "frames/s a mm² of SRAM", "ratio", "what a further mm² of buffer brings", 1),
    Column("interface_marginal", "frames/s a mm² of interface", "ratio", "what a further mm² of interface brings", 1),
    Column("joule_seconds", "J s", "ratio", "energy-delay product: energy of a frame x its time", 1),
    Column("joules_per_frame", "J/frame", "joules", "energy of a sample, without leakage and clock wires", 1),
    Column("macs_per_second", "MAC/s", "macs", "multiply-accumulates a second at most", 1),
    Column("technology", "technology", "text", "whose energies and areas", 3),
    Column("ridge_point", "MACs/B", "ratio", "MACs a byte at which arithmetic and memory take equally long", 1),
    # what-ifs
    Column("change", "what if", "text", "what is changed", 0),
    Column("speedup", "speedup", "times", "overlapped time before, as a multiple of that after", 0),
    Column("does_nothing", "does nothing", "prose", "when it does nothing", 3),
    # benchmarks
    Column("model", "network", "name", "the network that is analysed", 0),
    Column("program", "program", "text", "the program that analyses it", 0),
    Column("version", "version", "text", "the program's version", 5),
    Column("way", "given", "term", "as the README says, or on the meta device as an expert would", 1),
    Column("best_seconds", "best", "seconds", "the shortest time", 0),
    Column("median_seconds", "median", "seconds", "the median time", 2),
    Column("quartile_range_seconds", "quartiles", "seconds", "from the first quartile to the third", 6),
    Column("agrees", "agrees", "flag", "whether it reports as many multiply-accumulates as we do", 1),
    Column("times_ours", "times ours", "times", "its best time as a multiple of ours", 0),
    Column("problem", "problem", "text", "why there are no numbers", 3),
    # measurements
    Column("dtype", "dtype", "term", "the floating-point type that it ran in", 3),
    Column("run", "run", "term", "forward or training step", 3),
    Column("work_seconds", "work", "seconds", "sum of what the device did: kernels, or a CPU's operators", 1),
    Column("graph_seconds", "graph", "seconds", "replay as one CUDA graph", 1),
    Column("eager_seconds", "eager", "seconds", "wall time as a user writes it, without the profiler", 0),
    Column("rank_correlation", "rank correlation", "ratio", "Spearman's, of layers predicted and measured", 2),
    Column("noise", "noise", "percent", "how far repetitions lie apart, as a share of their median", 2),
    Column("profiler_ratio", "profiled", "times", "wall time under the profiler, as a multiple of that without", 4),
    Column("failure", "failure", "prose", "why there are no times", 1),
    Column("measured_seconds", "measured", "seconds", "the median over repetitions", 0, adds=True),
    Column("error", "error", "percent", "predicted less measured, as a share of the measured", 0),
    Column("executed_bound_seconds", "roof", "seconds", "the bound of what ran, where that beats the definition's", 3),
    Column("predicted_seconds", "predicted", "seconds", "the estimate, or the bound where there is none", 0, adds=True),
    Column("seconds", "takes", "seconds", "how long something takes", 0),
    Column("profiled_seconds", "profiled", "seconds", "wall time under the profiler", 4),
    Column("device_bytes", "device", "bytes", "what the device no longer has free, everybody else's included", 4),
    Column("before_bytes", "before", "bytes", "what the device had not free before the network was there", 5),
    Column("predicted_bytes", "predicted peak", "bytes", "the peak of requested memory", 1),
    Column("measured_bytes", "measured peak", "bytes", "the peak of requested memory, measured", 1),
    Column("work_error", "vs work", "percent", "difference to the sum of kernels, as a share of it", 0),
    Column("graph_error", "vs graph", "percent", "difference to the CUDA graph's replay, as a share of it", 1),
    Column("eager_error", "vs eager", "percent", "difference to eager wall time, as a share of it", 0),
    Column("step", "step", "text", "what a suite does", 0),
    Column("state", "state", "term", "done, there already, failed, no time, given up", 0),
    Column("detail", "detail", "prose", "what there is to say of it", 1),
    # catalogues
    Column("name", "name", "text", "what a command takes", 0),
    Column("title", "title", "text", "its name for people", 1),
    Column("group", "group", "text", "where a network comes from, or what it is for", 2),
    Column("input", "input", "name", "shapes of the inputs without the batch", 1),
    Column("classes", "classes", "count", "how many classes it tells apart", 2),
    Column("fp64", "FP64", "flops_per_second", "dense peak of the float64 vector units", 7),
    Column("fp64_tensor", "FP64 tensor", "flops_per_second", "dense peak of float64 on tensor cores", 9),
    Column("fp32", "FP32", "flops_per_second", "dense peak of the float32 vector units", 0),
    Column("tf32", "TF32", "flops_per_second", "dense peak of TF32 on tensor cores", 2),
    Column("fp16", "FP16", "flops_per_second", "dense peak of float16 on tensor cores", 2),
    Column("bf16", "BF16", "flops_per_second", "dense peak of bfloat16 on tensor cores", 4),
    Column("fp8", "FP8", "flops_per_second", "dense peak of 8-bit floating point", 8),
    Column("int8", "INT8", "flops_per_second", "dense peak of 8-bit integers", 5),
    Column("memory_bandwidth", "bandwidth", "bytes_per_second", "bytes per second between chip and memory", 0),
    Column("memory_bytes", "memory", "bytes", "size of the memory", 1),
    Column("available_bytes", "memory", "bytes", "what the driver leaves of the memory, or its size if nobody says", 1),
    Column("l2_bytes", "L2", "bytes", "size of the level-2 cache", 5),
    Column("l3_bytes", "L3", "bytes", "size of the level-3 cache", 6),
    Column("units", "multiprocessors or cores", "count", "how many there are", 6),
    Column("launch_seconds", "launch", "seconds", "what starting one operation costs", 9),
    Column("sources", "sources", "text", "where the numbers come from", 10),
    Column("date", "date", "term", "date of the newest source", 9),
)  # fmt: skip

COLUMNS: Mapping[str, Column] = {column.name: column for column in _COLUMNS}
"""Every column by its name."""
