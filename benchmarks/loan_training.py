"""The training of a loan: the form of a step, how many epochs and seeds, which recipes at the same time, what after a fault.

Nothing but the standard library, as in benchmarks/loan_process.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.loan_process import Call

PAIR = ("cifar100-resnet20-plain", "cifar100-resnet20-staa")
CHOOSING = 75.0  # seconds for the form of a step
MEASURING = 20.0  # the pace, at least
ENDING = 25.0  # of a training run, for the test set and the way home, beyond its steps
SLACK = 1.08  # steps may be slower than measured
UNMEASURED = 5  # epochs if nothing is known of the speed
LEAST_EPOCHS = 8  # of a run, for which a seed less is trained
AGAIN = 6.0  # seconds until a further seed's first step
FORMS = ("eager", "reference", "graph")
"""Those of a step that are tried, in this order. To compile takes minutes: it must be asked for."""
SIMPLER = {"graph": "eager", "compile": "eager", "eager": "reference"}


def choose_form(call: Call) -> None:
    """Settle how a step is taken, unless an earlier call on this machine has."""
    if "form" in call.state:
        return
    first = call.stage("step", CHOOSING, recipe=PAIR[1], forms=list(call.options.forms))
    found = first.results
    if first.status == "failed" and not any(r.get("form") == "eager" for r in found):
        found = [*found, {"form": "eager", "failed": "the process broke off"}]
    form, why = fastest(found, call.state.get("reference"))
    call.note(f"a step is taken in the form {form}: {why}")
    call.remember(form=form, ms={r["form"]: r["ms"] for r in found if "ms" in r})


def fastest(found: Sequence[dict[str, Any]], distrusted: str | None) -> tuple[str, str]:
    """(form, why) of the fastest form whose loss is within 2 % and whose gradient's norm is within 10 % of the reference's.

    distrusted: why nothing but the reference will do, if that is known.
    """
    measured = {r["form"]: r for r in found if "ms" in r}
    if distrusted is not None:
        return "reference", distrusted
    if not {"reference", "eager"} & measured.keys():
        broken = any(r.get("form") == "eager" and "failed" in r for r in found)
        return ("reference", "eager broke off") if broken else ("eager", "there was no time to compare it with the reference")
    yardstick = "reference" if "reference" in measured else "eager"  # whose kernels the smoke test has seen
    true = measured[yardstick]
    near = lambda r, key, most: abs(r[key] - true[key]) <= most * abs(true[key])  # noqa: E731
    right = {form: r for form, r in measured.items() if near(r, "loss", 0.02) and near(r, "norm", 0.1)}
    right = right or {yardstick: true}  # its own numbers are not finite
    wrong = [form for form in measured if form not in right]
    form = min(right, key=lambda name: right[name]["ms"])
    told = ", ".join(f"{name} {r['ms']:.2f} ms" for name, r in right.items())
    return form, told + (f"; wrong: {', '.join(wrong)}" if wrong else "")


def go_on(call: Call) -> bool:
    """Train on what an earlier call on this machine had to stop, and tell whether there was anything."""
    unfinished = call.state.get("unfinished", {})
    for k, (recipe, (epochs, form, seeds)) in enumerate(list(unfinished.items())):
        call.note(f"{recipe} goes on where it was stopped")
        _train(call, {recipe: (epochs, True)}, form, call.left() / (len(unfinished) - k), 0, seeds)
    return bool(unfinished)


def train(call: Call, recipes: Sequence[str], *, epochs: int | None = None, to_come: int = 0, seeds: int = 1) -> int:
    """Measure the pace of the recipes, then train all on the same seeds for the same number of epochs, as given or as many as
    fit; returns it. One that fails in the chosen form goes on in a simpler one. to_come: recipes that want room at home later.

    seeds: at most; as many as leave LEAST_EPOCHS to each run, fixed before the first one begins.
    """
    form, names = call.state.get("form", "eager"), ", ".join(recipes)
    if call.left() < MEASURING + ENDING:
        call.note(f"{names}: left out, {max(0.0, call.left()):.0f} s are not worth a start")
        return 0
    paces = measured_pace(call, recipes, form)
    if None in paces and form in SIMPLER:
        call.note(f"{names}: no pace in the form {form}, so {SIMPLER[form]} is taken")
        form = SIMPLER[form]
        paces = measured_pace(call, recipes, form)
    fit, beside, each = how_many(call.left(), paces)
    if seeds > 1:
        shared, _, at_once = how_many(call.left(), paces, at_once=True)
        of_each = {n: int((shared * at_once - (n - 1) * AGAIN) / (n * at_once)) if at_once else 0 for n in range(seeds, 1, -1)}
        seeds = next((n for n, share in of_each.items() if share >= LEAST_EPOCHS), 1)
        if seeds > 1:
            fit, beside, each = of_each[seeds], True, at_once
    chosen = min(fit, call.options.epochs if epochs is None else epochs)
    if chosen < 1:
        call.note(f"{names}: left out, not one epoch fits into {call.left():.0f} s")
        return 0
    if epochs is not None and chosen < epochs:
        call.note(f"{names}: not comparable with the pair, whose {epochs} epochs don't fit into {call.left():.0f} s")
    way = "at the same time" if beside else "one after the other"
    call.note(
        f"{names}: {chosen} epochs of {seeds} seed{'s'[: seeds > 1]} {way}, "
        + (f"{each:.1f} s for one of each" if each else "their pace is not known")
    )
    groups = [list(recipes)] if beside else [[recipe] for recipe in recipes]
    for waiting, group in zip(range(len(groups) - 1, -1, -1), groups, strict=True):
        share = lambda: call.left() / (waiting + 1)  # noqa: B023, E731
        failed = _train(call, dict.fromkeys(group, (chosen, False)), form, share(), to_come + waiting, seeds)
        if failed and form in SIMPLER and share() > ENDING:
            fewer = max(1, _fewer(call, form, chosen, each, share()))
            again = {recipe: (chosen, True) if done else (fewer, False) for recipe, done in failed.items()}
            told = ", ".join(f"{recipe} broke off after {done} epochs" for recipe, done in failed.items())
            call.note(f"{told}; in the form {SIMPLER[form]} for {', '.join(str(n) for n, _ in again.values())} epochs")
            failed = _train(call, again, SIMPLER[form], share(), to_come + waiting, seeds)
        for recipe in failed:
            if not (_folder(call, recipe) / "log.jsonl").is_file():
                continue
            home = {**_home(call, 1, to_come + waiting), "form": form, "finished": False}
            call.stage("archive", 20, recipe=recipe, folder=str(_folder(call, recipe)), home=home)
    return chosen


def _fewer(call: Call, form: str, chosen: int, each: float, seconds: float) -> int:
    """The epochs that fit in the simpler form; it takes twice the time of the other, unless both were measured."""
    ms = call.state.get("ms", {})
    slower = ms[SIMPLER[form]] / ms[form] if {form, SIMPLER[form]} <= ms.keys() else 2.0
    return min(chosen, int((seconds - ENDING) / (max(1.0, slower) * each)) if each else UNMEASURED)


def measured_pace(call: Call, recipes: Sequence[str], form: str) -> list[dict[str, Any] | None]:
    meet = call.options.work / "pace"
    for old in meet.glob("*.ready"):
        old.unlink()
    jobs = [{"recipe": r, "mine": k, "of": len(recipes), "meet": str(meet), "form": form} for k, r in enumerate(recipes)]
    outcomes = call.together("pace", 90, jobs, slow=form == "reference")
    return [next((r for r in outcome.results if "alone" in r), None) for outcome in outcomes]


def _train(
    call: Call, runs: Mapping[str, tuple[int, bool]], form: str, seconds: float, to_come: int, seeds: int
) -> dict[str, int]:
    """Train recipes, each for so many epochs, from its last checkpoint or anew; returns those that failed, and after how many.

    One that was stopped by its limit is remembered.
    """
    room = to_come + len(runs) * (seeds > 1)  # the records of further seeds are an archive a recipe
    how = {"form": form, "runs": str(_folder(call, "").parent), "home": _home(call, len(runs), room)}
    how["seeds"] = [call.options.seed + k for k in range(seeds)]
    jobs = [{**how, "recipe": recipe, "epochs": epochs, "resume": resume} for recipe, (epochs, resume) in runs.items()]
    failed, unfinished = {}, call.state.get("unfinished", {})
    for recipe, outcome in zip(runs, call.together("train", seconds, jobs, slow=form == "reference"), strict=True):
        told = [r.get("event") for r in outcome.results]
        if "interrupted" in told:
            unfinished = {**unfinished, recipe: (runs[recipe][0], form, seeds)}
            call.note(f"{recipe} was stopped by its limit; another call on this machine goes on with it")
        elif "result" in told:
            unfinished = {name: how for name, how in unfinished.items() if name != recipe}
        elif outcome.status != "skipped":
            failed[recipe] = told.count("epoch")
    call.remember(unfinished=unfinished)
    return failed


def _folder(call: Call, recipe: str) -> Path:
    return call.options.work / "runs" / f"{recipe}-seed{call.options.seed}"


def _home(call: Call, recipes: int, to_come: int) -> dict[str, Any]:
    """How a run comes home: into which folder, in at most how many files of which size, and what goes with it."""
    options = call.options
    room = options.files - 2 - len(list(options.out.glob("*.tar*"))) - to_come  # beside results and log
    return {
        "out": str(options.out), "size": int(options.archive_mib * 2**20), "files": max(1, room // recipes),
        "commit": call.commit, "command": options.told,
    }  # fmt: skip


def how_many(seconds: float, paces: Sequence[dict[str, Any] | None], *, at_once: bool = False) -> tuple[int, bool, float]:
    """(epochs that all recipes can have, whether at the same time, seconds that one epoch of all takes).

    A pace has steps a second `alone` and `together` with the others, `epoch_steps`, and `ready_after`: the seconds until the
    first step, and `saving`: of an epoch's checkpoint. At the same time: until the first has ended, then the rest by turns.
    at_once: at the same time in any case.
    """
    known = [p for p in paces if p is not None]
    if len(known) < len(paces) or not known:
        return (UNMEASURED if seconds > ENDING else 0), False, 0.0
    alone = [p["epoch_steps"] / p["alone"] for p in known]
    first = min(p["epoch_steps"] / p["together"] for p in known)
    rest = sum(max(0.0, p["epoch_steps"] - first * p["together"]) / p["alone"] for p in known)
    saving, ready = max(p["saving"] for p in known), max(p["ready_after"] for p in known)
    each = {False: SLACK * sum(alone) + saving * len(known), True: SLACK * (first + rest) + saving}
    fit = {False: (seconds - len(known) * (ready + ENDING)) / each[False], True: (seconds - ready - ENDING) / each[True]}
    beside = at_once or (len(known) > 1 and fit[True] > fit[False])
    return max(0, int(fit[beside])), beside, each[beside]
