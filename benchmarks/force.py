"""One force of the energy transformer's shapes against this machine's own rate of matrix products, in the same run.

    python benchmarks/force.py

An attention (D 768, 12 heads of 64) and a dense memory of 3,072 patterns, 197 tokens: the shapes of Hoover et al. 2023.
Operations are those of the products alone, in the value's own direction and back to `g`: four products of `L D H K` and
three of `L L H K` in the attention, two of `L D M` in the memory. The rate of the machine is that of the memory's own
product, `(197, 768)` by `(768, 3072)`, and of a large square one; all take turns, and the fastest of each counts.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp

import energy_dllm as ed


D, H, K, M, L = 768, 12, 64, 3072, 197


def main() -> None:
    """Compile, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    k1, k2, k3 = jax.random.split(jax.random.key(0), 3)
    attention = ed.energy.Attention(D, heads=H, head_dim=K, key=k1)
    memory = ed.energy.DenseMemory(D, memories=M, neurons=ed.energy.Rectifier(), key=k2)
    g = jax.random.normal(k3, (L, D))
    large = jax.random.normal(k3, (1536, 1536))
    operations = {"attention": 8 * L * D * H * K + 6 * L * L * H * K, "memory": 4 * L * D * M}
    force = lambda energy: jax.jit(lambda g: -jax.grad(energy)(g))
    runs = {
        "force": (force(lambda g: attention(g) + memory(g)), (g,), sum(operations.values())),
        "attention": (force(attention), (g,), operations["attention"]),
        "memory": (force(memory), (g,), operations["memory"]),
        "product": (jax.jit(jnp.matmul), (g, memory.patterns.T), 2 * L * D * M),
        "large product": (jax.jit(jnp.matmul), (large, large), 2 * 1536**3),
    }
    seconds = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, (run, given, _) in runs.items():
            start = time.perf_counter()
            run(*given).block_until_ready()
            if turn:  # the first one compiles
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    rates = {name: count / seconds[name] for name, (_, _, count) in runs.items()}
    record: dict = {name: {"seconds": seconds[name], "gflops": rates[name] / 1e9} for name in runs}
    record["share_of_product"] = rates["force"] / rates["product"]
    record["share_of_large_product"] = rates["force"] / rates["large product"]
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
