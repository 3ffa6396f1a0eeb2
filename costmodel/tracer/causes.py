"""What torch's commoner complaints about a static trace mean: why a network cannot be traced, and what to do."""

from __future__ import annotations

import re

_RUN = "run it on the CPU (--run, or run=True)"
_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"quantized::|Quantized(Meta|CPU)",
        "is quantised: what it computes is hidden in operators without meta tensors; run it on the CPU (--run, or "
        "run=True), where its operators need rules of yours (costmodel.rule)",
    ),
    (
        r"HigherOrderOperator (cond|while_loop)",
        r"uses torch.\1, whose branches depend on values, which cannot be traced: write it as Python's own, and "
        + _RUN,
    ),
    (r"FlexAttention|HigherOrderOperator flex_attention", "uses flex_attention, which is not modelled"),
    (
        r"HigherOrderOperator (\w+?)(?:_impl)?\b",
        r"uses torch's operator \1 on a function, which cannot be traced: write it as a Python loop",
    ),
    (r"[Nn]ested_?[Tt]ens|Neste", "uses nested tensors, which cannot be traced: pad them"),
    (r"Sparse\w*TensorImpl", "uses a sparse tensor: only dense ones can be traced"),
    (
        r"(torch\.meta\.\w+)",
        r"names a type of tensor together with a device (\1), which a static trace does not have: use .to(x.dtype)",
    ),
    (
        r"META device type not an accelerator",
        "asks for a generator or a stream on its input's device, which a static trace does not have: "
        "make a generator of the CPU's, or " + _RUN,
    ),
    (
        r"on the same device",
        "mixes tensors that it makes on a device of their own with its input: make them with device=x.device",
    ),
    (
        r"(?:no fake impl registered for <CustomOpDef\(([\w:]+)\)>|^([\w:.]+): attempted to run this operator with Meta"
        r"|Could not run '([\w:.]+)' with arguments from the 'Meta' backend)",
        r"calls \1\2\3, which cannot say the shape of its result without values (it has no meta kernel): " + _RUN,
    ),
    (r"NVIDIA driver|compiled with CUDA enabled", "names the device 'cuda': use its input's device, x.device"),
    (r"linked with support for (\w+) devices", r"names the device '\1': use its input's device, x.device"),
    (
        r"copy out of meta tensor",
        "moves a tensor to another device, as .cpu() and .tolist() do, or looks at its values, which a static trace "
        "does not have: leave it on x.device, or " + _RUN,
    ),
)
"""A pattern of torch's words, and what to say of the network, with the pattern's groups."""


def cause_of(complaint: str) -> str | None:
    """What a network does that torch complains of, to stand behind its name; None for what is not known."""
    for pattern, meaning in _CAUSES:
        match = re.search(pattern, complaint)
        if match is not None:
            return match.expand(meaning)
    return None
