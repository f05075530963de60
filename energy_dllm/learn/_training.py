"""What a training is at one moment, and its checkpoints: one file, or on a mesh sharded ones."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from .._checks import on_device
from ..data import AbstractTokenizer, Corpus, Windows
from ._file import FORMAT, read, write
from ._mesh import place
from ._steps import FOLDER, Steps
from ._structure import describe


_OF_CORPUS = ("tokenizer", "text")
_PLACES = 4096


def alphabet_of(tokenizer: AbstractTokenizer) -> str:
    """What a message calls it; another one has another digest."""
    about = dataclasses.asdict(tokenizer) if dataclasses.is_dataclass(tokenizer) else {}
    digest = hashlib.sha256(json.dumps(about, default=str).encode()).hexdigest()[:12]
    return f"{type(tokenizer).__name__} of {tokenizer.size} symbols ({digest})"


def of_corpus(corpus: Corpus) -> dict[str, str]:
    """What tells one corpus from another: its tokenizer, its length, and ids evenly spaced over it."""
    ids = corpus.train
    places = np.linspace(0, len(ids) - 1, min(_PLACES, len(ids))).astype(int)
    digest = hashlib.sha256(np.asarray(ids[places], np.int64).tobytes()).hexdigest()[:12]
    return dict(zip(_OF_CORPUS, (alphabet_of(corpus.tokenizer), f"{len(ids):,} tokens ({digest})"), strict=True))


class Run(eqx.Module):
    """Everything a training is at one moment, besides its fixed settings; numbers of 32 bits or more."""

    model: PyTree[Array]
    average: PyTree[Array]
    optimizer: PyTree[Array]
    step: jax.Array


class Checkpoints:
    """What `fit` goes on from, and `load` reads as the averaged model.

    **Arguments:**

    - `folder`: of the training.
    - `model`: the one that is trained; refused now, if it cannot be saved later.
    - `settings`: what makes it this training and no other.
    - `windows`: whose position is kept.
    - `mesh`: None for one file, `checkpoint.safetensors`.
    - `keep`: how many sharded ones stay.
    """

    def __init__(
        self, folder: Path, model: Any, settings: Mapping[str, Any], windows: Windows, mesh: Mesh | None, keep: int
    ):
        self.folder, self.settings, self.windows, self.mesh, self.keep = folder, dict(settings), windows, mesh, keep
        self.structure, arrays = describe(model)
        self.dtypes = {name: array.dtype for name, array in arrays.items()}
        self.fixed = {name: array for name, array in arrays.items() if not jnp.issubdtype(array.dtype, jnp.inexact)}

    def __enter__(self) -> "Checkpoints":
        sharded = self.mesh is not None or (self.folder / FOLDER).is_dir()
        self.steps = Steps(self.folder, self.keep) if sharded else None
        return self

    def __exit__(self, *error: Any) -> None:
        if self.steps is not None:
            self.steps.__exit__(*error)

    def write(self, run: Run) -> None:
        """Keep the training as it stands."""
        arrays, step = self._arrays(run), int(run.step)
        header = {"format": FORMAT, "structure": self.structure, "notes": {"training": self.settings, "step": step}}
        header |= {"training": self.settings, "windows": {**self.windows.get_state(), "step": step}}
        other = {name: str(kind) for name, kind in self.dtypes.items() if arrays[name].dtype != kind}
        header["dtypes"] = other
        if self.mesh is not None:
            assert self.steps is not None
            self.steps.save(step, arrays, header)
        else:
            write(self.folder / "checkpoint.safetensors", {n: np.asarray(leaf) for n, leaf in arrays.items()}, header)

    def wait(self) -> None:
        """Until what is being written is on the disk."""
        if self.steps is not None:
            self.steps.manager.wait_until_finished()

    def resume(self, run: Run) -> Run:
        """The training as it was kept last, by either kind; else as it is given."""
        path = self.folder / "checkpoint.safetensors"
        arrays, header, done = {}, {}, -1
        if path.exists():
            arrays, header = read(path)
            done = header.get("notes", {}).get("step", 0)
        step = None if self.steps is None else self.steps.latest()
        sharded = self.steps if step is not None and step > done else None
        if sharded is None and done < 0:
            return run
        if sharded is not None and step is not None:
            header = sharded.header(step)
        self._same(header)
        like = self._arrays(run)
        if sharded is not None and step is not None:
            arrays = sharded.arrays(step, like)
        different = [
            n for n, a in like.items() if n not in arrays or (arrays[n].shape, arrays[n].dtype) != (a.shape, a.dtype)
        ]
        if different:
            raise ValueError(f"`directory` {self.folder} holds a checkpoint of other shapes; give another folder.")
        self.windows.set_state(header.get("windows", {}))
        if sharded is None and self.mesh is None:
            arrays = {name: on_device(arrays[name]) for name in like}
        names = [name for name in like if name not in self.fixed]
        averaged = [arrays[name] for name in names if name.startswith("model")]
        others = [arrays[name] for name in names if not name.startswith("model")]
        average = jax.tree.unflatten(jax.tree.structure(run.average), averaged)
        model, optimizer, step = jax.tree.unflatten(jax.tree.structure((run.model, run.optimizer, run.step)), others)
        found = Run(model, average, optimizer, step)
        return found if sharded is not None else place(found, self.mesh)

    def _same(self, header: Mapping[str, Any]) -> None:
        training, settings = header.get("training"), self.settings
        if header.get("format") != FORMAT or not isinstance(training, dict):
            raise ValueError(
                f"`directory` {self.folder} holds a checkpoint of another kind or version; give another folder."
            )
        training = {"accumulate": 1, **training}  # older checkpoints have it above 1 only
        # nor have they a record of the corpus
        unknown = {name for name in _OF_CORPUS if name not in training}
        different = [name for name in settings if name not in unknown and training.get(name) != settings[name]]
        if different:
            # a model depends on what is given besides, of which it is known what it was
            name = min(different, key=lambda name: (name == "model", name))
            what = f"its {name} is {training.get(name)!r}, now {settings[name]!r}"
            what = "its model began with other parameters" if name == "model" else what
            raise ValueError(
                f"`directory` {self.folder} holds another training: {what}; give another folder or the same settings."
            )

    def _arrays(self, run: Run) -> dict[str, Any]:
        """The leaves of a run: of the average by their places in the model, all others by numbers."""
        part = lambda key: str(getattr(key, "name", getattr(key, "idx", getattr(key, "key", None))))
        averaged = jax.tree_util.tree_leaves_with_path(run.average)
        names = {".".join(["model", *map(part, path)]): leaf for path, leaf in averaged}
        others = jax.tree.leaves((run.model, run.optimizer, run.step))
        return place(self.fixed, self.mesh) | names | {f"{n:05d}": leaf for n, leaf in enumerate(others)}
