"""Node and what npm installs for it: the folders that run.py has prepared, and the reason where it could not.

Node itself comes from requirements.txt, in the venv: the tests depend on no Node of the machine.
"""

import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
NODE = Path(sys.executable).parent / "node"


def installed(name):
    """The folder that package-lock.json of `name` was installed into; the test is skipped with the reason where it was not."""
    folder = Path(os.environ.get("TIDEGATE_TEST_NPM_" + name.upper(), "") or "missing")
    if not (folder / "node_modules").is_dir():
        raise unittest.SkipTest("npm could not install {}/package-lock.json: {}".format(name, folder))
    return folder


class Workshop:
    """A folder of its own with the scripts, where they find what npm installed."""

    def __init__(self, name):
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-node-"))
        (self.folder / "node_modules").symlink_to(installed(name) / "node_modules")
        for script in (HERE / name).glob("*.mjs"):
            shutil.copy(script, self.folder)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)
