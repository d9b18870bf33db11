//! Parses files of kernel settings and decides which line takes effect, by the rules of systemd-sysctl (sysctl.d(5)) and sysctl(8).

use crate::facts::{FilePattern, FileText};
use crate::glob;
use crate::layout;
use std::collections::BTreeMap;

/// Where systemd-sysctl reads, the most important directory first. /lib is /usr/lib but on systems of old.
const DIRS: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];
/// Read last of all by sysctl(8). systemd-sysctl does not read it, but for a link to it that Debian has had.
pub const LAST_FILE: &str = "/etc/sysctl.conf";

/// The files that systemd-sysctl reads.
pub fn patterns() -> Vec<FilePattern> {
    let whole = |dir| FilePattern {
        pattern: format!("{dir}/*.conf"),
        only: vec![],
    };
    DIRS.map(whole).into()
}

/// Says whether the kernel would take two texts for one value.
pub fn same_value(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

/// One line that sets something.
#[derive(Debug, Clone)]
pub struct Assignment<'a> {
    key: String,
    /// The setting's name, or a pattern of names, as it stands in the line.
    pub name: &'a str,
    /// Its value.
    pub value: &'a str,
    /// The file, by the path under which it is read.
    pub file: &'a str,
    /// The line, from 1.
    pub line: usize,
}

/// All lines of all files, in the order in which they count.
#[derive(Debug)]
pub struct Assignments<'a> {
    all: Vec<Assignment<'a>>,
    /// Keys that patterns leave out (`-key` without a value).
    left_out: Vec<String>,
}

impl<'a> Assignments<'a> {
    /// Reads the files in order of their names, whatever directory they are in; of two with one name the more important directory's
    /// counts. [`LAST_FILE`], where it was asked for, counts last. `ours` stands in for landfall's own file, as it will be.
    pub fn read(files: &'a BTreeMap<String, FileText>, ours: Option<&'a str>) -> Self {
        let mut by_name: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for dir in DIRS {
            for (path, file) in files {
                let name = path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/'));
                if let Some(name) = name.filter(|name| name.ends_with(".conf") && !name.contains('/')) {
                    by_name.entry(name).or_insert((path, &file.text));
                }
            }
        }
        if let (Some(ours), Some((_, name))) = (ours, layout::SYSCTL_FILE.rsplit_once('/')) {
            by_name.insert(name, (layout::SYSCTL_FILE, ours));
        }
        let mut all = Self {
            all: vec![],
            left_out: vec![],
        };
        let last = files.get(LAST_FILE).map(|file| (LAST_FILE, file.text.as_str()));
        for (path, text) in by_name.into_values().chain(last) {
            for (number, line) in text.lines().enumerate() {
                all.take(line.trim(), path, number + 1);
            }
        }
        all
    }

    fn take(&mut self, line: &'a str, file: &'a str, number: usize) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            return;
        }
        // A leading dash says that a failure does not matter; without a value, that patterns do not mean this key.
        let (dashed, line) = match line.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        match line.split_once('=') {
            Some((key, value)) => self.all.push(Assignment {
                key: path_form(key.trim()),
                name: key.trim(),
                value: value.trim(),
                file,
                line: number,
            }),
            None if dashed => self.left_out.push(path_form(line.trim())),
            None => {}
        }
    }

    /// Returns the line that takes effect for a setting. For each of its names that is the last line with that name, else the last pattern that
    /// matches it; of several names the later line counts, because each is written in its turn.
    pub fn winner(&self, name: &str) -> Option<&Assignment<'a>> {
        let keys = keys_of(name);
        let at = keys.iter().filter_map(|key| self.last_for(key)).max()?;
        self.all.get(at)
    }

    fn last_for(&self, key: &str) -> Option<usize> {
        let named = self.all.iter().rposition(|a| a.key == key);
        if named.is_some() || self.left_out.iter().any(|left_out| left_out == key) {
            return named;
        }
        let fits = |a: &Assignment| glob::is_pattern(&a.key) && glob::matches(&a.key, key);
        self.all.iter().rposition(fits)
    }
}

/// Two paths of one setting: the kernel keeps both in one place (`devinet_sysctl_forward` in net/ipv4/devinet.c).
const TWINS: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"];

/// Returns all paths of a setting below /proc/sys.
fn keys_of(name: &str) -> Vec<String> {
    let key = path_form(name);
    if TWINS.contains(&key.as_str()) {
        return TWINS.map(str::to_owned).into();
    }
    vec![key]
}

/// Returns a setting's path below /proc/sys: the first separator decides whether dots or slashes separate (sysctl.d(5)).
pub fn path_form(key: &str) -> String {
    let key = key.trim_start_matches('/');
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
        Some(b'.') => key.chars().map(swap).collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn winner(files: &[(&str, &str)], name: &str) -> Option<(String, String, usize)> {
        let files: BTreeMap<String, FileText> = files
            .iter()
            .map(|(path, text)| {
                let file = FileText {
                    text: (*text).to_owned(),
                    real: None,
                };
                ((*path).to_owned(), file)
            })
            .collect();
        let assignments = Assignments::read(&files, Some("vm.overcommit_memory = 1\nkernel.panic = 10\n"));
        let winner = assignments.winner(name)?;
        Some((winner.value.to_owned(), winner.file.to_owned(), winner.line))
    }

    #[test]
    fn the_last_file_by_name_wins_whatever_its_directory() {
        let name = "vm.overcommit_memory";
        let own = Some(("1".to_owned(), layout::SYSCTL_FILE.to_owned(), 1));
        assert_eq!(
            winner(&[("/etc/sysctl.d/10-a.conf", "vm.overcommit_memory=0")], name),
            own
        );
        assert_eq!(
            winner(&[("/etc/sysctl.d/99-a.txt", "vm.overcommit_memory=0")], name),
            own
        );
        let later = winner(
            &[("/usr/lib/sysctl.d/99-a.conf", "# x\n\n vm/overcommit_memory = 0")],
            name,
        );
        assert_eq!(
            later,
            Some(("0".to_owned(), "/usr/lib/sysctl.d/99-a.conf".to_owned(), 3))
        );
        let hidden = [
            ("/usr/lib/sysctl.d/99-a.conf", "vm.overcommit_memory=0"),
            ("/etc/sysctl.d/99-a.conf", ""),
        ];
        assert_eq!(winner(&hidden, name), own, "a file of /etc hides one of the same name");
        let dashed = winner(&[("/run/sysctl.d/95-a.conf", "-vm.overcommit_memory=2")], name);
        assert_eq!(dashed.unwrap().0, "2");
    }

    #[test]
    fn a_pattern_never_wins_over_a_name() {
        let glob = ("/etc/sysctl.d/99-a.conf", "kernel.pan*c = 0\n*/swappiness = 1");
        assert_eq!(winner(&[glob], "kernel.panic").unwrap().0, "10");
        assert_eq!(winner(&[glob], "vm.swappiness").unwrap().0, "1");
        let left_out = ("/etc/sysctl.d/05-b.conf", "-vm.swappiness");
        assert_eq!(winner(&[glob, left_out], "vm.swappiness"), None);
    }

    #[test]
    fn of_two_names_of_one_setting_the_later_line_counts() {
        let named = |text: &'static str| ("/etc/sysctl.d/99-a.conf", text);
        for later in [
            "net.ipv4.conf.all.forwarding = 0",
            "net/ipv4/conf/all/forwarding = 0",
            "-net.ipv4.conf.all.forwarding=0",
            // A pattern counts where its file stands, for a name that no line has.
            "net.ipv4.conf.*.forwarding = 0",
        ] {
            let files = [("/etc/sysctl.d/80-b.conf", "net.ipv4.ip_forward = 1"), named(later)];
            for name in ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"] {
                let (value, file, _) = winner(&files, name).unwrap();
                assert_eq!(
                    (value.as_str(), file.as_str()),
                    ("0", "/etc/sysctl.d/99-a.conf"),
                    "{later}"
                );
            }
        }
        let files = [
            ("/etc/sysctl.d/80-b.conf", "net.ipv4.conf.all.forwarding = 0"),
            named("net/ipv4/ip_forward=1"),
        ];
        assert_eq!(winner(&files, "net.ipv4.ip_forward").unwrap().0, "1");
        let other = named("net.ipv4.conf.default.forwarding = 0\nnet.ipv4.conf.eth0.forwarding = 0");
        assert_eq!(
            winner(&[other], "net.ipv4.ip_forward"),
            None,
            "they are of single links"
        );
    }

    #[test]
    fn the_first_separator_of_a_key_decides() {
        for (key, path) in [
            ("net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
            ("net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
            ("/kernel/panic", "kernel/panic"),
            ("plain", "plain"),
        ] {
            assert_eq!(path_form(key), path);
        }
    }
}
