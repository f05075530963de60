"""What a model of GPT-2's vocabulary, 50,257 tokens, takes: built, trained for some steps, asked for a text.

    python benchmarks/large_vocabulary.py ../shared/data/gpt2_bpe

Prints the largest resident memory of the process after every stage, and its seconds.
"""

import argparse
import resource
import time
from pathlib import Path

import jax

import energy_dllm as ed


def main() -> None:
    """Build, train, generate; print the peak after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path, help="a tokenizer.json, or a folder with GPT-2's files")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    start = time.monotonic()

    def report(stage: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{stage}: at most {peak:.2f} GB, {time.monotonic() - start:.0f} s", flush=True)

    tokenizer = ed.data.BytePairs.from_file(options.tokenizer)
    corpus = ed.data.docs_corpus(tokenizer=tokenizer)
    report(f"{tokenizer.size:,} tokens, {corpus.train.size:,} of them to train on")
    model = ed.EnergyDLLM(tokenizer, dim=options.dim, key=jax.random.key(0))
    report("built")
    sizes = {"length": options.length, "batch_size": options.batch_size}
    model = ed.fit(model, corpus, ed.learn.Denoising(), steps=options.steps, **sizes)
    report(f"{options.steps} steps of training")
    made = ed.generate(model, length=options.length, prompt="The")
    report("generated")
    print(repr(made.texts[0]))


if __name__ == "__main__":
    main()
