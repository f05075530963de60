"""One training on an accelerator within a limit of time: weights, and a JSON file with quality, speed, share of peak.

    python benchmarks/accelerator.py tinyshakespeare --model energy --out runs/accelerator
    python benchmarks/accelerator.py grammar --toy --out /tmp/toy

Products are of bfloat16 with sums in float32, parameters and moments float32, the evaluation float32. The JSON has
every field of a cell of `benchmarks/quality.py`, whose command `table` makes its table of it; also tokens a second,
seconds of compilation, and the share of this device's own rate of matrix products, measured in the same run. Steps
that would not be done within `--minutes` are found out after a few of them, and the training starts again with fewer,
so that its schedule comes to its end. On several devices the training is fully sharded.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import quality

import energy_dllm as ed


BFLOAT16 = "BF16_BF16_F32"
"""Operands of products rounded to bfloat16, sums in float32; where a device cannot, XLA computes in float32."""
TRIAL = 12
"""Steps after which the rest is estimated."""


class TooSlow(Exception):
    """The steps that would fit."""


def rate_of_products(size: int) -> float:
    """Operations a second of `(size, size)` products as the training has them, the fastest of five."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    with jax.default_matmul_precision(BFLOAT16):
        product = jax.jit(lambda a: a @ a)
        product(a).block_until_ready()
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            product(a).block_until_ready()
            seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def train(model, corpus, objective, steps: int, limit: float, options: argparse.Namespace):
    """The trained model, its steps, seconds of compilation, and seconds a step."""
    marks, start = [], time.perf_counter()

    def log(record):
        marks.append(time.perf_counter())
        if len(marks) == TRIAL + 1 < steps - 1:
            each = statistics.median(b - a for a, b in zip(marks[1:], marks[2:], strict=False))
            left = limit - (marks[1] - start)
            if each * steps > left:
                raise TooSlow(max(TRIAL + 2, int(0.8 * left / each)))

    mesh = jax.make_mesh((jax.device_count(),), ("fsdp",)) if jax.device_count() > 1 else None
    sizes = dict(steps=steps, length=options.length, batch_size=options.batch_size, accumulate=options.accumulate)
    rest = dict(learning_rate=options.rate, seed=options.seed, mesh=mesh, log=log)
    with jax.default_matmul_precision(BFLOAT16):
        model = ed.fit(model, corpus, objective, **sizes, **rest)
    each = statistics.median(b - a for a, b in zip(marks[1:], marks[2:], strict=False))
    return model, marks[0] - start - each, each


def main() -> None:
    """Parse, train, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="a corpus of benchmarks/quality.py")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="energy", help="a model of benchmarks/quality.py")
    parser.add_argument("--size", choices=list(quality.SIZES), default="10M")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=1.2e-2)
    parser.add_argument("--gaussian", type=float, default=0.45)
    parser.add_argument("--windows", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=12.0, help="of everything")
    parser.add_argument("--out", type=Path, default=Path("runs/accelerator"))
    parser.add_argument("--toy", action="store_true", help="sizes that end within a minute on one core")
    options = parser.parse_args()
    if options.toy:
        options.size, options.length, options.batch_size, options.steps, options.windows = "0.1M", 32, 8, 16, 8
        jax.config.update("jax_disable_most_optimizations", True)  # the compiler has most of the work
    start = time.perf_counter()
    corpus = quality.corpus_of(options.corpus, options.data)
    model, objective = quality.contender(options.model, corpus, options.size, options.gaussian, options.seed)
    device = jax.devices()[0]
    with jax.default_device(jax.devices("cpu")[0]):  # counted there, as for the other tables
        cost = quality.flops(model, objective, options.length)
    peak = rate_of_products(512 if device.platform == "cpu" else 8192)
    # a sixth is for the evaluation
    limit, steps = 50 * options.minutes - (time.perf_counter() - start), options.steps
    began = time.perf_counter()
    while True:
        try:
            trained, compiling, each = train(model, corpus, objective, steps, limit, options)
            break
        except TooSlow as fewer:
            (steps,) = fewer.args
            limit -= time.perf_counter() - began
            print(f"{options.steps} steps would take too long; {steps} of them", flush=True)
    seconds = time.perf_counter() - began
    with jax.default_matmul_precision("float32"):
        score = ed.evaluate(
            trained, corpus.validation, length=options.length, windows=options.windows, curves=not options.toy
        )
    tokens = options.batch_size * options.length
    record = dict(corpus=options.corpus, size=options.size, split="validation", model=options.model)
    record |= dict(rate=options.rate, seed=options.seed, steps=steps, tokens=tokens * steps)
    record |= dict(parameters=quality.count(trained), flops_per_token=cost, seconds=round(seconds))
    record |= dict(length=options.length, batch_size=options.batch_size, accumulate=options.accumulate)
    record |= dict(device=device.device_kind, devices=jax.device_count(), products=BFLOAT16)
    rate = cost * tokens / each
    record |= dict(tokens_per_second=tokens / each, compile_seconds=round(compiling, 2), peak_flops=peak)
    record |= dict(share_of_peak=rate / (peak * jax.device_count()))
    if memory := device.memory_stats():
        record["peak_bytes"] = memory.get("peak_bytes_in_use")
    folder = options.out / f"{options.corpus}-{options.size}-{options.model}-{options.rate:g}-{options.seed}"
    ed.save(folder / "model.safetensors", trained, notes=record)
    record["seconds_of_everything"] = round(time.perf_counter() - start)
    (folder / "cell.json").write_text(json.dumps(record | score.as_dict(), indent=1))
    print(json.dumps(record | {"masked_nelbo_bits_per_char": score.masked_nelbo_bits_per_char}))


if __name__ == "__main__":
    main()
