"""What is read from a compiled program: places, collectives, launches, time and memory, against sums by hand."""

from types import SimpleNamespace

import pytest

from tests.planning.test_hlo import TPU
from yolojax.planning.analysis import (
    Graphs,
    Memory,
    collectives_of,
    graphs_of,
    largest_batch,
    launches_of,
    memory_of,
    place_of,
    refused_memory,
    sent_bytes,
    time_of,
)
from yolojax.planning.hlo import parse_instruction, parse_module
from yolojax.planning.targets import devices

STEP = "jit(train_step)"


@pytest.mark.parametrize(
    ("name", "phase", "place"),
    [
        (f"{STEP}/jvp(Network)/backbone/stage1/join/jit(silu)/mul", "forward", "forward: backbone/stage1/join"),
        (f"{STEP}/transpose(jvp(Network))/head/head._branch/l0/norm/add", "backward", "backward: head/l0/norm"),
        (f"{STEP}/augmentation/cond/branch_1_fun/mosaic/gather", "augmentation", "augmentation/mosaic"),
        (f"{STEP}/augmentation/random_affine/vmap()/convert", "augmentation", "augmentation/random_affine"),
        (f"{STEP}/jvp(loss)/shard_map/jit(take_along_axis)/gather", "loss", "loss"),
        (f"{STEP}/transpose(jvp(loss))/shard_map/add_any", "loss", "loss (backward)"),
        (f"{STEP}/optimiser/jit(_where)/select_n", "optimiser", "optimiser"),
        ("jit(detect_batch)/shard_map/Network/backbone/stem/conv/dot", "forward", "forward: backbone/stem/conv"),
        ("jit(detect_batch)/shard_map/postprocess/while/body/max", "postprocess", "postprocess"),
        (f"{STEP}/reduce_sum", "other", "other: reduce_sum"),
        ("", "unnamed", "unnamed copy"),
    ],
)
def test_operations_are_told_by_the_place_they_come_from(name, phase, place):
    assert place_of(name, "copy") == (phase, place)


def collective(text):
    return parse_instruction("x", text)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("f32[100] all-reduce(%a), replica_groups={{0,1,2,3}}, to_apply=%add", 2 * 3 * 400 // 4),
        ("(f32[100], bf16[50]) all-reduce(%a, %b), replica_groups=[1,4]<=[4]", 2 * 3 * 500 // 4),
        ("f32[400] all-gather(%a), replica_groups=[1,4]<=[4]", 3 * 1600 // 4),
        ("(f32[100], f32[400]) all-gather-start(%a), replica_groups=[1,4]<=[4]", 3 * 1600 // 4),
        ("f32[100] reduce-scatter(%a), replica_groups=[1,4]<=[4]", 3 * 400),
        ("f32[100] all-to-all(%a), replica_groups=[1,4]<=[4]", 3 * 400 // 4),
        ("f32[100] collective-permute(%a), source_target_pairs={{0,1}}", 400),
        ("f32[100] all-reduce(%a), to_apply=%add", 2 * 7 * 400 // 8),  # all of the 8 devices
    ],
)
def test_bytes_that_a_chip_sends_in_a_ring(text, sent):
    assert sent_bytes(collective(text), partitions=8) == sent


def test_collectives_and_time_of_a_tpu_program():
    module, device = parse_module(TPU), devices()["v5e"]
    (only,) = collectives_of(module, device)
    assert (only.kind, only.count, only.bytes) == ("all-reduce", 1, 6)
    assert only.seconds == pytest.approx(6 / 200e9)
    spent = time_of(module, device)
    # The fusion, five turns of one loop, one of the other, and the dearer branch.
    cycles = 4516 + 5 * 10 + 10 + 1000
    assert spent.seconds == pytest.approx(cycles / 1.5e9)
    assert spent.phases["forward"] == pytest.approx(4516 / cycles)
    assert spent.operations[0].place == "forward: backbone/conv" and spent.unknown_loops == 2


GPU = """\
HloModule jit_f, is_scheduled=true

%fused_a (param_0.4: bf16[1024]) -> bf16[1024] {
  %param_0.4 = bf16[1024]{0} parameter(0)
  ROOT %n = bf16[1024]{0} negate(%param_0.4), metadata={op_name="jit(f)/optimiser/neg"}
}

ENTRY %main.3 (x.1: bf16[1024]) -> bf16[1024] {
  %x.1 = bf16[1024]{0} parameter(0)
  %conv = (bf16[1024]{0}, u8[0]{0}) custom-call(%x.1), custom_call_target="__cudnn$convBiasActivationForward", \
metadata={op_name="jit(f)/Network/stem/conv_general_dilated"}
  %get = bf16[1024]{0} get-tuple-element(%conv), index=0
  %product = bf16[1024]{0} custom-call(%get), custom_call_target="__cublas$lt$matmul"
  %copy.1 = bf16[1024]{0} copy(%product)
  ROOT %fusion.1 = bf16[1024]{0} fusion(%copy.1), kind=kLoop, calls=%fused_a
}
"""


def test_launches_and_traffic_of_a_gpu_program():
    module = parse_module(GPU)
    assert launches_of(module) == {"cuDNN convolution": 1, "matrix product": 1, "copy": 1, "fusion": 1}
    spent = time_of(module, devices()["h100"])
    assert spent.bytes == 4 * 2 * 2048  # four operations, each reads and writes one array
    assert spent.seconds == pytest.approx(spent.bytes / devices()["h100"].bandwidth)
    assert set(spent.phases) == {"forward", "optimiser", "unnamed"} and not spent.without_estimate


def test_kernels_that_follow_each_other_are_started_as_one_graph():
    """XLA's own list for a program of convolutions, each followed by five fusions, has a graph after each of them."""
    fusions = "".join(f"  %f{i} = bf16[8]{{0}} fusion(%x.1), kind=kLoop, calls=%fused_a\n" for i in range(5))
    whole = GPU.replace("  %get =", f"{fusions}  %get =").replace("  ROOT %fusion.1", f"{fusions}  ROOT %fusion.1")
    # Five behind the convolution; copy, five and one behind the matrix product.
    assert graphs_of(parse_module(whole)) == Graphs(2, 5 + 7)
    assert graphs_of(parse_module(GPU)) == Graphs(0, 0)


def test_memory_counts_donated_arguments_once():
    stats = SimpleNamespace(
        argument_size_in_bytes=100,
        output_size_in_bytes=90,
        alias_size_in_bytes=80,
        temp_size_in_bytes=7,
        generated_code_size_in_bytes=1,
    )
    assert memory_of(stats) == Memory(100, 10, 7, 1) and memory_of(stats).total == 118


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
            "Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.",
            (round(20.5 * 2**30), round(15.75 * 2**30)),
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (912.00G) "
            "exceeds available HBM (15.75G).",
            (912 * 2**30, round(15.75 * 2**30)),
        ),
        ("INTERNAL: Mosaic failed", None),
    ],
)
def test_what_a_tpus_compiler_says_of_a_program_that_does_not_fit(message, found):
    assert refused_memory(message) == found


def test_the_largest_batch_is_on_the_line_through_two():
    assert largest_batch((16, 3_000), (8, 2_000), 10_000, 8) == 72
    assert largest_batch((16, 3_000), (8, 2_000), 10_999, 8) == 72  # 79.99, in whole units
    assert largest_batch((16, 3_000), (8, 2_000), 900, 8) == 0
    assert largest_batch((16, 3_000), (8, 3_000), 3_500, 8) == 16
