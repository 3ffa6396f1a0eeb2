"""What a chip makes of a network, and what to make a chip of: loop nests, traffic, accelerators, designs.

Loop nests (`nests`, `windows`, `widths`) are what everything reads. From them follow DRAM traffic (`tiling`, `dram`,
its `bounds`, and `chains`, `pyramids`, `fusion` for layers that run as one) and time, energy and area on an
accelerator (`technology`, `accelerator`, `mapping`, `evaluation`); from those, many designs at once (`explore`,
`pareto`), what more of each is worth (`balance`), and what a change would do (`whatif`). `anchors` holds published
chips beside ours.
"""
