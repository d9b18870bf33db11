"""Prints, for each inventory directory on standard input, what ansible-inventory prints, as one line of JSON.

One process reads many inventories: starting Python takes longer than reading one. Caches that Ansible keeps per
process are emptied between them.
"""
import contextlib
import io
import json
import sys

from ansible.cli.inventory import InventoryCLI
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.vars import host_group_vars
from ansible.utils.context_objects import GlobalCLIArgs

try:
    from ansible.parsing.vault import VaultSecretsContext
except ImportError:  # ansible-core before 2.19 keeps no secrets beside its loader
    VaultSecretsContext = None


def ask(source, *flags):
    for cache in ("CANONICAL_PATHS", "FOUND", "NAK"):
        getattr(host_group_vars, cache, set()).clear()
    # The arguments of a process are a singleton; each call here is a process of its own.
    GlobalCLIArgs._Singleton__instance = None
    if VaultSecretsContext:
        VaultSecretsContext._current = None
    cli = InventoryCLI(["ansible-inventory", "-i", source, *flags])
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            cli.run()
        except SystemExit:
            pass
    return out.getvalue()


def limited(source, patterns):
    """Returns which hosts each pattern of --limit means; null where Ansible refuses it or finds that a part matches nothing."""
    loader = DataLoader()
    manager = InventoryManager(loader, [source])
    chosen = []
    for pattern in patterns:
        try:
            manager.subset(pattern)
            manager._pattern_cache.clear()
            chosen.append(sorted(host.name for host in manager.get_hosts("all")))
        except Exception:  # an unknown part, or no valid one
            chosen.append(None)
    return chosen


def main():
    for line in sys.stdin:
        source, *patterns = line.rstrip("\n").split("\t")
        try:
            answer = {
                "list": json.loads(ask(source, "--list")),
                "export": json.loads(ask(source, "--list", "--export")),
                "graph": ask(source, "--graph").rstrip("\n"),
                "limits": limited(source, patterns),
            }
        except Exception as error:  # the test shows what could not be asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
