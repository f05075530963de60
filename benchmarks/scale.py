"""Memory and communication per device for 0.1B, 1B and 8B parameters on 8 to 1,024 devices, from the sharding table.

    python benchmarks/scale.py
    python benchmarks/scale.py --measure

Every model is described, not made: the shapes of its parameters are those of the module tree, what a device holds is
what `learn.shardings` gives it, on an abstract mesh. Time is a roofline: operations over the rate of a device, and
bytes of collectives over its link, the larger counts. `--measure` compares the bytes of a small model with those that
eight devices of this processor really hold.
"""

import argparse
import math

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AbstractMesh

import energy_dllm as ed


# width of the activation D, blocks, heads; symbols of the vocabulary
SIZES = {"0.1B": (1536, 14, 12), "1B": (4096, 20, 16), "8B": (8192, 40, 32)}
SYMBOLS = 32_000
LENGTH, WINDOWS = 1024, 8  # tokens of a window, windows of a device
FLOPS, LINK, MEMORY = 989e12, 50e9, 80e9  # of an H100: bfloat16 products, bytes a second between machines, bytes
PASSES = 4  # operations of a step beside those of reading once: force, and the gradient through it


def shapes(dim: int, depth: int, heads: int, symbols: int):
    """The trainable parameters of a deep energy with a vocabulary, as shapes."""

    def made(key):
        k1, k2 = jax.random.split(key)
        stack = ed.energy.DeepStack(dim, depth=depth, heads=heads, key=k1)
        network = ed.energy.Network(ed.energy.Silent(), {"blocks": stack}, jax.numpy.zeros(dim))
        vocabulary = ed.energy.MeanFieldVocabulary(symbols, dim, key=k2)
        return eqx.filter(ed.energy.FreeEnergy(network, vocabulary, kappa=1.0), eqx.is_inexact_array)

    return jax.eval_shape(made, jax.random.key(0))


def held(tree, mesh) -> int:
    """Bytes of its arrays on one device."""
    total = 0
    for leaf, where in zip(jax.tree.leaves(tree), jax.tree.leaves(ed.learn.shardings(tree, mesh)), strict=True):
        total += math.prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total


def state(parameters):
    """Parameters, their average, and the optimizer."""
    optimizer = ed.learn.default_optimizer(1e-2, 1000)
    return parameters, parameters, jax.eval_shape(optimizer.init, parameters)


def table() -> str:
    """Markdown."""
    lines = [
        "| parameters | devices | state, GB | gradient, GB | activations, GB | fits | exchanged a step, GB | "
        "computing, s | link, s | tokens a second |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for dim, depth, heads in SIZES.values():
        parameters = shapes(dim, depth, heads, SYMBOLS)
        count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameters))
        for devices in (8, 64, 256, 1024):
            mesh = AbstractMesh((devices,), ("fsdp",))
            mine, gradient = held(state(parameters), mesh), held(parameters, mesh)
            tokens = LENGTH * WINDOWS
            # one window at a time: the stream at every layer, and one layer's inside; evidence and its posterior
            width = dim // 2
            activations = 4 * LENGTH * (2 * depth * width + 3 * (4 * width + heads * 128) + 4 * SYMBOLS)
            # gathered for the forward pass and again for the backward one, and the gradient scattered
            exchanged = 3 * 4 * count * (devices - 1) / devices
            computing = 2 * PASSES * 3 * count * tokens / FLOPS
            link = exchanged / LINK
            fits = "yes" if mine + 2 * gradient + activations < 0.9 * MEMORY else "no"
            lines.append(
                f"| {count / 1e9:.2f}B | {devices:,} | {mine / 1e9:.2f} | {gradient / 1e9:.2f} | "
                f"{activations / 1e9:.2f} | {fits} | {exchanged / 1e9:.1f} | {computing:.2f} | {link:.2f} | "
                f"{devices * tokens / max(computing, link):,.0f} |"
            )
    return "\n".join(lines)


def measure() -> None:
    """Bytes of a small model's state that the table gives a device, and that one holds."""
    jax.config.update("jax_num_cpu_devices", 8)
    corpus = ed.data.grammar_corpus(characters=3000)
    model = ed.EnergyDLLM(corpus.tokenizer, dim=256, key=jax.random.key(0))
    parameters = eqx.filter(model, eqx.is_inexact_array)
    made = (parameters, parameters, ed.learn.default_optimizer(1e-2, 1000).init(parameters))
    mesh = jax.make_mesh((8,), ("fsdp",))
    placed = jax.device_put(eqx.filter(made, eqx.is_array), ed.learn.shardings(made, mesh))
    real = {device: 0 for device in jax.devices()}
    for leaf in jax.tree.leaves(placed):
        for shard in leaf.addressable_shards:
            real[shard.device] += shard.data.nbytes
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(placed))
    planned = held(jax.eval_shape(lambda: eqx.filter(made, eqx.is_array)), AbstractMesh((8,), ("fsdp",)))
    print(f"one device {whole:,} bytes; of eight, planned {planned:,}, held {np.unique(list(real.values()))}")
    print(f"share {max(real.values()) / whole:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        measure()
    else:
        print(table())
