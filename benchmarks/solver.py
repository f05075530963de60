"""Default relaxation against Tsit5 at tolerance 1e-6, on held-out text: law 8 with its figure.

    python benchmarks/solver.py shakespeare ../shared/data/shakespeare_plays/plays.md.xz

Cross-entropy of masked characters in windows of the validation play, at the default relaxation time.
"""

import argparse
import lzma
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from train_shakespeare import VALIDATION, plays

import energy_dllm as ed


def main() -> None:
    """Measure and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("plays", type=Path)
    parser.add_argument("--windows", type=int, default=64)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)  # tolerance 1e-6 is at the edge of float32
    model = ed.load(options.model)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, model)
    text = plays(lzma.open(options.plays, "rt", encoding="utf-8").read())[VALIDATION]
    ids = jnp.asarray(ed.data.Windows.disjoint(model.tokenizer.encode(text), 64, count=options.windows))
    rate = jnp.linspace(0.05, 0.95, ids.shape[0])[:, None]
    known = jax.random.uniform(jax.random.key(0), ids.shape) >= rate

    @jax.jit
    def both(row):
        ids, known = row
        evidence = ed.flow.Given(ids, known)
        field = ed.flow.Relaxation(model.energy, evidence)
        controller = diffrax.PIDController(rtol=1e-6, atol=1e-6)
        start = model.energy.neutral(ids.shape[0])
        y = ed.solve(field, start, t0=0.0, t1=model.steps * model.step, controller=controller).final
        exact = jax.nn.log_softmax(model.energy.logits(y, model.field(evidence)), axis=-1)
        pick = lambda log_p: -jnp.sum(jnp.where(known, 0, jnp.take_along_axis(log_p, ids[:, None], -1)[:, 0]))
        return pick(exact), pick(model.log_posterior(ids, known))

    exact, euler = jax.lax.map(both, (ids, known))
    total = jnp.sum(~known)
    apart = jnp.abs(euler / exact - 1)
    print(f"Tsit5 at 1e-6 {exact.sum() / total:.4f}, default {euler.sum() / total:.4f} nats per masked character")
    print(
        f"ratio {euler.sum() / exact.sum() - 1:+.2%}; single windows apart by {jnp.median(apart):.2%} (median), ",
        end="",
    )
    print(f"{jnp.max(apart):.2%} (largest)")


if __name__ == "__main__":
    main()
