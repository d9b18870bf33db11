# Apache-2.0, see LICENSE
"""What a machine of cluster.yaml is as a host of Ansible."""

from __future__ import annotations

import json
import os

import yaml

# Field of cluster.yaml, variable of Ansible.
PLAIN = {
    "host": "ansible_host",
    "port": "ansible_port",
    "privateKey": "ansible_ssh_private_key_file",
    "password": "ansible_password",
    "become": "ansible_become",
    "becomePassword": "ansible_become_password",
    "ip": "ip",
    "accessIp": "access_ip",
}
FILES = {"passwordFile": "ansible_password", "becomePasswordFile": "ansible_become_password"}
ROLES = {"control-plane": ["kube_control_plane"], "worker": ["kube_node"], "outside": ["outside"]}


def read(path):
    """Returns what is in a file of YAML."""
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def is_cluster_yaml(path):
    """Says whether a file is landfall's own: a list `nodes` at its top."""
    try:
        document = read(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(document, dict) and isinstance(document.get("nodes"), list)


def groups_of(node):
    """Returns the groups of a machine. A control plane that takes workloads is in both."""
    groups = list(ROLES[node["role"]])
    if node["role"] == "control-plane" and node.get("schedulable"):
        groups.append("kube_node")
    return groups


def variables_of(node):
    """Returns the variables of a machine, each with whether it is a template. landfall logs in as root where no user is named."""
    user = node.get("user", "root")
    variables = {"ansible_user": (user, False)}
    variables["ansible_become"] = (user != "root", False)
    if "host" not in node and "ip" in node:
        variables["ansible_host"] = (node["ip"], False)
    for field, variable in PLAIN.items():
        if node.get(field) is not None:
            variables[variable] = (node[field], False)
    for field, variable in FILES.items():
        if node.get(field) is not None:
            variables[variable] = (content_of(str(node[field])), True)
    return variables


def content_of(path):
    """Returns an expression for what a file holds, without the line breaks at its end, as landfall reads it."""
    # A path starts at the current directory, as for landfall; JSON's quotes are Jinja's too.
    path = json.dumps(os.path.abspath(os.path.expanduser(path)))
    return "{{ lookup('ansible.builtin.file', " + path + ", rstrip=false) | regex_replace('[\\r\\n]+$', '') }}"
