"""Train the model `stories` on TinyStories, with byte-pair tokens.

    python benchmarks/train_stories.py ../shared/data/tinystories --out runs/stories

The folder has `train_first2M.txt`, `train_more.txt.xz` (left out if absent) and `valid_slice.txt`. Typographic quotes
and dashes are written in ASCII, a paragraph is one line, a story ends with an empty line; the validation slice does not
say where stories end, so there every paragraph is followed by the next. Its first half is for validation, the second
for test. The tokenizer is trained on the training text; it and the token ids are kept in `--out`, where checkpoints and
log go too: run again to resume. Then the model is evaluated and saved with notes, beside ten samples that nobody chose.

    python benchmarks/train_stories.py ../shared/data/tinystories --twin Autoregressive --dim 176 --out runs/stories

trains a twin on the same windows.
"""

import argparse
import lzma
import re
import time
import unicodedata
from pathlib import Path

import jax
import numpy as np
from recipe import before, in_blocks, seconds, sizes_of, train

import energy_dllm as ed


END = "<|endoftext|>"
ASCII = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00ab": '"', "\u00bb": '"'}
    | {"\u2013": "-", "\u2014": "-", "\u2026": "...", "|": None}
)


def folded(text: str) -> str:
    """Stories in ASCII, paragraph by line, with an empty line behind each."""
    plain = lambda story: unicodedata.normalize("NFKD", story.translate(ASCII)).encode("ascii", "ignore").decode()
    stories = (re.sub(r"\s*\n\s*", "\n", plain(story).strip()) for story in text.split(END))
    return "".join(f"{story}\n\n" for story in stories if story)


def corpus_of_stories(data: Path, out: Path, vocabulary: int) -> ed.data.Corpus:
    """Tokens of all parts: encoded once, then read from `out`."""
    kept, tokenizer_file = out / f"tokens-{vocabulary}.npz", out / f"tokenizer-{vocabulary}.json"
    if not kept.exists():
        start = time.monotonic()
        text = folded((data / "train_first2M.txt").read_text(encoding="utf-8"))
        if (more := data / "train_more.txt.xz").exists():
            with lzma.open(more, "rt", encoding="utf-8") as file:
                text += folded(file.read())
        held = folded((data / "valid_slice.txt").read_text(encoding="utf-8"))
        middle = held.index("\n", len(held) // 2) + 1
        tokenizer = ed.data.BytePairs.from_text(text, vocabulary)
        parts = {"train": text, "validation": held[:middle], "test": held[middle:]}
        kind = np.min_scalar_type(tokenizer.size - 1)
        ids = {name: tokenizer.encode(part).astype(kind) for name, part in parts.items()}
        out.mkdir(parents=True, exist_ok=True)
        tokenizer.save(tokenizer_file)
        unfinished = kept.with_suffix(".tmp.npz")
        np.savez(unfinished, **ids)
        unfinished.rename(kept)
        print(f"{len(text):,} characters encoded in {time.monotonic() - start:.0f} s", flush=True)
    with np.load(kept) as ids:
        parts = {name: ids[name] for name in ("train", "validation", "test")}
    return ed.data.Corpus("stories", ed.data.BytePairs.from_file(tokenizer_file), **parts)


def twin(corpus: ed.data.Corpus, options: argparse.Namespace, **settings) -> None:
    """The same batches for a transformer; saved beside the model, its score printed."""
    kind, key = getattr(ed.learn, options.twin), jax.random.key(options.seed)
    model = kind(corpus.tokenizer.size, dim=options.dim, depth=options.depth, key=key)
    start = time.monotonic()
    model = ed.fit(model, corpus, model.objective, directory=options.out / options.twin, **settings)
    ed.save(options.out / f"{options.twin}.safetensors", model)
    size = sum(leaf.size for leaf in jax.tree.leaves(model))
    print(f"{options.twin}: {size:,} parameters, {time.monotonic() - start:.0f} s", flush=True)
    measured = dict(length=options.length, windows=options.windows, tokenizer=corpus.tokenizer)
    for part in ("validation", "test"):
        score = ed.evaluate(model, getattr(corpus, part), **measured)
        print(f"{part}: {score.masked_nelbo_bits_per_char:.4f} +- {score.standard_error:.4f} bits/char", flush=True)


def main() -> None:
    """Train, evaluate, save, write samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=40000)
    parser.add_argument("--until", type=int, help="pause after so many steps")
    parser.add_argument("--dim", type=int, default=320)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--twin", choices=("Autoregressive", "MaskedDiffusion"), help="train this in its place")
    parser.add_argument("--length", type=int, default=64, help="tokens of a window, about three characters each")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=6e-3)
    parser.add_argument("--gaussian", type=float, default=0.45, help="share of windows under Gaussian noise")
    parser.add_argument("--typo", type=float, default=0.05, help="share of windows with typing errors")
    parser.add_argument("--prefix", type=float, default=0.2, help="share of the masked windows that give a prefix")
    parser.add_argument("--blocks", type=int, nargs="*", default=[0], help="of every window in turn, 0 for a whole one")
    parser.add_argument("--shift", action="store_true", help="a shifted read-out, also of --init if that has none")
    parser.add_argument("--init", help="go on from this model, a file or the name of a shipped one")
    parser.add_argument("--horizon", type=int, default=0, help="most untracked steps of the relaxation")
    parser.add_argument("--step", type=float, default=0.8, help="size of a step of the relaxation")
    parser.add_argument("--speed-penalty", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", type=int, default=256, help="windows of each held-out part that are evaluated")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/stories"))
    options = parser.parse_args()
    corpus = corpus_of_stories(options.data, options.out, options.vocabulary)
    tokenizer = corpus.tokenizer
    characters = tokenizer.characters(corpus.train)
    print(
        f"{characters:,} characters, {corpus.train.size:,} tokens of {tokenizer.size}: "
        f"{characters / corpus.train.size:.2f} characters a token",
        flush=True,
    )
    same = dict(steps=options.steps, length=options.length, batch_size=options.batch_size, seed=options.seed)
    if options.twin:
        return twin(corpus, options, **same, learning_rate=options.learning_rate, until=options.until)
    sizes = sizes_of(options.init, dim=options.dim, depth=options.depth, shift=options.shift)
    model = ed.EnergyDLLM(tokenizer, **sizes, blocks=options.blocks, key=jax.random.key(options.seed))
    names = ("gaussian", "typo", "prefix", "step", "horizon", "speed_penalty")
    settings = {name: getattr(options, name) for name in names}
    objective = ed.learn.Denoising(**settings)
    rest = dict(learning_rate=options.learning_rate, until=options.until, directory=options.out)
    model = train(model, corpus, objective, **same, **rest)
    measure = lambda ids, curves: ed.evaluate(
        model, ids, length=options.length, windows=options.windows, curves=curves
    ).as_dict()
    scores = {"validation": measure(corpus.validation, True), "test": measure(corpus.test, False)}
    for name, ids in (("validation", corpus.validation), ("test", corpus.test)):
        scores[name]["blocks"] = in_blocks(model, ids, length=options.length, windows=options.windows)
    made = ed.generate(model, length=options.length, samples=options.samples, frames=1, seed=0)
    given = (
        "vocabulary",
        "steps",
        "dim",
        "depth",
        "length",
        "batch_size",
        "learning_rate",
        *names,
        "seed",
        "blocks",
        "init",
    )
    words = " ".join(
        f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name in given
        if (value := getattr(options, name)) not in (None, [])
    )
    notes = {
        "name": "stories",
        "data": f"TinyStories (CDLA-Sharing-1.0), {characters} characters to train on, quotes and dashes in ASCII; "
        "held out: the start of its validation split",
        "tokenizer": f"byte pairs, {tokenizer.size} tokens, {characters / corpus.train.size:.2f} characters each",
        "command": f"python benchmarks/train_stories.py tinystories {words}{' --shift' if options.shift else ''}",
        "steps": f"{options.until or options.steps} of {options.steps}",
        "seed": options.seed,
        **before(options.init),
        "seconds": round(seconds(options.out)),
        "scores": scores,
        "limits": "Small and briefly trained: simple sentences, a story that does not hold together. Windows of "
        f"{options.length} tokens in training.",
    }
    ed.save(options.out / "stories.safetensors", model, notes=notes)
    rule = "\n" + "-" * 80 + "\n"
    (options.out / "samples.txt").write_text(rule.join(made.texts) + "\n")
    print({name: (score["masked_nelbo_bits_per_char"], score["standard_error"]) for name, score in scores.items()})


if __name__ == "__main__":
    main()
