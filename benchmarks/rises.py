"""Does the scalar ever rise? Every step of the descent of many passages, under every kind of evidence.

    python benchmarks/rises.py shakespeare stories --passages 50 --steps 500

The passages are divided over: nothing known; a prompt; a prompt and a suffix; a soft likelihood; a word to match. A
rise is a step after which `F` is higher by more than 1e-5 of the largest `|F|` of its passage, which is what single
precision can tell.
"""

import argparse

import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


PROMPTS = {"shakespeare": ("My lord, ", " and die."), "stories": ("Once upon a time, ", " they were happy.")}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=list(PROMPTS))
    parser.add_argument("--passages", type=int, default=50, help="of every model, divided over the kinds of evidence")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--length", type=int, default=64)
    options = parser.parse_args()
    print("| model | evidence | steps | rises | largest rise / largest F |\n|---|---|---|---|---|")
    for name in options.models:
        model, (prompt, suffix) = ed.load(name), PROMPTS[name]
        usual = ed.sampling.descent()
        levels = dict(since=usual.since, until=usual.until, field=usual.field, temperature=0.0)
        sampler = ed.sampling.Diffusion(steps=options.steps, **levels)
        soft = np.random.default_rng(0).normal(size=(options.length, model.size)).astype(np.float32)
        kinds = {
            "none": {},
            "prompt": {"prompt": prompt},
            "prompt and suffix": {"prompt": prompt, "suffix": suffix},
            "likelihood": {"evidence": ed.flow.Likelihood(jnp.asarray(soft))},
            "a word": {"evidence": ed.flow.Matching(".*love.*", model.tokenizer, length=options.length)},
        }
        for kind, settings in kinds.items():
            made = ed.generate(
                model,
                length=options.length,
                samples=options.passages // len(kinds),
                sampler=sampler,
                frames=sampler.steps,
                seed=1,
                **settings,
            )
            change = np.diff(made.free_energy, axis=1) / np.abs(made.free_energy).max(axis=1, keepdims=True)
            print(f"| {name} | {kind} | {change.size:,} | {(change > 1e-5).sum()} | {change.max():.1e} |", flush=True)


if __name__ == "__main__":
    main()
