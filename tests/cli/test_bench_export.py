# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.cli import bench_export


def test_clips_without_a_score_are_left_out_of_the_means(monkeypatch):
    rows = [{"pesq_wb": 2.0, "si_sdr_db": 1.0}, {"pesq_wb": None, "si_sdr_db": 3.0}]
    monkeypatch.setattr("lmkd_tf.evaluate.scores.score_clips", lambda *_, **__: rows)
    assert bench_export._mean_scores([], lambda noisy: noisy) == {"pesq_wb": 2.0, "si_sdr_db": 2.0}


@pytest.mark.parametrize(
    ("values", "cell"),
    [([2.0], "2.000"), ([1.0, 3.0], "2.000 ± 1.414"), ([1.0, None], "1.000"), ([None], "-")],
)
def test_cells_leave_undefined_means_out(values, cell):
    scores = [{"pesq_wb": value, "si_sdr_db": None} for value in values]
    assert bench_export._cells(scores) == [cell, "-"]
