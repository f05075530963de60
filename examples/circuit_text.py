"""A small grammar, learned in seconds, and its sentences written by a circuit, beside diffrax's.

python examples/circuit_text.py              # needs ngspice; --devices for transistors, --plot FILE for waveforms
"""

import argparse
import functools
import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import energy_dllm as ed


WORDS = ["the", "a", "two", "dog", "cat", "dogs", "cats", "sees", "hears", "see", "hear"]
LENGTH, GROUPS, CELLS, KAPPA, TIME = 5, 8, 5, 6.0, 10.0
Relax = Callable[[ed.circuit.Crossbar, jax.Array], np.ndarray]


def sentences() -> list[tuple[str, ...]]:
    """All sentences of the grammar: articles agree with nouns, the verb with the first of them."""
    one = list(itertools.product(("the", "a"), ("dog", "cat")))
    many = list(itertools.product(("the", "two"), ("dogs", "cats")))
    spoken = [(*s, v) for s, v in itertools.product(one, ("sees", "hears"))]
    spoken += [(*s, v) for s, v in itertools.product(many, ("see", "hear"))]
    return [(*s, *o) for s, o in itertools.product(spoken, one + many)]


def crossbar(patterns: jax.Array) -> ed.circuit.Crossbar:
    """Five words of one-hot neurons, and memories that compete in groups."""
    return ed.circuit.Crossbar(patterns, (CELLS,) * GROUPS, beta=2.0)


def held(memory: ed.circuit.Crossbar, known: jax.Array) -> ed.circuit.Crossbar:
    """The crossbar with the neurons of known words clamped."""
    return eqx.tree_at(lambda m: m.clamped, memory, jnp.repeat(known, len(WORDS)))


def start(ids: jax.Array, known: jax.Array) -> jax.Array:
    """Known words one-hot, the others 0, `(L V,)`."""
    return jnp.where(known[:, None], jax.nn.one_hot(ids, len(WORDS)), 0.0).reshape(-1)


def logits(state: jax.Array | np.ndarray) -> jax.Array:
    """What the neurons say of every word, `(L, V)`."""
    return KAPPA * jnp.asarray(state).reshape(LENGTH, len(WORDS))


def train(steps: int = 2000, *, seed: int = 0) -> ed.circuit.Crossbar:
    """Patterns by cross-entropy of masked words at rest, with a penalty on signals a chip has no room for."""
    corpus = jnp.array([[WORDS.index(word) for word in sentence] for sentence in sentences()])
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, steps))

    def loss(patterns, key):
        k1, k2, k3 = jax.random.split(key, 3)
        ids = jax.random.choice(k1, corpus, (64,))
        known = jax.random.uniform(k2, ids.shape) > jax.random.uniform(k3, (64, 1))

        def one(ids, known):
            memory, state = held(crossbar(patterns), known), start(ids, known)
            state = jax.lax.fori_loop(0, 16, lambda _, v: v + 0.4 * memory(0.0, v), state)
            cost = optax.softmax_cross_entropy_with_integer_labels(logits(state), ids)
            return jnp.sum(jnp.where(known, 0.0, cost)), memory.headroom(state, limit=15.0)

        cost, room = jax.vmap(one)(ids, known)
        return jnp.sum(cost) / jnp.maximum(jnp.sum(~known), 1) + jnp.mean(room)

    @jax.jit
    def step(patterns, memory, key):
        updates, memory = optimiser.update(jax.grad(loss)(patterns, key), memory)
        return optax.apply_updates(patterns, updates), memory

    key, k1 = jax.random.split(jax.random.key(seed))
    patterns = 0.3 * jax.random.normal(k1, (GROUPS * CELLS, LENGTH * len(WORDS)))
    memory = optimiser.init(patterns)
    for n in range(steps):
        patterns, memory = step(patterns, memory, jax.random.fold_in(key, n))
    return crossbar(patterns)


@eqx.filter_jit
def _settled(memory: ed.circuit.Crossbar, state: jax.Array) -> jax.Array:
    return ed.solve(memory, state, t0=0.0, t1=TIME, step=0.05).final


def by_diffrax(memory: ed.circuit.Crossbar, state: jax.Array) -> np.ndarray:
    """Relax by the equation."""
    return np.asarray(_settled(memory, state))


def by_ngspice(
    memory: ed.circuit.Crossbar, state: jax.Array, *, technology: ed.circuit.Technology | None = None
) -> np.ndarray:
    """Relax by a circuit: of ideal parts, or of devices where a technology is given."""
    return _waves(memory, state, technology).final


def _waves(memory, state, technology):
    if technology is None:
        made = ed.circuit.lower(memory, state)
    else:
        made = ed.circuit.fabricate(memory, technology).circuit(state, t1=TIME)
    return ed.circuit.simulate(made, t1=TIME, max_step=0.1)


def write(memory: ed.circuit.Crossbar, relax: Relax, *, seed: int) -> list[str]:
    """One sentence, word by word in random order: relax, draw one word, clamp it, relax again."""
    key = jax.random.key(seed)
    ids, known = jnp.zeros(LENGTH, int), jnp.zeros(LENGTH, bool)
    for n, place in enumerate(jax.random.permutation(key, LENGTH).tolist()):
        state = relax(held(memory, known), start(ids, known))
        # the same draw for the same seed, whoever relaxes
        word = jax.random.categorical(jax.random.fold_in(key, n), logits(state)[place])
        ids, known = ids.at[place].set(word), known.at[place].set(True)
    return [WORDS[w] for w in ids.tolist()]


def plot(memory: ed.circuit.Crossbar, technology: ed.circuit.Technology | None, file: str) -> None:
    """The neurons of the last word of "the dog sees two ..." find out that it is more than one."""
    from matplotlib.figure import Figure

    ids = jnp.array([WORDS.index(word) for word in ("the", "dog", "sees", "two", "dogs")])
    known = jnp.arange(LENGTH) < 4
    waves = _waves(held(memory, known), start(ids, known), technology)
    apart = ed.circuit.Comparison(held(memory, known), start(ids, known), waves)
    figure = Figure(figsize=(7.0, 3.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    last = slice(4 * len(WORDS), None)
    final = waves.final[last]
    axes.plot(waves.times, apart.states[:, last], color="#c8c8c8", linewidth=3.2)
    colours = ["#0072b2", "#d55e00", "#00795a", "#b0508a"]
    for word, colour in zip(np.argsort(-final)[:4], colours, strict=True):
        axes.plot(waves.times, waves.states[:, last][:, word], color=colour, linewidth=1.2, label=WORDS[word])
    axes.plot([], [], color="#c8c8c8", linewidth=3.2, label="diffrax, all words")
    axes.set(xlabel="time (time constants)", ylabel="neuron (units of the model)")
    axes.set_title('"the dog sees two ..."', fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(file, dpi=150)


def main(count: int = 5, *, steps: int = 2000, devices: bool = False, file: str | None = None) -> dict[str, float]:
    """Train, write, and print the sentences of both side by side."""
    memory = train(steps)
    technology = ed.circuit.Technology.bipolar(rail=3.3) if devices else None
    grammar, agree, good = set(sentences()), 0, {"diffrax": 0, "ngspice": 0}
    for seed in range(count):
        one = write(memory, by_diffrax, seed=seed)
        other = write(memory, functools.partial(by_ngspice, technology=technology), seed=seed)
        agree += sum(a == b for a, b in zip(one, other, strict=True))
        good["diffrax"] += tuple(one) in grammar
        good["ngspice"] += tuple(other) in grammar
        print(f"diffrax  {' '.join(one):32} ngspice  {' '.join(other)}")
    share = agree / (count * LENGTH)
    print(f"\nwords that agree {share:.0%}; in the grammar: {good['diffrax']} and {good['ngspice']} of {count}")
    if file:
        plot(memory, technology, file)
    return {"agreement": share, **{name: value / count for name, value in good.items()}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", action="store_true")
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    main(devices=options.devices, file=options.plot)
