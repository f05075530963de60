"""Seconds to a passage: the descent beside the autoregressive twin with cached keys, in pairs.

    python benchmarks/speed.py MODEL TWIN --lengths 64 256 --batches 1 8 32

The model is called as a user calls it, the twin at its fastest: a compiled loop with its parameters as constants, of
which one passage alone is not mapped. Both are compiled before the clock starts; the median of `--repeats` pairs, one
after the other, so that what else the machine does falls on both. Windows as `generate` has them by default, and all at
once; with `--block` block after block, `--evaluations` being the draws of a block. Judged bits of the same samplers are
in docs/quality.md.
"""

import argparse
import statistics
import time

import jax
import numpy as np

import energy_dllm as ed


def seconds(call) -> float:
    """Of one call that has ended."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def sampler_of(
    evaluations: int, block: int, draft: ed.sampling.Draft | None, ahead: int
) -> ed.sampling.AbstractSampler:
    """With so many force evaluations for a passage; in blocks with so many draws for a block."""
    if not block:
        return ed.sampling.descent(evaluations)
    each = ed.sampling.Unmasking(rounds=evaluations, steps=1, step=1.0, order=ed.sampling.most_certain)
    return ed.sampling.Blocks(each, size=block, draft=draft, ahead=ahead, moments=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the energy model: a file, or the name of a shipped one")
    parser.add_argument("twin", help="file of an autoregressive twin")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--evaluations", type=int, nargs="+", default=[8, 16, 25])
    parser.add_argument("--block", type=int, default=0, help="tokens of a block, 0 for the descent of the whole")
    parser.add_argument("--contexts", type=int, default=0, help="contexts of a draft, for blocks of one; 0 for none")
    parser.add_argument("--ahead", type=int, default=4, help="tokens that are read in one pass with a draft")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    model, twin = ed.load(options.model), ed.load(options.twin)
    if not isinstance(twin, ed.learn.Autoregressive):
        raise SystemExit(f"{options.twin} is a {type(twin).__name__}; expected an Autoregressive.")
    draft, start = None, time.perf_counter()
    if options.contexts:
        draft = ed.sampling.Draft.of(model.energy, contexts=options.contexts)
        print(f"draft of {len(draft.tokens):,} contexts: {time.perf_counter() - start:.1f} s, once a model")
    print(f"{jax.devices()[0].device_kind}, {jax.devices()[0].platform}\n")
    print("| tokens | batch | evaluations, window | descent, s | twin, s | descent / twin |\n|---|---|---|---|---|---|")
    for length in options.lengths:
        alone = lambda key, length=length: twin.sample(length, key=key)[0]
        for batch in options.batches:
            keys = jax.random.split(jax.random.key(0), batch)
            draw = jax.jit(jax.vmap(alone) if batch > 1 else lambda keys, alone=alone: alone(keys[0]))
            left_to_right = lambda draw=draw, keys=keys: draw(keys)
            for evaluations in options.evaluations:
                for window in (64, length) if length > 64 and not options.block else (length,):
                    sampler = sampler_of(evaluations, options.block, draft, options.ahead)
                    settings = dict(length=length, samples=batch, sampler=sampler, window=window, frames=0)
                    descend = lambda settings=settings: ed.generate(model, **settings).ids
                    for call in (descend, left_to_right):
                        seconds(call)
                    pairs = [(seconds(descend), seconds(left_to_right)) for _ in range(options.repeats)]
                    ours, its = (statistics.median(column) for column in zip(*pairs, strict=True))
                    ratio = statistics.median(np.divide(*pair) for pair in pairs)
                    cells = length, batch, f"{evaluations}, {window}", f"{ours:.3f}", f"{its:.3f}", f"{ratio:.2f}"
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
