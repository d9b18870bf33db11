# Apache-2.0, see LICENSE
"""Documentation of the module node. Its work is done by the action plugin of the same name, on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node
short_description: Brings machines into a cluster that stands
version_added: 0.1.0
description:
  - Lets machines of the inventory join a cluster that stands, or brings them to what inventory and bundle say, and verifies.
  - Acts on these machines alone, as C(landfall install --limit) does. All other members stay as they are.
author:
  - landfall (!UNKNOWN)
extends_documentation_fragment:
  - landfall.cluster.common
  - landfall.cluster.common.machines
  - landfall.cluster.common.runs
options:
  state:
    description: V(present) is the only one; landfall has no command yet that removes a node.
    type: str
    choices: [present]
    default: present
  name:
    description: Hosts or groups of the inventory, or patterns as for C(--limit).
    type: list
    elements: str
    required: true
  bundle:
    description: The bundle file.
    type: path
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
seealso:
  - module: landfall.cluster.cluster
"""

EXAMPLES = r"""
- name: Let a worker join
  landfall.cluster.node:
    name: [w-3]
    bundle: /srv/landfall.bundle
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
  description: Id of the run, as the nodes' journals name it.
  returned: when nodes were leased to the run
  type: str
changes:
  description: Steps that changed something.
  returned: always
  type: int
errors:
  description: Errors with the keys C(code), C(what), C(node), C(step), C(saw), C(causes) and C(next).
  returned: always
  type: list
  elements: dict
residue:
  description: Always empty for this module, unless a failed run could not be undone whole.
  returned: always
  type: list
  elements: str
plan:
  description: Steps that would be done, with their node, stage, text, the reason, and how each is undone.
  returned: in check mode
  type: list
  elements: dict
paths:
  description: How many paths into the cluster were tried with which outcome.
  returned: when the cluster was verified
  type: dict
failed_paths:
  description: Paths that are not as expected.
  returned: when the cluster was verified
  type: list
  elements: dict
"""
