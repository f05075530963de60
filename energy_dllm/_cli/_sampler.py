"""The options of `energy-dllm generate | infill` that choose a sampler."""

import dataclasses
import functools
from typing import Annotated, Any, Literal

import tyro


_arg = tyro.conf.arg


def _best(metavar: str, default: str, help: str) -> Any:
    return _arg(metavar=metavar, help=help, help_behavior_hint=f"(default: {default})")


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How text is sampled; by default the descent, 25 force evaluations, temperature 1."""

    temperature: Annotated[
        float | None,
        _best(
            "FLOAT", "1, with --unmask 0.8", "Below 1 likelier text, above 1 less likely; 0: search for the likeliest."
        ),
    ] = None
    budget: Annotated[
        int | None,
        _best(
            "INT", "25, of a picture 48, of its hole 64", "Force evaluations of a passage, steps and draws together."
        ),
    ] = None
    steps: Annotated[
        int | None,
        _best(
            "INT", "two thirds of --budget, of a picture all", "Steps from noise to text: more are better and slower."
        ),
    ] = None
    until: Annotated[
        float | None,
        _best(
            "FLOAT",
            "0.4, of a picture 0.87, of its hole 1",
            "Share of the noise schedule after which the tokens are read out, 1 for all.",
        ),
    ] = None
    front: Annotated[
        float | None,
        _best(
            "FLOAT",
            "none",
            "With --field joint or rest: noise falls from left to right, with a front this many tokens wide.",
        ),
    ] = None
    churn: Annotated[
        float | None,
        _best("FLOAT", "0", "With --field joint or rest: noise of the reverse diffusion, 0 for none."),
    ] = None
    field: Annotated[
        Literal["descent", "joint", "rest"] | None,
        _best(
            "{descent,joint,rest}",
            "descent",
            "The vector field. descent: noise level and hidden states are part of the state. joint: the noise level "
            "follows a schedule, hidden states move along. rest: it does, hidden states are relaxed at every step.",
        ),
    ] = None
    redraw: Annotated[
        float | None,
        _best(
            "FLOAT", "0.25, of a picture 0", "Share of the tokens, the least certain, that are drawn anew at the end."
        ),
    ] = None
    block: Annotated[
        int | None,
        _best(
            "INT",
            "the whole passage, or as the model was trained",
            "Write in blocks of so many tokens, each given all before it: 1 writes from left to right. --budget is "
            "then the number of rounds in which the tokens of a block are drawn.",
        ),
    ] = None
    unmask: Annotated[bool, _arg(help="Draw all tokens in rounds, in place of the descent.")] = False
    rounds: Annotated[
        int | None,
        _best("INT", "a third of --budget, with --unmask 32", "Rounds in which tokens are drawn."),
    ] = None
    order: Annotated[
        Literal["random", "certain", "left"] | None,
        _best("{random,certain,left}", "certain, with --unmask left", "Which drawn tokens become known first."),
    ] = None
    remask_rounds: Annotated[
        int | None,
        _best("INT", "0, with --unmask 16", "Rounds after that, each of which draws the least likely tokens anew."),
    ] = None

    def build(self, length: int, model: Any = None, *, filling: bool = False) -> Any:
        """The sampler of the library for windows of `length` tokens of a `model`, by default one of text."""
        from ..flow import AutonomousDescent, JointFlow, ProbabilityFlow
        from ..sampling import BeamSearch, Blocks, Unmasking, at_random, default_sampler, left_to_right, most_certain

        orders = {None: None, "random": at_random, "certain": most_certain, "left": left_to_right}
        falling = {"steps": self.steps, "until": self.until, "front": self.front, "churn": self.churn}
        falling["redraw"] = self.redraw
        drawing = {"rounds": self.rounds, "order": orders[self.order], "remask_rounds": self.remask_rounds}
        cold = (
            self.temperature == 0
            and self.block is None
            and not any(value is not None for value in (*falling.values(), self.field))
        )
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
            # what writes best of as many evaluations (docs/quality.md)
            best = Unmasking(rounds=32, steps=1, step=1.0, temperature=0.8, order=left_to_right, remask_rounds=16)
            return _with(best, drawing | one)
        if self.block is not None and self.block < 1:
            raise ValueError(f"`--block` is {self.block}; expected tokens of a block, such as 4.")
        if self.block is not None and model is not None and not any(model.blocks):
            raise ValueError(
                f"`--block` is {self.block} and the model reads a passage as a whole; expected one that was trained "
                "with `energy-dllm train --blocks 0 1`, or leave it out."
            )
        best: Any = default_sampler(model, self.budget, filling=filling)
        if self.block is not None:
            best = Blocks(size=self.block)
            drawing["rounds"] = drawing["rounds"] or self.budget
        if isinstance(best, Blocks):
            for name, value in {**falling, "field": self.field}.items():
                if value is not None:
                    raise ValueError(f"`--{name}` is of a descent, and the model writes in blocks: leave it out.")
            return Blocks(_with(best.each, drawing), size=best.size)
        flows = {"joint": JointFlow, "rest": ProbabilityFlow}
        if self.field in flows:
            falling |= {"field": flows[self.field], "temperature": self.temperature}
        elif self.temperature is not None:
            own = getattr(best.field, "keywords", {})
            falling["field"] = functools.partial(AutonomousDescent, **own | {"temperature": self.temperature})
        return _with(best, falling | {"finish": best.finish and _with(best.finish, drawing)})


def _with(sampler: Any, changes: dict[str, Any]) -> Any:
    """The sampler with other settings, where they are not None."""
    settings = {field.name: getattr(sampler, field.name) for field in dataclasses.fields(sampler)}
    return type(sampler)(**settings | {name: value for name, value in changes.items() if value is not None})
