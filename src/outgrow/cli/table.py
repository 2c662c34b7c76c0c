"""Rows under headings, as wide as their longest cells."""

from __future__ import annotations

from collections.abc import Sequence

import click

_GAP = "   "


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """The lines of a table. Cells may be coloured; columns in `right` are figures."""
    widths = [
        max(len(click.unstyle(row[column])) for row in (headings, *rows)) for column in range(len(headings))
    ]
    head = _row([click.style(each, dim=True) for each in headings], widths, right)
    return "\n".join([head, *(_row(row, widths, right) for row in rows)])


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    padded: list[str] = []
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - len(click.unstyle(cell)))
        padded.append(space + cell if column in right else cell + space)
    return _GAP.join(padded).rstrip()
