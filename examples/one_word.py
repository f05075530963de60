"""Fill one letter, watch F fall, and read which term of the energy did it.

python examples/one_word.py
"""

import jax.numpy as jnp

import energy_dllm as ed


def main(model: ed.EnergyDLLM | None = None, text: str = "My l_rd, the king") -> dict[str, float]:
    """Relax a passage whose letter `_` is unknown; print and return the change of every term of F in nats."""
    model = ed.load("shakespeare") if model is None else model
    known = jnp.array([c != "_" for c in text])
    ids = model.encode(text.replace("_", " "))
    field = ed.flow.Relaxation(model.energy, ed.flow.Given(ids, known))
    times = jnp.linspace(0.0, model.steps * model.step, 9)[:-1]
    end = model.steps * model.step
    path = ed.solve(
        field,
        model.energy.neutral(len(text)),
        t0=0.0,
        t1=end,
        times=times,
        probes={"terms": ed.probe.energy_terms, "p": lambda t, y, field: field.posterior(t, y)},
    )
    for n, time in enumerate(path.times):
        total = sum(term[n] for term in path.probes["terms"].values())
        read = model.decode(path.probes["p"][n].argmax(-1))
        print(f"t = {float(time):5.2f}   F = {float(total):9.3f} nats   {read!r}")
    change = {name: float(term[-1] - term[0]) for name, term in path.probes["terms"].items()}
    for name, value in sorted(change.items(), key=lambda item: item[1]):
        print(f"{name:>12} {value:+9.3f}")
    print(f"{int(path.force_evaluations)} force evaluations; {path.reason}")
    return change


if __name__ == "__main__":
    main()
