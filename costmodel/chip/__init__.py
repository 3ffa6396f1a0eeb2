"""What a chip makes of a network, and what to make a chip of: loop nests, traffic, accelerators, designs.

Loop nests (`nests`, which `lowering` makes of a trace; `windows`, `widths`) are what everything reads. From them follow
DRAM traffic (`schedules`, `tiling`, `dram`, `bounds`; `chains`, `pyramids`, `fusion` for layers that run as one) and
time, energy and area on an accelerator (`technology`, `accelerator`, `mapping`, `evaluation`); from those, many designs
at once (`space`, `sweep`, `explore`, `pareto`), what more of each is worth (`balance`), and what a change would do
(`whatif`, of `changes` and `winograd`, each in what layers have `asked`). `anchors` holds published chips beside ours.
"""
