"""`energy-dllm ...`: parses, calls, prints.

JAX is imported by the command that needs it, so that `--help` answers at once.
"""

import functools
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from ._check import health
from ._compiled import remember
from ._corpus import corpus_of
from ._export import export
from ._load import load_model
from ._out import ready
from ._signals import Interruptible
from ._show import anatomy, emit, note, scores, table, version
from ._write import Json, Model, Seed, generate, infill, repair


_arg = tyro.conf.arg
Prompt = Annotated[str, _arg(help="How the passage begins; kept exactly.")]
Length = Annotated[int, _arg(help="Tokens of a passage or window.")]


def train(
    source: Annotated[str, Positional, _arg(metavar="SOURCE", help="A text file, `docs` or `grammar`.")],
    /,
    *,
    out: Annotated[Path, _arg(help="Where the model goes, such as model.safetensors.")],
    steps: Annotated[int, _arg(help="Batches.")] = 2000,
    dim: Annotated[int, _arg(help="Hidden width, the one dial of the model's size.")] = 128,
    depth: Annotated[int, _arg(help="Blocks of the energy; 1 for one layer beside a hidden Markov model.")] = 2,
    length: Length = 64,
    batch_size: Annotated[int, _arg(help="Windows of a batch.")] = 16,
    learning_rate: Annotated[float, _arg(help="Peak of the schedule.")] = 1.2e-2,
    pretraining: Annotated[
        int | None,
        _arg(
            help="With --depth 1: batches of pretraining of the vocabulary, four times as large.",
            help_behavior_hint="(default: 1000)",
        ),
    ] = None,
    fit_split_merge: Annotated[
        bool, _arg(help="With --depth 1: fit the vocabulary by split-merge EM first, for texts of strict form.")
    ] = False,
    seed: Seed = 0,
    directory: Annotated[
        Path | None,
        _arg(
            help="Checkpoints and a log; a stopped run resumes.",
            help_behavior_hint="(default: OUT.training, removed at the end)",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a model on a text. Ctrl-C keeps what is learned, and the same command goes on from there.

    energy-dllm train my.txt --out my.safetensors --steps 5000

    energy-dllm train grammar --out toy.safetensors --dim 64 --directory runs/toy
    """
    from ..learn import default_optimizer

    # smaller steps for pretrained tables; made first, so that bad settings are found before any folder is made
    pretrained_optimizer = default_optimizer(learning_rate, steps, tables=1.0)
    ready("--out", out, "model.safetensors")
    folder = out.with_name(f"{out.name}.training") if directory is None else directory
    ready("--directory", folder, "runs/mine", folder=True)
    if pretraining is not None and pretraining < 0:
        raise ValueError(f"`--pretraining` is {pretraining}; expected a number of batches, or 0 for none.")
    if depth > 1 and (pretraining or fit_split_merge):
        raise ValueError(
            f"`--depth` is {depth}, which has no hidden Markov model to pretrain; leave out --pretraining and "
            "--fit-split-merge, or add --depth 1."
        )
    pretraining = (1000 if depth == 1 else 0) if pretraining is None else pretraining
    corpus = corpus_of(source)
    # checked before training
    if len(corpus.validation) < 2 * length:
        raise ValueError(
            f"`source` {source} holds out {len(corpus.validation)} tokens; expected at least two windows of "
            f"`length` {length}, so give a longer text or a smaller length."
        )
    import equinox as eqx
    import jax

    from .._model import EnergyDLLM
    from ..learn import Denoising, MaximumLikelihood, evaluate, fit, fit_split_merge as grown, save

    start = time.monotonic()
    settings: dict[str, Any] = {"steps": steps, "length": length, "batch_size": batch_size}
    settings |= {"learning_rate": learning_rate, "seed": seed}
    model = EnergyDLLM(corpus.tokenizer, dim=dim, depth=depth, counts=corpus.counts(), key=jax.random.key(seed))
    show = sys.stderr.isatty()
    try:
        if fit_split_merge:
            stretch = min(256, len(corpus.train) - 1)
            vocabulary = grown(model.energy.vocabulary, corpus.train, length=stretch, seed=seed, directory=folder)
            model = eqx.tree_at(lambda model: model.energy.vocabulary, model, vocabulary)
        if pretraining:
            first = {**settings, "steps": pretraining, "batch_size": 4 * batch_size, "average": 0.99}
            model = fit(model, corpus, MaximumLikelihood(), **first, directory=folder / "pretraining", progress=show)
        settings["optimizer"] = pretrained_optimizer if fit_split_merge or pretraining else None
        model = fit(model, corpus, Denoising(), **settings, directory=folder, progress=show)
        score = evaluate(model, corpus.validation, length=length, seed=seed).as_dict()
    except KeyboardInterrupt as stop:
        kept = f"stopped; what is finished is in {folder}; to go on from there, run the same again"
        raise KeyboardInterrupt(str(stop) or kept) from None
    seconds = round(time.monotonic() - start, 3)
    settings.pop("optimizer", None)
    record = {
        "source": source,
        "dim": dim,
        "depth": depth,
        **settings,
        "pretraining": pretraining,
        "fit_split_merge": fit_split_merge,
        "seconds": seconds,
        **score,
    }
    save(out, model, notes={**record, "energy_dllm": version()})
    if directory is None:
        shutil.rmtree(folder, ignore_errors=True)
    if json:
        emit(record, str(out))
        return
    bound = f"{score['masked_nelbo_bits_per_char']:.3f} ± {score['standard_error']:.3f}"
    print(f"{out}: at most {bound} bits per character on held-out text")
    note(f"{pretraining} + {steps} steps · {seconds:.0f} s · try: energy-dllm generate {out}")


def evaluate(
    model: Model,
    file: Annotated[str, Positional, _arg(metavar="FILE", help="A UTF-8 text file, `docs` or `grammar`.")],
    /,
    *,
    length: Length = 64,
    windows: Annotated[int, _arg(help="At most so many windows, spread over the text.")] = 256,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure a model on a text it was not trained on.

    energy-dllm evaluate shakespeare held_out.txt --windows 64
    """
    loaded = load_model(model, twins=True)
    corpus = corpus_of(file, loaded.tokenizer)
    from ..learn import evaluate

    # the held-out part of a named corpus; a file is held out as a whole
    ids = corpus.validation if file in ("docs", "grammar") else corpus.train
    score = evaluate(loaded, ids, length=length, windows=windows, seed=seed)
    if json:
        emit({**score.as_dict(), "file": file, "length": length, "seed": seed}, model)
    else:
        scores(score)


def inspect(
    model: Model,
    /,
    *,
    out: Annotated[Path | None, _arg(aliases=["-o"], metavar="DIR", help="Folder for figures, or FILE.html.")] = None,
    check: Annotated[bool, _arg(help="A health report instead; exit code 1 if a finding fails.")] = False,
    prompt: Prompt = "",
    length: Length = 64,
    steps: Annotated[int, _arg(help="Steps through the noise schedule.")] = 64,
    seed: Seed = 0,
    json: Json = False,
) -> int | None:
    """Write figures or a page of everything inside a model, or (--check) a health report of its landscape.

    energy-dllm inspect shakespeare -o report
    """
    if check:
        return health(load_model(model), model, length, seed, json)
    if out is None:
        raise ValueError("`--out` is missing; expected a folder for the figures, or --check for a health report.")
    page = out.suffix == ".html"
    ready("--out", out, "report.html" if page else "report", folder=not page)
    if not page and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("plots need matplotlib, which is optional: pip install 'energy-dllm[plot]'.")
    loaded = load_model(model)
    from .. import probe

    look = probe.page if page else probe.inspect  # pyright: ignore[reportAttributeAccessIssue]
    paths = look(loaded, out, prompt=prompt, length=length, steps=steps, seed=seed)
    paths = paths if isinstance(paths, list) else [paths]
    if json:
        emit({"files": [str(path) for path in paths], "seed": seed}, model)
    else:
        print(*paths, sep="\n")


def info(
    model: Annotated[str | None, Positional, _arg(metavar="[MODEL]", help="A file or a shipped name.")] = None,
    /,
    *,
    seed: Annotated[int, _arg(help="Without effect: nothing is random here.")] = 0,
    json: Json = False,
) -> None:
    """Show what is installed, and the parts of a model.

    energy-dllm info shakespeare
    """
    from importlib import metadata

    loaded = None if model is None else load_model(model, twins=True)
    import jax

    from ..learn import notes, shipped

    facts: dict[str, Any] = {name: metadata.version(name) for name in ("jax", "equinox", "diffrax")}
    facts |= {"device": str(jax.devices()[0]), "shipped": shipped()}
    if model is not None:
        facts |= {**anatomy(loaded), "notes": notes(model)}
    if json:
        emit(facts, model)
    else:
        table({"energy_dllm": version(), "model": model, **facts})


COMMANDS: dict[str, Callable[..., int | None]] = {
    "generate": generate,
    "infill": infill,
    "repair": repair,
    "train": train,
    "evaluate": evaluate,
    "inspect": inspect,
    "export": export,
    "info": info,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    **Arguments:**

    - `argv`: words of the command line, those of this process by default.

    **Returns:** the exit code: 0, 1 for a failed `--check`, 2 for bad input (one sentence on stderr says what), 130 if
    interrupted, 143 if terminated.
    """
    signals = Interruptible()
    try:
        chosen = tyro.extras.subcommand_cli_from_dict(
            {name: _later(command) for name, command in COMMANDS.items()},
            prog="energy-dllm",
            description="A diffusion language model that is one explicit free energy.",
            args=argv,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        remember()
        with signals:
            code = chosen()
            sys.stdout.flush()
    except BrokenPipeError:  # such as by `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stop:
        print("energy-dllm:", str(stop) or "interrupted", file=sys.stderr)
        return signals.end()
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        print("energy-dllm:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return code or 0


def _later(command: Callable[..., int | None]) -> Callable[..., Callable[[], int | None]]:
    """Parse now, run afterwards, so that errors of the command are not those of its arguments."""

    def run(*args: Any, **kwargs: Any) -> int | None:
        if "seed" in kwargs:  # of all commands alike, those without randomness too
            from .._checks import seeded

            seeded(kwargs["seed"])
        return command(*args, **kwargs)

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], int | None]:
        return functools.partial(run, *args, **kwargs)

    return bind
