"""Blocks of the depthwise CUDA kernel, and kernels of its squeeze-excite: as the library launches them."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
import torch

from effnet_fast.inference.depthwise_blocks import divide, gate_kernels, squeeze_excite_kernels
from effnet_fast.inference.gpu_work import gpu_work
from effnet_fast.inference.layers import Layer
from tests.emulation.build import compiler
from tests.inference.gpu_networks import FUSED, THREE, blocks

SOURCES = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
NETWORKS = ("efficientnet_b0", "efficientnet_b3", "efficientnet_b7", "efficientnetv2_s", "efficientnetv2_b0")
BATCHES = (1, 2, 3, 8, 32, 64, 131, 132, 256)
MULTIPROCESSORS = (132, 58)

# A line of numbers -> kernels, and of a depthwise convolution threads of a block and tiles of an image.
_PROGRAM = """
#include "depthwise_conv_gate_launch.h"
#include <iostream>
using namespace effnet_fast;
using namespace effnet_fast::cuda;
struct Counter {
  int kernels = 0;
  template <auto kKernel, class Args>
  void run(const LaunchShape&, const Args&) { kernels++; }
};
template <class T = void>
T* some() { return reinterpret_cast<T*>(uintptr_t{1} << 20); }
template <class T>
void depthwise(const ConvGeometry& g, int64_t squeeze, int64_t multiprocessors) {
  DepthwiseConvGateCall call{};
  call.convolution = {g, multiprocessors, Activation::kSilu, some(), some(), some<float>(), some(), nullptr};
  call.squeeze = squeeze;
  call.w1 = call.b1 = call.w2 = call.b2 = some<float>();
  call.gates = call.workspace = some<float>();
  call.tickets = some<int>();
  Counter counter;
  launch_depthwise_conv_gate<T>(call, counter);
  const DepthwiseConvCall convolution = convolution_with_sums(call);
  std::cout << counter.kernels;
  if (depthwise_conv_is_fast<T>(convolution)) {
    const DepthwiseConvDivision division = depthwise_conv_division<T>(convolution);
    std::cout << ' ' << division.threads << ' ' << division.tiles;
  }
  std::cout << '\\n';
}
int main() {
  int storage;
  int64_t squeeze, tiles, multiprocessors;
  ConvGeometry g;
  while (std::cin >> storage >> g.n >> g.c >> g.h >> g.w >> g.kernel >> g.stride >> g.top >> g.left >>
         g.bottom >> g.right >> squeeze >> tiles >> multiprocessors) {
    if (tiles) {
      SqueezeExciteGateCall call{};
      call.images = g.n;
      call.channels = g.c;
      call.squeeze = squeeze;
      call.tiles = tiles;
      call.multiprocessors = multiprocessors;
      call.sums = call.w1 = call.b1 = call.w2 = call.b2 = some<float>();
      call.y = call.workspace = some<float>();
      Counter counter;
      launch_squeeze_excite_gate(call, counter);
      std::cout << counter.kernels << '\\n';
    } else if (storage == 2) {
      depthwise<half>(g, squeeze, multiprocessors);
    } else {
      depthwise<float>(g, squeeze, multiprocessors);
    }
  }
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A function: lines of numbers -> the library's answers."""
    folder = tmp_path_factory.mktemp("launches")
    (folder / "launches.cpp").write_text(_PROGRAM)
    flags = ["-std=c++20", "-O0", "-w", "-DEFFNET_FAST_EMULATION", "-I", SOURCES]
    subprocess.run([compiler()[0], *flags, folder / "launches.cpp", "-o", folder / "launches"], check=True)

    def ask(lines: list[str]) -> list[str]:
        done = subprocess.run(
            [folder / "launches"], input="\n".join(lines), capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    return ask


def _layers(operator: str) -> list[Layer]:
    """Every shape of the networks once."""
    found = {}
    for name in NETWORKS:
        for form in (THREE, FUSED):
            for layer in (layer for group in blocks(name, form).values() for layer in group):
                if layer.operator == operator:
                    shape = (layer.x.shape, layer.y.shape, layer.kernel, layer.stride, layer.padding)
                    found.setdefault((*shape, layer.squeeze), layer)
    return list(found.values())


def _numbers(layer: Layer, images: int, storage: int, multiprocessors: int) -> str:
    channels, height, width = layer.x.shape
    tiles = height if layer.operator == "squeeze_excite_gate" else 0
    shape = (images, channels, height, width, layer.kernel, layer.stride, *layer.padding)
    return " ".join(map(str, (storage, *shape, layer.squeeze, tiles, multiprocessors)))


def test_the_headers_divide_a_call_alike_and_launch_as_many_kernels(library):
    calls = [
        (layer, images, multiprocessors, storage)
        for layer in _layers("depthwise_conv_gate")
        for images in BATCHES
        for multiprocessors in MULTIPROCESSORS
        for storage in (2, 4)
    ]
    answers = library([_numbers(layer, n, storage, of) for layer, n, of, storage in calls])
    for (layer, images, multiprocessors, storage), answer in zip(calls, answers, strict=True):
        division = divide(layer, images, multiprocessors, storage)
        mine = 1 + gate_kernels(layer, images, multiprocessors, storage), division.threads, division.tiles
        assert " ".join(map(str, mine)) == answer, (layer, images, multiprocessors, storage)
    assert {answer.split()[0] for answer in answers} == {"1", "3", "4"}
    assert len(set(answers)) > 50


def test_behind_the_fused_kernel_as_well(library):
    calls = [
        (layer, images, multiprocessors)
        for layer in _layers("squeeze_excite_gate")
        for images in BATCHES
        for multiprocessors in MULTIPROCESSORS
    ]
    answers = library([_numbers(layer, images, 2, of) for layer, images, of in calls])
    for (layer, images, multiprocessors), answer in zip(calls, answers, strict=True):
        tiles = layer.x.shape[1]
        mine = squeeze_excite_kernels(images, tiles, layer.squeeze, multiprocessors)
        assert str(mine) == answer, (layer, images, multiprocessors)
    assert set(answers) == {"2", "3"}


def test_other_shapes_have_the_general_kernel():
    layer = _layers("depthwise_conv_gate")[0]
    assert divide(layer, 8, 132, 2) is not None
    for changes in ({"kernel": 9}, {"stride": 3}, {"padding": (3, 1, 1, 1)}):
        other = dataclasses.replace(layer, **changes)
        assert divide(other, 8, 132, 2) is None
        assert gate_kernels(other, 8, 132, 2) == 3  # 7 x 7 tiles of 16 x 16


def test_kernels_are_counted_as_launched():
    layer = _layers("depthwise_conv_gate")[0]
    for images in BATCHES:
        work = gpu_work(
            layer, images, torch.float16, torch.float16, multiprocessors=132, shared_capacity=228 << 10
        )
        assert work.kernels == 1 + gate_kernels(layer, images, 132, 2)
