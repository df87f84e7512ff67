"""Modules under the names that they had before: programs that import them go on, and are told the new name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NOW: Mapping[str, str] = {
    "terrasieve.archive.acquisition_time": "terrasieve.archive.scenes.acquisition_time",
    "terrasieve.archive.byte_limits": "terrasieve.archive.readers.byte_limits",
    "terrasieve.archive.hdf5_reader": "terrasieve.archive.readers.hdf5",
    "terrasieve.archive.labels": "terrasieve.archive.patches.labels",
    "terrasieve.archive.packing": "terrasieve.archive.packed.packing",
    "terrasieve.archive.suspicions": "terrasieve.archive.quality",
    "terrasieve.archive.suspicions.offset": "terrasieve.archive.quality.offset",
    "terrasieve.archive.wrapper": "terrasieve.archive.derived.wrapper",
    "terrasieve.archive.zarr_codecs": "terrasieve.archive.readers.zarr_codecs",
    "terrasieve.curate": "terrasieve.curating",
    "terrasieve.local_paths": "terrasieve.files.local_paths",
    "terrasieve.methods.ranks": "terrasieve.processes.ranks",
    "terrasieve.object_store": "terrasieve.files.object_store",
    "terrasieve.outputs": "terrasieve.files.outputs",
    "terrasieve.parallel": "terrasieve.processes.parallel",
    "terrasieve.pretrain": "terrasieve.pretraining",
    "terrasieve.probes.logistic": "terrasieve.probes.linear.logistic",
    "terrasieve.probes.protocol": "terrasieve.probes.probe",
    "terrasieve.ranks": "terrasieve.processes.ranks",
    "terrasieve.report": "terrasieve.reporting",
    "terrasieve.report.card": "terrasieve.reporting.card",
    "terrasieve.report.page": "terrasieve.reporting.page",
    "terrasieve.world": "terrasieve.processes.world",
    "terrasieve.writing": "terrasieve.files.writing",
}
"""Name of a module now, by the name that it had."""


class FormerNames:
    """Finds a module by the name that it had, where nothing has that name today, and loads it.

    It has the methods of ``importlib.abc.MetaPathFinder`` and ``Loader`` without deriving from them: importing that
    module takes as long as everything else that ``import terrasieve`` does.

    Args:
        offered: Gives what the library itself offers under a name.
    """

    def __init__(self, offered: Callable[[str], Any]) -> None:
        self.offered = offered

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        if fullname not in NOW:
            return None
        is_package = any(name.startswith(f"{fullname}.") for name in NOW)
        return ModuleSpec(fullname, self, is_package=is_package)  # type: ignore[arg-type]  # no Loader by its class

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module of today itself, not a copy: its classes stay the same ones."""
        warnings.warn(f"{spec.name} is called {NOW[spec.name]} now; import that.", DeprecationWarning, stacklevel=2)
        return _Alias(spec.name, import_module(NOW[spec.name]), self.offered)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing left to run."""


class _Alias(ModuleType):
    def __init__(self, name: str, module: ModuleType, offered: Callable[[str], Any]) -> None:
        super().__init__(name, module.__doc__)
        self._module = module
        self._offered = offered

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """What the library offers under the name that the module had, such as ``terrasieve.pretrain(...)``.

        Whoever imports a module by its former name has it under that name from then on.
        """
        return self._offered(self.__name__.rpartition(".")[2])(*arguments, **settings)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            # Its path above all: what lies below would be loaded a second time.
            raise AttributeError(name)
        return getattr(self._module, name)


def install(offered: Callable[[str], Any]) -> None:
    """Let former names be found after all others.

    Args:
        offered: Gives what the library itself offers under a name.
    """
    sys.meta_path.append(FormerNames(offered))
