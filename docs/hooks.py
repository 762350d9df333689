"""What the documentation's build does besides; mkdocs.yml names it."""

import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Pages of the repository that are not under docs, and what they link to.
OUTSIDE = ('*.md', 'LICENSE', 'configs/*/README.md', 'configs/*/*.py')
# What docstrings have of reStructuredText, and what Markdown has instead.
MARKUP = [
    (r':\w+:`~?\.?([^`]+)`', r'`\1`'),
    (r'`([^`<]+?)\s*<(http[^>]+)>`_', r'[\1](\2)'),
    (r'::$', ':'),
    (r'\]\[', r']\\['),
]


def on_files(files, config):
    """Add the pages of the repository to those of the docs folder."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, **_):
    """Turn links into links of the site, where docs is the root."""
    markdown = re.sub(r'\]\(((?:\.\./)*)docs/', r'](\1', markdown)
    up = '../' * page.file.src_uri.count('/')
    return markdown.replace(f']({up}../', f']({up}')


class Docstrings(griffe.Extension):
    """Rewrites docstrings in Markdown."""

    def on_object(self, *, obj, **_):
        """Rewrite one docstring."""
        if obj.docstring:
            for pattern, replacement in MARKUP:
                obj.docstring.value = re.sub(
                    pattern, replacement, obj.docstring.value, flags=re.M
                )
