import pytest
import torch

from benchmarks.cases import MAX_GMACS_PER_CALL, PHIS, parse_dtypes, parse_numbers, phi_of, sweep
from benchmarks.peers import PEERS, parse_peers
from benchmarks.subject import DISTINCT_IMAGES, distinct_images, make_oracle, rows_of_batch, seeded_model


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
        parse_peers("engine,tvm")
    assert parse_peers("engine,eager-nchw") == ["eager-nchw", "engine"]
    assert parse_peers("all") == list(PEERS)


def test_the_sweep_has_each_variant_at_its_own_size_and_limits_large_batches():
    cases = sweep([f"efficientnet_b{phi}" for phi in PHIS], [1, 16], ["float32"])
    sizes = {case.model: case.image_size for case in cases}
    assert list(sizes.values()) == [224, 240, 260, 300, 380, 456, 528, 600]
    assert all(case.batch == 1 or case.batch * case.gmacs <= MAX_GMACS_PER_CALL for case in cases)
    limited = {case.model: (case.batch, case.note) for case in cases if case.note}
    assert limited == {
        "efficientnet_b6": (8, "batch 16 limited to 8"),
        "efficientnet_b7": (4, "batch 16 limited to 4"),
    }


def test_phi_is_the_index_of_a_scaled_variant():
    assert phi_of("efficientnet_b3") == phi_of("tf_efficientnet_b3") == 3
    assert phi_of("efficientnet_lite0") is None
    assert phi_of("efficientnetv2_b0") is None


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


def test_every_row_of_a_batch_is_one_of_the_distinct_images():
    assert rows_of_batch(6).tolist() == [0, 1, 2, 3, 0, 1]
    assert rows_of_batch(1).tolist() == [0]
