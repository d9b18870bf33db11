# Apache-2.0, see LICENSE
"""Documentation of the module cluster_info. Its work is done by the action plugin of the same name, on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_info
short_description: Shows what landfall installed and how it is
version_added: 0.1.0
description:
  - Looks at every node, as C(landfall status) does, and changes nothing.
author:
  - landfall (!UNKNOWN)
extends_documentation_fragment:
  - landfall.cluster.common
  - landfall.cluster.common.machines
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Look at the cluster
  landfall.cluster.cluster_info:
  register: ship

- name: Fail when a node is not ready
  ansible.builtin.assert:
    that: ship.nodes.values() | map(attribute='ready') | select | length == ship.nodes | length
"""

RETURN = r"""
cluster:
  description: Name of the cluster.
  returned: always
  type: str
exit_code:
  description: Exit status of landfall; its README lists them.
  returned: always
  type: int
run:
  description: Always absent for this module.
  returned: never
  type: str
changes:
  description: Always 0 for this module.
  returned: always
  type: int
errors:
  description: Errors with the keys C(code), C(what), C(node), C(saw), C(causes) and C(next).
  returned: always
  type: list
  elements: dict
residue:
  description: Always empty for this module.
  returned: always
  type: list
  elements: str
nodes:
  description:
    - By node C(owned) (how many things are landfall's), C(bundle), C(openRun), C(ready), C(kubelet), C(etcd), C(certificates) with their
      days left, and C(error).
  returned: always
  type: dict
"""
