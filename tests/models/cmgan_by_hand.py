# SPDX-License-Identifier: Apache-2.0
"""CMGAN in NumPy, from its equations: tensors `(B, C, T, F)`, weights in PyTorch's layouts."""

import numpy as np


def random_state_dict(channels=4, num_blocks=1, num_bins=9, rows=(9, 21), seed=0):
    """Tensors with the names and shapes of the published state dict, batch statistics included."""
    shapes = _Shapes(channels)
    shapes.encoder()
    for index in range(1, num_blocks + 1):
        shapes.conformer(f"TSCB_{index}.time_conformer", rows[0])
        shapes.conformer(f"TSCB_{index}.freq_conformer", rows[1])
    shapes.decoders(num_bins)
    rng = np.random.default_rng(seed)
    tensors = {name: 0.4 * rng.normal(size=shape) for name, shape in shapes.by_name.items()}
    for name in tensors:
        if name.endswith("running_var"):
            tensors[name] = 0.5 + np.abs(tensors[name])
    return {name: value.astype(np.float32) for name, value in tensors.items()}


class _Shapes:
    def __init__(self, channels):
        self.by_name, self.channels = {}, channels

    def add(self, prefix, weight, bias=None):
        self.by_name[f"{prefix}.weight"] = weight
        if bias is not None:
            self.by_name[f"{prefix}.bias"] = (bias,)

    def norm(self, prefix, width=None):
        width = width or self.channels
        self.add(prefix, (width,), width)

    def unit(self, prefix, in_channels, kernel):
        self.add(f"{prefix}.0", (self.channels, in_channels, *kernel), self.channels)
        self.norm(f"{prefix}.1")
        self.add(f"{prefix}.2", (self.channels,))

    def dense(self, prefix):
        c = self.channels
        for index in range(1, 5):
            self.add(f"{prefix}.conv{index}", (c, index * c, 2, 3), c)
            self.norm(f"{prefix}.norm{index}")
            self.add(f"{prefix}.prelu{index}", (c,))

    def encoder(self):
        self.unit("dense_encoder.conv_1", 3, (1, 1))
        self.dense("dense_encoder.dilated_dense")
        self.unit("dense_encoder.conv_2", self.channels, (1, 3))

    def conformer(self, prefix, num_rows):
        c, attention, net = self.channels, f"{prefix}.attn.fn", f"{prefix}.conv.net"
        for part in ("ff1", "ff2"):
            self.norm(f"{prefix}.{part}.fn.norm")
            self.add(f"{prefix}.{part}.fn.fn.net.0", (4 * c, c), 4 * c)
            self.add(f"{prefix}.{part}.fn.fn.net.3", (c, 4 * c), c)
        self.norm(f"{prefix}.attn.norm")
        self.add(f"{attention}.to_q", (c, c))
        self.add(f"{attention}.to_kv", (2 * c, c))
        self.add(f"{attention}.to_out", (c, c), c)
        self.add(f"{attention}.rel_pos_emb", (num_rows, c // 4))
        self.norm(f"{net}.0")
        self.add(f"{net}.2", (4 * c, c, 1), 4 * c)
        self.add(f"{net}.4.conv", (2 * c, 1, 31), 2 * c)
        self.norm(f"{net}.5", 2 * c)
        self.by_name[f"{net}.5.running_mean"] = (2 * c,)
        self.by_name[f"{net}.5.running_var"] = (2 * c,)
        self.add(f"{net}.7", (c, 2 * c, 1), c)
        self.norm(f"{prefix}.post_norm")

    def decoders(self, num_bins):
        c = self.channels
        for decoder in ("mask_decoder", "complex_decoder"):
            self.dense(f"{decoder}.dense_block")
            self.add(f"{decoder}.sub_pixel.conv", (2 * c, c, 1, 3), 2 * c)
            width = 1 if decoder == "mask_decoder" else c
            self.norm(f"{decoder}.norm", width)
            self.add(f"{decoder}.prelu", (width,))
        self.add("mask_decoder.conv_1", (1, c, 1, 2), 1)
        self.add("mask_decoder.final_conv", (1, 1, 1, 1), 1)
        self.add("mask_decoder.prelu_out", (num_bins,))
        self.add("complex_decoder.conv", (2, c, 1, 2), 2)


class Generator:
    """The generator's equations in float64."""

    def __init__(self, tensors):
        self.tensors = {name: value.astype(np.float64) for name, value in tensors.items()}

    def __call__(self, spectrum):
        """Maps a compressed complex spectrum `(B, T, F)` to the enhanced one."""
        parts = [np.abs(spectrum), spectrum.real, spectrum.imag]
        x = self.unit(np.stack(parts, axis=1), "dense_encoder.conv_1")
        x = self.dense(x, "dense_encoder.dilated_dense")
        x = self.unit(_pad(x, (0, 0), (1, 1)), "dense_encoder.conv_2", stride=2)
        index = 1
        while f"TSCB_{index}.time_conformer.post_norm.weight" in self.tensors:
            x = self.block(x, f"TSCB_{index}")
            index += 1
        mask = self.mask(x)
        y = self.sub_pixel(self.dense(x, "complex_decoder.dense_block"), "complex_decoder")
        y = self.instance_norm(y, "complex_decoder.norm")
        real, imaginary = np.moveaxis(
            self.conv(self.prelu(y, "complex_decoder.prelu"), "complex_decoder.conv"), 1, 0
        )
        phase = np.angle(spectrum)
        return mask * np.abs(spectrum) * np.exp(1j * phase) + real + 1j * imaginary

    def mask(self, x):
        x = self.sub_pixel(self.dense(x, "mask_decoder.dense_block"), "mask_decoder")
        x = self.instance_norm(self.conv(x, "mask_decoder.conv_1"), "mask_decoder.norm")
        x = self.conv(self.prelu(x, "mask_decoder.prelu"), "mask_decoder.final_conv")[:, 0]
        slopes = self.tensors["mask_decoder.prelu_out.weight"]  # one per bin
        return np.where(x > 0, x, slopes * x)

    def conv(self, x, name, stride=1, dilation=1):
        kernel = self.tensors[f"{name}.weight"]
        num_frames = x.shape[2] - (kernel.shape[2] - 1) * dilation
        num_bins = (x.shape[3] - kernel.shape[3]) // stride + 1
        y = np.zeros((x.shape[0], kernel.shape[0], num_frames, num_bins))
        for i in range(kernel.shape[2]):
            for j in range(kernel.shape[3]):
                part = x[:, :, i * dilation :][:, :, :num_frames]
                part = part[..., j : j + (num_bins - 1) * stride + 1 : stride]
                y += np.tensordot(kernel[:, :, i, j], part, (1, 1)).swapaxes(0, 1)
        return y + self.tensors[f"{name}.bias"][:, None, None]

    def instance_norm(self, x, name):
        mean, variance = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
        weight, bias = (self.tensors[f"{name}.{part}"][:, None, None] for part in _PARTS)
        return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias

    def prelu(self, x, name):
        return np.where(x > 0, x, self.tensors[f"{name}.weight"][:, None, None] * x)

    def unit(self, x, name, stride=1):
        x = self.instance_norm(self.conv(x, f"{name}.0", stride), f"{name}.1")
        return self.prelu(x, f"{name}.2")

    def dense(self, x, name):
        seen = x
        for index in range(1, 5):
            dilation = 2 ** (index - 1)
            padded = _pad(seen, (dilation, 0), (1, 1))
            x = self.conv(padded, f"{name}.conv{index}", dilation=dilation)
            x = self.prelu(self.instance_norm(x, f"{name}.norm{index}"), f"{name}.prelu{index}")
            seen = np.concatenate([x, seen], axis=1)
        return x

    def sub_pixel(self, x, name):
        y = self.conv(_pad(x, (0, 0), (1, 1)), f"{name}.sub_pixel.conv")
        width = y.shape[1] // 2
        doubled = np.zeros((*y.shape[:1], width, y.shape[2], 2 * y.shape[3]))
        doubled[..., 0::2], doubled[..., 1::2] = y[:, :width], y[:, width:]
        return doubled

    def block(self, x, name):
        frames = np.moveaxis(x, 1, -1)  # (B, T, F, C)
        along_time = frames.swapaxes(1, 2)
        along_time = along_time + self.conformer(along_time, f"{name}.time_conformer")
        frames = along_time.swapaxes(1, 2)
        frames = frames + self.conformer(frames, f"{name}.freq_conformer")
        return np.moveaxis(frames, -1, 1)

    def conformer(self, x, name):
        """One conformer on sequences `(..., N, C)`."""
        x = x + 0.5 * self.feed_forward(x, f"{name}.ff1.fn")
        x = x + self.attention(self.layer_norm(x, f"{name}.attn.norm"), f"{name}.attn.fn")
        x = x + self.convolution(x, f"{name}.conv.net")
        x = x + 0.5 * self.feed_forward(x, f"{name}.ff2.fn")
        return self.layer_norm(x, f"{name}.post_norm")

    def layer_norm(self, x, name):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        weight, bias = (self.tensors[f"{name}.{part}"] for part in _PARTS)
        return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias

    def linear(self, x, name):
        weight = self.tensors[f"{name}.weight"]
        y = x @ weight.reshape(weight.shape[:2]).T
        return y + self.tensors.get(f"{name}.bias", 0.0)

    def feed_forward(self, x, name):
        y = self.linear(self.layer_norm(x, f"{name}.norm"), f"{name}.fn.net.0")
        return self.linear(y * _sigmoid(y), f"{name}.fn.net.3")

    def attention(self, x, name):
        query, key_value = self.linear(x, f"{name}.to_q"), self.linear(x, f"{name}.to_kv")
        width, length = x.shape[-1], x.shape[-2]
        key, value = key_value[..., :width], key_value[..., width:]
        table = self.tensors[f"{name}.rel_pos_emb.weight"]
        farthest, size = len(table) // 2, width // 4
        mixed = np.zeros_like(x)
        for head in range(4):
            part = slice(head * size, (head + 1) * size)
            logits = np.zeros((*x.shape[:-1], length))
            for i in range(length):
                for j in range(length):
                    position = table[np.clip(i - j, -farthest, farthest) + farthest]
                    logits[..., i, j] = np.sum(
                        query[..., i, part] * (key[..., j, part] + position), -1
                    )
            weights = np.exp(logits / np.sqrt(size))
            weights /= weights.sum(-1, keepdims=True)
            mixed[..., part] = weights @ value[..., part]
        return self.linear(mixed, f"{name}.to_out")

    def convolution(self, x, name):
        y = self.linear(self.layer_norm(x, f"{name}.0"), f"{name}.2")
        width = y.shape[-1] // 2
        y = y[..., :width] * _sigmoid(y[..., width:])
        kernel, padded = self.tensors[f"{name}.4.conv.weight"][:, 0], _pad_rows(y, 15)
        y = sum(padded[..., k : k + y.shape[-2], :] * kernel[:, k] for k in range(31))
        y = y + self.tensors[f"{name}.4.conv.bias"]
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (self.tensors[f"{name}.5.{part}"] for part in names)
        y = (y - mean) / np.sqrt(variance + 1e-5) * weight + bias
        return self.linear(y * _sigmoid(y), f"{name}.7")


_PARTS = ("weight", "bias")


def _pad(x, frames, bins):
    return np.pad(x, [(0, 0), (0, 0), frames, bins])


def _pad_rows(x, count):
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(count, count), (0, 0)])


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))
