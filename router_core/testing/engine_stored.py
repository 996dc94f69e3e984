"""The responses a simulated engine keeps for `/v1/responses/{id}`: its own, nobody else's."""

from __future__ import annotations

from typing import Any

_KEPT_RESPONSES = 10_000


class StoredResponses:
    """Response objects by id, the oldest forgotten first."""

    def __init__(self) -> None:
        self._responses: dict[str, dict[str, Any]] = {}

    def store(self, response: dict[str, Any]) -> None:
        """Keep a response object, or its newer state."""
        self._responses[response["id"]] = response
        if len(self._responses) > _KEPT_RESPONSES:
            del self._responses[next(iter(self._responses))]

    def answer(self, method: str, segments: list[str]) -> tuple[int, dict[str, Any] | str]:
        """Return status and document, or error message, of a request for `/v1/responses/` and these segments."""
        stored = self._responses.get(segments[0])
        if stored is None:
            return 404, f"Response with id '{segments[0]}' not found."
        match (method, *segments[1:]):
            case ("GET",):
                return 200, stored
            case ("DELETE",):
                del self._responses[segments[0]]
                return 200, {"id": segments[0], "object": "response", "deleted": True}
            case ("POST", "cancel"):
                if stored["status"] == "completed":
                    return 400, "Cannot cancel a synchronous response."
                self.store(stored | {"status": "cancelled"})
                return 200, self._responses[segments[0]]
            case ("GET", "input_items"):
                return 200, {"object": "list", "data": [], "has_more": False}
        return 405, {"detail": "Method Not Allowed"}
