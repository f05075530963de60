"""Train the shipped model `shakespeare` on the plays.

    python benchmarks/train_shakespeare.py ../shared/data/shakespeare_plays/plays.md.xz --out runs/shakespeare

Markup is stripped to the form of Tiny Shakespeare (`NAME:`, then the lines of the speech, then an empty line; stage
directions left out). *The Taming of the Shrew* is held out for validation and *The Tempest* for test. Checkpoints and
log go to `--out`; run again to resume. Then the model is evaluated on both plays and saved with notes.
"""

import argparse
import lzma
import re
import unicodedata
from pathlib import Path

import jax
import numpy as np
from recipe import before, in_blocks, seconds, sizes_of, train

import energy_dllm as ed


VALIDATION, TEST = "The Taming of the Shrew", "The Tempest"
NOT_PLAYS = ("EPILOGUE", "INTERMISSION")


def plays(markdown: str) -> dict[str, str]:
    """Title to text, markup stripped."""
    texts: dict[str, list[str]] = {}
    lines: list[str] = []
    title, fresh = "", False
    for raw in markdown.splitlines():
        line = unicodedata.normalize("NFKD", raw).translate(QUOTES).encode("ascii", "ignore").decode().strip()
        if line.startswith("# ") and line[2:].strip() not in NOT_PLAYS:
            title = line[2:].strip()
            lines = texts.setdefault(title, [])
        if line.startswith("#") or not line:
            continue
        speaker = re.fullmatch(r"\*\*(.+?)\*\*(.*)", line)
        if speaker:
            lines += ["", f"{speaker[1].strip().rstrip('.:')}:"] if lines else [f"{speaker[1].strip()}:"]
            fresh, line = True, speaker[2].strip()
        line = re.sub(r"_[^_]*_|\[[^\]]*\]|\*+|\\", "", line)
        line = re.sub(r"[^A-Za-z0-9 .,;:!?'\-]", "", re.sub(r"\s+", " ", line)).strip()
        if line and title and fresh:
            lines.append(line)
    return {title: "\n".join(lines) + "\n" for title, lines in texts.items() if lines}


QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u2014": "--", "\u2013": "-", "\u2026": "...", "\u00e6": "ae"})


def corpus_of_plays(path: Path) -> tuple[ed.data.Corpus, dict[str, str]]:
    """The training plays, the two that are held out, and the texts by title."""
    texts = plays(lzma.open(path, "rt", encoding="utf-8").read())
    written = "\n".join(text for title, text in texts.items() if title not in (VALIDATION, TEST))
    tokenizer = ed.data.Characters.from_text("".join(texts.values()))
    corpus = ed.data.Corpus(
        name="plays",
        tokenizer=tokenizer,
        train=tokenizer.encode(written).astype(np.uint8),
        validation=tokenizer.encode(texts[VALIDATION]),
        test=tokenizer.encode(texts[TEST]),
    )
    return corpus, texts


def main() -> None:
    """Train, evaluate, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plays", type=Path)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--until", type=int, help="pause after so many steps")
    parser.add_argument("--dim", type=int, default=320)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=6e-3)
    parser.add_argument("--gaussian", type=float, default=0.45, help="share of windows under Gaussian noise")
    parser.add_argument("--blocks", type=int, nargs="*", default=[0], help="of every window in turn, 0 for a whole one")
    parser.add_argument("--shift", action="store_true", help="a shifted read-out, also of --init if that has none")
    parser.add_argument("--init", help="go on from this model, a file or the name of a shipped one")
    parser.add_argument("--horizon", type=int, default=0, help="most untracked steps of a relaxation")
    parser.add_argument("--tracked", type=int, default=1, help="steps of a relaxation that the gradient follows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/shakespeare"))
    options = parser.parse_args()
    corpus, texts = corpus_of_plays(options.plays)
    tokenizer = corpus.tokenizer
    print(f"{len(texts)} plays, {corpus.train.size:,} characters, alphabet of {tokenizer.size}", flush=True)
    sizes = sizes_of(options.init, dim=options.dim, depth=options.depth, shift=options.shift)
    model = ed.EnergyDLLM(tokenizer, **sizes, blocks=options.blocks, key=jax.random.key(options.seed))
    names = ("gaussian", "horizon", "tracked")
    model = train(
        model,
        corpus,
        ed.learn.Denoising(**{name: getattr(options, name) for name in names}),
        steps=options.steps,
        length=options.length,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        until=options.until,
        directory=options.out,
    )
    scores = {
        name: ed.evaluate(model, ids, length=options.length, windows=256, curves=name == "validation").as_dict()
        for name, ids in (("validation", corpus.validation), ("test", corpus.test))
    }
    for name, ids in (("validation", corpus.validation), ("test", corpus.test)):
        scores[name]["blocks"] = in_blocks(model, ids, length=options.length, windows=256)
    notes = {
        "name": "shakespeare",
        "data": f"{len(texts) - 2} plays of Shakespeare, {corpus.train.size} characters; "
        f"held out: {VALIDATION}, {TEST}",
        "command": f"python benchmarks/train_shakespeare.py plays.md.xz --steps {options.steps} "
        f"--dim {options.dim} --depth {options.depth} "
        f"--length {options.length} --batch-size {options.batch_size} --learning-rate {options.learning_rate} "
        f"--gaussian {options.gaussian} --seed {options.seed} --blocks {' '.join(map(str, options.blocks))}"
        + (" --shift" if options.shift else "")
        + (f" --init {options.init}" if options.init else ""),
        **before(options.init),
        "steps": f"{options.until or options.steps} of {options.steps}",
        "seed": options.seed,
        "seconds": round(seconds(options.out)),
        "scores": scores,
        "limits": "Small and briefly trained: words and lines of verse, but no sense. Windows of 64 characters in "
        "training.",
    }
    ed.save(options.out / "shakespeare.safetensors", model, notes=notes)
    print(scores)


if __name__ == "__main__":
    main()
