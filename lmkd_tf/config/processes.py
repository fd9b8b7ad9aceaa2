# SPDX-License-Identifier: Apache-2.0
"""Ends worker processes with the one that started them."""

import os
import threading
from multiprocessing import parent_process


def end_with_parent() -> None:
    """Makes this worker process end as soon as its parent has, however that ended.

    A terminated or killed parent cannot tell its workers, which would wait for work forever.
    To be given to a pool as its initializer; in a process without a parent it does nothing.
    """
    if parent_process() is not None:
        threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the pool's own end would wait for a queue that nobody empties
