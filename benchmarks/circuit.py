"""The figures of the circuits: errors, chips, text, energy, noise, and what a simulation costs.

    python benchmarks/circuit.py errors scaling chips spread energy langevin text

Each word is one table; without words, all of them. Needs ngspice. `--figure FILE` draws the table of `spread`.
"""

import argparse
import functools
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energy_dllm as ed
from energy_dllm import circuit


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import circuit_memory  # noqa: E402
import circuit_text  # noqa: E402


def dense(key: jax.Array, n: int = 16, m: int = 5, beta: float = 0.8) -> circuit.Crossbar:
    """A dense memory of random signs."""
    return circuit.Crossbar(jnp.sign(jax.random.normal(key, (m, n))), (m,), beta=beta)


def transformer(key: jax.Array) -> tuple[ed.flow.Relaxation, jax.Array]:
    """An energy-transformer block: layer norm, two heads, a rectified memory; L = 8, D = 8, M = 16."""
    k = jax.random.split(key, 5)
    synapses = {
        "attention": ed.energy.Attention(8, heads=2, head_dim=4, key=k[0]),
        "memory": ed.energy.DenseMemory(8, memories=16, neurons=ed.energy.Rectifier(), key=k[1]),
    }
    network = ed.energy.Network(ed.energy.LayerNorm(), synapses, 0.1 * jax.random.normal(k[2], (8,)))
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(5, 8, key=k[3]), kappa=4.0)
    return ed.flow.Relaxation(energy, ed.flow.Masked(8)), jax.random.normal(k[4], (8, 8))


def errors() -> None:
    """Distance from diffrax at the simulator's own time points."""
    print("largest error on the path, at the end, relative to the largest value; seconds of ngspice")
    memory = dense(jax.random.key(0))
    start = memory.patterns[0].at[:5].multiply(-1.0)
    ideal = circuit.fabricate(memory, circuit.Technology()).circuit(start)
    real = circuit.fabricate(memory, circuit.Technology.bipolar()).circuit(start)
    field, y = transformer(jax.random.key(1))
    block = circuit.lower(field, y)
    for name, motion, state, made, steps in (
        ("dense memory, behavioural", memory, start, circuit.lower(memory, start), (0.02, 0.004, 0.002, 0.001)),
        ("dense memory, ideal transistors", memory, start, ideal, (0.02, 0.01, 0.005, 0.003)),
        ("dense memory, real transistors", memory, start, real, (0.05, 0.02)),
        ("energy transformer, behavioural", field, y, block, (0.1, 0.05, 0.02, 0.01)),
    ):
        print(f"{name}, {made.elements} elements")
        for step in steps:
            path = circuit.simulate(made, t1=8.0, max_step=step)
            apart = circuit.Comparison(motion, state, path, step=0.01)
            print(f"  step {step:<6} {apart.largest:8.1e} {apart.end:8.1e} {apart.relative:8.1e} {path.seconds:6.2f} s")


def scaling() -> None:
    """Netlists of growing memories: seconds to write and to simulate ten time constants at a hundred steps."""
    print("    N    M  elements   lower   write    ngspice    error")
    for n, m in ((16, 4), (64, 32), (128, 64), (128, 128), (512, 58)):
        memory = dense(jax.random.key(0), n, m, beta=4.0 / n**0.5)
        start = 0.5 * memory.patterns[0] + 0.3 * jax.random.normal(jax.random.key(1), (n,))
        began = time.process_time()  # of this core, whatever else is running
        made = circuit.lower(memory, start)
        lowered = time.process_time() - began
        began = time.process_time()
        made.deck(t1=10.0, max_step=0.1)
        written = time.process_time() - began
        path = circuit.simulate(made, t1=10.0, max_step=0.1, patience=200.0)
        apart = circuit.Comparison(memory, start, path)
        print(f"{n:5}{m:5}{made.elements:10,}{lowered:8.2f}{written:8.3f}{path.seconds:9.2f} s {apart.largest:9.1e}")


@eqx.filter_jit
def _answers(memory, technology, keys, starts):
    """Digits that chips read, `(chips, starts)`."""
    patterns = jnp.asarray(circuit_memory.digits())

    def one(key, start):
        chip = circuit.fabricate(memory, technology, key)
        step = lambda _, v: v + 0.1 * chip(0.0, v)
        return jnp.argmax(patterns @ jax.lax.fori_loop(0, 100, step, start))

    return jax.vmap(lambda key: jax.vmap(lambda start: one(key, start))(starts))(keys)


def cues(count: int, flipped: float) -> tuple[jax.Array, jax.Array]:
    """Digits with every pixel turned with probability `flipped`, and which they are."""
    keys = jax.random.split(jax.random.key(7), count)
    which = jnp.arange(count) % 10
    patterns = jnp.asarray(circuit_memory.digits())[which]
    turned = jax.vmap(lambda key: jax.random.uniform(key, (35,), jnp.float32) < flipped)(keys)
    return jnp.where(turned, -patterns, patterns), which


def chips() -> None:
    """Every chip's equation against its netlist."""
    memory = circuit_memory.memory()
    spread = circuit.Technology.bipolar(conductance=0.1, capacity=0.1, offset=2e-3, base=3e-3, levels=16)
    starts, which = cues(200, 0.3)
    same, right, ends = 0, 0, []
    for n in range(10):
        chip = circuit.fabricate(memory, spread, jax.random.key(n))
        for q in range(20 * n, 20 * n + 20):
            path = circuit.simulate(chip.circuit(starts[q], t1=12.0), t1=12.0, max_step=0.1)
            apart = circuit.Comparison(chip, starts[q], path)
            read = lambda v: int(np.argmax(circuit_memory.digits() @ v))
            same += read(path.final) == read(apart.states[-1])
            right += read(path.final) == int(which[q])
            ends.append(apart.end)
    print("10 chips (conductance 10 %, capacitors 10 %, offset 2 mV, base 3 mV, 16 levels), 20 cues each, 30 % turned")
    print(
        f"decisions of ngspice and of the equation alike {same} of 200; right {right}; end error {np.median(ends):.1e}"
    )


def spread(figure: str | None = None) -> None:
    """Accuracy of the chips' equations against each imperfection: 10 chips, 100 cues each, one pixel in four turned."""
    memory = circuit_memory.memory()
    starts, which = cues(100, 0.25)
    keys = jax.random.split(jax.random.key(11), 10)
    sweeps = {
        "conductance (relative)": ("conductance", 1.0, (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)),
        "levels": ("levels", 1, (2, 3, 4, 8, 32)),
        "offset (mV)": ("offset", 1e-3, (0.0, 0.3, 1.0, 3.0, 10.0)),
        "base (mV)": ("base", 1e-3, (0.0, 3.0, 10.0)),
    }
    found = {}
    for name, (field, unit, values) in sweeps.items():
        shares = []
        for value in values:
            read = _answers(memory, circuit.Technology(**{field: unit * value}), keys, starts)
            per_chip = np.mean(np.asarray(read) == np.asarray(which), axis=1)
            shares.append((value, per_chip.mean(), per_chip.std()))
        found[name] = shares
        print(name, "  ".join(f"{v:g}: {mean:.3f}±{std:.3f}" for v, mean, std in shares), flush=True)
    found["temperature T"] = _noisy(memory, starts, which)
    if figure:
        _draw(found, figure)


def _noisy(memory, starts, which) -> list[tuple[float, float, float]]:
    """Accuracy while every neuron is shaken at a temperature, by Euler steps of the equation."""

    @jax.jit
    def read(temperature, key):
        def one(start, key):
            def step(n, v):
                noise = jnp.sqrt(2 * temperature * 0.05) * jax.random.normal(jax.random.fold_in(key, n), v.shape)
                return v + 0.05 * memory(0.0, v) + noise

            return jnp.argmax(jnp.asarray(circuit_memory.digits()) @ jax.lax.fori_loop(0, 240, step, start))

        return jax.vmap(one)(starts, jax.random.split(key, len(starts)))

    shares = []
    for temperature in (0.0, 0.01, 0.1, 0.3, 1.0, 3.0):
        per_run = [np.mean(np.asarray(read(temperature, jax.random.key(n)) == which)) for n in range(10)]
        shares.append((temperature, float(np.mean(per_run)), float(np.std(per_run))))
    print("temperature T", "  ".join(f"{v:g}: {mean:.3f}±{std:.3f}" for v, mean, std in shares))
    return shares


def _draw(found: dict, file: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 2.5), layout="constrained", facecolor="white")
    for axes, (name, shares) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        value, mean, std = np.array(shares).T
        places = np.arange(len(value))
        axes.fill_between(places, mean - std, mean + std, color="#0072b2", alpha=0.18, linewidth=0)
        axes.plot(places, mean, color="#0072b2", marker="o", markersize=3.5, linewidth=1.4)
        axes.set_xticks(places, [f"{v:g}" for v in value], fontsize=8)
        axes.set(xlabel=name, ylim=(0, 1.02))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    figure.axes[0].set_ylabel("digits recalled")
    figure.savefig(file, dpi=150)


def energy() -> None:
    """Joules of a recall and of a sentence, for three bandwidths of the drivers."""
    memory, start = circuit_memory.memory(), circuit_memory.cue(3, jax.random.key(3))
    evaluations = int(ed.solve(memory, start, t0=0.0, t1=8.0).force_evaluations)
    for bandwidth in (1e7, 3e7, 1e8):
        technology = circuit.Technology.bipolar(bandwidth=bandwidth, parasitic=5e-14)
        made = circuit.fabricate(memory, technology).circuit(start, metered=True)
        path = circuit.simulate(made, t1=15.0, max_step=0.1)
        read = int(np.argmax(circuit_memory.digits() @ path.final))
        print(f"\na recall, drivers of {bandwidth:.0e} Hz (reads {read})")
        print(circuit.EnergyReport(made, path, memory, evaluations=evaluations))
        if bandwidth == 1e7:
            one = circuit.EnergyReport(made, path, memory, evaluations=1)
            print(f"against a single evaluation the same at {one.break_even * 1e12:.3g} pJ an operation")
    memory = circuit_text.train()
    ids = jnp.array([circuit_text.WORDS.index(word) for word in ("the", "dog", "sees", "two", "dogs")])
    for bandwidth in (1e7, 3e7, 1e8):
        settings = {**vars(circuit.Technology.bipolar()), "rail": 3.3, "bandwidth": bandwidth, "parasitic": 5e-14}
        joules, operations = 0.0, 0
        for known in range(5):  # a sentence is five relaxations, one word more known each time
            held = circuit_text.held(memory, jnp.arange(5) < known)
            start = circuit_text.start(ids, jnp.arange(5) < known)
            evaluations = int(ed.solve(held, start, t0=0.0, t1=10.0).force_evaluations)
            made = circuit.fabricate(held, circuit.Technology(**settings)).circuit(start, t1=10.0, metered=True)
            path = circuit.simulate(made, t1=15.0, max_step=0.1)
            report = circuit.EnergyReport(made, path, held, evaluations=evaluations)
            joules, operations = joules + report.joules, operations + report.operations * evaluations
        print(
            f"a sentence, drivers of {bandwidth:.0e} Hz: {joules:.3g} J; {operations:,} operations of arithmetic, "
            f"the same at {joules / operations * 1e12:.3g} pJ an operation"
        )


def langevin(t1: float = 8000.0) -> None:
    """Two neurons and three memories under the thermal noise of 1 fF: the law of Gibbs."""
    angle = 2 * jnp.pi * jnp.arange(3) / 3
    patterns = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    temperature = 0.25
    memory = circuit.Crossbar(patterns, (3,), beta=1 / temperature)
    volts = (circuit.Technology(capacitance=1e-15, volts=1.0).noise / temperature) ** 0.5
    # in pieces: the simulator searches a long list of points from its beginning at every step
    state, parts, seconds = jnp.zeros(2), [], 0.0
    for piece in range(round(t1 / 400)):
        key = jax.random.fold_in(jax.random.key(0), piece)
        made = circuit.thermal_noise(circuit.lower(memory, state), key, temperature=temperature, t1=400.0, step=0.2)
        path = circuit.simulate(made, t1=400.0, max_step=0.2)
        times = np.arange(0.25, 400.0, 0.25)
        parts.append(np.stack([np.interp(times, path.times, path.states[:, n]) for n in range(2)], axis=1))
        state, seconds = jnp.asarray(path.final), seconds + path.seconds
    states = np.concatenate(parts)[80:]
    print(f"T = {temperature}: kT/C of 1 fF where a unit is {volts * 1e3:.2f} mV; {seconds:.1f} s of ngspice")
    nearest = np.argmax(states @ np.asarray(patterns).T, axis=1)
    blocks = np.array_split(nearest, 40)
    for pattern in range(3):
        shares = np.array([np.mean(block == pattern) for block in blocks])
        error = shares.std(ddof=1) / len(blocks) ** 0.5
        share = shares.mean()
        print(f"memory {pattern}: {share:.4f} ± {error:.4f}, exact {1 / 3:.4f}: {(share - 1 / 3) / error:+.1f} errors")
    # the mixture's second moment: T of each Gaussian, 1/2 of the three centres
    print("variance", np.var(states, axis=0).round(3), "exact", temperature + 0.5)


def text(count: int = 50) -> None:
    """Sentences of the grammar by diffrax, by ideal parts, by transistors."""
    memory = circuit_text.train()
    grammar = set(circuit_text.sentences())
    technology = circuit.Technology.bipolar(rail=3.3)
    ways = {
        "diffrax": circuit_text.by_diffrax,
        "ngspice, behavioural": circuit_text.by_ngspice,
        "ngspice, real transistors": functools.partial(circuit_text.by_ngspice, technology=technology),
    }
    written = {}
    for name, relax in ways.items():
        began = time.monotonic()
        written[name] = [circuit_text.write(memory, relax, seed=seed) for seed in range(count)]
        seconds = (time.monotonic() - began) / count
        pairs = zip(written[name], written["diffrax"], strict=True)
        agree = np.mean([a == b for one, other in pairs for a, b in zip(one, other, strict=True)])
        good = np.mean([tuple(sentence) in grammar for sentence in written[name]])
        print(f"{name:26} words as diffrax {agree:7.2%}  in the grammar {good:6.1%}  {seconds:5.2f} s a sentence")
    print(f"{'the grammar itself':26} {'':32} 100.0%  ({len(grammar)} sentences)")


def main() -> None:
    """Print the tables that were asked for."""
    tables = {
        "errors": errors,
        "scaling": scaling,
        "chips": chips,
        "spread": spread,
        "energy": energy,
        "langevin": langevin,
        "text": text,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", choices=[*tables, []])
    parser.add_argument("--figure", metavar="FILE")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name in options.tables or tables:
        print(f"\n== {name}")
        tables[name](options.figure) if name == "spread" else tables[name]()


if __name__ == "__main__":
    main()
