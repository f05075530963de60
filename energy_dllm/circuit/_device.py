"""A chip's conductances as devices: resistors, capacitors, transistors, diodes, and drivers between them."""

import math

import numpy as np

from ._chip import Chip
from ._circuit import Circuit
from ._crossbar import Competition, TanhPair
from ._netlist import GROUND, Netlist


_SATURATION = 1e-16  # amperes; it cancels where transistors are compared
_SERIES, _LOAD = 1e3, 1e4  # ohms: of a driver's pole, around a rectifier
_LOOP = 1e5  # gain of a rectifier's amplifier
_CROSSPOINT = 1e-15  # farads


def draw(chip: Chip, state: np.ndarray, *, metered: bool) -> Circuit:
    """The netlist of a chip from a state."""
    drawing = _Drawing(chip, metered)
    drawing.rails()
    drawing.neurons(state)
    drawing.columns()
    if isinstance(chip.hidden, Competition):
        drawing.competition()
    else:
        drawing.rectification()
    drawing.rows()
    supplies = drawing.settle()
    technology = chip.technology
    return Circuit(
        drawing.netlist,
        tuple(f"v{i}" for i in range(len(state))),
        state,
        volts=technology.volts,
        seconds=technology.seconds,
        farads=technology.capacitance,
        celsius=technology.temperature - 273.15,
        supplies=supplies,
        assumptions=_assumptions(chip, drawing.quiescent) if metered else (),
    )


class _Drawing:
    def __init__(self, chip: Chip, metered: bool):
        self.chip, self.metered, self.technology = chip, metered, chip.technology
        self.array = {name: np.asarray(value, float) for name, value in vars(chip).items() if hasattr(value, "shape")}
        self.netlist = Netlist(f"a chip of {len(chip.bias)} neurons and {len(chip.pad)} cells")
        self.meters: list[str] = []
        self.quiescent = 0.0
        self.volts: dict[str, float] = {}  # where wires start

    def rails(self) -> None:
        t = self.technology
        parameters = {"is": _SATURATION, "bf": t.gain or 1e12, "br": 1.0}
        parameters |= {"vaf": t.early} if t.early else {}
        parameters |= {"re": t.emitter} if t.emitter else {}
        parameters |= {"cje": t.junction, "cjc": t.junction} if t.junction else {}
        parameters |= {"tf": t.transit} if t.transit else {}
        self.netlist.model("cell", "npn", **parameters)
        self.netlist.model("valve", "d", **{"is": _SATURATION})
        self.supplies = [
            (self.netlist.voltage("vdd", GROUND, t.rail), t.rail),
            (self.netlist.voltage("vss", GROUND, -t.rail), -t.rail),
        ]
        self.start("vdd", t.rail)
        self.start("vss", -t.rail)

    def neurons(self, state: np.ndarray) -> None:
        """Capacitors, or sources where clamped, and the lines that carry `g(v)` and its mirror image."""
        t, units = self.technology, self.technology.volts
        outputs = np.asarray(self.chip.visible(self.chip.capacity * 0 + state), float)
        for i, value in enumerate(state):
            self.start(f"v{i}", units * value)
            if self.chip.clamped[i]:
                self.netlist.voltage(f"v{i}", GROUND, units * value)
            else:
                self.netlist.capacitor(f"v{i}", GROUND, t.capacitance * self.array["capacity"][i])
            plus, minus, gain = f"v{i}", GROUND, 1.0
            if isinstance(self.chip.visible, TanhPair):
                slope = self.chip.visible.beta
                self.driver(f"t{i}", f"v{i}", GROUND, 2 * t.thermal * slope / units, 2 * t.thermal * slope * value, 1)
                self.tail(f"x{i}", [(f"l{i}", f"t{i}"), (f"r{i}", GROUND)])
                plus, minus, gain = f"r{i}", f"l{i}", units / (t.load * t.collected)
            self.pair("g", i, plus, minus, gain, units * outputs[i], self.array["forward"][:, i])

    def columns(self) -> None:
        """The wires on which a cell's input is the mean of what its conductances lead to."""
        units = self.technology.volts
        self.reference("n", self.array["threshold"], units)
        for m, row in enumerate(self.array["forward"]):
            wires = [(self.line("g", i, w), abs(w)) for i, w in enumerate(row) if w]
            c = self.array["threshold"][m]
            wires += [(self.line("n", "", c), abs(c))] if c else []
            wires += [(GROUND, self.array["pad"][m])] if self.array["pad"][m] else []
            self.join(f"u{m}", wires)
            if self.technology.parasitic:
                self.netlist.capacitor(f"u{m}", GROUND, self.technology.parasitic)
            # the offset of a driver is between its input and the wire
            self.shift(f"u{m}", f"a{m}", self.array["offset"][m])

    def competition(self) -> None:
        """Transistors that share a current, group by group, and lines of their collector currents."""
        t, chip = self.technology, self.chip
        hidden = chip.hidden
        assert isinstance(hidden, Competition)
        gain = hidden.beta * t.thermal * float(chip.reach) / t.volts
        for m in range(len(hidden.groups)):
            self.driver(f"d{m}", f"a{m}", GROUND, gain, gain * self.volts[f"a{m}"], 1)
            self.shift(f"d{m}", f"b{m}", self.array["base"][m])
        for group in range(len(hidden.sizes)):
            self.tail(f"e{group}", [(f"c{m}", f"b{m}") for m in np.flatnonzero(hidden.groups == group)])
        scale = t.volts * float(chip.drive)
        for m, weights in enumerate(self.array["backward"]):
            answer = scale * (t.rail - self.volts[f"c{m}"]) / (t.load * t.collected)
            self.pair("p", m, "vdd", f"c{m}", scale / (t.load * t.collected), answer, weights)

    def rectification(self) -> None:
        """Two diodes in the loop of an amplifier for each cell, and lines of what passes."""
        scale = float(self.chip.reach) * float(self.chip.drive)
        for m, weights in enumerate(self.array["backward"]):
            value = scale * self.volts[f"a{m}"]
            self.driver(f"b{m}", f"a{m}", GROUND, scale, value, 1)
            # an inverting amplifier with a diode each way in its loop, so that its output never runs off to a rail
            self.netlist.amplifier(f"o{m}", GROUND, GROUND, f"s{m}", _LOOP)
            self.netlist.resistor(f"b{m}", f"s{m}", _LOAD)
            self.netlist.resistor(f"s{m}", f"h{m}", _LOAD)
            self.netlist.diode(f"h{m}", f"o{m}", "valve")
            self.netlist.diode(f"o{m}", f"s{m}", "valve")
            passed = max(value, 0.0)
            across = self.technology.thermal * math.log1p(abs(value) / _LOAD / _SATURATION)
            self.start(f"o{m}", -passed - across if passed else across)
            self.start(f"s{m}", -self.volts[f"o{m}"] / _LOOP)
            self.start(f"h{m}", -passed)
            self.pair("p", m, GROUND, f"h{m}", 1.0, passed, weights)

    def rows(self) -> None:
        """The conductances that charge a neuron."""
        self.reference("q", self.array["bias"], self.technology.volts * float(self.chip.drive))
        for i, column in enumerate(self.array["backward"].T):
            if self.chip.clamped[i]:
                continue
            wires = [(self.line("p", m, w), abs(w)) for m, w in enumerate(column) if w]
            a = self.array["bias"][i]
            wires += [(self.line("q", "", a), abs(a))] if a else []
            wires += [(GROUND, self.array["leak"][i])] if self.array["leak"][i] else []
            for wire, share in wires:
                self.netlist.resistor(f"v{i}", wire, self.technology.resistance / share)

    def settle(self) -> tuple[tuple[str, float], ...]:
        """Bills for the supplies, and where every wire starts."""
        for n in range(0, len(self.meters), 8):
            some = self.meters[n : n + 8]
            self.netlist.push("vdd", GROUND, "+".join(f"max(i({name}),0)" for name in some))
            self.netlist.push(GROUND, "vss", "+".join(f"max(-i({name}),0)" for name in some))
        if self.metered and self.quiescent:
            self.netlist.current("vdd", "vss", self.quiescent)
        for node, volts in self.volts.items():
            self.netlist.start(node, volts)
        return tuple(self.supplies)

    def start(self, node: str, volts: float) -> None:
        self.volts[node] = float(volts)

    def line(self, kind: str, number: int | str, weight: float) -> str:
        """The line or its inverted copy, by the sign of a weight."""
        return f"{kind}{'p' if weight > 0 else 'm'}{number}"

    def pair(self, kind: str, n: int | str, plus: str, minus: str, gain: float, value: float, weights: np.ndarray):
        """A line and its inverted copy, if they are used."""
        for sign in (1, -1):
            readers = int(np.sum(weights * sign > 0))
            if readers:
                self.driver(self.line(kind, n, sign), plus, minus, sign * gain, sign * value, readers)

    def reference(self, kind: str, weights: np.ndarray, volts: float) -> None:
        self.pair(kind, "", "vdd", GROUND, volts / self.technology.rail, volts, weights)

    def driver(self, out: str, plus: str, minus: str, gain: float, value: float, readers: int) -> None:
        """A voltage that follows `gain * (V(plus) - V(minus))`, with one pole where drivers have a bandwidth."""
        t = self.technology
        source = f"{out}s" if self.metered else out
        if t.bandwidth:
            self.netlist.amplifier(f"{out}a", GROUND, plus, minus, gain)
            self.netlist.resistor(f"{out}a", f"{out}b", _SERIES)
            self.netlist.capacitor(f"{out}b", GROUND, 1 / (2 * math.pi * t.bandwidth * _SERIES))
            self.netlist.amplifier(source, GROUND, f"{out}b", GROUND, 1.0)
            self.start(f"{out}a", value)
            self.start(f"{out}b", value)
            product = t.bandwidth * max(1.0, abs(gain))
            self.quiescent += 4 * math.pi * product * (t.parasitic + _CROSSPOINT * readers) / t.efficiency
        else:
            self.netlist.amplifier(source, GROUND, plus, minus, gain)
        if self.metered:
            self.meters.append(self.netlist.voltage(source, out, 0.0))
            self.start(source, value)
        self.start(out, value)

    def shift(self, near: str, far: str, volts: float) -> None:
        """`far` lies `volts` above `near`."""
        self.netlist.voltage(far, near, volts)
        self.start(far, self.volts[near] + volts)

    def join(self, wire: str, wires: list[tuple[str, float]]) -> None:
        """Conductances that meet on a floating wire."""
        for other, share in wires:
            self.netlist.resistor(wire, other, self.technology.resistance / share)
        total = sum(share for _, share in wires)
        self.start(wire, sum(share * (self.volts[o] if o != GROUND else 0.0) for o, share in wires) / total)

    def tail(self, emitter: str, branches: list[tuple[str, str]]) -> None:
        """Transistors `(collector, base)` with one emitter and one current, each with a load to the upper rail."""
        t = self.technology
        raised = np.array([self.volts.get(base, 0.0) for _, base in branches]) / t.thermal
        top = raised.max()
        share = np.exp(raised - top) / np.exp(raised - top).sum()
        peak = t.thermal * (top + math.log(np.exp(raised - top).sum()))
        self.start(emitter, peak - t.thermal * math.log(t.tail / _SATURATION))
        self.netlist.current(emitter, "vss", t.tail)
        for (collector, base), part in zip(branches, share, strict=True):
            self.netlist.transistor(collector, base, emitter, "cell")
            self.netlist.resistor("vdd", collector, t.load / t.tail)
            self.start(collector, t.rail - t.load * t.collected * float(part))


def _assumptions(chip: Chip, quiescent: float) -> tuple[str, ...]:
    t = chip.technology
    delay = f"{t.bandwidth:.3g} Hz" if t.bandwidth else "no delay and no current of their own"
    return (
        f"rails at +-{t.rail:g} V; tails of {t.tail:.3g} A; capacitors of {t.capacitance:.3g} F; unit of time "
        f"{t.seconds:.3g} s; one unit of the state {t.volts:g} V",
        f"drivers with {delay}, together drawing {quiescent:.3g} A at rest: 4 pi GBW C_L / (gm/I), gm/I = "
        f"{t.efficiency:g} /V, C_L = {t.parasitic:.3g} F + 1 fF a crosspoint; what they deliver comes from one rail",
        "not counted: converters between digital and analog, programming the conductances, making tail currents and "
        "references, sources of clamped neurons, resistance and leakage of wires",
    )
