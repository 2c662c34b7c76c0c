"""The application: its routes, the hottest first, and what is around them."""

from importlib import import_module

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route

from conduit import articles, avatars, comments, favorites, og, profiles, sessions, tags, users
from conduit.anonymous import SESSION, AnonymousAnswers
from conduit.cors import OpenToAll
from conduit.documents import Json
from conduit.problems import Problem, on_http_error, on_problem, on_unknown
from outgrow import errors

import_module("conduit.rows")  # what changes of rows mean, whoever makes them


async def index(request: Request) -> Json:
    """For whoever opens it in a browser."""
    return Json({"conduit": "the RealWorld API", "try": ["/api/articles", "/api/tags", "/health/deep"]})


app = Starlette(
    routes=[
        Route("/api/articles", articles.show_list),
        Route("/api/articles", articles.create, methods=["POST"]),
        Route("/api/articles/feed", articles.show_feed),
        Route("/api/articles/{slug}", articles.show),
        Route("/api/articles/{slug}", articles.change, methods=["PUT"]),
        Route("/api/articles/{slug}", articles.delete, methods=["DELETE"]),
        Route("/api/tags", tags.show_list),
        Route("/api/articles/{slug}/comments", comments.show),
        Route("/api/articles/{slug}/comments", comments.add, methods=["POST"]),
        Route("/api/articles/{slug}/comments/{number}", comments.delete, methods=["DELETE"]),
        Route("/api/articles/{slug}/favorite", favorites.favorite, methods=["POST"]),
        Route("/api/articles/{slug}/favorite", favorites.unfavorite, methods=["DELETE"]),
        Route("/api/user", users.current),
        Route("/api/user", users.change, methods=["PUT"]),
        Route("/api/user/avatar", avatars.upload, methods=["PUT", "POST"]),
        Route("/api/users", users.register, methods=["POST"]),
        Route("/api/users/login", users.login, methods=["POST"]),
        Route(SESSION, sessions.log_in, methods=["POST"]),
        Route(SESSION, sessions.current),
        Route(SESSION, sessions.log_out, methods=["DELETE"]),
        Route("/api/profiles/{username}", profiles.show),
        Route("/api/profiles/{username}/follow", profiles.follow, methods=["POST"]),
        Route("/api/profiles/{username}/follow", profiles.unfollow, methods=["DELETE"]),
        Route("/avatars/{avatar_id:int}/{size:int}.webp", avatars.show),
        Route("/", index),
    ],
    middleware=[*([Middleware(AnonymousAnswers)] if og.cache.enabled else []), Middleware(OpenToAll)],
    exception_handlers={
        Problem: on_problem,
        HTTPException: on_http_error,
        errors.ForeignKeyViolation: on_unknown,
    },
    lifespan=og.lifespan,
)
og.install(app)  # request scope, consistency, /health and /metrics
