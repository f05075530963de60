"""A picture from a word, then from what is left of it: its middle, its pixels under noise, one grey value a patch.

python examples/pictures.py

Outpainting, denoising and super-resolution are three kinds of evidence about the same patches; the motion and its
scalar are those that drew the picture. The caption is not given: it is found on the way. With the name of a PNG file
behind it the command writes all of them side by side, the picture first.
"""

import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


def main(model: Any = None, picture: Any = None, noise: float = 0.5, seed: int = 1, save: str = "") -> dict[str, float]:
    """Print what was made of what is left of a picture, by default one of a seven; return how far its pixels are from
    the picture, root mean square."""
    model = ed.load("digits") if model is None else model
    tokenizer, draw = model.tokenizer, np.random.default_rng(seed)
    if picture is None:
        drawn = ed.generate(model, prompt="seven", seed=seed)
        picture = drawn.pictures[0]
        print(f"a seven: F fell from {drawn.free_energy[0, 0]:.0f} to {drawn.free_energy[0, -1]:.0f} nats")
    patches = tokenizer.cut(picture[None]).reshape(-1, tokenizer.patch**2 * tokenizer.channels) / 255.0
    codes, width = tokenizer.codes[len(tokenizer.letters) :, : patches.shape[1]], tokenizer.width

    # outpainting: all but the middle is a hole
    rows, columns = tokenizer.shape
    hole = np.ones(tokenizer.shape, bool)
    hole[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4] = False
    made = {"the middle": ed.sampling.inpaint(model, picture, hole, seed=seed)}

    # denoising: Gaussian evidence about the pixels, and as good as none about the caption
    seen = np.zeros((tokenizer.places, tokenizer.codes.shape[1]))
    seen[width:, : patches.shape[1]] = patches + noise * draw.normal(size=patches.shape)
    level = np.where(np.arange(tokenizer.places) < width, 1e3, noise)
    noisy = ed.flow.Gaussian(jnp.asarray(seen, jnp.float32), jnp.asarray(level, jnp.float32))
    made[f"pixels under noise of {noise:g}"] = ed.generate(model, evidence=noisy, seed=seed)

    # super-resolution: of every patch its mean, to 1/30 of white
    b = np.zeros((tokenizer.places, tokenizer.size), np.float32)
    b[width:, len(tokenizer.letters) :] = -((patches.mean(1)[:, None] - codes.mean(1)) ** 2) / (2 * 0.033**2)
    coarse = ed.flow.Likelihood(jnp.asarray(np.maximum(b, -200.0)))
    made["one grey value a patch"] = ed.generate(model, evidence=coarse, seed=seed)

    far = {}
    for left, one in made.items():
        far[left] = float(np.sqrt(np.mean((one.pictures[0] / 255.0 - picture / 255.0) ** 2)))
        print(f"from {left}: {one.texts[0]!r}, {far[left]:.2f} of white from the picture")
    if save:
        ed.data.write_picture(save, np.concatenate([picture, *(one.pictures[0] for one in made.values())], axis=1))
    return far


if __name__ == "__main__":
    main(save=sys.argv[1] if len(sys.argv) > 1 else "")
