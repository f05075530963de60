"""Is the likeliest text written at temperature 0?

    python benchmarks/temperature.py shakespeare

`log P` of passages in nats by the chain rule, one token at a time from left to right, of passages that were written at
several temperatures by unmasking and by the descent; of a greedy one; and by beam search.
"""

import argparse
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


@eqx.filter_jit
def log_p(model, ids):
    """`log P(ids)` from left to right, of each passage `(N,)`."""

    def one(ids):
        def ask(total, place):
            log_p = model.log_posterior(ids, jnp.arange(ids.shape[0]) < place)
            return total + log_p[place, ids[place]], None

        return jax.lax.scan(ask, jnp.zeros(()), jnp.arange(ids.shape[0]))[0]

    return jax.lax.map(one, ids, batch_size=10)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.1, 0.25, 0.5, 0.7, 1.0])
    asked = parser.parse_args()
    model = ed.load(asked.model)
    unmask = functools.partial(
        ed.sampling.Unmasking, rounds=asked.length, steps=1, step=1.0, order=ed.sampling.left_to_right
    )

    def falling(temperature):
        field = functools.partial(ed.flow.AutonomousDescent, temperature=temperature)
        return ed.sampling.Diffusion(steps=64, until=0.45, temperature=0.0, field=field)

    def write(name, sampler, samples):
        made = ed.generate(model, length=asked.length, samples=samples, sampler=sampler, frames=1, window=asked.length)
        ids = np.resize(made.ids, (asked.samples, asked.length))
        nats = np.asarray(log_p(model, jnp.asarray(ids)))[:samples]
        text = made.texts[nats.argmax()]
        print(f"{name:32} mean {nats.mean():8.2f}  best {nats.max():8.2f}  {text!r}", flush=True)

    for temperature in asked.temperatures:
        write(f"unmasking, temperature {temperature:g}", unmask(temperature=temperature), asked.samples)
    for temperature in asked.temperatures:
        write(f"descent, temperature {temperature:g}", falling(temperature), asked.samples)
    write("unmasking, temperature 0", unmask(temperature=0.0), 1)
    for width in (1, 4, 16, 64):
        write(f"beam search, width {width}", ed.sampling.BeamSearch(width=width), 1)


if __name__ == "__main__":
    main()
