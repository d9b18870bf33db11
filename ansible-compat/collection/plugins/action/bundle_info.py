# Apache-2.0, see LICENSE
"""The work of the module bundle_info."""

from __future__ import annotations

import json
import subprocess

from ansible.errors import AnsibleActionFail
from ansible_collections.landfall.cluster.plugins.plugin_utils.landfall import COMMON, Base

ARGUMENT_SPEC = {
    "program": COMMON["program"],
    "bundle": {"type": "path", "required": True},
    "verify": {"type": "bool", "default": False},
}


class ActionModule(Base):
    """Reads what is in a bundle."""

    ARGUMENT_SPEC = ARGUMENT_SPEC
    _supports_diff = False

    def work(self, options, task_vars):
        if options["verify"]:
            self._output(options, ["bundle", "verify", options["bundle"]])
        index = json.loads(self._output(options, ["bundle", "inspect", "--json", options["bundle"]]))
        return {"changed": False, "index": index, "verified": options["verify"]}

    def _output(self, options, arguments):
        process = self.start(options, arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, errors = process.communicate()
        if process.returncode != 0:
            raise AnsibleActionFail(errors.decode(errors="replace").strip())
        return output
