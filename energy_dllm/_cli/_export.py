"""`energy-dllm export`: the relaxation of a model as a netlist, and its run in a simulator; or its weights as int8."""

import math
import time
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from ._load import load_model
from ._out import MODEL, NETLIST, ready
from ._show import emit, note


_arg = tyro.conf.arg
LIMIT = 150_000


def export(
    model: Annotated[str, Positional, _arg(metavar="MODEL", help="A file, or the name of a shipped model.")],
    /,
    *,
    out: Annotated[
        Path,
        _arg(
            aliases=["-o"],
            metavar="FILE",
            help="The file to write: a netlist, such as memory.cir, or with --int8 weights.",
        ),
    ],
    prompt: Annotated[str, _arg(help="Tokens that are known, at the beginning.")] = "",
    length: Annotated[int, _arg(help="Tokens of the passage; every one adds a copy of the hidden neurons.")] = 1,
    duration: Annotated[
        float | None,
        _arg(
            metavar="FLOAT",
            help="Time constants to simulate.",
            help_behavior_hint="(default: the model's own relaxation time, 8 where it takes one full step)",
        ),
    ] = None,
    max_step: Annotated[float, _arg(help="Largest step of the simulator in time constants; sets the accuracy.")] = 0.1,
    limit: Annotated[int, _arg(help="Refuse to write more elements than this.")] = LIMIT,
    int8: Annotated[bool, _arg(help="Write the model itself instead, with matrices of one byte a number.")] = False,
    run: Annotated[bool, _arg(help="Simulate it in ngspice, and compare with diffrax.")] = False,
    seed: Annotated[int, _arg(help="Without effect: nothing is random here.")] = 0,
    json: Annotated[bool, _arg(help="Print one JSON object on stdout, and nothing else.")] = False,
) -> None:
    """Write the model as an electronic circuit, or (--int8) as a smaller file of weights.

    energy-dllm export shakespeare -o memory.cir

    energy-dllm export toy.safetensors -o toy.cir --prompt "the c" --length 6 --run

    energy-dllm export shakespeare -o small.safetensors --int8
    """
    of_circuit = run or prompt or length != 1 or duration is not None or max_step != 0.1 or limit != LIMIT
    if int8 and (of_circuit or out.suffix != MODEL):
        raise ValueError(
            f"`--int8` writes weights, `--out` is {out}; expected a name such as small.safetensors, without "
            "`--prompt`, `--length`, `--duration`, `--max-step`, `--limit` and `--run`, which are for a circuit."
        )
    if not int8 and out.suffix == MODEL:
        raise ValueError(f"`--out` {out} has the name of a model; expected one such as memory.cir, or add `--int8`.")
    for flag, value in {"--length": length, "--duration": duration, "--max-step": max_step}.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"`{flag}` is {value}; expected a positive number.")
    ready("--out", out, f"small{MODEL}" if int8 else f"memory{NETLIST}", reads=[model])
    if int8:
        _smaller(model, out, json)
        return
    loaded = load_model(model)
    if loaded.tokenizer.places not in (0, length):
        raise ValueError(f"`--length` is {length}; pictures of {model} have {loaded.tokenizer.places} tokens.")
    ids = loaded.tokenizer.encode(prompt)
    if len(ids) > length:
        raise ValueError(f"`--prompt` has {len(ids)} tokens but `--length` is {length}; make `--length` larger.")
    from .. import circuit

    if run:  # checked before minutes of tracing
        circuit.find_ngspice()
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from ..flow import Given, Relaxation

    # one full step of the model is a relaxation to the end, of which a circuit has 1 - e^-t
    own = 8.0 if getattr(loaded.energy, "one_shot", False) else loaded.steps * loaded.step
    t1 = own if duration is None else duration
    if max_step > t1:
        raise ValueError(
            f"`--max-step` is {max_step}, longer than all {t1} time constants; a hundredth of them will do."
        )
    with jax.enable_x64(True):  # the simulator computes in double precision
        double = lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf
        loaded = jax.tree.map(double, loaded)
        known = jnp.arange(length) < len(ids)
        field = Relaxation(
            loaded.energy, Given(jnp.zeros(length, int).at[: len(ids)].set(jnp.asarray(ids, int)), known)
        )
        start = loaded.energy.neutral(length)
        title = f"energy-dllm export {model} --prompt {prompt!r} --length {length}"
        made = circuit.lower(field, start, title=title)
        expected = made.expected_seconds(t1=t1, max_step=max_step)
        if made.elements > limit:
            raise ValueError(
                f"`model` {model} with {length} tokens has {made.elements:,} elements, about {expected:.0f} s in "
                f"ngspice, and `--limit` is {limit:,}; lower `--length`, or raise `--limit`."
            )
        made.save(out, t1=t1, max_step=max_step)
        record: dict[str, Any] = {"file": str(out), "elements": made.elements, "states": len(made.nodes)}
        record |= {"length": length, "prompt": prompt, "duration": t1, "max_step": max_step, "seed": seed}
        record |= {"expected_seconds": round(expected, 1)}
        summary = f"{out}: {made.elements:,} elements, {len(made.nodes)} states"
        if not run:
            hint = f"ngspice needs about {expected:.0f} s: ngspice -b {out}, or energy-dllm export ... --run"
        else:
            began = time.monotonic()
            path = circuit.simulate(made, t1=t1, max_step=max_step, patience=max(60.0, 20 * expected))
            apart = circuit.Comparison(field, start, path)
            b = loaded.field(field.given)
            read = lambda y: loaded.decode(loaded.energy.logits(jnp.asarray(y), b).argmax(-1))
            texts = {"text": read(path.states[-1]), "diffrax": read(apart.states[-1])}
            errors = {"error": apart.largest, "relative_error": apart.relative, "end_error": apart.end}
            record |= {**texts, **errors, "points": len(path.times), "ngspice_seconds": round(path.seconds, 3)}
            record |= {"seconds": round(time.monotonic() - began, 3)}
            summary += f"\nngspice {texts['text']!r}, diffrax {texts['diffrax']!r}"
            hint = f"apart by {apart.relative:.1e} of the largest voltage, {apart.end:.1e} at the end"
            hint += f" · {len(path.times)} points · {path.seconds:.1f} s"
    if json:
        emit(record, model)
        return
    print(summary)
    note(hint)


def _smaller(model: str, out: Path, json: bool) -> None:
    """Write the weights as int8, and say what that made of their size."""
    from ..learn import load, notes, save, stored

    save(out, load(model), notes=notes(model), int8=True)
    before, after = stored(model)["all"], stored(out)["all"]
    if json:
        emit({"file": str(out), "bytes": after, "bytes_before": before}, model)
        return
    print(f"{out}: {after:,} bytes")
    note(f"{after / before:.2f} of {before:,}")
