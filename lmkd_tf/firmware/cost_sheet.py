# SPDX-License-Identifier: Apache-2.0
"""Memory and cost of an exported student: what was counted, and what is estimated from it."""

from typing import Any

# Instructions of the generated C per multiply-accumulate, and of everything around the network per
# hop (transforms, features, mask), as the emulator counted them for the shipped student; a test
# holds them against microcontroller/footprint.json.
INSTRUCTIONS_PER_MAC = {"m4f": 2.17, "m7": 2.19, "m55": 1.42}
FRONT_END_INSTRUCTIONS = {"m4f": 72_800, "m7": 72_600, "m55": 62_700}
# Assumed, not measured: an emulator counts no cycles.
CYCLES_PER_INSTRUCTION = {"m4f": 1.5, "m7": 1.0, "m55": 1.5}


def cost_sheet(manifest: dict[str, Any], c_bytes: dict[str, int] | None) -> dict[str, Any]:
    """Returns flash, RAM, work and estimated cycles per hop.

    Args:
        manifest: Manifest of the exported model.
        c_bytes: `image` and `memory` of the generated C, or None where there is none.

    Returns:
        Plain values; `estimated` is empty where there is no generated C.
    """
    stft = manifest["stft"]
    hops_per_second = stft["sample_rate_hz"] / stft["hop_length"]
    macs = manifest["macs_per_hop"]
    return {
        "flash_bytes": {
            "tflite": manifest["model"]["bytes"],
            "generated_c_constants": c_bytes["image"] if c_bytes else None,
        },
        "ram_bytes": {
            "tflm_arena": manifest["arena_bytes"],
            "tflm_arena_parts": manifest.get("arena", {}).get("parts", {}),
            "generated_c_memory": c_bytes["memory"] if c_bytes else None,
            "state": sum(state["bytes"] for state in manifest["states"]),
        },
        "parameters": manifest["parameters"],
        "macs_per_hop": macs,
        "macs_per_second": round(macs * hops_per_second),
        "operators": manifest["operators"],
        "estimated": _estimates(macs, hops_per_second) if c_bytes else {},
        "note": (
            "Bytes, multiply-accumulates and operators are counted. Instructions and cycles are "
            "estimated from the shipped student on an emulator; measure them on the board."
        ),
    }


def _estimates(macs: int, hops_per_second: float) -> dict[str, dict[str, float]]:
    sheet = {}
    for core, per_mac in INSTRUCTIONS_PER_MAC.items():
        instructions = per_mac * macs + FRONT_END_INSTRUCTIONS[core]
        cycles = instructions * CYCLES_PER_INSTRUCTION[core]
        sheet[core] = {
            "instructions_per_hop": round(instructions),
            "cycles_per_instruction": CYCLES_PER_INSTRUCTION[core],
            "cycles_per_hop": round(cycles),
            "megahertz": round(cycles * hops_per_second / 1e6, 2),
        }
    return sheet
