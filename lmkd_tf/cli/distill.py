# SPDX-License-Identifier: Apache-2.0
"""`lmkd-distill`: distills the teacher into the student."""

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
            f"This program takes flags only. Received {arguments[1:]}. See lmkd-distill --help."
        )
    start_backend()
    run_stages(("student",))


def run() -> None:
    """Entry point of the console script."""
    define_flags("default", None, None)
    define_backend_flag()
    flags.mark_flags_as_required(["workdir", "data"])
    run_program(main, __doc__ or "", (*TRAINING_FLAGS, "backend"), needs_tensorflow=False)


if __name__ == "__main__":
    run()
