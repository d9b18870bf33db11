# Apache-2.0, see LICENSE
"""The work of the module kubeconfig."""

from __future__ import annotations

import os

from ansible_collections.landfall.cluster.plugins.plugin_utils.landfall import MACHINES, Base

ARGUMENT_SPEC = {**MACHINES, "dest": {"type": "path", "required": True}}


class ActionModule(Base):
    """Writes an admin kubeconfig on the control machine."""

    ARGUMENT_SPEC = ARGUMENT_SPEC
    _supports_diff = False

    def work(self, options, task_vars):
        fetched = os.path.join(self._private, "kubeconfig")
        arguments = self.machine_arguments(options, task_vars)
        seen = self.stream(options, ["kubeconfig", *arguments, "--write", fetched])
        result = self.ended(seen, changed=False, dest=options["dest"])
        if result.get("failed"):
            return result
        with open(fetched, "rb") as file:
            wanted = file.read()
        result["changed"] = not is_private_file(options["dest"], wanted)
        if result["changed"] and not self._task.check_mode:
            write_whole(options["dest"], wanted)
        return result


def is_private_file(path, content):
    """Says whether a file is there with this content and for its owner alone."""
    try:
        with open(path, "rb") as file:
            return file.read() == content and os.fstat(file.fileno()).st_mode & 0o777 == 0o600
    except FileNotFoundError:
        return False


def write_whole(path, content):
    """Writes a file by way of a new one beside it, for its owner alone, so that it is whole or absent."""
    part = f"{path}.part"
    if os.path.lexists(part):
        os.remove(part)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    os.replace(part, path)
