"""Pages as bytes: templates, how figures are written, compression, what a browser may do."""

import gzip
import re
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
STATIC = "/static"
HTML = "text/html; charset=utf-8"
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
"""Where there is no figure."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content security policy of a page: scripts and styles are files of ours, and nothing is inline."""


@dataclass(frozen=True)
class Encoded:
    """A body, whole and compressed."""

    body: bytes
    media_type: str
    packed: bytes = field(init=False)
    tag: str = field(init=False)
    """The ETag of both."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "packed", gzip.compress(self.body, 6, mtime=0))
        object.__setattr__(self, "tag", f'"{blake2b(self.body, digest_size=12).hexdigest()}"')

    def response(
        self,
        request: Request,
        headers: Mapping[str, str] | None = None,
        status: int = 200,
        kept: str = "private, no-cache",
    ) -> Response:
        """The answer to a request: compressed where the client takes it, 304 where it has it.

        Args:
            kept: the answer's Cache-Control.
        """
        given = {"ETag": self.tag, "Cache-Control": kept, "Vary": "Accept-Encoding, Cookie"}
        given |= headers or {}
        if status == 200 and request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=given)
        body = self.body
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = self.packed
            given["Content-Encoding"] = "gzip"
        return Response(body, status, given, self.media_type)


def in_parts(
    request: Request, parts: AsyncIterator[bytes], headers: Mapping[str, str]
) -> StreamingResponse:
    """A page each part of which is sent when it is there: compressed where the client takes it."""
    given = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding, Cookie", **headers}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return StreamingResponse(parts, 200, given, HTML)

    async def packed() -> AsyncIterator[bytes]:
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)  # with gzip's header
        async for part in parts:
            yield packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH)
        yield packer.flush()

    return StreamingResponse(packed(), 200, {**given, "Content-Encoding": "gzip"}, HTML)


def whole(path: Path) -> Encoded:
    """A page that is a file already."""
    return Encoded(path.read_bytes(), HTML)


@cache
def static_files() -> dict[str, Encoded]:
    """What pages load, by its path below `STATIC`."""
    folder = HERE / "static"
    paths = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".js", ".css", ".LICENSE")
    ]
    return {
        path.relative_to(folder).as_posix(): Encoded(
            path.read_bytes(), guess_type(path.name)[0] or "text/plain; charset=utf-8"
        )
        for path in paths
    }


def static(path: str) -> str:
    """The address of a file that pages load: another one once its content is another."""
    return f"{STATIC}/{path}?v={static_files()[path].tag[1:9]}"


def fixed(value: float | None, decimals: int = 2) -> str:
    """`1,234.50`; with a minus for a minus."""
    return NONE if value is None else f"{value:,.{decimals}f}".replace("-", MINUS)


def signed(value: float | None, decimals: int = 2) -> str:
    """`+0.21`, `−0.03`, and `0.00` where nothing is left of it."""
    if value is None:
        return NONE
    text = f"{value:+,.{decimals}f}"
    return text[1:] if not text.strip("+-0.,") else text.replace("-", MINUS)


def percent(value: float | None, decimals: int = 2) -> str:
    """A fraction in per cent, signed, without the sign of per cent, which the heading has."""
    return signed(None if value is None else 100 * value, decimals)


def share(value: float | None, decimals: int = 1) -> str:
    """A share in per cent, unsigned: `52.3%`."""
    return NONE if value is None else f"{100 * value:.{decimals}f}%"


def known(value: float | None) -> float | None:
    """None for a NaN."""
    return None if value is None or value != value else value


def sentence(text: str) -> str:
    """With a capital letter, a full stop and minus signs."""
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, f"{text[0].upper()}{text[1:]}.")


def json_data(document: Any) -> Markup:
    """A document for a script to read from the page: nothing in it ends the element that holds it."""
    return Markup(orjson.dumps(document).decode().replace("<", "\\u003c"))


@cache
def _environment() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # an upgrade beneath a running service does not mix two versions
    )
    templates.filters |= {"fixed": fixed, "signed": signed, "percent": percent, "share": share}
    templates.filters |= {"known": known, "sentence": sentence, "json": json_data}
    templates.globals |= {"static": static, "NONE": NONE}
    return templates


def page(template: str, **values: Any) -> Encoded:
    """A page out of its template."""
    text = _environment().get_template(template).render(**values)
    return Encoded(text.encode(), HTML)
