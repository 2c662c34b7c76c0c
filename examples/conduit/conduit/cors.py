"""Every web page may call the API, and may read the bookmark to send it back.

Said with each answer, asked or not: then answers to pages and to other programs are the same, and a cache
between needs no `Vary: Origin`.
"""

from collections.abc import Awaitable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALLOWED = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"Outgrow-Bookmark"),
]


class OpenToAll(CORSMiddleware):
    """Starlette's middleware answers what browsers ask beforehand; the rest is two constant headers."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Outgrow-Bookmark"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            await super().__call__(scope, receive, send)
            return

        def tell(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *ALLOWED]}
            return send(message)

        await self.app(scope, receive, tell)
