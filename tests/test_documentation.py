"""The documentation speaks of what is there."""

import ast
import re
from pathlib import Path

import pytest

import napari_cvdm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCES = [
    path.read_text(encoding="utf-8")
    for path in sorted(Path(napari_cvdm.__file__).parent.rglob("*.py"))
]
TEXTS = [  # a long text is one constant, however many lines it has in the source
    node.value
    for source in SOURCES
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
]
SOURCE = "\n".join([*SOURCES, *TEXTS])


def messages() -> list[str]:
    """Every message of the troubleshooting page, in the parts that do not change."""
    terms = [
        line
        for line in (DOCS / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("**")
    ]
    bold = [text for line in terms for text in re.findall(r"\*\*(.+?)\*\*", line)]
    parts = [part.strip(" ,;") for text in bold for part in text.split("…")]
    return sorted({part for part in parts if len(part) > 5})


@pytest.mark.parametrize("message", messages())
def test_every_message_on_the_troubleshooting_page_is_one_of_the_program(message):
    assert message in SOURCE


def test_every_picture_of_the_pages_is_one_that_the_script_takes():
    wanted = {
        name
        for page in DOCS.glob("*.md")
        for name in re.findall(r"pictures/([\w-]+)\.png", page.read_text(encoding="utf-8"))
    }
    taken = set(
        re.findall(r'photograph\("([\w-]+)"', (DOCS / "pictures.py").read_text(encoding="utf-8"))
    )
    assert wanted <= taken


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("how-to-*.md")))
def test_what_a_how_to_names_in_bold_is_in_the_program(page):
    """The documents name controls and menu entries as the window does.

    The underline of the key is left out.
    """
    named = re.findall(r"\*\*(.+?)\*\*", (DOCS / page).read_text(encoding="utf-8"))
    plain = SOURCE.replace("&", "") + (Path(napari_cvdm.__file__).parent / "napari.yaml").read_text(
        encoding="utf-8"
    )
    entries = [part for text in named for part in text.split(" > ")]
    assert [
        entry
        for entry in entries
        if entry not in plain
        and entry not in ("Plugins", "File", "Save Selected Layers", "File", "not")
    ] == []


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_to_a_file_leads_to_one(page):
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_python_of_the_readme_runs(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    (code,) = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"\(\d+, \d+\) rad (green|amber)\n", capsys.readouterr().out)


def test_the_pictures_of_the_readme_are_there_and_small():
    pictures = re.findall(r"\]\((docs/images/[\w-]+\.png)\)", (ROOT / "README.md").read_text())
    assert len(pictures) == 2
    assert sum((ROOT / picture).stat().st_size for picture in pictures) <= 400_000


def test_every_promise_of_security_names_a_test_that_exists() -> None:
    named = set(re.findall(r"`([a-z0-9_]{15,})`", (ROOT / "SECURITY.md").read_text("utf-8")))
    files = {path.stem: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    written = "\n".join(files.values())
    assert len(named) > 20
    unknown = {name for name in named - set(files) if f"def test_{name}(" not in written}
    assert unknown == set()


def promises_about_writing():
    """Files and parts of names of the tests in the last table of SECURITY.md."""
    text = (ROOT / "SECURITY.md").read_text("utf-8").partition("### Writing")[2]
    rows = [line.split("|")[3] for line in text.splitlines() if line.startswith("| ")][2:]
    return [
        (re.findall(r"`(\w+)`", files), [part.strip() for part in re.split("[,;]", parts)])
        for files, _, parts in (row.partition(":") for row in rows)
    ]


@pytest.mark.parametrize(("files", "parts"), promises_about_writing())
def test_every_promise_about_writing_has_its_tests(files, parts):
    found = {name: [*(ROOT / "tests").rglob(f"{name}.py")] for name in files}
    assert files and all(found.values())
    source = "".join(path.read_text("utf-8") for paths in found.values() for path in paths)
    names = re.findall(r"def test_(\w+)", source)
    for part in parts:
        assert any(re.sub(r"\W+", "_", part) in name for name in names), part
