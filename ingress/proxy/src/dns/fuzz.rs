//! Answers of DNS servers, hostile: see [`crate::fuzz`].

use super::message::{Answer, Kind, answer, question};
use crate::fuzz::fuzz;
use std::net::IpAddr;

/// Where an answer says how many records it has.
const COUNT: usize = 6;

#[test]
fn an_answer_has_the_addresses_that_were_sent_and_no_others() {
    fuzz("dns-answer", |input| {
        // The first byte chooses what is asked for, the rest is what a server says.
        let Some((first, bytes)) = input.split_first() else {
            return;
        };
        let kind = if *first == 28 { Kind::Aaaa } else { Kind::A };
        let asked = question(0x1234, "auth.example.com", kind).expect("a name");
        let Some(Answer::Addresses(found, lasts)) = answer(&asked, bytes, kind) else {
            return;
        };
        let count = usize::from(u16::from_be_bytes([bytes[COUNT], bytes[COUNT + 1]]));
        assert!(found.len() <= count, "{found:?} of {count} records");
        for address in &found {
            let octets = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            assert_eq!(address.is_ipv4(), kind == Kind::A);
            let mut sent = bytes[asked.len()..].windows(octets.len());
            assert!(sent.any(|part| part == octets), "{address} was not sent");
        }
        // What stands behind the last record changes nothing; another question has no answer here.
        let longer = [bytes, b"\xc0\x0c\0\x01"].concat();
        assert_eq!(answer(&asked, &longer, kind), Some(Answer::Addresses(found, lasts)));
        for (id, name) in [(0x1235, "auth.example.com"), (0x1234, "auth.example.org")] {
            let other = question(id, name, kind).expect("a name");
            assert_eq!(answer(&other, bytes, kind), None);
        }
    });
}
