"""`energy-dllm train`: a text to a model, and its progress output."""

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from ._corpus import corpus_of
from ._load import called, load_model
from ._out import ready
from ._progress import Stages
from ._show import busy, emit, note, version
from ._write import Json, Seed


_arg = tyro.conf.arg
_OWN = ("checkpoint.safetensors", "log.jsonl", "grown.safetensors")
Length = Annotated[int, _arg(help="Tokens of a passage or window.")]


def train(
    source: Annotated[
        str,
        Positional,
        _arg(metavar="SOURCE", help="A text file, a folder that `tokenize` wrote, or a built-in text: docs, grammar."),
    ],
    /,
    *,
    out: Annotated[Path, _arg(help="Where the model goes, such as model.safetensors.")],
    steps: Annotated[int, _arg(help="Batches.")] = 2000,
    init: Annotated[
        str | None,
        _arg(
            metavar="MODEL",
            help="Start from this model, its alphabet and its size.",
            help_behavior_hint="(default: random weights)",
        ),
    ] = None,
    dim: Annotated[
        int | None,
        _arg(
            metavar="INT",
            help="Hidden width, the one dial of the model's size.",
            help_behavior_hint="(default: 128, or that of --init)",
        ),
    ] = None,
    depth: Annotated[
        int | None,
        _arg(
            metavar="INT",
            help="Blocks of the energy; 1 for one layer beside a hidden Markov model.",
            help_behavior_hint="(default: 2, or that of --init)",
        ),
    ] = None,
    tokenizer: Annotated[
        Literal["characters", "bytes", "byte-pairs"] | None,
        _arg(
            metavar="{characters,bytes,byte-pairs}",
            help="A token for each character that occurs, each byte of UTF-8, or each of the most frequent pairs.",
            help_behavior_hint="(default: characters if they are at most 256, else bytes; with --init its own)",
        ),
    ] = None,
    vocabulary: Annotated[
        int | None,
        _arg(
            metavar="INT",
            help="With --tokenizer byte-pairs: how many tokens, the 256 bytes among them.",
            help_behavior_hint="(default: 1024)",
        ),
    ] = None,
    length: Length = 64,
    batch_size: Annotated[int, _arg(help="Windows of a batch.")] = 16,
    learning_rate: Annotated[float, _arg(help="Peak of the schedule.")] = 1.2e-2,
    blocks: Annotated[
        list[int],
        _arg(
            metavar="INT",
            help="Tokens of a block, for every window of a batch in turn, 0 for a whole window; with 0 1 every second "
            "one is read from left to right, for generate --block 1.",
            help_behavior_hint="(default: 0 1, with --depth 1 0, with --init its own)",
        ),
    ] = [],  # noqa: B006
    pretraining: Annotated[
        int | None,
        _arg(
            metavar="INT",
            help="With --depth 1: batches of pretraining of the vocabulary, four times as large.",
            help_behavior_hint="(default: 1000)",
        ),
    ] = None,
    fit_split_merge: Annotated[
        bool, _arg(help="With --depth 1: fit the vocabulary by split-merge EM first, for texts of strict form.")
    ] = False,
    validate_every: Annotated[
        int | None,
        _arg(
            metavar="INT",
            help="Batches between two looks at the held-out text, each with the loss so far and a sample; 0 for none.",
            help_behavior_hint="(default: a tenth of --steps, at least 100)",
        ),
    ] = None,
    seed: Seed = 0,
    directory: Annotated[
        Path | None,
        _arg(
            metavar="DIR",
            help="Checkpoints and a log; a stopped run resumes.",
            help_behavior_hint="(default: OUT.training, removed at the end)",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a model on a text. Ctrl-C keeps what is learned, and the same command goes on from there.

    energy-dllm train my.txt --out my.safetensors --steps 5000

    energy-dllm train my.txt --init shakespeare --out mine.safetensors --steps 500 --learning-rate 3e-3

    energy-dllm train grammar --out toy.safetensors --dim 64 --directory runs/toy
    """
    from ..learn import default_optimizer

    # smaller steps for pretrained tables; made first, so that bad settings are found before any folder is made
    pretrained_optimizer = default_optimizer(learning_rate, steps, tables=1.0)
    if pretraining is not None and pretraining < 0:
        raise ValueError(f"`--pretraining` is {pretraining}; expected a number of batches, or 0 for none.")
    if validate_every is not None and validate_every < 0:
        raise ValueError(f"`--validate-every` is {validate_every}; expected a number of batches, or 0 for none.")
    if vocabulary is not None and (tokenizer != "byte-pairs" or vocabulary < 256):
        raise ValueError(
            f"`--vocabulary` is {vocabulary}; expected at least the 256 bytes, and only with `--tokenizer byte-pairs`."
        )
    for flag, size in {"--length": length, "--batch-size": batch_size}.items():
        if size < 1:
            raise ValueError(f"`{flag}` is {size}; expected a positive number.")
    folder = out.with_name(f"{out.name}.training") if directory is None else directory
    own = [(folder / name).resolve() for name in _OWN]
    if out.resolve() in (*own, folder.resolve(), *folder.resolve().parents):
        raise ValueError(
            f"`--out` {out} is where `--directory` {folder} has the training; expected another name, such as "
            "model.safetensors."
        )
    if Path(source).resolve() in own:
        raise ValueError(f"`--directory` {folder} has `source` {source}, which would be lost; give another folder.")
    ready("--out", out, "model.safetensors", reads=[source])
    ready("--directory", folder, "runs/mine", folder=True)
    model, corpus = _start(
        source, init, dim, depth, tokenizer, vocabulary, pretraining, fit_split_merge, length, seed, blocks
    )
    depth = depth or (2 if init is None else None)
    if pretraining is None:
        pretraining = 1000 if depth == 1 else 0
    import equinox as eqx
    import jax

    from .._files import alone
    from ..learn import Denoising, MaximumLikelihood, evaluate, fit, fit_split_merge as grown, save

    objective = (Denoising if getattr(model.energy, "one_shot", False) else Denoising.at_rest)()
    start, trained = time.monotonic(), model
    settings: dict[str, Any] = {"steps": steps, "length": length, "batch_size": batch_size}
    settings |= {"learning_rate": learning_rate, "seed": seed}
    size = sum(leaf.size for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf))
    note(
        f"{source}: {len(corpus.train):,} tokens to learn from, {len(corpus.validation):,} held out, "
        f"{type(corpus.tokenizer).__name__} of {corpus.tokenizer.size} symbols; {size:,} parameters"
    )
    every = max(100, steps // 10) if validate_every is None else validate_every
    done = _steps_of(folder)
    if done:
        note(f"going on after step {done:,} of {steps:,}, kept in {folder}")
    marks = [mark for mark in range(every, steps, every) if mark > done] if every else []
    # a batch of pretraining is four times as large, and costs about a third of one of the training
    costs = {"pretraining": (pretraining, 0.3), "training": (steps, 1.0)}
    # locked once for all that follows, and each `fit`
    with alone(folder, "--directory", lend=True):
        with Stages(costs, done) as stages:
            try:
                if fit_split_merge:
                    stretch = min(256, len(corpus.train) - 1)
                    with busy("counting the states of the vocabulary by expectation-maximisation"):
                        fitted = grown(
                            model.energy.vocabulary, corpus.train, length=stretch, seed=seed, directory=folder
                        )
                    model = eqx.tree_at(lambda model: model.energy.vocabulary, model, fitted)
                if pretraining:
                    first = {**settings, "steps": pretraining, "batch_size": 4 * batch_size, "average": 0.99}
                    first |= {"directory": folder / "pretraining"}
                    stages.compiling("pretraining", f"batches of {4 * batch_size} windows of {length} tokens")
                    model = fit(model, corpus, MaximumLikelihood(), **first, progress=stages.advance)
                pretrained = fit_split_merge or pretraining or init is not None
                settings["optimizer"] = pretrained_optimizer if pretrained else None
                stages.compiling("training", f"batches of {batch_size} windows of {length} tokens")
                for mark in [*marks, steps]:
                    trained = fit(
                        model, corpus, objective, **settings, until=mark, directory=folder, progress=stages.advance
                    )
                    if mark < steps:
                        with busy("measuring on some of the held-out text, and writing a sample"):
                            seen = _look(trained, corpus, mark, length, seed)
                        stages.say(f"{stages.curve()}\n{seen}".lstrip("\n"))
                with busy("measuring the model on the held-out text: compiling first"):
                    score = evaluate(trained, corpus.validation, length=length, seed=seed).as_dict()
            except KeyboardInterrupt as stop:
                kept = f"stopped; what is finished is in {folder}; to go on from there, run the same again"
                raise KeyboardInterrupt(str(stop) or kept) from None
        seconds = round(time.monotonic() - start, 3)
        settings.pop("optimizer", None)
        record = {
            "source": source,
            "init": init,
            "dim": model.energy.dim,
            "depth": depth,
            "tokenizer": type(corpus.tokenizer).__name__,
            "vocabulary": corpus.tokenizer.size,
            **settings,
            "pretraining": pretraining,
            "fit_split_merge": fit_split_merge,
            "seconds": seconds,
            **score,
        }
        save(out, trained, notes={**record, "energy_dllm": version()})
        if directory is None:
            _remove(folder / "pretraining", folder)
    if json:
        emit(record, str(out))
        return
    bound = f"{score['masked_nelbo_bits_per_char']:.3f} ± {score['standard_error']:.3f}"
    print(f"{out}: at most {bound} bits per character on held-out text")
    note(f"{pretraining} + {steps} steps · {seconds:.0f} s · try: energy-dllm generate {out}")


def _start(
    source, init, dim, depth, tokenizer, vocabulary, pretraining, fit_split_merge, length, seed, blocks
) -> tuple[Any, Any]:
    """The model before training, and the corpus; `ValueError` where the settings do not belong together."""
    if init is not None:
        of_init = {"--dim": dim, "--depth": depth, "--tokenizer": tokenizer, "--pretraining": pretraining}
        of_init |= {"--fit-split-merge": fit_split_merge or None}
        for flag, value in of_init.items():
            if value is not None:
                raise ValueError(f"`{flag}` cannot be used with `--init`, whose model has its own; leave it out.")
        model = load_model(init, name="--init")
        with called(path="SOURCE", folder="SOURCE"):
            corpus = corpus_of(source, model.tokenizer, validation=0.1)
    else:
        dim, depth, model = 128 if dim is None else dim, 2 if depth is None else depth, None
        if depth > 1 and (pretraining or fit_split_merge):
            raise ValueError(
                f"`--depth` is {depth}, which has no hidden Markov model to pretrain; leave out --pretraining and "
                "--fit-split-merge, or add --depth 1."
            )
        with called(path="SOURCE", folder="SOURCE"):
            corpus = corpus_of(source, tokenizer, vocabulary=vocabulary or 1024)
    # checked before training
    if len(corpus.validation) < 2 * length:
        raise ValueError(
            f"`source` {source} holds out {len(corpus.validation)} tokens; expected at least two windows of "
            f"`length` {length}, so give a longer text or a smaller length."
        )
    if model is not None and not blocks:
        return model, corpus
    import jax

    from .._model import EnergyDLLM

    blocks = tuple(blocks) or ((0, 1) if model is None and depth > 1 else (0,))
    # from left to right a token is read out at the one before it, at half the work
    settings: dict[str, Any] = {"dim": dim, "depth": depth, "shift": set(blocks) == {0, 1}, "counts": corpus.counts()}
    if model is not None:
        settings = {name: getattr(model, name) for name in ("energy", "schedule", "steps", "step")}
    return EnergyDLLM(corpus.tokenizer, **settings, blocks=blocks, key=jax.random.key(seed)), corpus


def _remove(*folders: Path) -> None:
    """What trainings keep in these folders; what else is there stays."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for name in _OWN:
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


def _steps_of(folder: Path) -> int:
    """How many steps an earlier run of this training made."""
    from ..learn import notes

    kept = folder / "checkpoint.safetensors"
    return int(notes(kept).get("step", 0)) if kept.exists() else 0


def _look(model: Any, corpus: Any, step: int, length: int, seed: int) -> str:
    """The masked bound on some of the held-out text, and a short sample."""
    from ..learn import evaluate
    from ..sampling import generate

    score = evaluate(model, corpus.validation, length=length, windows=64, seed=seed, curves=False)
    bits, error = score.masked_nelbo_bits_per_char, score.standard_error
    written = generate(model, length=length, seed=seed, frames=1).texts[0].replace("\n", "↵")
    return f"after {step:,} steps: {bits:.3f} ± {error:.3f} bits per character on held-out text; writes: {written}"
