# SPDX-License-Identifier: Apache-2.0
"""Audio file to audio file, of any rate, channel count and length, in constant memory."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from lmkd_tf.config.files import atomic_path
from lmkd_tf.dsp.pcm import float_to_int16
from lmkd_tf.evaluate.streaming import Backend, StreamingEnhancer, check_attenuation_limit

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus")

# Called with (seconds of audio done, seconds in all, name of the file).
OnProgress = Callable[[float, float, str], None]

_BLOCK_SECONDS = 4.0
# Zeros after the end, so that rounding in the two resamplers never loses a sample.
_TAIL_SECONDS = 0.05
_MAX_WAV_BYTES = 2**32 - 2**16  # sizes in a WAV header have 32 bits; RF64 goes on from there
_HIGH_RESOLUTION = {"PCM_24": "PCM_24", "PCM_32": "PCM_24", "FLOAT": "FLOAT", "DOUBLE": "FLOAT"}
_BYTES_PER_SAMPLE = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}
# libsndfile opens a truncated file without an error and says so in its log only.
_SHORT_DATA = re.compile(r"^\s*data\s*: (\d+) \(should be \d+\)", re.MULTILINE)
_UNKNOWN_DATA_BYTES = 0x7FFFFF00  # written by programs that stream to a pipe
_NO_OGG_END = "end-of-stream"


@dataclass
class FolderResult:
    """What became of the files of a folder.

    Args:
        written: Files written.
        failed: Path and reason of every file that could not be enhanced.
        skipped: Files that are not audio by their name.
    """

    written: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def enhance_file(
    input_path: str | os.PathLike,
    output_path: str | os.PathLike,
    make_backend: Callable[[], Backend],
    *,
    overwrite: bool = False,
    attenuation_limit_db: float = 0.0,
    on_progress: OnProgress | None = None,
) -> None:
    """Enhances one audio file.

    The output is a wav file with the rate, channels and number of frames of the
    input, aligned with it sample by sample, in 16, 24 or 32 (float) bits as the
    input. The networks hear up to 8 kHz, so nothing above is in the output.

    Args:
        input_path: wav, flac or ogg file.
        output_path: wav file to write, whole or not at all.
        make_backend: Makes a back-end; called once per channel.
        overwrite: Whether an existing output may be replaced.
        attenuation_limit_db: Most that any band is attenuated, in dB; 0 is no limit.
        on_progress: Called after every block.

    Raises:
        FileNotFoundError: If there is no input file.
        ValueError: If the input is no audio, empty, truncated or holds NaN, if the output
            must not be written there, or if the limit is negative.
        OSError: If the output cannot be written.
    """
    source, target = Path(input_path), Path(output_path)
    _check_paths(source, target, overwrite)
    with _open_audio(source) as audio:
        enhancers = [
            StreamingEnhancer(make_backend(), attenuation_limit_db=attenuation_limit_db)
            for _ in range(audio.channels)
        ]
        _enhance_open_file(audio, source, target, enhancers, on_progress)


def enhance_folder(
    input_folder: str | os.PathLike,
    output_folder: str | os.PathLike,
    make_backend: Callable[[], Backend],
    *,
    overwrite: bool = False,
    attenuation_limit_db: float = 0.0,
    on_progress: OnProgress | None = None,
) -> FolderResult:
    """Enhances the audio files of a folder and of the folders in it.

    `INPUT/a/b.flac` becomes `OUTPUT/a/b.wav`. A file that fails is listed in the
    result and the others go on. Hidden files, files in the output folder and
    files without an audio suffix are left out.

    Args:
        input_folder: Folder to read.
        output_folder: Folder to write; made where missing.
        make_backend: Makes a back-end; called as often as a file has channels.
        overwrite: Whether existing outputs may be replaced.
        attenuation_limit_db: Most that any band is attenuated, in dB; 0 is no limit.
        on_progress: Called after every block.

    Returns:
        The files written, failed and skipped.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no audio, two inputs have the same output, or the limit is
            negative.
    """
    check_attenuation_limit(attenuation_limit_db)
    pairs, skipped = _plan_folder(Path(input_folder), Path(output_folder))
    lengths = [_seconds_of(source) for source, _ in pairs]
    take = _BackendPool(make_backend)
    result = FolderResult(skipped=skipped)
    for index, (source, target) in enumerate(pairs):
        report = _shifted(on_progress, sum(lengths[:index]), sum(lengths))
        take.rewind()
        try:
            enhance_file(
                source,
                target,
                take,
                overwrite=overwrite,
                attenuation_limit_db=attenuation_limit_db,
                on_progress=report,
            )
            result.written.append(target)
        except (ValueError, OSError) as error:
            result.failed.append((source, str(error)))
    return result


class _BackendPool:
    """Hands out back-ends that are loaded once and used for every file."""

    def __init__(self, make_backend: Callable[[], Backend]) -> None:
        self._make_backend = make_backend
        self._backends: list[Backend] = []
        self._num_taken = 0

    def rewind(self) -> None:
        self._num_taken = 0

    def __call__(self) -> Backend:
        if self._num_taken == len(self._backends):
            self._backends.append(self._make_backend())
        self._num_taken += 1
        return self._backends[self._num_taken - 1]


def _check_paths(source: Path, target: Path, overwrite: bool) -> None:
    if not source.exists():
        raise FileNotFoundError(
            f"The input must exist. Received {source}, which does not. Check the path."
        )
    if target.is_dir():
        raise ValueError(
            "The output of a file must be a file. "
            f"Received {target}, which is a folder. Use for example {target / source.stem}.wav."
        )
    if target.exists() and os.path.samefile(source, target):
        raise ValueError(
            "The output must not replace the input. "
            f"Received {source} for both. Give the output another name."
        )
    if target.suffix.lower() != ".wav":
        raise ValueError(
            f"The output must be a wav file. Received {target}. Use {target.with_suffix('.wav')}."
        )
    if target.exists() and not overwrite:
        raise ValueError(
            "An existing file is replaced on demand only. "
            f"Received {target}, which exists. Add --overwrite or give another name."
        )


def _open_audio(path: Path) -> soundfile.SoundFile:
    try:
        audio = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        found = "empty" if path.is_file() and path.stat().st_size == 0 else "not audio, or damaged"
        raise ValueError(
            "The input must be a wav, flac or ogg file. "
            f"Received {path}, which is {found} ({error.error_string.rstrip('.')}). "
            "Check the file."
        ) from error
    try:
        _check_complete(audio, path)
    except ValueError:
        audio.close()
        raise
    return audio


def _check_complete(audio: soundfile.SoundFile, path: Path) -> None:
    short = _SHORT_DATA.search(audio.extra_info)
    if (short and int(short[1]) < _UNKNOWN_DATA_BYTES) or _NO_OGG_END in audio.extra_info:
        raise _truncated(path, audio.frames)
    if audio.frames == 0:
        raise ValueError(
            "The input must hold at least one sample. "
            f"Received {path}, which holds none. Check how it was recorded."
        )


def _truncated(path: Path, num_frames: int) -> ValueError:
    return ValueError(
        "The input must be complete. "
        f"Received {path}, which ends before its header says (after {num_frames} samples). "
        "Copy it again, or save the readable part under a new name with an audio editor."
    )


def _enhance_open_file(
    audio: soundfile.SoundFile,
    source: Path,
    target: Path,
    enhancers: Sequence[StreamingEnhancer],
    on_progress: OnProgress | None,
) -> None:
    subtype = _HIGH_RESOLUTION.get(audio.subtype, "PCM_16")
    num_bytes = audio.frames * audio.channels * _BYTES_PER_SAMPLE[subtype]
    container = "WAV" if num_bytes < _MAX_WAV_BYTES else "RF64"
    rate_hz, channels, num_written = audio.samplerate, audio.channels, 0
    with atomic_path(target) as temporary:
        with _open_output(temporary, target, rate_hz, channels, (container, subtype)) as output:
            for block in _enhanced_blocks(audio, source, enhancers):
                block = block[: audio.frames - num_written]
                _write(output, _to_pcm(block, subtype), target)
                num_written += len(block)
                if on_progress:
                    on_progress(num_written / rate_hz, audio.frames / rate_hz, source.name)
        if soundfile.info(temporary).frames != audio.frames:
            raise _not_written(target)


def _open_output(
    temporary: Path, target: Path, rate_hz: int, channels: int, kind: tuple[str, str]
) -> soundfile.SoundFile:
    container, subtype = kind
    try:
        return soundfile.SoundFile(
            temporary, "w", rate_hz, channels, subtype=subtype, format=container
        )
    except soundfile.LibsndfileError as error:
        raise _not_written(target) from error


def _write(output: soundfile.SoundFile, block: np.ndarray, target: Path) -> None:
    try:
        output.write(block)
    except (AssertionError, soundfile.LibsndfileError) as error:  # soundfile asserts the length
        raise _not_written(target) from error


def _not_written(target: Path) -> OSError:
    return OSError(
        "The output must fit on the disk. "
        f"Received {target}, which could not be written whole. Free some space."
    )


def _enhanced_blocks(
    audio: soundfile.SoundFile, source: Path, enhancers: Sequence[StreamingEnhancer]
) -> Iterator[np.ndarray]:
    """Yields enhanced blocks `(N, C)`, together at least as long as the input."""
    rate_hz, network_rate_hz = audio.samplerate, enhancers[0].backend.stft.sample_rate_hz
    to_network = _resampler(rate_hz, network_rate_hz, audio.channels)
    to_file = _resampler(network_rate_hz, rate_hz, audio.channels)
    for block in _read_blocks(audio, source):
        channels = to_network(block, False).T
        enhanced = [e.feed(x) for e, x in zip(enhancers, channels, strict=True)]
        yield to_file(np.stack(enhanced, axis=1), False)
    tail = np.zeros((round(_TAIL_SECONDS * rate_hz), audio.channels), np.float32)
    channels = to_network(tail, True).T
    enhanced = [
        np.concatenate([e.feed(x), e.flush()]) for e, x in zip(enhancers, channels, strict=True)
    ]
    yield to_file(np.stack(enhanced, axis=1), True)


def _resampler(
    from_hz: int, to_hz: int, num_channels: int
) -> Callable[[np.ndarray, bool], np.ndarray]:
    if from_hz == to_hz:
        return lambda block, is_last: block
    stream = soxr.ResampleStream(from_hz, to_hz, num_channels, dtype="float32")
    return lambda block, is_last: stream.resample_chunk(np.ascontiguousarray(block), is_last)


def _read_blocks(audio: soundfile.SoundFile, path: Path) -> Iterator[np.ndarray]:
    """Yields finite blocks `(N, C)` in [-1, 1] until all promised frames are read."""
    num_read, length = 0, max(1, round(_BLOCK_SECONDS * audio.samplerate))
    while num_read < audio.frames:
        try:
            block = audio.read(length, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, AssertionError) as error:
            raise _truncated(path, num_read) from error
        if len(block) == 0:
            raise _truncated(path, num_read)
        _check_finite(block, num_read, audio.samplerate, path)
        num_read += len(block)
        yield block


def _check_finite(block: np.ndarray, first: int, rate_hz: int, path: Path) -> None:
    bad = np.argwhere(~np.isfinite(block))
    if len(bad):
        frame, channel = bad[0]
        position = first + int(frame)
        raise ValueError(
            "Every sample of the input must be finite. "
            f"Received {block[frame, channel]} at sample {position} ({position / rate_hz:.3f} s), "
            f"channel {channel + 1} of {path}. Repair the file with an audio editor."
        )


def _to_pcm(block: np.ndarray, subtype: str) -> np.ndarray:
    """Rounds and clips; libsndfile itself would cut the fraction off."""
    if subtype == "PCM_16":
        return float_to_int16(block)
    if subtype == "PCM_24":  # in the upper three bytes of an int32
        whole = np.rint(np.clip(block, -1.0, 1.0).astype(np.float64) * 2**23)
        return np.minimum(whole, 2**23 - 1).astype(np.int32) << 8
    return block


def _plan_folder(folder: Path, output_folder: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The input folder must exist. Received {folder}, which does not. Check the path."
        )
    if output_folder.exists() and not output_folder.is_dir():
        raise ValueError(
            "The output of a folder must be a folder. "
            f"Received {output_folder}, which is a file. Use another name."
        )
    files = [path for path in sorted(folder.rglob("*")) if _is_visible_file(path, folder)]
    if folder.resolve() in output_folder.resolve().parents:  # earlier outputs are no inputs
        files = [
            path for path in files if not path.resolve().is_relative_to(output_folder.resolve())
        ]
    sources = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    if not sources:
        raise ValueError(
            f"The input folder must hold audio ({', '.join(AUDIO_SUFFIXES)}). "
            f"Received {folder}, which holds none. Check the path."
        )
    pairs = [(p, output_folder / p.relative_to(folder).with_suffix(".wav")) for p in sources]
    _check_no_collision(pairs)
    return pairs, [path for path in files if path not in sources]


def _is_visible_file(path: Path, folder: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not is_hidden


def _check_no_collision(pairs: Sequence[tuple[Path, Path]]) -> None:
    owners = {source.resolve(): source for source, _ in pairs}
    for source, target in pairs:
        other = owners.setdefault(target.resolve(), source)
        if other is not source or other.resolve() == target.resolve():
            raise ValueError(
                "Every output must be a file of its own, and no input. "
                f"Received {source}, whose output {target} is also that of, or is, {other}. "
                "Rename one of them or choose another output folder."
            )


def _seconds_of(path: Path) -> float:
    try:
        info = soundfile.info(path)
        return info.frames / info.samplerate
    except soundfile.LibsndfileError:
        return 0.0


def _shifted(on_progress: OnProgress | None, start: float, total: float) -> OnProgress | None:
    if on_progress is None:
        return None
    return lambda done, _, name: on_progress(start + done, total, name)
