"""Sharded checkpoints of a training, by Orbax: every process writes its part, while the training goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np


FOLDER = "checkpoints"


class Steps:
    """Those of a training's folder, by step: a checkpoint is whole or not there, and the last `keep` stay."""

    def __init__(self, folder: Path, keep: int | None = None):
        try:
            import orbax.checkpoint as ocp
        except ImportError as error:
            raise ImportError(
                "sharded checkpoints need orbax, which is optional: pip install '.[distributed]' in a checkout."
            ) from error
        self.args, self.folder = ocp.args, folder
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        handlers = {"arrays": ocp.StandardCheckpointHandler(), "header": ocp.JsonCheckpointHandler()}
        path = (folder / FOLDER).absolute()
        self.manager = ocp.CheckpointManager(path, options=options, item_handlers=handlers)

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: Any) -> None:
        self.manager.close()  # what is being written is written to its end

    def latest(self) -> int | None:
        """The last step of which there is a whole checkpoint."""
        return self.manager.latest_step()

    def save(self, step: int, arrays: Mapping[str, jax.Array], header: Mapping[str, Any]) -> None:
        """Begin to write one; it returns as soon as the arrays may change."""
        if step not in self.manager.all_steps():
            # to Orbax an array of size 0 is none
            empty = {name: [kept.shape, str(kept.dtype)] for name, kept in arrays.items() if not kept.size}
            kept = {name: array for name, array in arrays.items() if name not in empty}
            parts = {"arrays": self.args.StandardSave(kept), "header": self.args.JsonSave({**header, "empty": empty})}
            self.manager.save(step, args=self.args.Composite(**parts), force=True)

    def header(self, step: int) -> dict[str, Any]:
        """What was written beside the arrays."""
        return self._read(step, header=self.args.JsonRestore())

    def arrays(self, step: int, like: Mapping[str, jax.Array] | None = None) -> dict[str, Any]:
        """The arrays: of the shapes, kinds and places of `like`, or all of them in the memory of this process."""
        if like is not None:
            wanted = {name: _abstract(array) for name, array in like.items() if array.size}
            return {**like, **self._read(step, arrays=self.args.StandardRestore(wanted))}
        known = self.manager.item_metadata(step)["arrays"].tree
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = {name: jax.ShapeDtypeStruct(kept.shape, kept.dtype, sharding=here) for name, kept in known.items()}
        found = {name: np.zeros(shape, dtype) for name, (shape, dtype) in self.header(step)["empty"].items()}
        return found | jax.tree.map(np.asarray, self._read(step, arrays=self.args.StandardRestore(wanted)))

    def _read(self, step: int, **part: Any) -> Any:
        (name,) = part
        try:
            return self.manager.restore(step, args=self.args.Composite(**part))[name]
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ValueError(
                f"`directory` {self.folder} holds a checkpoint of step {step} that cannot be read, or one of other "
                f"shapes ({reason}); give another folder, or remove that checkpoint."
            ) from error


def read_steps(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and header of the last sharded checkpoint of a training."""
    with Steps(folder) as steps:
        step = steps.latest()
        if step is None:
            raise ValueError(f"`path` {folder} holds no whole checkpoint; expected the folder of a training.")
        return steps.arrays(step), steps.header(step)


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
