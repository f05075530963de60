"""Inpainting and captioning: some pixels are known, the others and the caption, if it is not given, are sampled."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, UInt8

from .._checks import on_device
from .._model import EnergyDLLM
from ..energy import Guidance
from ..flow import FORBIDDEN, Given, Likelihood
from ._blocks import write
from ._motion import FRAMES, Generation, default_sampler
from ._sampler import AbstractSampler
from ._template import Typed, captioned, given_of
from ._validate import room


PRECISION = 0.1
"""How far a pixel of a patch of which others are unknown may be from its code's, standard deviation, 1 being white."""


def inpaint(
    model: EnergyDLLM,
    picture: UInt8[np.ndarray, "rows columns *channels"],
    hole: Bool[np.ndarray, "rows columns"] | None = None,
    *,
    caption: str = "",
    samples: int = 1,
    sampler: AbstractSampler | None = None,
    guidance: Guidance | None = None,
    frames: int = FRAMES,
    seed: int = 0,
    watch: Callable[[Generation], object] | None = None,
    mesh: Mesh | None = None,
) -> Generation:
    """Fill the hole of a picture, or name what it shows: the pixels outside the hole are evidence, all else is sampled.

    A patch outside the hole is known: the nearest of the codebook. Of a patch with a part in the hole the other pixels
    are a log-likelihood, `-|seen - e_w|^2 / (2 0.1^2)`. The pixels that were given are kept in the `pictures`.

    **Arguments:**

    - `picture`: uint8, of the size that the model makes.
    - `hole`: where it is not known; nowhere by default, which leaves the caption to be found.
    - `caption`: what it shows; by default that is sampled as well, into `texts`.
    - all others: as in `generate`.

    **Returns:** a `Generation`.

    **Raises:** as `generate`, and `ValueError` if the model makes no pictures, sizes differ, or picture and caption
    leave nothing open.

    **Example:**

    ```python
    import jax, numpy as np, energy_dllm as ed

    pictures = np.random.default_rng(0).integers(0, 2, (9, 4, 6), np.uint8) * 255
    tokenizer = ed.data.Patches.from_pictures(pictures, patch=2, captions=["one", "two"])
    model = ed.EnergyDLLM(tokenizer, dim=16, reach=1, key=jax.random.key(0))
    hole = np.arange(6) > 2 + np.zeros((4, 1))
    sampler = ed.sampling.Diffusion(steps=3, field=ed.flow.AutonomousDescent)
    filled = ed.sampling.inpaint(model, pictures[0], hole, sampler=sampler)
    assert (filled.pictures[0][~hole] == pictures[0][~hole]).all() and len(filled.texts[0]) <= 3
    ```
    """
    given, b = of_picture(model, picture, hole, caption)
    room(given.length, samples, frames, given.length)
    made = write(
        model,
        given,
        sampler=default_sampler(model, filling=True) if sampler is None else sampler,
        evidence=Likelihood(on_device(b)) if b.any() else None,
        guidance=guidance,
        window=given.length,
        stop="",
        samples=samples,
        frames=frames,
        seed=seed,
        watch=watch,
        mesh=mesh,
    )
    picture = np.asarray(picture)
    hole = np.zeros(picture.shape[:2], bool) if hole is None else np.asarray(hole)
    kept = hole if picture.ndim == 2 else hole[..., None]
    return dataclasses.replace(made, pictures=np.where(kept, made.pictures, picture))


def of_picture(
    model: EnergyDLLM,
    picture: UInt8[np.ndarray, "rows columns *channels"],
    hole: Bool[np.ndarray, "rows columns"] | None = None,
    caption: str = "",
) -> tuple[Given, Float[np.ndarray, "L V"]]:
    """The evidence of a picture with a hole: the tokens that are given, and the log-likelihood `b (L, V)` of patches
    of which a part is seen, in nats.

    Arguments and errors are those of `inpaint`.

    **Example:**

    ```python
    import numpy as np, energy_dllm as ed

    model, hole = ed.load("digits"), np.arange(28) >= np.full((28, 1), 14)  # the right half
    given, b = ed.sampling.of_picture(model, np.zeros((28, 28), np.uint8), hole, caption="one")
    assert 0 < given.known.sum() < given.length and b.shape == (given.length, model.size)
    ```
    """
    tokenizer: Any = model.tokenizer
    if not tokenizer.places:
        raise ValueError("`model` writes text; expected one that makes pictures, such as `ed.load('digits')`.")
    picture = np.asarray(picture)
    hole = np.zeros(tokenizer.shape, bool) if hole is None else np.asarray(hole)
    if hole.shape != tokenizer.shape or hole.dtype != bool:
        raise ValueError(f"`hole` is {hole.dtype} of shape {hole.shape}; expected bool {tokenizer.shape}.")
    ids = tokenizer.quantise(picture[None])[0]
    unseen = tokenizer.cut(hole[None]).reshape(len(ids), -1)
    letters = captioned(model, caption)
    if not letters.ids.size:
        letters = Typed(np.zeros(tokenizer.width, np.int32), np.zeros(tokenizer.width, bool), [])
    if letters.known.all() and not hole.any():
        raise ValueError("`hole` is empty beside a `caption`, which leaves nothing open; leave out one of them.")
    given, _ = given_of(model, letters, Typed(ids, ~unseen.any(axis=1), []))
    # pixels of a patch, channel by channel as in its code
    seen = np.repeat(~unseen, tokenizer.channels, axis=1)
    pixels = tokenizer.cut(picture[None]).reshape(len(ids), 1, -1) / 255.0
    codes = tokenizer.codes[len(tokenizer.letters) :, : pixels.shape[-1]]
    b = np.zeros((tokenizer.places, tokenizer.size), np.float32)
    partly = seen.any(axis=1) & unseen.any(axis=1)
    miss = np.sum(seen[partly][:, None] * (pixels[partly] - codes) ** 2, axis=-1) / (2 * PRECISION**2)
    b[tokenizer.width :, len(tokenizer.letters) :][partly] = np.maximum(
        miss.min(axis=-1, keepdims=True) - miss, FORBIDDEN / 4
    )
    return given, b
