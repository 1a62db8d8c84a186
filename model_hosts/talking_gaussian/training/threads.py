"""Threads for kernels that let go of the interpreter's lock, beside the ones that torch itself has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_given: list[int] = []


def give_cores_to_kernels() -> None:
    """From now on torch's own operations run on one thread, and kernels on as many as torch had.

    torch's threads spin while they wait for each other. Where something else wants a core as well, that costs
    up to twenty times the time of a step; the threads of `each` sleep.
    """
    if not _given:
        _given.append(torch.get_num_threads())
    torch.set_num_threads(1)


def kernel_threads() -> int:
    """On how many threads `each` works."""
    return _given[0] if _given else torch.get_num_threads()


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Does the work for every item, several at a time; the results are in the order of the items."""
    threads = kernel_threads()
    if threads == 1:
        return [work(item) for item in items]
    return list(_pool(threads).map(work, items))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="training")
