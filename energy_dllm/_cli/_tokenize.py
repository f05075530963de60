"""`energy-dllm tokenize`: texts larger than memory to ids on disk."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from ._load import called
from ._out import ready
from ._show import busy, emit
from ._write import Json


_arg = tyro.conf.arg


def tokenize(
    sources: Annotated[
        tuple[Path, ...], Positional, _arg(metavar="TEXT...", help="Text files, .jsonl or .parquet (extra parquet).")
    ],
    /,
    *,
    out: Annotated[Path, _arg(aliases=["-o"], metavar="DIR", help="Where the tokens go, such as tokens.")],
    tokenizer: Annotated[
        str | None,
        _arg(
            metavar="{bytes,FILE}",
            help="Bytes of UTF-8, or the byte pairs of a tokenizer.json.",
            help_behavior_hint="(default: characters if they are at most 256, else bytes)",
        ),
    ] = None,
    field: Annotated[str, _arg(help="Of a record of .jsonl or .parquet that holds its text.")] = "text",
    seed: Annotated[int, _arg(help="Without effect: nothing is random here.")] = 0,
    json: Json = False,
) -> None:
    """Write texts as tokens that a training reads from disk. What was stopped goes on by the same command.

    energy-dllm tokenize my.txt -o tokens
    """
    from rich.console import Console
    from rich.progress import Progress

    from ..data import BytePairs, Bytes, tokenize

    coder: Any = Bytes() if tokenizer == "bytes" else None
    if tokenizer not in (None, "bytes"):
        with called(path="--tokenizer"):
            coder = BytePairs.from_file(tokenizer)
    ready("--out", out, "tokens", folder=True)
    on_terminal = sys.stderr.isatty()
    # a bar on a terminal, a line now and then elsewhere
    working = contextlib.nullcontext() if on_terminal else busy(f"writing {len(sources)} texts as tokens")
    with (
        called(sources="TEXT", folder="--out"),
        working,
        Progress(console=Console(stderr=True), disable=not on_terminal) as bar,
    ):
        task = bar.add_task("tokens", total=1.0)
        corpus = tokenize(
            sources, out, tokenizer=coder, field=field, progress=lambda share: bar.update(task, completed=share)
        )
    count = len(corpus.train) + len(corpus.validation)
    record = {"tokens": count, "tokenizer": type(corpus.tokenizer).__name__, "vocabulary": corpus.tokenizer.size}
    if json:
        emit({**record, "out": str(out), "seed": seed}, None)
    else:
        print(f"{out}: {count:,} tokens, {record['tokenizer']} of {record['vocabulary']} symbols")
