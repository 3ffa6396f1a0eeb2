"""Networks that are unlike those of torchvision: what people write, and what they should not but do.

Each entry is a function that builds the network and the inputs to trace it with. All of them run on a CPU as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

IMAGE = (2, 8, 16, 16)


class Odd(NamedTuple):
    make: Callable[[], nn.Module]
    inputs: Any = (IMAGE,)


class Written(nn.Module):
    """A network whose forward is a function of its modules, by name, and its inputs."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def conv(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, **{"padding": 1} | options)


def chain(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*[layer() for layer in layers])


def written(function: Callable[..., Any], **layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Written(function, **{name: layer() for name, layer in layers.items()})


def norm() -> nn.Module:
    return nn.BatchNorm2d(8)


def _unet(net: Any, x: torch.Tensor) -> torch.Tensor:
    wide = net.down(x)
    deep = net.bottom(functional.max_pool2d(wide, 2))
    return net.up(torch.cat([functional.interpolate(deep, scale_factor=2), wide], 1))


def _twice_and_by_hand(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.c(net.c(x)) + functional.conv2d(x, net.c.weight, padding=1)


def _changes_itself(net: Any, x: torch.Tensor) -> torch.Tensor:
    net.c.weight.data = net.c.weight.data * 2
    y = net.c(x)
    net.c.stride = (2, 2)
    return net.c(y)


def _replaces_weights(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.c(x)
    net.c.weight = nn.Parameter(torch.zeros(4, 8, 5, 5, device=x.device))
    net.c.bias = None
    return net.c(y)


def _gradient_inside(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(net.c(x).sum(), x)
    return net.r(gradient)


def _views(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = net.r(net.n(net.c(x).permute(0, 2, 3, 1)))
    z = y.transpose(1, 2)[:, ::2]
    return net.r(z), net.i(z), net.c(x[:1].expand(2, 8, 16, 16)), net.c(x[:, :, 1:, 1:])


def _reshapes_in_place(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.c(x)
    y.squeeze_(0).unsqueeze_(0).transpose_(2, 3)
    w = net.c(x)
    w.data = w.data.transpose(2, 3)
    return net.r(y) + net.r(w)


def _without_cudnn(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.backends.cudnn.flags(enabled=False):
        y = net.b(x)
    return net.b(y)


def _other_types(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.b(net.c(x).double().to(x.dtype)) + net.b(x.half().to(x.dtype))


def _trains_for_a_while(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.b(x)
    net.b.train()
    z = net.b(y)
    net.b.eval()
    return net.d(net.b(z))


def _inference_mode(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        y = net.r(net.c(x))
    return net.r(y.clone())


def _autocast(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        y = net.r(net.c(x))
    return net.c(y)


def _copies_a_layer(net: Any, x: torch.Tensor) -> torch.Tensor:
    return copy.deepcopy(net.c)(x) + net.c.weight.mean() + net.c(x)


def _hooks_for_a_while(net: Any, x: torch.Tensor) -> torch.Tensor:
    handle = net.c.register_forward_hook(lambda module, given, output: output + 1)
    y = net.c(x)
    handle.remove()
    return net.c(y)


def _looks_at_its_state(net: Any, x: torch.Tensor) -> torch.Tensor:
    net.c.load_state_dict(net.c.state_dict())
    named, raw = dict(net.c.named_parameters()), {**net.c._parameters}
    return functional.conv2d(x, raw["weight"]) + functional.conv2d(x, named["weight"], named["bias"])


def _changes_statistics(net: Any, x: torch.Tensor) -> torch.Tensor:
    net.b.running_mean.mul_(2)
    net.b.num_batches_tracked += 1
    y = net.b(x)
    net.b.running_mean = net.b.running_mean + 1
    return net.b(y)


class _Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 2


class _Rectified(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


def _tied() -> nn.Module:
    network = nn.Sequential(conv(), conv())
    network[1].weight = network[0].weight
    return network


def _pruned() -> nn.Module:
    layer = conv()
    layer.weight, layer.bias = nn.Parameter(layer.weight.detach()[:5]), nn.Parameter(torch.zeros(5))
    return nn.Sequential(layer, nn.ReLU())


def _hooked() -> nn.Module:
    layer = conv()
    layer.register_forward_hook(lambda module, given, output: output * 2)
    layer.register_forward_pre_hook(lambda module, given: (given[0] + 1,))
    return nn.Sequential(layer, conv(), nn.ReLU())


def _patched() -> nn.Module:
    patched = nn.ReLU()
    patched.forward = lambda x: x.relu() + 1  # type: ignore[method-assign]
    return nn.Sequential(conv(), nn.ReLU(), patched, nn.ReLU())


ODD: Mapping[str, Odd] = {
    "padding": Odd(
        chain(
            lambda: conv(padding_mode="circular"),
            lambda: conv(padding_mode="reflect"),
            lambda: conv(dilation=2),
            lambda: conv(groups=4),
            lambda: conv(bias=False),
        )
    ),
    "padding by name": Odd(
        chain(
            lambda: conv(padding="same"),
            lambda: conv(padding="valid"),
            lambda: nn.Conv2d(8, 8, 5, padding="same"),
            lambda: nn.Conv2d(8, 8, 4, padding="same"),
            lambda: nn.Conv2d(8, 8, 5, padding="valid"),
        )
    ),
    "one image": Odd(chain(conv, nn.ReLU, conv), (torch.zeros(8, 16, 16),)),
    "one dimension": Odd(
        chain(
            lambda: nn.Conv1d(4, 4, 3),
            lambda: nn.BatchNorm1d(4),
            nn.ReLU,
            lambda: nn.MaxPool1d(2),
            lambda: nn.AvgPool1d(2),
            lambda: nn.AdaptiveAvgPool1d(3),
        ),
        ((2, 4, 32),),
    ),
    "three dimensions": Odd(
        chain(
            lambda: nn.Conv3d(4, 4, 3),
            lambda: nn.BatchNorm3d(4),
            nn.ReLU,
            lambda: nn.MaxPool3d(2),
            lambda: nn.AvgPool3d(2),
            lambda: nn.AdaptiveAvgPool3d(1),
        ),
        ((2, 4, 12, 12, 12),),
    ),
    "batch norm of a matrix": Odd(
        chain(lambda: nn.Linear(4, 4), lambda: nn.BatchNorm1d(4), nn.ReLU, lambda: nn.BatchNorm1d(4)), ((5, 4),)
    ),
    "norms": Odd(
        chain(
            lambda: nn.BatchNorm2d(8, affine=False),
            lambda: nn.BatchNorm2d(8, track_running_stats=False),
            lambda: nn.BatchNorm2d(8, momentum=None),
            lambda: nn.BatchNorm2d(8, eps=1e-3),
            lambda: nn.InstanceNorm2d(8),
            lambda: nn.GroupNorm(2, 8),
            lambda: nn.LocalResponseNorm(3),
        )
    ),
    "layer norms": Odd(
        chain(
            lambda: nn.LayerNorm(16),
            lambda: nn.LayerNorm((16, 16)),
            lambda: nn.LayerNorm(16, bias=False),
            lambda: nn.LayerNorm(16, elementwise_affine=False),
            lambda: nn.LayerNorm(16),
        )
    ),
    "activations": Odd(
        chain(
            *(nn.ReLU6, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh),
            *(nn.LeakyReLU, nn.ELU, nn.SELU, nn.Mish, nn.Softplus, nn.CELU, nn.LogSigmoid, nn.Softsign, nn.PReLU),
            *(lambda: nn.GELU("tanh"), lambda: nn.Softmax(1), lambda: nn.Softmax(3), lambda: nn.ReLU6(inplace=True)),
            *(lambda: nn.SiLU(inplace=True), lambda: nn.Hardswish(inplace=True), lambda: nn.ELU(0.5)),
            *(lambda: nn.LeakyReLU(0.2, inplace=True), lambda: nn.LeakyReLU(0.1), lambda: nn.GLU(1)),
        )
    ),
    "max pools": Odd(
        chain(
            lambda: nn.MaxPool2d(2),
            lambda: nn.MaxPool2d(3, 2, 1),
            lambda: nn.MaxPool2d(2, 1),
            lambda: nn.MaxPool2d(2, ceil_mode=True),
        )
    ),
    "average pools": Odd(
        chain(
            lambda: nn.AvgPool2d(2),
            lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            lambda: nn.AdaptiveAvgPool2d((3, None)),
            lambda: nn.AdaptiveAvgPool2d((None, 3)),
            lambda: nn.AdaptiveAvgPool2d(2),
            lambda: nn.AdaptiveAvgPool2d(1),
        )
    ),
    "pool and back": Odd(
        written(
            lambda net, x: net.back(*net.pool(x)),
            pool=lambda: nn.MaxPool2d(2, return_indices=True),
            back=lambda: nn.MaxUnpool2d(2),
        )
    ),
    "dropouts": Odd(
        chain(nn.Dropout, nn.Dropout2d, nn.AlphaDropout, lambda: nn.Dropout(0.0), nn.Identity, nn.Dropout, conv)
    ),
    "transposed": Odd(
        chain(
            lambda: nn.ConvTranspose2d(8, 4, 2, 2),
            lambda: nn.ConvTranspose2d(4, 4, 3, output_padding=1, stride=2),
            lambda: nn.Upsample(scale_factor=2),
            lambda: nn.PixelShuffle(2),
        )
    ),
    "U-Net": Odd(written(_unet, down=conv, bottom=conv, up=lambda: nn.Conv2d(16, 4, 1))),
    "LSTM": Odd(lambda: nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True), ((2, 5, 8),)),
    "GRU": Odd(lambda: nn.GRU(8, 16), ((5, 2, 8),)),
    "RNN": Odd(lambda: nn.RNN(8, 16), ((5, 2, 8),)),
    "transformer": Odd(lambda: nn.Transformer(16, 2, 2, 1, 32, batch_first=True), ((2, 5, 16), (2, 6, 16))),
    "attention": Odd(written(lambda net, x: net.a(x, x, x)[0], a=lambda: nn.MultiheadAttention(16, 4)), ((5, 2, 16),)),
    "bilinear": Odd(lambda: nn.Bilinear(4, 5, 6), ((2, 4), (2, 5))),
    "embedding": Odd(
        chain(lambda: nn.Embedding(10, 16), lambda: nn.LayerNorm(16), lambda: nn.Linear(16, 16)),
        (torch.zeros(2, 5, dtype=torch.int64),),
    ),
    "dicts": Odd(written(lambda net, a, b: {"sum": net.c(a) + b}, c=conv), {"a": IMAGE, "b": IMAGE}),
    "Fourier": Odd(written(lambda net, x: torch.fft.rfft2(net.c(x).float()).abs(), c=conv)),
    "a function of its own": Odd(written(lambda net, x: _Doubling.apply(net.c(x)), c=conv)),
    "weight_norm, old": Odd(lambda: nn.Sequential(torch.nn.utils.weight_norm(conv()), nn.ReLU(), conv())),
    "spectral_norm, old": Odd(lambda: nn.Sequential(torch.nn.utils.spectral_norm(conv()), conv())),
    "parametrized": Odd(
        lambda: nn.Sequential(parametrizations.weight_norm(conv()), parametrizations.spectral_norm(conv()), conv())
    ),
    "one layer twice and by hand": Odd(written(_twice_and_by_hand, c=conv)),
    "tied": Odd(_tied),
    "changes itself": Odd(written(_changes_itself, c=conv)),
    "replaces its weights": Odd(written(_replaces_weights, c=conv)),
    "pruned": Odd(_pruned),
    "hooked": Odd(_hooked),
    "hooks for a while": Odd(written(_hooks_for_a_while, c=conv)),
    "a class of its own": Odd(lambda: nn.Sequential(conv(), _Rectified(8, 8, 3, padding=1), nn.ReLU())),
    "patched": Odd(_patched),
    "a gradient inside": Odd(written(_gradient_inside, c=conv, r=nn.ReLU)),
    "vmap": Odd(written(lambda net, x: torch.func.vmap(lambda one: net.r(net.c(one)))(x), c=conv, r=nn.ReLU)),
    "functional_call": Odd(
        written(
            lambda net, x: torch.func.functional_call(net.c, {k: v * 2 for k, v in net.c.named_parameters()}, (x,)),
            c=conv,
        )
    ),
    "views": Odd(
        written(_views, c=conv, n=lambda: nn.LayerNorm(8), r=nn.ReLU, i=lambda: nn.ReLU(inplace=True)),
    ),
    "reshapes in place": Odd(written(_reshapes_in_place, c=conv, r=nn.ReLU), ((1, 8, 16, 16),)),
    "keywords": Odd(written(lambda net, x: net.r(input=net.c(input=x)), c=conv, r=nn.ReLU)),
    "lazy": Odd(
        chain(
            lambda: nn.LazyConv2d(8, 3),
            nn.LazyBatchNorm2d,
            nn.ReLU,
            conv,
            norm,
            nn.Flatten,
            lambda: nn.LazyLinear(10),
        )
    ),
    "without cuDNN": Odd(written(_without_cudnn, b=norm)),
    "other types": Odd(written(_other_types, c=conv, b=norm)),
    "trains for a while": Odd(written(_trains_for_a_while, b=norm, d=nn.Dropout)),
    "inference mode": Odd(written(_inference_mode, c=conv, r=nn.ReLU)),
    "autocast switched off": Odd(written(_autocast, c=conv, r=nn.ReLU)),
    "copies a layer": Odd(written(_copies_a_layer, c=conv)),
    "looks at its state": Odd(written(_looks_at_its_state, c=conv)),
    "changes its statistics": Odd(written(_changes_statistics, b=norm)),
}
"""By name."""
