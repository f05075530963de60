"""`energy-dllm ...`: parses, calls, prints.

JAX is imported by the command that needs it, so that `--help` answers at once.
"""

import functools
import os
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
    length: Length = 64,
    batch_size: Annotated[int, _arg(help="Windows of a batch.")] = 16,
    learning_rate: Annotated[float, _arg(help="Peak of the schedule.")] = 1.2e-2,
    pretraining: Annotated[int, _arg(help="Batches of a first part, four times as large, for the vocabulary.")] = 1000,
    fit_split_merge: Annotated[
        bool, _arg(help="Grow the vocabulary by counting first: for texts of strict form.")
    ] = False,
    seed: Seed = 0,
    directory: Annotated[Path | None, _arg(help="Checkpoints and a log; a stopped run resumes.")] = None,
    json: Json = False,
) -> None:
    """Train a model on a text.

    energy-dllm train my.txt --out my.safetensors --steps 5000

    energy-dllm train grammar --out toy.safetensors --dim 64 --directory runs/toy
    """
    if out.is_dir():
        raise ValueError(f"`--out` {out} is a folder; expected a file name, such as model.safetensors.")
    if pretraining < 0:
        raise ValueError(f"`--pretraining` is {pretraining}; expected a number of batches, or 0 for none.")
    corpus = corpus_of(source)
    # asked now, not after hours of training
    if len(corpus.validation) < 2 * length:
        raise ValueError(
            f"`source` {source} holds out {len(corpus.validation)} tokens; expected at least two windows of "
            f"`length` {length}, so give a longer text or a smaller length."
        )
    import equinox as eqx
    import jax
    import numpy as np

    from .._model import EnergyDLLM
    from ..learn import Denoising, MaximumLikelihood, default_optimizer, evaluate, fit, fit_split_merge as grown, save

    start = time.monotonic()
    settings: dict[str, Any] = {"steps": steps, "length": length, "batch_size": batch_size}
    settings |= {"learning_rate": learning_rate, "seed": seed}
    # not to shout at a chain that has read; made before it reads, so that settings without sense are found first
    gentle = default_optimizer(learning_rate, steps, tables=1.0)
    counts = np.bincount(corpus.train, minlength=corpus.tokenizer.size)
    model = EnergyDLLM(corpus.tokenizer, dim=dim, counts=counts, key=jax.random.key(seed))
    show = sys.stderr.isatty()
    if fit_split_merge:
        stretch = min(256, len(corpus.train) - 1)
        vocabulary = grown(model.energy.vocabulary, corpus.train, length=stretch, seed=seed, directory=directory)
        model = eqx.tree_at(lambda model: model.energy.vocabulary, model, vocabulary)
    if pretraining:
        first = {**settings, "steps": pretraining, "batch_size": 4 * batch_size, "average": 0.99}
        folder = None if directory is None else directory / "pretraining"
        model = fit(model, corpus, MaximumLikelihood(), **first, directory=folder, progress=show)
    settings["optimizer"] = gentle if fit_split_merge or pretraining else None
    model = fit(model, corpus, Denoising(), **settings, directory=directory, progress=show)
    score = evaluate(model, corpus.validation, length=length, seed=seed).as_dict()
    seconds = round(time.monotonic() - start, 3)
    settings.pop("optimizer", None)
    record = {
        "source": source,
        "dim": dim,
        **settings,
        "pretraining": pretraining,
        "fit_split_merge": fit_split_merge,
        "seconds": seconds,
        **score,
    }
    save(out, model, notes={**record, "energy_dllm": version()})
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
    loaded = _load(model, twins=True)
    corpus = corpus_of(file, loaded.tokenizer)
    from ..learn import evaluate

    # of a named corpus the part that is held out; a file is taken to be held out as a whole
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
    """Look at everything that moves while a model writes, or (--check) whether its landscape is sound.

    energy-dllm inspect shakespeare -o report
    """
    if check:
        return health(_load(model), model, length, seed, json)
    if out is None:
        raise ValueError("`--out` is missing; expected a folder for the figures, or --check for a health report.")
    loaded = _load(model)
    from .. import probe

    look = probe.page if out.suffix == ".html" else probe.inspect  # pyright: ignore[reportAttributeAccessIssue]
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
    """Say what is installed, and what a model is made of.

    energy-dllm info shakespeare
    """
    from importlib import metadata

    loaded = None if model is None else _load(model, twins=True)
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
    interrupted.
    """
    try:
        chosen = tyro.extras.subcommand_cli_from_dict(
            {name: _later(command) for name, command in COMMANDS.items()},
            prog="energy-dllm",
            description="Text is generated by letting a physical system come to rest.",
            args=argv,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        remember()
        code = chosen()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("energy-dllm: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        print("energy-dllm:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return code or 0


def _later(command: Callable[..., int | None]) -> Callable[..., Callable[[], int | None]]:
    """Parse now, run afterwards: an error of the command is not one of its arguments."""

    def run(*args: Any, **kwargs: Any) -> int | None:
        if "seed" in kwargs:  # of all commands alike, those without randomness too
            from .._checks import seeded

            seeded(kwargs["seed"])
        return command(*args, **kwargs)

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], int | None]:
        return functools.partial(run, *args, **kwargs)

    return bind


def _load(model: str, *, twins: bool = False) -> Any:
    from .._model import EnergyDLLM
    from ..learn import AbstractTwin, load

    loaded = load(model)
    if not isinstance(loaded, (EnergyDLLM, AbstractTwin) if twins else EnergyDLLM):
        raise ValueError(f"`model` {model} is a {type(loaded).__name__}; expected an EnergyDLLM.")
    return loaded
