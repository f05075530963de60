"""Matrices as whole numbers of one byte: `w = scale q`, one scale for each channel, the same bytes every time.

A scale is the largest magnitude of its channel over 127, rounded to the 8 significant bits of a bfloat16. So rounded it
is off by at most 1/512, the largest `q` is 127 still, every `scale q` is exact in 32 bits, and what was read from a
file gives the scales and numbers of that file again.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np


LARGEST = 127
ROWS = 24
"""Fewest rows of a matrix, beside its longest axis. Tables of fewer, such as attention biases by offset and kernels of
convolutions, are small, and rounding them would move posteriors more than rounding all matrices does."""
LEAST = 1e-30
"""A channel below this is zero."""
SCALE = ".scale"
"""What is added to the place of an array for that of its scales."""


def to_int8(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays with matrices of 32 bits or more as int8 and their scales, and the dtypes that these matrices had.

    A channel is what runs along the longest axis, so that scales are few; vectors, tables of few rows and
    shorter numbers stay as they are.
    """
    made: dict[str, np.ndarray] = {}
    dtypes: dict[str, str] = {}
    for place, array in arrays.items():
        few = array.ndim < 2 or not array.size or array.size // max(array.shape) < ROWS
        if few or array.dtype not in (np.float32, np.float64):
            made[place] = array
            continue
        peak = np.abs(array).max(axis=int(np.argmax(array.shape)), keepdims=True)
        scale = np.where(peak < LEAST, 0, peak / LARGEST).astype(jnp.bfloat16)
        whole = np.rint(array / np.where(scale == 0, np.inf, scale.astype(array.dtype)))
        made |= {place: whole.astype(np.int8), place + SCALE: scale}
        dtypes[place] = str(array.dtype)
    return made, dtypes


def restored(arrays: dict[str, np.ndarray], dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Arrays in the dtypes that the model has, times their scales where these are stored."""
    arrays = dict(arrays)
    for place, kind in dtypes.items():
        array, scale = arrays[place].astype(jnp.dtype(kind)), arrays.pop(place + SCALE, None)
        arrays[place] = array if scale is None else array * scale.astype(array.dtype)
    return arrays
