//! Events for what people should know of their Ingresses: refused annotations, lost hosts, bad Secrets. Only the holder of the Lease
//! writes them.
//!
//! INVARIANT: a remark becomes one Event: its name is made from what it says, so the next leader's attempt is a conflict and no second
//! Event. How many there are, and how fast they are written, is bounded.

use crate::limits::{EVENT_NOTE_BYTES, EVENTS_KNOWN, EVENTS_PER_ROUND};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use landfall_ingress_telemetry::log;
use landfall_ingress_translate::route::Note;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Who the Events are from.
const REPORTER: &str = "landfall.dev/ingress";
/// Where Events of objects without a namespace go, as everywhere in Kubernetes.
const CLUSTER_NAMESPACE: &str = "default";

/// Writes Events and remembers which.
pub struct Events {
    client: Client,
    pod: String,
    /// Notes that are written, as long as they are true.
    written: BTreeSet<Note>,
}

impl Events {
    /// Nothing is written yet.
    pub fn new(client: Client, pod: String) -> Self {
        Self {
            client,
            pod,
            written: BTreeSet::new(),
        }
    }

    /// Writes some of what is new, and forgets what is no longer true: should it become true again it is tried again.
    pub async fn round(&mut self, notes: impl Iterator<Item = Note>) {
        let notes: BTreeSet<Note> = notes.take(EVENTS_KNOWN).collect();
        self.written.retain(|note| notes.contains(note));
        let new: Vec<Note> = notes
            .difference(&self.written)
            .take(EVENTS_PER_ROUND)
            .cloned()
            .collect();
        for note in new {
            match self.write(&note).await {
                // One that can never be written must not be in the way of the others.
                Ok(()) => {}
                Err(Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                    log(&format!("event for {}/{}: {status}", note.namespace, note.name));
                }
                Err(error) => {
                    log(&format!("events: {error}"));
                    return;
                }
            }
            self.written.insert(note);
        }
    }

    async fn write(&self, note: &Note) -> Result<(), Error> {
        let event: Event = serde_json::from_value(event(note, &self.pod)).map_err(Error::SerdeError)?;
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let events = Api::<Event>::namespaced(self.client.clone(), &namespace);
        match events.create(&PostParams::default(), &event).await {
            Err(Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn event(note: &Note, pod: &str) -> serde_json::Value {
    let namespace = match note.namespace.is_empty() {
        true => CLUSTER_NAMESPACE,
        false => &note.namespace,
    };
    json!({
        "metadata": { "name": name(note), "namespace": namespace },
        "eventTime": MicroTime(Timestamp::now()),
        "reportingController": REPORTER,
        "reportingInstance": if pod.is_empty() { REPORTER } else { pod },
        "action": "Routing",
        "reason": note.reason,
        "type": if note.warning { "Warning" } else { "Normal" },
        "note": shortened(&note.text, EVENT_NOTE_BYTES),
        "regarding": { "apiVersion": "networking.k8s.io/v1", "kind": note.kind, "name": note.name, "namespace": note.namespace,
            "uid": note.uid },
    })
}

/// The object's name, and a hash of all that is said: the same note gives the same name.
fn name(note: &Note) -> String {
    let said = [
        &note.kind,
        &note.namespace,
        &note.name,
        &note.uid,
        &note.reason,
        &note.text,
    ];
    let mut hash = Sha256::new();
    for part in said {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digits: String = hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Names have 253 characters at most.
    format!("{}.{digits}", shortened(&note.name, 230).trim_end_matches(['.', '-']))
}

/// The first bytes of a text, without breaking a character.
fn shortened(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> Note {
        Note {
            kind: "Ingress".to_owned(),
            namespace: "d".to_owned(),
            name: "i".to_owned(),
            uid: "u".to_owned(),
            reason: "BadAnnotation".to_owned(),
            text: text.to_owned(),
            warning: true,
        }
    }

    #[test]
    fn the_same_note_has_the_same_name_and_another_has_another() {
        assert_eq!(name(&note("a")), name(&note("a")));
        assert_ne!(name(&note("a")), name(&note("b")));
        let mut anew = note("a");
        anew.uid = "v".to_owned();
        assert_ne!(name(&note("a")), name(&anew), "an Ingress made anew");
        let mut long = note("a");
        long.name = "x".repeat(253);
        assert!(name(&long).len() <= 253);
    }

    #[test]
    fn an_event_is_what_the_api_takes_and_its_text_is_bounded() {
        let event = event(&note(&"ä".repeat(2000)), "pod");
        let typed: Event = serde_json::from_value(event).unwrap();
        let text = typed.note.unwrap();
        assert!(text.len() <= EVENT_NOTE_BYTES && text.chars().all(|c| c == 'ä'));
        assert_eq!(typed.regarding.unwrap().uid.as_deref(), Some("u"));
        assert_eq!(typed.metadata.namespace.as_deref(), Some("d"));
    }
}
