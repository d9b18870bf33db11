//! Kernel settings that are kept, and who keeps them when somebody else wants another value: the service puts a value right, and gives way to
//! whoever changes it back again and again ([`Rivalry`]).

use super::rivalry::{MOST_CHANGES, Rivalry, WITHIN};
use crate::actions::system::read_sysctl;
use crate::claims;
use crate::host::Host;
use landfall_core::health::SettingFault;
use std::collections::BTreeMap;
use std::time::Instant;

/// What is known of each setting.
#[derive(Default)]
pub(super) struct Settings(BTreeMap<String, Setting>);

#[derive(Default)]
struct Setting {
    wanted: String,
    /// Whether the value was right when it was last looked at or written.
    was_right: bool,
    /// When it was changed after it had been right.
    changes: Rivalry,
    /// Nothing is written any more: somebody else has the value, or the kernel refuses it.
    given_up: bool,
    /// It was said that the kernel does not have it.
    is_missing: bool,
}

impl Settings {
    /// Puts one setting right, or gives way. Everything is said once.
    pub(super) fn keep(&mut self, host: &Host, name: &str, wanted: &str, now: Instant, say: &mut dyn FnMut(&str)) {
        let setting = self.0.entry(name.to_owned()).or_default();
        if setting.wanted != wanted {
            *setting = Setting {
                wanted: wanted.to_owned(),
                ..Setting::default()
            };
        }
        let Some(before) = read_sysctl(host, name) else {
            // Its module may come later.
            if !setting.is_missing {
                say(&fault(host, name, wanted, None).text());
            }
            (setting.is_missing, setting.was_right) = (true, false);
            return;
        };
        setting.is_missing = false;
        if before == wanted {
            if setting.given_up {
                say(&format!("{name} is {wanted} again, and is kept"));
                (setting.given_up, setting.changes) = (false, Rivalry::default());
            }
            setting.was_right = true;
            return;
        }
        if setting.given_up {
            return;
        }
        if setting.was_right {
            setting.changes.note(now);
        }
        setting.was_right = false;
        if setting.changes.is_lost(now) {
            setting.given_up = true;
            let text = fault(host, name, wanted, Some(before)).text();
            say(&format!(
                "something has changed a setting back {MOST_CHANGES} times within {} minutes and keeps it: {text}",
                WITHIN.as_secs() / 60
            ));
            return;
        }
        match write(host, name, wanted) {
            Ok(()) => {
                setting.was_right = true;
                let asked = claims::asked_otherwise(host, name, wanted);
                let asked = asked.map_or_else(String::new, |file| format!(", as {file} asks"));
                say(&format!("{name} was {before}{asked}; set it to {wanted}"));
            }
            Err(why) => {
                setting.given_up = true;
                let text = fault(host, name, wanted, Some(before)).text();
                say(&format!(
                    "a setting cannot be written, and is not tried again ({why}): {text}"
                ));
            }
        }
    }
}

fn write(host: &Host, name: &str, wanted: &str) -> Result<(), String> {
    claims::write_setting(host, name, wanted).map_err(|error| error.line())?;
    match read_sysctl(host, name) {
        Some(now) if now == wanted => Ok(()),
        now => Err(format!("the kernel took it and has {}", now.unwrap_or_default())),
    }
}

/// Describes a setting that is not as wanted.
pub(crate) fn fault(host: &Host, name: &str, wanted: &str, present: Option<String>) -> SettingFault {
    SettingFault {
        name: name.to_owned(),
        wanted: wanted.to_owned(),
        present,
        asked_by: claims::asked_otherwise(host, name, wanted),
    }
}
