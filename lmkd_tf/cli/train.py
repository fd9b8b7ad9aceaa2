# SPDX-License-Identifier: Apache-2.0
"""`lmkd-train`: trains one network without a teacher.

Usage:
  lmkd-train --network=nano --data=FOLDER --workdir=FOLDER
      any architecture on its own; the result is WORKDIR/network/network.keras
  lmkd-train --config=NAME --data=FOLDER --workdir=FOLDER
      the teacher of a configuration, which lmkd-distill needs

Run it again after an interruption and it goes on where its last epoch ended. With
--backend=jax no TensorFlow is needed, and the pairs are mixed where the network is
trained; a corpus packed by lmkd-data pack is read fastest.
"""

from absl import flags

from lmkd_tf.cli.common import (
    TRAINING_FLAGS,
    define_backend_flag,
    define_flags,
    run_program,
    run_stages,
    start_backend,
)


def main(arguments: list[str]) -> None:
    """Runs the program."""
    if len(arguments) > 1:
        raise ValueError(
            f"This program takes flags only. Received {arguments[1:]}. See lmkd-train --help."
        )
    start_backend()
    if flags.FLAGS.network:
        run_stages(("network",), [f"network.architecture={flags.FLAGS.network}"])
    else:
        run_stages(("teacher",))


def run() -> None:
    """Entry point of the console script."""
    define_flags("default", None, None)
    define_backend_flag()
    flags.DEFINE_string("network", "", "Architecture to train on its own, such as nano.")
    flags.mark_flags_as_required(["workdir", "data"])
    run_program(
        main, __doc__ or "", (*TRAINING_FLAGS, "network", "backend"), needs_tensorflow=False
    )


if __name__ == "__main__":
    run()
