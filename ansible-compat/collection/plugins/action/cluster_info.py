# Apache-2.0, see LICENSE
"""The work of the module cluster_info."""

from __future__ import annotations

from ansible_collections.landfall.cluster.plugins.plugin_utils.landfall import MACHINES, Base

ARGUMENT_SPEC = dict(MACHINES)


class ActionModule(Base):
    """Looks at what is installed."""

    ARGUMENT_SPEC = ARGUMENT_SPEC
    _supports_diff = False

    def work(self, options, task_vars):
        seen = self.stream(options, ["status", *self.machine_arguments(options, task_vars)])
        return self.ended(seen, changed=False, nodes=seen.nodes or {})
