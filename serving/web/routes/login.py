"""Where a person gives a key, and takes it back."""

from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from serving.http.auth import Keys
from serving.http.middleware import COOKIE, needed_scope
from serving.web.frame import FORECASTS, HEADERS
from serving.web.pages import page

LONGEST_FORM = 2000
"""Bytes of a form; ours has a key and an address."""


def add_login(router: APIRouter, keys: Keys) -> None:
    @router.api_route("/login", methods=["GET", "HEAD"])
    async def ask(request: Request, next: str = FORECASTS) -> Response:
        if not keys.required:
            return RedirectResponse(_own(next), 303)
        return page("login.html", next=_own(next), said="").response(request, HEADERS)

    @router.post("/login")
    async def login(request: Request) -> Response:
        body = await request.body()
        form = parse_qs(body[:LONGEST_FORM].decode("utf-8", "replace"))
        given, to = (form.get(name, [""])[0] for name in ("key", "next"))
        key = keys.check(given.strip())
        if key is None or key.expired() or needed_scope(FORECASTS) not in key.scopes:
            said = "This is no valid key."
            if key is not None:
                said = (
                    f"The key has expired: {key.expires} was its last day."
                    if key.expired()
                    else f"The pages need a key with the scope '{needed_scope(FORECASTS)}'."
                )
            return page("login.html", next=_own(to), said=said).response(request, HEADERS, 401)
        answer = RedirectResponse(_own(to), 303)
        answer.set_cookie(
            COOKIE, given.strip(), httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return answer

    @router.post("/logout")
    async def logout(request: Request) -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


def _own(address: str) -> str:
    """An address of ours: what a link may have put into `next` leads nowhere else."""
    is_path = address.startswith("/") and address[1:2] not in ("/", "\\")
    return quote(address, safe="/?=&%-._~") if is_path else FORECASTS
