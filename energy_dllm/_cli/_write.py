"""`energy-dllm generate | infill | repair`: options to samplers and evidence, and their results."""

import dataclasses
import functools
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from ._load import load_model
from ._out import ready
from ._show import emit, note, repaired, summary, written


_arg = tyro.conf.arg
_best = functools.partial(_arg, help_behavior_hint="(default: what was measured to write best)")
Model = Annotated[str, Positional, _arg(metavar="MODEL", help="A file, or the name of a shipped model.")]
Samples = Annotated[int, _arg(help="How many passages, drawn independently.")]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How text is sampled; what is not given is what was measured to write best."""

    temperature: Annotated[
        float | None,
        _best(
            metavar="FLOAT", help="Below 1 nearer to the likeliest texts, above 1 further; 0: search for the likeliest."
        ),
    ] = None
    budget: Annotated[
        int | None, _best(metavar="INT", help="Force evaluations for a passage, divided as was measured to be best.")
    ] = None
    steps: Annotated[int | None, _best(metavar="INT", help="Steps from noise to text: more are better and slower.")] = (
        None
    )
    until: Annotated[
        float | None,
        _best(metavar="FLOAT", help="Share of the noise schedule after which the tokens are read out, 1 for all."),
    ] = None
    front: Annotated[
        float | None,
        _best(
            metavar="FLOAT",
            help="With --field joint or rest: noise falls from left to right, with a front this many tokens wide.",
        ),
    ] = None
    churn: Annotated[
        float | None,
        _best(metavar="FLOAT", help="With --field joint or rest: noise of the reverse diffusion, 0 for none."),
    ] = None
    field: Annotated[
        Literal["descent", "joint", "rest"] | None,
        _best(
            metavar="{descent,joint,rest}",
            help="The noise level is part of the state; follows a clock; hidden states relax at every step.",
        ),
    ] = None
    redraw: Annotated[
        float | None,
        _best(metavar="FLOAT", help="Share of the tokens, the least certain, that are drawn anew at the end."),
    ] = None
    unmask: Annotated[bool, _arg(help="Draw all tokens in rounds, in place of the descent.")] = False
    rounds: Annotated[int | None, _best(metavar="INT", help="Rounds in which tokens are drawn.")] = None
    order: Annotated[
        Literal["random", "certain", "left"] | None,
        _best(metavar="{random,certain,left}", help="Which drawn tokens become known first."),
    ] = None
    remask_rounds: Annotated[
        int | None, _best(metavar="INT", help="Rounds after that, each draws the least likely tokens anew.")
    ] = None

    def build(self, length: int, model: Any = None) -> Any:
        """The sampler of the library for windows of `length` tokens of a `model`, by default one of text."""
        from ..flow import AutonomousDescent, JointFlow, ProbabilityFlow
        from ..sampling import UNMASKING, BeamSearch, at_random, default_sampler, left_to_right, most_certain

        orders = {None: None, "random": at_random, "certain": most_certain, "left": left_to_right}
        falling = {"steps": self.steps, "until": self.until, "front": self.front, "churn": self.churn}
        falling["redraw"] = self.redraw
        drawing = {"rounds": self.rounds, "order": orders[self.order], "remask_rounds": self.remask_rounds}
        cold = self.temperature == 0 and not any(value is not None for value in (*falling.values(), self.field))
        if cold and not self.unmask and not any(value is not None for value in drawing.values()):
            return BeamSearch() if self.budget is None else BeamSearch(width=max(1, round(self.budget / length)))
        drawing["temperature"] = self.temperature
        if self.unmask or cold:
            for name, value in {"budget": self.budget, **falling, "field": self.field}.items():
                if value is not None:
                    raise ValueError(
                        f"`--{name}` cannot be used with `--unmask`; it has no noise, so leave out one of them."
                    )
            # one token a round, as tokens drawn together are each the likeliest alone; few sizes of the program
            one = {"rounds": -(-max(1, length) // 32) * 32} if cold and self.rounds is None else {}
            return _with(UNMASKING, drawing | one)
        flows = {"joint": JointFlow, "rest": ProbabilityFlow}
        if self.field in flows:
            falling |= {"field": flows[self.field], "temperature": self.temperature}
        elif self.temperature is not None:
            falling["field"] = functools.partial(AutonomousDescent, temperature=self.temperature)
        best: Any = default_sampler(model, self.budget)
        return _with(best, falling | {"finish": best.finish and _with(best.finish, drawing)})


def _with(sampler: Any, changes: dict[str, Any]) -> Any:
    """The sampler with other settings, where they are not None."""
    settings = {field.name: getattr(sampler, field.name) for field in dataclasses.fields(sampler)}
    return type(sampler)(**settings | {name: value for name, value in changes.items() if value is not None})


Match = Annotated[
    str | None, _arg(metavar="REGEX", help="The whole passage matches this: .*word.* for a word anywhere.")
]
Avoid = Annotated[list[str], _arg(metavar="WORD", help="Words that must not occur, not even inside of another.")]
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
        Path | None, _arg(metavar="FILE", help="Read the prompt from a UTF-8 file, without its last line break.")
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
            aliases=["-o"], metavar="FILE", help="Write it to this file too: text, with --json JSON, pictures as .png."
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

    energy-dllm generate digits --prompt seven -o seven.png
    """
    if out is not None:
        ready("--out", out, "written.txt")
    prompt = _prompt(prompt, prompt_file)
    size = 64 if length is None else length
    chosen = sampler.build(min(size, 128 if window is None else window))
    loaded = load_model(model)
    if places := loaded.tokenizer.places:
        size, chosen = places, sampler.build(places, loaded)
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
        Path | None, _arg(metavar="FILE", help="Of a picture: another one, white where it is to be filled.")
    ] = None,
    prompt: Annotated[str, _arg(help="The caption of a picture; found if it is not given.")] = "",
    out: Annotated[
        Path | None, _arg(aliases=["-o"], metavar="FILE", help="Write it to this file too: text, or pictures as .png.")
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
        ready("--out", out, "filled.txt")
    loaded = load_model(model)
    if loaded.tokenizer.places:
        of_text = {"match": match, "avoid": avoid, "length": length, "window": window, "stop": stop}
        if wrong := [name for name, value in of_text.items() if value]:
            raise ValueError(f"`--{wrong[0]}` is of text, and {model} makes pictures; leave it out.")
        fill = _inpaint(loaded, template, hole, prompt)
        fill = functools.partial(fill, samples=samples, sampler=sampler.build(1, loaded), seed=seed)
        return written(fill, loaded.tokenizer, model, json, stream, out)
    if hole is not None or prompt:
        raise ValueError(f"`--hole` and `--prompt` are of pictures, and {model} writes text; leave them out.")
    from ..sampling import infill, of_template

    size = None if not length else length[0] if len(length) == 1 else length
    chosen = sampler.build(min(max(length, default=64), 128 if window is None else window))
    there = of_template(loaded, template, size, unknown == "mask").length if match or avoid else 0
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
    where = None if hole is None else read(hole) > 127
    return functools.partial(
        inpaint, model, read(picture, colour=model.tokenizer.channels == 3), where, caption=caption
    )
