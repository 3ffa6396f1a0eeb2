"""What is said of GPUs that others measured: from the records' own text, and by formula."""

from __future__ import annotations

import json

import pytest
from holding import hold

from costmodel.book.chapters import gpu_traces
from costmodel.book.engine import section
from costmodel.hardware import records

US = 1e-6


@pytest.fixture(scope="module")
def said() -> gpu_traces.Numbers:
    return gpu_traces.gpu_traces().numbers


def text(name: str) -> dict:
    return json.loads((records.of_traces() / f"{name}.json").read_text())["runs"][0]


def test_alexnet_by_hand(said: gpu_traces.Numbers) -> None:
    """Microseconds of kernels as a first reading of the trace had them; TF32 convolutions at 156 TFLOP/s, 128 images.

    conv1 runs by an FP32 kernel, conv2 by Fourier transforms, the others on tensor cores. A bias takes a kernel behind
    each convolution. The adaptive pool of 6 x 6 to 6 x 6 moves 2 x 128 x 256 x 36 numbers at 1.555 TB/s.
    """
    flops = [
        2 * 128 * 64 * 55**2 * 3 * 11**2,
        2 * 128 * 192 * 27**2 * 64 * 5**2,
        2 * 128 * 384 * 13**2 * 192 * 3**2,
        2 * 128 * 256 * 13**2 * 384 * 3**2,
        2 * 128 * 256 * 13**2 * 256 * 3**2,
    ]
    measured = [1225, 710, 365, 495, 347]
    algorithms = ["FP32", "FFT", "TF32", "TF32", "TF32"]
    names = ["features.0", "features.3", "features.6", "features.8", "features.10"]
    run = text("a100-alexnet")
    assert said.layers is not None
    hold(
        said.layers,
        {
            "run": {
                "network": "AlexNet (torchvision)",
                "gpu": "NVIDIA A100 SXM (40 GB)",
                "batch": 128,
                "phase": "forward",
                "bound_seconds": said.layers.run.bound_seconds,
                "work_seconds": 5282 * US,
                "ratio": 5282 * US / said.layers.run.bound_seconds,
                "idle_share": 21.910 / 34.854,
            },
            "convolutions": [
                {"layer": name, "path": "tf32", "algorithm": algorithm, "ratio": spent * US / bound}
                for name, algorithm, spent, bound in zip(
                    names,
                    algorithms,
                    measured,
                    [work / 156e12 for work in flops],
                    strict=True,
                )
            ],
            "bias_seconds": (187 + 136 + 67 + 45 + 45) * US,
            "bias_share": 480 / 5282,
            "bias_kernels": 5,
            "layout_seconds": (38 + 66 + 36) * US,
            "layout_share": 140 / 5282,
            "cached": ["features.9", "features.11"],
            "furthest": "avgpool",
            "furthest_ratio": 136 * US / (2 * 4 * 128 * 256 * 36 / 1.555e12),
            "furthest_seconds": 136 * US,
        },
    )
    # the bound of the whole as the first reading had it: 2.39 ms, 2.21 times as long
    assert said.layers.run.bound_seconds == pytest.approx(2.39e-3, rel=0.005)
    assert said.layers.run.ratio == pytest.approx(2.21, abs=0.005)
    assert run["work"]["median"] == pytest.approx(
        sum(layer["seconds"] for layer in run["layers"]) + 17 * US, abs=5 * US
    )


def test_the_whole_networks(said: gpu_traces.Numbers) -> None:
    expected = {"a100-alexnet": 128, "rtx2080ti-resnet18-training": 128, "v100-resnet50-training": 32}
    assert len(said.runs) == len(expected)
    for found, (name, batch) in zip(said.runs, expected.items(), strict=True):
        run = text(name)
        assert found.work_seconds == run["work"]["median"]
        assert found.ratio == pytest.approx(run["work"]["median"] / found.bound_seconds)
        assert found.idle_share == pytest.approx(run["idle"]["median"] / run["profiled"]["median"])
        assert (found.batch, found.phase) == (batch, "training step" if run["train"] else "forward")
    # the first reading: 70.4 ms of bound and 99.1 of kernels but for the host's part; 1.41 times
    assert said.runs[2].bound_seconds == pytest.approx(70.4e-3, rel=0.002)


@pytest.mark.parametrize(
    ("kernel", "sort"),
    [
        ("cudnn_ampere_scudnn_128x64_relu_xregs_large_nn_v1", "FP32"),
        ("ampere_sgemm_32x32_sliced1x4_tn", "FP32"),
        ("sm80_xmma_fprop_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nchw", "TF32"),
        ("ampere_gcgemm_64x64_nt", "FFT"),
        ("void fft2d_c2r_32x32<float>", "FFT"),
        ("volta_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1", "Winograd"),
        ("void cudnn::ops::nchwToNhwcKernel<float>", "layout conversion"),
        ("void at::native::elementwise_kernel<128, 2, gpu_kernel_impl<at::native::CUDAFunctor_add<float> >>", "bias"),
        ("void at::native::max_pool_forward_nchw<float, float>", ""),
    ],
)
def test_what_a_kernel_s_name_says(kernel: str, sort: str) -> None:
    assert gpu_traces.sort_of(kernel) == sort


def test_the_words() -> None:
    chapter = section(gpu_traces.gpu_traces())
    assert "480 µs of it (9.1 %) add biases, by 5 kernels of their own" in chapter.answer
    points = next(block.items for block in chapter.blocks if hasattr(block, "items"))
    assert points[0] == "`features.0` runs on no tensor core, although TF32 is allowed, and takes 10.6× its bound."
    assert points[1] == "`features.3` runs as FFT and takes 1.93× its bound."
