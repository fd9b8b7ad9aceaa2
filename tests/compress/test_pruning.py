# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.compress.pruning import PruningStep, kernel_sparsity, prune, strip_pruning
from lmkd_tf.compress.twin import make_twin
from lmkd_tf.config.files import read_json
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
    assert len(counters) > len(POINTWISE)
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
