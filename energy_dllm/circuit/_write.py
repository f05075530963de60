"""Signals of a graph as elements of a netlist."""

from typing import Any

import numpy as np

from ._graph import FUNCTIONS, Graph, Node
from ._netlist import GROUND, Netlist, escape, number


# a source's expression is differentiated by the simulator, symbol by symbol: short ones are faster
_LONGEST = 160


def write(graph: Graph, nodes: tuple[str, ...], speeds: list, start: np.ndarray, t0: float, title: str) -> Netlist:
    """Elements for every signal that the speeds of the state depend on, in the order in which signals were made."""
    return _Writer(graph, nodes, speeds, graph.values(start, t0), t0, Netlist(title)).netlist


class _Writer:
    def __init__(self, graph: Graph, nodes: tuple[str, ...], speeds: list, values: list[float], t0: float, netlist):
        self.netlist, self.values, self.t0 = netlist, values, t0
        self.text: dict[int, str] = {}  # how an expression refers to a signal
        self.place: dict[int, str] = {}  # the node of a signal that has one
        self.readers = _readers(graph, speeds)
        for n, name in enumerate(nodes):
            signal = graph.state(n)
            self.place[signal.index], self.text[signal.index] = name, f"v({escape(name)})"
            netlist.start(name, values[signal.index])
        for node in graph.nodes:
            if node.index in self.readers and node.op != "state":
                self.write(node)
        for name, speed in zip(nodes, speeds, strict=True):
            netlist.capacitor(name, GROUND, 1.0)
            if isinstance(speed, Node):
                self.send(speed, 1.0, name)
            elif speed:
                netlist.current(GROUND, name, speed)

    def write(self, node: Node) -> None:
        """Give a signal its place, or the text others will read it by, or leave it to its one reader."""
        readers = self.readers[node.index]
        if not np.isfinite(self.values[node.index]):
            raise ValueError(f"`field` is not finite at `state`: {node.op} gives {self.values[node.index]}.")
        if node.op == "time":
            self.text[node.index] = f"(time+{self.read(self.t0)})" if self.t0 else "time"
        elif node.op in ("sum", "wire"):
            if len(readers) == 1 and (readers[0] is None or (node.op == "wire" and readers[0].op in ("sum", "wire"))):
                return  # its currents flow straight into that reader's wire
            if node.op == "sum" and self.is_short(node):
                terms = zip(node.weights, node.args, strict=True)
                parts = [self.scaled(weight, arg) for weight, arg in terms]
                parts += [self.read(node.constant)] if node.constant else []
                self.text[node.index] = f"({'+'.join(parts)})"
                return
            self.netlist.resistor(self.own(node), GROUND, 1.0)
            self.gather(node, 1.0, self.place[node.index])
        else:
            written = FUNCTIONS[node.op].text.format(*map(self.read, node.args))
            self.text[node.index] = f"({written})" if node.op in ("mul", "div") else written
            if len(readers) > 1 or len(written) > _LONGEST:
                self.netlist.hold(self.own(node), GROUND, written)

    def is_short(self, node: Node) -> bool:
        """Whether a sum is better written out where it is read than given a wire."""
        if len(node.args) > 2 or any(arg.index not in self.text for arg in node.args):
            return False
        alone = len(self.readers[node.index]) == 1
        return sum(len(self.text[arg.index]) for arg in node.args) < _LONGEST and (
            alone or all(arg.index in self.place for arg in node.args)
        )

    def own(self, node: Node) -> str:
        """A node of its own for a signal."""
        name = self.place[node.index] = f"n{len(self.place) + 1}"
        self.text[node.index] = f"v({name})"
        self.netlist.start(name, self.values[node.index])
        return name

    def read(self, entry: Any) -> str:
        """An entry as an expression."""
        if isinstance(entry, Node):
            return self.text[entry.index]
        return number(entry) if entry >= 0 else f"({number(entry)})"

    def scaled(self, weight: float, node: Node) -> str:
        return self.read(node) if weight == 1 else f"{self.read(weight)}*{self.read(node)}"

    def send(self, node: Node, weight: float, wire: str) -> None:
        """A current `weight * signal` into a wire."""
        if node.index in self.place:
            self.netlist.follows(GROUND, wire, self.place[node.index], GROUND, weight)
        elif node.index in self.text:
            self.netlist.push(GROUND, wire, self.scaled(weight, node))
        else:
            self.gather(node, weight, wire)

    def gather(self, node: Node, weight: float, wire: str) -> None:
        """Send the currents of a sum into a wire: weights one by one, short expressions together."""
        if node.op == "wire":
            node = node.args[0]
        batch, size = [], 0
        for arg, w in zip(node.args, node.weights, strict=True):
            if arg.index in self.place or arg.index not in self.text:
                self.send(arg, weight * w, wire)
                continue
            batch.append(self.scaled(weight * w, arg))
            size += len(batch[-1])
            if size > _LONGEST:
                self.netlist.push(GROUND, wire, "+".join(batch))
                batch, size = [], 0
        if batch:
            self.netlist.push(GROUND, wire, "+".join(batch))
        if node.constant:
            self.netlist.current(GROUND, wire, weight * node.constant)


def _readers(graph: Graph, speeds: list) -> dict[int, list[Node | None]]:
    """Readers of each signal (`None`: a component of the state); unused signals are left out."""
    readers: dict[int, list[Node | None]] = {}
    for entry in speeds:
        if isinstance(entry, Node):
            readers.setdefault(entry.index, []).append(None)
    for node in reversed(graph.nodes):
        if node.index in readers:
            # a wire represents the sum inside it
            for arg in node.args[0].args if node.op == "wire" else node.args:
                if isinstance(arg, Node):
                    readers.setdefault(arg.index, []).append(node)
    return readers
