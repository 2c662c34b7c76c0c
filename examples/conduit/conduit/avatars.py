"""Avatars: an upload is checked and made small at once; its thumbnails are a queued task's work.

    PUT /api/user/avatar ─► check, 512 x 512 ─► one transaction: picture, user's image, message
                                                      message ─► task ─► 256, 128, 64, 32
    GET /avatars/{id}/{size}.webp    the thumbnail, and until it is there the picture itself

Pictures are in the database, so every server has them. Each upload has an address of its own, so an
answer may be kept for ever.
"""

import asyncio
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import sqlalchemy as sa
from PIL import Image, ImageOps
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too
from starlette.requests import Request
from starlette.responses import Response

from conduit import changes, og
from conduit.auth import known_viewer, token_of
from conduit.documents import Json, User
from conduit.problems import invalid, not_found, unauthorized
from conduit.settings import PUBLIC_URL
from conduit.tables import avatars, users
from conduit.validation import read_body
from outgrow import ETag

UPLOAD_BYTES_MAX = 5_000_000
PICTURE = 512
THUMBNAILS = (256, 128, 64, 32)
SHOWN = 128
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")

# A few kilobytes can claim to be a picture of gigabytes: refused by its header, before it is decoded.
Image.MAX_IMAGE_PIXELS = 25_000_000
warnings.simplefilter("error", Image.DecompressionBombWarning)
_threads = ThreadPoolExecutor(1, thread_name_prefix="pillow")  # one at a time bounds the memory, too

ADD_PICTURE = insert(avatars).on_conflict_do_nothing()
GET_PICTURE = (
    sa.select(avatars.c.size, avatars.c.data)
    .where(avatars.c.id == bindparam("avatar_id"), avatars.c.size.in_([bindparam("size"), PICTURE]))
    .order_by(avatars.c.size)
    .limit(1)
)
GET_ORIGINAL = sa.select(avatars.c.user_id, avatars.c.data).where(
    avatars.c.id == bindparam("avatar_id"), avatars.c.size == PICTURE
)
DELETE_OLDER = sa.delete(avatars).where(
    avatars.c.user_id == bindparam("owner"), avatars.c.id < bindparam("avatar_id")
)
SET_IMAGE = (
    sa.update(users)
    .where(users.c.id == bindparam("user_id"))
    .values(image=bindparam("url"))
    .returning(users.c.email, users.c.username, users.c.bio, users.c.image)
)


async def upload(request: Request) -> Json:
    """The body is the picture itself: JPEG, PNG, WebP or GIF."""
    viewer = known_viewer(request)
    body = await read_body(request, UPLOAD_BYTES_MAX, "avatar")
    picture = await _in_thread(body, [PICTURE])
    avatar_id = og.ids.next()
    url = f"{PUBLIC_URL}/avatars/{avatar_id}/{SHOWN}.webp"
    async with og.db.write(key=viewer) as tx:
        user = await tx.one(SET_IMAGE, user_id=viewer, url=url)
        if user is None:
            raise unauthorized("is invalid")
        await tx.execute(ADD_PICTURE, id=avatar_id, size=PICTURE, user_id=viewer, data=picture[PICTURE])
        og.queue.enqueue(make_thumbnails, avatar_id)
        og.cache.invalidate(changes.profile(viewer))
    return Json({"user": User(user.email, token_of(request), user.username, user.bio, user.image)})


@og.queue.task(name="make_thumbnails")
async def make_thumbnails(avatar_id: int) -> None:
    """Make the sizes in which an avatar is shown, and remove what it replaces."""
    async with og.db.read() as tx:
        original = await tx.one(GET_ORIGINAL, avatar_id=avatar_id)
    if original is None:  # replaced meanwhile
        return
    made = await _in_thread(original.data, THUMBNAILS)
    rows = [
        {"id": avatar_id, "size": size, "user_id": original.user_id, "data": data}
        for size, data in made.items()
    ]
    async with og.db.write(key=original.user_id) as tx:
        await tx.many(ADD_PICTURE, rows)
        await tx.execute(DELETE_OLDER, owner=original.user_id, avatar_id=avatar_id)


async def show(request: Request) -> Response:
    avatar_id, size = request.path_params["avatar_id"], request.path_params["size"]
    if avatar_id >= 2**63 or size not in (PICTURE, *THUMBNAILS):
        raise not_found("avatar")
    async with og.db.read() as tx:
        found = await tx.one(GET_PICTURE, avatar_id=avatar_id, size=size)
    if found is None:
        raise not_found("avatar")
    final = found.size == size  # else its thumbnail is under way
    tag = ETag(f"{avatar_id}-{found.size}")
    headers = {
        "ETag": str(tag),
        "Cache-Control": "public, max-age=31536000, immutable" if final else "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if tag.held(request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(found.data, headers=headers, media_type="image/webp")


async def _in_thread(data: bytes, sizes: tuple[int, ...] | list[int]) -> dict[int, bytes]:
    return await asyncio.get_running_loop().run_in_executor(_threads, _squares, data, sizes)


def _squares(data: bytes, sizes: tuple[int, ...] | list[int]) -> dict[int, bytes]:
    """The picture as WebP squares, without what a camera has noted in it. Raises Problem 422."""
    if not data:
        raise invalid("avatar", "can't be blank")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            image.draft("RGB", (2 * PICTURE, 2 * PICTURE))  # of a JPEG, decode no more than that
            upright = ImageOps.exif_transpose(image).convert("RGBA" if image.has_transparency_data else "RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise invalid("avatar", f"has more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError):
        raise invalid("avatar", f"is not a picture ({', '.join(FORMATS)})") from None
    return {size: _square(upright, size) for size in sizes}


def _square(image: Image.Image, size: int) -> bytes:
    out = BytesIO()
    ImageOps.fit(image, (size, size)).save(out, "WEBP", quality=85)
    return out.getvalue()
