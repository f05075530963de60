"""Training on several devices: where its windows, parameters and optimizer lie on a mesh, by one table."""

import math
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._checks import on_device
from ..data import Windows


Tree = TypeVar("Tree")

WINDOWS = ("data", "fsdp")
"""Axes of a mesh over which the windows of a batch are split."""
LARGEST = "fsdp"
"""The axis over which the largest divisible axis of every parameter is split, of its average and its moments too."""
FIRST = {"model": ("query", "keys", "values", "out", "threshold")}
"""The axis over which heads and memories are split: the first axis of the parameters of these names."""


def shardings(tree: PyTree, mesh: Mesh | AbstractMesh) -> PyTree[NamedSharding]:
    """Where each array of a model, or of its optimizer, lies on a mesh, by the names of the mesh's axes.

    | axis | what is split over it |
    |---|---|
    | `data` | the windows of a batch; every device has all parameters |
    | `fsdp` | windows, and the largest axis of each array that its size divides |
    | `model` | heads and memories: the first axis of `query`, `keys`, `values`, `out` and `threshold` |

    What no axis divides every device has whole.

    **Arguments:**

    - `tree`: a model, or anything whose arrays have the names of its fields; also their shapes alone
      (`jax.eval_shape`).
    - `mesh`: one to three of these axes, in any order.

    **Returns:** the same tree with a sharding in place of each array.

    **Raises:** `ValueError` for a mesh with an axis of another name.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    mesh = jax.make_mesh((1,), ("fsdp",))
    layer = ed.energy.DeepStack(16, depth=1, heads=2, key=jax.random.key(0)).blocks[0]["memory"]
    assert ed.learn.shardings(layer, mesh).keys.spec == jax.sharding.PartitionSpec("fsdp", None)
    ```
    """
    known = {*WINDOWS, *FIRST}
    for name in mesh.axis_names:
        if name not in known:
            raise ValueError(f"`mesh` has an axis {name!r}; expected `data`, `fsdp` or `model`, or several of them.")

    def one(path: Any, leaf: Any) -> NamedSharding:
        axes: list[str | None] = [None] * leaf.ndim
        name = next((key.name for key in reversed(path) if isinstance(key, jax.tree_util.GetAttrKey)), "")
        for axis, names in FIRST.items():
            if axis in mesh.axis_names and leaf.ndim and name in names and leaf.shape[0] % mesh.shape[axis] == 0:
                axes[0] = axis
        if LARGEST in mesh.axis_names:
            free = [n for n in range(leaf.ndim) if axes[n] is None and leaf.shape[n] % mesh.shape[LARGEST] == 0]
            if free:
                axes[max(free, key=lambda n: leaf.shape[n])] = LARGEST
        return NamedSharding(mesh, PartitionSpec(*axes))

    known_shape = lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
    return jax.tree_util.tree_map_with_path(one, eqx.filter(tree, known_shape))


def automatic(mesh: Mesh) -> Mesh:
    """The same devices; what the table does not say is left to the compiler."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def place(tree: Tree, mesh: Mesh | None) -> Tree:
    """The arrays of a tree, the same in every process, where the table has them; without a mesh as they are."""
    if mesh is None:
        return tree

    def one(leaf, where):
        known = np.asarray(leaf)
        return jax.make_array_from_callback(known.shape, where, lambda index: known[index])

    return jax.tree.map(one, tree, shardings(tree, mesh))


def constrain(tree: Tree, mesh: Mesh | None) -> Tree:
    """In a compiled program: what it computes lies where the table has it."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, shardings(tree, mesh))


def whole(tree: Tree, mesh: Mesh | None) -> Tree:
    """All of every array in each process, on one device."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: on_device(np.asarray(jax.device_put(leaf, everywhere))), tree)


def batch(windows: Windows, step: int, accumulate: int, mesh: Mesh | None) -> jax.Array:
    """Batch number `step` as `accumulate` parts `(parts, B / parts, L)`; a process reads its own windows only."""
    rows = np.arange(windows.batch).reshape(accumulate, -1)
    if mesh is None:
        return on_device(windows.at(step, rows))
    where = NamedSharding(mesh, PartitionSpec(None, shares(mesh)[0]))
    read = lambda index: windows.at(step, rows[index[:2]])
    return jax.make_array_from_callback((*rows.shape, windows.length), where, read)


def shares(mesh: Any) -> tuple[tuple[str, ...], int]:
    """The axes over which windows are split, and into how many shares."""
    axes = tuple(axis for axis in WINDOWS if axis in mesh.axis_names)
    return axes, math.prod(mesh.shape[axis] for axis in axes)


def spread(rows: Tree) -> Tree:
    """In a compiled program on a mesh: rows, such as some of the windows of a batch, are split over all devices."""
    axes, number = shares(jax.sharding.get_abstract_mesh())
    even = lambda row: row.shape[0] % number == 0
    split = lambda row: jax.lax.with_sharding_constraint(row, PartitionSpec(axes)) if even(row) else row
    return jax.tree.map(split, rows) if number > 1 else rows


def agreed(flag: bool) -> bool:
    """Whether it holds in any process: what all must do together is decided together."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())
