"""The reader of compiled programs, on texts as the compilers of a TPU and of a GPU write them."""

import pytest

from yolojax.planning.hlo import Instruction, bytes_of, executed, group_size, inside, parse_module, parts_of

TPU = """\
HloModule jit__step, is_scheduled=true, entry_computation_layout={(f32[128,256]{1,0:T(8,128)})->f32[]{:T(128)}}, \
num_partitions=4, frontend_attributes={arg_layout_modes="default;default"}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

%region_0.1 (reduce_sum.0: f32[], reduce_sum.1: f32[]) -> f32[] {
  %reduce_sum.1 = f32[]{:T(128)} parameter(1), metadata={op_name="jit(step)/reduce_sum"}
  %reduce_sum.0 = f32[]{:T(128)} parameter(0), metadata={op_name="jit(step)/reduce_sum"}
  ROOT %reduce_sum.2 = f32[]{:T(128)} add(%reduce_sum.0, %reduce_sum.1)
}

%fused_computation.1 (param_0.5: f32[128,256], param_1.7: f32[256,256]) -> f32[] {
  %param_0.5 = f32[128,256]{1,0:T(8,128)} parameter(0)
  %param_1.7 = f32[256,256]{1,0:T(8,128)S(1)} parameter(1)
  %convolution.3 = f32[128,256]{1,0:T(8,128)} convolution(%param_0.5, %param_1.7), dim_labels=bf_io->bf, \
metadata={op_name="jit(step)/jvp(Net)/backbone/conv/dot_general" stack_frame_id=3}
  ROOT %reduce.1 = f32[] reduce(%convolution.3, %convolution.3), dimensions={0,1}, to_apply=%region_0.1
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %get = f32[8]{0:T(128)} get-tuple-element(%p), index=1
  ROOT %double = f32[8]{0:T(128)} add(%get, %get), backend_config={"window_config":{"estimated_cycles":"10"}}
}

%condition (p.1: (s32[], f32[8])) -> pred[] {
  %p.1 = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  ROOT %less = pred[]{:T(128)} compare(%p.1, %p.1), direction=LT
}

%cheap (c: f32[8]) -> f32[8] {
  ROOT %cheap.1 = f32[8]{0:T(128)} negate(%c), backend_config={"window_config":{"estimated_cycles":"1"}}
}

%dear (d: f32[8]) -> f32[8] {
  ROOT %dear.1 = f32[8]{0:T(128)} exponential(%d), backend_config={"window_config":{"estimated_cycles":"1000"}}
}

ENTRY %main.2_spmd (param: f32[128,256], param.1: f32[256,256]) -> f32[] {
  %param = f32[128,256]{1,0:T(8,128)} parameter(0), sharding={devices=[4,1]<=[4]}, metadata={op_name="x"}
  %param.1 = f32[256,256]{1,0:T(8,128)} parameter(1), sharding={replicated}, metadata={op_name="w"}
  %copy-start = (f32[256,256]{1,0:T(8,128)S(1)}, f32[256,256]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%param.1)
  %copy-done = f32[256,256]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %fusion = f32[]{:T(128)} fusion(%param, %copy-done), kind=kOutput, calls=%fused_computation.1, \
metadata={op_name="jit(step)/jvp(Net)/backbone/conv/dot_general" stack_frame_id=3}, backend_config={"flag_configs":[],\
"window_config":{"kernel_window_bounds":["32","2"],"estimated_cycles":"4516","cost_model_type":"CLASSIC"}}
  %tuple = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%fusion, %fusion)
  %loop = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%tuple), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %open = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%tuple), condition=%condition, body=%body
  %choice = f32[8]{0:T(128)} conditional(%fusion, %tuple, %tuple), branch_computations={%cheap, %dear}
  ROOT %all-reduce = f32[]{:T(128)} all-reduce(%fusion), channel_id=1, \
replica_groups=mesh['axis_0'=4,'axis_1'=1] {'axis_0','axis_1'}, use_global_device_ids=true, to_apply=%region_0.1
}
"""


@pytest.fixture(scope="module")
def module():
    return parse_module(TPU)


def test_a_program_is_read(module):
    assert module.entry == "main.2_spmd" and module.partitions == 4
    fusion = next(i for i in module.computations[module.entry] if i.name == "fusion")
    assert fusion == Instruction(
        name="fusion",
        opcode="fusion",
        shape="f32[]{:T(128)}",
        operands=("param", "copy-done"),
        calls=("fused_computation.1",),
        op_name="jit(step)/jvp(Net)/backbone/conv/dot_general",
        cycles=4516,
    )
    assert [i.opcode for i in inside(module, fusion)][:3] == ["parameter", "parameter", "convolution"]


def test_loops_run_as_often_as_the_compiler_says_and_of_branches_the_dearest(module):
    steps = {(step.instruction.name, step.times, step.in_unknown_loop) for step in executed(module)}
    assert {("double", 5, False), ("double", 1, True), ("dear.1", 1, False), ("fusion", 1, False)} <= steps
    assert not {name for name, *_ in steps} & {"cheap.1", "convolution.3", "loop", "choice"}
    fusion = next(step for step in executed(module) if step.instruction.name == "fusion")
    assert [bytes_of(shape) for shape in fusion.operand_shapes] == [128 * 256 * 4, 256 * 256 * 4]


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        parse_module("HloModule broken\n")


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[128,256]{1,0:T(8,128)}", 128 * 256 * 4),
        ("bf16[]", 2),
        ("(f32[2]{0}, /*index=1*/u8[3]{0}, pred[5])", 16),
        ("s4[3]", 1),
        ("f8e4m3fn[10]", 10),
        ("token[]", 0),
    ],
)
def test_bytes_of_shapes(shape, size):
    assert bytes_of(shape) == size


def test_tuples_are_split_at_their_own_commas():
    assert parts_of("(f32[2,3]{1,0}, /*index=1*/(u8[4]{0}, u8[5]), s32[])") == [
        "f32[2,3]{1,0}",
        "(u8[4]{0}, u8[5])",
        "s32[]",
    ]
    assert parts_of("f32[2]") == ["f32[2]"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add", 4),
        ("replica_groups=[2,8]<=[16]", 8),
        ("replica_groups=mesh['data'=4,'model'=2] {'data'}", 4),
        ("replica_groups={}", None),
    ],
)
def test_group_sizes_of_collectives(text, size):
    assert group_size(text) == size
