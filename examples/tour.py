"""From a loaded model to the reason for one wrong letter, with figures.

python examples/tour.py tour

1. `probe.score` finds the letter that the others would not have there, and what they would have instead.
2. `probe.attribution` splits the log-odds of the right letter against the wrong one, part by part.
3. `probe.Counterfactual` checks: one part after the other is removed, and the fall of the log-odds is measured.
4. `repair` mends the text.
"""

import sys
from pathlib import Path

import jax.numpy as jnp

import energy_dllm as ed


TEXT = "My lord, the kinq is come."


def main(model: ed.EnergyDLLM | None = None, text: str = TEXT, folder: str = "tour") -> tuple[int, dict[str, float]]:
    """Explain the most surprising letter of a text; return its place and what every part contributes there, in nats."""
    model = ed.load("shakespeare") if model is None else model
    Path(folder).mkdir(parents=True, exist_ok=True)

    score = ed.probe.score(model, text)
    place = int(jnp.argmax(score.nll))
    wrong, right = int(score.ids[place]), int(score.likelier[place])
    print(f"{text!r}: F = {float(score.free_energy):.1f} nats")
    letters = model.tokenizer.symbols
    print(f"letter {place}, {letters[wrong]!r}, surprises by {float(score.nll[place]):.2f} nats", end="; ")
    print(f"the others would have {letters[right]!r}")

    # the place is hidden, and the rest asked why
    given = ed.flow.Given(score.ids, jnp.arange(len(score.ids)) != place)
    field, y = ed.flow.Relaxation(model.energy, given), model.settle(given)
    # the most surprising letter may be the likeliest one all the same: then it is held against the second
    pair = {"token": right, "reference": None if right == wrong else wrong}
    why = ed.probe.attribution(0.0, y, field, **pair)
    missed = ed.probe.Counterfactual(model.energy, given, y, place, **pair)
    ours, theirs = (letters[int(ids[place])] for ids in (why.token, why.reference))
    print(f"log-odds of {ours!r} against {theirs!r}: {float(why.log_odds[place]):+.2f} nats")
    parts = {name: float(part[place]) for name, part in why.parts.items()}
    for name, value in sorted(parts.items(), key=lambda item: -abs(item[1])):
        check = f", without it {-float(missed.terms[name]):+.2f}" if name in missed.terms else ""
        print(f"{name:>12} {value:+7.2f}{check}")
    dearest = jnp.argsort(-missed.neighbours)[:3]
    # at the place itself: what a memory recalls there, with all that stands around it
    names = ["itself" if i == place else f"{letters[int(score.ids[i])]!r} at {i}" for i in map(int, dearest)]
    print(
        "missed most:",
        ", ".join(f"{n} {float(missed.neighbours[i]):+.2f}" for n, i in zip(names, dearest, strict=True)),
    )

    mended = ed.repair(model, text)
    print(f"repaired: {mended.text!r}")
    figures = {"attribution.png": why.plot(place, model.tokenizer, ids=score.ids)}
    for name, heads in ed.probe.attention_pattern(jnp.zeros(()), y, field).items():
        figures[f"{name}.png"] = ed.probe.plot_attention(heads, model.tokenizer, score.ids)
    for name, figure in figures.items():
        figure.savefig(Path(folder) / name, dpi=120)
        print(Path(folder) / name)
    return place, parts


if __name__ == "__main__":
    main(folder=sys.argv[1] if len(sys.argv) > 1 else "tour")
