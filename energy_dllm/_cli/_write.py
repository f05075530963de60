"""`energy-dllm generate | infill | repair`: options to samplers and evidence, and their results."""

import functools
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from ._load import called, load_model
from ._out import ready
from ._pixels import FILES, tried
from ._sampler import Sampler
from ._show import busy, emit, note, repaired, summary, written


_arg = tyro.conf.arg
Model = Annotated[str, Positional, _arg(metavar="MODEL", help="A file, or the name of a shipped model.")]
Samples = Annotated[int, _arg(help="How many passages, drawn independently.")]
Match = Annotated[
    str | None,
    _arg(
        metavar="REGEX",
        help="The whole passage matches this: .*word.* for a word anywhere.",
        help_behavior_hint="(default: none)",
    ),
]
Avoid = Annotated[
    list[str],
    _arg(
        metavar="WORD",
        help="Words that must not occur, not even inside of another.",
        help_behavior_hint="(default: none)",
    ),
]
Window = Annotated[
    int | None,
    _arg(
        metavar="INT",
        help="Tokens written at once; longer passages are written block by block.",
        help_behavior_hint="(default: all up to 128, then 64)",
    ),
]
Unknown = Annotated[
    Literal["error", "mask"], _arg(help="Characters that the model does not know: refused, or written anew.")
]
Stop = Annotated[str, _arg(metavar="TOKEN", help="What is written ends with the first of these, say '.'.")]
Stream = Annotated[bool, _arg(help="Print every moment as a line of JSON as it comes; the result is the last line.")]
Seed = Annotated[int, _arg(help="Of all randomness; the same seed gives the same result.")]
Json = Annotated[bool, _arg(help="Print one JSON object on stdout, and nothing else.")]


def generate(
    model: Model = "stories",
    /,
    *,
    length: Annotated[
        int | None, _arg(metavar="INT", help="Tokens of a passage.", help_behavior_hint="(default: 64)")
    ] = None,
    prompt: Annotated[
        str, _arg(help="How the passage begins, or the caption of a picture; kept exactly. - reads standard input.")
    ] = "",
    prompt_file: Annotated[
        Path | None,
        _arg(
            metavar="FILE",
            help="Read the prompt from a UTF-8 file, without its last line break.",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
    suffix: Annotated[str, _arg(help="How the passage ends; kept exactly.")] = "",
    samples: Samples = 1,
    best_of: Annotated[
        int, _arg(help="Of so many passages the likeliest is kept, by one evaluation of the energy each.")
    ] = 1,
    sampler: Annotated[Sampler, tyro.conf.OmitArgPrefixes] = Sampler(),  # noqa: B008
    match: Match = None,
    avoid: Avoid = [],  # noqa: B006
    window: Window = None,
    stop: Stop = "",
    unknown: Unknown = "error",
    stream: Stream = False,
    out: Annotated[
        Path | None,
        _arg(
            aliases=["-o"],
            metavar="FILE",
            help="Write it to this file too: text, with --json JSON, pictures as .png.",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Generate text, or a picture: noise becomes text by the descent of one free energy.

    energy-dllm generate --prompt "Once upon a time" --length 96 --temperature 0.7

    energy-dllm generate shakespeare --match ".*love.*" --avoid death grave

    echo "One day" | energy-dllm generate --prompt - --out written.txt

    energy-dllm generate my.safetensors --unmask --rounds 16 --json

    energy-dllm generate shakespeare --prompt "To be" --length 200 --block 1

    energy-dllm generate digits --prompt seven -o seven.png
    """
    if out is not None:
        ready("--out", out, "written.txt", reads=[model, prompt_file])
    prompt = _prompt(prompt, prompt_file)
    if suffix and sampler.block is not None:
        raise ValueError("`--suffix` is not read by what is written with `--block`; leave one of them out.")
    size = 64 if length is None else length
    chosen = sampler.build(min(size, 128 if window is None else window))
    loaded = load_model(model)
    if out is not None and loaded.tokenizer.places and out.suffix in FILES:
        tried(out)
    size = loaded.tokenizer.places or size
    chosen = sampler.build(min(size, 128 if window is None else window), loaded)
    from ..sampling import generate, likeliest

    if best_of < 1:
        raise ValueError(f"`--best-of` is {best_of}; expected 1 (every passage) or more, such as 8.")
    options = {
        "samples": samples * best_of,
        "window": window,
        "stop": stop,
        "mask_unknown": unknown == "mask",
        "seed": seed,
        "sampler": chosen,
    }
    options |= _evidence(loaded, match, avoid, size)
    write = functools.partial(generate, loaded, length=length, prompt=prompt, suffix=suffix, **options)
    best = write if best_of == 1 else lambda **watching: likeliest(loaded, write(**watching), of=best_of)
    written(best, loaded.tokenizer, model, json, stream, out)


def infill(
    template: Annotated[
        str, Positional, _arg(metavar="TEMPLATE", help="Text with holes such as [8], or [*]; or a picture, a file.")
    ],
    model: Model = "shakespeare",
    /,
    *,
    length: Annotated[
        list[int],
        _arg(
            metavar="INT",
            help="With [*]: tokens of the passage, or several to choose from by their free energy.",
            help_behavior_hint="(default: 64)",
        ),
    ] = [],  # noqa: B006
    samples: Samples = 1,
    sampler: Annotated[Sampler, tyro.conf.OmitArgPrefixes] = Sampler(),  # noqa: B008
    match: Match = None,
    avoid: Avoid = [],  # noqa: B006
    window: Window = None,
    stop: Stop = "",
    unknown: Unknown = "error",
    stream: Stream = False,
    hole: Annotated[
        Path | None,
        _arg(
            metavar="FILE",
            help="Of a picture: another one, white where it is to be filled.",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
    prompt: Annotated[str, _arg(help="The caption of a picture; found if it is not given.")] = "",
    out: Annotated[
        Path | None,
        _arg(
            aliases=["-o"],
            metavar="FILE",
            help="Write it to this file too: text, or pictures as .png.",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Fill the holes of a text, or of a picture.

    [8] is a hole of eight tokens, [*] one of unknown width; a literal bracket is written [[.

    energy-dllm infill "To be, or not [8]that is the question"

    energy-dllm infill "To be, or not [*]that is the question" --length 36 38 40 42 44

    energy-dllm infill digit.png digits --hole hole.png -o filled.png
    """
    if out is not None:
        ready("--out", out, "filled.txt", reads=[model, template, hole])
    if sampler.block is not None:
        raise ValueError(
            "`--block` reads nothing of the text behind a hole; leave it out, or use `energy-dllm generate`."
        )
    loaded = load_model(model)
    if loaded.tokenizer.places:
        of_text = {"match": match, "avoid": avoid, "length": length, "window": window, "stop": stop}
        if wrong := [name for name, value in of_text.items() if value]:
            raise ValueError(f"`--{wrong[0]}` is of text, and {model} makes pictures; leave it out.")
        fill = _inpaint(loaded, template, hole, prompt)
        fill = functools.partial(fill, samples=samples, sampler=sampler.build(1, loaded, filling=True), seed=seed)
        return written(fill, loaded.tokenizer, model, json, stream, out)
    if hole is not None or prompt:
        raise ValueError(f"`--hole` and `--prompt` are of pictures, and {model} writes text; leave them out.")
    from ..sampling import infill, of_template

    size = None if not length else length[0] if len(length) == 1 else length
    chosen = sampler.build(min(max(length, default=64), 128 if window is None else window), loaded)
    there = of_template(loaded, template, size, unknown == "mask")[0].length if match or avoid else 0
    options = {
        "samples": samples,
        "window": window,
        "stop": stop,
        "mask_unknown": unknown == "mask",
        "seed": seed,
        "sampler": chosen,
    }
    options |= _evidence(loaded, match, avoid, there)
    fill = functools.partial(infill, loaded, template, length=size, **options)
    written(fill, loaded.tokenizer, model, json, stream, out)


def repair(
    text: Annotated[str, Positional, _arg(metavar="TEXT", help="What was typed.")],
    model: Model = "shakespeare",
    /,
    *,
    rate: Annotated[float, _arg(help="Probability that a token is wrong.")] = 0.1,
    unknown: Unknown = "mask",
    shifts: Annotated[int, _arg(help="How many tokens may be missing, or too many.")] = 0,
    match: Match = None,
    avoid: Avoid = [],  # noqa: B006
    seed: Annotated[int, _arg(help="Without effect: nothing is random here.")] = 0,
    json: Json = False,
) -> None:
    """Correct typing errors.

    energy-dllm repair "To be, or mot to be, that is the qvestion"

    energy-dllm repair "To bee or not o be" --shifts 2
    """
    loaded = load_model(model)
    from ..sampling import repair, typed

    start = time.monotonic()
    evidence = _evidence(loaded, match, avoid, typed(loaded, text, unknown == "mask").ids.size)
    with busy(f"repairing with {model}: compiling first", 5.0):
        fixed = repair(loaded, text, rate=rate, mask_unknown=unknown == "mask", shifts=shifts, **evidence)
    seconds = time.monotonic() - start
    if not json:
        repaired(fixed, loaded.tokenizer)
        edits = ", ".join(f"{e.before!r} to {e.after!r} at {e.position}" for e in fixed.edits)
        note(edits or "nothing changed")
        note(summary(fixed.free_energy.tolist(), fixed.force_evaluations, seconds, fixed.reason))
        return
    edits = [{"kind": edit.kind, **edit._asdict()} for edit in fixed.edits]
    record: dict[str, Any] = {"text": fixed.text, "edits": edits, "seed": seed}
    record |= {"time": fixed.times.tolist(), "free_energy": fixed.free_energy.tolist()}
    record |= {"force_evaluations": fixed.force_evaluations, "seconds": round(seconds, 3)}
    emit({**record, "result": fixed.reason}, model)


def _prompt(prompt: str, file: Path | None) -> str:
    """What stands on the command line, in a file or on standard input, without the line break that ends a file."""
    if file is not None and prompt:
        raise ValueError("`--prompt` and `--prompt-file` are both given; expected one of them.")
    if file is None and prompt != "-":
        return prompt
    name = "`--prompt -`" if file is None else f"`--prompt-file` {file}"
    if file is not None and not file.is_file():
        raise ValueError(f"{name} is not a file; check the spelling and the current folder.")
    if file is None and sys.stdin is None:
        raise ValueError("`--prompt -` is standard input, which is closed; expected a text there, or --prompt-file.")
    try:
        text = (sys.stdin.buffer.read() if file is None else file.read_bytes()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 ({error.reason} at byte {error.start}); convert it.") from None
    return text.replace("\r\n", "\n").removesuffix("\n")


def _evidence(model: Any, match: str | None, avoid: list[str], length: int) -> dict[str, Any]:
    """The evidence of --match and --avoid."""
    if match is None and not avoid:
        return {}
    from ..flow import Matching

    sources = [] if match is None else [Matching(match, model.tokenizer, length=length)]
    sources += [Matching.without(avoid, model.tokenizer, length=length)] if avoid else []
    return {"evidence": sources[0] if len(sources) == 1 else sources[0] + sources[1]}


def _inpaint(model: Any, picture: str, hole: Path | None, caption: str) -> Any:
    """`inpaint` of a picture file, the hole being white in another."""
    from ..data import read_picture
    from ..sampling import inpaint

    read = functools.partial(read_picture, shape=model.tokenizer.shape)
    with called(path="--hole"):
        where = None if hole is None else read(hole) > 127
    with called(path="TEMPLATE"):
        pixels = read(picture, colour=model.tokenizer.channels == 3)
    return functools.partial(inpaint, model, pixels, where, caption=caption)
