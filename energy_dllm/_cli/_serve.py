"""`energy-dllm serve`: models over HTTP."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from ._load import load_model
from ._show import emit, note


_arg = tyro.conf.arg


def serve(
    models: Annotated[
        list[str],
        Positional,
        _arg(metavar="MODEL...", help="Files, or names of shipped models; the first is the default."),
    ] = ["shakespeare"],  # noqa: B006
    /,
    *,
    host: Annotated[str, _arg(help="Where to listen; this machine alone by default.")] = "127.0.0.1",
    port: Annotated[int, _arg(help="0 for any that is free.")] = 8000,
    memory: Annotated[
        Path | None,
        _arg(
            metavar="FILE",
            help="Lines of text that /v1/recall recalls from, a UTF-8 file.",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
    lengths: Annotated[
        list[int], _arg(metavar="INT", help="Passages are rounded up to one of these; a program is compiled for each.")
    ] = [64, 128],  # noqa: B006
    batches: Annotated[
        list[int], _arg(metavar="INT", help="How many passages are written together; a program for each.")
    ] = [1, 2, 4, 8],  # noqa: B006
    queue: Annotated[int, _arg(help="Passages that may wait; more requests get status 429.")] = 64,
    timeout: Annotated[float, _arg(help="Seconds after which a request is given up.")] = 300.0,
    seed: Annotated[int, _arg(help="Without effect: every request has its own.")] = 0,
    json: Annotated[bool, _arg(help="Print the address as one JSON object on stdout, and nothing else.")] = False,
) -> None:
    """Serve models over HTTP: an OpenAI-compatible API, and a playground in the browser.

    energy-dllm serve shakespeare --port 8000

    If the environment variable ENERGY_DLLM_API_KEY is set, requests need it as `Authorization: Bearer KEY`.
    """
    names = {model if not Path(model).suffix else Path(model).stem: model for model in models}
    if len(names) < len(models) or not models:
        raise ValueError(f"`MODEL` is {', '.join(models) or 'missing'}; expected at least one, each of another name.")
    lines = None if memory is None else _lines(memory)
    from ..serve import application, serve as run  # says which packages are missing

    loaded = {name: load_model(model) for name, model in names.items()}
    from ..memory import TextMemory

    store = None if lines is None else TextMemory(lines)
    app = application(loaded, memory=store, lengths=lengths, batches=batches, queue=queue, timeout=timeout)

    def ready(address: str) -> None:
        if json:
            emit({"address": address, "models": list(names)}, models[0])
            return
        print(address, flush=True)
        note(f"serving {', '.join(names)}: compiling the first programs, see {address}/health; Ctrl-C ends it")

    run(app, host=host, port=port, ready=ready)


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise ValueError(f"`--memory` {file} is not a file; check the spelling and the current folder.")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"`--memory` {file} is not UTF-8 ({error.reason} at byte {error.start}); convert it."
        ) from None
    return [line for line in lines if line.strip()]
