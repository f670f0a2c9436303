"""The Markdown of the project: its code blocks, commands, links and anchors.

Read are the pages at the root and in docs/, but the changelog, which names files of the past.
"""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    if path.name != "CHANGELOG.md"
}
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b|…|\.\.\.")  # CONFIG, NAME: no line to type
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = ("./run", "mpirun", "srun", "python", "sbatch", "bash", "scaled_mpi")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [body for name, body in FENCE.findall(text) if name == language]


def codes(text: str) -> list[str]:
    """Inline code, and the lines of blocks without a language, less their comments."""
    lines = [line for body in blocks(text, "") for line in body.splitlines()]
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", text))
    return [re.sub(r"\s+#.*", "", line) for line in [*lines, *inline]]


def commands(text: str) -> list[list[str]]:
    """Words of every line that a reader may type as it stands."""
    lines = [part.strip() for code in codes(text) for part in code.split("&&")]
    return [
        shlex.split(line)
        for line in lines
        if line.startswith(tuple(f"{name} " for name in PROGRAMS)) and not PLACEHOLDER.search(line)
    ]


def prose(text: str) -> str:
    """A page without its comments, which declare tables."""
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def links(text: str) -> list[str]:
    """Targets of links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub names them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def module(name: str, path: Path) -> ModuleType:
    """Import a file as the module `name`."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def module_of(name: str, code: str, folder: Path) -> ModuleType:
    """Import a block of code as the module `name`, from a file in `folder`."""
    path = folder / f"{name}.py"
    path.write_text(code)
    return module(name, path)
