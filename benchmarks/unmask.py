"""Text by masked evidence, in rounds of so many relaxation steps, under the judge of `samples.py`.

python benchmarks/unmask.py shakespeare ../shared/data/shakespeare_plays/plays.md.xz
"""

import argparse
from pathlib import Path

import numpy as np
from judge import judge_of_plays, symbol_entropy

import energy_dllm as ed


def main() -> None:
    """Write, judge, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("plays", type=Path)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = ed.load(options.model)
    judge, real = judge_of_plays(options.plays, options.length)
    print("| rounds x steps, corrections | temperature | judged bits/char | +- | symbol entropy, bits | the first |")
    print("|---|---|---|---|---|---|")
    print(f"| real text | | {real['judged']:.2f} | | {real['entropy']:.2f} | |")
    for rounds, steps, remask_rounds in ((24, 8, 25), (12, 24, 6), (64, 8, 0), (64, 24, 0), (24, 24, 0), (16, 24, 0)):
        for temperature in (1.0, 0.7):
            sampler = ed.sampling.Unmasking(
                rounds=rounds, steps=steps, step=model.step, temperature=temperature, remask_rounds=remask_rounds
            )
            sizes = {"length": options.length, "samples": options.samples, "frames": 1}
            made = ed.generate(model, sampler=sampler, seed=options.seed, **sizes).texts
            bits = np.array([judge.bits_per_char(text) for text in made])
            error = bits.std(ddof=1) / len(bits) ** 0.5
            print(
                f"| {rounds} x {steps}, {remask_rounds} | {temperature} | {bits.mean():.2f} | {error:.2f} | "
                f"{symbol_entropy(made):.2f} | {made[0]!r} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
