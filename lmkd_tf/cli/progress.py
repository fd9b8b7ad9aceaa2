# SPDX-License-Identifier: Apache-2.0
"""Progress with the time left: bars on a terminal, a few plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress

PLAIN_LINE_SECONDS = 10.0
# Below this share the pace of a stage says less than what was expected of it.
_TRUSTED_SHARE = 0.03


def clock(seconds: float | None) -> str:
    """Returns a duration as text.

    Example:
        >>> clock(75), clock(3725), clock(None)
        ('1:15', '1:02:05', '-:--')
    """
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows how far one job is, to be used in a `with` statement.

    On a terminal it draws a bar with the elapsed time and the time left;
    elsewhere it writes one line at the start, one at most every 10 s and one at
    the end.

    Args:
        title: What is being done, a few words.
        total: Amount of work, in any unit; may be set later.
        console: Where to write; standard error if None, so that results on
            standard output stay clean.
        now: Clock in s.
    """

    def __init__(
        self,
        title: str,
        total: float | None = None,
        *,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.total, self.done, self.note = title, total, 0.0, ""
        self._now = now
        self._display = _Display(console or Console(stderr=True), now)

    @property
    def share(self) -> float:
        """Share of the work that is done, in [0, 1]."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def elapsed_seconds(self) -> float:
        """Time since the start, in s."""
        return self._now() - self._start

    @property
    def remaining_seconds(self) -> float | None:
        """Time left at the pace so far, in s; None before any work is done."""
        share = self.share
        return self.elapsed_seconds * (1.0 - share) / share if share > 0 else None

    def update(self, done: float, note: str = "") -> None:
        """Says how much of the work is done.

        Args:
            done: From 0 to `total`.
            note: A few words behind the bar, such as the loss.
        """
        self.done, self.note = done, note or self.note
        self._display.show(self._rows(), is_due=False)

    def update_of(self, done: float, total: float) -> None:
        """Says how much of how much is done; an `on_progress` of the library."""
        self.total = total
        self.update(done)

    def __enter__(self) -> "Progress":
        self._start = self._now()
        self._display.open(self._rows())
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None and self.total:
            self.done = self.total
        self._display.close(self._rows(), is_complete=kind is None)

    def _rows(self) -> list["_Row"]:
        times = (self.elapsed_seconds, self.remaining_seconds)
        return [_Row(self.title, self.share, *times, self.note)]


class StageBoard:
    """Shows a chain of stages: one bar for all of them and one for the current.

    The time left is the rest of the current stage at its pace, plus what was
    expected of the stages to come, scaled by how the finished ones went.

    Args:
        title: What the chain does, a few words.
        stages: Name of every stage, in order, to its expected length in s.
        console: Where to write; standard error if None.
        now: Clock in s.

    Example::

        with StageBoard("Quickstart", {"teacher": 120, "student": 60}) as board:
            with board.stage("teacher", total=100) as progress:
                progress.update(1, "loss 0.3")
            board.skip("student")
    """

    def __init__(
        self,
        title: str,
        stages: Mapping[str, float],
        *,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self._now = title, now
        self._expected = dict(stages)
        self._spent: dict[str, float] = {}  # finished stages, in s; 0 where skipped
        self._current: Stage | None = None
        self._display = _Display(console or Console(stderr=True), now)

    @contextmanager
    def stage(
        self, name: str, seconds_expected: float | None = None, total: float | None = None
    ) -> Iterator["Stage"]:
        """Runs one stage of the chain.

        Args:
            name: Name of the stage; one that was not announced is added.
            seconds_expected: Expected length, in s; replaces the announced one.
            total: Amount of work, as in `Progress`.

        Yields:
            Object with `update(done, note)` and an attribute `total`.
        """
        if seconds_expected is not None or name not in self._expected:
            self._expected[name] = seconds_expected or 1.0
        self._current = Stage(self, name, total, self._now())
        self._display.show(self._rows(), is_due=True)
        yield self._current  # left as it is after an error: `close` then shows how far it came
        self._spent[name] = self._now() - self._current.start
        self._display.finish(f"{name} done in {clock(self._spent[name])}")
        self._current = None

    def skip(self, name: str, note: str = "reused") -> None:
        """Counts a stage as done that need not run."""
        self._expected[name] = 0.0
        self._spent[name] = 0.0
        self._display.finish(f"{name} {note}")

    @property
    def remaining_seconds(self) -> float:
        """Estimated time left for all stages, in s."""
        ran = [name for name, seconds in self._spent.items() if seconds > 0]
        expected = sum(self._expected[name] for name in ran)
        pace = sum(self._spent[name] for name in ran) / expected if expected > 0 else 1.0
        current = self._current
        begun = {*self._spent, current.name} if current else set(self._spent)
        later = [self._expected[name] for name in self._expected if name not in begun]
        remaining = pace * sum(later)
        if current is None:
            return remaining
        elapsed, share = self._now() - current.start, current.share
        if share > _TRUSTED_SHARE:
            return remaining + elapsed * (1.0 - share) / share
        return remaining + max(0.0, pace * self._expected[current.name] - elapsed)

    def __enter__(self) -> "StageBoard":
        self._start = self._now()
        self._display.open(self._rows())
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._display.close(self._rows(), is_complete=kind is None)

    def redraw(self) -> None:
        """Shows the present state."""
        self._display.show(self._rows(), is_due=False)

    def _rows(self) -> list["_Row"]:
        elapsed, remaining = self._now() - self._start, self.remaining_seconds
        share = elapsed / (elapsed + remaining) if elapsed + remaining > 0 else 0.0
        number = len(self._spent) + (self._current is not None)
        rows = [_Row(self.title, share, elapsed, remaining, f"{number}/{len(self._expected)}")]
        if self._current is not None:
            stage = self._current
            spent = self._now() - stage.start
            left = spent * (1.0 - stage.share) / stage.share if stage.share > 0 else None
            rows.append(_Row(stage.name, stage.share, spent, left, stage.note))
        return rows


class Stage:
    """Current stage of a `StageBoard`; used like a `Progress`."""

    def __init__(self, board: StageBoard, name: str, total: float | None, start: float) -> None:
        self.name, self.total, self.start = name, total, start
        self.done, self.note = 0.0, ""
        self._board = board

    @property
    def share(self) -> float:
        """Share of the work that is done, in [0, 1]."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def update(self, done: float, note: str = "") -> None:
        """Says how much of the work is done; as `Progress.update`."""
        self.done, self.note = done, note or self.note
        self._board.redraw()

    def update_of(self, done: float, total: float) -> None:
        """Says how much of how much is done; as `Progress.update_of`."""
        self.total = total
        self.update(done)


def ProgressCallback(
    progress: Progress | Stage,
    seconds_per_batch: float = 0.0,
    now: Callable[[], float] = time.monotonic,
) -> Any:
    """Makes the Keras callback that updates a progress after every batch.

    The total is set to the number of batches when training starts. It is a
    function so that Keras is loaded on the first call, not with this file.

    Args:
        progress: A `Progress` or a stage of a `StageBoard`.
        seconds_per_batch: Audio in a batch, in s, to show the pace as a multiple of real
            time; 0 shows none.
        now: Clock in s.

    Returns:
        `keras.callbacks.Callback` for `fit`; its `real_time_factor` is that pace, without
        validation and without the first batch of this process, which compiles.
    """
    import keras

    pace = _Pace(seconds_per_batch, now)

    class _ProgressCallback(keras.callbacks.Callback):
        @property
        def real_time_factor(self) -> float:
            return pace.real_time_factor

        def on_train_begin(self, logs: dict | None = None) -> None:
            self._steps, self._epoch = self.params.get("steps") or 0, 0
            self._epochs = self.params.get("epochs") or 1
            self._scores = ""
            progress.total = self._epochs * self._steps or None

        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            self._epoch = epoch

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            pace.count()
            loss = (logs or {}).get("loss")
            note = f"epoch {self._epoch + 1}/{self._epochs}"
            note += f", loss {float(loss):.4f}" if loss is not None else ""
            note += self._scores + pace.text
            progress.update(self._epoch * self._steps + batch + 1, note)

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            pace.pause()
            self._scores = _scores_text(logs or {})

    return _ProgressCallback()


class _Pace:
    """Audio that went through training, as a multiple of real time."""

    def __init__(self, seconds_per_batch: float, now: Callable[[], float]) -> None:
        self._seconds_per_batch, self._now = seconds_per_batch, now
        self._spent, self._batches = 0.0, 0
        self._last: float | None = None  # end of the batch before, within an epoch

    @property
    def real_time_factor(self) -> float:
        return self._seconds_per_batch * self._batches / self._spent if self._spent else 0.0

    @property
    def text(self) -> str:
        factor = self.real_time_factor
        return f", {factor:.0f} x real time" if factor else ""

    def count(self) -> None:
        """Counts a batch, but for the first after a pause."""
        time_s = self._now()
        if self._last is not None:
            self._spent += time_s - self._last
            self._batches += 1
        self._last = time_s

    def pause(self) -> None:
        self._last = None


def _scores_text(logs: dict) -> str:
    if "val_pesq_wb" not in logs:
        return ""
    return f", PESQ {logs['val_pesq_wb']:.2f}, SI-SDR {logs['val_si_sdr_db']:.1f} dB"


@dataclass(frozen=True)
class _Row:
    """One line of a display; times in s."""

    title: str
    share: float
    elapsed: float
    remaining: float | None
    note: str

    def as_text(self) -> str:
        times = f"{clock(self.elapsed)} elapsed, {clock(self.remaining)} left"
        text = f"{self.title}: {100 * self.share:.0f} %, {times}"
        return f"{text}, {self.note}" if self.note else text


class _Display:
    """Bars on a terminal, plain lines at intervals elsewhere."""

    def __init__(self, console: Console, now: Callable[[], float]) -> None:
        self._console, self._now = console, now
        self._bars: RichProgress | None = None
        self._tasks: list[TaskID] = []
        self._last_line = float("-inf")

    def open(self, rows: list[_Row]) -> None:
        if self._console.is_terminal:
            self._bars = _make_bars(self._console)
            self._bars.start()
        self.show(rows, is_due=True)

    def show(self, rows: list[_Row], is_due: bool) -> None:
        if self._bars is not None:
            self._draw(self._bars, rows)
        elif is_due or self._now() - self._last_line >= PLAIN_LINE_SECONDS:
            self._last_line = self._now()
            self._line(" | ".join(row.as_text() for row in rows))

    def finish(self, text: str) -> None:
        """Writes a line that stays above the bars."""
        self._line(text)

    def close(self, rows: list[_Row], is_complete: bool) -> None:
        elapsed = clock(rows[0].elapsed)
        if self._bars is not None:
            self._draw(self._bars, rows[:1] if is_complete else rows)
            self._bars.stop()
        else:
            end = f"done in {elapsed}" if is_complete else f"stopped after {elapsed}"
            self._line(f"{rows[0].title}: {end}")

    def _draw(self, bars: RichProgress, rows: list[_Row]) -> None:
        while len(self._tasks) > len(rows):
            bars.remove_task(self._tasks.pop())
        while len(self._tasks) < len(rows):
            self._tasks.append(bars.add_task("", total=1.0, elapsed="", left="", note=""))
        for task, row in zip(self._tasks, rows, strict=True):
            bars.update(
                task,
                completed=row.share,
                description=escape(row.title),
                elapsed=clock(row.elapsed),
                left=clock(row.remaining),
                note=escape(row.note),
            )

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _make_bars(console: Console) -> RichProgress:
    return RichProgress(
        SpinnerColumn(),  # turns during a step that reports nothing
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("[dim]{task.fields[elapsed]} elapsed,[/] {task.fields[left]} left"),
        TextColumn("[dim]{task.fields[note]}[/]"),
        console=console,
        expand=True,
    )
