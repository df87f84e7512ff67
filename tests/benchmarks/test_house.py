from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from textwrap import dedent

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import house_source as rules
from house_way import Recorder


def tree(**files: str) -> list[rules.Module]:
    """Modules of a package: ``a__b`` is the file ``a/b.py``."""
    return [rules.Module(PurePosixPath(f"{name.replace('__', '/')}.py"), dedent(text)) for name, text in files.items()]


def found(places: list[rules.Place]) -> list[str]:
    return [f"{place.path}:{place.line}" for place in places]


def test_a_stem_and_a_class_come_twice_but_not_in_layouts_or_sections() -> None:
    text = "class Grid: ...\n"
    modules = tree(
        views__plan=text,
        probes__plan=text,
        archive__layouts__plan=text,
        reporting__sections__plan=text,
        report__page=text,
    )
    stems, classes = rules.repeated_stems(modules), rules.repeated_classes(modules)
    assert {name: found(places) for name, places in stems.items()} == {"plan": ["views/plan.py:1", "probes/plan.py:1"]}
    assert list(classes) == ["Grid"]
    assert found(classes["Grid"]) == ["views/plan.py:1", "probes/plan.py:1", "report/page.py:1"]


def test_every_package_may_have_an_init() -> None:
    modules = [rules.Module(PurePosixPath(f"{room}/__init__.py"), "") for room in ("views", "probes")]
    assert rules.repeated_stems(modules) == {}
    assert not rules.flat_folders(modules)


def test_helpers_used_once() -> None:
    modules = tree(
        a="""
        def public(x):
            return _once(x) + _twice(x) + _twice(x) + _long(x)

        def _once(x):
            '''Whose docstring
            does not count.'''
            return x

        def _twice(x):
            return x

        def _long(x):
            x += 1
            x += 1
            x += 1
            return x

        def _never(x):
            return x
        """,
        b="""
        def other(x):
            return a._never(x), _once(x), _once(x)

        def _once(x):
            return x
        """,
    )
    # _once of b is another function; _never of a is used in b.
    assert found(rules.one_use_helpers(modules)) == ["a.py:5", "a.py:19"]


def test_a_hook_and_a_property_are_no_helpers() -> None:
    modules = tree(
        base="""
        class Base:
            def read(self):
                return self._fetch() + self._size + self._helper()

            def _fetch(self):
                raise NotImplementedError

            @property
            def _size(self):
                return 1

            def _helper(self):
                return 2
        """,
        sub="""
        class Sub(Base[int]):
            def _fetch(self):
                return 1
        """,
    )
    assert [place.what for place in rules.one_use_helpers(modules)] == ["_helper"]


def test_methods_of_one_name_are_counted_in_their_own_class() -> None:
    one = "def run(self):\n        return self._step()\n    def _step(self):\n        return 1\n"
    modules = tree(a=f"class A:\n    {one}\nclass B:\n    {one}        self._step()\n")
    assert found(rules.one_use_helpers(modules)) == ["a.py:4"]
    alone = tree(
        a="class A:\n    def _step(self):\n        return 1\nclass B:\n    def run(self, a):\n        a._step()\n"
    )
    assert found(rules.one_use_helpers(alone)) == ["a.py:2"]


@pytest.mark.parametrize(
    ("call", "is_found"),
    [
        ("os.replace(partial, path)", True),
        ("os.rename(partial, path)", True),
        ("shutil.move(partial, path)", True),
        ("move(partial, path)", True),
        ("partial.replace(path)", True),
        ("self._partial.rename(path)", True),
        ("Path(partial).replace(path)", True),
        ("text.replace('a', 'b')", False),
        ("day.replace(tzinfo=UTC)", False),
        ("dataclasses.replace(plan, seed=1)", False),
        ("replace(plan, seed=1)", False),
        ("frame.rename(columns={'a': 'b'})", False),
        ("dataset.rename({'a': 'b'})", False),
        ("series.rename('a')", False),
        ("self.sampler.replace(pool)", False),
    ],
)
def test_what_gives_a_file_its_final_name(call: str, is_found: bool) -> None:
    sampler = "class PoolSampler:\n    def replace(self, pool): ...\n"
    module = f"from shutil import move\nfrom dataclasses import replace\n{call}\n"
    assert bool(rules.replaces(tree(training__pool=sampler, training__state=module))) == is_found


def test_only_the_module_of_write_whole_may_replace() -> None:
    modules = tree(files__writing="os.replace(a, b)", report__writing="os.replace(a, b)")
    assert found(rules.replaces(modules)) == ["report/writing.py:1"]


def test_getattr_on_archives() -> None:
    modules = tree(
        a="""
        def f(archive, samples: Archive, layout: ArchiveLayout, spec):
            getattr(archive, "rejected", ())
            hasattr(samples, "spec")
            getattr(layout, "name")
            getattr(spec, "root")

        class SubsetArchive:
            def g(self):
                getattr(self._inner, "spec")
                getattr(self, "spec")

        class Other:
            def g(self):
                getattr(self, "spec")
        """
    )
    assert found(rules.archive_getattr(modules)) == ["a.py:3", "a.py:4", "a.py:10", "a.py:11"]


@pytest.mark.parametrize(
    ("text", "is_fragment"),
    [
        ("What to open.", True),
        ("Of everything random.", True),
        ("Where it is drawn from.", True),
        ("The archive.", True),
        ("Shape ``(n,)``.", False),
        ("From 1.", False),
        ("Of the cells, in m.", False),
        ("Name of the sensor.", False),
        ("What the progress bar says while files are read.", False),
    ],
)
def test_fragments(text: str, is_fragment: bool) -> None:
    assert rules.is_fragment(f"spec: {text}") == is_fragment


def test_descriptions_are_read_from_their_sections() -> None:
    modules = tree(
        a="""
        def f(x, y, *more):
            '''Do.

            Args:
                x: What to do, and a second line of it
                    with a colon: it goes on.
                y, z: Both.
                *more: The rest.

            Returns:
                nothing: Of use.
            '''

        class C:
            '''Hold.

            Attributes:
                x (int): Held.
            '''
        """
    )
    assert [place.what for place in rules.argument_docs(modules)] == [
        "*more: The rest.",
        "x: What to do, and a second line of it with a colon: it goes on.",
        "y, z: Both.",
        "x (int): Held.",
    ]


def test_the_recorder_notes_functions_but_no_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "observed_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "late.py").write_text("def at_import(): ...\nat_import()\ndef ran(): ...\n")
    (package / "early.py").write_text(
        dedent(
            """
            from concurrent.futures import ThreadPoolExecutor

            def work():
                from observed_package import late
                class Body: ...
                late.ran()
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(threaded).result()

            def threaded(): ...
            def idle(): ...
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    from observed_package.early import work

    recorder = Recorder(package)
    with recorder.listening():
        work()
    assert [(one.path, one.name) for one in recorder.ran()] == [
        ("early.py", "work"),
        ("early.py", "threaded"),
        ("late.py", "ran"),
    ]
