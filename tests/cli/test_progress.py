# SPDX-License-Identifier: Apache-2.0
import contextlib
import io

import numpy as np
import pytest
from rich.console import Console

from lmkd_tf.cli.progress import Progress, ProgressCallback, StageBoard, clock


class Clock:
    """Time that passes on demand."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def now():
    return Clock()


@pytest.fixture
def plain():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def _lines(console):
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (36000, "10:00:00")]
)
def test_clock_counts_hours_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text


def test_progress_off_a_terminal_writes_start_and_end_only_when_quick(plain, now):
    with Progress("Read files", 100, console=plain, now=now) as progress:
        for done in range(100):
            progress.update(done)
    assert _lines(plain) == [
        "Read files: 0 %, 0:00 elapsed, -:-- left",
        "Read files: done in 0:00",
    ]


def test_progress_off_a_terminal_writes_every_ten_seconds(plain, now):
    with Progress("Read files", 60, console=plain, now=now) as progress:
        for done in range(1, 61):
            now.seconds += 1
            progress.update(done, "loss 0.5")
    lines = _lines(plain)
    assert len(lines) == 1 + 6 + 1
    assert lines[2] == "Read files: 33 %, 0:20 elapsed, 0:40 left, loss 0.5"


def test_progress_that_fails_says_it_stopped(plain, now):
    progress = Progress("Train", 9, console=plain, now=now)
    with contextlib.suppress(KeyboardInterrupt), progress:
        now.seconds = 3
        raise KeyboardInterrupt
    assert _lines(plain)[-1] == "Train: stopped after 0:03"


def test_progress_on_a_terminal_draws_a_bar_with_the_time_left(terminal, now):
    with Progress("Train", 4, console=terminal, now=now) as progress:
        now.seconds = 30
        progress.update(1, "[loss] 0.1")
        assert progress.remaining_seconds == 90
    text = terminal.file.getvalue()
    assert "Train" in text
    assert "100%" in text
    assert "[loss] 0.1" in text


def test_progress_without_total_has_no_time_left(plain, now):
    with Progress("Search", console=plain, now=now) as progress:
        progress.update(5)
        assert progress.remaining_seconds is None


def test_board_before_any_stage_expects_the_sum(plain, now):
    with StageBoard("Run", {"a": 10, "b": 30}, console=plain, now=now) as board:
        assert board.remaining_seconds == 40


def test_board_scales_later_stages_by_the_pace_of_finished_ones(plain, now):
    with StageBoard("Run", {"a": 10, "b": 30}, console=plain, now=now) as board:
        with board.stage("a"):
            now.seconds += 20
        assert board.remaining_seconds == 60


def test_board_trusts_the_pace_of_the_current_stage(plain, now):
    with (
        StageBoard("Run", {"a": 10, "b": 30}, console=plain, now=now) as board,
        board.stage("a", total=4) as stage,
    ):
        now.seconds += 15
        stage.update(1)
        assert board.remaining_seconds == 45 + 30


def test_board_takes_an_expected_length_when_the_stage_starts(plain, now):
    with (
        StageBoard("Run", {"a": 10}, console=plain, now=now) as board,
        board.stage("a", seconds_expected=50),
    ):
        now.seconds += 20
        assert board.remaining_seconds == 30


def test_board_leaves_reused_stages_out_of_the_pace(plain, now):
    with StageBoard("Run", {"a": 10, "b": 30}, console=plain, now=now) as board:
        board.skip("a")
        assert board.remaining_seconds == 30
    assert "a reused" in _lines(plain)


def test_board_off_a_terminal_names_stage_and_both_times(plain, now):
    with StageBoard("Run", {"a": 20, "b": 20}, console=plain, now=now) as board:
        with board.stage("a", total=2) as stage:
            now.seconds = 10
            stage.update(1, "loss 0.5")
            now.seconds = 20
        with board.stage("b"):
            now.seconds = 30
    assert _lines(plain) == [
        "Run: 0 %, 0:00 elapsed, 0:40 left, 0/2",
        "Run: 0 %, 0:00 elapsed, 0:40 left, 1/2 | a: 0 %, 0:00 elapsed, -:-- left",
        "Run: 25 %, 0:10 elapsed, 0:30 left, 1/2 | a: 50 %, 0:10 elapsed, 0:10 left, loss 0.5",
        "a done in 0:20",
        "Run: 50 %, 0:20 elapsed, 0:20 left, 2/2 | b: 0 %, 0:00 elapsed, -:-- left",
        "b done in 0:10",
        "Run: done in 0:30",
    ]


def test_board_on_a_terminal_keeps_a_line_for_every_finished_stage(terminal, now):
    with StageBoard("Run", {"a": 1, "b": 1}, console=terminal, now=now) as board:
        for name in ("a", "b"):
            with board.stage(name):
                now.seconds += 1
    text = terminal.file.getvalue()
    assert "a done in 0:01" in text
    assert "b done in 0:01" in text


def test_callback_counts_the_batches_of_all_epochs(plain, now):
    import keras

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with Progress("Fit", console=plain, now=now) as progress:
        callbacks = [ProgressCallback(progress)]
        x, y = np.zeros((8, 2)), np.zeros((8, 1))
        model.fit(x, y, batch_size=2, epochs=3, verbose=0, callbacks=callbacks)
        assert (progress.done, progress.total) == (12, 12)
    assert progress.note == "epoch 3/3, loss 0.0000"


def test_callback_shows_the_pace_without_compilation_and_validation(plain, now):
    with Progress("Fit", console=plain, now=now) as progress:
        callback = ProgressCallback(progress, seconds_per_batch=6.0, now=now)
        callback.set_params({"steps": 3, "epochs": 2})
        callback.on_train_begin()
        for epoch in range(2):
            callback.on_epoch_begin(epoch)
            for batch, seconds in enumerate((100.0, 2.0, 1.0)):  # the first one compiles
                now.seconds += seconds
                callback.on_train_batch_end(batch, {"loss": 0.5})
            now.seconds += 1000.0  # validation
            callback.on_epoch_end(epoch, {"val_pesq_wb": 2.341, "val_si_sdr_db": 12.34})
        assert callback.real_time_factor == 4 * 6.0 / 6.0
    assert progress.note == "epoch 2/2, loss 0.5000, PESQ 2.34, SI-SDR 12.3 dB, 4 x real time"
