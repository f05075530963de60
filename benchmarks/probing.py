"""What looking costs: a solve with the standard probes beside one without.

    python benchmarks/probing.py shakespeare

One passage relaxes from neutral to ten times the default time, by the default solver of `solve` and by Euler steps of
the default size; with the probes it is also read at `--records` moments. Alternating runs after compilation; the median
of the ratios of neighbouring runs.
"""

import argparse
import json
import statistics
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

import energy_dllm as ed


STANDARD = {
    "free_energy": ed.probe.free_energy,
    "energy_terms": ed.probe.energy_terms,
    "posterior_entropy": ed.probe.posterior_entropy,
    "confidence": ed.probe.confidence,
    "tokens": ed.probe.tokens,
    "dissipation": ed.probe.dissipation,
    "distance_to_rest": ed.probe.distance_to_rest,
}


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="shakespeare")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--records", type=int, default=24)
    parser.add_argument("--runs", type=int, default=21)
    options = parser.parse_args()
    model = ed.load(options.model)
    ids = jax.random.randint(jax.random.key(0), (options.length,), 0, model.size)
    field = ed.flow.Relaxation(model.energy, ed.flow.Given(ids, jnp.arange(options.length) % 2 == 0))
    end = 10 * model.steps * model.step
    times = jnp.linspace(0.0, end, options.records)[:-1]

    y = model.energy.neutral(options.length)
    looks = {"nothing": {}, "standard": STANDARD, "and attribution": STANDARD | {"attribution": ed.probe.attribution}}
    record = {"records": options.records}
    for solver, settings in {"default": {}, "Euler": {"solver": diffrax.Euler(), "step": model.step}}.items():

        @eqx.filter_jit
        def path(field, y, probes, settings=settings):
            return ed.solve(field, y, t0=0.0, t1=end, times=times, probes=probes, **settings)

        seconds = {name: [] for name in looks}
        for _ in range(options.runs + 1):
            for name, probes in looks.items():
                start = time.perf_counter()
                made = jax.block_until_ready(path(field, y, probes))
                seconds[name].append(time.perf_counter() - start)
        seconds = {name: runs[1:] for name, runs in seconds.items()}  # the first one compiles
        pairs = {name: zip(runs, seconds["nothing"], strict=True) for name, runs in seconds.items()}
        record[solver] = {
            "force evaluations": int(made.force_evaluations),
            "seconds": {name: round(statistics.median(runs), 4) for name, runs in seconds.items()},
            "ratio": {name: round(statistics.median(a / b for a, b in both), 3) for name, both in pairs.items()},
        }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
