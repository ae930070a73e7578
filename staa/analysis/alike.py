"""Whether networks were tested alike, so that their figures may stand side by side."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from staa.build import Task, task_of
from staa.recipes.as_json import flat
from staa.recipes.code import comparable
from staa.recipes.recipe import Recipe
from staa.runs.transfer import some


class Candidate(NamedTuple):
    """A recipe, and the digest of what its test part asks (`Task.tested`)."""

    recipe: Recipe
    test: str


def one_kind(recipes: Mapping[str, Recipe]) -> type[Task[Any]]:
    """The kind of job that all the recipes are of. Raises ValueError if they are of several."""
    kinds = _by_value({name: type(task_of(recipe)) for name, recipe in recipes.items()})
    if len(kinds) > 1:
        told = "; ".join(f"to {kind.verb}: {', '.join(names)}" for kind, names in kinds.items())
        raise ValueError(f"these recipes have different jobs ({told}): compare recipes of one kind")
    return next(iter(kinds))


def check_settings(recipes: Mapping[str, Recipe], *, over: Collection[str] = ()) -> None:
    """Raises ValueError for recipes that are of several kinds, name several data sets, or are tested under other conditions,
    but for the settings in `over`, which are compared on purpose; what recipes alone tell, so no data are read."""
    one_kind(recipes)
    groups = _by_value({name: comparable(recipe).data.name for name, recipe in recipes.items()})
    if len(groups) > 1:
        told = ", ".join(f"{recipes[names[0]].data.name} for {some(names)}" for names in groups.values())
        raise ValueError(f"their data sets differ ({told}), and so do their tests: compare recipes on one data set")
    conditions = {name: task_of(recipe).conditions() for name, recipe in recipes.items()}
    odd = {
        field: told
        for field in dict.fromkeys(field for of in conditions.values() for field in of)
        if field not in over and (told := _unlike({name: of.get(field, "not set") for name, of in conditions.items()}))
    }
    if odd:
        differ = "; ".join(f"{field}: {told}" for field, told in odd.items())
        raise ValueError(
            f"these recipes are not tested alike ({differ}): give all of them the same setting, or, if that difference is what "
            f"you compare, name it with `over={','.join(odd)}`"
        )


def check_tests(tested: Mapping[str, Candidate]) -> None:
    """Raises ValueError if the test parts ask different things: other samples, labels or rows."""
    groups = _by_value({name: one.test for name, one in tested.items()})
    if len(groups) < 2:
        return
    settings = {name: flat(one.recipe) for name, one in tested.items()}
    fields = dict.fromkeys(field for of in settings.values() for field in of if field.startswith(("data.", "series.")))
    odd = {field: _unlike({name: of.get(field, "not set") for name, of in settings.items()}) for field in fields}
    why = "; ".join(f"{field}: {told}" for field, told in odd.items() if told) or "the data of one of them have changed"
    raise ValueError(
        f"the test set of {' is not that of '.join(map(some, groups.values()))} ({why}), so their figures can't be compared"
    )


def unlike_budgets(recipes: Mapping[str, Recipe]) -> str:
    """In what the lengths of training differ, in words; empty if in nothing."""
    told = {
        field: _unlike({name: getattr(recipe, attribute) for name, recipe in recipes.items()})
        for field, attribute in (("epochs", "all_epochs"), ("max_steps", "max_steps"), ("batch_size", "batch_size"))
    }
    return "; ".join(f"{field}: {values}" for field, values in told.items() if values)


def _unlike(values: Mapping[str, Any]) -> str:
    """Which names have which of several values, in words; empty if all have the same."""
    groups = _by_value(values)
    return ", ".join(f"{value} for {some(names)}" for value, names in groups.items()) if len(groups) > 1 else ""


def _by_value(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    groups: dict[Any, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return groups
