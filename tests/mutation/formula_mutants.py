# SPDX-License-Identifier: Apache-2.0
"""Deliberate errors in the formula and in how the distiller applies it."""

from tests.mutation.mutant import Mutant

DISTILLER = "tests/distill/test_distiller.py"
FORMULA = "tests/distill/test_latent_mixup.py"
TERMS = f"{DISTILLER}::test_terms_equal_the_formula_computed_by_hand"

FORMULA_MUTANTS = [
    # ---- the formula
    Mutant(
        "lambda_is_one_per_batch",
        "distill/latent_mixup.py",
        "symmetric_beta((batch_size,), mixup_alpha, seed)",
        "symmetric_beta((1,), mixup_alpha, seed)",
        f"{FORMULA}::test_every_example_gets_a_coefficient_of_its_own",
    ),
    Mutant(
        "lambda_is_the_same_for_every_example",
        "distill/latent_mixup.py",
        "symmetric_beta((batch_size,), mixup_alpha, seed)",
        "ops.tile(symmetric_beta((1,), mixup_alpha, seed), (batch_size,))",
        f"{FORMULA}::test_every_example_gets_a_coefficient_of_its_own",
    ),
    Mutant(
        "lambda_is_beta_of_alpha_and_one",
        "distill/beta.py",
        "betaincinv(alpha, alpha, shares)",
        "betaincinv(alpha, 1.0, shares)",
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
        "ops.mean(ops.square(error), axis=-1)",
        "ops.mean(ops.abs(error), axis=-1)",
        f"{FORMULA}::test_expected_loss_weights_the_noise_specific_error_by_one_over_two_alpha_plus_one",
    ),
    # ---- its wiring
    Mutant(
        "lambda_on_one_side_and_one_minus_lambda_on_the_other",
        "distill/networks.py",
        "return run_mixed(network, both, mixer, training=False, is_propagated=is_propagated)",
        (
            "mixer = mixer._replace(tap_lambdas=1.0 - mixer.tap_lambdas)\n"
            "        return run_mixed(network, both, mixer, training=False, "
            "is_propagated=is_propagated)"
        ),
        TERMS,
    ),
    Mutant(
        "teacher_is_not_mixed",
        "distill/networks.py",
        "return run_mixed(network, both, mixer, training=False, is_propagated=is_propagated)",
        (
            "mixer = mixer._replace(tap_lambdas=ops.ones_like(mixer.tap_lambdas))\n"
            "        return run_mixed(network, both, mixer, training=False, "
            "is_propagated=is_propagated)"
        ),
        TERMS,
    ),
    Mutant(
        "student_is_not_mixed",
        "distill/networks.py",
        ("return run_mixed(network, both, mixer, training=training, is_propagated=is_propagated)"),
        (
            "mixer = mixer._replace(tap_lambdas=ops.ones_like(mixer.tap_lambdas))\n"
            "        return run_mixed(network, both, mixer, training=training, "
            "is_propagated=is_propagated)"
        ),
        TERMS,
    ),
    Mutant(
        "teacher_and_student_draw_different_lambdas",
        "distill/distiller.py",
        "        teacher = run_teacher(\n",
        ("        mixer, _ = self._mixture.draw(pair, training)\n        teacher = run_teacher(\n"),
        f"{DISTILLER}::test_student_equal_to_teacher_with_identity_projector_has_no_latent_loss",
    ),
    Mutant(
        "second_view_is_dropped",
        "distill/mixture.py",
        "return mix_latents(first, second, self.tap_lambdas[tap])",
        "return mix_latents(first, first, self.tap_lambdas[tap])",
        TERMS,
    ),
    Mutant(
        "supervised_term_sees_the_first_view_only",
        "distill/distiller.py",
        "self._supervised(pair.second_speech, second, sample_weight)",
        "self._supervised(pair.second_speech, first, sample_weight)",
        TERMS,
    ),
    Mutant(
        "mixed_latent_is_not_what_is_decoded",
        "distill/streams.py",
        "ops.concatenate([x, mixed[-1]])",
        "ops.concatenate([x, ops.split(x, 2)[0]])",
        TERMS,
    ),
    Mutant(
        "context_is_not_mixed",
        "distill/streams.py",
        "[ops.concatenate([c, mixer.of_input(c)]) for c in context]",
        "[ops.concatenate([c, ops.split(c, 2)[0]]) for c in context]",
        f"{DISTILLER}::test_a_skip_from_the_input_gets_the_mixed_input",
    ),
    Mutant(
        "teacher_runs_in_training_mode",
        "distill/networks.py",
        "return run_mixed(network, both, mixer, training=False, is_propagated=is_propagated)",
        "return run_mixed(network, both, mixer, training=True, is_propagated=is_propagated)",
        f"{DISTILLER}::test_teacher_runs_in_inference_mode_while_the_student_trains",
    ),
    Mutant(
        "teacher_and_student_are_swapped",
        "distill/distiller.py",
        'self._cut(teacher, "teacher_layer"',
        'self._cut(student, "teacher_layer"',
        f"{DISTILLER}::test_teacher_and_student_are_the_models_given",
    ),
    Mutant(
        "teacher_is_not_frozen",
        "distill/distiller.py",
        "        teacher.trainable = False\n",
        "",
        f"{DISTILLER}::test_teacher_is_not_among_the_weights_of_the_distiller",
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
        "zip(weights, terms[1:], strict=True)",
        "zip(weights[::-1], terms[1:], strict=True)",
        f"{DISTILLER}::test_loss_weights_each_term_by_its_own_weight",
    ),
    Mutant(
        "distillation_weight_is_ignored",
        "distill/distiller.py",
        "supervised_factor, factor = 1.0, self.distillation_weight",
        "supervised_factor, factor = 1.0, 1.0",
        f"{DISTILLER}::test_loss_weights_each_term_by_its_own_weight",
    ),
    Mutant(
        "supervised_term_is_dropped",
        "distill/distiller.py",
        "loss = supervised_factor * terms[0]",
        "loss = 0.0 * terms[0]",
        f"{DISTILLER}::test_loss_weights_each_term_by_its_own_weight",
    ),
    Mutant(
        "taps_are_summed",
        "distill/distiller.py",
        "zip(weights, distances, strict=True)) / total",
        "zip(weights, distances, strict=True))",
        f"{DISTILLER}::test_latent_term_is_the_mean_over_taps_of_their_own_distances",
    ),
    Mutant(
        "every_tap_has_the_variance_of_the_first",
        "distill/distiller.py",
        "latent, target, variances[tap], position_weight",
        "latent, target, variances[0], position_weight",
        f"{DISTILLER}::test_latent_term_is_the_mean_over_taps_of_their_own_distances",
    ),
    Mutant(
        "variance_depends_on_lambda",
        "distill/distiller.py",
        "latent, target, variances[tap], position_weight",
        "latent, target, ops.var(target) + 1e-6, position_weight",
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
        "[project(z) for project, z in zip(self.projectors, aligned, strict=True)]",
        (
            "[ops.concatenate([z, z], axis=-1)[..., : t.shape[-1]] for z, t in zip(aligned, "
            "teacher_latents, strict=True)]"
        ),
        TERMS,
    ),
    Mutant(
        "projector_is_not_trained",
        "distill/distiller.py",
        "return [*self._tapped_student.trainable_variables, *projections]",
        "return [*self._tapped_student.trainable_variables, *projections[:0]]",
        f"{DISTILLER}::test_a_step_follows_the_gradient_of_the_formula",
    ),
    Mutant(
        "output_term_sees_the_first_view_only",
        "distill/distiller.py",
        "outputs = student.output, teacher.output",
        (
            "outputs = [ops.tile(ops.split(y, 2)[0], (2, 1)) for y in (student.output, "
            "teacher.output)]"
        ),
        TERMS,
    ),
    Mutant(
        "sample_weight_is_ignored_by_the_latent_term",
        "distill/terms.py",
        "ops.mean(values * weight)",
        "ops.mean(values)",
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
        "distill/mixture.py",
        "self._draw_lambda(pair, size) if training else ops.full((self._num_rows, size), 0.5)",
        "self._draw_lambda(pair, size)",
        f"{DISTILLER}::test_terms_in_evaluation_use_lambda_one_half",
    ),
    Mutant(
        "evaluation_trains_batch_norm",
        "distill/training.py",
        "self.forward(arguments[0], training=False)",
        "self.forward(arguments[0], training=True)",
        f"{DISTILLER}::test_evaluate_and_predict_change_no_weight_statistic_or_seed",
    ),
    Mutant(
        "stream_of_lambda_is_not_saved",
        "distill/distiller.py",
        'self._lambda_seed.state.assign(own.pop("lambda_seed"))',
        'own.pop("lambda_seed")',
        f"{DISTILLER}::test_a_saved_distiller_continues_as_if_it_had_not_been_saved",
    ),
]
