//! What sudo and doas say when they refuse, and what to do about it.

use landfall_core::explain::{Code, Diagnosis};

/// What sudo says under `requiretty` without a terminal.
const SUDO_WANTS_TERMINAL: &str = "must have a tty";
/// What doas says when it may not ask: `doas: Authentication required` (opendoas), or `doas: Authorization required` (older).
const DOAS_ASKS: [&str; 2] = ["doas: Authentication required", "doas: Authorization required"];
/// Where the user says a password.
const GIVE: &str =
    "as becomePassword or becomePasswordFile in cluster.yaml, or as ansible_become_password in the inventory";
const ALL_COMMANDS: &str = "landfall needs all commands: USER ALL=(ALL) ALL, in /etc/sudoers.d";
const NO_PASSWORD_OF_DOAS: &str = "permit nopass USER as root, in /etc/doas.conf on the node";

/// Says whether the same command may succeed on a terminal: for sudo with `requiretty`, and for doas where there is a password to give.
pub fn wants_terminal(words: &str, has_password: bool) -> bool {
    words.contains(SUDO_WANTS_TERMINAL) || (has_password && DOAS_ASKS.iter().any(|sign| words.contains(sign)))
}

fn refused(what: impl Into<String>) -> Diagnosis {
    Diagnosis::new(Code::SudoRefused, what)
}

/// The error of a second prompt, or of a refusal after an answer.
pub fn wrong_password(program: &str) -> Diagnosis {
    refused(format!("the {program} password is wrong")).next(format!("give the right one {GIVE}"))
}

/// The error of a prompt that cannot be answered.
pub fn no_password(program: &str) -> Diagnosis {
    refused(format!("{program} asks for a password and none was given")).next(format!("give it {GIVE}"))
}

/// The error of a session that was to have a terminal.
pub fn no_terminal(words: &str) -> Diagnosis {
    refused("sudo or doas wants a terminal, and the machine gives none that can be used")
        .saw(words)
        .next("look whether sshd_config there sets PermitTTY no, whether the key is there with no-pty, and whether there is the program stty")
        .next("or do without: Defaults:USER !requiretty, in a file of /etc/sudoers.d; permit nopass USER as root, in /etc/doas.conf")
}

/// Returns the error for a refusal of sudo or doas, with its cause when the message is a known one. `was_answered`: the password was given.
pub fn diagnosis(words: &str, was_answered: bool) -> Diagnosis {
    if was_answered && words.contains("doas: Authentication failed") {
        return wrong_password("doas").saw(words);
    }
    if was_answered && words.contains("incorrect password attempt") {
        return wrong_password("sudo").saw(words);
    }
    if DOAS_ASKS.iter().any(|sign| words.contains(sign)) {
        return no_password("doas")
            .saw(words)
            .next(format!("or do without: {NO_PASSWORD_OF_DOAS}"));
    }
    let known: [(&str, &str, &str); 7] = [
        (
            SUDO_WANTS_TERMINAL,
            "sudo wants a terminal (requiretty)",
            "Defaults:USER !requiretty, in a file of /etc/sudoers.d on the node",
        ),
        (
            "not in the sudoers",
            "the login user may not use sudo",
            "add it to the group sudo or wheel, or to /etc/sudoers.d, on the node",
        ),
        (
            // sudo-rs, src/common/error.rs; it says so to users of other commands, too.
            "I'm afraid I can't do that",
            "sudo does not let the login user run sh as root",
            ALL_COMMANDS,
        ),
        (
            "not allowed to",
            "sudo does not let the login user run sh as root",
            ALL_COMMANDS,
        ),
        (
            "may not run",
            "sudo does not let the login user run sh as root",
            ALL_COMMANDS,
        ),
        (
            "doas:",
            "doas refused",
            "permit USER as root, in /etc/doas.conf on the node",
        ),
        (
            "unable to allocate pty",
            "sudo can make no terminal (use_pty)",
            "look whether /dev/pts is mounted on the node",
        ),
    ];
    for (sign, what, next) in known {
        if words.contains(sign) {
            return refused(what).saw(words).next(next);
        }
    }
    refused("sudo refused").saw(words).next("sudo -l, on the node")
}
