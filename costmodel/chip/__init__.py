"""What a chip makes of a network, and what to make a chip of: loop nests, traffic, accelerators, designs.

Loop nests (`nests`, which `lowering` makes of a trace; `windows`, `widths`) are what everything reads. From them follow
DRAM traffic (`schedules`, `tiling`, `dram`, `bounds`; `chains`, `pyramids`, `fusion` for layers that run as one) and
time, energy and area on an accelerator (`technology`, `accelerator`, `mapping` on `arrays`, `row_stationary` by itself,
`evaluation`); from those, many designs at once (`space`, `sweep`, `explore`, `pareto`), the marginal value of
each resource (`balance`), and what a change would do (`whatif`; `changes`, `winograd`, and a `layer_demand` each).
Published chips stand beside the model in `costmodel.validation.chips`.
"""
