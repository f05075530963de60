"""Running ngspice and reading its waveforms."""

import functools
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Float, PyTree

from ._circuit import Circuit


OLDEST = 36
"""The first version of ngspice that is accepted."""


class Waveforms(eqx.Module):
    """What a simulation returns.

    - `times (N,)`: the simulator's own time points, in the model's units; the first is after the first step.
    - `states`: the state at each, in the model's units, leaves with a leading axis `N`.
    - `currents`: by supply, amperes drawn from it at each.
    - `seconds`: wall-clock time of the simulator.
    """

    times: Float[np.ndarray, " N"]
    states: PyTree[np.ndarray]
    currents: dict[str, Float[np.ndarray, " N"]]
    seconds: float = eqx.field(static=True)

    @property
    def final(self) -> PyTree[np.ndarray]:
        """The state at the end."""
        import jax

        return jax.tree.map(lambda leaf: leaf[-1], self.states)


def find_ngspice() -> Path:
    """The simulator: `ENERGY_DLLM_NGSPICE` if that is set, else `ngspice` on the path.

    **Returns:** the program.

    **Raises:** `FileNotFoundError` if there is none, `OSError` if it is too old.

    **Example:**

    ```python
    import shutil, energy_dllm as ed

    assert not shutil.which("ngspice") or ed.circuit.find_ngspice().name
    ```
    """
    named = os.environ.get("ENERGY_DLLM_NGSPICE")
    found = shutil.which(named or "ngspice")
    if found is None:
        where = f"ENERGY_DLLM_NGSPICE={named} is not a program" if named else "ngspice is not on the path"
        raise FileNotFoundError(
            f"{where}; install it with `apt install ngspice` (Debian, Ubuntu), `brew install ngspice` (macOS) or "
            "`conda install -c conda-forge ngspice`, or set ENERGY_DLLM_NGSPICE to the program."
        )
    version = _version(found)
    if version < OLDEST:
        raise OSError(f"{found} is ngspice {version or 'of no known version'}; expected {OLDEST} or newer.")
    return Path(found)


@functools.cache
def _version(program: str) -> int:
    """The major version, 0 if it is unknown."""
    try:
        ran = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"ngspice[- ](\d+)", ran.stdout + ran.stderr)
    return int(found[1]) if found else 0


def simulate(
    circuit: Circuit,
    *,
    t1: float,
    max_step: float = 0.05,
    tolerance: float = 1e-5,
    patience: float = 120.0,
) -> Waveforms:
    """Run a circuit in ngspice, in a folder of its own that is gone afterwards.

    **Arguments:**

    - `circuit`: from `lower` or `Chip.circuit`.
    - `t1`: end, in the model's units of time from the start.
    - `max_step`: largest step, in units of time; the error is of its square.
    - `tolerance`: relative tolerance of the simulator.
    - `patience`: seconds after which the simulator is stopped.

    **Returns:** `Waveforms`.

    **Raises:** `FileNotFoundError` without ngspice, `TimeoutError` when patience ends, `OSError` when it
    fails, with the end of its log.

    **Example:**

    ```python
    import shutil, jax.numpy as jnp, energy_dllm as ed

    circuit = ed.circuit.lower(lambda t, y: -y, jnp.ones(2))
    if shutil.which("ngspice"):
        path = ed.circuit.simulate(circuit, t1=1.0, max_step=0.01)
        assert jnp.allclose(path.final, jnp.exp(-1.0), atol=1e-4)
    ```
    """
    program = find_ngspice()
    deck = circuit.deck(t1=t1, max_step=max_step, tolerance=tolerance)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="energy-dllm-") as folder:
        Path(folder, "circuit.cir").write_text(deck)
        raw = Path(folder, "out.raw")
        # -n: without the settings of the user's own .spiceinit
        command = [str(program), "-n", "-b", "-r", raw.name, "circuit.cir"]
        # numbers with a point whatever the language, and one core
        environment = {**os.environ, "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
        try:
            ran = subprocess.run(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"ngspice did not finish {circuit.elements:,} elements within `patience`={patience:g} s; "
                "allow it more, or a larger `max_step`, or simulate a smaller model."
            ) from None
        log = (ran.stdout + ran.stderr).decode(errors="replace")
        if ran.returncode or not raw.exists():
            raise OSError(f"ngspice failed (exit code {ran.returncode}): {_tail(log)}")
        names, table = read_raw(raw.read_bytes(), log)
    times, wanted = table[:, 0] / circuit.seconds, t1 * (1 - 1e-6)
    if times[-1] < wanted:
        raise OSError(f"ngspice stopped at time {times[-1]:g} of {t1:g}: {_tail(log)}")
    missing = len(circuit.nodes) + len(circuit.supplies) + 1 - len(names)
    if missing or not np.isfinite(table).all():
        raise OSError(f"ngspice left out {missing} signals or wrote numbers that are not finite: {_tail(log)}")
    voltages = table[:, 1 : 1 + len(circuit.nodes)]
    # SPICE counts a current into a source as positive; drawn from it is the other way round
    drawn = -table[:, 1 + len(circuit.nodes) :].T
    currents = {name: amperes for (name, _), amperes in zip(circuit.supplies, drawn, strict=True)}
    return Waveforms(times, circuit.unflatten(voltages), currents, time.monotonic() - began)


def read_raw(data: bytes, log: str = "") -> tuple[list[str], Float[np.ndarray, "N signals"]]:
    """The signals of ngspice's binary raw file, by name, and their values over time `(N, signals)`; the first is the
    time.

    `OSError`, with the end of the `log`, if the file is not complete.
    """
    head, found, body = data.partition(b"Binary:\n")
    text = head.decode(errors="replace")
    counts = [re.search(rf"^No\. {what}:\s*(\d+)", text, re.M) for what in ("Variables", "Points")]
    if not found or None in counts or "complex" in text.partition("Variables:")[0]:
        raise OSError(f"ngspice wrote no waveforms: {_tail(log)}")
    signals, points = (int(count[1]) for count in counts if count is not None)
    if not signals or not points or len(body) < 8 * signals * points:
        raise OSError(f"ngspice wrote {len(body)} bytes of {points} points: {_tail(log)}")
    names = re.findall(r"^\t\d+\t(\S+)\t", text, re.M)
    return names, np.frombuffer(body, "<f8", signals * points).reshape(points, signals)


def _tail(log: str, lines: int = 6) -> str:
    """The end of a log in one line."""
    found = [line.strip() for line in log.splitlines() if line.strip()]
    return " | ".join(found[-lines:])[-800:] or "nothing"
