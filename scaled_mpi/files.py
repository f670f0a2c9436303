"""Files that survive a kill: written beside, synced, renamed; and names that stay in their folder.

A reader sees either the old file or the whole new one. A rename alone is not enough after a power
cut. The data must be on disk before the name, and the folder of the name after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaled_mpi.config import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
_PIECE = 1 << 20  # bytes read at once while hashing


def plain_name(name: str, what: str = "name") -> str:
    """Return `name` if it is safe as one part of a path.

    Errors: `InputError` for .., /, spaces and other signs.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{what}: {name!r} is not allowed: unsafe in a path. Allowed: letters, digits, . _ -"
        )
    return name


def sync(path: str | Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put_in_place(temporary: Path, final: Path) -> None:
    """Sync `temporary` and give it the name `final`, replacing what had it; both in one folder."""
    sync(temporary)
    os.replace(temporary, final)
    sync(final.parent)


def write_text(path: str | Path, text: str) -> None:
    """Replace a text file as a whole (UTF-8)."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    put_in_place(temporary, path)


def sha256(path: str | Path) -> str:
    """Return the hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def seal(tree: dict[str, Any]) -> str:
    """Return the JSON text of `tree` with the sha256 of its own content, for `unseal`."""
    body = {key: value for key, value in tree.items() if key != "sha256"}
    return json.dumps({**body, "sha256": _digest(body)}, indent=1, allow_nan=False) + "\n"


def unseal(path: str | Path, format_name: str) -> dict[str, Any]:
    """Return the tree that `seal` wrote to `path`.

    Errors: `InputError` if the file is missing, not JSON, of another format, or differs from its
    own sha256.
    """
    try:
        tree = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: not there. Needed: a finished {format_name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged or unreadable ({type(error).__name__}). Needed: a {format_name}"
        ) from error
    if not isinstance(tree, dict) or tree.get("format") != format_name:
        raise InputError(f"{path}: of another format. Needed: a {format_name}")
    if tree.pop("sha256", None) != _digest(tree):
        raise InputError(
            f"{path}: damaged, its content differs from its checksum. Needed: an intact file"
        )
    return tree


def _digest(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Give a finished file a second name: a hard link, or a copy where there are none."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copy2(source, target)


def link_tree(source: Path, target: Path) -> None:
    """Mirror a folder of finished files at `target`, which must not exist. Links are left out."""
    target.mkdir(parents=True)
    for entry in walk(source):
        place = target / entry.relative_to(source)
        if entry.is_dir():
            place.mkdir()
        else:
            link_or_copy(entry, place)


def walk(folder: Path) -> Iterator[Path]:
    """Yield plain folders and files below `folder`, sorted, a folder before its contents."""
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
            continue
        yield entry
        if entry.is_dir():
            yield from walk(entry)
