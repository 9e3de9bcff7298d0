"""Starts a module of this project from any folder: `python -P sweeps/launch.py analysis.report DIR`.

`python -m` and Ray search the current folder first. A user's `analysis.py` or `random.py` there would run instead of
ours or of the standard library's. Standard library only: other files load this one by its path.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("unlearn_core", "sweeps", "analysis")


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules in a separate process."""
    return [sys.executable, "-P", str(Path(__file__).resolve()), module, *arguments]


def own_modules(last: str | None = None) -> Callable[[], None]:
    """A function that makes a process import our packages from here.

    It imports others from the folder `last` only if they are nowhere else. It is pickled by value, so a process that
    cannot find our packages yet can call it.
    """
    root, packages = str(ROOT), PACKAGES

    def settle() -> None:
        import sys
        from importlib.machinery import ModuleSpec, PathFinder

        class Ours:
            @staticmethod
            def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
                if path is not None:  # part of a package
                    return None
                places = [root] if name in packages else [place for place in sys.path if place != last]
                return PathFinder.find_spec(name, places)

        sys.meta_path.insert(sys.meta_path.index(PathFinder), Ours)
        sys.path.append(root)  # processes that multiprocessing spawns get the path, not the finder

    return settle


def unlearn() -> int:
    """The console script `unlearn`; returns its exit code."""
    own_modules()()
    from sweeps.commands.main import main
    from unlearn_core.host.output import run

    return run(main)


if __name__ == "__main__":
    del sys.argv[0]
    own_modules()()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
