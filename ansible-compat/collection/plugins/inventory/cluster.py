# Apache-2.0, see LICENSE
"""Inventory plugin for cluster.yaml."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster
short_description: Reads landfall's cluster.yaml as an inventory
version_added: 0.1.0
description:
  - Reads the machines of a C(cluster.yaml), so that plays can use the same file as landfall.
  - Control planes are in the group C(kube_control_plane), workers in C(kube_node), both in C(k8s_cluster), machines outside in C(outside).
  - The fields of the cluster are the variable C(landfall) of the group C(all), as landfall takes it from an Ansible inventory.
  - Name the plugin in C(ansible.cfg), C([inventory] enable_plugins = landfall.cluster.cluster, yaml, ini).
author:
  - landfall (!UNKNOWN)
options:
  plugin:
    description: Not needed; the file is known by its list C(nodes).
    type: str
notes:
  - Passwords in files (C(passwordFile), C(becomePasswordFile)) become lookups, which read the file when a play logs in.
"""

EXAMPLES = r"""
# cluster.yaml, used with: ansible-inventory -i cluster.yaml --graph
name: ship
nodes:
  - {name: cp-1, role: control-plane, host: 192.168.0.169}
  - {name: w-1, role: worker, host: 192.168.0.181, user: admin, becomePasswordFile: ~/sudo-password}
  - {name: pc-1, role: outside, host: 192.168.0.20, user: visitor, become: false}
"""

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.landfall.cluster.plugins.plugin_utils.cluster_yaml import groups_of, is_cluster_yaml, read, variables_of

try:
    # From ansible-core 2.19 on a text is a template only when its source is trusted; the lookups below are this plugin's own words.
    from ansible.template import trust_as_template
except ImportError:

    def trust_as_template(value):
        """Returns the text: older versions trust all."""
        return value


def as_it_is(value):
    """Returns a value so that nothing in it is taken for a template: landfall knows none in cluster.yaml."""
    if isinstance(value, dict):
        return {key: as_it_is(part) for key, part in value.items()}
    if isinstance(value, list):
        return [as_it_is(part) for part in value]
    if isinstance(value, str):
        return wrap_var(value) if any(mark in value for mark in ("{{", "{%", "{#")) else trust_as_template(value)
    return value


class InventoryModule(BaseInventoryPlugin):
    """Reads cluster.yaml."""

    NAME = "landfall.cluster.cluster"

    def verify_file(self, path):
        """Says whether a file is a cluster.yaml, by what is in it."""
        return super().verify_file(path) and is_cluster_yaml(path)

    def parse(self, inventory, loader, path, cache=True):
        """Adds the machines of a cluster.yaml."""
        super().parse(inventory, loader, path, cache)
        document = read(path)
        nodes = document.pop("nodes")
        for group in ("kube_control_plane", "kube_node", "k8s_cluster", "outside"):
            inventory.add_group(group)
        for member in ("kube_control_plane", "kube_node"):
            inventory.add_child("k8s_cluster", member)
        if document:
            inventory.set_variable("all", "landfall", as_it_is(document))
        for node in nodes:
            try:
                name, groups = node["name"], groups_of(node)
            except (KeyError, TypeError) as error:
                raise AnsibleParserError(f"{path}: a node without name or with an unknown role: {error}") from error
            inventory.add_host(name)
            for group in groups:
                inventory.add_child(group, name)
            for key, (value, is_template) in variables_of(node).items():
                inventory.set_variable(name, key, trust_as_template(value) if is_template else as_it_is(value))
