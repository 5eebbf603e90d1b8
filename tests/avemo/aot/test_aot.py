import collections
import importlib.util
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType

import launch
from avemo import configuration, tasks
from avemo.aot import abstract, compiler, hlo, printout, roofline
from avemo.data import features, padding
from avemo.ops import device_axis
from avemo.tasks import end_to_end_data
from avemo.training import flops
from avemo.training.state import initial_state
from helpers import tiny_runs, toy

PAPER = "configs/paper/{}.py"
SMALL = ["--config.data.sequence_length=20", "--config.data.batch.sequences=8"]


def test_the_roofline_is_the_slowest_of_three_sides():
    chip = roofline.Chip(flops=100.0, hbm_bytes=1.0, hbm_bandwidth=10.0, link_bandwidth=4.0)
    numbers = {"flops": 200.0, "bytes_moved": 50.0, "reduced_bytes": 8.0, "devices": 4, "examples": 30.0}
    bound = roofline.bound(chip, **numbers)
    assert bound.seconds == {"compute": 2.0, "memory": 5.0, "interconnect": 3.0}
    assert (bound.side, bound.examples_per_second) == ("memory", 6.0)
    assert roofline.bound(chip, **{**numbers, "flops": 1000.0}).side == "compute"
    assert roofline.bound(chip, **{**numbers, "devices": 1}).seconds["interconnect"] == 0


def test_flops_count_every_iteration_of_a_scan_and_both_kinds_of_product():
    def f(x, w, kernel, image):
        y, _ = lax.scan(lambda carry, _: (jnp.tanh(carry @ w), None), x, length=7)
        return y, jax.jit(lambda a: lax.conv(a, kernel, (2, 2), "SAME"))(image)

    shapes = ((4, 16), (16, 16), (8, 3, 5, 5), (2, 3, 10, 10))
    jaxpr = jax.make_jaxpr(f)(*(jnp.zeros(s) for s in shapes)).jaxpr
    assert flops.of_jaxpr(jaxpr, "tpu") == 7 * 2 * 4 * 16 * 16 + 2 * (2 * 8 * 5 * 5) * (3 * 5 * 5)


def test_flops_count_the_branch_that_the_platform_takes():
    def f(x):
        y = lax.platform_dependent(x, cpu=lambda x: x @ x @ x, cuda=lambda x: x @ x, default=lambda x: x @ x @ x @ x)
        return lax.cond(y[0, 0] > 0, lambda y: y @ y, lambda y: y, y)

    product = 2 * 8**3
    jaxpr = jax.make_jaxpr(f)(jnp.zeros((8, 8))).jaxpr
    found = [flops.of_jaxpr(jaxpr, platform) / product for platform in ("cpu", "cuda", "tpu")]
    assert found == [3, 2, 4]


HLO = """HloModule m

%fused (p0: f32[100,8], p1: s32[]) -> f32[1,8] {
  %p0 = f32[100,8]{1,0:T(8,128)} parameter(0)
  %p1 = s32[] parameter(1)
  ROOT %slice = f32[1,8]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={1,8}
}

%condition (c: (s32[], f32[100,8])) -> pred[] {
  %c = (s32[], f32[100,8]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(100)
  %i = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[]{:S(6)} compare(%i, %limit), direction=LT
}

%body (b: (s32[], f32[100,8])) -> (s32[], f32[100,8]) {
  %b = (s32[], /*index=1*/f32[100,8]{1,0:T(8,128)}) parameter(0)
  %j = s32[]{:S(2)} get-tuple-element(%b), index=0
  %rows = f32[100,8]{1,0:T(8,128)} get-tuple-element(%b), index=1
  %row = f32[1,8]{1,0:T(1,128)S(1)} fusion(%rows, %j), kind=kLoop, calls=%fused
  ROOT %out = (s32[], f32[100,8]{1,0}) tuple(%j, %rows)
}

ENTRY %main (a: f32[100,8]) -> f32[4] {
  %a = f32[100,8]{1,0:T(8,128)} parameter(0)
  %near = f32[100,8]{1,0:T(8,128)S(1)} copy(%a)
  %zero = s32[] constant(0)
  %start = (s32[], f32[100,8]{1,0}) tuple(%zero, %a)
  %loop = (s32[], f32[100,8]{1,0}) while(%start), condition=%condition, body=%body
  %cut = ((f32[100,8]{1,0:T(8,128)}), f32[50,8]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:50], [0:8]}
  %half = f32[50,8]{1,0:T(8,128)S(1)} slice-done(%cut)
  %joined = f32[100,8]{1,0:T(8,128)S(1)} custom-call(%half, %half), custom_call_target="ConcatBitcast"
  %g = bf16[4]{0:S(1)} custom-call(%near), custom_call_target="x", metadata={op_name="trunk/conv2d"}
  ROOT %sum = bf16[4]{0} all-reduce(%g), replica_groups={{0,1}}, to_apply=%condition
}
"""


def test_traffic_counts_hbm_only_slices_as_slices_and_loops_as_they_run():
    found = hlo.traffic(HLO)
    copied, cut = 104 * 128 * 4, 56 * 128 * 4  # padded to tiles of 8 by 128
    sliced, summed = 100 * 8 * 4, 4 * 2
    assert found.hbm_bytes == copied + sliced + cut + summed
    # The operations themselves, in any memory: the copy; per iteration slice, index and row; the custom call; the sum.
    assert found.operand_bytes == 2 * copied + sliced + 100 * (4 + 128 * 4) + (copied + 8) + 2 * summed
    costs = {cost.name: cost for cost in found.costs}
    assert (costs["row"].times, costs["row"].hbm_bytes, costs["row"].source) == (100, sliced, "")
    assert (costs["g"].hbm_bytes, costs["g"].operand_bytes, costs["g"].source) == (0, copied + 8, "trunk/conv2d")
    assert costs["joined"].operand_bytes == 0
    assert found.collectives == {"all-reduce": {"count": 1, "bytes": 8.0}}
    assert found.iterations == 100


@pytest.mark.parametrize("limit", [1, 2, 5, 37, 64])
def test_the_search_finds_the_largest_batch(limit):
    tried = []

    def fits(n):
        tried.append(n)
        return n <= limit

    assert limit - max(1, limit // 16) < compiler.largest(fits, 8) <= limit
    assert len(tried) == len(set(tried)) <= 12
    assert compiler.largest(lambda n: False, 8) == 0


def test_the_search_grows_every_stream_alike_and_compiles_each_size_once(monkeypatch):
    tried = []

    def compile_tpu(config, topology, mesh, sizes, *options):
        tried.append(dict(sizes))
        if sizes["faces"] > 72:
            raise compiler.OutOfMemory("Used 20.50G of 15.75G hbm")
        return {"fits": True, "hbm_used": 1.0, "hbm_free": 1.0}

    monkeypatch.setattr(compiler, "tpu_mesh", lambda topology: types.SimpleNamespace(size=8))
    monkeypatch.setattr(compiler, "compile_tpu", compile_tpu)
    config = configuration.load(PAPER.format("teacher"), ["--config.data.batch.faces=16"])
    report = compiler.run(config, "v5e:2x4", search=True)
    assert report["search"]["batch"] == {"faces": 72, "triplets": 288}
    assert all(sizes["triplets"] == 4 * sizes["faces"] for sizes in tried)
    assert len(tried) == len({sizes["faces"] for sizes in tried})


@pytest.mark.parametrize("name", ["teacher", "student", "audio", "fusion"])
def test_batches_have_the_shapes_that_shards_give(name, tmp_path):
    config = configuration.load(PAPER.format(name) + ":smoke")
    if name in ("teacher", "student"):
        config.model.image_size = 72  # nine tenths of the toy's 80 px, which are the smallest crop
    stage = tasks.make(config)
    spec = stage.input_spec(stage.sizes())
    if name == "fusion":
        recording = features.Recording(
            *("a", "b", 25.0, np.arange(9.0)),
            *(np.zeros((9, 128), np.float32), np.zeros((9, 128), np.float32)),
            *(np.ones(9, bool), np.ones(9, bool), np.zeros((9, 2), np.float32), np.ones(9, bool)),
            *(np.zeros((9, 0, 2), np.float32), -1),
        )
        row = features.sequence(recording, 0, config.data.sequence_length, 0.0)
        real = {"sequences": jax.tree.map(lambda x: np.repeat(x[None], 8, 0), row)}
    else:
        config.model.update({"width": 0.0625} | ({"fc_dim": 8} if name == "audio" else {"repeats_17": 1}))
        if name == "audio":
            config.data.clips = toy.clips(tmp_path, train=2, dev=1, frames=10, segments=1)
        else:
            config.task = "teacher"  # the same batch except for the unlabelled faces; needs no trained teacher
            config.data.faces, config.data.triplets = toy.faces(tmp_path, 8, 2), toy.triplets(tmp_path, 8, 2)
            if name == "student":
                config.data.unlabelled = config.data.faces
        real = next(iter(tasks.open_data(tasks.make(config)).batches()))
    assert jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), spec) == jax.tree.map(
        lambda x: (np.shape(x), np.asarray(x).dtype), real
    )


CLIP = {  # twelve frames without face and sound
    **{"recording": "a", "segment": 0, "subject": "b", "fps": 25.0, "label": -1, "time": np.arange(12.0)},
    **{"face_mask": np.zeros(12, bool), "audio_mask": np.zeros(12, bool), "target_mask": np.ones(12, bool)},
    **{"targets": np.zeros((12, 2), np.float32), "raters": np.zeros((12, 0, 2), np.float32)},
}


class OneClip:
    """A split that holds `CLIP`, with the interface of `Shards`."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return CLIP

    def fields(self, index, names):
        return tuple(CLIP[name] for name in names)


def test_end_to_end_batches_have_the_shapes_that_clips_give():
    config = configuration.load(PAPER.format("end_to_end") + ":smoke")
    clips = end_to_end_data.Clips(OneClip())
    real = end_to_end_data.frame_example(clips, 140, (clips.recordings[0], 0), None, config)
    stage = tasks.make(config)
    spec = stage.spec(stage.sizes())["clips"]
    kind = lambda x: (np.shape(x), np.asarray(x).dtype)  # noqa: E731
    assert {k: (v.shape[1:], v.dtype) for k, v in spec.items()} == {k: kind(v) for k, v in real.items()}


# The blocks of a kind are alike: one of each.
SHALLOW = [f"--config.model.{field}=1" for field in ("repeats_35", "repeats_17", "dense_layers")]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *(("audio", []), ("end_to_end", []), ("fusion", []), ("student", SHALLOW), ("teacher", SHALLOW)),
        *(pytest.param(name, [], marks=pytest.mark.slow) for name in ("student", "teacher")),
    ],
)
def test_every_paper_task_has_an_abstract_state_whose_loss_is_a_scalar(name, overrides):
    config = configuration.load(PAPER.format(name) + ":smoke", overrides)
    stage = tasks.make(config)
    sizes = stage.sizes()
    state, _ = abstract.initial_state(stage, config, sizes)
    run = jax.vmap(stage.loss, (None, None, None, 0, None), axis_name="batch")
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), stage.spec(sizes))
    key = jax.eval_shape(lambda: jax.random.key(0))
    loss, _ = jax.eval_shape(run, state.params, state.model_state, stage.constants_spec(), batch, key)
    assert (loss.shape, loss.dtype) == ((1,), jnp.float32)


def test_the_abstract_state_is_that_of_a_run(tmp_path):
    config = configuration.load("configs/demo/audio.py:smoke", ["--config.model.width=0.0625", "--config.ema=0.9"])
    config.data.clips = toy.clips(tmp_path, train=2, dev=1, frames=10, segments=1)
    stage = tasks.make(config)
    real, _ = initial_state(stage, tasks.open_data(stage), config)
    spec, _ = abstract.initial_state(stage, config, {"clips": 8})
    kind = lambda x: (x.shape, x.dtype)  # noqa: E731
    assert jax.tree.map(kind, spec) == jax.tree.map(kind, real)


def test_errors_name_the_remedy(capsys, monkeypatch):
    command = ["compile", f"--config={PAPER.format('fusion')}"]
    for arguments, message in [
        (["--topology=v9:2x4"], "unknown TPU version 'v9'"),
        (["--topology=v5e:2x4", "--platform=cuda"], "the number of GPUs, such as 8"),
        (["--topology=3", "--platform=cuda", "--config.accumulate=0"], "accumulate is 0"),
    ]:
        assert launch.main([*command, *arguments]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert launch.main([*command, "--topology=v5e:2x4"]) == 2
    assert "requirements-tpu-compile.txt" in capsys.readouterr().err


def test_a_step_lowers_for_cuda_without_a_gpu(capsys):
    command = ["compile", f"--config={PAPER.format('fusion')}", "--topology=4", "--platform=cuda", *SMALL]
    assert launch.main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["lowers"]
    assert report["flops"] > 0
    assert report["collectives"]["all-reduce"]["count"] > 0
    assert "speed" in report["not_checked"]
    assert "not checked" in printout.text(report)


def products(jaxpr):
    """Counts the results of matrix products and convolutions, inner programs included, by the dtype of the factors."""
    found = collections.Counter()
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            found[str(equation.invars[0].aval.dtype)] += equation.outvars[0].aval.size
        for inner in flops.inner_jaxprs(equation.params):
            found += products(inner)
    return found


@pytest.fixture
def fusion_run(tmp_path):
    """The folder of an untrained fusion run over small encoders."""
    visual = tiny_runs.visual(tmp_path / "visual")
    audio = tiny_runs.audio(tmp_path / "audio", embedding_dim=128)
    return tiny_runs.fusion(tmp_path / "fusion", visual, audio, dims={"visual": 128, "audio": 128})


@pytest.mark.parametrize(
    ("name", "small"),
    [
        *(("audio", False), ("fusion", False), ("end_to_end", True)),
        pytest.param("end_to_end", False, marks=pytest.mark.slow),
    ],
)
def test_a_stage_computes_in_the_dtype_that_its_config_names(name, small, request):
    mesh = AbstractMesh((1,), (device_axis.AXIS,), axis_types=(AxisType.Auto,))
    share = {}
    networks = [f"--config.fusion={request.getfixturevalue('fusion_run')}"] if small else []
    for dtype in ("float32", "bfloat16"):
        config = configuration.load(PAPER.format(name), [f"--config.model.dtype={dtype}", *networks])
        sizes = dict.fromkeys(tasks.make(config).sizes(), 1)
        found = products(compiler.lower(config, mesh, sizes, "cuda")[0].jaxpr.jaxpr)
        share[dtype] = found["bfloat16"] / found.total()
    assert share["float32"] == 0
    assert share["bfloat16"] > 0.5  # heads and the recurrent state stay in float32


@pytest.mark.parametrize("name", ["teacher", "audio", "fusion", "end_to_end"])
def test_an_unknown_dtype_is_refused(name, capsys):
    command = ["compile", f"--config={PAPER.format(name)}", "--topology=1", "--platform=cuda"]
    assert launch.main([*command, "--config.model.dtype=bf16"]) == 2
    assert "unknown model.dtype 'bf16'; did you mean 'bfloat16'?" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "extra"), [("fusion", SMALL), ("audio", [])])
def test_uneven_sizes_and_micro_batches_lower_as_train_pads_them(name, extra):
    part = "sequences" if name == "fusion" else "clips"
    overrides = [*extra, f"--config.data.batch.{part}=7", "--config.accumulate=2"]
    config = configuration.load(PAPER.format(name), overrides)
    stage = tasks.make(config)
    spec = stage.spec(stage.sizes())
    padded = abstract.padded(spec, 6)
    real = padding.pad_batch(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), spec), 6)
    kind = lambda x: (x.shape, np.dtype(x.dtype))  # noqa: E731
    assert jax.tree.map(kind, padded) == jax.tree.map(kind, real)
    report = compiler.run(config, "3", "cuda")
    assert report["lowers"]
    assert report["batch"] == {part: 7}


def test_out_of_memory_says_how_much():
    error = compiler.OutOfMemory(
        "RESOURCE_EXHAUSTED: XLA:TPU ... Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G."
    )
    assert error.needed == 20.5 * 2**30
    lines = printout.text(
        {
            **{"task": "teacher", "devices": 8, "topology": "v5e:2x4", "platform": "tpu", "batch": {"faces": 8}},
            **{"fits": False, "hbm_used": error.needed, "hbm_free": -4.75 * 2**30},
        }
    )
    assert "DOES NOT FIT: 20.50 GiB, 4.75 GiB too much" in lines


@pytest.mark.slow
def test_a_step_compiles_for_a_tpu_without_a_tpu():
    pytest.importorskip("libtpu")
    tiny = ["--config.model.fusion_args.features=8", "--config.model.temporal_args.features=8"]
    config = configuration.load(PAPER.format("fusion"), [*SMALL, *tiny])
    report = compiler.run(config, "v5e:2x4", top=3)
    assert report["fits"]
    assert report["devices"] == 8
    assert report["loop_iterations"] == 6 * 20  # three recurrent networks, forward and backward
    assert report["bound"]["side"] in report["bound"]["seconds"]
    arguments = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tasks.make(config).spec({"sequences": 1})))
    assert report["hbm_bytes_moved"] > arguments
    assert report["xla"]["bytes_accessed"] > report["hbm_bytes_moved"]
    assert [c["times"] >= 1 and c["operand_bytes"] + c["hbm_bytes"] > 0 for c in report["top"]] == [True] * 3
    assert report["top"][0]["name"] in printout.text(report)
    slow = compiler.run(config, "v5e:2x4", hbm_only=True)
    assert slow["hbm_bytes_moved"] > 5 * report["hbm_bytes_moved"]
    assert 0.8 * slow["operand_bytes"] < slow["hbm_bytes_moved"] <= slow["operand_bytes"]  # except for scalars
    assert "examples/s/chip" in printout.text(report)
