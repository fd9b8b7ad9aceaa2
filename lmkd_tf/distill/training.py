# SPDX-License-Identifier: Apache-2.0
"""Steps of a model whose loss needs the whole batch, on each backend and on several machines."""

import contextlib
from typing import Any

import keras
from keras import ops

_SYMBOLIC_BUILD = "_maybe_symbolic_build"
_NO_BATCH = (
    "{} needs at least one batch. Received a data set without any. "
    "Check its files, its filters and whether one batch is larger than the set."
)


class PairTrainer(keras.Model):
    """A `keras.Model` that trains on `forward` instead of `call` and a loss of its output.

    A subclass defines `forward` and `variables_to_train`. On TensorFlow the step is a
    gradient tape, also under `MirroredStrategy` and `MultiWorkerMirroredStrategy`; on
    JAX it is a pure function of the state.

    Raises:
        RuntimeError: If it is built under a strategy of several workers with a Keras
            whose trainer is not the one that the override was written for.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"autocast": False, **kwargs})  # the networks cast for themselves
        if num_workers(self) > 1 and not hasattr(keras.Model, _SYMBOLIC_BUILD):
            raise RuntimeError(
                "Training with several workers needs a Keras trainer that this package knows. "
                f"Received Keras {keras.__version__}, which has no {_SYMBOLIC_BUILD}. "
                "Install a Keras from 3.8 to 3.15."
            )

    def forward(self, data: Any, *, training: bool) -> tuple[Any, tuple[Any, ...]]:
        """Returns the loss and `(x, y, y_pred, sample_weight)`; updates the terms' metrics."""
        raise NotImplementedError(f"{type(self).__name__} must define `forward`.")

    def variables_to_train(self) -> list[Any]:
        """Returns the variables that the optimizer changes."""
        return self.trainable_variables

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `keras.Model.fit` does.

        Raises:
            ValueError: If there is not a single batch to train on.
        """
        history = super().fit(*args, **kwargs)
        if history.epoch and not history.history:
            raise ValueError(_NO_BATCH.format("Training"))
        return history

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does.

        Raises:
            ValueError: If there is not a single batch.
        """
        result = super().evaluate(*args, **kwargs)
        if isinstance(result, list | dict) and not result:
            raise ValueError(_NO_BATCH.format("Evaluation"))
        return result

    def train_step(self, *arguments: Any) -> Any:
        """Updates the variables on one batch (TensorFlow: data; JAX: state, data)."""
        return self._train_on_jax(*arguments) if len(arguments) == 2 else self._train(*arguments)

    def test_step(self, *arguments: Any) -> Any:
        """Evaluates one batch (TensorFlow: data; JAX: state, data)."""
        if len(arguments) == 2:
            return self._test_on_jax(*arguments)
        loss, outcome = self.forward(arguments[0], training=False)
        return self._log(loss, outcome)

    def _train(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss, outcome = self.forward(data, training=True)
            scaled = self.optimizer.scale_loss(loss / num_replicas())
        variables = self.variables_to_train()
        raw = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        gradients = tape.gradient(scaled, raw, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._log(loss, outcome)

    def _log(self, loss: Any, outcome: tuple[Any, ...]) -> dict[str, Any]:
        next(metric for metric in self.metrics if metric.name == "loss").update_state(loss)
        x, y, y_pred, sample_weight = outcome
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _train_on_jax(self, state: tuple[Any, ...], data: Any) -> tuple[dict, tuple[Any, ...]]:
        import jax

        trainable, fixed, optimizer_variables, measured = state

        def loss_of(trainable):
            values = (trainable, fixed, measured)
            mapping = self._mapping(values, optimizer_variables)
            with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
                loss, outcome = self.forward(data, training=True)
                scaled = self.optimizer.scale_loss(loss)
                logs = self._log(loss, outcome)
            return scaled, (logs, *self._values_after(scope))

        gradient = jax.grad(loss_of, has_aux=True)
        gradients, (logs, fixed, measured) = gradient(trainable)
        trainable, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, gradients, trainable
        )
        return logs, (trainable, fixed, optimizer_variables, measured)

    def _test_on_jax(self, state: tuple[Any, ...], data: Any) -> tuple[dict, tuple[Any, ...]]:
        trainable, *_ = state
        mapping = self._mapping(state, [])
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            logs = self._log(*self.forward(data, training=False))
        return logs, (trainable, *self._values_after(scope))

    def _mapping(self, values: tuple[Any, ...], optimizer_values: Any) -> list[tuple[Any, Any]]:
        groups = (self.trainable_variables, self.non_trainable_variables, self.metrics_variables)
        pairs = [
            pair
            for group, group_values in zip(groups, values, strict=True)
            for pair in zip(group, group_values, strict=True)
        ]
        if optimizer_values:
            pairs += list(zip(self.optimizer.variables, optimizer_values, strict=True))
        return pairs

    def _values_after(self, scope: Any) -> tuple[list[Any], list[Any]]:
        def values(variables):
            found = [scope.get_current_value(v) for v in variables]
            return [
                v.value if new is None else new for v, new in zip(variables, found, strict=True)
            ]

        return values(self.non_trainable_variables), values(self.metrics_variables)

    # Keras 3 cannot `fit` under a strategy of several workers (keras-team/keras#20585): it runs
    # the model on distributed values to find out shapes, and reduces metrics that are scalars.

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        """Skips the symbolic build under a strategy; the model is built already."""
        if num_workers(self) == 1:
            super()._maybe_symbolic_build(*args, **kwargs)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that `fit` calls per step; builds the optimizer before."""
        if self.optimizer is not None and not self.optimizer.built:
            # Not in the step: variables cannot be made there under a strategy, and a loaded
            # model has to find them in this order.
            with _scope_of(self):
                self.optimizer.build(self.variables_to_train())
        if num_workers(self) == 1:
            return super().make_train_function(force)
        self.train_function = self._distributed(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes the function that `evaluate` calls per step."""
        if num_workers(self) == 1:
            return super().make_test_function(force)
        self.test_function = self._distributed(self.test_step)
        return self.test_function

    def _distributed(self, step: Any) -> Any:
        import tensorflow as tf

        if self.steps_per_execution != 1:
            raise ValueError(
                "Several workers take one step per execution. "
                f"Received steps_per_execution={self.steps_per_execution}. "
                "Leave it out of `compile`."
            )
        strategy = self.distribute_strategy

        @tf.function
        def on_next(iterator):
            logs = strategy.run(step, args=(next(iterator),))
            return {k: strategy.experimental_local_results(v)[0] for k, v in logs.items()}

        return on_next


def _scope_of(model: keras.Model) -> Any:
    strategy = getattr(model, "_distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def regularization(model: Any) -> Any:
    """Returns what the regularizers of a model's weights add to its loss; call it after the model.

    Raises:
        ValueError: If a layer added a loss of its own when it was called.
    """
    variables = model.trainable_variables  # those of a `tf_keras` twin do not know theirs
    regularized = [v for v in variables if getattr(v, "regularizer", None) is not None]
    num_others = len(model.losses) - len(regularized)
    if num_others:
        raise ValueError(
            "A network that is trained here may have weight regularizers, but no layer that adds "
            f"a loss when it is called, since views and segments call it several times. Received "
            f"{model.name!r} with {num_others} such losses. Take out `activity_regularizer` and "
            "`add_loss`."
        )
    return sum(v.regularizer(v) for v in regularized)


def num_workers(model: keras.Model) -> int:
    """Returns how many processes train the model together."""
    strategy = getattr(model, "_distribute_strategy", None)
    resolver = getattr(strategy, "cluster_resolver", None)
    spec = resolver.cluster_spec() if resolver else None
    return max(1, len(spec.as_dict().get("worker", []))) if spec else 1


def num_replicas() -> int:
    """Returns how many replicas run this step (1 outside a strategy)."""
    return _replica_context()[0]


def replica_slice(values: Any, size: Any) -> Any:
    """Returns this replica's part of values drawn for all replicas, along the last axis."""
    count, index = _replica_context()
    return values if count == 1 else values[..., index * size : (index + 1) * size]


def replica_mean(value: Any) -> Any:
    """Returns the mean of a tensor over the replicas."""
    if num_replicas() == 1:
        return value
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce("MEAN", value)


def _replica_context() -> tuple[int, Any]:
    if keras.backend.backend() != "tensorflow":
        return 1, 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 1, 0
    return context.num_replicas_in_sync, ops.cast(context.replica_id_in_sync_group, "int32")
