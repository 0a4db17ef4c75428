"""The memory of one request. It lives in a module of the interface's name: componentize-py looks for the resource there."""

from wit_world.exports import hooks
from wit_world.imports import types


class Exchange(hooks.Exchange):
    def __init__(self) -> None:
        self.words = 0

    def on_events(self, events: list[types.Event]) -> hooks.Rewrite:
        return hooks.Rewrite_Pass()
