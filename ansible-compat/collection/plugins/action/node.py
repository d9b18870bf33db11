# Apache-2.0, see LICENSE
"""The work of the module node."""

from __future__ import annotations

from ansible_collections.landfall.cluster.plugins.action.cluster import ActionModule as Cluster
from ansible_collections.landfall.cluster.plugins.plugin_utils.landfall import MACHINES

ARGUMENT_SPEC = {
    **MACHINES,
    "state": {"type": "str", "choices": ["present"], "default": "present"},
    "name": {"type": "list", "elements": "str", "required": True},
    "bundle": {"type": "path", "required": True},
    "on_failure": {"type": "str", "choices": ["keep", "rollback"], "default": "keep"},
    "report": {"type": "path"},
}


class ActionModule(Cluster):
    """Brings machines into a cluster that stands, or up to date, and nothing else."""

    ARGUMENT_SPEC = ARGUMENT_SPEC
    REQUIRED_IF = []

    def machine_arguments(self, options, task_vars):
        return [*super().machine_arguments(options, task_vars), "--limit", ",".join(options["name"])]
