# SPDX-License-Identifier: Apache-2.0
"""Deliberate errors in supervised loss, transform, mask, features, network and files."""

from tests.mutation.mutant import Mutant

LOSS = "tests/distill/test_losses.py::test_loss_equals_the_formula_in_double_precision"

SIGNAL_MUTANTS = [
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
        "tests/dsp/test_features.py::test_features_equal_the_formula_bin_by_bin_in_double_precision",
    ),
    Mutant(
        "network_sees_the_future",
        "models/tcn.py",
        "layers.ZeroPadding2D(((past, 0), (0, 0))",
        "layers.ZeroPadding2D(((0, past), (0, 0))",
        "tests/models/test_cores.py::test_a_mask_sees_the_frames_of_its_memory_and_nothing_after_it",
    ),
    Mutant(
        "state_loses_the_newest_frame",
        "models/tcn.py",
        "layers.Cropping2D(((1, 0), (0, 0))",
        "layers.Cropping2D(((0, 1), (0, 0))",
        "tests/models/test_cores.py::test_step_graph_matches_whole_utterance_graph",
    ),
    Mutant(
        "files_are_written_in_place",
        "config/files.py",
        'temporary = target.with_name(f".{uuid.uuid4().hex[:8]}.{target.name}")',
        "temporary = target",
        "tests/config/test_files.py::test_atomic_path_after_an_exception_keeps_the_old_file_and_no_temporary_one",
    ),
]
