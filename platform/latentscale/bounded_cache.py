"""A bounded least-recently-used cache that is pickled empty."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def _one(_value: Any) -> int:
    return 1


class BoundedCache(Generic[K, V]):
    """Keeps the most recently used entries up to a total weight. Thread-safe; a pickled copy starts empty.

    Args:
        capacity: maximum total weight; one entry is always kept, even if it is heavier.
        weight: returns the weight of a value, by default 1; a module-level function, so that it can be pickled.
    """

    def __init__(self, capacity: int, weight: Callable[[V], int] = _one) -> None:
        self._capacity = capacity
        self._weight = weight
        self._start_empty()

    def _start_empty(self) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of ``key``; calls ``make()`` if it is not in the cache."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
            value = make()
            self._entries[key] = value
            self._total += self._weight(value)
            while self._total > self._capacity and len(self._entries) > 1:
                _, dropped = self._entries.popitem(last=False)
                self._total -= self._weight(dropped)
            return value

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        return {"capacity": self._capacity, "weight": self._weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._capacity = state["capacity"]
        self._weight = state["weight"]
        self._start_empty()
