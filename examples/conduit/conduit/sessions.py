"""Logged in without keeping a token: for browsers, whose scripts had better not have one to lose.

The browser holds the cookie of a session on the server. After a reload the page asks GET /api/session for
the account and a token, which it keeps in memory for the rest of the API.
"""

from starlette.requests import Request
from starlette.responses import Response

from conduit import users
from conduit.auth import new_token
from conduit.documents import Json
from conduit.problems import invalid, unauthorized
from outgrow import Session


async def log_in(request: Request) -> Json:
    # A form on somebody else's page could log its visitor in as another user, but cannot send this type.
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise invalid("body", "must be application/json")
    user = await users.identified(request)
    session: Session = request.scope["session"]  # request.session, with the type that it has here
    session["user"] = user.id
    session.rotate()  # whoever knew its id before has nothing of it
    return users.account(user, new_token(user.id))


async def current(request: Request) -> Json:
    user_id = request.session.get("user")
    if user_id is None:
        raise unauthorized("is missing", "session")
    user = await users.by_id(user_id)
    if user is None:
        raise unauthorized("is invalid", "session")
    answer = users.account(user, new_token(user_id))
    answer.headers["cache-control"] = "no-store"
    return answer


async def log_out(request: Request) -> Response:
    session: Session = request.scope["session"]
    session.destroy()
    return Response(status_code=204)
