"""What one byte a weight costs: bytes of the file, bits on held-out text, whether saving again changes a byte.

python benchmarks/int8.py shakespeare ../shared/data/shakespeare_plays/plays.md.xz --windows 512

Windows and masks are the same for both, so that the error of the difference is that of pairs.
"""

import argparse
import math
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from quality import unseen

import energy_dllm as ed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--windows", type=int, default=512)
    options = parser.parse_args()
    model, text = unseen(options)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.safetensors" for name in ("float32", "int8", "again")}
        ed.save(paths["float32"], model)
        ed.save(paths["int8"], model, int8=True)
        rounded = ed.load(paths["int8"])
        ed.save(paths["again"], rounded, int8=True)
        sizes = {name: path.stat().st_size for name, path in paths.items()}
        same = paths["again"].read_bytes() == paths["int8"].read_bytes()
    print(f"{sizes['int8']:,} bytes of {sizes['float32']:,}: {sizes['int8'] / sizes['float32']:.3f}; again {same=}")
    rate = jax.random.permutation(jax.random.key(6), (jnp.arange(len(text)) + 0.5) / len(text))
    known = jax.random.uniform(jax.random.key(5), text.shape) >= rate[:, None]
    log_p, log_q = (np.asarray(posteriors(which, text, known)) for which in (model, rounded))
    hidden = ~np.asarray(known)
    true = [np.take_along_axis(each, np.asarray(text)[..., None], -1)[..., 0] for each in (log_p, log_q)]
    weight = 1 / (hidden.mean(1).clip(1 / options.length) * options.length * math.log(2))
    bits = np.stack([-(np.where(hidden, each, 0).sum(1) * weight) for each in true])
    change = bits[1] - bits[0]
    print(f"masked bound, bits a token: {bits[0].mean():.4f} and {bits[1].mean():.4f}", end=", ")
    print(f"change {change.mean():+.4f} ± {change.std(ddof=1) / len(text) ** 0.5:.4f} ({len(text)} windows)")
    apart = np.abs(np.exp(log_p) - np.exp(log_q)).sum(-1) / 2
    print(f"posteriors of masked tokens: {apart[hidden].mean():.4f} apart in total variation")


@eqx.filter_jit
def posteriors(model: ed.EnergyDLLM, text: jnp.ndarray, known: jnp.ndarray) -> jnp.ndarray:
    """`log p(token | known tokens)` of every window `(windows, L, V)`."""
    return jax.lax.map(lambda row: model.log_posterior(*row), (text, known), batch_size=16)


if __name__ == "__main__":
    main()
