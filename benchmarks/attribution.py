"""Does the attribution add up, and does what it names matter?

    python benchmarks/attribution.py shakespeare --plays ../shared/data/shakespeare_plays/plays.md.xz

1. The sum of the parts against the log-odds, in float32, on random hidden states: `|sum - log-odds| / |log-odds|` of
   each state, norms over its tokens, and the largest error of a single token relative to the largest of its parts.
2. At rest under half of each window, at hidden places: the message of each neighbour (`attribution`, over all synapses
   between tokens) against what the log-odds lose when it is removed and the passage relaxes anew
   (`counterfactual`), correlated over all neighbours; the same for whole terms. With `--plays` held-out text, else
   random tokens.
"""

import argparse
import json
import lzma
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


REACH = 8
"""Neighbours so near are compared."""


def identity(model, states: int, length: int, key) -> dict:
    """The largest errors of the identity over random states and random evidence."""

    @eqx.filter_jit
    def errors(model, key):
        k1, k2, k3, k4 = jax.random.split(key, 4)
        ids = jax.random.randint(k1, (length,), 0, model.size)
        given = ed.flow.Given(ids, jax.random.bernoulli(k2, 0.5, (length,)))
        rest = model.settle(given)
        y = rest + jax.random.exponential(k3) * jnp.std(rest) * jax.random.normal(k4, rest.shape, rest.dtype)
        why = ed.probe.attribution(0.0, y, ed.flow.Relaxation(model.energy, given))
        largest = jnp.max(jnp.abs(jnp.stack(list(why.parts.values()))), axis=0)
        splits = [
            jnp.linalg.norm(jnp.sum(split, -1) - why.parts[name]) / jnp.linalg.norm(why.parts[name])
            for kind in (why.neighbours, why.memories)
            for name, split in kind.items()
        ]
        wrong = why.total - why.log_odds
        whole = jnp.linalg.norm(wrong) / jnp.linalg.norm(why.log_odds)
        return whole, jnp.max(jnp.abs(wrong) / largest), jnp.max(jnp.stack(splits))

    found = jax.lax.map(lambda key: errors(model, key), jax.random.split(key, states))
    names = ("state", "token", "split")
    return {f"largest relative error, {name}": float(jnp.max(e)) for name, e in zip(names, found, strict=True)}


def counterfactuals(model, windows, key, steps: int) -> dict:
    """Correlations of messages with the fall on removal."""
    length = windows.shape[1]

    @eqx.filter_jit
    def both(model, ids, key):
        k1, k2 = jax.random.split(key)
        known = jax.random.bernoulli(k1, 0.5, (length,))
        given = ed.flow.Given(ids, known)
        y = model.settle(given, steps=10 * model.steps)
        place = jax.random.choice(k2, length, p=jnp.where(known, 0.0, 1.0) / jnp.sum(~known))
        why = ed.probe.attribution(0.0, y, ed.flow.Relaxation(model.energy, given))
        lost = ed.probe.Counterfactual(model.energy, given, y, place, steps=steps, step=model.step)
        message = sum(why.neighbours.values())[place]
        near = (jnp.abs(jnp.arange(length) - place) <= REACH) & (jnp.arange(length) != place)
        return (
            near,
            message,
            lost.neighbours,
            {name: (why.parts[name][place], fall) for name, fall in lost.terms.items()},
        )

    seen = [both(model, ids, k) for ids in windows for k in jax.random.split(jax.random.fold_in(key, int(ids[0])), 4)]
    near, message, lost = (np.stack([np.asarray(row[n]) for row in seen]) for n in range(3))
    terms = {name: np.array([[float(v) for v in row[3][name]] for row in seen]) for name in seen[0][3]}
    correlate = lambda one, other: round(float(np.corrcoef(one, other)[0, 1]), 4)
    every = np.concatenate(list(terms.values()))
    return {
        "correlation, neighbours": correlate(message[near], lost[near]),
        "pairs": int(near.sum()),
        "correlation, terms": correlate(*every.T),
        "correlation, term by term": {name: correlate(*rows.T) for name, rows in terms.items() if rows.std() > 0},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="shakespeare")
    parser.add_argument("--plays", type=Path)
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--steps", type=int, default=24, help="of the relaxation after each removal")
    options = parser.parse_args()
    model = ed.load(options.model)
    k1, k2, k3 = jax.random.split(jax.random.key(0), 3)
    record = identity(model, options.states, options.length, k1)
    windows = jax.random.randint(k2, (options.windows, options.length), 0, model.size)
    if options.plays is not None:
        from train_shakespeare import VALIDATION, plays

        text = plays(lzma.open(options.plays, "rt", encoding="utf-8").read())[VALIDATION]
        ids = model.tokenizer.encode(text)
        windows = jnp.asarray(ed.data.Windows.disjoint(ids, options.length, count=options.windows))
    record |= counterfactuals(model, windows, k3, options.steps)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
