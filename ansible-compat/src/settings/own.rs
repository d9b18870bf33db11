//! Names of variables that Ansible itself reads or sets. Other names that begin with `ansible_` belong to projects, such as OpenShift's
//! `ansible_service_broker_install`.
//!
//! Sources: the options of connection, become and shell plugins, the special variables and the facts of ansible-core 2.19.14, and the options
//! of plugins in the collections of its package `ansible`.

use landfall_core::glob::matches_part;

/// Names behind `ansible_`, or patterns with `*` for the options of one plugin.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    // Connections.
    "connection", "host", "port", "user", "pass", "password", "private_key", "private_key_file", "private_key_passphrase", "timeout", "pipelining",
    "pkcs11_provider", "control_path", "control_path_dir", "host_key_checking", "ssh_args", "ssh_common_args", "ssh_executable",
    "ssh_extra_args", "ssh_host", "ssh_host_key_checking", "ssh_pass", "ssh_password", "ssh_password_mechanism", "ssh_pipelining", "ssh_pkcs11_provider",
    "ssh_port", "ssh_private_key", "ssh_private_key_file", "ssh_private_key_passphrase", "ssh_retries", "ssh_timeout",
    "ssh_transfer_method", "ssh_use_tty", "ssh_user", "ssh_verbosity", "sshpass_prompt", "scp_executable", "scp_extra_args", "scp_if_ssh",
    "sftp_batch_mode", "sftp_executable", "sftp_extra_args", "chroot_exe", "connection_user", "connection_path",
    "paramiko_*", "libssh_*", "psrp_*", "winrm_*", "win_async_startup_timeout", "netconf_*", "httpapi_*", "network_cli_*", "network_os",
    "network_import_modules", "network_single_user_mode", "persistent_*", "terminal_*", "command_timeout", "connect_timeout", "buffer_read_timeout",
    "aws_ssm_*", "docker_extra_args", "docker_host", "docker_timeout", "docker_tls_*", "docker_working_dir", "docker_privileged",
    "podman_executable", "podman_extra_args", "podman_mount", "kubectl_container", "kubectl_context", "kubectl_extra_args", "kubectl_host", "kubectl_kubeconfig",
    "kubectl_namespace", "kubectl_pod", "kubectl_token", "kubectl_user", "kubectl_username", "kubectl_password", "kubectl_cert_file", "kubectl_key_file",
    "kubectl_ca_cert", "kubectl_ssl_ca_cert", "kubectl_verify_ssl", "lxd_*", "jail_host", "jail_user", "zone_host",
    // Becoming another user.
    "become", "become_exe", "become_flags", "become_method", "become_pass", "become_password", "become_user", "common_remote_group", "doas_*",
    "dzdo_*", "enable_pass", "ksu_*", "local_become_strip_preamble", "local_become_success_timeout", "machinectl_*", "pbrun_*", "pfexec_*", "pmrun_*",
    "runas_*", "sesu_*", "su_*", "su", "sudo", "sudo_*", "sudosu_*",
    // Shells, interpreters and modules.
    "shell_executable", "shell_type", "shell_allow_world_readable_temp", "admin_users", "async_dir", "async_path", "remote_tmp", "system_tmpdirs", "bash_interpreter",
    "node_interpreter", "perl_interpreter", "powershell_interpreter", "python_interpreter", "ruby_interpreter", "sh_interpreter", "interpreter_python_fallback",
    "python_module_rlimit_nofile", "module_compression", "no_target_syslog", "syslog_facility", "target_log_info", "deprecation_warnings", "facts_modules",
    "lookup_url_*", "package_use", "rsync_path", "mitogen_*",
    // Special variables.
    "check_mode", "collection_name", "config_file", "dependent_role_names", "diff_mode", "facts", "forks", "group_priority", "index_var",
    "inventory_sources", "limit", "local", "loop", "loop_var", "managed", "parent_role_names", "parent_role_paths", "play_batch", "play_hosts", "play_hosts_all",
    "play_name", "play_role_names", "playbook_python", "role_name", "role_names", "run_tags", "search_path", "skip_tags", "verbosity", "version",
    "delegated_host", "delegated_vars", "included_var_files", "job_id", "failed_hosts", "current_hosts",
    // Facts.
    "all_ipv4_addresses", "all_ipv6_addresses", "apparmor", "architecture", "bios_date", "bios_vendor", "bios_version", "board_*", "chassis_*", "cmdline",
    "date_time", "default_ipv4", "default_ipv6", "device_links", "devices", "discovered_interpreter_python", "distribution", "distribution_*", "dns", "domain", "effective_group_id",
    "effective_user_id", "env", "fibre_channel_wwn", "fips", "form_factor", "fqdn", "hostname", "hostnqn", "interfaces", "is_chroot", "iscsi_iqn", "kernel", "kernel_version",
    "loadavg", "locally_reachable_ips", "lsb", "lvm", "machine", "machine_id", "memfree_mb", "memory_mb", "memtotal_mb", "mounts", "nodename",
    "os_family", "pkg_mgr", "proc_cmdline", "processor", "processor_*", "product_*", "python", "python_version", "real_group_id", "real_user_id", "selinux",
    "selinux_python_present", "service_mgr", "ssh_host_key_*", "swapfree_mb", "swaptotal_mb", "system", "system_capabilities", "system_capabilities_enforced",
    "system_vendor", "systemd", "uptime_seconds", "user_dir", "user_gecos", "user_gid", "user_id", "user_shell", "user_uid", "userspace_architecture", "userspace_bits",
    "virtualization_*",
];

/// Says whether Ansible itself reads or sets a variable.
pub fn is_ansibles(name: &str) -> bool {
    name.strip_prefix("ansible_")
        .is_some_and(|rest| NAMES.iter().any(|known| matches_part(known, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ansible_are_told_from_those_of_projects() {
        for name in [
            "ssh_private_key_file",
            "become_pass",
            "sudo_pass",
            "paramiko_proxy_command",
            "default_ipv4",
            "winrm_transport",
        ] {
            assert!(is_ansibles(&format!("ansible_{name}")), "{name}");
        }
        for name in [
            "ansible_service_broker_install",
            "ansible_usr",
            "ansible_",
            "ansible",
            "host",
        ] {
            assert!(!is_ansibles(name), "{name}");
        }
    }
}
