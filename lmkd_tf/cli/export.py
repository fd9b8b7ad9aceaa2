# SPDX-License-Identifier: Apache-2.0
"""`lmkd-export`: exports the student, bundles it for firmware, checks bundles, lists the losses.

Usage:
  lmkd-export --workdir=FOLDER --data=FOLDER [--config=NAME]        the stage `export` of the road
  lmkd-export --bundle=FOLDER --model=FILE.tflite                   a firmware bundle of any export
  lmkd-export --verify=BUNDLE                                       checks a bundle, folder or zip
  lmkd-export --ledger --workdir=FOLDER --data=FOLDER [--config=NAME]     what each step cost
  lmkd-export --ledger --preset=NAME --data=FOLDER                  the same for a shipped student
"""

import sys

from absl import flags

from lmkd_tf.cli.common import TRAINING_FLAGS, define_flags, run_program, run_stages

_MODES = ("verify", "bundle", "ledger")


def main(arguments: list[str]) -> int:
    """Runs the mode that the flags ask for."""
    values = flags.FLAGS
    if len(arguments) > 1:
        raise ValueError(
            f"This program takes flags only. Received {arguments[1:]}. See lmkd-export --help."
        )
    chosen = [mode for mode in _MODES if values[mode].value]
    if len(chosen) > 1:
        raise ValueError(
            f"One thing at a time: --{', --'.join(_MODES)} exclude each other. "
            f"Received --{' and --'.join(chosen)}. Run the program once for each."
        )
    if chosen == ["verify"]:
        return _verify(values.verify)
    if chosen == ["bundle"]:
        return _bundle(values.bundle, values.model)
    _require_flags(["data"] if values.ledger and values.preset else ["workdir", "data"])
    if values.ledger:
        from lmkd_tf.cli.ledger import run_ledger

        return run_ledger(values)
    run_stages(("export",))
    return 0


def _require_flags(names: list[str]) -> None:
    missing = [f"--{name}" for name in names if not flags.FLAGS[name].value]
    if missing:
        raise ValueError(
            "The stage `export` and the ledger need to know where things are. "
            f"Received no {' and no '.join(missing)}. See lmkd-export --help."
        )


def _verify(path: str) -> int:
    from lmkd_tf.firmware.bundle_check import not_checked, verify_bundle

    findings, gaps = verify_bundle(path), not_checked(path)
    for line in (*findings, *gaps):
        sys.stdout.write(f"{line}\n")
    verdict = "the rest is as made, not all is checked" if gaps else "every bit is as made"
    if findings:
        verdict = f"{len(findings)} findings; do not use it"
    sys.stdout.write(f"{path}: {verdict}\n")
    return 1 if findings else 0


def _bundle(folder: str, model: str | None) -> int:
    from lmkd_tf.firmware.bundle import write_bundle

    if not model:
        raise ValueError(
            "A bundle is made of an exported model. "
            "Received --bundle without --model. Add --model=FILE.tflite."
        )
    sys.stdout.write(f"{folder}\n{write_bundle(model, folder)}\n")
    return 0


def run() -> None:
    """Entry point of the console script."""
    define_flags("default", None, None)
    flags.DEFINE_string("verify", None, "Bundle to check, a folder or a zip.")
    flags.DEFINE_string("bundle", None, "Folder of a firmware bundle to write, with its zip.")
    flags.DEFINE_string("model", None, "Exported .tflite for --bundle, its manifest beside it.")
    flags.DEFINE_bool("ledger", False, "Score every step from Keras to TFLite Micro.")
    flags.DEFINE_string("preset", None, "Shipped student for --ledger, instead of --workdir.")
    flags.DEFINE_integer("clips", 20, "Clips of the test split that the ledger scores.")
    flags.DEFINE_float("floor_db", 20.0, "Agreement of two steps below which layers are named.")
    flags.DEFINE_string("seeds", "0", "Seeds of calibrations after training, such as 0,1,2.")
    flags.DEFINE_string("output", None, "File for the ledger as JSON, beside the printed table.")
    more = ("verify", "bundle", "model", "ledger", "preset", "clips", "floor_db", "seeds", "output")
    run_program(main, __doc__ or "", (*TRAINING_FLAGS, *more))


if __name__ == "__main__":
    run()
