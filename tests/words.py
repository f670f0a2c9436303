"""Reads the words of the package: long sentences, arrays without shapes, odd error lines.

    python tests/words.py [ROOM ...]

prints every finding as `path:line: text`. A ROOM is a folder of scaled_mpi (`coupling`), a file
at its root (`config.py`) or README.md; without one, everything is read. The line of an
`InputError` has one of the two forms of the house,
`KEY: VALUE is not allowed: REASON. Allowed: ...` or `PATH: REASON. Needed: ...`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "scaled_mpi"
LONGEST = 25  # words of a sentence

_ARRAY = re.compile(r"\b(ndarray|NDArray|ArrayLike|Tensor)\b")
_END = re.compile(
    r"(?<!e\.g\.)(?<!i\.e\.)(?<!cf\.)(?<!vs\.)(?<=[.!?])[\"')]*\s+(?=[A-Z0-9`'\"(\[{*])"
)
_LIST = re.compile(r"\s*([-*]|\d+[.)])\s")
_TERM = r"(?:\.\.\.|\*?\w+(?:\.\w+)*'?(?:\s*[-/*+^]\s*\w+|\s\w)*)"
_SHAPE = re.compile(rf"[(\[](\s*{_TERM}\s*(?:,\s*{_TERM}\s*)*,?\s*)[)\]]")
_SAID = re.compile(
    r"\b(scalars?|0-dimensional)\b|\b(same|any|equal|its|their|whose|one|that) shapes?\b"
    r"|\bshaped? (of|like|as)\b|(?<!\w)\(\)",
    re.IGNORECASE,
)


class Finding(NamedTuple):
    """One fault of the words: its sort, its place, its text."""

    sort: str  # docstrings, errors, readme, shapes, forms
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def words_of(sentence: str) -> int:
    """Number of words: inline code, a shape and a web address count as one, bare signs as none."""
    sentence = re.sub(r"`[^`]*`", " CODE ", sentence)
    sentence = re.sub(r"https?://\S+", " ADDRESS ", sentence)
    sentence = re.sub(r"\[(\w+),\]", r"\1,", sentence)
    sentence = _SHAPE.sub(lambda found: " SHAPE " if "," in found[1] else found[0], sentence)
    return sum(1 for word in sentence.split() if re.search(r"[^\W_]", word))


def sentences_of(text: str) -> list[str]:
    """Sentences of a paragraph."""
    return [part for part in _END.split(" ".join(text.split())) if part]


def paragraphs(text: str, lists: bool) -> Iterator[tuple[int, str]]:
    """Paragraphs with the number of their first line; tables, code, headings are left out.

    A block that is indented (code, an equation, a table) is no paragraph. A list is none either
    unless `lists`; then each of its entries is one.
    """
    lines: list[str] = []
    first, fenced, listed = 0, False, False
    for number, line in enumerate([*text.split("\n"), ""]):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        entry = bool(_LIST.match(line))
        indented = line.startswith("    ") and not listed and not lines
        skipped = fence or fenced or indented or line.lstrip().startswith(("|", "#", ">", "!["))
        if lines and (not line.strip() or skipped or entry):
            yield first, "\n".join(lines)
            lines = []
        if not line.strip() or entry:
            listed = entry
        if not line.strip() or skipped or (listed and not lists):
            continue
        if not lines:
            first = number
        lines.append(_LIST.sub("", line) if entry else line)


def long_sentences(text: str, line: int, lists: bool = False) -> list[tuple[int, str]]:
    """Sentences over 25 words with the line of their paragraph."""
    found = []
    for offset, paragraph in paragraphs(text, lists):
        for sentence in sentences_of(paragraph):
            if (count := words_of(sentence)) > LONGEST:
                found.append((line + offset, f"{count} words: {sentence}"))
    return found


def error_text(node: ast.expr) -> str:
    """The text of a message; each value that is put in is one word."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(error_text, node.values))
    if isinstance(node, ast.FormattedValue):
        return "X"
    if isinstance(node, ast.BinOp):
        return error_text(node.left) + error_text(node.right)
    if isinstance(node, ast.IfExp):
        return max(error_text(node.body), error_text(node.orelse), key=len)
    return "X"


def error_lines(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """Class, line and message of the errors that a module raises or returns."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name.endswith("Error") or name in ("Stopped", "SystemExit"):
            if re.search("[a-z]", text := error_text(node.args[0])):
                yield name, node.lineno, text


def regular(text: str) -> bool:
    """Whether an error line has one of the two forms of the house."""
    return bool(
        re.fullmatch(r"[^\n]+: [^\n]+ (is|are) not allowed: [^\n]+\. Allowed: [^\n]+", text)
        or re.fullmatch(r"[^\n]+: [^\n]+\. Needed: [^\n]+", text)
        or text == "X"
    )


def states_shape(docstring: str | None) -> bool:
    """Whether a docstring names a shape: (C, Y, X), (n,), scalar, same shape, any shape."""
    text = re.sub(r"\[(\w+),\]", r"\1,", (docstring or "").replace("`", ""))
    if _SAID.search(text):
        return True
    for found in _SHAPE.finditer(text):
        terms = [term.strip() for term in found[1].split(",")]
        symbols = [term for term in terms if re.match(r"\.\.\.|\*?[A-Za-z]\w{0,2}\b", term)]
        starred = any(re.match(r"\*[A-Za-z(]", term) for term in terms)
        if starred or (len(terms) > 1 and (symbols or terms[-1] == "")):
            return True
    return False


Public = tuple[ast.FunctionDef, ast.ClassDef | None]


def public(tree: ast.Module) -> Iterator[Public]:
    """Public functions of a module, and public methods with their class."""
    owners: list[tuple[ast.Module | ast.ClassDef, ast.ClassDef | None]] = [(tree, None)]
    owners += [(node, node) for node in tree.body if isinstance(node, ast.ClassDef)]
    for body, owner in owners:
        if owner is not None and owner.name.startswith("_"):
            continue
        for node in body.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield node, owner


def takes_arrays(function: ast.FunctionDef) -> bool:
    """Whether an annotation of the function names an array."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    annotations = [one.annotation for one in named if one is not None] + [function.returns]
    return any(_ARRAY.search(ast.unparse(one)) for one in annotations if one is not None)


def inherited(classes: dict[str, list[ast.ClassDef]], owner: ast.ClassDef, name: str) -> str:
    """Docstrings of the class, of its bases, and of a method of that name in the bases."""
    texts = [ast.get_docstring(owner) or ""]
    for base in owner.bases:
        base_name = ast.unparse(base).rsplit(".", 1)[-1]
        for parent in classes.get(base_name, []):
            if parent is owner:
                continue
            for node in parent.body:
                if isinstance(node, ast.FunctionDef) and node.name == name:
                    texts.append(ast.get_docstring(node) or "")
            texts.append(inherited(classes, parent, name))
    return "\n".join(texts)


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Public docstrings of a module with the line where each begins."""
    nodes: list[ast.Module | ast.ClassDef | ast.FunctionDef] = [tree]
    nodes += [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    nodes += [function for function, _ in public(tree)]
    for node in nodes:
        if (text := ast.get_docstring(node)) is not None:
            yield node.body[0].lineno, text


def findings(root: Path = ROOT) -> list[Finding]:
    """Every fault of the words, in README and in the package."""
    readme = (root / "README.md").read_text()
    found = [
        Finding("readme", "README.md", line, text)
        for line, text in long_sentences(readme, 1, lists=True)
    ]
    trees = {
        str(path.relative_to(root)): ast.parse(path.read_text())
        for path in sorted((root / PACKAGE).rglob("*.py"))
    }
    classes: dict[str, list[ast.ClassDef]] = {}
    for tree in trees.values():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(node)
    for path, tree in trees.items():
        for line, text in docstrings(tree):
            found += [Finding("docstrings", path, *one) for one in long_sentences(text, line)]
        for error, line, text in error_lines(tree):
            found += [Finding("errors", path, *one) for one in long_sentences(text, line)]
            if error == "InputError" and not regular(text):
                found.append(Finding("forms", path, line, text))
        for function, owner in public(tree):
            told = ast.get_docstring(function) or ""
            if owner is not None:
                told += "\n" + inherited(classes, owner, function.name)
            if takes_arrays(function) and not states_shape(told):
                name = f"{owner.name}.{function.name}" if owner is not None else function.name
                found.append(Finding("shapes", path, function.lineno, f"{name} states no shape"))
    return found


def main(rooms: list[str]) -> None:
    """Print the findings of the rooms named, and how many there are."""
    prefixes = tuple(name if name == "README.md" else f"{PACKAGE}/{name}" for name in rooms)
    shown = [one for one in findings() if not rooms or one.path.startswith(prefixes)]
    for finding in shown:
        print(finding)
    print(f"{len(shown)} findings")


if __name__ == "__main__":
    main(sys.argv[1:])
