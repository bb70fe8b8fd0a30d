"""pyroute2's blocking IPRoute, usable from a thread whose asyncio loop runs.

IPRoute runs an event loop of its own for every call and refuses to where another one runs already, so each call is made
in one thread of its own and awaited there. It must not know what is asked.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyroute2 import IPRoute


class RouteSocket:
    """Has every method of IPRoute; answers that come piecemeal come as a list. Belongs to the namespace of its maker."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="rtnetlink")
        self._route = self._worker.submit(IPRoute).result()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            return self._worker.submit(self._call, name, arguments, options).result()

        return call

    def _call(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        answer = getattr(self._route, name)(*arguments, **options)
        return list(answer) if isinstance(answer, Iterator) else answer

    def close(self) -> None:
        """Close the socket and end the thread."""
        self._worker.submit(self._route.close).result()
        self._worker.shutdown()
