"""What the commands print: a passage condensing on a terminal, one JSON object, tables and notes."""

import contextlib
import dataclasses
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ._pixels import FILES, half_blocks, plain as pixels, save


# From undecided to certain, in colours that every terminal theme keeps readable.
SHADES = ("bright_black", "magenta", "blue", "cyan", "default")
BARS = "▁▂▃▄▅▆▇█"


def written(
    write: Callable[..., Any], tokenizer: Any, model: str, json: bool, stream: bool = False, out: Path | None = None
) -> None:
    """Run `write`, a call of `generate` or `infill`, and show it as the place it is shown in allows, and in a file.

    What stands when it is interrupted is shown like a result, and the interruption goes on.
    """
    start, console = time.monotonic(), Console(highlight=False)
    shown = contextlib.nullcontext() if stream else busy(f"writing with {model}: compiling first", 5.0)
    look: Callable[[Any], object] = _line if stream else lambda so_far: None
    if console.is_terminal and not (json or stream):
        begin = Spinner("dots", Text("compiling, which takes a while the first time", "dim"))
        shown = live = Live(begin, console=console, transient=True)
        look = lambda so_far: live.update(_moment(so_far, tokenizer, console.width), refresh=True)
    result = None

    def watch(so_far: Any) -> None:
        nonlocal result
        result = so_far
        look(so_far)

    stop = None
    try:
        with shown:
            # in a few pieces at least: between them Python sees to signals
            result = write(watch=watch) if json or stream or console.is_terminal else write(watch=watch, frames=4)
    except KeyboardInterrupt as caught:
        if result is None:
            raise
        stop = caught
        result = dataclasses.replace(result, reason="interrupted")
    _written(result, tokenizer, model, json or stream, console, time.monotonic() - start, out)
    if stop is not None:
        sys.stdout.flush()
        raise stop


def _written(
    result: Any, tokenizer: Any, model: str, json: bool, console: Console, seconds: float, out: Path | None
) -> None:
    drawn = list(result.pictures)
    shown = [pixels(picture) for picture in drawn]
    plain = "\n\n".join(map("\n".join, zip(result.texts, shown, strict=True)) if drawn else result.texts)
    if json:
        record = {
            "text": result.texts,
            "seed": result.seed,
            "time": result.times.tolist(),
            "sigma": _numbers(result.sigma),
            "known": result.known.tolist(),
            "free_energy": result.free_energy.tolist(),
            "terms": {name: term.tolist() for name, term in result.terms.items()},
            "force_evaluations": int(result.force_evaluations.max()),
            "seconds": round(seconds, 3),
            "result": result.reason,
        }
        plain = emit({**record, "pictures": [picture.tolist() for picture in drawn]} if drawn else record, model)
    elif console.is_terminal and drawn:
        console.print(*(Group(text, half_blocks(picture)) for text, picture in zip(result.texts, drawn, strict=True)))
    elif console.is_terminal:
        for n, text in enumerate(result.texts):
            console.print(_shaded(tokenizer, result.ids[n], result.entropy[n, -1]) or text, soft_wrap=True)
            if n + 1 < len(result.texts):
                console.rule(style="dim")
    else:
        print(plain)
    if out is not None and drawn and out.suffix in FILES:
        save(out, drawn)
    elif out is not None:
        out.write_text(plain + "\n", encoding="utf-8")
    if json:
        return
    mean = result.free_energy.mean(axis=0)
    note(summary(mean.tolist(), int(result.force_evaluations.max()), seconds, result.reason))


def _line(so_far: Any) -> None:
    """The last moment as a line of JSON, at once."""
    moment = {"time": float(so_far.times[-1]), "sigma": _numbers(so_far.sigma)[-1], "text": so_far.texts}
    moment |= {"known": so_far.known[:, -1].tolist(), "free_energy": so_far.free_energy[:, -1].tolist()}
    print(json.dumps(moment, ensure_ascii=False, allow_nan=False), flush=True)


def _numbers(values: Any) -> list[float | None]:
    """With nothing in place of infinity, which JSON does not have."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def emit(record: Mapping[str, Any], model: str | None) -> str:
    """One JSON object on stdout, with the version and the model it is about; returned too."""
    made = json.dumps({**record, "energy_dllm": version(), "model": model}, ensure_ascii=False, allow_nan=False)
    print(made)
    return made


def note(words: str) -> None:
    """A dim line that is not part of the result: on stderr, where it is not piped."""
    Console(stderr=True, highlight=False).print(Text(words, "dim"), soft_wrap=True)


@contextlib.contextmanager
def busy(what: str, first: float = 1.0, every: float = 30.0):
    """Say what is done if it is not done at once, and again as time goes by: a compiler takes a while, and shows
    nothing."""
    start, over = time.monotonic(), threading.Event()

    def remind() -> None:
        wait, shown = first, f"{what} ..."
        while not over.wait(wait):
            note(shown)
            wait, shown = every, f"{what} ... {time.monotonic() - start + every:.0f} s"

    thread = threading.Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def summary(free_energy: Sequence[float], forces: int, seconds: float, reason: str) -> str:
    """From where to where `F` went, at what cost, and why it stopped."""
    ends = f"F {free_energy[0]:.1f} to {free_energy[-1]:.1f} nats"
    return f"{ends} · {forces} force evaluations · {seconds:.1f} s · {reason}"


def repaired(fixed: Any, tokenizer: Any) -> None:
    """The repaired text, on a terminal with the changes in colour."""
    console = Console(highlight=False)
    pieces = [tokenizer.decode(fixed.ids[n : n + 1]) for n in range(len(fixed.ids))]
    if not console.is_terminal or "".join(pieces) != fixed.text:
        print(fixed.text)
        return
    changed = {edit.position for edit in fixed.edits if edit.kind == "substitute"} | {-1}
    styled = [(piece, "bold green" if fixed.origin[n] in changed else "") for n, piece in enumerate(pieces)]
    console.print(Text.assemble(*styled), soft_wrap=True)


def scores(score: Any) -> None:
    """An evaluation as a small table, its curves as lines of bars."""
    rows = Table("measured", "", "")
    bound = f"{score.masked_nelbo_bits_per_char:.3f} ± {score.standard_error:.3f}"
    rows.add_row("bits per character, at most", "", bound)
    rows.add_row("characters", "", f"{score.characters:,}")
    for name, bits in (
        ("the bound on the first windows", score.bound_bits_per_char),
        ("itself, left to right", score.left_to_right_bits_per_char),
        ("itself, most certain first", score.certain_first_bits_per_char),
        ("by one evaluation of the energy", score.one_evaluation_bits_per_char),
    ):
        if bits is not None:
            rows.add_row(name, "", f"{bits:.3f}")
    for name, clock, curve in (
        ("nats per token while it relaxes", "t", score.relaxation_curve),
        ("nats per token under noise", "1/sigma", score.noise_curve),
        ("nats per token with finer steps", "step", score.step_curve),
    ):
        if curve:
            (first, start), (last, end) = curve[0], curve[-1]
            ends = f"{start:.3f} at {clock} {first:.3g}, {end:.3f} at {last:.3g}"
            rows.add_row(name, spark([ce for _, ce in curve]), ends)
    Console(highlight=False).print(rows)
    if score.costs:
        names = ("evaluations", "operations", "seconds", "joules")
        taken = Table("a token written", *names)
        for way, cost in score.costs.items():
            taken.add_row(way, *(f"{cost[name]:.3g}" for name in names))
        Console(highlight=False).print(taken)
        if not all(cost["metered"] for cost in score.costs.values()):
            note("joules are 10 W of a busy core: this machine has no meter (RAPL) that can be read")


def table(facts: Mapping[str, Any]) -> None:
    """Names and values, one a row."""
    rows = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = "\n".join(f"{key}: {words}" for key, item in value.items() if (words := _words(item)))
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        if value not in (None, ""):
            rows.add_row(f"[bold]{escape(name)}", Text(_words(value), overflow="fold"))
    Console(highlight=False).print(rows)


def anatomy(model: Any) -> dict[str, Any]:
    """What a model is made of, part by part."""
    import equinox as eqx
    import jax
    import numpy as np

    from .._model import EnergyDLLM
    from ..energy import FreeEnergy

    def count(part: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(part) if eqx.is_inexact_array(leaf))

    facts = {"kind": type(model).__name__}
    if not isinstance(model, EnergyDLLM):
        return {**facts, "parameters": {"all": count(model)}}
    facts |= {"tokenizer": f"{type(model.tokenizer).__name__}, {model.tokenizer.size} symbols"}
    if not isinstance(model.energy, FreeEnergy):
        return {**facts, "parameters": {"all": 0}}
    network, vocabulary = model.energy.network, model.energy.vocabulary
    parts = {name: count(synapse) for name, synapse in network.synapses.items()}
    parts |= {"neurons": count(network.neurons), "bias": count(network.bias), "kappa": 1}
    # the codes are what noise is added to, not learned
    parts |= {"vocabulary": count(vocabulary) - vocabulary.codes.size}
    noisy, clean = np.exp(-np.asarray(model.schedule.levels(1)))
    return {
        **facts,
        "parameters": {**parts, "all": sum(parts.values())},
        "schedule": f"{type(model.schedule).__name__}, sigma {noisy:.2f} to {clean:.2f}",
        "relaxation": f"{model.steps} step{'s' * (model.steps != 1)} of {model.step:g}, in time constants",
        "kappa": float(model.energy.kappa),
    }


def _words(value: Any) -> str:
    """As a person reads it; nothing of curves and other lists, which are for `--json`."""
    if isinstance(value, Mapping):
        parts = {key: words for key, item in value.items() if (words := _words(item))}
        return ", ".join(f"{k} ({w})" if isinstance(value[k], Mapping) else f"{k} {w}" for k, w in parts.items())
    if value is None or isinstance(value, list):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def spark(values: Sequence[float]) -> str:
    """A curve in one line."""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def version() -> str:
    """The installed version of the package."""
    from .. import __version__

    return __version__


def _moment(so_far: Any, tokenizer: Any, width: int) -> RenderableType:
    """The passages as they stand, beside the numbers of the motion, above them where that would be narrow."""
    passages: list[RenderableType] = []
    for picture in so_far.pictures:
        passages += [half_blocks(picture), Text()]
    for ids, entropy in zip(so_far.frames[:, -1], so_far.entropy[:, -1], strict=True) if not passages else ():
        # a line break that comes and goes would shake the view
        text = _shaded(tokenizer, ids, entropy, newline="↵") or Text(tokenizer.decode(ids).replace("\n", "↵"))
        passages += [text, Text()]
    mean = so_far.free_energy.mean(axis=0)
    noise = f"{so_far.sigma[-1]:.3f}" if math.isfinite(so_far.sigma[-1]) else "unknown or none"
    numbers = Text.assemble(
        ("known ", "dim"), f"{so_far.known[:, -1].mean():.0%}\n",
        ("sigma ", "dim"), f"{noise}\n",
        ("F     ", "dim"), f"{mean[-1]:.1f} nats\n",
        ("      ", "dim"), f"{spark(mean.tolist())}\n",
        ("force ", "dim"), f"{so_far.force_evaluations.max()} evaluations",
    )  # fmt: skip
    beside = max(24, 6 + len(mean))
    if width < 2 * beside:
        return Group(*passages, numbers)
    table = Table.grid(padding=(0, 3), expand=True)
    table.add_column(ratio=1)
    table.add_column(width=beside)
    table.add_row(Group(*passages[:-1]), numbers)
    return table


def _shaded(tokenizer: Any, ids: Any, entropy: Any, newline: str = "\n") -> Text | None:
    """A passage coloured by certainty, token by token; nothing where a character is several tokens."""
    pieces = [tokenizer.decode(ids[n : n + 1]) for n in range(len(ids))]
    if "".join(pieces) != tokenizer.decode(ids):
        return None
    text = Text()
    for piece, h in zip(pieces, entropy, strict=True):
        certainty = 1 - float(h) / math.log(max(2, tokenizer.size))
        shade = SHADES[min(len(SHADES) - 1, max(0, int(certainty * len(SHADES))))]
        text.append(piece.replace("\n", newline), shade)
    return text
