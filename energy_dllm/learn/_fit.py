"""`fit`: one jitted step, a log, checkpoints, and exact resumption."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from .._checks import on_device, seeded, sizes
from ..data import Corpus, Windows
from ._file import FORMAT, alone, read, write
from ._log import Log, bar
from ._objective import AbstractObjective
from ._optimizer import default_optimizer
from ._signals import Signals
from ._structure import describe


Model = TypeVar("Model", bound=eqx.Module)


class _Run(eqx.Module):
    """Everything a training is at one moment, besides its fixed settings; numbers of 32 bits or more."""

    model: PyTree[Array]
    average: PyTree[Array]
    optimizer: PyTree[Array]
    step: jax.Array


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
    seed: int = 0,
    directory: str | os.PathLike | None = None,
    checkpoint_seconds: float = 60.0,
    progress: bool | Callable[[float], object] = False,
    log: Callable[[dict[str, float]], object] | None = None,
) -> Model:
    """Train a model, the same way whatever it is.

    Main arguments:

    - `model`: an `EnergyDLLM` or a twin.
    - `corpus`: where windows come from (its `train` part).
    - `objective`: `Denoising()` for the energy model, `Masking()` or `NextToken()` for twins.
    - `steps`: batches in all. `length`, `batch_size`: tokens of a window, by default 64 or a whole picture, and windows
      of a batch.
    - `directory`: where checkpoints and `log.jsonl` go. If it already holds a checkpoint of the same training, that
      is resumed, exactly: the result is bit by bit that of a run that was never interrupted. Ctrl-C and SIGTERM save a
      checkpoint first; a second one does not wait for it. `ed.load` of the checkpoint is the model as it stands.

    Other arguments:

    - `learning_rate`: peak of the schedule of `default_optimizer`. `optimizer`: any optax transformation in its place.
    - `average`: decay of the exponential moving average of the parameters, which is what is returned. It, the
      parameters and the optimizer have 32 bits at least, whatever the model computes with.
    - `until`: pause after so many of the `steps`, to be resumed with the same `steps` later; by default all are done.
    - `seed`: of windows, masks and noise.
    - `checkpoint_seconds`: time between checkpoints.
    - `progress`: show a progress bar, or a function that is given the loss after every step.
    - `log`: is given `step`, `loss`, `gradient_norm` and `seconds` after every step, as `log.jsonl` is: `wandb.log`.

    **Returns:** the model with averaged parameters.

    **Raises:** `ValueError` for sizes that are not positive, a text shorter than a window, a `directory` that holds
    another training or in which one is running, or with it a model that `save` would refuse; `FloatingPointError` if
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
    sizes(steps=steps)
    seeded(seed)
    end = steps if until is None else until
    if not 0 < end <= steps:
        raise ValueError(f"`until` is {until}; expected one of the {steps} `steps`, or nothing.")
    if not 0 <= average < 1:
        raise ValueError(f"`average` is {average}; expected a decay of at least 0 and below 1, such as 0.999.")
    places = corpus.tokenizer.places
    length = (places or 64) if length is None else length
    windows = Windows(corpus.train, length=length, batch=batch_size, seed=seed, whole=places > 0)
    if optimizer is None:
        optimizer = default_optimizer(learning_rate, steps)
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    kinds = jax.tree.map(lambda leaf: leaf.dtype, parameters)
    precise = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), parameters)
    run = _Run(precise, precise, optimizer.init(precise), jnp.zeros((), int))
    settings = dict(steps=steps, length=length, batch_size=batch_size, learning_rate=learning_rate, average=average)
    settings |= dict(seed=seed, corpus=corpus.name, model=_fingerprint(jax.tree.structure((static, parameters)), model))
    described = repr(objective)
    if jax.tree.leaves(eqx.filter(objective, eqx.is_inexact_array)):  # a schedule, whose numbers its repr hides
        described += f" of numbers {_fingerprint('', objective)}"
    settings["objective"] = described
    folder = None if directory is None else Path(directory)
    as_model = lambda parameters: eqx.combine(_cast(parameters, kinds), static)
    signals = Signals()
    with contextlib.ExitStack() as stack:
        if folder is not None:
            describe(model)  # refused now, if it cannot be saved later
            stack.enter_context(alone(folder))
            stack.enter_context(signals)
            run = _resume(folder, run, settings, windows)
        key = jax.random.key(seed)
        start, saved = time.monotonic(), time.monotonic()
        first = int(run.step)
        with bar(progress, steps, first) as advance, Log(folder, first) as line:
            for n in range(first, end):
                here = windows.get_state()
                ids = on_device(next(windows))
                batch_key = jax.random.fold_in(key, n)
                run, loss, norm, good = _update(
                    run, static, kinds, objective, optimizer.update, ids, batch_key, steps, average
                )
                if not good:
                    if folder is not None:
                        windows.set_state(here)
                        _checkpoint(folder, run, as_model(run.average), settings, windows)
                    cause = objective.diagnose(as_model(run.model), ids, batch_key, run.step / steps)
                    kept = f"; the last good step is kept in {folder}" if folder is not None else ""
                    raise FloatingPointError(
                        f"training stopped at step {n}: {cause} broke first{kept}; lower `learning_rate` "
                        f"({learning_rate}) or the relaxation's `step`."
                    )
                now = time.monotonic()
                record = {"step": n + 1, "loss": float(loss), "gradient_norm": float(norm)}
                record["seconds"] = round(now - start, 3)
                line(**record)
                if log is not None:
                    log(record)
                advance(float(loss))
                caught = signals.caught is not None
                if folder is not None and (caught or now - saved > checkpoint_seconds or n + 1 == end):
                    _checkpoint(folder, run, as_model(run.average), settings, windows)
                    saved = now
                if caught:
                    signals.deliver(f"stopped after step {n + 1} of {steps}; to go on from there, run the same again")
    return as_model(run.average)


def _cast(parameters: PyTree[Array], kinds: PyTree) -> PyTree[Array]:
    return jax.tree.map(lambda leaf, kind: leaf.astype(kind), parameters, kinds)


@eqx.filter_jit
def _update(run: _Run, static, kinds, objective, update, ids, key, steps: int, average: float):
    """One batch. Out here, so that a second training of the same kind and shapes compiles nothing."""

    def loss_of(parameters):
        return objective(eqx.combine(_cast(parameters, kinds), static), ids, key, run.step / steps)

    loss, gradient = jax.value_and_grad(loss_of)(run.model)
    norm = optax.tree.norm(gradient)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    change, state = update(gradient, run.optimizer, run.model)
    fresh = optax.apply_updates(run.model, change)
    decay = jnp.minimum(average, (1.0 + run.step) / (10.0 + run.step))
    # in this form the average of what never moves is what it was, to the last bit
    mean = jax.tree.map(lambda a, m: (a + (1 - decay) * (m - a)).astype(a.dtype), run.average, fresh)
    after = _Run(fresh, mean, state, run.step + 1)
    # a step that is not finite leaves everything as it was
    return jax.tree.map(lambda new, old: jnp.where(good, new, old), after, run), loss, norm, good


def _fingerprint(structure: object, numbers: PyTree) -> str:
    """Changes with the structure and with the numbers, such as the initial parameters of a model."""
    digest = hashlib.sha256(str(structure).encode())
    for leaf in jax.tree.leaves(eqx.filter(numbers, eqx.is_inexact_array)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _checkpoint(folder: Path, run: _Run, averaged: Any, settings: dict, windows: Windows) -> None:
    """A file that `fit` goes on from, and that `load` reads as the averaged model."""
    structure, arrays = describe(averaged)
    header = {"format": FORMAT, "structure": structure, "notes": {"training": settings, "step": int(run.step)}}
    header |= {"training": settings, "windows": windows.get_state(), "dtypes": {}}
    for name, leaf in _named(run).items():
        kept = np.asarray(leaf)
        if name in arrays and arrays[name].dtype != kept.dtype:
            header["dtypes"][name] = str(arrays[name].dtype)
        arrays[name] = kept
    write(folder / "checkpoint.safetensors", arrays, header)


def _named(run: _Run) -> dict[str, Array]:
    """The leaves of a run: of the average by their places in the model, all others by numbers."""
    part = lambda key: str(getattr(key, "name", getattr(key, "idx", getattr(key, "key", None))))
    averaged = jax.tree_util.tree_leaves_with_path(run.average)
    names = {".".join(["model", *map(part, path)]): leaf for path, leaf in averaged}
    others = jax.tree.leaves((run.model, run.optimizer, run.step))
    return names | {f"{n:05d}": leaf for n, leaf in enumerate(others)}


def _resume(folder: Path, run: _Run, settings: dict, windows: Windows) -> _Run:
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return run
    arrays, header = read(path)
    training = header.get("training")
    if header["format"] != FORMAT or not isinstance(training, dict):
        raise ValueError(f"`directory` {folder} holds a checkpoint of another kind or version; give another folder.")
    different = sorted(k for k in settings if training.get(k) != settings[k])
    if different:
        name = different[0]
        raise ValueError(
            f"`directory` {folder} holds another training: its {name} is {training.get(name)!r}, now "
            f"{settings[name]!r}; give another folder or the same settings."
        )
    names = _named(run)
    same = lambda name: (
        name in arrays and (arrays[name].shape, arrays[name].dtype) == (names[name].shape, names[name].dtype)
    )
    if not all(map(same, names)):
        raise ValueError(f"`directory` {folder} holds a checkpoint of other shapes; give another folder.")
    windows.set_state(header.get("windows", {}))
    averaged = [on_device(arrays[name]) for name in names if name.startswith("model")]
    others = [on_device(arrays[name]) for name in names if not name.startswith("model")]
    average = jax.tree.unflatten(jax.tree.structure(run.average), averaged)
    model, optimizer, step = jax.tree.unflatten(jax.tree.structure((run.model, run.optimizer, run.step)), others)
    return _Run(model, average, optimizer, step)
