# SPDX-License-Identifier: Apache-2.0
"""Turns published PyTorch weights of CMGAN into a Keras model that can teach.

Usage:
  python -m lmkd_tf.cli.import_cmgan WEIGHTS MODEL.keras

WEIGHTS is a file of torch.save (PyTorch must be installed; no code in it is run), or an .npz with
the same names. Every name and shape is checked.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from lmkd_tf.cli.common import run_program


def main(arguments: Sequence[str]) -> None:
    """Runs the program.

    Args:
        arguments: Name of the program, file of weights, file to write.

    Raises:
        ValueError: If the arguments or the weights are not usable.
        FileNotFoundError: If there are no such weights.
    """
    if len(arguments) != 3 or Path(arguments[2]).suffix != ".keras":
        raise ValueError(
            "This program needs WEIGHTS and MODEL.keras. "
            f"Received {list(arguments[1:])}. Use for example weights.npz cmgan.keras."
        )
    target = Path(arguments[2])
    if target.exists():
        raise ValueError(
            "The model must be a new file. "
            f"Received {target}, which exists. Give it another name, or remove the old one."
        )
    from lmkd_tf.config.files import atomic_path
    from lmkd_tf.metrics.cost import count_parameters
    from lmkd_tf.models.cmgan_weights import load_cmgan

    model = load_cmgan(arguments[1])
    with atomic_path(target) as temporary:
        model.save(temporary)
    sys.stdout.write(f"{target}: {count_parameters(model)} parameters\n")


def run() -> None:
    """Entry point."""
    run_program(main, __doc__ or "", ())


if __name__ == "__main__":
    run()
