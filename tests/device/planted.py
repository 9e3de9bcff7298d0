"""Puts a mistake into the sources, for as long as a test runs."""

import __future__

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def planted(function: Callable[..., Any], right: str, wrong: str) -> Iterator[None]:
    """In the body, the source of `function` has `wrong` in the place of `right`, for whoever holds the function.

    The function must not be a closure. AssertionError if its source has no `right` any more: then the mistake has to
    be put in other words.
    """
    function = inspect.unwrap(function)
    source = textwrap.dedent(inspect.getsource(function))
    assert right in source, f"{function.__qualname__} has no {right!r} any more; plant the mistake in its present words"
    kept = function.__code__
    function.__code__ = _compiled(function, source.replace(right, wrong)).__code__
    try:
        yield
    finally:
        function.__code__ = kept


def _compiled(function: Any, source: str) -> Any:
    """The function of this source, where its lines are those of the file."""
    tree = ast.parse(source)
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    ast.increment_lineno(tree, inspect.getsourcelines(function)[1] - 1)
    made: dict[str, Any] = {}
    flags = __future__.annotations.compiler_flag
    code = compile(tree, function.__code__.co_filename, "exec", flags=flags)
    exec(code, function.__globals__, made)
    return made[definition.name]
