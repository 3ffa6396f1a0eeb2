"""Activation checkpointing of named blocks: their activations are let go in the forward and computed again in the
backward, by torch.utils.checkpoint (Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from costmodel.errors import InputError, nearest
from costmodel.tracer.meta_copy import Paths
from costmodel.tracer.recorder import Recorder


def checkpoint_blocks(modules: Paths, names: Iterable[str], recorder: Recorder) -> None:
    """Let these modules of a meta copy run under a checkpoint (not reentrant, as torch advises); each has its tracker.

    A name is a dotted path; `*` stands for any text without a dot: "features", "encoder.layers.*". Raises InputError
    for a name that no module has.
    """
    chosen: dict[str, nn.Module] = {}
    for name in names:
        pattern = re.compile("[^.]*".join(map(re.escape, name.split("*"))))
        matching = {path: module for path, module in modules if path and pattern.fullmatch(path)}
        if not matching:
            hint = nearest(name, dict(modules)) or f" It has {', '.join(p for p, _ in modules if p and '.' not in p)}."
            raise InputError(f"there is no module {name!r} to checkpoint.{hint}")
        chosen |= matching
    for path, module in chosen.items():
        module.__dict__["forward"] = functools.partial(_under_checkpoint, module.forward, path, recorder)


def _under_checkpoint(forward: Callable[..., Any], path: str, recorder: Recorder, *args: Any, **kwargs: Any) -> Any:
    recorder.enter(path)  # the block keeps its inputs, not the module around it
    try:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    finally:
        recorder.leave()
