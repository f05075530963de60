"""A model as a description and arrays, and back: nothing of a file runs, and nothing that does not fit is built."""

import dataclasses
import importlib
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import jaxtyped

from .._checks import on_device
from ._file import PACKAGE


_MOVED = {
    "energy.Chain": "energy.NGram",
    "energy.Lines": "energy.PairHMMMixture",
    "energy.MarkovVocabulary": "energy.HMMVocabulary",
    "energy.Product": "energy.ProductOfExperts",
    "_memory.TextMemory": "memory.TextMemory",
    "learn.Recurrent": "learn.MaskedDiffusion",
}
"""Addresses of classes in files that earlier versions wrote, and those of today."""
_MOVED |= {
    f"energy.{name}Memory": f"memory.{name}Memory"
    for name in (
        *("Exponential", "Gaussian", "Hopfield", "Kernel", "LogSumExp", "Polynomial", "PositiveFeature", "Sequence"),
        *("Simplicial", "Token", "TrigonometricFeature"),
    )
}
_MOVED |= {
    f"energy._deep.{kind}Layer": f"energy._layers.{kind}Layer" for kind in ("Attention", "Convolution", "Memory")
}
_FIELDS = {
    "energy.HMMVocabulary": {"start": "initial", "moves": "transition", "tokens": "emission"},
    "energy.PairHMMMixture": {"chain": "background"},
}
"""Fields that were renamed, by the address of their class today."""


def describe(model: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """What `save` writes of a model: JSON of its structure, and its arrays by the places they have in it."""
    arrays: dict[str, np.ndarray] = {}
    return _describe(model, "model", arrays), arrays


def _describe(value: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """JSON for one object; its arrays go to `arrays` under the place they were found."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (jax.Array, np.ndarray)) and (value.dtype == bool or jnp.issubdtype(value.dtype, jnp.number)):
        arrays[place] = np.asarray(value)
        return {"array": place, "shape": list(value.shape), "dtype": str(value.dtype)}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        items = [_describe(v, f"{place}.{i}", arrays) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {k: _describe(v, f"{place}.{k}", arrays) for k, v in value.items()}}
    # a class that inherits its fields and adds state of its own would come back without it
    if "__dataclass_fields__" in vars(type(value)):
        values = {field.name: getattr(value, field.name) for field in _fields(type(value))}
        _checked(type(value), values, place)
        fields = {name: _describe(v, f"{place}.{name}", arrays) for name, v in values.items()}
        return {"class": _address(type(value)), "fields": fields}
    raise ValueError(
        f"`model` holds a {type(value).__name__} at {place}, which cannot be saved; expected arrays, numbers, strings, "
        "lists, tuples, dicts by string, or a dataclass of such: decorate a class of your own with "
        "`@dataclasses.dataclass(frozen=True)`, or derive it from `eqx.Module`."
    )


def _fields(cls: type) -> list[dataclasses.Field]:
    """Those that make up an object: a module is filled, another dataclass is called with what its constructor takes."""
    return [field for field in dataclasses.fields(cls) if field.init or issubclass(cls, eqx.Module)]


def _ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] == PACKAGE


def _address(cls: type) -> str:
    if not _ours(cls):
        return f"{cls.__module__}:{cls.__qualname__}"
    module = cls.__module__.removeprefix(f"{PACKAGE}.")
    room = module.split(".")[0]
    if getattr(importlib.import_module(f"{PACKAGE}.{room}"), cls.__name__, None) is cls:
        return f"{room}.{cls.__name__}"
    return f"{module}.{cls.__name__}"


def _class(address: str, classes: Sequence[type]) -> type:
    if ":" in address:  # never imported: one that was passed, by its path, or else by its name
        name = address.partition(":")[2]
        found = [cls for cls in classes if _address(cls) == address]
        found = found or [cls for cls in classes if cls.__qualname__ == name]
        if len(found) != 1 or not dataclasses.is_dataclass(found[0]):
            short = name.split(".")[-1]
            raise ValueError(f"it needs the class {address}; import it and call `ed.load(path, classes=[{short}])`.")
        return found[0]
    module, _, name = address.rpartition(".")
    if not module or not all(part.isidentifier() for part in address.split(".")):
        raise ValueError(f"the file names the class {address!r}, which is not one of {PACKAGE}.")
    try:
        cls = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the file needs {address!r}, which this version of {PACKAGE} does not have.") from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and _ours(cls)):
        raise ValueError(f"the file names {address!r}, which is not a class of {PACKAGE}.")
    return cls


def build(spec: Any, place: str, arrays: dict[str, np.ndarray], classes: Sequence[type]) -> Any:
    """The object that `_describe` has described; its arrays are taken out of `arrays`."""
    part = lambda spec, name: build(spec, f"{place}.{name}", arrays, classes)
    match spec:
        case None | bool() | int() | float() | str():
            return spec
        case {"array": name, "shape": shape, "dtype": dtype}:
            if name != place or name not in arrays:
                raise ValueError(f"the array {place} is missing or stands twice; the file was altered.")
            array = arrays.pop(name)
            if list(array.shape) != shape or str(array.dtype) != dtype:
                raise ValueError(
                    f"the array {name} is {_brief(array)}; the file's own description says {dtype}{shape}; the file "
                    "was altered."
                )
            if not finite(array):
                raise ValueError(f"the array {name} has numbers that are not finite; take another copy.")
            return on_device(array)
        case {"tuple": [*items]}:
            return tuple(part(item, n) for n, item in enumerate(items))
        case {"list": [*items]}:
            return [part(item, n) for n, item in enumerate(items)]
        case {"dict": dict() as items}:
            return {name: part(item, name) for name, item in items.items()}
        case {"class": str() as address, "fields": dict() as fields}:
            address = _MOVED.get(address, address)
            cls = _class(address, classes)
            today: dict[str, str] = _FIELDS.get(address, {})
            values: dict[str, Any] = {today.get(name) or name: part(item, name) for name, item in fields.items()}
            # what earlier versions did not have has its default
            values = {f.name: f.default for f in _fields(cls) if f.default is not dataclasses.MISSING} | values
            names = [field.name for field in _fields(cls)]
            if set(names) != set(values):
                raise ValueError(
                    f"the file's {address} has fields {sorted(values)}; this version's has {sorted(names)}."
                )
            return _made(cls, values, place)
    raise ValueError(f"{place} is described as {reprlib.repr(spec)}; the file was altered.")


def _made(cls: type, values: dict[str, Any], place: str) -> Any:
    """An object of a class with these fields."""
    values = _checked(cls, values, place)
    if not issubclass(cls, eqx.Module):
        return cls(**values)
    # Fields are filled, constructors do not run: what was saved is what comes back.
    module = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(module, name, value)
    for base in cls.__mro__:
        if "__check_init__" in vars(base):
            vars(base)["__check_init__"](module)
    return module


def _checked(cls: type, values: dict[str, Any], place: str) -> dict[str, Any]:
    """Fields of a class of this package, if they match its annotations; arrays of the annotated library."""
    if not _ours(cls):
        return values
    hints = typing.get_type_hints(cls)
    with jaxtyped("context"):  # the letters of the shapes stand for the same sizes throughout the class
        for name, value in values.items():
            hint, other = hints[name], None
            if isinstance(value, (jax.Array, np.ndarray)):
                other = np.asarray(value) if isinstance(value, jax.Array) else on_device(value)
            if _fits(value, hint):
                continue
            if other is None or not _fits(other, hint):
                expected = getattr(hint, "__name__", hint)
                raise ValueError(f"{place}.{name} is {_brief(value)}; {cls.__name__} takes {expected}.")
            values = {**values, name: other}
    return values


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value matches an annotation, as far as annotations of fields go."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin in (typing.Annotated, typing.ClassVar, typing.Final):
        return _fits(value, parts[0])
    if origin is typing.Literal:
        return value in parts
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin is Callable or hint is Callable:
        return callable(value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, origin) and all(_fits(item, parts[1]) for item in value.values())
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, origin) and all(_fits(item, parts[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool) and value == value
    if not isinstance(hint, type):
        return True
    try:
        return isinstance(value, hint)
    except Exception:  # a size that is computed from one that no field states
        return True


def _brief(value: Any) -> str:
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"{value.dtype}{list(value.shape)}"
    return reprlib.repr(value) if isinstance(value, (bool, int, float, str)) else type(value).__name__


def finite(array: np.ndarray) -> bool:
    return not jnp.issubdtype(array.dtype, jnp.inexact) or bool(np.isfinite(array).all())


def trace(model: Any) -> None:
    """Parts that do not fit each other are found by tracing how a passage would be read; nothing is computed."""
    if hasattr(model, "log_posterior"):
        # a data set has passages of its own length
        items = getattr(getattr(model, "energy", None), "items", None)
        places = getattr(getattr(model, "tokenizer", None), "places", 0)  # those of a layout
        length = places or (8 if items is None else items.shape[1])
        ids, known = (jax.ShapeDtypeStruct((length,), kind) for kind in (jnp.zeros((), int).dtype, bool))
        eqx.filter_eval_shape(model.log_posterior, ids, known)
