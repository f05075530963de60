"""Which character was replaced? Per-token energy of the energy model beside the surprisal of its autoregressive twin.

    python benchmarks/anomaly.py ../shared/data/shakespeare_plays/plays.md.xz --out runs/anomaly

One character of every window of the held-out test play is replaced by another of the alphabet, drawn at random. Every
character gets a number; the AUC is the probability that the replaced one has a larger number than another character of
the same window. Numbers: the energy model's negative log-likelihood with that character left out, its free energy with
everything given, and `-log p(c | characters before it)` of the twin, which is trained here on the same plays, with as
many parameters and characters as the shipped model by default (checkpoints in `--out`; run again to resume)."""

import argparse
import json
import lzma
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from recipe import train
from train_shakespeare import TEST, VALIDATION, plays

import energy_dllm as ed


def auc(numbers, places) -> tuple[float, float]:
    """Mean over windows of the share of characters below the replaced one (ties count half), and its standard error."""
    shares = []
    for row, place in zip(np.asarray(numbers), places, strict=True):
        others = np.delete(row, place)
        shares.append(np.mean(row[place] > others) + 0.5 * np.mean(row[place] == others))
    return float(np.mean(shares)), float(np.std(shares) / len(shares) ** 0.5)


def main() -> None:
    """Train the twin, read both, print the AUCs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plays", type=Path)
    parser.add_argument("--model", default="shakespeare")
    parser.add_argument("--steps", type=int, default=11_000, help="of the twin; take those of the model")
    parser.add_argument("--dim", type=int, default=128, help="of the twin")
    parser.add_argument("--learning-rate", type=float, default=6e-3, help="of the twin")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("runs/anomaly"))
    options = parser.parse_args()
    model = ed.load(options.model)
    texts = plays(lzma.open(options.plays, "rt", encoding="utf-8").read())
    tokenizer = model.tokenizer
    encode = lambda text: tokenizer.encode("".join(c for c in text if c in tokenizer.alphabet))
    written = "\n".join(text for title, text in texts.items() if title not in (VALIDATION, TEST))
    corpus = ed.data.Corpus("plays", tokenizer, encode(written), encode(texts[VALIDATION]), encode(texts[TEST]))
    fresh = ed.learn.Autoregressive(tokenizer.size, dim=options.dim, depth=2, key=jax.random.key(0))
    twin = train(
        fresh,
        corpus,
        fresh.objective,
        steps=options.steps,
        batch_size=options.batch_size,
        length=options.length,
        learning_rate=options.learning_rate,
        directory=options.out,
    )
    windows = np.array(ed.data.Windows.disjoint(corpus.test, options.length, count=options.windows))
    read_twin = lambda ids: jnp.take_along_axis(twin.log_posterior(ids, ids >= 0), ids[:, None], axis=-1)
    bits = -np.mean(jax.lax.map(eqx.filter_jit(read_twin), jnp.asarray(windows))) / np.log(2)
    draw = np.random.default_rng(0)
    places = draw.integers(0, options.length, len(windows))
    rows = np.arange(len(windows))
    shift = draw.integers(1, tokenizer.size, len(windows))
    windows[rows, places] = (windows[rows, places] + shift) % tokenizer.size

    @eqx.filter_jit
    def read(model, twin, windows):
        def one(ids):
            score = ed.probe.score(model, ids)
            log_p = twin.log_posterior(ids, jnp.ones(ids.shape, bool))
            return score.nll, score.energy, -jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0]

        return jax.lax.map(one, windows)

    names = ("NLL, one left out", "free energy, all given", "surprisal of the autoregressive twin")
    found = read(model, twin, jnp.asarray(windows))
    record = {name: auc(numbers, places) for name, numbers in zip(names, found, strict=True)}
    print(json.dumps({"windows": len(windows), "twin, bits a character": float(bits), **record}, indent=1))


if __name__ == "__main__":
    main()
