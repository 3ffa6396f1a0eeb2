"""Mixed precision on meta tensors: what torch.autocast does on CUDA or a CPU, where meta tensors have no autocast.

Operators are overridden in a region only, the trace's own or one that the forward opens. To notice the latter, the
functions of torch.autocast are replaced while a network is traced on meta tensors, in its thread alone.

torch keeps a policy for each operator that autocast knows (aten/src/ATen/autocast_mode.h and .cpp):

    lower     its floating-point inputs are cast to the lower precision. The cast of a float32 weight is kept until the
              autocast region ends, so that a weight that is used twice is cast once
    fp32      they are cast to float32
    dtype     it is given float32 as its argument dtype, unless it was given a type
    promote   they are cast to the widest type among them

cuDNN's recurrent layers alone are cast to float16 whatever the lower precision is, and their weights copied into one
block each time (aten/src/ATen/cudnn/AutocastRNN.cpp).

Torch's dispatcher knows which operators have a policy; it is fp32 for all that are not named here. Casts are operations
that autograd sees, as in torch: float64 and integers are left alone, the weights stay float32, and so do gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from costmodel.errors import InputError
from costmodel.tracer.dispatch_override import DispatchOverride, Original, Override
from costmodel.tracer.inputs import dtype_name
from costmodel.tracer.thread_patches import replaced_here
from costmodel.tracer.torch_private import (
    AUTOCAST_AVAILABLE,
    Replaceable,
    autocast_enabled,
    enable_autocast,
    is_view,
    operators_in,
)

AUTOCAST_DTYPES = ("bfloat16", "float16")

_LOWER = frozenset({
    "_convolution.deprecated", "_convolution", "conv1d", "conv1d.padding", "conv2d", "conv2d.padding", "conv3d",
    "conv3d.padding", "conv_tbc", "conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input", "convolution",
    "cudnn_convolution", "cudnn_convolution_transpose", "prelu", "addmm", "_addmm_activation", "addmv", "addr",
    "matmul", "einsum", "mm", "mv", "linalg_vecdot", "linear", "addbmm", "baddbmm", "bmm", "chain_matmul",
    "linalg_multi_dot", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "lstm_cell", "gru_cell", "rnn_tanh_cell",
    "rnn_relu_cell", "_scaled_dot_product_flash_attention", "scaled_dot_product_attention", "mkldnn_rnn_layer",
    "_native_multi_head_attention",
})  # fmt: skip
_DTYPE = frozenset({
    "prod", "prod.dim_int", "softmax.int", "log_softmax.int", "cumprod", "cumsum", "linalg_vector_norm",
    "linalg_matrix_norm", "linalg_matrix_norm.str_ord", "sum", "sum.dim_IntList",
})  # fmt: skip
_PROMOTE = frozenset({
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "grid_sampler", "index_put", "tensordot",
    "scatter_add",
})  # fmt: skip
_PROMOTE_ON_CPU = frozenset({"stack", "cat", "index_copy"})
_REFUSED = frozenset({"binary_cross_entropy"})
_RECURRENT = frozenset({"_cudnn_rnn"})
_LEFT_ALONE = frozenset({"norm.Scalar", "norm.ScalarOpt_dim"})
"""A norm is given its type through another overload."""

_CASTS = DispatchOverride("hpu")

overrides_now = _CASTS.overrides_now
"""How operators are run in the region that this thread is in; nothing outside of regions."""


def autocast_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """The torch dtype of that name. Raises InputError for one that autocast does not take."""
    if name is None:
        return None
    full = dtype_name(name)
    if full not in AUTOCAST_DTYPES:
        raise InputError(f"autocast runs in {' or '.join(AUTOCAST_DTYPES)}, not in {name}.")
    return getattr(torch, full)


@contextmanager
def autocasting(
    dtype: torch.dtype | None, target: str, meta: bool
) -> Iterator[Callable[[], AbstractContextManager[Any]]]:
    """A function to make regions of mixed precision with: `with region(): ...`. Without a dtype they do nothing.

    Meta tensors are cast as the target would cast its own, in these regions and in those that a forward opens itself;
    real ones are the business of torch. While this lasts, torch's questions about autocast on "meta" are about the
    target: a forward asks them of `x.device.type`.
    """
    device = "cuda" if target == "cuda" else "cpu"
    region = nullcontext if dtype is None else functools.partial(torch.autocast, device, dtype)
    if not meta:
        yield region
        return
    casts, answered = _Casts(device), functools.partial(_about_target, device)
    with replaced_here(
        (_IS_ENABLED, answered),
        (_GET_DTYPE, answered),
        (AUTOCAST_AVAILABLE, answered),
        (_CLEAR_CACHE, casts.clear),
        (_CONSTRUCT, functools.partial(_construct, device)),
        (_ENTER, casts.enter),
        (_EXIT, casts.leave),
    ):
        yield region


_IS_ENABLED, _GET_DTYPE, _CLEAR_CACHE = (
    Replaceable(torch, name, getattr(torch, name))
    for name in ("is_autocast_enabled", "get_autocast_dtype", "clear_autocast_cache")
)
_CONSTRUCT, _ENTER, _EXIT = (
    Replaceable(torch.autocast, name, getattr(torch.autocast, name)) for name in ("__init__", "__enter__", "__exit__")
)


def _about_target(target: str, question: Callable[..., Any], *about: Any, **named: Any) -> Any:
    """The answer to a question about a device: about the target, if it is about "meta"."""
    named = {name: target if value == "meta" else value for name, value in named.items()}
    return question(*[target if value == "meta" else value for value in about], **named)


def _construct(
    target: str,
    original: Callable[..., None],
    region: Any,
    device_type: str,
    dtype: torch.dtype | None = None,
    enabled: bool = True,
    cache_enabled: bool | None = None,
) -> None:
    """torch.autocast's constructor, for which "meta" is the target; CUDA's does not switch itself off without a GPU."""
    device = target if device_type == "meta" else device_type
    there = device != target or device == "cpu"
    original(region, device, dtype, enabled and there, cache_enabled)
    if not there:
        enable_autocast(region, enabled)


class _Casts:
    """How each operator is run, and the weights' casts so far."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._cache: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._regions: dict[int, list[ExitStack]] = {}
        """The overrides of each open region, by id: one may be entered again inside itself."""

    def clear(self, original: Callable[[], None]) -> None:
        """torch.clear_autocast_cache: the outermost region has ended, and the weights' casts are let go."""
        self._cache.clear()
        original()

    def enter(self, original: Callable[[Any], Any], region: Any) -> Any:
        """torch.autocast.__enter__: a region begins."""
        result = original(region)
        active = ExitStack()
        self._regions.setdefault(id(region), []).append(active)
        if autocast_enabled(region) and region.device == self.device:
            active.enter_context(_CASTS(self.overrides()))
        return result

    def leave(self, original: Callable[..., Any], region: Any, *error: Any) -> Any:
        """torch.autocast.__exit__: it ends."""
        active = self._regions.get(id(region))
        if active:
            active.pop().close()
        return original(region, *error)

    def overrides(self) -> Mapping[str, Override]:
        """By operator: how to run it with autocast."""
        return {operator: functools.partial(self._run, policy) for operator, policy in _policies(self.device).items()}

    def _run(self, policy: Callable[..., Any], original: Original, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled(self.device):
            return original(*args, **kwargs)
        with _CASTS.lifted():
            return policy(self, original, args, kwargs)

    def lower(self, original: Original, args: Any, kwargs: Any) -> Any:
        """Run in the lower precision."""
        return self._cast_all(original, args, kwargs, torch.get_autocast_dtype(self.device))

    def full(self, original: Original, args: Any, kwargs: Any) -> Any:
        """Run in float32."""
        return self._cast_all(original, args, kwargs, torch.float32)

    def full_result(self, original: Original, args: Any, kwargs: Any) -> Any:
        """Return float32, unless another type is given."""
        if self._is_eligible(args[0]) and not any(isinstance(v, torch.dtype) for v in (*args, *kwargs.values())):
            kwargs = {**kwargs, "dtype": torch.float32}
        return original(*args, **kwargs)

    def promote(self, original: Original, args: Any, kwargs: Any) -> Any:
        """Run in the widest type of the inputs."""
        types = {tensor.dtype for tensor in _tensors((args, tuple(kwargs.values()))) if self._is_eligible(tensor)}
        wide = torch.float32 if torch.float32 in types else torch.get_autocast_dtype(self.device)
        return self._cast_all(original, args, kwargs, wide)

    def recurrent(self, original: Original, args: Any, kwargs: Any) -> Any:
        """Run in float16, on weights that are copied side by side."""
        given, weights, stride, flat, hx, cx, *others = args
        half = functools.partial(self._cast, torch.float16)
        if self._is_eligible(weights[0]) and weights[0].dtype != torch.float16:
            size = sum(weight.numel() for weight in weights) if flat is None else flat.numel()
            flat = torch.zeros(size, dtype=torch.float16, device=weights[0].device)
            weights = _copied_side_by_side(weights, flat)
        cx = None if cx is None else half(cx)  # the last argument first, as in `_cast_all`
        hx = half(hx)
        return original(half(given), weights, stride, flat, hx, cx, *others, **kwargs)

    def refuse(self, original: Original, args: Any, kwargs: Any) -> Any:
        """Raise what torch raises."""
        raise RuntimeError(
            "binary_cross_entropy and BCELoss are unsafe to autocast: use binary_cross_entropy_with_logits"
        )

    def _cast_all(self, original: Original, args: Any, kwargs: Any, dtype: torch.dtype) -> Any:
        cast = functools.partial(self._cast, dtype)
        # The last argument first: torch's C++ leaves the order to the compiler, and GCC goes from right to left.
        named = {key: _map(cast, value) for key, value in reversed(kwargs.items())}
        return original(*reversed([_map(cast, value) for value in reversed(args)]), **named)

    def _cast(self, dtype: torch.dtype, tensor: torch.Tensor) -> torch.Tensor:
        if not self._is_eligible(tensor) or tensor.dtype == dtype:
            return tensor
        weight = tensor.dtype == torch.float32 and tensor.requires_grad and tensor.is_leaf and not is_view(tensor)
        if not weight or dtype == torch.float32 or not torch.is_autocast_cache_enabled():
            return tensor.to(dtype)
        if id(tensor) not in self._cache:
            self._cache[id(tensor)] = tensor, tensor.to(dtype)
        return self._cache[id(tensor)][1]

    def _is_eligible(self, tensor: torch.Tensor) -> bool:
        here = tensor.is_meta or self.device == "cpu"
        return here and tensor.is_floating_point() and tensor.dtype != torch.float64


@functools.cache
def _policies(device: str) -> Mapping[str, Callable[..., Any]]:
    """By operator: the policy that it has on this device."""
    registered = operators_in(f"Autocast{device.upper()}")
    names = {name.removeprefix("aten::") for name in registered if name.startswith("aten::")}
    on_cpu = device == "cpu"
    return {name: _policy(name, on_cpu) for name in names - _LEFT_ALONE}


def _policy(name: str, on_cpu: bool) -> Callable[..., Any]:
    if name in _LOWER:
        return _Casts.lower
    if name in _RECURRENT:
        return _Casts.recurrent
    if on_cpu:
        return _Casts.promote if name in _PROMOTE_ON_CPU else _Casts.full
    if name in _REFUSED:
        return _Casts.refuse
    return _Casts.full_result if name in _DTYPE else _Casts.promote if name in _PROMOTE else _Casts.full


def _copied_side_by_side(tensors: Sequence[torch.Tensor], flat: torch.Tensor) -> list[torch.Tensor]:
    """Copies as columns, which autograd knows as copies, and which look at one block without being views of it."""
    places, begin = [], 0
    for tensor in tensors:
        place = torch.empty(0, dtype=flat.dtype, device=flat.device)
        places.append(place.set_(flat.untyped_storage(), begin, (tensor.numel(), 1)))  # type: ignore[call-overload]
        begin += tensor.numel()
    return [place.copy_(tensor.view(place.shape)) for place, tensor in zip(places, tensors, strict=True)]


def _map(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return [_map(function, item) for item in value]
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
