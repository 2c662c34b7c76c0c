"""Avatars: what is taken, what is refused, the thumbnails, and how browsers keep them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image

from tests.example.world import Person, World, errors

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZES = (512, 256, 128, 64, 32)


def picture(kind: str = "PNG", size: tuple[int, int] = (300, 200), mode: str = "RGB") -> bytes:
    out = BytesIO()
    Image.new(mode, size, "teal" if mode != "L" else 90).save(out, kind)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


async def put(
    person: Person, body: bytes, status: int = 200, method: str = "PUT"
) -> dict[str, dict[str, str]]:
    answer: dict[str, dict[str, str]] = await person.request(
        method, "/api/user/avatar", status=status, content=body
    )
    return answer


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
async def test_an_upload_becomes_thumbnails(world: World, ann: Person, kind: str) -> None:
    article = await ann.write()
    await world.stranger.get(f"/api/articles/{article['slug']}")
    user = (await put(ann, picture(kind)))["user"]
    assert user["username"] == ann.name and user["image"].endswith("/128.webp")
    assert (await ann.get("/api/user"))["user"]["image"] == user["image"]
    seen = await world.stranger.get(f"/api/articles/{article['slug']}")
    assert seen["article"]["author"]["image"] == user["image"]
    await world.og.queue.drain()
    for size in SIZES:
        answer = await world.stranger.client.get(user["image"].replace("/128.webp", f"/{size}.webp"))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/webp"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        with Image.open(BytesIO(answer.content)) as image:
            assert (image.format, image.size) == ("WEBP", (size, size))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
async def test_colours_of_every_kind(ann: Person, world: World, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = (await put(ann, picture(kind, (64, 64), mode), method="POST"))["user"]["image"]
    assert (await world.stranger.client.get(image)).status_code == 200


async def test_until_the_thumbnail_is_there(world: World, ann: Person) -> None:
    """The picture itself is shown, and nobody keeps it."""
    async with world.og.db.write() as tx:
        row = {"id": 7, "size": 512, "user_id": await _id_of(world, ann), "data": b"webp"}
        await tx.execute(world.modules["avatars"].ADD_PICTURE, **row)
    answer = await world.stranger.client.get("/avatars/7/64.webp")
    assert (answer.content, answer.headers["cache-control"]) == (b"webp", "no-cache")
    assert answer.headers["etag"] == '"7-512"'
    async with world.og.db.write() as tx:
        await tx.execute(world.modules["avatars"].DELETE_OLDER, owner=row["user_id"], avatar_id=8)


async def test_browsers_ask_whether_it_is_still_the_same(world: World, ann: Person) -> None:
    path = (await put(ann, picture()))["user"]["image"]
    await world.og.queue.drain()
    first = await world.stranger.client.get(path)
    for held in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        again = await world.stranger.client.get(path, headers={"If-None-Match": held})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    other = await world.stranger.client.get(path, headers={"If-None-Match": '"other"'})
    assert other.content == first.content


async def test_a_new_avatar_replaces_the_old(world: World, ann: Person) -> None:
    old = (await put(ann, picture()))["user"]["image"]
    new = (await put(ann, picture("JPEG")))["user"]["image"]
    assert new != old
    await world.og.queue.drain()
    assert (await world.stranger.client.get(new)).status_code == 200
    assert await world.stranger.get(old, 404) == errors(avatar="not found")
    ((count,),) = await world.truth(
        "SELECT count(*) FROM avatars WHERE user_id = :id", id=await _id_of(world, ann)
    )
    assert count == len(SIZES)


async def test_making_thumbnails_again_does_no_harm(world: World, ann: Person) -> None:
    path = (await put(ann, picture()))["user"]["image"]
    await world.og.queue.drain()
    first = (await world.stranger.client.get(path)).content
    task = world.modules["avatars"].make_thumbnails
    await task(int(path.split("/")[2]))
    await task(1)  # one that was replaced
    assert (await world.stranger.client.get(path)).content == first


async def test_pictures_are_stripped_of_what_cameras_note(world: World, ann: Person) -> None:
    """And turned as they were held."""
    out, exif = BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "the maker of the camera"
    image = Image.new("RGB", (100, 100), "white")
    image.paste("black", (0, 0, 100, 50))
    image.save(out, "JPEG", exif=exif)
    path = (await put(ann, out.getvalue()))["user"]["image"]
    with Image.open(BytesIO((await world.stranger.client.get(path)).content)) as shown:
        assert not shown.getexif()
        width, height = shown.size
        left, right = (shown.convert("L").getpixel((x, height // 2)) for x in (width // 8, width * 7 // 8))
        assert isinstance(left, int) and isinstance(right, int) and left > 200 and right < 50


async def test_what_is_no_picture(ann: Person) -> None:
    no_picture = errors(avatar="is not a picture (JPEG, PNG, WEBP, GIF)")
    assert await put(ann, b"", 422) == errors(avatar="can't be blank")
    for body in (b"<svg/>", b"GIF89a", picture()[:60], picture("BMP"), picture("TIFF"), b"\0" * 1000):
        assert await put(ann, body, 422) == no_picture
    for width, height in ((60_000, 60_000), (6_000, 6_000)):
        assert await put(ann, bomb(width, height), 422) == errors(avatar="has more than 25000000 pixels")
    too_large = errors(avatar="is too large (maximum is 5000000 bytes)")
    assert await put(ann, b"x" * 5_000_001, 413) == too_large
    assert (await ann.get("/api/user"))["user"]["image"] is None


async def test_addresses_that_show_nothing(world: World) -> None:
    missing = errors(avatar="not found")
    for path in ("/avatars/1/64.webp", "/avatars/1/65.webp", f"/avatars/{10**30}/64.webp"):
        assert await world.stranger.get(path, 404) == missing
    assert await world.stranger.get("/avatars/x/64.webp", 404) == errors(path="not found")


async def _id_of(world: World, person: Person) -> int:
    ((found,),) = await world.truth("SELECT id FROM users WHERE username = :name", name=person.name)
    return int(found)
