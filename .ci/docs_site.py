"""What MkDocs is told beside mkdocs.yml: the order of the pages, and what lies outside of docs/.

Pages link to files of the repository, as they must on GitHub. Those files are made part of the site, below
"repository/", and the links turned there; a link to what does not exist is an error.
"""

import os
import posixpath
import re
from fnmatch import fnmatch
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = "repository"
# A page belongs to the first section that names it; one that belongs to none is an error.
SECTIONS = [
    ("Begin", ["README.md", "first-steps.md", "concepts.md", "handlers.md", "failures.md", "bad-input.md"]),
    ("Look up", ["settings.md", "settings-reference.md", "operations.md", "observability.md"]),
    ("Deploy", ["sizing.md", "deploy/*.md", "upgrade.md"]),
    ("Security", ["security.md", "admin.md", "security-*.md"]),
    ("Move here", ["migrating-from-*.md"]),
    ("Runbook", ["runbook/README.md", "runbook/*.md"]),
    ("Proofs", ["proofs.md"]),
    ("Project", ["repository/*.md"]),
]
LINK = re.compile(r"(?<!!)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def of_site(path):
    """Where a path of the repository lies in the site."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{OUTSIDE}/{path}"


def of_repository(uri):
    """The other way round."""
    return uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else f"docs/{uri}"


def links(text):
    return LINK.finditer(FENCE.sub(lambda block: " " * len(block[0]), text))


def target(page, link):
    """The path in the repository that a page's link means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def on_files(files, config):
    """Adds what pages link to outside of docs/, and what those files link to."""
    known = {of_repository(file.src_uri) for file in files}
    unread = [of_repository(file.src_uri) for file in files.documentation_pages()]
    while unread:
        page = unread.pop()
        for path in [target(page, link[1]) for link in links((ROOT / page).read_text())]:
            if path.startswith("..") or not (ROOT / path).exists():
                raise PluginError(f"{page} links to {path}, which is not there")
            added = [path]
            if (ROOT / path).is_dir() and path not in known:
                known.add(path)
                added = [f"{path}/{name}" for name in contents(path)]
                listing = "".join(f"- [{name}]({name})\n" for name in contents(path))
                files.append(File.generated(config, f"{of_site(path)}/index.md", content=f"# {path}\n\n{listing}"))
            for one in added:
                if one not in known:
                    known.add(one)
                    files.append(File.generated(config, of_site(one), abs_src_path=str(ROOT / one)))
                    unread += [one] if one.endswith(".md") else []
    return files


def contents(folder):
    """The files below a folder."""
    found = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file())
    return sorted(str(path) for path in found if "__pycache__" not in path.parts)


def on_page_markdown(markdown, page, config, files):
    """Turns links out of docs/, and into it from outside, to where the site has them."""
    here = of_repository(page.file.src_uri)

    def turned(link):
        path = target(here, link[1])
        uri = of_site(path) + ("/index.md" if (ROOT / path).is_dir() else "")
        relative = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"]({relative}{link[2] or ''})"

    if page.file.src_uri.startswith(OUTSIDE) and not page.file.src_uri.endswith("index.md"):
        return LINK.sub(turned, markdown)
    return LINK.sub(lambda link: turned(link) if target(here, link[1])[:5] != "docs/" else link[0], markdown)


def on_config(config):
    """The navigation, from what there is."""
    pages = sorted(str(path.relative_to(config.docs_dir)) for path in Path(config.docs_dir).rglob("*.md"))
    pages += [f"{OUTSIDE}/{name}" for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")]
    config.nav, placed = [], set()
    for title, patterns in SECTIONS:
        found = [page for pattern in patterns for page in pages if fnmatch(page, pattern)]
        found = [page for page in dict.fromkeys(found) if page not in placed]
        placed |= set(found)
        if found:
            config.nav.append({title: found})
    if lost := [page for page in pages if page not in placed]:
        raise PluginError(f"{', '.join(lost)}: in no section of {os.path.relpath(__file__, ROOT)}")
    return config
