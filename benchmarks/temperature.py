"""Is the likeliest text written at temperature 0?

    python benchmarks/temperature.py shakespeare

`log P` of passages in nats by the chain rule, one token at a time from left to right, of passages that were written at
several temperatures by unmasking and by the descent; and greedily from each of the likeliest first tokens.
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

    def write(name, sampler, samples, prompt=""):
        made = ed.generate(
            model, length=asked.length, samples=samples, sampler=sampler, prompt=prompt, frames=1, window=asked.length
        )
        ids = np.resize(made.ids, (asked.samples, asked.length))
        nats = np.asarray(log_p(model, jnp.asarray(ids)))[:samples]
        if name:
            print(
                f"{name:32} mean {nats.mean():8.2f}  best {nats.max():8.2f}  {made.texts[nats.argmax()]!r}", flush=True
            )
        return nats[0]

    for temperature in asked.temperatures:
        write(f"unmasking, temperature {temperature:g}", unmask(temperature=temperature), asked.samples)
    for temperature in asked.temperatures:
        write(f"descent, temperature {temperature:g}", falling(temperature), asked.samples)
    write("unmasking, temperature 0", unmask(temperature=0.0), 1)
    first = np.argsort(-np.asarray(model.posterior(ed.flow.Masked(asked.length))[0]))[: asked.samples]
    each = [write("", unmask(temperature=0.0), 1, model.decode(first[n : n + 1])) for n in range(asked.samples)]
    print(f"{'0, from the likeliest tokens':32} mean {np.mean(each):8.2f}  best {np.max(each):8.2f}")


if __name__ == "__main__":
    main()
