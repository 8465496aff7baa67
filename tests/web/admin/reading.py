"""Reads a page as a browser does, to look for what must not be in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "img", "hr"}


@dataclass
class Tag:
    """An element: its name, its attributes, and the text within."""

    name: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Html(HTMLParser):
    """A page's elements in their order.

    :param unclosed: elements that were not closed, or not in order
    """

    page: str
    tags: list[Tag] = field(default_factory=list)
    unclosed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Tag] = []
        self.feed(self.page)
        self.close()
        self.unclosed += [tag.name for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        found = Tag(tag, {name: value or "" for name, value in attrs})
        self.tags.append(found)
        if tag not in VOID:
            self._open.append(found)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element of SVG that closes itself."""
        self.tags.append(Tag(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Close an element; a blank keeps the texts of two apart."""
        if tag in ("td", "th", "li", "dd"):
            self.handle_data(" ")
        if self._open and self._open[-1].name == tag:
            self._open.pop()
        else:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        """Note a text, for all elements that it is in."""
        for each in self._open:
            each.text += data

    def found(self, name: str, **attributes: str) -> list[Tag]:
        """Return the elements with a name and attributes; ``_`` stands for ``-`` in these."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [
            tag
            for tag in self.tags
            if tag.name == name
            and all(
                value in tag.attributes.get(key, "").split()
                if key == "class"
                else tag.attributes.get(key) == value
                for key, value in wanted.items()
            )
        ]

    def problems(self) -> list[str]:
        """Return what a strict Content-Security-Policy forbids, and what is not well-formed."""
        found = [f"<{name}> is not closed" for name in self.unclosed]
        for tag in self.tags:
            found += [
                f"<{tag.name} {name}>"
                for name, value in tag.attributes.items()
                if name == "style" or name.startswith("on") or "javascript:" in value.lower()
            ]
            if tag.name in ("script", "iframe", "object", "embed", "base"):
                found.append(f"<{tag.name}>")
        ids = [tag.attributes["id"] for tag in self.tags if "id" in tag.attributes]
        found += [f"two have the id {one}" for one in ids if ids.count(one) > 1]
        named = " ".join(tag.attributes.get("aria-labelledby", "") for tag in self.tags).split()
        return found + [f"nothing has the id {one}" for one in named if one not in ids]
