"""Threads for kernels that let go of the interpreter's lock, beside the ones that torch itself has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Does the work for every item, on as many threads as torch may use; results in the order of the items.

    The threads sleep while there is nothing to do. torch does nothing meanwhile, so the two do not compete.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(item) for item in items]
    return list(_pool(threads).map(work, items))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="training")
