//! Drop-ins of systemd units (systemd.unit(5)) that others put beside landfall's units, or for all services.

/// Where they are, the most important directory first.
pub const DIRS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// The folder of drop-ins that all services read.
pub const ALL_SERVICES: &str = "service.d";

/// Settings by which a drop-in for all services keeps daemons of a cluster from what they do: they start programs in containers, mount, write settings
/// of the kernel and hold many files. Others (time-outs of stopping, as Fedora has them) do no harm, and values of an environment may be secret.
pub const HARMFUL: [&str; 42] = [
    "ExecStart",
    "ExecStartPre",
    "ExecCondition",
    "EnvironmentFile",
    "User",
    "Group",
    "DynamicUser",
    "SupplementaryGroups",
    "UMask",
    "RootDirectory",
    "RootImage",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateNetwork",
    "PrivateUsers",
    "PrivateMounts",
    "PrivateIPC",
    "PrivatePIDs",
    "MountFlags",
    "ProtectSystem",
    "ProtectHome",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectControlGroups",
    "ProtectProc",
    "ProtectHostname",
    "ReadOnlyPaths",
    "InaccessiblePaths",
    "NoExecPaths",
    "NoNewPrivileges",
    "CapabilityBoundingSet",
    "SystemCallFilter",
    "RestrictNamespaces",
    "RestrictAddressFamilies",
    "RestrictSUIDSGID",
    "DevicePolicy",
    "IPAddressDeny",
    "LimitNOFILE",
    "TasksMax",
    "MemoryMax",
    "RuntimeMaxSec",
    "KillMode",
];

/// Returns the first line of a drop-in for all services that takes something from daemons.
pub fn harmful_line(text: &str) -> Option<&str> {
    let harms = |line: &&str| {
        let key = line.split_once('=').map(|(key, _)| key.trim_end());
        key.is_some_and(|key| HARMFUL.contains(&key))
    };
    text.lines().map(str::trim).find(harms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_distributions_set_for_all_services_does_no_harm() {
        // Fedora's 10-timeout-abort.conf and 50-keep-warm.conf.
        let fedora = "# see\n[Service]\nTimeoutStopFailureMode=abort\n";
        assert_eq!(harmful_line(fedora), None);
        assert_eq!(
            harmful_line("[Service]\nEnvironment=HTTPS_PROXY=http://u:p@proxy\n"),
            None
        );
        let hardened = "[Service]\nCPUAccounting=yes\n NoNewPrivileges = yes\nProtectSystem=full\n";
        assert_eq!(harmful_line(hardened), Some("NoNewPrivileges = yes"));
        assert_eq!(harmful_line("#ProtectHome=yes\n"), None);
    }
}
