"""What operators cost, derived by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from costmodel.cost import Cost, Costs, count
from costmodel.devices import device
from costmodel.errors import InputError
from costmodel.graph import BACKWARD, FORWARD, Operation, TensorSpec
from costmodel.roofline import predict
from costmodel.rules import Rule, Work, rule, rules
from costmodel.tracer import Shape, trace


class Call(nn.Module):
    """A network of one call."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(*tensors)


def forward(model: Any, *inputs: Any, **options: Any) -> Cost:
    model = model if isinstance(model, nn.Module) else Call(model)
    return count(trace(model, list(inputs), **options)).total


def training(model: nn.Module, *inputs: Any, **options: Any) -> Costs:
    return count(trace(model, list(inputs), train=True, loss="sum", **options))


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no grouped products")
def test_a_mixture_of_experts() -> None:
    """12 rows of 16 numbers each meet the 16 x 8 matrix of one of 3 experts; the backward has two products as large."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, 16, 8))
            self.register_buffer("ends", torch.tensor([4, 8, 12], dtype=torch.int32))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return torch._grouped_mm(rows, self.weight, offs=self.ends)

    assert forward(Experts(), (12, 16)).macs == 12 * 16 * 8
    costs = training(nn.Sequential(nn.Linear(16, 16), Experts()), (12, 16))
    assert not costs.unmodelled
    assert costs.total.macs == 2 * 12 * 16 * 16 + 3 * 12 * 16 * 8  # the first layer has no input to differentiate


class TestRecurrent:
    @pytest.mark.parametrize(
        ("layers", "both", "bias", "first"), [(1, False, True, False), (2, True, True, True), (1, True, False, False)]
    )
    def test_one_operator_costs_what_its_steps_do(self, layers: int, both: bool, bias: bool, first: bool) -> None:
        lstm = nn.LSTM(8, 16, layers, bidirectional=both, bias=bias, batch_first=first)
        steps, whole = forward(lstm, (5, 3, 8), target="meta"), forward(lstm, (5, 3, 8), run=True)
        assert (whole.macs, whole.vector_flops) == (steps.macs, steps.vector_flops)
        # 15 steps of four gates, each of 8 inputs and a state of 16; above the first layer both directions are inputs
        inputs = [8] + [32 if both else 16] * (layers - 1)
        assert whole.macs == sum((1 + both) * 15 * 4 * 16 * (count + 16) for count in inputs)

    def test_the_backward_has_two_products_for_each(self) -> None:
        costs = training(nn.LSTM(8, 16), (5, 2, 8), run=True)
        assert not costs.unmodelled
        assert costs.total.macs == 3 * 10 * 4 * 16 * (8 + 16)
        # three sigmoids and two tanhs of 3 FLOPs, six products, one sum, and two biases of four gates
        backward = costs.by("operator")["aten.mkldnn_rnn_layer_backward"]
        assert backward.vector_flops == 10 * 16 * (3 * 3 + 2 * 3 + 6 + 1 + 2 * 4)


class TestConvolution:
    def test_forward(self) -> None:
        # 6 outputs of 3 x 5 x 5 products and a bias, at (9 - 5) / 2 + 1 = 3 by 4 places, for 2 images of 9 x 11
        cost = forward(nn.Conv2d(3, 6, 5, stride=2), (2, 3, 9, 11))
        assert cost.macs == 2 * 6 * 3 * 4 * (3 * 5 * 5)
        assert cost.vector_flops == 2 * 6 * 3 * 4
        assert cost.read_bytes == 4 * (2 * 3 * 9 * 11 + 6 * 3 * 25 + 6)
        assert cost.write_bytes == 4 * 2 * 6 * 3 * 4

    def test_groups_divide(self) -> None:
        whole = forward(nn.Conv2d(8, 16, 3), (1, 8, 10, 10)).macs
        assert forward(nn.Conv2d(8, 16, 3, groups=4), (1, 8, 10, 10)).macs * 4 == whole
        # depthwise: 9 products for each of 8 channels at 8 x 8 places
        assert forward(nn.Conv2d(8, 8, 3, groups=8), (1, 8, 10, 10)).macs == 8 * 8 * 8 * 9

    def test_dilation_costs_what_its_outputs_cost(self) -> None:
        # the window reaches over 1 + 2 * 2 = 5: 6 x 6 places
        assert forward(nn.Conv2d(2, 3, 3, dilation=2), (1, 2, 10, 10)).macs == 3 * 6 * 6 * 2 * 9

    @pytest.mark.parametrize("dimensions", [1, 2, 3])
    def test_transposed_counts_input_places(self, dimensions: int) -> None:
        layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dimensions - 1](4, 6, 3, stride=2)
        assert forward(layer, (2, 4, *[5] * dimensions)).macs == 2 * 5**dimensions * 4 * 6 * 3**dimensions

    def test_one_and_three_dimensions(self) -> None:
        assert forward(nn.Conv1d(4, 8, 3), (2, 4, 10)).macs == 2 * 8 * 8 * 4 * 3
        assert forward(nn.Conv3d(2, 4, 3), (1, 2, 5, 6, 7)).macs == 4 * (3 * 4 * 5) * 2 * 27

    def test_an_image_without_a_batch(self) -> None:
        assert forward(nn.Conv2d(3, 6, 5), torch.empty(3, 9, 9)).macs == 6 * 5 * 5 * 75

    @pytest.mark.parametrize("groups", [1, 2, 4])
    def test_backward_is_twice_the_forward_whatever_the_groups(self, groups: int) -> None:
        # torch's own flop counter says 3 and 5 times at 2 and 4 groups
        costs = training(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 3, groups=groups)), (2, 4, 8, 8))
        conv = {layer.name: layer for layer in costs.phase(BACKWARD).layers}["1"].cost
        assert conv.macs == 2 * (2 * 8 * 6 * 6 * (4 // groups) * 9)
        assert conv.vector_flops == 2 * 8 * 6 * 6  # the bias's gradient

    def test_the_first_layer_needs_no_gradient_of_its_input(self) -> None:
        costs = training(nn.Conv2d(3, 4, 3), (1, 3, 8, 8))
        assert costs.phase(BACKWARD).total.macs == costs.phase(FORWARD).total.macs

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2))
    def test_properties(self, batch: int, channels: int, filters: int, window: int, padding: int) -> None:
        layer = nn.Conv2d(channels, filters, window, padding=padding, device="meta")
        one, many = forward(layer, (1, channels, 6, 6)), forward(layer, (batch, channels, 6, 6))
        assert (many.macs, many.vector_flops) == (batch * one.macs, batch * one.vector_flops)
        transposed = nn.ConvTranspose2d(filters, channels, window, padding=padding, device="meta")
        side = 6 + 2 * padding - window + 1
        assert forward(transposed, (1, filters, side, side)).macs == one.macs

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
    def test_a_1x1_convolution_is_a_linear_layer(self, batch: int, inputs: int, outputs: int) -> None:
        conv = forward(nn.Conv2d(inputs, outputs, 1, device="meta"), (batch, inputs, 3, 3))
        linear = forward(nn.Linear(inputs, outputs, device="meta"), (batch * 9, inputs))
        assert conv == linear


class TestProducts:
    def test_linear(self) -> None:
        assert forward(nn.Linear(10, 20), (4, 10)) == Cost(
            macs=4 * 10 * 20, vector_flops=4 * 20, read_bytes=4 * (40 + 200 + 20), write_bytes=4 * 80
        )
        assert forward(nn.Linear(10, 20, bias=False), (2, 3, 10)).macs == 6 * 10 * 20

    def test_linear_backward(self) -> None:
        # the gradient of the weight (as many MACs as the forward) and of the input (as many again)
        costs = training(nn.Sequential(nn.Linear(5, 10), nn.Linear(10, 20)), (4, 5))
        assert costs.phase(BACKWARD).total.macs == 4 * 5 * 10 + 2 * 4 * 10 * 20

    @pytest.mark.parametrize(
        ("function", "shapes", "macs"),
        [
            (torch.matmul, [(3, 4), (4, 5)], 60),
            (torch.matmul, [(7, 3, 4), (7, 4, 5)], 420),
            (torch.matmul, [(3, 4), (4,)], 12),
            (torch.dot, [(9,), (9,)], 9),
            (lambda a, b: torch.einsum("bij,bkj->bik", a, b), [(2, 3, 4), (2, 5, 4)], 2 * 3 * 5 * 4),
            (lambda a, b, c: torch.baddbmm(a, b, c), [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
            (lambda a, b, c: torch.addbmm(a, b, c), [(3, 5), (2, 3, 4), (2, 4, 5)], 120),
            (lambda a, b, c: torch.addmv(a, b, c), [(3,), (3, 4), (4,)], 12),
            (nn.Bilinear(3, 4, 5), [(2, 3), (2, 4)], 2 * 3 * 4 * 5),
        ],
    )
    def test_products(self, function: Any, shapes: list[tuple[int, ...]], macs: int) -> None:
        assert forward(function, *shapes).macs == macs


class TestComplexNumbers:
    def test_a_multiply_accumulate_is_four_real_ones(self) -> None:
        cost = forward(torch.matmul, Shape((32, 64), "complex64"), Shape((64, 64), "complex64"))
        assert (cost.macs, cost.flops) == (4 * 32 * 64 * 64, 8 * 32 * 64 * 64)

    @pytest.mark.parametrize(
        ("function", "flops"),
        [
            (lambda x: x + x, 2),
            (lambda x: x * x, 6),  # (a + b i) (c + d i): four products, a difference, a sum
            (lambda x: x / x, 11),  # by the conjugate (6), |x|^2 (3), two divisions
            (lambda x: x.abs(), 4),  # two squares, a sum, a root
            (lambda x: x.sum(), 2),
            (lambda x: torch.fft.fft(x, dim=0), 5 * 3),  # 5 N log2 N, counted in real FLOPs as it is
        ],
    )
    def test_elementwise(self, function: Any, flops: int) -> None:
        assert forward(function, Shape((8, 3), "complex64")).vector_flops == 24 * flops

    def test_a_rule_of_ones_own_counts_as_if_numbers_were_real(self) -> None:
        made = TensorSpec((4,), "complex64", (1,), 0)
        operation = Operation("mylib.f", "", FORWARD, {"x": made}, (made,), {})
        assert Rule("other", lambda op: Work(1, 10)).work(operation) == Work(4, 20)
        assert Rule("other", lambda op: Work(1, 10), 1).work(operation) == Work(4, 10)


class TestDecompositions:
    """Of two 6 x 6 matrices, or two of 9 x 6: LAPACK Working Note 41's counts with m = 9 and n = 6."""

    @pytest.mark.parametrize(
        ("function", "rows", "flops"),
        [
            (torch.linalg.cholesky, 6, 72),  # n^3 / 3
            (torch.linalg.inv, 6, 432),  # 2 n^3
            (lambda x: torch.linalg.solve(x, x[..., :2]), 6, 144 + 2 * 2 * 36),  # 2/3 n^3, two sides of 2 n^2
            (torch.linalg.lu, 9, 36 * 7),  # n^2 (m - n / 3)
            (torch.linalg.det, 6, 144 + 6),
            (lambda x: torch.linalg.solve_triangular(x, x[..., :2], upper=True), 6, 2 * 36),
            (lambda x: torch.linalg.qr(x, mode="r"), 9, 2 * 36 * 7),
            (torch.linalg.qr, 9, 2 * 2 * 36 * 7),  # 4 m n n - 2 (m + n) n^2 + 4/3 n^3 = 1944 - 1080 + 288 - 648
            (lambda x: torch.linalg.qr(x, mode="complete"), 9, 504 + 4 * 81 * 6 - 2 * 18 * 36 + 288),
            (torch.linalg.eigh, 6, 9 * 216),
            (torch.linalg.eig, 6, 25 * 216),
            (lambda x: torch.linalg.svd(x, full_matrices=False), 9, 6 * 9 * 36 + 20 * 216),
            (torch.linalg.svd, 9, 4 * 81 * 6 + 22 * 216),
        ],
    )
    def test_by_hand(self, function: Any, rows: int, flops: int) -> None:
        real, twice = (count(trace(Call(function), [Shape((2, rows, 6), dtype)])) for dtype in (None, "complex64"))
        assert not real.unmodelled
        assert real.total.flops == 2 * flops
        # a product is 6 real FLOPs and a sum 2, and there are as many of each; a determinant's diagonal as well
        assert twice.total.flops == 4 * real.total.flops

    def test_the_check_for_errors_costs_nothing(self) -> None:
        costs = count(trace(Call(torch.linalg.cholesky), (2, 6, 6)))
        assert costs.by("operator")["aten._linalg_check_errors"].flops == 0


class TestAttention:
    # batch 2, 4 heads, 6 queries, 10 keys, size 8
    SHAPES = ((2, 4, 6, 8), (2, 4, 10, 8), (2, 4, 10, 8))
    SCORES = 2 * 4 * 6 * 10

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_fused(self, dtype: str) -> None:
        cost = forward(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v), *self.SHAPES, dtype=dtype)
        assert cost.macs == self.SCORES * (8 + 8)
        assert cost.vector_flops == self.SCORES * 6

    def test_it_moves_its_inputs_and_outputs_but_no_scores(self) -> None:
        cost = forward(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v), *self.SHAPES)
        assert cost.read_bytes == 4 * (2 * 4 * 8) * (6 + 10 + 10)
        assert 4 * 2 * 4 * 8 * 6 <= cost.write_bytes <= 4 * 2 * 4 * 8 * 6 + 4 * 2 * 4 * 32 + 16  # and logarithms, seeds

    def test_backward_makes_the_scores_again(self) -> None:
        class Attend(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.tokens = nn.Parameter(torch.zeros(2, 4, 6, 8))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return functional.scaled_dot_product_attention(self.tokens, x, x)

        costs = training(Attend(), (2, 4, 10, 8), optimizer=None)
        assert costs.phase(BACKWARD).total.macs == self.SCORES * (3 * 8 + 2 * 8)


class TestVectorWork:
    @pytest.mark.parametrize(
        ("module", "shape", "flops"),
        [
            (nn.ReLU(), (4, 10), 40),
            (nn.ReLU(inplace=True), (4, 10), 40),
            (nn.Sigmoid(), (4, 10), 160),
            (nn.GELU(), (4, 10), 200),
            (nn.Softmax(-1), (4, 10), 200),
            (nn.MaxPool2d(3, 2), (1, 2, 7, 7), 2 * 3 * 3 * 8),
            (nn.MaxPool2d((2, 3)), (1, 2, 6, 6), 2 * 3 * 2 * 5),
            (nn.AvgPool2d(2), (1, 2, 6, 6), 2 * 9 * 4),
            (nn.AdaptiveAvgPool2d(2), (1, 3, 6, 6), 3 * 4 * 9),
            (nn.AdaptiveAvgPool2d(4), (1, 1, 6, 6), (2 + 2 + 2 + 2) ** 2),  # windows 0-1, 1-2, 3-4, 4-5
            (nn.AdaptiveAvgPool2d(1), (1, 3, 6, 6), 3 * 36),  # a mean
            (nn.AdaptiveMaxPool2d(2), (1, 3, 6, 6), 3 * 4 * 8),
            (nn.BatchNorm2d(3), (2, 3, 4, 4), 96 * 4 + 3 * 3),
            (nn.BatchNorm2d(3, affine=False), (2, 3, 4, 4), 96 * 2 + 3 * 3),
            (nn.LayerNorm(8), (5, 8), 40 * 8 + 3 * 5),
            (nn.GroupNorm(2, 4), (3, 4, 5), 60 * 8 + 3 * 6),
            (nn.Upsample(scale_factor=2), (1, 2, 3, 3), 0),
            (nn.UpsamplingBilinear2d(scale_factor=2), (1, 2, 3, 3), 72 * 7),
        ],
    )
    def test_by_hand(self, module: nn.Module, shape: tuple[int, ...], flops: int) -> None:
        assert forward(module, shape).flops == flops

    def test_max_pooling_writes_the_places_too(self) -> None:
        cost = forward(nn.MaxPool2d(2), (1, 2, 6, 6))
        assert (cost.read_bytes, cost.write_bytes) == (4 * 72, 18 * (4 + 8))

    def test_batch_norm_in_training_computes_its_statistics(self) -> None:
        costs = training(nn.BatchNorm2d(3), (2, 3, 4, 4)).phase(FORWARD)
        norm = next(e for e in costs.operations if e.operation.operator == "aten.cudnn_batch_norm")
        assert norm.cost.flops == 96 * (4 + 4) + 3 * 3 + 2 * 3 * 3
        # reads input, weight, bias, running statistics; writes output, both batch statistics and the running ones
        assert norm.cost.read_bytes == 4 * (96 + 4 * 3)
        assert norm.cost.write_bytes == 4 * (96 + 2 * 3 + 2 * 3)

    def test_dropout_in_training(self) -> None:
        costs = training(nn.Sequential(nn.Linear(10, 10), nn.Dropout()), (4, 10)).phase(FORWARD)
        dropout = next(e for e in costs.operations if e.kind == "dropout")
        assert dropout.cost.flops == 3 * 40
        assert dropout.cost.write_bytes == 40 * (4 + 1)

    def test_cross_entropy_reads_one_score_a_sample_after_its_softmax(self) -> None:
        costs = count(trace(nn.Linear(3, 10), (4, 3), train=True))
        loss = {e.operation.operator: e.cost for e in costs.operations if e.kind == "loss"}
        assert loss["aten._log_softmax"].flops == 5 * 40
        assert loss["aten.nll_loss_forward"].read_bytes == 4 * 8 + 4 * 4


def _aa(mode: str, size: tuple[int, int]) -> Any:
    return lambda x: functional.interpolate(x, size, mode=mode, antialias=True)


def _places(x: torch.Tensor, count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int64, device=x.device)


@pytest.mark.parametrize(
    ("function", "shapes", "macs", "flops"),
    [
        # half the size: 2 x 1 x 2 = 4 taps, 7 FLOPs a value: 8 x 4 of the rows, then 4 x 4
        (_aa("bilinear", (4, 4)), [(1, 1, 8, 8)], 0, 7 * (8 * 4 + 4 * 4)),
        # a third of the rows, 2 x 2 x 3 = 12 taps; twice the columns, 4 taps: 9 x 10 values of rows, 3 x 10 of columns
        (_aa("bicubic", (3, 10)), [(2, 3, 9, 5)], 0, 6 * (9 * 10 * 7 + 3 * 10 * 23)),
        # 3 of 7 columns: 2 x 7 / 3 = 4.7 taps, which are 5
        (_aa("bilinear", (7, 3)), [(1, 1, 7, 7)], 0, 7 * 3 * 9 + 7 * 3 * 3),
        # x' = a x + b y + c, and y', at 4 x 5 pixels
        (lambda t: functional.affine_grid(t, (2, 1, 4, 5)), [(2, 2, 3)], 2 * 4 * 5 * 2 * 3, 0),
        (lambda t: functional.affine_grid(t, (1, 1, 2, 4, 5)), [(1, 3, 4)], 2 * 4 * 5 * 3 * 4, 0),
        # 7 - 3 + 1 places in time for 2 sequences, 5 outputs of 3 x 4 products and a bias
        (torch.conv_tbc, [(7, 2, 4), (3, 4, 5), (5,)], 5 * 2 * 5 * 12, 5 * 2 * 5),
        (torch.addr, [(3, 4), (3,), (4,)], 0, 2 * 12),
        (lambda x: torch.renorm(x, 2, 0, 1.0), [(3, 4)], 0, 3 * 12),
        # 5 x 4 / 2 pairs of rows of 8
        (functional.pdist, [(5, 8)], 0, 10 * (3 * 8 + 1)),
        (torch.dist, [(3, 4), (3, 4)], 0, 3 * 12),
        (torch.dist, [(3, 1), (4,)], 0, 3 * 12),
        (torch.trace, [(3, 4)], 0, 3),
        (lambda x: torch._assert_async(x), [()], 0, 0),
        (lambda x: x.triu_(), [(3, 4)], 0, 0),
        (lambda x: x.tril_(), [(3, 4)], 0, 0),
        (lambda x, y: x.resize_as_(y), [(3, 4), (2, 4)], 0, 0),
        (lambda x, y: x.index_reduce(0, _places(x, 2), y, "prod"), [(5, 4), (2, 4)], 0, 2 * 4),
        (lambda x, y: x.scatter_reduce(0, y.long(), y, "amax"), [(5, 4), (2, 4)], 0, 2 * 4),
        (lambda x: torch.segment_reduce(x, "sum", lengths=_places(x, 2), unsafe=True), [(5, 4)], 0, 5 * 4),
        # 12 searches among 5: three comparisons each
        (torch.isin, [(3, 4), (5,)], 0, 3 * 12),
        (lambda x: torch.isin(x, 2.0), [(3, 4)], 0, 12),
        (torch.logaddexp2, [(3, 4), (3, 4)], 0, 4 * 12),
        (torch.ldexp, [(3, 4), (3, 4)], 0, 2 * 12),
        *((function, [(3, 4)], 0, 12) for function in (
            torch.asinh, torch.acosh, torch.atanh, torch.special.i0, torch.special.erfcx, torch.special.ndtri,
            torch.special.bessel_j0, torch.signbit, torch.frexp, lambda x: torch.polygamma(1, x),
        )),
        *((function, [(3, 4), (3, 4)], 0, 12) for function in (
            torch.igamma, torch.special.zeta, torch.copysign, torch.nextafter,
        )),
    ],
)  # fmt: skip
def test_rarer_operators(function: Any, shapes: list[tuple[int, ...]], macs: int, flops: int) -> None:
    costs = count(trace(Call(function), [torch.empty(shape) for shape in shapes]))
    assert not costs.unmodelled
    assert (costs.total.macs, costs.total.vector_flops) == (macs, flops)


def _backward_of(costs: Costs, operator: str) -> Cost:
    assert not costs.unmodelled
    return next(e.cost for e in costs.operations if e.operation.operator == f"aten.{operator}")


class TestRarerBackwards:
    def test_resizing_without_aliasing(self) -> None:
        # as in the forward: 4 x 4 values of columns, then 8 x 4 of rows, of 4 taps (bicubic: 8): a product and a sum
        for mode, taps in (("bilinear", 4), ("bicubic", 8)):
            costs = training(Trainable(Call(_aa(mode, (4, 4)))), (1, 1, 8, 8))
            assert _backward_of(costs, f"_upsample_{mode}2d_aa_backward").vector_flops == 2 * taps * (16 + 32)

    def test_bicubic(self) -> None:
        # each of 8 x 8 gradients goes to 4 x 4 values
        costs = training(Trainable(nn.Upsample(scale_factor=2, mode="bicubic")), (1, 1, 4, 4))
        assert _backward_of(costs, "upsample_bicubic2d_backward").vector_flops == 64 * 16 * 2

    def test_a_convolution_of_time(self) -> None:
        costs = training(Trainable(Call(lambda x: torch.conv_tbc(x, x[:3, 0, :, None], x[0, 0, :1]))), (7, 2, 4))
        # 5 x 2 outputs of 3 x 4 products, for the input and for the weight: a matrix product each place of the window
        assert not costs.unmodelled
        assert costs.phase(BACKWARD).total.macs == 2 * 5 * 2 * 12

    def test_weights_of_a_bag(self) -> None:
        class Bags(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rows = nn.EmbeddingBag(100, 8, mode="sum")

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.rows(torch.zeros(2, 5, dtype=torch.int64, device=x.device), per_sample_weights=x)

        cost = _backward_of(training(Trainable(Bags()), (2, 5)), "_embedding_bag_per_sample_weights_backward")
        assert cost.vector_flops == 2 * 10 * 8
        # a sum's gradient (one number for all), 10 rows of the table, 10 places, their 10 bags, and 2 starts of bags
        assert cost.read_bytes == 4 * (1 + 10 * 8) + 8 * (10 + 10 + 2)


def test_a_product_of_whole_numbers() -> None:
    def product(x: torch.Tensor) -> torch.Tensor:
        weight = torch.zeros(6, 8, dtype=torch.int8, device=x.device)
        return torch._weight_int8pack_mm(x, weight, torch.ones(6, dtype=x.dtype, device=x.device))

    cost = forward(product, (3, 8), dtype="bfloat16")
    assert (cost.macs, cost.vector_flops) == (3 * 8 * 6, 3 * 6)


def test_a_table_of_bounded_rows() -> None:
    """5 rows of 8, named by int64 places: squared, added, scaled; read and written in place."""
    costs = count(trace(nn.Embedding(100, 8, max_norm=1.0), Shape((5,), "int64")))
    cost = _backward_of(costs, "embedding_renorm_")
    assert (cost.vector_flops, cost.read_bytes, cost.write_bytes) == (3 * 40, 5 * 8 + 4 * 40, 4 * 40)


class TestMovement:
    def test_embedding_reads_its_rows_alone(self) -> None:
        cost = forward(nn.Embedding(1000, 16), Shape((2, 5), "int64"))
        assert (cost.flops, cost.read_bytes, cost.write_bytes) == (0, 80 + 4 * 160, 4 * 160)

    def test_cat_reads_and_writes_everything(self) -> None:
        assert forward(lambda a, b: torch.cat([a, b]), (2, 5), (3, 5)) == Cost(read_bytes=100, write_bytes=100)

    def test_filling_reads_nothing(self) -> None:
        cost = forward(lambda x: x.new_zeros(7, 3), (2, 2))
        assert (cost.read_bytes, cost.write_bytes) == (0, 84)

    def test_empty_moves_nothing(self) -> None:
        assert forward(lambda x: torch.empty_like(x), (2, 2)) == Cost()

    def test_copying_over_does_not_read_the_destination(self) -> None:
        assert forward(lambda a, b: a.copy_(b), (3, 4), (3, 4)) == Cost(read_bytes=48, write_bytes=48)

    def test_indexing_reads_what_it_returns(self) -> None:
        cost = forward(lambda x, i: x[i], (100, 4), Shape((3,), "int64"))
        assert (cost.read_bytes, cost.write_bytes) == (3 * 8 + 48, 48)


class TestOptimizers:
    PARAMETERS = 10 * 10 + 10

    def step(self, **options: Any) -> Cost:
        costs = count(trace(nn.Linear(10, 10), (2, 10), train=True, **options))
        assert not costs.unmodelled
        return costs.phase("optimizer").total

    def test_sgd(self) -> None:
        # w - lr g: as `add` with a factor, one FLOP in the table of pointwise operators
        plain = self.step()
        assert (plain.read_bytes, plain.write_bytes) == (4 * 2 * self.PARAMETERS, 4 * self.PARAMETERS)
        assert self.step(optimizer_options={"momentum": 0.9}).flops > plain.flops

    def test_fused_steps(self) -> None:
        adam = self.step(optimizer="adam", optimizer_options={"fused": True, "foreach": False})
        assert adam.flops >= 13 * self.PARAMETERS
        sgd = self.step(optimizer_options={"fused": True, "foreach": False, "momentum": 0.9})
        assert (sgd.flops, sgd.write_bytes) == (4 * self.PARAMETERS, 4 * 2 * self.PARAMETERS)
        # reads weights, gradients and both moments; writes weights and moments (and a step count each)
        assert adam.read_bytes == 4 * (4 * self.PARAMETERS + 2) + 4 * 2
        assert (
            adam.write_bytes == 4 * (3 * self.PARAMETERS + 2) + 4 * 2
        )  # the counts are raised by an operator of their own

    def test_foreach_moves_more_than_fused(self) -> None:
        fused = self.step(optimizer="adamw", optimizer_options={"fused": True, "foreach": False})
        assert self.step(optimizer="adamw").moved_bytes > 2 * fused.moved_bytes


class TestRegistry:
    def test_a_name_has_one_rule(self) -> None:
        with pytest.raises(InputError, match=r"aten\.mm has a rule already"):
            rule("aten.mm", kind="linear")(lambda op: Work())
        with pytest.raises(InputError, match="unknown kind 'matmul'"):
            rule("my.op", kind="matmul")

    def test_a_rule_of_ones_own(self) -> None:
        @rule("test.scale", kind="elementwise")
        def scale(op: Operation) -> Work:
            return Work(vector_flops=op.outputs[0].numel)

        assert rules()["test.scale"].count is scale


IMAGE, SIGNAL, VOLUME, ROW = (2, 4, 16, 16), (2, 4, 16), (2, 4, 8, 8, 8), (4, 8)
ZOO: list[tuple[nn.Module, tuple[int, ...]]] = [
    *((layer(), IMAGE) for layer in (
        nn.ELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardtanh, nn.Hardswish, nn.LeakyReLU, nn.LogSigmoid,
        nn.PReLU, nn.ReLU, nn.ReLU6, nn.RReLU, nn.SELU, nn.CELU, nn.GELU, nn.Sigmoid, nn.SiLU, nn.Mish, nn.Softplus,
        nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.GLU, nn.Softmax2d,
        nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    )),
    (nn.Threshold(0.1, 20), IMAGE), (nn.Softmin(1), IMAGE), (nn.LogSoftmax(1), IMAGE),
    *((layer(4), IMAGE) for layer in (nn.BatchNorm2d, nn.InstanceNorm2d, nn.LocalResponseNorm)),
    (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
    (nn.GroupNorm(2, 4), IMAGE), (nn.LayerNorm([16, 16]), IMAGE), (nn.RMSNorm(16), IMAGE),
    (nn.MaxPool1d(2), SIGNAL), (nn.MaxPool2d(2), IMAGE), (nn.MaxPool3d(2), VOLUME), (nn.AvgPool1d(2), SIGNAL),
    (nn.AvgPool2d(2), IMAGE), (nn.AvgPool3d(2), VOLUME), (nn.LPPool2d(2, 2), IMAGE), (nn.AdaptiveAvgPool1d(3), SIGNAL),
    (nn.AdaptiveAvgPool2d(3), IMAGE), (nn.AdaptiveAvgPool3d(3), VOLUME), (nn.AdaptiveMaxPool1d(3), SIGNAL),
    (nn.AdaptiveMaxPool2d(3), IMAGE), (nn.AdaptiveMaxPool3d(3), VOLUME), (nn.FractionalMaxPool2d(2, 4), IMAGE),
    (nn.ReflectionPad2d(1), IMAGE), (nn.ReplicationPad2d(1), IMAGE), (nn.ZeroPad2d(1), IMAGE),
    (nn.CircularPad2d(1), IMAGE),
    (nn.ConstantPad1d(1, 2.0), SIGNAL), (nn.PixelShuffle(2), IMAGE), (nn.PixelUnshuffle(2), IMAGE),
    (nn.ChannelShuffle(2), IMAGE), (nn.Unfold(3), IMAGE), (nn.Fold((4, 4), 2), (2, 4, 9)),
    *((nn.Upsample(scale_factor=2, mode=mode), IMAGE) for mode in ("nearest", "bilinear", "bicubic", "nearest-exact")),
    (nn.Upsample(scale_factor=2, mode="linear"), SIGNAL), (nn.Upsample(scale_factor=2, mode="trilinear"), VOLUME),
    (nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect"), IMAGE), (nn.ConvTranspose2d(4, 2, 3), IMAGE),
    (nn.KLDivLoss(reduction="batchmean"), ROW),
    (nn.Linear(8, 3), ROW), (nn.Bilinear(8, 8, 3), ROW), (nn.CosineSimilarity(), ROW), (nn.PairwiseDistance(), ROW),
    (nn.LSTM(16, 8, 2, bidirectional=True), SIGNAL), (nn.GRU(16, 8, 2), SIGNAL), (nn.RNN(16, 8), SIGNAL),
    (nn.LSTMCell(8, 5), ROW), (nn.GRUCell(8, 5), ROW), (nn.RNNCell(8, 5), ROW),
    (nn.TransformerEncoderLayer(16, 2, 32), SIGNAL),
    (nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2), 2, enable_nested_tensor=False), SIGNAL),
    (nn.TransformerDecoderLayer(16, 2, 32), SIGNAL), (nn.Transformer(16, 2, 1, 1, 32), SIGNAL),
    *((layer(), ROW) for layer in (
        nn.L1Loss, nn.MSELoss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss,
        nn.PoissonNLLLoss, nn.SoftMarginLoss, nn.CrossEntropyLoss, nn.HingeEmbeddingLoss, nn.MultiLabelSoftMarginLoss,
    )),
]  # fmt: skip
TWO_INPUTS = (nn.Bilinear, nn.CosineSimilarity, nn.PairwiseDistance, nn.TransformerDecoderLayer, nn.Transformer)


class Trainable(nn.Module):
    """A module behind a parameter, so that there is a gradient to compute."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.scale = module, nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.sigmoid(x * self.scale)
        twice = isinstance(self.module, TWO_INPUTS) or type(self.module).__name__.endswith("Loss")
        return self.module(x, x.detach()) if twice else self.module(x)


@pytest.mark.parametrize(("module", "shape"), ZOO, ids=[type(module).__name__ for module, _ in ZOO])
@pytest.mark.parametrize("target", ["cuda", "cpu"])
def test_every_module_of_torch_has_its_rules(module: nn.Module, shape: tuple[int, ...], target: str) -> None:
    model = Trainable(module)
    assert count(trace(model, shape, target=target)).unmodelled == ()
    assert count(trace(model, shape, target=target, train=True, loss="sum")).unmodelled == ()


def test_no_rule_returns_less_than_nothing() -> None:
    for module, shape in ZOO:
        for entry in count(trace(Trainable(module), shape, train=True, loss="sum")).operations:
            assert min(entry.cost.macs, entry.cost.vector_flops, entry.cost.read_bytes, entry.cost.write_bytes) >= 0


@pytest.mark.parametrize(
    ("side", "window", "stride", "padding", "dilation", "met"),
    [
        (56, 1, 2, 0, 1, 28),  # every second pixel
        (57, 1, 2, 0, 1, 29),
        (56, 3, 2, 1, 1, 56),  # windows overlap: all
        (16, 3, 3, 0, 1, 16),  # and touch: all are counted, though the last pixel is beyond the last window
        (16, 2, 4, 0, 1, 8),  # two of four
        (16, 2, 4, 1, 1, 8),  # the first and the last window stand on padding: 0, 3 4, 7 8, 11 12, 15
        (20, 2, 8, 0, 3, 6),  # windows of taps three apart, at 0 3, 8 11, 16 19
    ],
)
def test_windows_that_stand_apart_do_not_read_what_is_between(side, window, stride, padding, dilation, met) -> None:
    layer = nn.Conv2d(3, 5, (window, 1), stride=(stride, 1), padding=(padding, 0), dilation=(dilation, 1), bias=False)
    (entry,) = count(trace(layer, (2, 3, side, 4))).operations
    assert entry.cost.read_bytes == 4 * (2 * 3 * met * 4 + 5 * 3 * window)
    step = count(trace(nn.Sequential(nn.Conv2d(3, 3, 1), layer), (2, 3, side, 4), train=True))
    (backward,) = [
        e for e in step.operations if e.operation.layer == "1" and "convolution_backward" in e.operation.operator
    ]
    outputs = backward.operation.inputs["grad_output"].numel
    assert backward.cost.read_bytes == 4 * (outputs + 2 * 3 * met * 4 + 5 * 3 * window)


def test_a_strided_convolution_is_not_faster_than_its_bound() -> None:
    """DeepBench (da81ba7, cuDNN 7) on a T4 in float16: 16 images of 256 x 56 x 56 into 128 maps by 1x1 with stride 2
    took 53 us by IMPLICIT_PRECOMP_GEMM; with the whole input the bound was 90.5 us."""
    traced = trace(nn.Conv2d(256, 128, 1, stride=2, bias=False), (16, 256, 56, 56), dtype="float16")
    bound = predict(count(traced), device("t4")).bound_seconds
    assert bound == pytest.approx(2 * (16 * 256 * 28**2 + 256 * 128 + 16 * 128 * 28**2) / 320e9)
    assert bound < 53e-6 < 2 * (16 * 256 * 56**2 + 256 * 128 + 16 * 128 * 28**2) / 320e9
