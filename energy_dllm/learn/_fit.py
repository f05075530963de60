"""`fit`: one jitted step, a log, checkpoints, and exact resumption."""

import contextlib
import hashlib
import numbers
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from .._checks import seeded, sizes
from .._files import alone
from ..data import AbstractTokenizer, Corpus, Windows
from ._log import Log, bar
from ._mesh import agreed, automatic, batch, constrain, place, shares, whole
from ._objective import AbstractObjective
from ._optimizer import default_optimizer
from ._signals import Signals
from ._training import Checkpoints, Run, alphabet_of, of_corpus


Model = TypeVar("Model", bound=eqx.Module)


def fit(
    model: Model,
    corpus: Corpus,
    objective: AbstractObjective,
    *,
    steps: int,
    length: int | None = None,
    batch_size: int = 16,
    learning_rate: float = 1.2e-2,
    optimizer: optax.GradientTransformation | None = None,
    average: float = 0.999,
    until: int | None = None,
    accumulate: int = 1,
    mesh: Mesh | None = None,
    seed: int = 0,
    directory: str | os.PathLike | None = None,
    checkpoint_seconds: float = 60.0,
    keep: int = 2,
    progress: bool | Callable[[float], object] = False,
    log: Callable[[dict[str, float]], object] | None = None,
) -> Model:
    """Train a model, the same way whatever it is.

    Main arguments:

    - `model`: an `EnergyDLLM` or a twin.
    - `corpus`: where windows come from (its `train` part).
    - `objective`: `Denoising()` for the energy model, `twin.objective` for a twin.
    - `steps`: batches in all. `length`, `batch_size`: tokens of a window, by default 64 or a whole picture, and windows
      of a batch.
    - `directory`: where checkpoints and `log.jsonl` go. If it already holds a checkpoint of the same training (the
      text is compared at some thousand places, an `optimizer` of your own by its shapes alone), that is resumed,
      exactly: the result is bit by bit that of a run that was never interrupted. Ctrl-C and SIGTERM save a checkpoint
      first; a second one does not wait for it. `ed.load` of the checkpoint is the model as it stands.

    Other arguments:

    - `learning_rate`: peak of the schedule of `default_optimizer`. `optimizer`: any optax transformation in its place;
      an array without a gradient, such as the token codes, is not moved by it either.
    - `average`: decay of the exponential moving average of the parameters, which is what is returned. It, the
      parameters and the optimizer have 32 bits at least, whatever the model computes with.
    - `until`: pause after so many of the `steps`, to be resumed with the same `steps` later; by default all are done.
    - `accumulate`: parts of a batch that follow one another, each with its own draws, their gradients averaged: less
      memory, and the same step where the loss is a mean over windows.
    - `mesh`: devices to train on, with axes `data`, `fsdp` or `model` (`shardings` says what is split over each), also
      those of several processes (`jax.distributed.initialize`), of which each calls `fit` alike. The parameters are
      those of one device up to rounding. Checkpoints are sharded then (extra `distributed`), and written while the
      training goes on; either kind is resumed on any number of devices.
    - `keep`: how many sharded checkpoints are kept.
    - `seed`: of windows, masks and noise.
    - `checkpoint_seconds`: time between checkpoints.
    - `progress`: show a progress bar, or a function that is given the loss after every step.
    - `log`: is given `step`, `loss`, `gradient_norm` and `seconds` after every step, as `log.jsonl` is: `wandb.log`.

    **Returns:** the model with averaged parameters.

    **Raises:** `ValueError` for sizes that are not positive, a text shorter than a window or of another tokenizer than
    the model's, a `directory` that holds another training, or a `log.jsonl` of something else, or in which one is
    running, or with it a model that `save` would refuse; `OSError` if it cannot be written; `FloatingPointError` if
    loss or gradient stop being finite, naming the step and the term of F that broke first. Parameters and checkpoint
    are then those of the last good step.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    corpus = ed.data.grammar_corpus(characters=5000)
    model = ed.EnergyDLLM(corpus.tokenizer, dim=16, key=jax.random.key(0))
    model = ed.fit(model, corpus, ed.learn.Denoising(horizon=2), steps=2, length=16, batch_size=4)
    ```
    """
    sizes(steps=steps, batch_size=batch_size, accumulate=accumulate, keep=keep)
    seeded(seed)
    mesh = None if mesh is None else automatic(mesh)
    parts = accumulate * (1 if mesh is None else shares(mesh)[1])
    if batch_size % parts:
        raise ValueError(
            f"`batch_size` is {batch_size} windows for {parts} parts (`accumulate` times the devices that share "
            "windows); expected a multiple of them."
        )
    end = steps if until is None else until
    if isinstance(end, bool) or not isinstance(end, int | np.integer) or not 0 < end <= steps:
        raise ValueError(f"`until` is {until}; expected one of the {steps} `steps`, or nothing.")
    if not isinstance(checkpoint_seconds, numbers.Real) or not checkpoint_seconds >= 0:
        raise ValueError(f"`checkpoint_seconds` is {checkpoint_seconds!r}; expected a number of seconds, such as 60.")
    for name, called in (("progress", progress), ("log", log)):
        if not (callable(called) or called is None or (isinstance(called, bool) and name == "progress")):
            raise ValueError(f"`{name}` is {called!r}; expected a function that is called after every step.")
    if not 0 <= average < 1:
        raise ValueError(f"`average` is {average}; expected a decay of at least 0 and below 1, such as 0.999.")
    alphabet = getattr(model, "tokenizer", None)
    if isinstance(alphabet, AbstractTokenizer) and alphabet != corpus.tokenizer:
        raise ValueError(
            f"`corpus` has {alphabet_of(corpus.tokenizer)}, `model` {alphabet_of(alphabet)}; expected one tokenizer, "
            "so make the corpus with that of the model."
        )
    places = corpus.tokenizer.places
    length = (places or 64) if length is None else length
    windows = Windows(corpus.train, length=length, batch=batch_size, seed=seed, whole=places > 0)
    if optimizer is None:
        optimizer = default_optimizer(learning_rate, steps)
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    kinds = jax.tree.map(lambda leaf: leaf.dtype, parameters)
    precise = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), parameters)
    run = place(Run(precise, precise, optimizer.init(precise), jnp.zeros((), int)), mesh)
    settings = dict(steps=steps, length=length, batch_size=batch_size, learning_rate=learning_rate, average=average)
    settings |= dict(accumulate=accumulate, seed=seed, corpus=corpus.name)
    settings["model"] = _fingerprint(jax.tree.structure((static, parameters)), model)
    described = repr(objective)
    if jax.tree.leaves(eqx.filter(objective, eqx.is_inexact_array)):  # a schedule, whose numbers its repr hides
        described += f" of numbers {_fingerprint('', objective)}"
    settings["objective"] = described
    settings |= of_corpus(corpus)
    folder, leads = None if directory is None else Path(directory), jax.process_index() == 0
    as_model = lambda parameters: eqx.combine(_cast(whole(parameters, mesh), kinds), static)
    signals = Signals()
    with contextlib.ExitStack() as stack:
        checkpoints = None
        if folder is not None:
            checkpoints = Checkpoints(folder, model, settings, windows, mesh, keep)
            if leads:
                stack.enter_context(alone(folder))
            stack.enter_context(signals)
            run = stack.enter_context(checkpoints).resume(run)
        if mesh is not None:
            stack.enter_context(jax.set_mesh(mesh))
        key = jax.random.key(seed)
        start, saved = time.monotonic(), time.monotonic()
        first = int(run.step)
        with bar(progress if leads else False, steps, first) as advance, Log(folder if leads else None, first) as line:
            for n in range(first, end):
                ids = batch(windows, n, accumulate, mesh)
                batch_key = jax.random.fold_in(key, n)
                run, loss, norm, good = _update(
                    run, static, kinds, objective, optimizer.update, ids, batch_key, steps, average, mesh
                )
                if not good:
                    if checkpoints is not None:
                        checkpoints.write(run)
                    cause = objective.diagnose(as_model(run.model), ids[0], batch_key, run.step / steps)
                    kept = f"; the last good step is kept in {folder}" if folder is not None else ""
                    raise FloatingPointError(
                        f"training stopped at step {n}: {cause} broke first{kept}; lower `learning_rate` "
                        f"({learning_rate}) or the relaxation's `step`."
                    )
                now = time.monotonic()
                record = {"step": n + 1, "loss": float(loss), "gradient_norm": float(norm)}
                record["seconds"] = round(now - start, 3)
                try:
                    line(**record)
                except OSError:  # a disk that is full: what is learned may still have room in place of what is there
                    if checkpoints is not None and mesh is None:
                        with contextlib.suppress(OSError):
                            checkpoints.write(run)
                    raise
                if log is not None and leads:
                    log(record)
                advance(float(loss))
                if checkpoints is not None:
                    caught = agreed(signals.caught is not None)
                    if agreed(caught or now - saved > checkpoint_seconds or n + 1 == end):
                        checkpoints.write(run)
                        saved = now
                    if caught:
                        checkpoints.wait()
                        signals.deliver(
                            f"stopped after step {n + 1} of {steps}, kept in {folder}; to go on from there, run the "
                            "same again"
                        )
    return as_model(run.average)


def _cast(parameters: PyTree[Array], kinds: PyTree) -> PyTree[Array]:
    return jax.tree.map(lambda leaf, kind: leaf.astype(kind), parameters, kinds)


@eqx.filter_jit
def _update(run: Run, static, kinds, objective, update, ids, key, steps: int, average: float, mesh: Mesh | None):
    """One batch. Out here, so that a second training of the same kind and shapes compiles nothing."""

    def loss_of(parameters, ids, key):
        return objective(eqx.combine(_cast(parameters, kinds), static), ids, key, run.step / steps)

    follow = jax.value_and_grad(loss_of)
    if len(ids) == 1:
        loss, gradient = follow(run.model, ids[0], key)
    else:  # one part after another, each with its own draws
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(len(ids)))
        add = lambda total, part: (jax.tree.map(jnp.add, total, follow(run.model, *part)), None)
        zeros = (
            jnp.zeros((), jax.eval_shape(follow, run.model, ids[0], key)[0].dtype),
            jax.tree.map(jnp.zeros_like, run.model),
        )
        total = jax.lax.scan(add, zeros, (ids, keys))[0]
        loss, gradient = jax.tree.map(lambda leaf: leaf / len(ids), total)
    gradient = constrain(gradient, mesh)
    norm = optax.tree.norm(gradient)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    change, state = update(gradient, run.optimizer, run.model)
    # what the loss does not depend on, codes and noise levels, stays: weight decay would shrink it
    change = jax.tree.map(lambda c, g: jnp.where(jnp.any(g != 0), c, 0), change, gradient)
    fresh = optax.apply_updates(run.model, change)
    decay = jnp.minimum(average, (1.0 + run.step) / (10.0 + run.step))
    # in this form the average of what never moves is what it was, to the last bit
    mean = jax.tree.map(lambda a, m: (a + (1 - decay) * (m - a)).astype(a.dtype), run.average, fresh)
    after = Run(fresh, mean, state, run.step + 1)
    # a step that is not finite leaves everything as it was
    after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, run)
    return constrain(after, mesh), loss, norm, good


def _fingerprint(structure: object, numbers: PyTree) -> str:
    """Changes with the structure and with the numbers, such as the initial parameters of a model."""
    digest = hashlib.sha256(str(structure).encode())
    for leaf in jax.tree.leaves(eqx.filter(numbers, eqx.is_inexact_array)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]
