"""What `mkdocs` does with the pages, which are written to be read in the repository: links in them hold here and there."""

import html
import json
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = [
    "*.md", "CITATION.cff", "docs/**/*", "results/*", "results/bench/*", "results/camera/*", "results/compare/*",
    "results/forecast/*", "results/gpu/README.md", "results/study/*",
]  # fmt: skip
"""What the site has of the repository. pyproject.toml and the code are not pages: a page names them without a link."""
HIDDEN = (".py", ".pyc")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files, config):
    """Pages by their paths in the repository, so that its links are the site's; `docs/` falls away in addresses."""
    theme = [file for file in files if Path(file.src_dir or ROOT) != ROOT / "docs"]
    found = sorted({path for pattern in SHOWN for path in ROOT.glob(pattern) if path.is_file() and path.suffix not in HIDDEN})
    return Files([*theme, *(shown(path.relative_to(ROOT), config) for path in found)])


def shown(path, config):
    """A file of the repository as one of the site. A notebook becomes a page."""
    if path.suffix == ".ipynb":
        page = page_of(json.loads((ROOT / path).read_text()))
        file = File.generated(config, str(path.with_suffix(".md")), content=page)
    else:
        file = File(str(path), ROOT, config.site_dir, config.use_directory_urls)
    if str(path) == "README.md":
        file.name = "readme"  # else it is an index, and its section's own page
    file.dest_uri = file.dest_uri.removeprefix("docs/")
    return file


def page_of(notebook):
    """Its text, code, what was printed, and pictures."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
        for output in cell.get("outputs", []):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text'])}```")
            elif "image/png" in output.get("data", {}):
                parts.append(f"![what the cell draws](data:image/png;base64,{''.join(output['data']['image/png']).strip()})")
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown, page, config, files):
    """Links to notebooks lead to their pages."""
    return re.sub(r"(\]\([\w./-]+)\.ipynb\)", r"\1.md)", markdown)


def on_page_content(content, page, config, files):
    """Equations as MathML, which browsers draw without a script."""

    def drawn(found):
        equation = html.unescape(found[3]).replace("{aligned}", "{split}")  # the converter knows this one
        return convert(equation, display="block" if found[2] == "[" else "inline")

    return EQUATION.sub(drawn, content)
