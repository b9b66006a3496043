"""Classes of named values, as `dataclasses` makes them, for rooms that every command goes through.

`dataclasses` imports `inspect`, and writes and compiles six functions a class: with some fifty classes that is a third
of what `pipe status` takes. Here a class shares what can be shared, and its `__init__` is compiled when more than a few
objects were made. `dataclasses.replace`, `fields` and `asdict` take these classes for their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

__all__ = ["as_dict", "field", "names_of", "record", "replace"]

_Class = TypeVar("_Class", bound=type)
_Object = TypeVar("_Object")
_Value = TypeVar("_Value")
_FIELDS = "__record_fields__"
_FEW = 8  # so many cost less to fill by a loop than an `__init__` costs to be compiled
_put = object.__setattr__


class _Made:
    """A default that is made anew for each object."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


_NONE = object()  # no default


def field(*, default_factory: Callable[[], _Value]) -> _Value:
    """Return what says that a field's default is made for each object anew."""
    return _Made(default_factory)  # type: ignore[return-value]


@overload
def record(cls: _Class) -> _Class: ...
@overload
def record(*, frozen: bool = True, kw_only: bool = True, order: bool = False) -> Callable[[_Class], _Class]: ...
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(
    cls: _Class | None = None, *, frozen: bool = True, kw_only: bool = True, order: bool = False
) -> _Class | Callable[[_Class], _Class]:
    """Make a class one of values, without a `__dict__`. frozen: its objects can't be changed, and have a hash. kw_only:
    they are made by names alone. order: they can be sorted."""
    if cls is None:
        return lambda each: _made(each, frozen, kw_only, order)
    made: _Class = _made(cls, frozen, kw_only, order)
    return made


def names_of(kind: type) -> tuple[str, ...]:
    """Return the names of a class's fields, in order."""
    return tuple(getattr(kind, _FIELDS))


def as_dict(record: object) -> dict[str, Any]:
    """Return an object's values by name; unlike `dataclasses.asdict`, as they are."""
    return {name: getattr(record, name) for name in names_of(type(record))}


def replace(record: _Object, **changes: Any) -> _Object:
    """Return an object like this one with other values in some fields."""
    for name in getattr(record, _FIELDS):
        if name not in changes:
            changes[name] = getattr(record, name)
    return record.__class__(**changes)


def _made(cls: Any, frozen: bool, kw_only: bool, order: bool) -> Any:
    names = tuple(cls.__annotations__)
    space = dict(cls.__dict__)
    defaults = {name: space.pop(name) for name in names if name in space}
    inherited: Mapping[str, object] = getattr(cls, _FIELDS, {})
    fields = {**inherited, **{name: defaults.get(name, _NONE) for name in names}}
    for left in ("__dict__", "__weakref__"):
        space.pop(left, None)
    space["__slots__"] = tuple(name for name in names if name not in inherited)
    space[_FIELDS] = fields
    space["__dataclass_fields__"] = _Fields()
    if not kw_only:
        space["__match_args__"] = tuple(fields)
    values = attrgetter(*fields)
    space.setdefault("__init__", _first_init(fields, frozen, kw_only))
    space.setdefault("__repr__", _repr)
    if "__eq__" not in space:
        space["__eq__"] = _equal(values)
        space["__hash__"] = (lambda self: hash(values(self))) if frozen else None
    if order:
        space["__lt__"] = lambda self, other: values(self) < values(other)
    if frozen:
        space["__setattr__"] = space["__delattr__"] = _refuse
        space["__getstate__"] = _state
        space["__setstate__"] = _set_state
    new = type(cls)(cls.__name__, cls.__bases__, space)
    new.__qualname__ = cls.__qualname__
    return new


# -- what an object does ------------------------------------------------------------------------------------------


def _first_init(fields: Mapping[str, object], frozen: bool, kw_only: bool) -> Callable[..., None]:
    """Return an `__init__` that writes the real one when it has been called a few times."""
    few = _FEW

    def __init__(self: Any, /, *args: Any, **values: Any) -> None:
        nonlocal few
        few -= 1
        if few >= 0 and not (args and kw_only) and _filled(self, fields, args, values):
            return
        real = _init(fields, frozen, kw_only, hasattr(self, "__post_init__"))
        cls: Any = next((each for each in type(self).__mro__ if each.__dict__.get("__init__") is __init__), None)
        if cls is not None:  # else another thread was first
            cls.__init__ = real
        real(self, *args, **values)

    return __init__


def _filled(made: Any, fields: Mapping[str, object], args: tuple[Any, ...], values: Mapping[str, Any]) -> bool:
    """Set an object's fields one by one. Returns False where there is more to do, or a fault to tell of: the real
    `__init__` does."""
    given = {**dict(zip(fields, args, strict=False)), **values}
    if len(given) != len(args) + len(values) or hasattr(made, "__post_init__"):
        return False
    for name, default in fields.items():
        if name in given:
            value = given.pop(name)
        elif default is _NONE:
            return False
        else:
            value = default.make() if isinstance(default, _Made) else default
        _put(made, name, value)
    return not given


def _init(fields: Mapping[str, object], frozen: bool, kw_only: bool, more: bool) -> Callable[..., None]:
    given, lines = [], []
    space: dict[str, Any] = {"_put": _put, "_none": _NONE}
    for number, (name, default) in enumerate(fields.items()):
        value = name
        if default is _NONE:
            given.append(name)
        elif isinstance(default, _Made):
            space[f"_made{number}"] = default.make
            given.append(f"{name}=_none")
            value = f"_made{number}() if {name} is _none else {name}"
        else:
            space[f"_default{number}"] = default
            given.append(f"{name}=_default{number}")
        lines.append(f" _put(self, '{name}', {value})" if frozen else f" self.{name} = {value}")
    if more:
        lines.append(" self.__post_init__()")
    star = ["*"] if kw_only and given else []
    exec(f"def __init__({', '.join(['self', *star, *given])}):\n" + ("\n".join(lines) or " pass"), space)
    found: Callable[..., None] = space["__init__"]
    return found


def _equal(values: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def __eq__(self: Any, other: Any) -> Any:
        if self is other:
            return True
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in getattr(self, _FIELDS))
    return f"{type(self).__qualname__}({shown})"


def _refuse(self: Any, name: str, *_value: Any) -> None:
    raise AttributeError(f"`{name}` of a {type(self).__name__} can't be changed")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in getattr(self, _FIELDS)]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(getattr(self, _FIELDS), state, strict=True):
        _put(self, name, value)


class _Fields:
    """What `dataclasses` looks for, made when it is asked for."""

    def __get__(self, _object: Any, cls: Any) -> Any:
        import dataclasses

        fields: Mapping[str, object] = getattr(cls, _FIELDS)
        made = [(name, object, _field(default)) for name, default in fields.items()]
        like: Any = dataclasses.make_dataclass(cls.__name__, made, kw_only=True)
        cls.__dataclass_fields__ = like.__dataclass_fields__
        return cls.__dataclass_fields__


def _field(default: object) -> Any:
    import dataclasses

    if default is _NONE:
        return dataclasses.field()
    if isinstance(default, _Made):
        return dataclasses.field(default_factory=default.make)
    return dataclasses.field(default_factory=lambda: default)
