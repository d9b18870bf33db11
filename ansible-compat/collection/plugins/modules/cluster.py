# Apache-2.0, see LICENSE
"""Documentation of the module cluster. Its work is done by the action plugin of the same name, on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster
short_description: Installs, verifies or removes a Kubernetes cluster with landfall
version_added: 0.1.0
description:
  - Runs C(landfall) on the control machine, once for the whole play. landfall makes its own connections to the machines of the inventory.
  - With O(state=present) the cluster is installed, or brought to what inventory and bundle say, and verified. What is as wanted already is
    not touched.
  - In check mode the module returns landfall's own plan.
author:
  - landfall (!UNKNOWN)
extends_documentation_fragment:
  - landfall.cluster.common
  - landfall.cluster.common.machines
  - landfall.cluster.common.runs
options:
  state:
    description:
      - V(present) installs the cluster and verifies it.
      - V(verified) tries every path into the cluster and changes nothing.
      - V(absent) undoes everything that landfall did on the machines, with the cluster and all that is stored in it.
    type: str
    choices: [present, absent, verified]
    default: present
  bundle:
    description: The bundle file. Required for O(state=present).
    type: path
  name:
    description: Name of the cluster that goes. Required for O(state=absent), and compared with the inventory's.
    type: str
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
seealso:
  - module: landfall.cluster.cluster_info
"""

EXAMPLES = r"""
- name: Install the cluster of this play's inventory, or bring it up to date
  landfall.cluster.cluster:
    bundle: /srv/landfall.bundle
    accept_new_host_keys: true

- name: Try every path into the cluster
  landfall.cluster.cluster:
    state: verified

- name: Take everything away again
  landfall.cluster.cluster:
    state: absent
    name: ship
"""

RETURN = r"""
cluster:
  description: Name of the cluster.
  returned: always
  type: str
  sample: ship
exit_code:
  description: Exit status of landfall; its README lists them.
  returned: always
  type: int
  sample: 0
run:
  description: Id of the run, as the nodes' journals name it.
  returned: when nodes were leased to the run
  type: str
changes:
  description: Steps that changed something, or that were undone.
  returned: always
  type: int
errors:
  description: Errors with the keys C(code), C(what), C(node), C(step), C(saw), C(causes) and C(next).
  returned: always
  type: list
  elements: dict
residue:
  description: What could not be undone.
  returned: always
  type: list
  elements: str
plan:
  description: Steps that would be done, with their node, stage, text, the reason, and how each is undone.
  returned: in check mode with O(state=present) and O(state=absent)
  type: list
  elements: dict
paths:
  description: How many paths into the cluster were tried with which outcome.
  returned: when the cluster was verified
  type: dict
  sample: {passed: 112, failed: 0}
failed_paths:
  description: Paths that are not as expected, with what was seen, the likely cause and what to do next.
  returned: when the cluster was verified
  type: list
  elements: dict
"""
