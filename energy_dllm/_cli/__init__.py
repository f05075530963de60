"""`energy-dllm ...`: parses, calls, prints.

JAX is imported by the command that needs it, so that `--help` answers at once.
"""

import dataclasses
import functools
import importlib.util
import inspect as inspection
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from ._check import health
from ._compiled import quickly, remember
from ._corpus import built_in, corpus_of
from ._export import export
from ._load import called, load_model
from ._out import ready, tidy
from ._sampler import Sampler
from ._serve import serve
from ._signals import Interruptible
from ._show import anatomy, busy, emit, note, scores, table, version
from ._tokenize import tokenize
from ._train import Length, train
from ._write import Json, Model, Seed, generate, infill, repair


_arg = tyro.conf.arg
Prompt = Annotated[str, _arg(help="How the passage begins; kept exactly.")]


def evaluate(
    model: Model,
    file: Annotated[
        str, Positional, _arg(metavar="FILE", help="A UTF-8 text file, or a built-in text: docs, grammar.")
    ],
    /,
    *,
    length: Length = 64,
    windows: Annotated[int, _arg(help="At most so many windows, spread over the text.")] = 256,
    block: Annotated[
        int | None,
        _arg(
            metavar="INT",
            help="Read in blocks of so many tokens, each given all before it; 0 for the whole window.",
            help_behavior_hint="(default: as the model is)",
        ),
    ] = None,
    cost: Annotated[bool, _arg(help="Also what writing a token takes: operations, seconds, joules.")] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure a model on a text it was not trained on.

    energy-dllm evaluate shakespeare held_out.txt --windows 64
    """
    loaded = load_model(model)
    with called(source="FILE", path="FILE", folder="FILE"):
        corpus = corpus_of(file, loaded.tokenizer)
    from ..learn import evaluate, notes

    source = notes(model).get("source")
    if not built_in(file) and source and Path(source).name == Path(file).name:
        note(f"{model} was trained on a part of {source}: its `info` has the figure of the rest")
    # the held-out part of a named corpus; a file is held out as a whole
    ids = corpus.validation if built_in(file) else corpus.train
    with busy(f"measuring {model} on windows of {length} tokens: compiling first"):
        score = evaluate(loaded, ids, length=length, windows=windows, seed=seed, block=block, cost=cost)
    if json:
        emit({**score.as_dict(), "file": file, "length": length, "seed": seed}, model)
    else:
        scores(score)


def inspect(
    model: Model,
    /,
    *,
    out: Annotated[
        Path | None,
        _arg(
            aliases=["-o"],
            metavar="DIR",
            help="Folder for figures, or FILE.html.",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
    check: Annotated[bool, _arg(help="A health report instead; exit code 1 if a finding fails.")] = False,
    prompt: Prompt = "",
    length: Annotated[
        int | None,
        _arg(metavar="INT", help="Tokens of the passage.", help_behavior_hint="(default: 64, or those of a picture)"),
    ] = None,
    steps: Annotated[int, _arg(help="Steps through the noise schedule.")] = 64,
    seed: Seed = 0,
    json: Json = False,
) -> int | None:
    """Write figures or a page of everything inside a model, or (--check) a health report of its landscape.

    energy-dllm inspect shakespeare -o report
    """
    if check:
        loaded = load_model(model)
        return health(loaded, model, _length(loaded, length), seed, json)
    if out is None:
        raise ValueError("`--out` is missing; expected a folder for the figures, or --check for a health report.")
    page = out.suffix == ".html"
    ready("--out", out, "report.html" if page else "report", folder=not page, reads=[model])
    if not page and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("plots need matplotlib, which is optional: pip install '.[plot]' in a checkout.")
    loaded = load_model(model)
    length = _length(loaded, length)
    from ..probe import inspect as figures, page as report

    look = report if page else figures
    with busy(f"looking into {model}, a passage of {length} tokens in {steps} steps: compiling first"):
        paths = look(loaded, out, prompt=prompt, length=length, steps=steps, seed=seed)
    paths = paths if isinstance(paths, list) else [paths]
    if json:
        emit({"files": [str(path) for path in paths], "seed": seed}, model)
    else:
        print(*paths, sep="\n")


def _length(model: Any, length: int | None) -> int:
    """Tokens of the passage that is looked at, as `probe.inspect` has it."""
    return (model.tokenizer.places or 64) if length is None else length


def info(
    model: Annotated[str | None, Positional, _arg(metavar="[MODEL]", help="A file or a shipped name.")] = None,
    /,
    *,
    size: Annotated[bool, _arg(help="Also the bytes of the file, part by part.")] = False,
    seed: Annotated[int, _arg(help="Without effect: nothing is random here.")] = 0,
    json: Json = False,
) -> None:
    """Show what is installed, and the parts of a model.

    energy-dllm info shakespeare --size
    """
    from importlib import metadata

    if size and model is None:
        raise ValueError("`--size` is of a model; expected one, such as `energy-dllm info shakespeare --size`.")
    loaded = None if model is None else load_model(model, twins=True)
    import jax

    from ..learn import notes, shipped, stored

    facts: dict[str, Any] = {name: metadata.version(name) for name in ("jax", "equinox", "diffrax")}
    facts |= {"device": str(jax.devices()[0]), "shipped": shipped()}
    if model is not None:
        facts |= {**anatomy(loaded), **({"bytes": stored(model)} if size else {}), "notes": notes(model)}
    if json:
        emit(facts, model)
    else:
        table({"energy_dllm": version(), "model": model, **facts})


COMMANDS: dict[str, Callable[..., int | None]] = {
    "generate": generate,
    "infill": infill,
    "repair": repair,
    "tokenize": tokenize,
    "train": train,
    "evaluate": evaluate,
    "inspect": inspect,
    "export": export,
    "info": info,
    "serve": serve,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    **Arguments:**

    - `argv`: words of the command line, those of this process by default.

    **Returns:** the exit code: 0, 1 for a failed `--check`, 2 for bad input (one sentence on stderr says what), 130 if
    interrupted, 143 if terminated.
    """
    if list(sys.argv[1:] if argv is None else argv) == ["--version"]:
        print("energy-dllm", version())
        return 0
    signals = Interruptible()
    try:
        chosen = parse(argv)
        remember()
        with signals, tidy():
            code = chosen()
            sys.stdout.flush()
    except BrokenPipeError:  # such as by `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stop:
        print("energy-dllm:", str(stop) or "interrupted", file=sys.stderr)
        return signals.end()
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        if signals.caught is not None:  # in the import of an extension, which has its own word for it
            print("energy-dllm: interrupted", file=sys.stderr)
            return signals.end()
        print("energy-dllm:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return code or 0


def parse(argv: Sequence[str] | None = None) -> Callable[[], int | None]:
    """The command that these words ask for, ready to be run; `SystemExit` where they ask for none."""
    words = sys.argv[1:] if argv is None else argv
    brief = not words or words[0].startswith("-")  # the list of all commands has a sentence of each
    return tyro.extras.subcommand_cli_from_dict(
        {name: _later(command, brief) for name, command in COMMANDS.items()},
        prog="energy-dllm",
        description="A diffusion language model that is one explicit free energy. --version prints the version.",
        args=argv,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _typed(command: Callable[..., Any]) -> dict[str, str]:
    """What is typed for each parameter of a command."""
    parameters = inspection.signature(command).parameters
    flags = {name: each.kind is each.KEYWORD_ONLY for name, each in parameters.items()}
    if "sampler" in flags:  # whose fields are options of their own
        flags |= {field.name: True for field in dataclasses.fields(Sampler)}
    typed = {name: f"--{name.replace('_', '-')}" if flag else name.upper() for name, flag in flags.items()}
    return typed | ({"pattern": "--match", "words": "--avoid"} if "match" in flags else {})


def _later(command: Callable[..., int | None], brief: bool) -> Callable[..., Callable[[], int | None]]:
    """Parse now, run afterwards, so that errors of the command are not those of its arguments. `brief` is described
    without what its own `--help` has."""

    def run(*args: Any, **kwargs: Any) -> int | None:
        if kwargs.get("check"):  # before anything imports jax
            quickly()
        with called(**_typed(command)):
            if "seed" in kwargs:  # of all commands alike, those without randomness too
                from .._checks import seeded

                seeded(kwargs["seed"])
            return command(*args, **kwargs)

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], int | None]:
        return functools.partial(run, *args, **kwargs)

    bind.__doc__ = (command.__doc__ or "").split("\n\n")[0] if brief else command.__doc__
    return bind
