"""Docstrings of public names: sections in one fixed form, each to be read alone in `help()`.

The meaning comes first, with its equation, then those of these sections that apply, in this order, which Google-style readers
such as mkdocstrings render:

    Args:
        x: What it is, its unit or range.

    Shapes:
        x [T, N, ...] -> spikes [T, N, ...]

    Returns:
        What comes back, if the first lines don't say it.

    Raises:
        ValueError: If x has no time step.

    Source:
        Author et al., conference and year, and how sure it is.
"""

import ast
import functools
import importlib
import inspect
import re
import textwrap

import pytest
from test_house import PUBLIC
from torch import nn

import staa.testing

NAMES = {**{module: names.split() for module, names in PUBLIC.items()}, "staa.testing": staa.testing.__all__}
NAMES |= {"staa.rates": ["fires", "firing_rates", "rate_warnings", "summary"], "staa.causality": ["check_causal"]}
SECTIONS = ("Args", "Shapes", "Returns", "Raises", "Source")
BANNED = re.compile(r"\b(the usual|as usual|those that|as above|see above|the above|ditto)\b", re.IGNORECASE)
ERRORS = ("ValueError", "TypeError", "RuntimeError", "OSError", "KeyError", "IndexError", "MemoryError", "AssertionError")


def public_things():
    """{name: class, function or partial} of all that PUBLIC names, and of what stands in a registry among it; each once."""
    things = {}
    for module, names in NAMES.items():
        for name in names:
            value = getattr(importlib.import_module(module), name)
            entries = {f"{module}.{name}[{key}]": entry for key, entry in value.items()} if isinstance(value, dict) else {}
            for title, thing in (entries or {f"{module}.{name}": value}).items():
                thing = thing.func if entries and isinstance(thing, functools.partial) else thing
                if inspect.isclass(thing) or inspect.isfunction(thing) or isinstance(thing, functools.partial):
                    things.setdefault(id(thing), (title, thing))
    return dict(things.values())


def methods_of(kind):
    """{name: function or property} of a class and its bases in the package, without what another library's class defines."""
    found = {}
    for name in dir(kind):
        owners = [base for base in kind.__mro__ if name in vars(base)]
        foreign = [base for base in owners if not base.__module__.startswith("staa")]
        if name.startswith("_") or (foreign and name != "forward") or owners[0] in foreign:
            continue
        value = vars(owners[0])[name]
        value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(value) or isinstance(value, property):
            found[name] = value
    return found


def doc_of(kind, name):
    """A method's docstring, or that of the base in the package which it overrides, as help() shows it."""
    owned = (vars(base)[name].__doc__ for base in kind.__mro__ if name in vars(base) and base.__module__.startswith("staa"))
    return next((inspect.cleandoc(doc) for doc in owned if doc), None)


def room(thing):
    thing = thing.func if isinstance(thing, functools.partial) else thing
    return ".".join(thing.__module__.split(".")[:2])


THINGS = public_things()
ROOMS = sorted({room(thing) for thing in THINGS.values()})


@pytest.mark.parametrize("name", ROOMS)
def test_every_public_docstring_is_written_so(name):
    faults = [fault for title, thing in THINGS.items() if room(thing) == name for fault in faults_of(title, thing)]
    assert not faults, "\n".join(faults)


def test_there_are_many():
    assert len(THINGS) > 80
    assert {"staa.ops", "staa.data", "staa.runs", "staa.build", "staa.cli"} <= set(ROOMS)


def faults_of(title, thing):
    if isinstance(thing, functools.partial):
        return of_partial(title, thing)
    if inspect.isfunction(thing):
        return of_function(title, thing, inspect.getdoc(thing), of_tensors(thing))
    faults = of_class(title, thing)
    for name, method in methods_of(thing).items():
        doc = doc_of(thing, name)
        if isinstance(method, property):
            faults += [] if doc else [f"{title}.{name} has no docstring"]
        elif len(parameters(method)) > 1 or (doc and sections(doc)[0]):
            faults += of_function(f"{title}.{name}", method, doc, of_tensors(method))
        elif not doc and not (name == "forward" and issubclass(thing, nn.Module)):  # the class's Shapes are its call's
            faults.append(f"{title}.{name} has no docstring")
        else:  # its first lines say what its one parameter is
            faults += of_text(f"{title}.{name}", doc or "")
            if doc and raises(method) and "Raises" not in doc:
                faults.append(f"{title}.{name} does not say what it raises")
    return faults


def of_partial(title, thing):
    """A partial says what it is, and whose arguments it takes by a name that can be looked up."""
    doc = inspect.getdoc(thing)
    if not doc or doc == functools.partial.__doc__:
        return [f"{title} is a partial without a docstring"]
    called = re.search(r"`(staa(?:\.\w+)+)`", doc)
    return of_text(title, doc) + ([] if called else [f"{title} does not name what it is a partial of"])


def of_class(title, kind):
    doc = inspect.cleandoc(vars(kind).get("__doc__") or "")
    if not doc or doc.startswith(f"{kind.__name__}("):  # a dataclass makes itself one
        return [f"{title} has no docstring"]
    own = methods_of(kind)
    makers = [value for name, value in vars(kind).items() if name in ("__init__", "__new__", "__post_init__")]
    if "forward" in own and not doc_of(kind, "forward"):
        makers.append(own["forward"])
    named = getattr(kind, "_fields", None)  # of a NamedTuple
    names = [] if kind.__init__ is object.__init__ else [p for p in parameters(kind) if p not in field_docs(kind)]
    names = names if named is None else list(named)
    raised = any(raises(f) for f in makers if inspect.isfunction(f) and f.__module__ == kind.__module__)
    return of_sections(title, doc, names, issubclass(kind, nn.Module), raised)


def of_function(title, f, doc, tensors):
    if not doc:
        return [f"{title} has no docstring"]
    return of_sections(title, inspect.cleandoc(doc), parameters(f), tensors, raises(f))


def of_sections(title, doc, names, tensors, raised):
    found, faults = sections(doc)
    faults = of_text(title, doc) + [f"{title}: {fault}" for fault in faults]
    given = [match[1] for line in found.get("Args", []) if (match := re.match(r"(\*{0,2}\w+):( |$)", line))]
    if given != names:
        faults.append(f"{title}: Args are {', '.join(given) or 'missing'}, its parameters {', '.join(names) or 'none'}")
    if tensors and "Shapes" not in found:
        faults.append(f"{title} does not tell Shapes")
    if raised and "Raises" not in found:
        faults.append(f"{title} does not tell what it Raises")
    for line in found.get("Raises", []):
        if not line.startswith(" ") and line and not re.match(r"\w+: ", line):
            faults.append(f"{title}: Raises begins with the error and a colon, not {line!r}")
    return faults


def of_text(title, doc):
    return [f"{title} says {word!r}" for word in BANNED.findall(doc)]


def sections(doc):
    """({section: its lines}, faults): headings in order, each with lines below it, and nothing behind the last one."""
    found, faults, name = {}, [], None
    for line in doc.splitlines():
        if match := re.fullmatch(r"([A-Z]\w+):", line):
            name = match[1]
            found[name] = []
        elif name and line and not line.startswith("    "):
            faults.append(f"{line!r} follows the sections")
        elif name:
            found[name].append(line[4:])
    if list(found) != [name for name in SECTIONS if name in found]:
        faults.append(f"sections are {', '.join(found)}; they are of {', '.join(SECTIONS)}, in this order")
    faults += [f"{name} is empty" for name, lines in found.items() if not any(lines)]
    faults += [f"{name}: stands in a line, not above one" for name in SECTIONS if re.search(rf"^{name}: ", doc, re.MULTILINE)]
    return found, faults


def parameters(f):
    mark = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [mark.get(p.kind, "") + name for name, p in inspect.signature(f).parameters.items() if name not in ("self", "cls")]


def of_tensors(f):
    return any(re.search(r"\bTensor\b", str(annotation)) for annotation in inspect.get_annotations(f).values())


def raises(f):
    """Whether the body of a function raises an error that is its caller's to mend."""
    if f.__code__.co_filename.startswith("<"):  # a dataclass's own __init__
        return False
    raised = [node.exc for node in ast.walk(tree_of(f)) if isinstance(node, ast.Raise) and node.exc is not None]
    return any(isinstance(part, ast.Name) and part.id in ERRORS for error in raised for part in ast.walk(error))


def field_docs(kind):
    """Fields with a text of their own below them, as a recipe's have; the command line shows it."""
    body = tree_of(kind).body[0].body
    texts = [isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body[1:]]
    return {node.target.id for node, told in zip(body, texts, strict=False) if told and isinstance(node, ast.AnnAssign)}


def tree_of(thing):
    return ast.parse(textwrap.dedent(inspect.getsource(thing)))


def example(x, steps: int) -> "torch.Tensor":  # noqa: F821
    """What it gives.

    Args:
        x: An input.
        steps: How many, at least 1.

    Shapes:
        x [N] -> [T, N]

    Raises:
        ValueError: If steps is below 1.
    """
    if steps < 1:
        raise ValueError
    return x


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("x: An input.\n        ", "", "Args are steps"),
        ("steps: How", "count: How", "Args are x, count"),
        ("Shapes:", "Shape:", "sections are"),
        ("Shapes:\n        x [N] -> [T, N]\n\n    ", "", "Shapes"),
        ("Raises:\n        ValueError: If steps is below 1.\n    ", "", "Raises"),
        ("ValueError: If", "If", "the error and a colon"),
        ("An input.", "The usual input.", "The usual"),
        ("is below 1.\n", "is below 1.\n\n    More words.\n", "follows the sections"),
        ("Args:\n", "Args: \n", "Args are missing"),
    ],
)
def test_a_fault_is_found(old, new, told):
    assert not of_function("f", example, example.__doc__, True)
    assert old in example.__doc__
    assert any(told in fault for fault in of_function("f", example, example.__doc__.replace(old, new), True))
