"""A netlist: elements between named nodes, as SPICE3 text that any simulator of that family reads.

Names of elements are generated, names of nodes escaped: whatever a user calls a thing, the text stays valid. The same
calls give the same text, to the byte.
"""

import functools
import math
import re


GROUND = "0"
"""The node all voltages are measured against."""

_PLAIN = re.compile(r"[a-z](?:[a-z0-9]|_(?!x))*")
# names the simulator gives a meaning of its own
_TAKEN = {"gnd", "time", "temper", "hertz", "all", "alli", "allv"}


@functools.lru_cache(maxsize=1 << 17)
def escape(name: str) -> str:
    """A node name in the letters every simulator reads: lower-case letters, digits and `_`.

    Such names stay as they are; any other character becomes `_x<hexadecimal code>_`, so that different names stay
    different although SPICE ignores case. `ValueError` if the name is empty.
    """
    if not name:
        raise ValueError("`name` is empty; expected the name of a node.")
    if name == GROUND or (_PLAIN.fullmatch(name) and name not in _TAKEN):
        return name
    hidden = lambda c: f"_x{ord(c):x}_"
    plain = lambda c, following: c.isascii() and (c.islower() or c.isdigit() or (c == "_" and following != "x"))
    out = [c if plain(c, name[n + 1 : n + 2]) else hidden(c) for n, c in enumerate(name)]
    if name in _TAKEN or out[0].isdigit() or name[0] == "_":
        out[0] = hidden(name[0])
    return "".join(out)


class Netlist:
    """Elements between nodes, written in the dialect of SPICE3 (ngspice, and with small changes Xyce).

    **Arguments:**

    - `title`: first line of the text; what is not printable ASCII is left out.

    **Example:**

    ```python
    from energy_dllm.circuit._netlist import Netlist

    netlist = Netlist("a leaking capacitor")
    netlist.capacitor("v", "0", 1e-12)
    netlist.resistor("v", "0", 1e5)
    netlist.start("v", 1.0)
    assert netlist.elements == 2 and "c1 v 0 1e-12" in netlist.text()
    ```
    """

    def __init__(self, title: str):
        self.title = _printable(title)
        self._notes: list[str] = []
        self._lines: list[str] = []
        self._models: dict[str, str] = {}
        self._starts: dict[str, float] = {}

    @property
    def elements(self) -> int:
        """Number of elements."""
        return len(self._lines)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes with a starting voltage, by their escaped names."""
        return tuple(self._starts)

    def note(self, words: str) -> None:
        """A comment at the head of the text."""
        self._notes += [_printable(line) for line in words.splitlines()]

    def resistor(self, a: str, b: str, ohms: float) -> str:
        """A resistor; returns its name, as all of these do."""
        if not ohms > 0:
            raise ValueError(f"`ohms` is {ohms} between {a!r} and {b!r}; expected a positive resistance.")
        return self._add("r", a, b, number(ohms))

    def capacitor(self, a: str, b: str, farads: float) -> str:
        """A capacitor."""
        if not farads > 0:
            raise ValueError(f"`farads` is {farads} between {a!r} and {b!r}; expected a positive capacitance.")
        return self._add("c", a, b, number(farads))

    def voltage(self, a: str, b: str, volts: float) -> str:
        """A voltage source, `V(a) - V(b) = volts`."""
        return self._add("v", a, b, number(volts))

    def current(self, a: str, b: str, amperes: float) -> str:
        """A current source that takes from `a` and gives to `b`."""
        return self._add("i", a, b, number(amperes))

    def waveform(self, a: str, b: str, times: list[float], amperes: list[float]) -> str:
        """A current source from `a` to `b`, given point by point: the portable way to noise."""
        points = [f"{number(t)} {number(i)}" for t, i in zip(times, amperes, strict=True)]
        # lines of moderate length; `+` goes on with the one before
        lines = [" ".join(points[n : n + 16]) for n in range(0, len(points), 16)]
        joined = "\n+ ".join(lines)
        return self._add("i", a, b, f"pwl({joined})")

    def follows(self, a: str, b: str, plus: str, minus: str, siemens: float) -> str:
        """A current `siemens * (V(plus) - V(minus))` from `a` to `b`: one weight of a crossbar."""
        return self._add("g", a, b, f"{escape(plus)} {escape(minus)} {number(siemens)}")

    def amplifier(self, a: str, b: str, plus: str, minus: str, gain: float) -> str:
        """A voltage `V(a) - V(b) = gain * (V(plus) - V(minus))`."""
        return self._add("e", a, b, f"{escape(plus)} {escape(minus)} {number(gain)}")

    def push(self, a: str, b: str, expression: str) -> str:
        """A current from `a` to `b` given by an expression of node voltages, `v(name)`."""
        return self._add("b", a, b, f"i={expression}")

    def hold(self, a: str, b: str, expression: str) -> str:
        """A voltage `V(a) - V(b)` given by an expression of node voltages, `v(name)`."""
        return self._add("b", a, b, f"v={expression}")

    def transistor(self, collector: str, base: str, emitter: str, model: str) -> str:
        """A bipolar transistor of a `model` that was described."""
        return self._add("q", collector, base, f"{escape(emitter)} {model}")

    def diode(self, anode: str, cathode: str, model: str) -> str:
        """A diode of a `model` that was described."""
        return self._add("d", anode, cathode, model)

    def model(self, name: str, kind: str, **parameters: float) -> None:
        """Describe a kind of transistor or diode, such as `model("npn1", "npn", bf=150.0)`."""
        given = " ".join(f"{key}={number(value)}" for key, value in parameters.items())
        self._models[name] = f".model {name} {kind}({given})"

    def start(self, node: str, volts: float) -> None:
        """The voltage of a node at the beginning."""
        self._starts[escape(node)] = float(volts)

    def text(self, *commands: str) -> str:
        """The whole deck: title, notes, elements, models, starting voltages, then `commands` and `.end`."""
        notes = [f"* {line}" for line in self._notes]
        starts = [f".ic v({node})={number(volts)}" for node, volts in self._starts.items()]
        return "\n".join(
            [f"* {self.title}", *notes, *self._lines, *self._models.values(), *starts, *commands, ".end", ""]
        )

    def _add(self, kind: str, a: str, b: str, rest: str) -> str:
        name = f"{kind}{len(self._lines) + 1}"
        self._lines.append(f"{name} {escape(a)} {escape(b)} {rest}")
        return name


def number(value: float) -> str:
    """A number as text, exactly: the shortest that is read back as the same float."""
    # float() first: numpy's own scalars would write their type into the netlist
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"a value of the netlist is {value}; expected finite numbers, check the model's parameters.")
    return repr(value)


def _printable(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else " " for c in text).strip()
