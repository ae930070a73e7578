"""Trained networks from elsewhere: those of the package, and runs on a hub."""

import json
import shutil
import sys
from dataclasses import replace

import fake_hub
import pytest
import tiny
import torch

import staa
from staa import hub
from staa.cli import main
from staa.export.card import literal, model_card
from staa.export.share import share, shared_files
from staa.recipes import code
from staa.recipes.code import UntrustedCodeError
from staa.runs import evaluate_run, run
from staa.training.checkpoint import load_checkpoint

NAMES = hub.pretrained_names()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    for _ in run(replace(tiny.recipe, epochs=1), folder):
        pass
    return folder


@pytest.fixture
def published(trained, tmp_path):
    """What others find of `trained`."""
    for name, data in shared_files(staa.Run(trained), pickled=False).items():
        path = tmp_path / "published" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "published"


def test_pretrained_networks_are_small_and_tell_nothing_of_a_machine():
    assert "digits-events" in NAMES
    files = [path for path in hub.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3e6
    for name in NAMES:
        network = staa.pretrained(name)
        assert network.environment.keys().isdisjoint({"command", "data_root"})
        assert {line.split("  ")[1] for line in (network.folder / hub.SUMS).read_text().splitlines()} == {
            path.name for path in network.folder.iterdir() if path.name != hub.SUMS
        }
        assert network.finished
        assert network.result["protocol"] == "test-once"
        assert not network.environment["commit"].endswith("+")
        assert sum(p.numel() for p in network.model().parameters()) == network.environment["parameters"]


@pytest.mark.slow
def test_the_figure_of_the_embedded_default_is_measured_again():
    """Another machine's last bits may turn one sample of 450, which are 0.22 %."""
    network = staa.pretrained("digits-events")
    found = evaluate_run(network, split="test")
    assert found["accuracy"] == pytest.approx(network.result["test_accuracy"], abs=1.5 / 450)


def test_a_pretrained_network_that_is_unknown_or_damaged_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown pretrained network 'digit-events'; did you mean digits-events?"):
        staa.pretrained("digit-events")
    with pytest.raises(ValueError, match="unknown pretrained network '../weights/digits-events'"):
        staa.pretrained("../weights/digits-events")
    shutil.copytree(hub.WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(hub, "WEIGHTS", tmp_path / "weights")
    path = tmp_path / "weights" / "digits-events" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="model.safetensors is missing or damaged: install staa anew"):
        staa.pretrained("digits-events")
    path.unlink()
    with pytest.raises(ValueError, match="model.safetensors is missing or damaged: install staa anew"):
        staa.pretrained("digits-events")


def test_a_published_run_is_the_run_without_a_pickle(trained, published, tmp_path):
    assert {path.suffix for path in published.iterdir()} == {".json", ".jsonl", ".safetensors", ""}
    assert [path.suffix for path in (published / "code").iterdir()] == [".py"]
    for weights in ("last", "best"):
        ours, others = (staa.load(folder, weights=weights).state_dict() for folder in (trained, published))
        assert all(torch.equal(value, others[key]) for key, value in ours.items())
    assert evaluate_run(published) == evaluate_run(trained)
    out = share(published, tmp_path / "shared")
    assert load_checkpoint(out)["step"] == load_checkpoint(trained)["step"]


def test_a_published_run_can_be_begun_from_and_not_gone_on_with(published, tmp_path, capsys):
    start = replace(tiny.recipe, max_steps=1, init_from=str(published))
    assert all(event is not None for event in run(start, tmp_path / "next"))
    (published / "result.json").unlink()
    assert main(["train", "--resume", str(published), "--trust-code"]) == 2
    assert "is a published run and can't be gone on with: begin a new one from its weights (--init-from)" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("broken", ["other recipe", "no recipe", "cut off"])
def test_weights_of_another_recipe_are_refused(published, broken):
    path = published / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if broken == "other recipe":
        header["__metadata__"]["staa.recipe"] = header["__metadata__"]["staa.recipe"].replace("0.05", "0.06")
    elif broken == "no recipe":
        del header["__metadata__"]["staa.recipe"]
    text = json.dumps(header).encode()
    path.write_bytes(data[:-9] if broken == "cut off" else len(text).to_bytes(8, "little") + text + data[8 + length :])
    told = {"other recipe": "belongs to another recipe", "no recipe": "its recipe makes no sense", "cut off": "truncated"}
    for weights in ("last", "best"):
        with pytest.raises(ValueError, match=told[broken]):
            staa.load(published, weights=weights)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub that huggingface_hub takes for its own, with an empty cache and a token."""
    from huggingface_hub import constants, file_download

    with fake_hub.serving() as (there, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):
            if hasattr(module, "HUGGINGFACE_CO_URL_TEMPLATE"):
                monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield there


def cached(tmp_path):
    return {path.name for path in (tmp_path / "cache").rglob("*") if "snapshots" in path.parts and not path.is_dir()}


def test_a_run_is_pushed_and_taken_from_there(trained, served, tmp_path, monkeypatch, capsys):
    assert main(["push", str(trained), "jane/tiny", "--licence", "mit"]) == 0
    assert 'staa.from_pretrained("jane/tiny")' in capsys.readouterr().out
    first, files = served.files("jane/tiny")
    assert served.repositories["jane/tiny"]["private"]
    own = next(name for name in files if name.startswith("code/"))
    assert files.keys() == {
        "recipe.json", "environment.json", "result.json", "log.jsonl", "model.safetensors", "best.safetensors", "README.md",
        own,
    }  # fmt: skip
    assert b'license: "mit"' in files["README.md"]
    served.commit("jane/tiny", {**files, "last.pt": b"a pickle", "evil.py": b"raise SystemExit", ".git/config": b""})
    monkeypatch.setattr(code, "_vouched", set())  # as in another process
    run = staa.from_pretrained("jane/tiny")
    with pytest.raises(UntrustedCodeError, match="it was not run: read all of it"):
        _ = run.data
    run = staa.from_pretrained("jane/tiny", trust=True)
    assert len(run.data.test) == 8
    assert all(torch.equal(a, b) for a, b in zip(run.model().parameters(), staa.load(trained).parameters(), strict=True))
    assert cached(tmp_path) == {name.rpartition("/")[2] for name in files} - {"README.md"}

    other = {**files, "result.json": files["result.json"].replace(b'"seed": 0', b'"seed": 7'), "code/old-file.py": b""}
    served.commit("jane/tiny", other)
    assert staa.from_pretrained("jane/tiny").result["seed"] == 7
    assert staa.from_pretrained("jane/tiny", revision=first).result["seed"] == 0
    assert hub.push(trained, "jane/tiny", update=True).endswith(served.files("jane/tiny")[0])
    assert "code/old-file.py" not in served.files("jane/tiny")[1]
    assert staa.from_pretrained("jane/tiny").result["seed"] == 0


def test_without_a_network_the_cache_serves(published, served):
    files = {path.relative_to(published).as_posix(): path.read_bytes() for path in published.rglob("*.*")}
    served.commit("jane/tiny", files)
    online = staa.from_pretrained("jane/tiny")
    served.down = True
    with pytest.warns(UserWarning, match="answered 503.*is as it was when it was last downloaded"):
        assert staa.from_pretrained("jane/tiny").folder == online.folder
    with pytest.raises(ConnectionError, match="answered 503: .*in the cache there is no whole jane/other"):
        staa.from_pretrained("jane/other")


def test_what_is_no_published_run_is_not_downloaded(published, served, tmp_path, monkeypatch):
    files = {path.relative_to(published).as_posix(): path.read_bytes() for path in published.rglob("*.*")}
    served.commit("jane/tiny", files)
    served.commit("jane/text", {"README.md": b"", "recipe.json": b"{}"})
    served.commit("jane/many", {**files, **{f"graph/{k}": b"" for k in range(64)}})
    for name, told in (
        ("jane/text", "is no run that staa has pushed: it has no environment.json, model.safetensors"),
        ("jane/many", "is no run that staa has pushed: it has 7. files"),
    ):
        with pytest.raises(ValueError, match=told):
            staa.from_pretrained(name)
    for name, told in (
        ("jane/none", "there is no jane/none at http"),
        ("runs", "no folder here, and no name of a repository such as org/name"),
        (tmp_path / "jane" / "tiny", "is no folder here"),
    ):
        with pytest.raises(FileNotFoundError, match=told):
            staa.from_pretrained(name)
    with pytest.raises(FileNotFoundError, match="jane/tiny has no branch, tag or commit 'v9'"):
        staa.from_pretrained("jane/tiny", revision="v9")
    with pytest.raises(ValueError, match="`revision` is of a repository"):
        staa.from_pretrained(published, revision="v9")
    monkeypatch.setenv("STAA_MAX_BYTES", "1K")
    with pytest.raises(ValueError, match="of jane/tiny would take .* the limit is 1 KiB"):
        staa.from_pretrained("jane/tiny")
    assert not any("resolve" in path for path in served.asked)
    assert not cached(tmp_path)


def test_what_can_not_be_pushed_reaches_no_hub(trained, published, served, tmp_path, monkeypatch, capsys):
    served.commit("jane/there", {"recipe.json": b"{}"})
    served.commit("jane/public", {".gitattributes": b""}, private=False)
    before = json.dumps({name: len(there["commits"]) for name, there in served.repositories.items()})
    (published / "result.json").unlink()
    for args, told in (
        ([trained, "tiny"], "a repository is called org/name, got 'tiny'"),
        ([trained, "jane/tiny", "--licence", "my own"], "--licence must be a name in small letters"),
        ([published, "jane/tiny"], "is not finished, and so has no figures to publish"),
        ([tmp_path / "none", "jane/tiny"], "does not exist"),
        ([trained, "jane/there"], "holds a run already: choose another name, or say --update for a new commit"),
        ([trained, "jane/there", "--update", "--public"], "is there and private: leave --public out"),
        ([trained, "jane/public"], "is there and public: say so with --public"),
    ):
        assert main(["push", *map(str, args)]) == 2
        assert told in capsys.readouterr().err, told
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    assert main(["push", str(trained), "jane/tiny"]) == 2
    assert "the hub does not let this token work on jane/tiny" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(trained), "jane/tiny"]) == 2
    assert "there is no token of the hub: call `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    assert json.dumps({name: len(there["commits"]) for name, there in served.repositories.items()}) == before


def test_without_the_package_it_is_named(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for ask in (lambda: staa.from_pretrained("jane/tiny"), lambda: hub.push(trained, "jane/tiny")):
        with pytest.raises(ImportError, match=r'huggingface_hub: pip install "staa-snn\[hub\]"'):
            ask()
    assert staa.from_pretrained(trained).finished


def test_names_on_a_card_have_no_meaning(tmp_path):
    """A Markdown parser finds texts, code and our own lists alone in it."""
    hostile = "`` ``` </code><img src=x onerror=alert(1)> [a](https://b.c) ![](x) https://d.e &lt; | *x*\n# y\u202e"
    recipe = replace(tiny.recipe, epochs=1, max_steps=1, name="a", summary=hostile)
    recipe = replace(recipe, data=replace(recipe.data, name=f"{tiny.__file__}:hostile"))
    for _ in run(recipe, tmp_path / "run"):
        pass
    card = model_card(staa.Run(tmp_path / "run"), "jane/tiny")
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert [line.partition(":")[0] for line in head.splitlines()] == ["library_name", "license", "tags"]
    markdown = pytest.importorskip("markdown_it")  # of today's rich
    tokens = markdown.MarkdownIt("commonmark", {"html": True}).parse(body)
    inside = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in [*tokens, *inside]}
    assert kinds <= {
        "heading_open", "heading_close", "paragraph_open", "paragraph_close", "bullet_list_open", "bullet_list_close",
        "list_item_open", "list_item_close", "inline", "text", "code_inline", "fence", "softbreak",
    }  # fmt: skip
    assert sum(token.type == "heading_open" for token in tokens) == 1
    assert any("onerror" in child.content for child in inside if child.type == "code_inline")
    assert "<script>alert(1)</script>" in {child.content for child in inside if child.type == "code_inline"}
    assert "trust=True" in body
    assert all(character.isprintable() or character == "\n" for character in card)


@pytest.mark.parametrize("text", ["", "`", "a`", "```", "a``b`c", " ", "x" * 300])
def test_a_code_span_holds_its_text(text):
    markdown = pytest.importorskip("markdown_it")
    (token,) = markdown.MarkdownIt("commonmark").parseInline(literal(text))
    (span,) = token.children
    assert span.type == "code_inline"
    assert span.content.strip() == text.strip() or (len(text) > 80 and len(span.content) <= 80)
