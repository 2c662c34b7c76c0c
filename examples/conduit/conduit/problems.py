"""What the API answers when it does not do what was asked: {"errors": {"title": ["can't be blank"]}}."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request

from conduit.documents import Json
from outgrow import errors


class Problem(Exception):
    """An answer with errors. Raised anywhere below an endpoint; inside a write block it rolls back."""

    def __init__(self, status: int, complaints: Mapping[str, list[str]]) -> None:
        super().__init__(f"{status}: {complaints}")
        self.status = status
        self.complaints = complaints


def unauthorized(what: str, field: str = "token") -> Problem:
    return Problem(401, {field: [what]})


def forbidden(resource: str) -> Problem:
    return Problem(403, {resource: ["forbidden"]})


def not_found(resource: str) -> Problem:
    return Problem(404, {resource: ["not found"]})


def taken(field: str) -> Problem:
    return Problem(409, {field: ["has already been taken"]})


def too_large(field: str, maximum_bytes: int) -> Problem:
    return Problem(413, {field: [f"is too large (maximum is {maximum_bytes} bytes)"]})


def invalid(field: str, what: str) -> Problem:
    return Problem(422, {field: [what]})


async def on_problem(request: Request, problem: Exception) -> Json:
    assert isinstance(problem, Problem)
    return Json({"errors": problem.complaints}, problem.status)


async def on_http_error(request: Request, error: Exception) -> Json:
    """Starlette's own: no such route, or not with this method."""
    assert isinstance(error, HTTPException)
    field = "method" if error.status_code == 405 else "path"
    return Json({"errors": {field: [error.detail.lower()]}}, error.status_code, error.headers)


async def on_unknown(request: Request, error: Exception) -> Json:
    """A row refers to an article that has been deleted in this very moment; or to a user who does not
    exist, which can only be the caller: somebody whose token is good and whose account is gone."""
    assert isinstance(error, errors.ForeignKeyViolation)
    missing = not_found("article") if "article_id" in error.columns else unauthorized("is invalid")
    return await on_problem(request, missing)
