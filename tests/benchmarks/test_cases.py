import pytest
import torch

from benchmarks.cases import (
    MAX_GMACS_PER_CALL,
    PHIS,
    describe_model,
    networks_between,
    parse_dtypes,
    parse_numbers,
    phi_of,
    sweep,
)
from benchmarks.peers import PEERS, default_peers, parse_peers
from benchmarks.subject import (
    DISTINCT_IMAGES,
    distinct_images,
    distinct_pixels,
    make_oracle,
    normalised,
    rows_of_batch,
    seeded_model,
)


def test_numbers_ranges_and_lists():
    assert parse_numbers("0-2,5", allowed=PHIS, name="--phi") == [0, 1, 2, 5]
    assert parse_numbers("16, 1,16", name="--batch") == [16, 1]


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "0-8", "1,,2", "1.5"])
def test_other_phis_are_refused_by_name(text):
    with pytest.raises(ValueError, match="--phi"):
        parse_numbers(text, allowed=PHIS, name="--phi")


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="--batch: 0 is not allowed; allowed: 1 and more"):
        parse_numbers("0", name="--batch")


def test_unknown_dtypes_and_peers_are_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="'int8' is not known; allowed: float32"):
        parse_dtypes("float32,int8")
    with pytest.raises(ValueError, match="'tvm' is not known; allowed: all, eager-nchw"):
        parse_peers("engine,tvm", "cpu")
    assert parse_peers("engine,eager-nchw", "cpu") == ["eager-nchw", "engine"]


def test_all_are_those_that_apply_to_the_device():
    on_cpu, on_gpu = parse_peers("all", "cpu"), parse_peers("all", "cuda")
    assert set(on_cpu) | set(on_gpu) == set(PEERS)
    assert {name for name in PEERS if "graph" in name} <= set(on_gpu) - set(on_cpu)
    runtimes = {"onnxruntime", "openvino-latency", "openvino-throughput"}
    assert set(on_cpu) - set(on_gpu) == {"eager-tuned", "compiled-plain", *runtimes}
    # Packages that `make bench` does not install.
    assert runtimes <= set(default_peers("cpu", quick=False)) - set(default_peers("cpu", quick=True))
    for device in ("cpu", "cuda"):
        quick, full = default_peers(device, quick=True), default_peers(device, quick=False)
        assert set(quick) <= set(full) <= set(parse_peers("all", device))
        assert {"engine", "engine-uint8"} <= set(full)


def test_a_peer_of_another_device_says_why():
    for name, peer in PEERS.items():
        for device in ("cpu", "cuda"):
            if device not in peer.devices:
                assert len(peer.unavailable(device, "efficientnet_b0").split()) > 3, name
    assert "torchvision has no tf_efficientnet_b0" in PEERS["torchvision"].unavailable(
        "cpu", "tf_efficientnet_b0"
    )
    assert PEERS["timm"].unavailable("cpu", "tf_efficientnet_b0") == ""


def test_the_sweep_has_each_variant_at_its_own_size_and_limits_large_batches():
    cases = sweep([f"efficientnet_b{phi}" for phi in PHIS], [1, 16], ["float32"])
    sizes = {case.model: case.image_size for case in cases}
    assert list(sizes.values()) == [224, 240, 260, 300, 380, 456, 528, 600]
    assert all(case.batch == 1 or case.batch * case.gmacs <= MAX_GMACS_PER_CALL["cpu"] for case in cases)
    assert {case.batch for case in sweep(["efficientnet_b7"], [256], ["float16"], "cuda")} == {256}
    limited = {case.model: (case.batch, case.note) for case in cases if case.note}
    assert limited == {
        "efficientnet_b6": (8, "batch 16 limited to 8"),
        "efficientnet_b7": (4, "batch 16 limited to 4"),
    }


def test_phi_is_the_index_of_a_scaled_variant():
    assert phi_of("efficientnet_b3") == phi_of("tf_efficientnet_b3") == 3
    assert phi_of("efficientnet_lite0") is None
    assert phi_of("efficientnetv2_b0") is None
    assert phi_of("efficientnet_phi2.5") == 2.5


def test_networks_of_the_formula_are_made_by_name():
    names = networks_between(0, 7)
    assert len(names) == 15
    assert names[:3] == ["efficientnet_phi0", "efficientnet_phi0.5", "efficientnet_phi1"]
    gmacs = [describe_model(name)[1] for name in names]
    assert gmacs == sorted(gmacs)
    # phi 0 is B0, and the formula's cost at 7 is 96 times that before anything is rounded.
    assert gmacs[0] == pytest.approx(0.3858, abs=1e-4)
    assert gmacs[-1] / gmacs[0] == pytest.approx(96.28, rel=0.1)


def test_the_subject_is_the_same_every_time_and_leaves_the_random_state_alone():
    b0 = seeded_model("efficientnet_b0")
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = seeded_model("efficientnet_b0")
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(b0.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_logits_of_the_subject_tell_images_apart_and_are_of_order_one(b0):
    images = distinct_images(64)
    assert images.shape[0] == DISTINCT_IMAGES
    assert torch.equal(images, images.bfloat16().float())
    oracle = make_oracle(b0, images, [torch.float32])
    assert oracle.exact.dtype == torch.float64
    assert 0.05 < oracle.exact.std() < 50
    assert (oracle.exact[0] - oracle.exact[1]).abs().max() > 0.01 * oracle.exact.abs().max()
    assert torch.allclose(oracle.stock[torch.float32].double(), oracle.exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_a_deep_subject_does_not_amplify_rounding(kind):
    """Statistics of another image size, or pixels of another variance, multiply B3's logits by up to 1000."""
    size = 160
    model = seeded_model("efficientnet_b3", size)
    pixels = distinct_pixels(size, model.preprocessing)
    images = distinct_images(size) if kind == "float" else normalised(pixels, model.preprocessing)
    oracle = make_oracle(model, images, [torch.bfloat16])
    error = oracle.stock[torch.bfloat16].double() - oracle.exact
    assert error.norm() < 0.25 * oracle.exact.norm()
    assert 0.05 < oracle.exact.std() < 2


def test_every_row_of_a_batch_is_one_of_the_distinct_images():
    assert rows_of_batch(6).tolist() == [0, 1, 2, 3, 0, 1]
    assert rows_of_batch(1).tolist() == [0]
