"""The cheapest assignment of tracks to detections. SciPy has one, too, whose import takes perceptiond half a second."""

from __future__ import annotations

from math import inf


def assign(cost: list[list[float]]) -> list[tuple[int, int]]:
    """The pairs (row, column) of a finite `cost` (N, M) that have the least sum: min(N, M) pairs, by row.

    By shortest augmenting paths (Crouse, On implementing 2D rectangular assignment algorithms, 2016)."""
    rows, columns = len(cost), len(cost[0])
    if rows > columns:
        return sorted((row, column) for column, row in assign([list(each) for each in zip(*cost, strict=True)]))
    prices = [0.0] * rows, [0.0] * columns
    column_of, row_of = [-1] * rows, [-1] * columns
    for start in range(rows):
        length, before, done = _shortest_path(cost, *prices, row_of, start)
        end = done[-1]
        prices[0][start] += length[end]
        for column in done[:-1]:
            prices[0][row_of[column]] += length[end] - length[column]
            prices[1][column] -= length[end] - length[column]
        while end >= 0:  # back along the path: each row takes the next column
            row = before[end]
            row_of[end], column_of[row], end = row, end, column_of[row]
    return [*enumerate(column_of)]


def _shortest_path(
    cost: list[list[float]], row_prices: list[float], column_prices: list[float], row_of: list[int], start: int
) -> tuple[list[float], list[int], list[int]]:
    """Dijkstra from a row to the nearest column without a row, over cost less prices, which is ≥ 0: the length of the
    way to each column, the row before it, and the columns in the order in which they were reached for good."""
    length, before = [inf] * len(row_of), [-1] * len(row_of)
    left, done, row, so_far = [*range(len(row_of))], list[int](), start, 0.0
    while row >= 0:
        nearest, least, base = -1, inf, so_far - row_prices[row]
        costs = cost[row]
        for column in left:
            way = base + costs[column] - column_prices[column]
            if way < length[column]:
                length[column], before[column] = way, row
            if length[column] < least:
                nearest, least = column, length[column]
        left.remove(nearest)
        done.append(nearest)
        row, so_far = row_of[nearest], least
    return length, before, done
