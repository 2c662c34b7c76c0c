"""People doing whatever they like: after each step every answer is what the database says."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.example.truth import assert_counts, assert_same_answers
from tests.example.world import Person, World, unique

pytestmark = pytest.mark.asyncio(loop_scope="session")

STEPS = 40


class Life:
    """Some people, what they have written, and a random thing for one of them to do."""

    def __init__(self, world: World, people: list[Person], seed: int) -> None:
        self.world = world
        self.people = people
        self.slugs: dict[str, Person] = {}
        self.random = random.Random(seed)

    async def step(self) -> None:
        """One thing that somebody does."""
        person = self.random.choice(self.people)
        actions = [self.write, self.favorite, self.favorite, self.follow, self.comment, self.edit]
        actions += [self.uncomment, self.delete, self.rename, self.describe]
        await self.random.choice(actions)(person)

    async def write(self, person: Person) -> None:
        tags = self.random.sample(["common", "dragons", "海"], self.random.randint(0, 3))
        title = self.random.choice(["Same title", unique("title")])
        self.slugs[(await person.write(title, tagList=tags))["slug"]] = person

    async def favorite(self, person: Person) -> None:
        if slug := self._any():
            method = self.random.choice(["POST", "POST", "DELETE"])
            await self._try(person, method, f"/api/articles/{slug}/favorite", {200, 404})

    async def follow(self, person: Person) -> None:
        other = self.random.choice(self.people)
        method = self.random.choice(["POST", "POST", "DELETE"])
        await self._try(person, method, f"/api/profiles/{other.name}/follow", {200, 404})

    async def comment(self, person: Person) -> None:
        if slug := self._any():
            path = f"/api/articles/{slug}/comments"
            await self._try(person, "POST", path, {201, 404}, {"comment": {"body": unique("remark")}})

    async def uncomment(self, person: Person) -> None:
        if slug := self._any():
            path = f"/api/articles/{slug}/comments"
            there = (await self._try(person, "GET", path, {200, 404})).get("comments", [])
            for comment in self.random.sample(there, min(len(there), 1)):
                await self._try(person, "DELETE", f"{path}/{comment['id']}", {204, 403, 404})

    async def edit(self, person: Person) -> None:
        if slug := self._any():
            tags = self.random.sample(["common", "dragons", "海"], self.random.randint(0, 3))
            change: dict[str, Any] = {"body": unique("body"), "tagList": tags}
            if self.random.random() < 0.5:
                change = {"title": self.random.choice(["Same title", unique("title")])}
            answer = await self._try(
                person, "PUT", f"/api/articles/{slug}", {200, 403, 404}, {"article": change}
            )
            if "article" in answer.get("article", {}) or answer.get("article"):
                self.slugs[answer["article"]["slug"]] = person

    async def delete(self, person: Person) -> None:
        if (slug := self._any()) and self.random.random() < 0.5:
            await self._try(person, "DELETE", f"/api/articles/{slug}", {204, 403, 404})

    async def rename(self, person: Person) -> None:
        new = unique("person")
        await person.put("/api/user", {"user": {"username": new}})
        person.name = new

    async def describe(self, person: Person) -> None:
        await person.put("/api/user", {"user": {"bio": unique("bio")}})

    async def compare(self, viewers: int) -> None:
        """Look at everything with the eyes of a stranger and of some of them."""
        ids = [row[0] for row in await self.world.truth("SELECT id FROM users ORDER BY id DESC LIMIT 4")]
        names = [person.name for person in self.people]
        for viewer in [None, *ids[:viewers]]:
            await assert_same_answers(self.world, viewer, names, list(self.slugs)[-8:])

    def _any(self) -> str | None:
        return self.random.choice(list(self.slugs)) if self.slugs else None

    async def _try(
        self, person: Person, method: str, path: str, allowed: set[int], document: Any = None
    ) -> dict[str, Any]:
        answer = await person.client.request(method, path, json=document)
        assert answer.status_code in allowed, (method, path, answer.status_code, answer.text)
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found if answer.status_code < 300 else {}


async def test_step_by_step(world: World) -> None:
    life = Life(world, [await world.register() for _ in range(4)], seed=1)
    for step in range(STEPS):
        await life.step()
        await life.compare(viewers=1 if step % 5 else 4)
    await assert_counts(world)


async def test_all_at_once(world: World) -> None:
    """Readers fill the cache while writers change what it holds; at rest it holds the truth."""
    people = [await world.register() for _ in range(4)]
    lives = [Life(world, people, seed) for seed in range(4)]
    for life in lives:
        life.slugs = lives[0].slugs
        await life.write(people[0])
    writing = asyncio.gather(*(_live(life) for life in lives))
    while not writing.done():
        for person in people:
            await person.get("/api/articles")
            await person.get("/api/articles/feed")
            await person.get("/api/articles", author=people[0].name)
            await asyncio.sleep(0)  # reading without a server never waits for anything
    await writing
    await lives[0].compare(viewers=4)
    await assert_counts(world)


async def _live(life: Life) -> None:
    for _ in range(20):
        await life.step()
