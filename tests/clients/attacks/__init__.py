"""The rows of attack.py, one file for each subject. A scene is a function that gets the `Rows` it reports to."""
import contextlib
import subprocess
import threading

import rig as rigs


class Rows(rigs.Checks):
    """One line for each case: what was tried, and what came of it. Each thread plays a scene of its own."""

    def __init__(self):
        super().__init__()
        self._here = threading.local()

    @property
    def scene(self):
        return self._here.__dict__.get("scene", "")

    @scene.setter
    def scene(self, name):
        self._here.scene = name

    def case(self, what, judge):
        """`judge()` gives (is it right, the outcome in words)."""
        try:
            right, outcome = judge()
        except (OSError, ValueError, rigs.Failed, subprocess.SubprocessError) as problem:
            right, outcome = False, f"{type(problem).__name__}: {problem}"
        self.that(right, f"{self.scene} {what}: {outcome}")

    @contextlib.contextmanager
    def agent(self, tiers, server=None, **more):
        """An agent whose tiers can all answer."""
        rig = rigs.Rig(tiers, {"drain": "1s", **(server or {})}, quiet=True, **more)
        with rig:
            rig.until("all tiers can answer", lambda: all(tier["routable"] for tier in rig.status()["tiers"]), 30)
            yield rig
        self.nothing_left(rig)

    def nothing_left(self, rig):
        if rig.left:
            self.scene, scene = f"{self.scene} (afterwards)", self.scene
            super().nothing_left(rig)
            self.scene = scene

    def play(self, name, scene):
        self.scene = name
        try:
            scene(self)
        except rigs.Failed as problem:
            self.that(False, f"{name} {scene.__doc__ or scene.__name__}: {problem}")


def lost(replies):
    """The answers that are not 200, as words."""
    return [str(reply) for reply in replies if reply.status != 200]
