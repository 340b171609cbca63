"""Who may come in, and how much may be sent: checked before any route is reached."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

#: Fewest characters of a token.
LEAST_TOKEN = 16
COOKIE = "steer_env"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    # No script at all.
    "content-security-policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Wraps the application.

    A token comes once as `/?token=...` and stays as a cookie that other sites cannot send. Requests that
    another site's page makes, that name another machine, or that are too large are refused.

    Args:
        app: The application.
        token: None lets in everybody who reaches the port.
        loopback: Answer only to the names of this machine.
        most_bytes: Of one request.
    """

    def __init__(self, app: Any, *, token: str | None, loopback: bool, most_bytes: int) -> None:
        self.app, self.token, self.loopback, self.most_bytes = app, token, loopback, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def told(message: Scope) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, told)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.loopback and urlsplit(f"//{host}").hostname not in _LOCAL:
            return PlainTextResponse("This page answers to the names of this machine alone.", 421)
        if scope["method"] not in ("GET", "HEAD"):
            if self._from_elsewhere(headers, host):
                return PlainTextResponse("Forms of other sites are refused.", 403)
            length = headers.get("content-length", "")
            if not length.isdecimal():
                return PlainTextResponse("The length of what is sent must be known.", 411)
            if int(length) > self.most_bytes:
                return PlainTextResponse(f"Larger than {self.most_bytes >> 20} MiB.", 413)
        return None if self.token is None else self._login(scope, headers)

    @staticmethod
    def _from_elsewhere(headers: Headers, host: str) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        return (origin is not None and urlsplit(origin).netloc != host) or site not in (
            None,
            "same-origin",
            "none",
        )

    def _login(self, scope: Scope, headers: Headers) -> Response | None:
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if self._is_token(cookie):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] == "GET" and self._is_token(given):
            answer = RedirectResponse(scope["path"], 303)  # the token leaves the address
            answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return answer
        return PlainTextResponse("A token is needed: open the address that steer-env serve printed.", 401)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), str(self.token).encode())
