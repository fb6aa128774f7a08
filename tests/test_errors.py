"""The errors: the tree that the docstring draws is the tree that there is."""

import errno
import inspect
import re

import pytest

from mlhubfs import errors

LINE = re.compile(r"^ {4}([│├└─ ]*)([A-Z]\w+) +(E[A-Z]+) ")


def drawn():
    """Return the docstring's tree: class name -> (its parent's name, errno's name)."""
    tree, above = {}, []
    for line in errors.__doc__.splitlines():
        if match := LINE.match(line):
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            tree[match[2]] = (above[depth - 1] if depth else "Exception", match[3])
    return tree


CLASSES = {
    name: one
    for name, one in vars(errors).items()
    if inspect.isclass(one) and issubclass(one, Exception)
}


def test_the_docstring_draws_every_class_and_no_other():
    """Who adds an error draws it."""
    assert set(drawn()) == set(CLASSES)
    assert len(CLASSES) > 10


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_has_the_parent_and_the_errno_that_are_drawn(name):
    """Each class says for itself which errno a program sees, and it is the drawn one."""
    parent, number = drawn()[name]
    assert CLASSES[name].__bases__[0].__name__ == parent
    assert "errno" in vars(CLASSES[name])
    assert CLASSES[name].errno == getattr(errno, number)
