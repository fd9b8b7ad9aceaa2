# SPDX-License-Identifier: Apache-2.0
"""The texts of a firmware bundle: read-me, model card, operator resolver."""

from typing import Any

from lmkd_tf.firmware.headers import registration_name

_README = """\
# {name}: firmware bundle

1. Input is 16-bit mono at {rate} Hz, {hop} samples ({hop_ms:g} ms) at a time; output comes one
   hop later.
2. {build}
3. {call}
4. With TensorFlow Lite Micro: `c/model_data.c` (aligned to 16 bytes) and `c/op_resolver.h`, whose
   `lmkd_register_operators` adds the {num_operators} operators; arena {arena:,} bytes, an upper
   bound for 32-bit cores.
5. State: {num_states} tensors, {state_bytes:,} bytes. After each hop copy every output of
   `LMKD_STATES` in `c/lmkd_config.h` to its input, byte for byte; at the start fill each with its
   zero point, not with 0.
6. Features and mask: `c/lmkd_config.h` has their scales, `c/tables.c` window, bands and twiddles.
7. Self-test: feed `golden/samples.bin`, compare each stage with the file and tolerance in
   `golden/vectors.json`.
8. Compile with -O2 -ffp-contract=off, never -ffast-math; keep model and tables in flash.
9. Memory, work and estimated cycles: `cost.json`. What the model is and is not: `MODEL_CARD.md`.
10. Check this bundle: `lmkd-export --verify=.` (with {version}); hashes are in `manifest.json`.
"""
_BUILD = (
    "Compile every `lib/src/*.c` and {sources} with\n"
    "   `-Ilib/include -Ilib/src -Ic`; the library needs no other and never calls malloc."
)
_CALL = (
    "Call `lmkd_init` once and `lmkd_process_hop(state, in, out)` per hop;\n"
    "   `lib/include/lmkd/lmkd.h` is the manual."
)
_NO_BUILD = "This model has no generated C ({reason}); it runs in TensorFlow Lite Micro."
_NO_CALL = "Transforms, features and mask are in `lib/src/front_end.c` and `lib/src/fft.c`."


def readme(manifest: dict[str, Any], version: str) -> str:
    """Returns the ten lines that a firmware engineer needs."""
    stft = manifest["stft"]
    has_c = manifest.get("has_c_kernels", True)
    sources = "`c/tables.c`, `c/model_aot.c`, `c/model_image.c`"
    reason = f"{manifest['model']['dtype']} activations"
    return _README.format(
        name=manifest["name"],
        rate=stft["sample_rate_hz"],
        hop=stft["hop_length"],
        hop_ms=1000 * stft["hop_length"] / stft["sample_rate_hz"],
        build=_BUILD.format(sources=sources) if has_c else _NO_BUILD.format(reason=reason),
        call=_CALL if has_c else _NO_CALL,
        num_operators=len(manifest["operators"]),
        arena=manifest["arena_bytes"],
        num_states=len(manifest["states"]),
        state_bytes=sum(state["bytes"] for state in manifest["states"]),
        version=version,
    )


def model_card(manifest: dict[str, Any]) -> str:
    """Returns what the model is, where it comes from and what it is not for."""
    network = manifest.get("network") or {}
    calibration = manifest.get("calibration") or {}
    ranges = (
        f"calibrated after training on {calibration['num_frames']} frames of "
        f"{len(calibration['files'])} recordings (seed {calibration['seed']}, SHA-256 "
        f"{calibration['sha256'][:12]})"
        if calibration
        else "trained (quantization-aware)"
    )
    size = ", ".join(f"{k}={v}" for k, v in (network.get("size") or {}).items()) or "its default"
    return (
        f"# Model card: {manifest['name']}\n\n"
        "Task: removes noise from one channel of 16 kHz speech, causally, hop by hop. It maps\n"
        "band features to a gain per band; phase is that of the input.\n\n"
        "| | |\n|---|---|\n"
        f"| network | {network.get('architecture', 'unknown')}, size {size} |\n"
        f"| parameters, multiply-accumulates per hop | {manifest['parameters']:,}, "
        f"{manifest['macs_per_hop']:,} |\n"
        f"| arithmetic | {manifest['model']['dtype']} activations, int8 weights; "
        f"ranges {ranges} |\n"
        f"| trained weights | SHA-256 {manifest['created_from']} |\n"
        f"| model file | {manifest['model']['file']}, SHA-256 {manifest['model']['sha256']} |\n"
        f"| golden runtime | tflite-micro {manifest['runtime']['tflite_micro']} |\n"
        f"| TFLite reference kernels | {_agreement(manifest)} |\n\n"
        "Not for: other sample rates, several talkers to be kept apart, music, medical or safety\n"
        "decisions. Gains can remove weak consonants at low signal-to-noise ratios. Scores are\n"
        "those of the quality ledger (`lmkd-export --ledger`).\n\n"
        "License: Apache-2.0 (LICENSE).\n"
    )


def op_resolver(manifest: dict[str, Any], notice: str) -> str:
    """Returns a C++ header that registers exactly the operators of the model."""
    names = [registration_name(entry["name"]) for entry in manifest["operators"]]
    lines = "".join(
        f"    if (resolver.Add{n}() != kTfLiteOk) return kTfLiteError;\n" for n in names
    )
    return (
        f"{notice}#ifndef LMKD_OP_RESOLVER_H\n#define LMKD_OP_RESOLVER_H\n\n"
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n\n'
        f"#define LMKD_RESOLVER_OPERATORS {len(names)}\n\n"
        "// Works with tflite::MicroMutableOpResolver and, after August 2026, with that of\n"
        "// tflite::micro; give it room for LMKD_RESOLVER_OPERATORS or more.\n"
        "template <typename Resolver>\n"
        "TfLiteStatus lmkd_register_operators(Resolver &resolver) {\n"
        f"{lines}    return kTfLiteOk;\n}}\n\n"
        "#endif // LMKD_OP_RESOLVER_H\n"
    )


def _agreement(manifest: dict[str, Any]) -> str:
    steps = manifest.get("tflite_steps", 0)
    if not steps:
        return "the same bits"
    return f"differ by up to {steps} step at one operator; TFLite Micro is the golden one"
