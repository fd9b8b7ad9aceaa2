# SPDX-License-Identifier: Apache-2.0
"""Runs the processes of a `tf.data` service: one dispatcher, any number of workers.

The dispatcher hands out work and the workers read shards of pairs; trainers draw from them
with `lmkd_tf.data.sharded_pairs.served_pairs`. Give each worker a port of its own and let
it be started again there when it dies: trainers wait for it (for an hour), since they
cannot know that it will not come back.
"""

import sys

ROLES = ("dispatcher", "worker")


def serve(role: str, *, port: int = 0, dispatcher: str | None = None) -> None:
    """Serves until the process is ended; prints its address when it is ready.

    Args:
        role: `"dispatcher"` or `"worker"`.
        port: Port to listen on; any free one if 0.
        dispatcher: Address of the dispatcher as `host:port`; a worker needs it.

    Raises:
        ValueError: If the role is unknown, or a worker has no dispatcher.
    """
    if role not in ROLES or (role == "worker" and not dispatcher):
        raise ValueError(
            "A role must be 'dispatcher', or 'worker' with --dispatcher=HOST:PORT. "
            f"Received role={role!r}, dispatcher={dispatcher!r}. Correct that value."
        )
    import tensorflow as tf

    service = tf.data.experimental.service
    if role == "dispatcher":
        server = service.DispatchServer(service.DispatcherConfig(port=port))
        address = server.target.split("://")[-1]
    else:
        server = service.WorkerServer(
            service.WorkerConfig(dispatcher_address=str(dispatcher), port=port)
        )
        address = f"worker of {dispatcher}"
    sys.stdout.write(f"ready: {address}\n")
    sys.stdout.flush()
    server.join()
