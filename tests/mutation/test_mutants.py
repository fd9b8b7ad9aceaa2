# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ALL_TESTS_PASSED, SOME_TEST_FAILED = 0, 1  # exit codes of pytest

DISTILLER = "tests/distill/test_distiller.py"
FORMULA = "tests/distill/test_latent_mixup.py"
TERMS = f"{DISTILLER}::test_terms_equal_the_formula_computed_by_hand"
LOSS = "tests/distill/test_losses.py::test_loss_equals_the_formula_in_double_precision"


@dataclass(frozen=True)
class Mutant:
    """A wrong formula: a snippet of the package, what replaces it, and the test that must fail."""

    name: str
    file: str
    original: str
    mutated: str
    test: str


MUTANTS = [
    # ---- the formula
    Mutant(
        "lambda_is_one_per_batch",
        "distill/latent_mixup.py",
        "keras.random.beta((batch_size,), mixup_alpha",
        "keras.random.beta((1,), mixup_alpha",
        f"{FORMULA}::test_every_example_gets_a_coefficient_of_its_own",
    ),
    Mutant(
        "lambda_is_the_same_for_every_example",
        "distill/latent_mixup.py",
        "keras.random.beta((batch_size,), mixup_alpha, mixup_alpha, seed=seed)",
        "ops.tile(keras.random.beta((1,), mixup_alpha, mixup_alpha, seed=seed), (batch_size,))",
        f"{FORMULA}::test_every_example_gets_a_coefficient_of_its_own",
    ),
    Mutant(
        "lambda_is_beta_of_alpha_and_one",
        "distill/latent_mixup.py",
        "mixup_alpha, mixup_alpha, seed=seed",
        "mixup_alpha, 1.0, seed=seed",
        f"{FORMULA}::test_lambda_has_the_mean_and_variance_of_the_symmetric_beta_law",
    ),
    Mutant(
        "second_latent_is_dropped",
        "distill/latent_mixup.py",
        "λ * first_latent + (1.0 - λ) * second_latent",
        "λ * first_latent + (1.0 - λ) * first_latent",
        f"{FORMULA}::test_mix_latents_with_lambda_zero_returns_second_view",
    ),
    Mutant(
        "coefficients_do_not_sum_to_one",
        "distill/latent_mixup.py",
        "λ * first_latent + (1.0 - λ) * second_latent",
        "λ * first_latent + λ * second_latent",
        f"{FORMULA}::test_mix_latents_uses_the_coefficient_of_each_example",
    ),
    Mutant(
        "teacher_gradient_is_not_stopped",
        "distill/latent_mixup.py",
        "projected_student_latent - ops.stop_gradient(teacher_latent)",
        "projected_student_latent - teacher_latent",
        f"{FORMULA}::test_teacher_latent_gets_no_gradient_and_the_student_does",
    ),
    Mutant(
        "student_gradient_is_stopped",
        "distill/latent_mixup.py",
        "projected_student_latent - ops.stop_gradient(teacher_latent)",
        "ops.stop_gradient(projected_student_latent) - teacher_latent",
        f"{FORMULA}::test_teacher_latent_gets_no_gradient_and_the_student_does",
    ),
    Mutant(
        "distance_is_absolute",
        "distill/latent_mixup.py",
        "ops.mean(ops.square(error), axis=axes)",
        "ops.mean(ops.abs(error), axis=axes)",
        f"{FORMULA}::test_expected_loss_weights_the_noise_specific_error",
    ),
    # ---- its wiring
    Mutant(
        "lambda_on_one_side_and_one_minus_lambda_on_the_other",
        "distill/distiller.py",
        "_mix_halves(ops.stop_gradient(teacher_latents[index]), mixup_lambda)",
        "_mix_halves(ops.stop_gradient(teacher_latents[index]), 1.0 - mixup_lambda)",
        TERMS,
    ),
    Mutant(
        "teacher_is_not_mixed",
        "distill/distiller.py",
        "_mix_halves(ops.stop_gradient(teacher_latents[index]), mixup_lambda)",
        "_mix_halves(ops.stop_gradient(teacher_latents[index]), 1.0)",
        TERMS,
    ),
    Mutant(
        "student_is_not_mixed",
        "distill/distiller.py",
        "[_mix_halves(latent, mixup_lambda) for latent in latents]",
        "[_mix_halves(latent, 1.0) for latent in latents]",
        TERMS,
    ),
    Mutant(
        "teacher_and_student_draw_different_lambdas",
        "distill/distiller.py",
        "        variances = self._update_variance(teacher_latents, training)\n",
        "        variances = self._update_variance(teacher_latents, training)\n"
        "        mixup_lambda = self._draw_lambda(ops.shape(mixup_lambda)[0], training)\n",
        f"{DISTILLER}::test_student_equal_to_teacher_with_identity_projector_has_a_latent_loss",
    ),
    Mutant(
        "second_view_is_dropped",
        "distill/distiller.py",
        "    first, second = ops.split(pair, 2, axis=0)\n",
        "    first = second = ops.split(pair, 2, axis=0)[0]\n",
        TERMS,
    ),
    Mutant(
        "supervised_term_sees_the_first_view_only",
        "distill/distiller.py",
        "for view in (first, second)]",
        "for view in (first, first)]",
        TERMS,
    ),
    Mutant(
        "mixed_latent_is_not_what_is_decoded",
        "distill/distiller.py",
        "ops.concatenate([latents[-1], mixed_latents[-1]], axis=0)",
        "ops.concatenate([latents[-1], ops.split(latents[-1], 2, axis=0)[0]], axis=0)",
        TERMS,
    ),
    Mutant(
        "context_is_not_mixed",
        "distill/distiller.py",
        "[ops.concatenate([c, _mix_halves(c, mixup_lambda)], axis=0) for c in context]",
        "[ops.concatenate([c, ops.split(c, 2, axis=0)[0]], axis=0) for c in context]",
        f"{DISTILLER}::test_a_skip_from_the_input_gets_the_mixed_input",
    ),
    Mutant(
        "teacher_runs_in_training_mode",
        "distill/distiller.py",
        "self._frozen.tapped.encode(both, training=False)",
        "self._frozen.tapped.encode(both, training=training)",
        f"{DISTILLER}::test_teacher_runs_in_inference_mode_while_the_student_trains",
    ),
    Mutant(
        "teacher_and_student_are_swapped",
        "distill/distiller.py",
        "self._frozen = _Frozen(teacher, [tap.teacher_layer",
        "self._frozen = _Frozen(student, [tap.teacher_layer",
        f"{DISTILLER}::test_teacher_and_student_are_the_models_given",
    ),
    Mutant(
        "teacher_is_tracked",
        "distill/distiller.py",
        "        self.student = student\n",
        "        self.student, self.also = student, teacher\n",
        f"{DISTILLER}::test_teacher_is_not_among_the_weights_of_the_distiller",
    ),
    Mutant(
        "loss_weights_are_swapped",
        "distill/distiller.py",
        "zip(self.term_weights, terms[1:], strict=True)",
        "zip(self.term_weights[::-1], terms[1:], strict=True)",
        f"{DISTILLER}::test_loss_weights_each_term_by_its_own_weight",
    ),
    Mutant(
        "distillation_weight_is_ignored",
        "distill/distiller.py",
        "loss + self.distillation_weight * weight * term",
        "loss + weight * term",
        f"{DISTILLER}::test_loss_weights_each_term_by_its_own_weight",
    ),
    Mutant(
        "supervised_term_is_dropped",
        "distill/distiller.py",
        "        loss = terms[0]\n",
        "        loss = 0.0 * terms[0]\n",
        f"{DISTILLER}::test_loss_weights_each_term_by_its_own_weight",
    ),
    Mutant(
        "taps_are_summed",
        "distill/distiller.py",
        "sum(distances) / len(distances)",
        "sum(distances)",
        f"{DISTILLER}::test_latent_term_is_the_mean_over_taps_of_their_own_distances",
    ),
    Mutant(
        "every_tap_has_the_variance_of_the_first",
        "distill/distiller.py",
        "target, variances[index])",
        "target, variances[0])",
        f"{DISTILLER}::test_latent_term_is_the_mean_over_taps_of_their_own_distances",
    ),
    Mutant(
        "variance_depends_on_lambda",
        "distill/distiller.py",
        "target, variances[index])",
        "target, ops.var(target) + 1e-6)",
        TERMS,
    ),
    Mutant(
        "variance_is_that_of_the_last_batch",
        "distill/distiller.py",
        "ops.where(is_first, 0.0, _VARIANCE_MOMENTUM)",
        "0.0",
        f"{DISTILLER}::test_latent_term_is_scaled_by_a_running_variance",
    ),
    Mutant(
        "projector_is_skipped",
        "distill/distiller.py",
        "latent_mixup_loss(projector(mixed[index]), target",
        "latent_mixup_loss(mixed[index], target[..., : mixed[index].shape[-1]]",
        TERMS,
    ),
    Mutant(
        "projector_is_not_trained",
        "distill/distiller.py",
        "return self._tapped_student.trainable_variables + used",
        "return self._tapped_student.trainable_variables",
        f"{DISTILLER}::test_a_step_follows_the_gradient_of_the_formula",
    ),
    Mutant(
        "output_term_sees_the_first_view_only",
        "distill/distiller.py",
        "_weighted_mean(0.5 * (first + second), sample_weight)",
        "_weighted_mean(first, sample_weight)",
        TERMS,
    ),
    Mutant(
        "sample_weight_is_ignored_by_the_latent_term",
        "distill/distiller.py",
        "ops.mean(per_example * weight)",
        "ops.mean(per_example)",
        f"{DISTILLER}::test_terms_weight_the_examples_by_sample_weight",
    ),
    Mutant(
        "sample_weight_is_ignored_by_the_supervised_term",
        "distill/distiller.py",
        "_as_loss(self.loss)(speech, enhanced, sample_weight)",
        "_as_loss(self.loss)(speech, enhanced)",
        f"{DISTILLER}::test_terms_weight_the_examples_by_sample_weight",
    ),
    Mutant(
        "evaluation_draws_lambda",
        "distill/distiller.py",
        "        if not training:\n            return ops.full((batch_size,), 0.5)\n",
        "",
        f"{DISTILLER}::test_terms_in_evaluation_use_lambda_one_half",
    ),
    Mutant(
        "evaluation_trains_batch_norm",
        "distill/distiller.py",
        "self.objective(x, speech, sample_weight, training=False)",
        "self.objective(x, speech, sample_weight, training=True)",
        f"{DISTILLER}::test_evaluate_and_predict_change_no_weight_statistic_or_seed",
    ),
    Mutant(
        "stream_of_lambda_is_not_saved",
        "distill/distiller.py",
        'self._lambda_seed.state.assign(own.pop("lambda_seed"))',
        'own.pop("lambda_seed")',
        f"{DISTILLER}::test_a_saved_distiller_continues_as_if_it_had_not_been_saved",
    ),
    Mutant(
        "optimizer_is_built_for_the_trained_variables_only",
        "distill/distiller.py",
        "[*self._tapped_student.trainable_variables, *self._projections()]",
        "self._variables_to_train()",
        f"{DISTILLER}::test_a_saved_distiller_continues_as_if_it_had_not_been_saved",
    ),
    # ---- loss, transform, mask, network, files
    Mutant(
        "si_sdr_has_no_factor_ten",
        "metrics/si_sdr.py",
        "(10.0 / np.log(10.0)) * (ops.log(error_energy)",
        "(1.0 / np.log(10.0)) * (ops.log(error_energy)",
        LOSS,
    ),
    Mutant(
        "si_sdr_has_the_wrong_sign",
        "metrics/si_sdr.py",
        "(ops.log(error_energy) - ops.log(target_energy))",
        "(ops.log(target_energy) - ops.log(error_energy))",
        LOSS,
    ),
    Mutant(
        "magnitude_and_complex_weights_are_swapped",
        "distill/losses.py",
        "self.magnitude_weight * magnitude_error + self.complex_weight * complex_error",
        "self.complex_weight * magnitude_error + self.magnitude_weight * complex_error",
        LOSS,
    ),
    Mutant(
        "compressed_spectrum_keeps_its_magnitude",
        "dsp/mask.py",
        "ops.exp((exponent - 1.0) * log_magnitude)",
        "ops.exp(exponent * log_magnitude)",
        "tests/dsp/test_mask.py::test_compress_of_a_three_four_five_triangle_at_one_half",
    ),
    Mutant(
        "overlap_add_is_off_by_one_hop",
        "dsp/stft.py",
        "frames[:, 1:, :hop] + frames[:, :-1, hop:]",
        "frames[:, :-1, :hop] + frames[:, 1:, hop:]",
        "tests/dsp/test_stft.py::test_inverse_of_stft_gives_the_signal_back",
    ),
    Mutant(
        "frames_are_off_by_one_sample",
        "dsp/stft.py",
        "[hop, (num_hops + 1) * hop - num_samples]",
        "[hop - 1, (num_hops + 1) * hop - num_samples + 1]",
        "tests/dsp/test_stft.py::test_stft_equals_numpy_on_frames_cut_by_hand",
    ),
    Mutant(
        "window_is_symmetric",
        "dsp/stft.py",
        "np.arange(config.window_length) / config.window_length",
        "np.arange(config.window_length) / (config.window_length - 1)",
        "tests/dsp/test_stft.py::test_window_is_periodic_and_its_square_sums_to_one",
    ),
    Mutant(
        "mask_goes_to_the_nearest_band",
        "dsp/mask.py",
        "ops.matmul(mask, matrix.T)",
        "ops.matmul(mask, np.round(matrix.T))",
        "tests/dsp/test_mask.py::test_band_mask_multiplies_every_bin_by_its_interpolated_gain",
    ),
    Mutant(
        "mask_uses_the_analysis_weights",
        "dsp/mask.py",
        "ops.matmul(mask, matrix.T)",
        "ops.matmul(mask, (matrix / matrix.sum(axis=0)).T)",
        "tests/dsp/test_mask.py::test_band_mask_multiplies_every_bin_by_its_interpolated_gain",
    ),
    Mutant(
        "features_are_in_amplitude_decibels",
        "dsp/features.py",
        "(10.0 / np.log(10.0))",
        "(20.0 / np.log(10.0))",
        "tests/dsp/test_features.py::test_features_equal_the_formula_bin_by_bin",
    ),
    Mutant(
        "network_sees_the_future",
        "models/tcn.py",
        "layers.ZeroPadding2D(((past, 0), (0, 0))",
        "layers.ZeroPadding2D(((0, past), (0, 0))",
        "tests/models/test_tcn.py::test_a_mask_sees_the_frames_of_its_memory_and_nothing_after",
    ),
    Mutant(
        "state_loses_the_newest_frame",
        "models/tcn.py",
        "layers.Cropping2D(((1, 0), (0, 0))",
        "layers.Cropping2D(((0, 1), (0, 0))",
        "tests/models/test_tcn.py::test_step_graph_matches_whole_utterance_graph",
    ),
    Mutant(
        "files_are_written_in_place",
        "config/files.py",
        'temporary = target.with_name(f".{uuid.uuid4().hex[:8]}.{target.name}")',
        "temporary = target",
        "tests/config/test_files.py::test_atomic_path_after_an_exception_keeps_the_old_file",
    ),
]


@pytest.fixture(scope="module")
def workspace(project_root: Path, tmp_path_factory) -> Path:
    """Copy of the package and its tests, to be mutated."""
    folder = tmp_path_factory.mktemp("mutation")
    ignore = shutil.ignore_patterns("__pycache__", "presets")
    shutil.copytree(project_root / "lmkd_tf", folder / "lmkd_tf", ignore=ignore)
    shutil.copytree(project_root / "tests", folder / "tests", ignore=ignore)
    shutil.copy(project_root / "pyproject.toml", folder)
    return folder


def run_tests(folder, tests):
    """Runs tests of a copy against the package of that copy; returns exit code and output."""
    names = {test.partition("::")[0]: [] for test in tests}
    for test in tests:
        names[test.partition("::")[0]].append(test.partition("::")[2])
    chosen = " or ".join(name for group in names.values() for name in group if name)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *names]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *(["-k", chosen] if chosen else [])],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_changes_one_place_and_names_a_test_that_exists(project_root, mutant):
    assert (project_root / "lmkd_tf" / mutant.file).read_text("utf-8").count(mutant.original) == 1
    assert mutant.mutated != mutant.original
    file, _, name = mutant.test.partition("::")
    assert f"def {name}" in (project_root / file).read_text("utf-8")


@pytest.mark.slow
def test_the_copy_is_what_runs_and_without_a_mutation_its_tests_pass(workspace):
    probe = workspace / "tests" / "test_copy.py"
    probe.write_text(
        f"import lmkd_tf\n\ndef test_copy():\n    assert {str(workspace)!r} in lmkd_tf.__file__\n"
    )
    tests = sorted({mutant.test for mutant in MUTANTS})
    code, output = run_tests(workspace, [*tests, "tests/test_copy.py::test_copy"])
    probe.unlink()
    assert code == ALL_TESTS_PASSED, output


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(workspace, mutant):
    path = workspace / "lmkd_tf" / mutant.file
    source = path.read_text("utf-8")
    path.write_text(source.replace(mutant.original, mutant.mutated), "utf-8")
    try:
        code, output = run_tests(workspace, [mutant.test])
    finally:
        path.write_text(source, "utf-8")
    assert code == SOME_TEST_FAILED, f"{mutant.name} survived {mutant.test}\n{output}"
