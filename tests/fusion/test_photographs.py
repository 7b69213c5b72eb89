"""Real weights and trained ones on photographs: a fused model sees what its original sees."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import skimage.data
import timm
import torch
from torch import Tensor, nn

from effnet_fast.fusion import fuse
from effnet_fast.models import convert_state_dict, create_model, lite0_weights_path
from effnet_fast.testing import Budget
from tests.fusion.networks import check_parity, counted_programs, tiny

PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "astronaut")


def photograph(name: str) -> Tensor:
    """[3, H, W] float32, 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(getattr(skimage.data, name)())).permute(2, 0, 1) / 255


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lite0_gives_the_same_top_5(dtype) -> None:
    model = timm.create_model("tf_efficientnet_lite0").eval()
    weights = create_model("tf_efficientnet_lite0", weights=lite0_weights_path()).state_dict()
    model.load_state_dict(convert_state_dict(weights, to="timm"), strict=True)
    model = model.to(dtype)
    batch = torch.stack(
        [
            nn.functional.interpolate(photograph(name)[None], (224, 224), mode="bilinear")[0]
            for name in PHOTOGRAPHS
        ]
    )
    batch = ((batch - 0.5) / 0.5).to(dtype)
    with torch.inference_mode(), counted_programs() as ran:
        result = fuse(model)(batch)
    assert len(ran) == 18
    with torch.inference_mode():
        expected, truth = model(batch), copy.deepcopy(model).double()(batch.double())
    Budget(truth, expected, 1280, dtype).assert_within(result)
    if dtype == torch.float32:
        assert torch.equal(result.topk(5).indices, expected.topk(5).indices)
    else:
        # Two classes may be nearer to each other than bfloat16 tells.
        assert torch.equal(result.argmax(1), expected.argmax(1))


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A tiny B0 that tells crops of four photographs from each other."""
    torch.manual_seed(0)
    model = tiny().train()
    pictures = [(photograph(name) - 0.5) / 0.25 for name in PHOTOGRAPHS]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        images, classes = crops(pictures, 32)
        loss = nn.functional.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def crops(pictures: list[Tensor], count: int, size: int = 48) -> tuple[Tensor, Tensor]:
    """Random crops, and the numbers of their pictures."""
    classes = torch.randint(len(pictures), (count,))
    images = []
    for index in classes:
        picture = pictures[index]
        top, left = (int(torch.randint(side - size, ())) for side in picture.shape[1:])
        images.append(picture[:, top : top + size, left : left + size])
    return torch.stack(images), classes


def test_a_network_trained_for_a_while(trained) -> None:
    torch.manual_seed(1)
    images, classes = crops([(photograph(name) - 0.5) / 0.25 for name in PHOTOGRAPHS], 64)
    fused = fuse(trained)
    with torch.inference_mode():
        expected, result = trained(images), fused(images)
    # It has learned something, so its statistics and gates are alive.
    assert (expected.argmax(1) == classes).float().mean() > 0.7
    assert torch.equal(result.argmax(1), expected.argmax(1))
    for dtype in (torch.float32, torch.bfloat16):
        check_parity(trained, images[:8], dtype)
