"""The README's tree is that of the repository, and its pictures are there."""

import re


def test_every_module_or_its_folder_stands_in_the_tree(repository):
    text = (repository / "README.md").read_text()
    tree = text[text.index("Snakefile    ") : text.index("### Where to change what")]
    package = repository / "llama_bench"
    for path in package.rglob("*.py"):
        if path.name == "__init__.py":
            continue
        parts = path.relative_to(package).parts
        own_folder = len(parts) > (2 if parts[0] in ("measure", "derive") else 1)
        assert (f"{path.parent.name}/" if own_folder else path.name) in tree, path


def test_what_the_tree_names_is_there(repository):
    text = (repository / "README.md").read_text()
    tree = text[text.index("Snakefile    ") : text.index("### Where to change what")]
    names = {path.name for path in repository.rglob("*") if ".venv" not in path.parts}
    for name in re.findall(r"\b[\w.-]+\.(?:py|j2|yaml|json)\b", tree):
        assert name in names, name


def test_links_lead_somewhere(repository):
    for page in (repository / "README.md", *(repository / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_nothing_large_is_kept(repository):
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        path = repository / name
        assert not path.exists() or path.stat().st_size <= 500_000, name
