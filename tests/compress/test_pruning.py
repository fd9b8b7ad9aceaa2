# SPDX-License-Identifier: Apache-2.0
import functools

import keras
import numpy as np
import pytest

from lmkd_tf.compress.pruning import PruningStep, kernel_sparsity, prune, strip_pruning
from lmkd_tf.compress.quantization import quantize
from lmkd_tf.compress.twin import make_twin
from lmkd_tf.config.files import read_json
from lmkd_tf.models.builder import build_core
from lmkd_tf.models.enhancer import load_enhancer

POINTWISE = {"encoder", "pointwise_0", "pointwise_1", "mask_logits"}
NUM_STEPS = 20


class SparsityPerStep(keras.callbacks.Callback):
    """Notes the share of masked weights of one kernel after every optimizer step."""

    def __init__(self, pruned):
        super().__init__()
        self.mask = next(v for v in pruned.variables if "pointwise_0/mask" in v.name)
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(float(np.mean(self.mask.numpy() == 0.0)))


def _counters(pruned):
    return [int(v.numpy()) for v in pruned.variables if "pruning_step" in v.name]


@pytest.fixture
def pruned_and_sparsities(build, core, distill):
    pruned = prune(make_twin(build, core), sparsity=0.5, num_steps=NUM_STEPS)
    sparsities = SparsityPerStep(pruned)
    distiller = distill(pruned, NUM_STEPS, (PruningStep(pruned), sparsities), epochs=2)
    assert int(distiller.optimizer.iterations) == NUM_STEPS
    return pruned, sparsities.values


def test_pruning_counts_one_call_per_optimizer_step_and_ends_on_target(pruned_and_sparsities):
    pruned, per_step = pruned_and_sparsities
    counters = _counters(pruned)
    assert len(counters) == len(POINTWISE)
    assert set(counters) == {NUM_STEPS}
    # The masks are renewed in the forward pass of a step: 70 % of 20 steps is step 14.
    assert per_step[5] < 0.45
    assert per_step[14] == 0.5
    assert per_step[-1] == 0.5
    assert kernel_sparsity(pruned) == dict.fromkeys(POINTWISE, 0.5)
    stripped = strip_pruning(pruned)
    assert not any("pruning_step" in variable.name for variable in stripped.variables)
    assert kernel_sparsity(stripped) == dict.fromkeys(POINTWISE, 0.5)


def test_finished_road_reaches_the_sparsity_in_every_pointwise_kernel(road):
    wanted = dict.fromkeys(POINTWISE, road.config.compress.sparsity)
    core = load_enhancer(road.workdir / "pruned" / "pruned.keras").core
    assert kernel_sparsity(core) == pytest.approx(wanted, abs=0.001)
    assert read_json(road.workdir / "pruned" / "sparsity.json") == kernel_sparsity(core)
    unpruned = load_enhancer(road.workdir / "student" / "student.keras").core
    assert max(kernel_sparsity(unpruned).values()) < 0.01


def test_kernel_sparsity_counts_zeros_and_leaves_depthwise_kernels_out(core):
    kernel = np.ones((1, 1, 8, 8), np.float32)
    kernel[..., :3] = 0.0
    core.get_layer("pointwise_1").set_weights([kernel])
    shares = kernel_sparsity(core)
    assert set(shares) == POINTWISE
    assert shares["pointwise_1"] == 3 / 8
    assert shares["pointwise_0"] == 0.0


@pytest.mark.parametrize(("sparsity", "num_steps"), [(1.0, 5), (-0.1, 5), (0.5, 0)])
def test_prune_refuses_values_out_of_range(sparsity, num_steps):
    with pytest.raises(ValueError, match=r"`sparsity` must lie in \[0, 1\).*Use for example"):
        prune(None, sparsity=sparsity, num_steps=num_steps)


def _kernels(core):
    """Pointwise kernels as the .tflite has them, `(outputs, inputs)`, by layer."""
    layers = {layer.name.removeprefix("quant_"): layer for layer in core.layers}
    found = {}
    for name in POINTWISE:
        layer = layers[name]
        weights = getattr(layer, "layer", layer).kernel
        found[name] = np.asarray(weights)[0, 0].T
    return found


@pytest.fixture
def prune_quickly(build, core, distill):
    """Function that prunes for a few steps and returns the plain core."""

    def run(num_steps=8, **settings):
        twin = make_twin(build, core)
        pruned = prune(twin, num_steps=num_steps, **{"sparsity": 0.5, **settings})
        steps = SparsityPerStep(pruned)
        distill(pruned, num_steps, (PruningStep(pruned), steps))
        return strip_pruning(pruned), steps.values

    return run


@pytest.mark.parametrize(("pattern", "block"), [("1x4", 4), ("1x16", 16)])
def test_zeros_come_in_blocks_of_neighboring_inputs_of_one_output(seeded, pattern, block):
    build = functools.partial(build_core, "tcn", num_bands=48, channels=32, dilations=(1, 2))
    pruned = prune(
        make_twin(build, build()), sparsity=0.5, num_steps=4, schedule="constant", pattern=pattern
    )
    step = PruningStep(pruned)
    step.on_train_begin()
    pruned(np.zeros((1, 8, 1, 48), np.float32), training=True)  # the masks are made in a step
    step.on_epoch_end(0)
    stripped = strip_pruning(pruned)
    for name, kernel in _kernels(stripped).items():
        starts = range(0, kernel.shape[1], block)
        zeros = [(kernel[:, s : s + block] == 0.0).mean(axis=1) for s in starts]
        assert set(np.concatenate(zeros)) == {0.0, 1.0}, name
    shares = kernel_sparsity(stripped)
    assert all(share == pytest.approx(0.5, abs=0.02) for share in shares.values())


def test_two_of_four_neighboring_inputs_are_zero(prune_quickly):
    stripped, _ = prune_quickly(pattern="2:4", schedule="constant")
    for name, kernel in _kernels(stripped).items():
        groups = kernel.reshape(len(kernel), -1, 4)
        assert ((groups == 0.0).sum(axis=-1) == 2).all(), name


def test_pattern_survives_quantization_aware_training(prune_quickly, distill):
    stripped, _ = prune_quickly(pattern="2:4", schedule="constant")
    before = {name: kernel == 0.0 for name, kernel in _kernels(stripped).items()}
    quantized = quantize(stripped)
    distill(quantized, 3)
    names = {
        v.name.split("/")[-2].removeprefix("quant_"): v
        for v in quantized.variables
        if v.name.split("/")[-1].startswith("kernel") and v.shape[:2] == (1, 1)
    }
    for name, zeros in before.items():
        np.testing.assert_array_equal(names[name].numpy()[0, 0].T == 0.0, zeros)


def test_constant_schedule_has_its_share_from_the_first_step(prune_quickly):
    _, per_step = prune_quickly(schedule="constant", sparsity=0.75)
    assert per_step[0] == pytest.approx(0.75, abs=0.02)
    assert per_step[-1] == pytest.approx(0.75, abs=0.02)


def test_excluded_layers_keep_every_weight(prune_quickly):
    stripped, _ = prune_quickly(excluded=("encoder", "mask_logits"))
    shares = kernel_sparsity(stripped)
    assert shares == {"encoder": 0.0, "mask_logits": 0.0, "pointwise_0": 0.5, "pointwise_1": 0.5}


def test_wrapped_core_computes_what_the_plain_one_does(build, core, features):
    twin = make_twin(build, core)
    pruned = prune(twin, sparsity=0.5, num_steps=4)
    wanted = twin(features, training=False).numpy()
    np.testing.assert_array_equal(pruned(features, training=False).numpy(), wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "linear"}, r"`schedule` must be one of polynomial, constant.*'linear'"),
        ({"pattern": "8x1"}, r"`pattern` must be one of unstructured.*'8x1'"),
        ({"pattern": "2:4"}, r"2:4 has half.*schedule='polynomial'"),
        ({"pattern": "2:4", "schedule": "constant", "sparsity": 0.6}, "sparsity=0.6"),
        ({"excluded": ("depthwise_0",)}, r"must name layers that would be pruned.*depthwise_0"),
    ],
)
def test_prune_refuses_settings_that_do_not_fit(build, core, settings, message):
    with pytest.raises(ValueError, match=message):
        prune(make_twin(build, core), **{"sparsity": 0.5, "num_steps": 5, **settings})


def test_blocks_in_kernels_of_several_taps_are_refused():
    import tf_keras

    x = tf_keras.layers.Input((4, 4, 8))
    core = tf_keras.Model(x, tf_keras.layers.Conv2D(8, 3, name="wide")(x))
    with pytest.raises(
        ValueError, match=r"of one tap and of more than 4 inputs\. Received \['wide"
    ):
        prune(core, sparsity=0.5, num_steps=5, pattern="1x4")
