"""The other path to text: tokens are written one after another, and what is written becomes evidence.

    python benchmarks/unmask.py shakespeare ../shared/data/shakespeare_plays/plays.md.xz

The neurons relax under what is known so far, the next tokens are drawn from the posterior, and the relaxation goes on
from where it was. Judged like the Gaussian path in `samples.py`: same model, same judge, same held-out text beside it.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from judge import judge_of_plays, symbol_entropy

import energy_dllm as ed


def write(model: ed.EnergyDLLM, key, *, length: int, rounds: int, steps: int, temperature: float):
    """Token ids `(length,)`, written in a random order in so many rounds of equally many tokens."""
    k1, k2 = jax.random.split(key)
    order = jax.random.permutation(k1, length)

    def one(state, n):
        ids, y = state
        known = order < length * n // rounds
        b = model.field(ed.flow.Given(ids, known))
        y = ed.flow.relax(model.energy, y, b, steps=steps, step=model.step)
        logits = model.energy.logits(y, b) / temperature
        drawn = jax.random.categorical(jax.random.fold_in(k2, n), logits, axis=-1)
        return (jnp.where(known, ids, drawn), y), None

    start = jnp.zeros(length, int), model.energy.neutral(length)
    return jax.lax.scan(one, start, jnp.arange(rounds))[0][0]


def main() -> None:
    """Write, judge, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("plays", type=Path)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = ed.load(options.model)
    judge, real = judge_of_plays(options.plays, options.length)
    print("| rounds x relaxation steps | temperature | judged bits/char | +- | symbol entropy, bits | the first |")
    print("|---|---|---|---|---|---|")
    print(f"| real text | | {real['judged']:.2f} | | {real['entropy']:.2f} | |")
    keys = jax.random.split(jax.random.key(options.seed), options.samples)
    for rounds, steps in ((16, 24), (24, 24), (64, 8), (64, 24)):
        for temperature in (1.0, 0.7):
            one = lambda key, r=rounds, s=steps, t=temperature: write(
                model, key, length=options.length, rounds=r, steps=s, temperature=t
            )
            made = [model.decode(ids) for ids in eqx.filter_jit(jax.vmap(one))(keys)]
            bits = np.array([judge.bits_per_char(text) for text in made])
            error = bits.std(ddof=1) / len(bits) ** 0.5
            print(
                f"| {rounds} x {steps} | {temperature} | {bits.mean():.2f} | {error:.2f} | "
                f"{symbol_entropy(made):.2f} | {made[0]!r} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
