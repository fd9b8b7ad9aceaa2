# SPDX-License-Identifier: Apache-2.0
"""Teacher latents computed once, for training on a fixed list of pairs."""

from pathlib import Path
from typing import Any

import keras
from keras import ops

from lmkd_tf.distill.checks import CACHED, VIEWS, check_views
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.streams import run_plain

# The latents are compared after division by their standard deviation, so half precision will do.
_DTYPE = "float16"


def teacher_latents(distiller: LatentMixupDistiller, views: dict[str, Any]) -> tuple[Any, ...]:
    """Runs the teacher on both views.

    Args:
        distiller: Distiller whose teacher and taps are used.
        views: `{"first_view": x_a, "second_view": x_b}`, each `(B, ...)`.

    Returns:
        One float16 latent per tap, `(B, 2, ...)`, the entry "teacher_latents" of a batch.
    """
    check_views(views)
    both = ops.concatenate([views[name] for name in VIEWS])
    latents, _ = run_plain(distiller.tapped_teacher, both, training=False)
    pairs = [ops.split(ops.cast(latent, _DTYPE), 2, axis=0) for latent in latents]
    return tuple(ops.stack(pair, axis=1) for pair in pairs)


def cache_teacher(
    distiller: LatentMixupDistiller, pairs: Any, path: str | Path | None = None
) -> Any:
    """Adds the teacher's latents to a finite `tf.data` set and keeps them.

    They are computed in the first pass and read in the later ones, which saves the pass
    through the teacher. The pairs have to be a fixed list: pairs drawn anew in every epoch
    have no latents in common.

    Args:
        distiller: Distiller whose teacher and taps are used. Its objective must compare
            latents of the two views only (`Objective.takes_cached_latents`).
        pairs: Batches `({"first_view", "second_view"}, speech)`.
        path: File of the cache, or None for memory. A file left by another list of pairs or
            another teacher is not recognized as such: use a new name for each.

    Returns:
        Batches whose views have the entry "teacher_latents".

    Raises:
        ValueError: If the pairs have no end, or the objective needs more of the teacher.
    """
    if not distiller.objective.takes_cached_latents:
        raise ValueError(
            "Cached latents are those of the two views, and the objective must need no others. "
            f"Received {distiller.objective}. Use it without the cache."
        )
    if keras.backend.backend() != "tensorflow" or int(pairs.cardinality()) == -1:
        raise ValueError(
            "A cache needs a `tf.data` set with an end, on the TensorFlow backend. "
            f"Received {pairs} on {keras.backend.backend()}. Take a number of batches with `take`."
        )

    def with_latents(views, *rest):
        return ({**views, CACHED: teacher_latents(distiller, views)}, *rest)

    return pairs.map(with_latents).cache(str(path) if path else "")
