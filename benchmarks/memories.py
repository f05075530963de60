"""What memories hold, measured: capacities, exact retrieval, random features, condensation, and the nearest packages.

    python benchmarks/memories.py --figure docs/figures/capacity.png

Prints one table, or of it what `--only` names; the figure is that of log-sum-exp. Rows beside `hamux` and
`thrml` appear where these are installed (`pip install hamux thrml`): the same patterns, the same cues, accuracy,
and the fastest of ten calls after compilation.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


jax.config.update("jax_enable_x64", True)


def signs(draw: np.random.Generator, *shape: int) -> np.ndarray:
    return draw.choice([-1.0, 1.0], size=shape)


def padded(xi: np.ndarray, rows: int) -> jax.Array:
    """Rows of zeros store nothing in a sum: one shape, compiled once, for all loads."""
    return jnp.asarray(np.pad(xi, ((0, rows - len(xi)), (0, 0))))


def classical(size: int, trials: int, seed: int = 0) -> tuple[float, float]:
    """The load M/N at which the mean overlap, started at a pattern, falls through 0.967 (its value at the transition
    in theory), and that at which it is 0.7."""
    draw = np.random.default_rng(seed)
    loads = np.array([0.08, 0.11, 0.125, 0.135, 0.145, 0.155, 0.17, 0.2, 0.24])
    most = int(loads[-1] * size)

    @jax.jit
    def overlap(xi, key):
        memory = ed.memory.HopfieldMemory(xi)
        end = lambda x, k: ed.memory.glauber(memory, x, sweeps=12, key=k)
        starts = xi[:8]
        return jnp.mean(jax.vmap(end)(starts, jax.random.split(key, 8)) * starts)

    rates = []
    for load in loads:
        count = int(round(load * size))
        kept = [overlap(padded(signs(draw, count, size), most), jax.random.key(n)) for n in range(trials)]
        rates.append(np.mean([float(m) for m in kept]))
    curve = ", ".join(f"{a:g} N: {m:.3f}" for a, m in zip(loads, rates, strict=True))
    print(f"| classical memory, N = {size}: mean overlap against load | {curve} |", flush=True)
    return ed.memory.capacity(loads, np.array(rates), level=0.967), ed.memory.capacity(
        loads, np.array(rates), level=0.7
    )


def stable_load(degree: int, size: int, seed: int = 0) -> float:
    """The load at which 99 % of the neurons of stored patterns stay where they are."""
    draw = np.random.default_rng(seed)
    guess = {2: 0.25 * size, 3: 0.11 * size**2, 4: 0.05 * size**3}[degree]
    loads = np.unique(np.round(guess * np.geomspace(0.25, 3.0, 12)).astype(int))
    loads = loads[loads >= 2]
    most = int(loads[-1])

    @jax.jit
    def stable(xi, shown):
        memory = ed.memory.PolynomialMemory(xi, degree=degree)
        flips = 1 - 2 * jnp.eye(size)
        one = lambda x: jnp.mean(jax.lax.map(lambda flip: memory(flip * x) > memory(x), flips))
        return jnp.mean(jax.lax.map(one, shown))

    rates = []
    for load in loads:
        seen = []
        for _ in range(2000 // size):
            xi = signs(draw, int(load), size) / size**0.5
            seen.append(float(stable(padded(xi, most), jnp.asarray(np.resize(xi[:4], (4, size))))))
        rates.append(np.mean(seen))
        if rates[-1] < 0.97:
            break
    rates = np.minimum.accumulate(rates)
    return ed.memory.capacity(loads[: len(rates)], rates, level=0.99)


# Neurons by beta: from some twenty patterns to some two thousand at the break.
SIZES = {0.25: (24, 32, 40, 48), 0.5: (16, 20, 24, 28)}


def soft_break(beta: float, size: int) -> float:
    """The load in theory: the most `M` for which `m = (1 + r tanh(beta m)) / (1 + r)` has a root near 1.

    A pattern `xi` of +-1 read at `m xi`, where `M` others weigh `r = M exp(-N (beta m - log cosh(beta m)))` together
    and their mean is `tanh(beta m) xi`. The logarithm of `M` grows as `N (beta - log cosh beta)` less `log N`.
    """
    m = np.linspace(0.6, 1, 100_001)[:-1]
    return float(
        np.exp(np.max(np.log((1 - m) / (m - np.tanh(beta * m))) + size * (beta * m - np.log(np.cosh(beta * m)))))
    )


def soft_curve(beta: float, size: int, loads: np.ndarray, trials: int = 4, seed: int = 0) -> np.ndarray:
    """Share of stored patterns of +-1 that log-sum-exp keeps, thirty reads from the pattern itself, at each load."""
    draw = np.random.default_rng(seed)
    most, shown = int(loads[-1]), 16

    @jax.jit
    def kept(xi, load, starts):
        memory = ed.memory.LogSumExpMemory(xi, beta=beta)
        silent = jnp.where(jnp.arange(most) < load, 0.0, -1e9)  # one shape, compiled once, for all loads
        memory = eqx.tree_at(lambda m: m.log_weights, memory, silent)
        read = lambda x: jax.lax.fori_loop(0, 30, lambda _, x: x - jax.grad(memory)(x), x)
        return jnp.mean(jax.lax.map(lambda x: jnp.mean(read(x) * x) > 0.7, starts))

    def rate(load):
        xi = [jnp.asarray(signs(draw, most, size)) for _ in range(trials)]
        starts = lambda xi: xi[np.arange(shown) % min(shown, load)]
        return np.mean([float(kept(one, load, starts(one))) for one in xi])

    return np.array([rate(int(load)) for load in loads])


def soft_capacity(figure: Path | None) -> None:
    """Log-sum-exp: loads at which half of the patterns are kept, and the exponent of their growth."""
    curves, breaks = {}, {}
    for beta, sizes in SIZES.items():
        for size in sizes:
            loads = np.unique(np.round(soft_break(beta, size) * np.geomspace(0.2, 4.0, 13)).astype(int))
            curves[beta, size] = loads, soft_curve(beta, size, loads)
            breaks[beta, size] = ed.memory.capacity(loads, np.minimum.accumulate(curves[beta, size][1]), level=0.5)
        slope = lambda values, sizes=sizes: np.polyfit(sizes, np.log(values), 1)[0]
        found, theory = [breaks[beta, n] for n in sizes], [soft_break(beta, n) for n in sizes]
        print(
            f"| log-sum-exp, beta = {beta:g}: growth of log M with N, loads where half are kept at N = {sizes} | "
            f"{slope(found):.3f} (theory {slope(theory):.3f}; {beta - np.log(np.cosh(beta)):.3f} for large N); "
            f"{', '.join(f'{m:.0f}' for m in found)} |",
            flush=True,
        )
    if figure is not None:
        draw_capacity(figure, curves, breaks)


def draw_capacity(path: Path, curves: dict, breaks: dict) -> None:
    """Retrieval against load, and the load at the break against the number of neurons."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.3), layout="constrained")
    shades = dict(zip(SIZES[0.5], ("#9ecae1", "#5ba3cf", "#2171b5", "#08306b"), strict=True))
    for size, shade in shades.items():
        left.plot(*curves[0.5, size], "o-", color=shade, markersize=3, linewidth=1.2, label=f"N = {size}")
    left.set(xscale="log", xlabel="patterns stored, M", ylabel="share kept", ylim=(-0.03, 1.05))
    left.set_title("log-sum-exp, beta = 0.5", loc="left")
    left.legend(fontsize=7.5, frameon=False, loc="lower left")
    axis = np.arange(12, 53)
    for beta, color in ((0.5, "#2171b5"), (0.25, "#d55e00")):
        right.plot(axis, [soft_break(beta, int(n)) for n in axis], color=color, linewidth=1.0)
        right.plot(SIZES[beta], [breaks[beta, n] for n in SIZES[beta]], "o", color=color, markersize=4.5)
        edge = SIZES[beta][-1]
        where = {"xytext": (9, -9), "textcoords": "offset points", "color": color, "fontsize": 8}
        right.annotate(f"log-sum-exp,\nbeta = {beta:g}", (edge, breaks[beta, edge]), va="top", **where)
    right.plot(axis, 0.138 * axis, color="#1a1a1a", linewidth=1.0)
    right.annotate("classical, 0.138 N", (36, 0.138 * 36), xytext=(0, -14), textcoords="offset points", fontsize=8)
    right.set(yscale="log", xlabel="neurons, N", ylim=(1, 1e5), xlim=(12, 62))
    right.set_title("patterns at the break: measured, theory", loc="left")
    figure.savefig(path, dpi=130)


def exact_zeros() -> tuple[float, float, float]:
    """Share of memories where the gradient is exactly 0: log-sum-ReLU, log-sum-exp; the latter's largest pull."""
    draw = np.random.default_rng(0)
    xi = draw.normal(size=(200, 8))
    gaps = np.linalg.norm(xi[:, None] - xi, axis=-1) + 1e9 * np.eye(200)
    r = gaps.min()
    beta = float(2 / (0.8 * r) ** 2)
    pull = lambda memory: np.abs(np.asarray(jax.vmap(jax.grad(memory))(jnp.asarray(xi)))).max(axis=1)
    hard = pull(ed.memory.KernelMemory(jnp.asarray(xi), beta=beta))
    soft = pull(ed.memory.GaussianMemory(jnp.asarray(xi), beta=beta))
    return float(np.mean(hard == 0)), float(np.mean(soft == 0)), float(soft.max())


FEATURES: dict[str, Callable] = {
    "positive": ed.memory.PositiveFeatureMemory,
    "trigonometric": ed.memory.TrigonometricFeatureMemory,
}


def feature_slope(kind: str) -> tuple[float, float]:
    """Slope of log error of the density against log features; share of far queries whose gradient is 0."""
    draw = np.random.default_rng(0)
    xi, queries = jnp.asarray(0.5 * draw.normal(size=(20, 4))), jnp.asarray(0.5 * draw.normal(size=(20, 4)))
    exact = np.exp(-np.asarray(jax.vmap(ed.memory.GaussianMemory(xi))(queries)))
    sizes, errors = (64, 256, 1024, 4096), []
    for size in sizes:

        def density(key, size=size):
            memory = FEATURES[kind](4, features=size, key=key).add(xi)
            return jnp.exp(-jax.vmap(memory)(queries))

        found = np.asarray(jax.jit(jax.vmap(density))(jax.random.split(jax.random.key(size), 200)))
        errors.append(np.sqrt(np.mean((found / exact - 1) ** 2)))
    far = jnp.asarray(3.0 * draw.normal(size=(2000, 4)))
    memory = FEATURES[kind](4, features=4096, key=jax.random.key(0)).add(xi)
    lost = np.mean(np.asarray(jnp.all(jax.vmap(jax.grad(memory))(far) == 0, axis=1)))
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0]), float(lost)


def clipped() -> float:
    """Share of the same far queries at which the trigonometric estimate is below its floor."""
    draw = np.random.default_rng(0)
    xi, _ = jnp.asarray(0.5 * draw.normal(size=(20, 4))), draw.normal(size=(20, 4))
    far = jnp.asarray(3.0 * draw.normal(size=(2000, 4)))
    memory = ed.memory.TrigonometricFeatureMemory(4, features=4096, key=jax.random.key(0)).add(xi)
    return float(np.mean(~np.asarray(jax.vmap(memory.covers)(far))))


def timed(call: Callable, *arguments) -> tuple[np.ndarray, str]:
    """What a compiled call returns, and the fastest of ten further runs, on the clock and of all cores together."""
    answer, spent = jax.block_until_ready(call(*arguments)), []
    for _ in range(10):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(call(*arguments))
        spent.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    clock, cores = 1e3 * np.min(spent, axis=0)
    return np.asarray(answer), f"{clock:.1f} ms ({cores:.1f} CPU ms)"


def beside_hamux() -> list[str]:
    """Log-sum-exp retrieval, 20 steps of size 0.5, 200 cues."""
    draw = np.random.default_rng(0)
    xi = jnp.asarray(draw.normal(size=(500, 64)))
    cues = xi[:200] + 1.0 * jnp.asarray(draw.normal(size=(200, 64)))
    rows = []

    def recalled(answer):
        return np.mean(np.sqrt(np.mean((answer - np.asarray(xi[:200])) ** 2, axis=1)) < 0.01)

    memory = ed.memory.LogSumExpMemory(xi, beta=1.0)
    descend = lambda x: jax.lax.scan(lambda x, _: (x - 0.5 * jax.grad(memory)(x), None), x, None, length=20)[0]
    answer, seconds = timed(jax.jit(jax.vmap(descend)), cues)
    rows.append(f"| this library, `LogSumExpMemory` | {recalled(answer):.1%} of 200 recalled, {seconds} |")
    try:
        import hamux as hmx
    except ImportError:
        return [*rows, "| hamux | not installed |"]
    neurons = {
        "x": hmx.NeuronLayer(hmx.lagr_identity, (64,)),
        "h": hmx.NeuronLayer(lambda h: hmx.lagr_softmax(h, beta=1.0), (500,)),
    }
    ham = hmx.HAM(neurons, {"s": hmx.LinearSynapse(xi.T)}, [(("x", "h"), "s")])

    def move(states, _):
        grads = ham.dEdact(ham.activations(states), states)
        # the hidden layer at rest at every step, as the integrated-out memory has it
        h = states["h"] - grads["h"]
        states = {"x": states["x"], "h": h}
        grads = ham.dEdact(ham.activations(states), states)
        return {"x": states["x"] - 0.5 * grads["x"], "h": h}, None

    other = lambda x: jax.lax.scan(move, {"x": x, "h": jnp.zeros(500)}, None, length=20)[0]["x"]
    try:
        answer2, seconds = timed(jax.jit(jax.vmap(other)), cues)
    except Exception as error:  # a peer's failure is a row, not the end of the table
        return [*rows, f"| hamux | {type(error).__name__}: {str(error).splitlines()[0][:80]} |"]
    rows.append(
        f"| hamux, `HAM` of an identity and a softmax layer | {recalled(answer2):.1%} of 200 recalled, "
        f"{seconds}; largest difference of states {np.abs(answer - answer2).max():.1e} |"
    )
    return rows


def beside_thrml(size: int = 32) -> list[str]:
    """The classical memory as an Ising model: cold flips from cues with 15 % of the neurons turned, 20 sweeps."""
    draw = np.random.default_rng(0)
    xi = signs(draw, 3, size)
    cues = np.repeat(xi, 20, axis=0) * np.where(draw.random((60, size)) < 0.15, -1.0, 1.0)
    true = np.repeat(xi, 20, axis=0)
    temperature = 0.1 * size
    memory = ed.memory.HopfieldMemory(jnp.asarray(xi))
    flip = lambda x, key: ed.memory.glauber(memory, x, sweeps=20, temperature=temperature, key=key)
    keys = jax.random.split(jax.random.key(0), 60)
    answer, seconds = timed(jax.jit(jax.vmap(flip)), jnp.asarray(cues), keys)
    overlap = lambda answer: np.mean(answer * true)
    measured = f"mean overlap {overlap(answer):.3f}, {seconds}"
    rows = [f"| this library, `HopfieldMemory` and `glauber` | {measured} |"]
    try:
        from thrml import Block, SamplingSchedule, SpinNode, sample_states
        from thrml.models import IsingEBM, IsingSamplingProgram
    except ImportError:
        return [*rows, "| thrml | not installed |"]
    nodes = [SpinNode() for _ in range(size)]
    pairs = [(i, j) for i in range(size) for j in range(i)]
    couplings = xi.T @ xi
    weights = jnp.asarray([couplings[i, j] for i, j in pairs])
    try:
        ebm = IsingEBM(
            nodes,
            [(nodes[i], nodes[j]) for i, j in pairs],
            jnp.zeros(size),
            weights,
            jnp.asarray(1 / temperature),
        )
        blocks = [Block([node]) for node in nodes]  # all neurons are neighbours, none can be asked at once
        program = IsingSamplingProgram(ebm, blocks, clamped_blocks=[])
        schedule = SamplingSchedule(n_warmup=19, n_samples=1, steps_per_sample=1)

        def one(x, key):
            start = [x[i : i + 1] > 0 for i in range(size)]
            return sample_states(key, program, schedule, start, [], [Block(nodes)])[0][0]

        begin = time.perf_counter()
        answer, seconds = timed(jax.jit(jax.vmap(one)), jnp.asarray(cues), keys)
        whole = time.perf_counter() - begin
    except Exception as error:  # a peer's failure is a row, not the end of the table
        return [*rows, f"| thrml | {type(error).__name__}: {str(error).splitlines()[0][:80]} |"]
    spins = np.where(np.asarray(answer), 1.0, -1.0)
    rows.append(
        f"| thrml, `IsingEBM`, Gibbs, one block a neuron | mean overlap {overlap(spins):.3f}, {seconds}; "
        f"with compilation {whole:.1f} s |"
    )
    return rows


def classical_rows(size: int, trials: int) -> None:
    """Overlap against load, and where it breaks down."""
    first, late = classical(size, trials)
    print("| the same: load at overlap 0.967 (theory: 0.138 N, where it breaks down), and at 0.7 | ", end="")
    print(f"{first:.3f} N, {late:.3f} N |", flush=True)


def polynomial_rows() -> None:
    """Exponents of the capacity, by degree."""
    sizes = {2: (64, 96, 144, 216), 3: (32, 48, 72, 108), 4: (24, 32, 42, 56)}
    for degree, row in sizes.items():
        loads = [stable_load(degree, size) for size in row]
        slope = np.polyfit(np.log(row), np.log(loads), 1)[0]
        print(
            f"| polynomial, degree {degree}: exponent of N, loads of 99 % stable neurons at N = {row} | {slope:.2f} "
            f"(theory {degree - 1}); {', '.join(f'{m:.0f}' for m in loads)} |",
            flush=True,
        )


def zeros_rows() -> None:
    """Which memories are exact zeros of the gradient."""
    hard, soft, pull = exact_zeros()
    print(
        "| 200 memories in 8 dimensions, beta = 2 / (r - Delta)^2, Delta = r / 5: exact zeros of the gradient | ",
        end="",
    )
    print(f"log-sum-ReLU {hard:.0%}, log-sum-exp {soft:.0%} (largest pull {pull:.2g}) |", flush=True)


def feature_rows() -> None:
    """Errors of random features, and queries without a gradient."""
    for kind in FEATURES:
        slope, lost = feature_slope(kind)
        print(f"| {kind} features: slope of the error in log features; far queries with no gradient | ", end="")
        print(f"{slope:.3f}; {lost:.1%} |", flush=True)
    print("| trigonometric features, the same queries: below the floor, where a clip would give 0 | ", end="")
    print(f"{clipped():.1%} |", flush=True)


def condensation_rows() -> None:
    """The noise at which each item becomes its own well."""
    data = jnp.asarray(np.random.default_rng(0).normal(size=(1000, 16)))
    found = ed.memory.CriticalNoise(data, key=jax.random.key(0), draws=8000)
    print(
        f"| condensation, D = 16, M = 1000: sigma_C; mass on the true item there | {found.condensation:.3f}; ", end=""
    )
    print(f"{float(found.mass[2]):.3f} |", flush=True)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=400, help="neurons of the classical memory")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--figure", type=Path, help="draw the capacity of log-sum-exp here (needs matplotlib)")
    parts = {
        "classical": lambda: classical_rows(options.size, options.trials),
        "polynomial": polynomial_rows,
        "log-sum-exp": lambda: soft_capacity(options.figure),
        "zeros": zeros_rows,
        "features": feature_rows,
        "condensation": condensation_rows,
        "hamux": lambda: print("\n".join(beside_hamux()), flush=True),
        "thrml": lambda: print("\n".join(beside_thrml()), flush=True),
    }
    parser.add_argument("--only", nargs="*", choices=parts, default=[*parts], help="these rows")
    options = parser.parse_args()
    print("| what | measured |\n|---|---|", flush=True)
    for name in options.only:
        parts[name]()


if __name__ == "__main__":
    main()
