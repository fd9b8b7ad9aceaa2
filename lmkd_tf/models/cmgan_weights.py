# SPDX-License-Identifier: Apache-2.0
"""Imports weights of CMGAN that were published for PyTorch; no code of the file is ever run."""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.models.builder import build

_Part = tuple[tuple[str, ...], Callable[..., list[np.ndarray]]]
_COUNTER = "num_batches_tracked"  # of a batch normalization; inference has no use for it


def load_cmgan(path: str | Path) -> Any:
    """Loads a PyTorch state dict of CMGAN's generator.

    Args:
        path: `.npz` with one array per name of the state dict, or a file of `torch.save`, which
            needs the package `torch` and is read with `weights_only=True`.

    Returns:
        `CMGANEnhancer` of the same size, from noisy `(B, N)` to enhanced `(B, N)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the file needs `torch` and that is not installed.
        ValueError: If the file is damaged, or its names or shapes are not those of CMGAN.
    """
    return convert_state_dict(read_state_dict(path))


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file by name; see `load_cmgan`."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"Weights are read from a file. Received {path}, which does not exist. Check the path."
        )
    try:
        if Path(path).suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        torch = _import_torch(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.numpy() for name, tensor in tensors.items()}
    except ImportError:
        raise
    except Exception as error:  # both libraries raise many types for a damaged file
        raise ValueError(
            "The file must hold named tensors and nothing else. "
            f"Received {path}, which cannot be read so ({type(error).__name__}: {error}). "
            "Use a state dict, saved by torch.save or numpy.savez."
        ) from error


def convert_state_dict(tensors: Mapping[str, np.ndarray]) -> Any:
    """Builds the network that a state dict belongs to and copies its weights.

    Args:
        tensors: Arrays by their names in PyTorch.

    Returns:
        `CMGANEnhancer` with these weights.

    Raises:
        ValueError: If a name is missing or left over, or a shape is another one.
    """
    tensors = {name: value for name, value in tensors.items() if not name.endswith(_COUNTER)}
    model = build("cmgan", **_size_of(tensors))
    parts = dict(_parts(model.size["num_blocks"]))
    _check_names(tensors, {name for names, _ in parts.values() for name in names})
    for layer_name, (names, convert) in parts.items():
        layer = model.core.get_layer(layer_name)
        values = convert(*(np.asarray(tensors[name], np.float32) for name in names))
        for value, variable in zip(values, layer.weights, strict=True):
            if value.shape != tuple(variable.shape):
                raise ValueError(
                    "Every tensor must have the shape that the network of its size has. "
                    f"Received {[tensors[name].shape for name in names]} for {list(names)}, which "
                    f"give {value.shape} and not {tuple(variable.shape)}. Use a state dict of "
                    "CMGAN's generator (TSCNet)."
                )
        layer.set_weights(values)
    return model


def _import_torch(path: str | Path) -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            "A file of torch.save is read by PyTorch, which this package does not need otherwise. "
            f"Received {path} and an import error ({error}). Install torch, or convert the file "
            "where it is installed, by numpy.savez(name, **tensors)."
        ) from error


def _size_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the size arguments that the shapes tell."""
    blocks = {match[1] for name in tensors if (match := re.match(r"TSCB_(\d+)\.", name))}
    table = "TSCB_1.{}_conformer.attn.fn.rel_pos_emb.weight"
    needed = (
        *("dense_encoder.conv_1.0.weight", "mask_decoder.prelu_out.weight"),
        *(table.format(axis) for axis in ("time", "freq")),
    )
    _check_names({name: value for name, value in tensors.items() if name in needed}, set(needed))
    channels, num_bins, *rows = (tensors[name].shape[0] for name in needed)
    fft_length = 2 * (num_bins - 1)
    return {
        "channels": channels,
        "num_blocks": len(blocks),
        "frame": (fft_length, fft_length // 4),
        "max_distances": (rows[0] // 2, rows[1] // 2),
    }


def _check_names(tensors: Mapping[str, np.ndarray], wanted: set[str]) -> None:
    missing, extra = sorted(wanted - set(tensors)), sorted(set(tensors) - wanted)
    if missing or extra:
        raise ValueError(
            "The names must be those of CMGAN's generator (TSCNet). "
            f"Received a file without {missing[:4] or 'none'} ({len(missing)} missing) and with "
            f"{extra[:4] or 'none'} ({len(extra)} unknown). Use its state dict, without a "
            "discriminator or optimizer."
        )


def _parts(num_blocks: int) -> Iterator[tuple[str, _Part]]:
    """Yields the layer here, and the names there with the conversion of their tensors."""
    yield from _conv_unit("encoder_in_conv", "encoder_in", "dense_encoder.conv_1")
    yield from _dense_block("encoder_dense", "dense_encoder.dilated_dense")
    yield from _conv_unit("encoder_conv", "encoder", "dense_encoder.conv_2")
    for index in range(1, num_blocks + 1):
        for axis, name in (("time", "time"), ("freq", "frequency")):
            source = f"TSCB_{index}.{axis}_conformer"
            yield from _conformer(f"tscb_{index}_{name}", source, axis)
    yield from _dense_block("mask_dense", "mask_decoder.dense_block")
    yield "mask_sub_pixel_conv", _conv("mask_decoder.sub_pixel.conv")
    yield "mask_conv", _conv("mask_decoder.conv_1")
    yield "mask_rectified_norm", _norm("mask_decoder.norm")
    yield "mask_rectified", _prelu("mask_decoder.prelu")
    yield "mask_scale", _conv("mask_decoder.final_conv")
    yield "mask", (("mask_decoder.prelu_out.weight",), lambda slopes: [slopes[None, :, None]])
    yield from _dense_block("complex_dense", "complex_decoder.dense_block")
    yield "complex_sub_pixel_conv", _conv("complex_decoder.sub_pixel.conv")
    yield "complex_rectified_norm", _norm("complex_decoder.norm")
    yield "complex_rectified", _prelu("complex_decoder.prelu")
    yield "complex", _conv("complex_decoder.conv")


def _conv_unit(conv: str, name: str, source: str) -> Iterator[tuple[str, _Part]]:
    yield conv, _conv(f"{source}.0")
    yield f"{name}_norm", _norm(f"{source}.1")
    yield name, _prelu(f"{source}.2")


def _dense_block(name: str, source: str) -> Iterator[tuple[str, _Part]]:
    for index in range(1, 5):
        unit = name if index == 4 else f"{name}_{index}"
        yield f"{name}_conv_{index}", _conv(f"{source}.conv{index}")
        yield f"{unit}_norm", _norm(f"{source}.norm{index}")
        yield unit, _prelu(f"{source}.prelu{index}")


def _conformer(name: str, source: str, axis: str) -> Iterator[tuple[str, _Part]]:
    for part in ("ff1", "ff2"):
        yield f"{name}_{part}_norm", _norm(f"{source}.{part}.fn.norm")
        yield f"{name}_{part}_wide", _linear(f"{source}.{part}.fn.fn.net.0")
        yield f"{name}_{part}_narrow", _linear(f"{source}.{part}.fn.fn.net.3")
    attention = f"{source}.attn.fn"
    names = ("to_q.weight", "to_kv.weight", "rel_pos_emb.weight", "to_out.weight", "to_out.bias")
    yield f"{name}_attention_norm", _norm(f"{source}.attn.norm")
    yield (
        f"{name}_attention",
        (
            tuple(f"{attention}.{part}" for part in names),
            lambda query, key_value, table, out, bias: [query.T, key_value.T, table, out.T, bias],
        ),
    )
    yield f"{name}_conv_norm", _norm(f"{source}.conv.net.0")
    gated = _named(f"{source}.conv.net.2")
    yield f"{name}_conv_value", (gated, lambda w, b: [np.split(w[..., 0].T, 2, 1)[0], _half(b, 0)])
    yield f"{name}_conv_gate", (gated, lambda w, b: [np.split(w[..., 0].T, 2, 1)[1], _half(b, 1)])
    shape = (-1, 1) if axis == "time" else (1, -1)
    yield (
        f"{name}_conv_depthwise",
        (
            _named(f"{source}.conv.net.4.conv"),
            lambda w, b: [w[:, 0].T.reshape(*shape, w.shape[0], 1), b],
        ),
    )
    statistics = ("weight", "bias", "running_mean", "running_var")
    batch_norm = tuple(f"{source}.conv.net.5.{part}" for part in statistics)
    yield f"{name}_batch_norm", (batch_norm, lambda *values: list(values))
    yield (
        f"{name}_conv_narrow",
        (_named(f"{source}.conv.net.7"), lambda w, b: [w[..., 0].T, b]),
    )
    yield f"{name}_norm", _norm(f"{source}.post_norm")


def _named(source: str) -> tuple[str, str]:
    return f"{source}.weight", f"{source}.bias"


def _conv(source: str) -> _Part:
    return _named(source), lambda weight, bias: [weight.transpose(2, 3, 1, 0), bias]


def _linear(source: str) -> _Part:
    return _named(source), lambda weight, bias: [weight.T, bias]


def _norm(source: str) -> _Part:
    return _named(source), lambda weight, bias: [weight, bias]


def _prelu(source: str) -> _Part:
    return (f"{source}.weight",), lambda slopes: [slopes[None, None]]


def _half(values: np.ndarray, index: int) -> np.ndarray:
    return np.split(values, 2)[index]
