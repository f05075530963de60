"""The package has the structure of DESIGN: layers, rooms, foreign packages, abstract or final, documented names.

Everything is read from the syntax trees; nothing of the package is imported, so a broken room cannot hide
a crooked wall.
"""

import ast
import dataclasses
import graphlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "energy_dllm"

# A higher layer may import a lower one only; rooms that share a layer do not see each other.
LAYERS = (
    ("__init__", "__main__"),
    ("_cli",),
    ("serve",),
    ("probe", "circuit"),
    ("learn",),
    ("sampling", "memory"),
    ("_model",),
    ("flow",),
    ("energy", "data"),
    ("_types", "_checks", "_files"),
)
LEVEL = {room: len(LAYERS) - i for i, rooms in enumerate(LAYERS) for room in rooms}
ROOMS = ("data", "energy", "flow", "sampling", "memory", "learn", "probe", "circuit", "serve")
# Foreign packages that one room alone may know.
HOMES = {"diffrax": "flow", "optax": "learn", "matplotlib": "probe/plot", "tokenizers": "data", "PIL": "data"}
HOMES |= dict.fromkeys(("starlette", "uvicorn", "pydantic"), "serve") | {"huggingface_hub": "learn", "orbax": "learn"}
HOMES |= {"pyarrow": "data"}
# Those that are optional: imported where they are used.
OPTIONAL = {"matplotlib", "tokenizers", "PIL", "huggingface_hub", "orbax", "pyarrow"}
USED = ("plot", "bpe", "image", "serve", "hub", "distributed", "parquet")
"""The extras of what the package imports."""
# All that these may import from outside, the standard library apart (`_cli`: before a command is chosen).
DIETS = {
    "data": {"numpy", "jaxtyping", "tokenizers", "PIL", "pyarrow"},
    "_cli": {"tyro", "rich"},
    "__init__": set[str](),
    "__main__": set[str](),
}
# The page of docs/api where a name of the package itself is described.
PAGES = {"_model": "model", "sampling": "sampling", "memory": "memory", "flow": "flow", "learn": "learn"}
BANNED = {"utils", "util", "core", "config", "common", "helpers", "misc"}
MAX_LINES = 350

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.ClassDef | Function


@dataclasses.dataclass(frozen=True)
class Source:
    """One file of the package, `parts` being its path inside the package without the suffix."""

    parts: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        return "/".join(self.parts) + ".py"

    @property
    def room(self) -> str:
        return self.parts[0]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def sources() -> list[Source]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [Source(f.relative_to(PACKAGE).with_suffix("").parts, f.read_text()) for f in files]


def imports(source: Source) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement, and whether it runs when the file is imported."""

    def visit(node: ast.AST, now: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child, now
            else:
                asleep = isinstance(child, Function | ast.Lambda) or "TYPE_CHECKING" in ast.dump(
                    getattr(child, "test", child) if isinstance(child, ast.If) else ast.Pass()
                )
                yield from visit(child, now and not asleep)

    yield from visit(source.tree, True)


def inside(source: Source, node: ast.ImportFrom) -> list[tuple[str, ...]]:
    """The modules of the package that a relative import reaches, as paths inside the package."""
    base = source.parts[: len(source.parts) - node.level]
    path = base + tuple((node.module or "").split(".") if node.module else ())
    names = [alias.name for alias in node.names]
    return [(*path, name) if name.startswith("_") or not path else path for name in names]


def outside(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The foreign packages that an import names."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return set() if node.level else {(node.module or "").split(".")[0]}


def check_layers(files: list[Source]) -> list[str]:
    """Every arrow that points up or sideways, reaches a private file of another room, or is not relative."""
    faults = []
    for source in files:
        if source.room not in LEVEL:
            faults.append(f"{source.name} lies in no layer; add `{source.room}` to LAYERS or move it")
            continue
        for node, now in imports(source):
            where = f"{source.name}:{node.lineno}"
            if "energy_dllm" in outside(node):
                faults.append(f"{where} imports energy_dllm by name; use a relative import")
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            for target in inside(source, node):
                if target == ("__version__",) or target[0] == source.room:
                    continue
                if target[0] not in LEVEL:
                    faults.append(f"{where} takes `{target[0]}` from the package; take it from its room")
                elif LEVEL[target[0]] >= LEVEL[source.room]:
                    faults.append(f"{where} {source.room} imports {target[0]}, which is not below it")
                elif target[1:]:
                    faults.append(f"{where} reaches the private {'.'.join(target)}; go through {target[0]}")
                elif now and source.room in DIETS and source.room != "data":
                    faults.append(f"{where} imports {target[0]} at once; import it where it is used")
    return faults


def check_foreign(files: list[Source], declared: set[str]) -> list[str]:
    """Every foreign package that is used outside its room, too early, or without having been declared."""
    faults = []
    for source in files:
        for node, now in imports(source):
            where = f"{source.name}:{node.lineno}"
            for package in outside(node) - set(sys.stdlib_module_names) - {"energy_dllm"}:
                if not source.name.startswith(f"{HOMES.get(package, source.room)}/") and package in HOMES:
                    faults.append(f"{where} imports {package}, known to {HOMES[package]} alone")
                if package in OPTIONAL and now:
                    faults.append(f"{where} imports {package}, which is optional, before it is used")
                binds = now or source.room == "data"
                if binds and package not in DIETS.get(source.room, {package}):
                    faults.append(f"{where} {source.room} must not import {package}")
                if package not in declared:
                    faults.append(f"{where} imports {package}, which pyproject.toml does not name")
    return faults


def check_circles(files: list[Source]) -> list[str]:
    """A circle of files that import each other while they are imported, if there is one."""
    there = {source.parts for source in files}
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for source in files:
        graph[source.parts] = set()
        for node, now in imports(source):
            if now and isinstance(node, ast.ImportFrom) and node.level:
                path = (*source.parts[: -node.level], *filter(None, (node.module or "").split(".")))
                reached = {path, *((*path, alias.name) for alias in node.names)}
                graph[source.parts] |= reached & there - {source.parts}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" > ".join("/".join(file) for file in error.args[1])]
    return []


def dotted(node: ast.expr) -> str:
    """The last word of a base class or decorator: `eqx.Module` and `Module[T]` are both `Module`."""
    if isinstance(node, ast.Subscript | ast.Call):
        return dotted(node.value if isinstance(node, ast.Subscript) else node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def check_final(files: list[Source]) -> list[str]:
    """Every class that inherits from one not called `Abstract...`, or overrides a concrete method."""
    found: dict[str, tuple[Source, ast.ClassDef]] = {}
    faults = []
    for source in files:
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef):
                if node.name in found:
                    faults.append(f"{source.name}:{node.lineno} a second class is called {node.name}")
                found[node.name] = source, node

    def methods(node: ast.ClassDef, concrete: bool) -> set[str]:
        return {
            item.name
            for item in node.body
            if isinstance(item, Function)
            and item.name != "__check_init__"  # equinox runs these of all ancestors
            and not (concrete and any("abstract" in dotted(d) for d in item.decorator_list))
        }

    def ancestors(node: ast.ClassDef) -> list[ast.ClassDef]:
        direct = [found[dotted(b)][1] for b in node.bases if dotted(b) in found]
        return direct + [a for d in direct for a in ancestors(d)]

    for source, node in found.values():
        for ancestor in ancestors(node):
            where = f"{source.name}:{node.lineno} {node.name}"
            if not ancestor.name.lstrip("_").startswith("Abstract"):
                faults.append(f"{where} inherits from {ancestor.name}, which is final")
            elif both := methods(ancestor, concrete=True) & methods(node, concrete=False):
                faults.append(f"{where} overrides the concrete {', '.join(sorted(both))} of {ancestor.name}")
    return faults


def public(source: Source) -> list[tuple[str, str]]:
    """The (name, private file) pairs that a room's table of contents offers."""
    return [
        (alias.name, node.module or "")
        for node in source.tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def describes(tree: ast.Module, name: str) -> bool | None:
    """Whether `name`, if it is defined here, carries a docstring (for a value: a string on the next line)."""
    for node, after in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        if isinstance(node, Definition) and node.name == name:
            return bool(ast.get_docstring(node))
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    return None


def shown(page: str, address: str) -> bool:
    """Whether a page renders `address`, alone or with all members of its room."""
    text = (ROOT / "docs/api" / f"{page}.md").read_text()
    directives = dict(re.findall(r"^::: (\S+)\n((?:    .*\n)*)", text, re.M))
    whole = {room for room, options in directives.items() if "members: true\n" in options}
    return address in directives or address.rpartition(".")[0] in whole - {"energy_dllm"}


def parsed(text: str, *parts: str) -> list[Source]:
    """A made-up file, to see a checker find the fault in it."""
    return [Source(parts, text)]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def declared(project: dict) -> set[str]:
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *(each for name in USED for each in extras[name])]
    names = {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in named}
    return {{"pillow": "PIL", "orbax_checkpoint": "orbax"}.get(name, name) for name in names}


def test_rooms_exist():
    names = {source.name for source in sources()}
    assert {"__init__.py", "_types.py", *(f"{room}/__init__.py" for room in ROOMS)} <= names


def test_layers():
    assert check_layers(sources()) == []


@pytest.mark.parametrize(
    ("room", "text", "fault"),
    [
        ("energy", "from ..flow import solve", "energy imports flow, which is not below it"),
        ("energy", "def f():\n    from .. import data", "energy imports data, which is not below it"),
        ("probe", "from ..circuit import Netlist", "probe imports circuit, which is not below it"),
        ("flow", "from ..energy._network import Network", "reaches the private energy._network"),
        ("flow", "from ..energy import _network", "reaches the private energy._network"),
        ("flow", "from .. import generate", "takes `generate` from the package"),
        ("flow", "import energy_dllm.energy", "use a relative import"),
        ("flow", "from energy_dllm.energy import Network", "use a relative import"),
        ("attic", "", "lies in no layer"),
    ],
)
def test_layers_would_be_seen(room: str, text: str, fault: str):
    (found,) = check_layers(parsed(text, room, "_made_up"))
    assert fault in found


def test_layers_allow_the_arrows_that_point_down():
    below = "from .. import energy\nfrom ..energy import Network\nfrom .._types import Key"
    beside = "from ._field import Field\nfrom . import _field"
    assert check_layers(parsed(f"{below}\n{beside}", "flow", "_made_up")) == []
    late = "def main():\n    from .learn import fit\n    from . import flow"
    assert check_layers(parsed(late, "_cli")) == []
    assert "import it where it is used" in check_layers(parsed("from .learn import fit", "_cli"))[0]


def test_no_file_imports_itself_in_a_circle():
    assert check_circles(sources()) == []
    made_up = [Source(("flow", "_a"), "from ._b import b"), Source(("flow", "_b"), "def f(): from . import _a")]
    assert check_circles(made_up) == []
    circle = [made_up[0], Source(("flow", "_b"), "from . import _a")]
    (found,) = check_circles(circle)
    assert "flow/_a > flow/_b" in f"{found} > flow/_b"


def test_foreign_packages(declared: set[str]):
    assert check_foreign(sources(), declared) == []


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("energy", "import diffrax as dfx"),
        ("flow", "from optax import adam"),
        ("learn", "def f():\n    import matplotlib.pyplot as plt"),
        ("probe", "def f():\n    import matplotlib.pyplot as plt"),
        ("data", "def f():\n    import jax"),
        ("flow", "import torch"),
    ],
)
def test_foreign_packages_would_be_seen(room: str, text: str, declared: set[str]):
    assert check_foreign(parsed(text, room, "_made_up"), declared)
    assert check_foreign(parsed("import numpy, json", room, "_made_up"), declared) == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("energy_dllm", {"jax", "numpy", "equinox", *(f"energy_dllm.{room}" for room in ROOMS)}),
        ("energy_dllm.data", {"jax", "equinox", "energy_dllm.energy"}),
    ],
)
def test_imports_are_light(module: str, heavy: set[str]):
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_modules_are_abstract_or_final():
    assert check_final(sources()) == []


def test_modules_that_are_neither_would_be_seen():
    base = "class AbstractA(eqx.Module):\n    @abc.abstractmethod\n    def f(self): ...\n"
    base += "    def g(self): return 1\n"
    final = base + "class B(AbstractA):\n    def f(self): return 2\n"
    assert check_final(parsed(final, "energy", "_made_up")) == []
    assert "B, which is final" in check_final(parsed(final + "class C(B): pass\n", "energy", "_made_up"))[0]
    override = base + "class B(AbstractA[int]):\n    def g(self): return 2\n"
    assert "overrides the concrete g" in check_final(parsed(override, "energy", "_made_up"))[0]


def test_files_are_short_and_named_for_what_they_hold():
    for source in sources():
        lines = len(source.text.splitlines())
        assert lines <= MAX_LINES, f"{source.name} has {lines} lines; {MAX_LINES} is the limit, split it"
        assert not BANNED & {part.lstrip("_") for part in source.parts}, f"{source.name} is no name for what it holds"
        # Rooms are public, the files in them private.
        assert source.parts[-1].startswith("_"), f"{source.name} must start with `_`"


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_are_documented(room: str):
    files = {source.parts: source for source in sources() if source.room == room}
    contents = files[room, "__init__"]
    for node in contents.tree.body:
        if isinstance(node, ast.ImportFrom):
            assert all(a.asname == a.name for a in node.names), f"{room}: write `from ._x import Y as Y`"
    for name, _ in public(contents):
        found = [d for source in files.values() if (d := describes(source.tree, name)) is not None]
        assert found and all(found), f"{room}.{name} has no docstring"
        assert shown(room, f"energy_dllm.{room}.{name}"), f"docs/api/{room}.md does not show {name}"


def test_table_of_contents_agrees_with_itself():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            typed |= {alias.name: f".{node.module or ''}" for alias in node.names}
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert values["_ROOMS"] == ROOMS
    assert values["_HOMES"] == {name: home for name, home in typed.items() if home != "."}
    assert set(values["__all__"]) == {*typed, "__version__"}
    for name, home in values["_HOMES"].items():
        page = PAGES[home.lstrip(".")]
        assert any(shown(page, f"{at}.{name}") for at in ("energy_dllm", f"energy_dllm{home}")), name


def test_dir_lists_what_is_public():
    import energy_dllm

    assert {name for name in dir(energy_dllm) if not name.startswith("_")} == {*energy_dllm.__all__} - {"__version__"}


def test_version_is_stated_once(project: dict):
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    stated = [source.name for source in sources() if project["version"] in source.text]
    assert stated == [], f"{stated} repeat the version; read importlib.metadata.version('energy-dllm')"
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_fault_of_break_laws_still_has_its_place():
    """A fault whose text is no longer there would be a law that is no longer tried."""
    tree = ast.parse((ROOT / "benchmarks" / "break_laws.py").read_text())
    lists = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FAULTS"
    ]
    (faults,) = map(ast.literal_eval, lists)
    gone = [law for law, file, old, *_ in faults if (PACKAGE / file).read_text().count(old) != 1]
    assert len(faults) > 20 and not gone


def test_recipes_name_what_the_package_needs(project: dict):
    """The conda recipe has its dependencies and version, the Dockerfile an extra and files that there are."""
    recipe = (ROOT / "conda" / "recipe.yaml").read_text()
    run = re.findall(r"^    - ([\w-]+) >=(.+)$", recipe.partition("  run:")[2], re.M)
    asked = {f"{name}>={version}" for name, version in run}
    assert asked == {*project["dependencies"], f"python{project['requires-python']}"}
    assert f"version: {project['version']}" in recipe
    image = (ROOT / "Dockerfile").read_text()
    assert all((ROOT / name).exists() for line in re.findall(r"^COPY (.*) \S+$", image, re.M) for name in line.split())
    assert set(re.findall(r"'\.\[(\w+)\]'", image)) <= set(project["optional-dependencies"])
    assert json.loads(re.findall(r"^CMD (\[.*\])$", image, re.M)[0])[0] == "serve"
