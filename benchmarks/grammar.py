"""Ten minutes on a grammar whose entropy is known exactly: how far is the bound from the truth?

    python benchmarks/grammar.py --dim 64 --states 640 --steps 300 --batch-size 8 --learning-rate 3e-3

Grows the vocabulary of the default model from generated text, trains the whole, and compares its masked NELBO with the
exact entropy per character of a window of that length (where a window was cut is unknown, so this lies above the
entropy rate).
"""

import argparse
import json
import math
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from recipe import seconds, train

import energy_dllm as ed


def main() -> None:
    """Train, evaluate, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pretraining", type=int, default=0, help="batches of 32 that the vocabulary reads first")
    parser.add_argument("--growing", action=argparse.BooleanOptionalAction, default=True, help="grow the vocabulary")
    parser.add_argument("--states", type=int, help="of the vocabulary, default four times the width")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1.2e-2)
    parser.add_argument("--gaussian", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/grammar"))
    options = parser.parse_args()
    corpus = ed.data.grammar_corpus(characters=2_000_000)
    counts = corpus.counts()
    model = ed.EnergyDLLM(
        corpus.tokenizer,
        dim=options.dim,
        depth=1,
        states=options.states,
        counts=counts,
        key=jax.random.key(options.seed),
    )
    model = train(
        model,
        corpus,
        ed.learn.Denoising.at_rest(gaussian=options.gaussian, typo=0.25 * options.gaussian),
        steps=options.steps,
        pretraining=options.pretraining,
        growing=options.growing,
        length=options.length,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        directory=options.out,
    )
    ed.save(options.out / "model.safetensors", model)
    starts = range(0, 1024 * options.length, options.length)
    windows = np.stack([corpus.validation[start : start + options.length] for start in starts])
    alone = eqx.filter_jit(lambda vocabulary, ids: jax.vmap(vocabulary.nll)(ids))(model.energy.vocabulary, windows)
    score = ed.evaluate(model, corpus.validation, length=options.length, windows=1024)
    exact = ed.data.Grammar().window_entropy(options.length) / math.log(2)
    result = {
        "masked_nelbo_bits_per_char": score.masked_nelbo_bits_per_char,
        "vocabulary_alone_bits_per_char": float(np.mean(alone)) / math.log(2),
        "standard_error": score.standard_error,
        "exact_entropy_bits_per_char": exact,
        "entropy_rate_bits_per_char": ed.data.Grammar().entropy_rate() / math.log(2),
        "ratio": score.masked_nelbo_bits_per_char / exact,
        "seconds": round(seconds(options.out)),
        "steps": options.steps,
        "relaxation_curve": score.relaxation_curve,
        "step_curve": score.step_curve,
    }
    (options.out / "grammar.json").write_text(json.dumps(result, indent=1))
    print(json.dumps({k: v for k, v in result.items() if not k.endswith("curve")}, indent=1))


if __name__ == "__main__":
    main()
