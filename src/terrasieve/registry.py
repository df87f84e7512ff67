"""What goes by a name: classes of ours, found in our packages, and those of other distributions, by entry points.

A user writes ``layout: eurosat`` or ``method: {name: byol}``; which class that is, a registry knows. Another
distribution adds a class by an entry point whose name is the one that users write::

    [project.entry-points."terrasieve.layouts"]
    fields = "fieldwork.layout:FieldsSpec"
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property, reduce
from importlib import import_module, resources
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from operator import or_
from types import ModuleType
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter
from rich.markup import escape

from terrasieve.console import console

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """The classes of one kind by their names: ours first, in the order of their modules, then those of plug-ins.

    Modules are imported when the registry is first looked into. A plug-in that cannot be used is named in a warning
    and left out, so that a command that does not need it runs.

    Args:
        kind: What messages call one of the classes, such as ``layout``.
        base: The class that all of them derive from.
        places: Dotted names of the modules that define ours. Of a package every module is looked through that has no
            underscore in front; registered are the concrete subclasses of ``base`` that have none either.
        group: Group of the entry points that name other distributions' classes.
        name_of: Gives the name by which users choose a class.
    """

    def __init__(
        self, kind: str, base: type[Any], places: Sequence[str], group: str, name_of: Callable[[type[T]], str]
    ) -> None:
        self.kind = kind
        self.base = base
        self.group = group
        self._places = places
        self._name_of = name_of

    def __getitem__(self, name: str) -> type[T]:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @cached_property
    def ours(self) -> Mapping[str, type[T]]:
        """Those that come with terrasieve."""
        found = [one for place in self._places for module in _modules(place) for one in self._defined_in(module)]
        named = {self._name_of(one): one for one in found}
        assert len(named) == len(found), f"two of {found} share a name"
        return named

    @cached_property
    def _all(self) -> Mapping[str, type[T]]:
        registered = dict(self.ours)
        owners = dict.fromkeys(registered, "terrasieve")
        for point in _plugins(self.group):
            if (owner := owners.get(point.name)) is not None:
                _warn(self.kind, point, f"{owner} registers that name already; rename it, or uninstall one")
            elif (loaded := self._load(point)) is not None:
                registered[point.name], owners[point.name] = loaded, _distribution(point)
        return registered

    def _defined_in(self, module: ModuleType) -> list[type[T]]:
        return [
            one
            for name, one in vars(module).items()
            if not name.startswith("_") and self._is_one(one) and one.__module__ == module.__name__
        ]

    def _is_one(self, found: Any) -> bool:
        return isinstance(found, type) and issubclass(found, self.base) and not inspect.isabstract(found)

    def _load(self, point: EntryPoint) -> type[T] | None:
        try:
            found: type[T] = point.load()
            refused = self._refused(found, point)
        except Exception as error:  # A plug-in may fail in any way, and is not to take the program with it.
            refused = f"{type(error).__name__}: {error}; update or uninstall {_distribution(point)}"
        if refused:
            _warn(self.kind, point, refused)
        return None if refused else found

    def _refused(self, found: Any, point: EntryPoint) -> str | None:
        if not self._is_one(found):
            whole = f"{self.base.__module__}.{self.base.__qualname__}"
            return f"{point.value} is no complete subclass of {whole}; make it one"
        if self._name_of(found) != point.name:
            return f"{point.value} calls itself {self._name_of(found)!r}; give the entry point that name"
        return None


def variant_of(registry: Registry[Any]) -> BeforeValidator:
    """What lets a field of a specification hold any of the specifications in a registry, which ``name`` tells apart.

    It validates as a union of them all does, but looks into the registry only when the first value comes. To be
    written out with the keys of its own class, the field is ``Annotated[SerializeAsAny[Base], variant_of(REGISTRY)]``.
    """

    @cache
    def adapter() -> TypeAdapter[Any]:
        union: Any = reduce(or_, registry.values())
        kinds: Any = Annotated[union, Field(discriminator="name")]
        return TypeAdapter(kinds)

    return BeforeValidator(lambda value: adapter().validate_python(value))


@cache
def plugin_folders(kind: str, group: str) -> tuple[Traversable, ...]:
    """Packages of files, such as recipes, that other distributions name by entry points; what cannot be used is told.

    Args:
        kind: What messages call such a package, such as ``recipes``.
        group: Group of the entry points, whose values are dotted names of packages.
    """
    found = []
    for point in _plugins(group):
        try:
            found.append(resources.files(point.value))
        except Exception as error:  # As above: importing a plug-in may fail in any way.
            _warn(kind, point, f"{type(error).__name__}: {error}; update or uninstall {_distribution(point)}")
    return tuple(found)


def _plugins(group: str) -> list[EntryPoint]:
    return sorted(entry_points(group=group), key=lambda point: (point.name, _distribution(point)))


def _warn(kind: str, point: EntryPoint, reason: str) -> None:
    said = f"{kind} {point.name!r} of {_distribution(point)} is left out: {' '.join(reason.split())}."
    console.print(f"[yellow]Warning:[/] {escape(said)}", highlight=False, soft_wrap=True)


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"


def _modules(place: str) -> Iterator[ModuleType]:
    module = import_module(place)
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not found.name.startswith("_"):
            yield import_module(f"{place}.{found.name}")
