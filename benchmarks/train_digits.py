"""Train the shipped model `digits` on MNIST: a word and its picture under one scalar.

    python benchmarks/train_digits.py ../shared/data/mnist --out runs/digits

A passage is a caption of five letters ("seven") and 7 x 7 patches of 4 x 4 pixels, each one of 256; the codes that
noise acts on are the pixels. The last 5 % of the training digits are held out for validation; the test digits are those
of MNIST. Checkpoints and log go to `--out`; run again to resume. Then the model is evaluated and saved with notes.

    python benchmarks/train_digits.py ../shared/data/mnist --twin Autoregressive --dim 96 --out runs/digits

trains a twin on the same windows, saves it beside the model and prints its bits.
"""

import argparse
import time
from pathlib import Path

import jax
from recipe import before, seconds, sizes_of, train

import energy_dllm as ed


def twin(corpus: ed.data.Corpus, options: argparse.Namespace) -> None:
    """The same batches for a transformer; saved beside the model, its score printed."""
    places = corpus.tokenizer.places
    sizes = dict(dim=options.dim, depth=options.depth, places=places)
    model = getattr(ed.learn, options.twin)(corpus.tokenizer.size, **sizes, key=jax.random.key(options.seed))
    settings = dict(steps=options.steps, batch_size=options.batch_size, seed=options.seed, until=options.until)
    start, directory = time.monotonic(), options.out / options.twin
    model = ed.fit(model, corpus, model.objective, **settings, learning_rate=options.learning_rate, directory=directory)
    ed.save(options.out / f"{options.twin}.safetensors", model)
    size = sum(leaf.size for leaf in jax.tree.leaves(model))
    print(f"{options.twin}: {size:,} parameters, {time.monotonic() - start:.0f} s", flush=True)
    for part in ("validation", "test"):
        score = ed.evaluate(model, getattr(corpus, part), windows=500, curves=False, tokenizer=corpus.tokenizer)
        bits, error = places * score.masked_nelbo_bits_per_char, places * score.standard_error
        print(f"{part}: {bits:.2f} +- {error:.2f} bits a picture with its caption", flush=True)


def main() -> None:
    """Train, evaluate, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--until", type=int, help="pause after so many steps")
    parser.add_argument("--patch", type=int, default=4, help="pixels along the side of a patch")
    parser.add_argument("--codes", type=int, default=256, help="patches in the codebook")
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--twin", choices=("Autoregressive", "MaskedDiffusion"), help="train this in its place")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=8e-3)
    parser.add_argument("--gaussian", type=float, default=0.6, help="share of windows under Gaussian noise")
    parser.add_argument(
        "--cut", type=float, default=0.35, help="share of windows of which a side of the picture is seen"
    )
    parser.add_argument("--init", help="a model to train on from, such as digits")
    parser.add_argument(
        "--horizon", type=int, nargs=2, default=[0, 0], help="fewest and most untracked steps under noise"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    options = parser.parse_args()
    corpus = ed.data.read_mnist(
        options.mnist,
        tokenizer=ed.load(options.init).tokenizer if options.init else None,
        patch=options.patch,
        size=options.codes,
    )
    tokenizer = corpus.tokenizer
    print(f"{len(corpus.train) // tokenizer.places:,} pictures, {tokenizer}", flush=True)
    if options.twin:
        return twin(corpus, options)
    # pixels are 0 to 1: at 8 nothing is seen of a digit, at 0.15 all of it
    schedule = ed.flow.LogLinear(sigma_max=8.0, sigma_min=0.15)
    sizes = sizes_of(options.init, shift=False, dim=options.dim, depth=options.depth, reach=1)
    sizes["schedule"] = schedule
    model = ed.EnergyDLLM(tokenizer, **sizes, key=jax.random.key(options.seed))
    recipe = dict(
        gaussian=options.gaussian, typo=0.0, prefix=0.7, cut=options.cut, known=0.8, anneal=0.2, schedule=schedule
    )
    shortest, horizon = options.horizon
    objective = ed.learn.Denoising(**recipe, shortest=shortest, horizon=horizon)
    model = train(
        model,
        corpus,
        objective,
        steps=options.steps,
        length=tokenizer.places,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        until=options.until,
        directory=options.out,
    )
    scores = {
        name: ed.evaluate(model, ids, windows=500, curves=name == "validation").as_dict()
        for name, ids in (("validation", corpus.validation), ("test", corpus.test))
    }
    bits = {name: score["masked_nelbo_bits_per_char"] * tokenizer.places for name, score in scores.items()}
    notes = {
        "name": "digits",
        "data": f"MNIST, {len(corpus.train) // tokenizer.places} training digits with their names",
        "command": f"python benchmarks/train_digits.py mnist --steps {options.steps} --patch {options.patch} "
        f"--codes {options.codes} --dim {options.dim} --depth {options.depth} --batch-size {options.batch_size} "
        f"--learning-rate {options.learning_rate} --gaussian {options.gaussian} --cut {options.cut} "
        f"--horizon {shortest} {horizon} --seed {options.seed}" + (f" --init {options.init}" if options.init else ""),
        **before(options.init),
        "steps": f"{options.until or options.steps} of {options.steps}",
        "seed": options.seed,
        "seconds": round(seconds(options.out)),
        "bits_per_picture": bits,
        "scores": scores,
        "limits": "Handwritten digits of 28 x 28 pixels in patches of 256 kinds, and their ten names; nothing else.",
    }
    ed.save(options.out / "digits.safetensors", model, notes=notes)
    print({name: round(number, 1) for name, number in bits.items()}, "bits a picture with its caption", flush=True)


if __name__ == "__main__":
    main()
