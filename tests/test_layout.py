"""The tree of src/locum: the table of its folders in docs/architecture.md, and the sizes of folders and files."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "locum"

MAX_FILES = 20  # directly in one folder
MAX_LINES = 500  # of one Python file
BUILT = SOURCE / "dataplane" / "objects"  # compiled programs, not counted

# Files that are longer than MAX_LINES. Split a file, then remove it here; the list only shrinks.
STILL_LONG: set[str] = set()


def folders() -> list[Path]:
    """Every package below src/locum, and src/locum itself."""
    return sorted(path.parent for path in SOURCE.rglob("__init__.py"))


def described() -> list[tuple[str, str]]:
    """Folder and purpose, from the table "What lives where"."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("## What lives where\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z0-9_/]+)` \| (.+) \|$", section, re.MULTILINE)


def test_the_table_of_folders_matches_the_tree() -> None:
    listed = [folder for folder, _purpose in described()]
    found = {str(path.relative_to(SOURCE)) for path in folders() if path != SOURCE}
    assert sorted(found - set(listed)) == [], "docs/architecture.md: add a row for each of these folders"
    assert sorted(set(listed) - found) == [], "docs/architecture.md: remove the rows of these folders"
    assert listed == sorted(set(listed)), "docs/architecture.md: one row a folder, in alphabetical order"


def test_every_folder_of_python_files_is_a_package() -> None:
    bare = {path.parent for path in SOURCE.rglob("*.py")} - set(folders())
    assert not bare, f"add an __init__.py: {sorted(str(path.relative_to(ROOT)) for path in bare)}"


def test_no_folder_holds_too_many_files() -> None:
    counts = Counter(
        path.parent
        for path in SOURCE.rglob("*")
        if path.is_file() and path.parent != BUILT and path.parent.name != "__pycache__"
    )
    crowded = {str(path.relative_to(ROOT)): count for path, count in counts.items() if count > MAX_FILES}
    assert not crowded, f"at most {MAX_FILES} files in a folder; make sub-packages: {crowded}"


def test_no_python_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")
    }
    long = {path for path, lines in lengths.items() if lines > MAX_LINES}
    new = {path: lengths[path] for path in long - STILL_LONG}
    assert not new, f"at most {MAX_LINES} lines in a file; split: {new}"
    split = sorted(STILL_LONG - long)
    assert not split, f"no longer too long, remove from STILL_LONG: {split}"
