//! Messages of the DNS (RFC 1035): one question, and the addresses of its answer. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses (RFC 3596).
    Aaaa = 28,
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// These addresses, for so many seconds; none when the name has none of the kind, or is not there.
    Addresses(Vec<IpAddr>, u32),
    /// It did not fit: TCP has to be used.
    Truncated,
}

const HEADER: usize = 12;
/// Longest name, with its dots; RFC 1035, 2.3.4, less the length byte and the root.
const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;
/// Seconds for which it is believed that a name has no address. Of the zone's own word (RFC 2308) it is the short end.
const NOTHING_LASTS: u32 = 5;

/// The question for a name; `None` when it is no name.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    // One question, recursion desired.
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > LONGEST_LABEL {
            return None;
        }
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, kind as u8, 0, 1]);
    Some(bytes)
}

/// Reads the answer to this question; `None` when it is none, or when the server says that it failed.
pub(super) fn answer(question: &[u8], bytes: &[u8], kind: Kind) -> Option<Answer> {
    let asked = question.get(HEADER..)?;
    let echoed = bytes.get(HEADER..HEADER + asked.len())?;
    let flags = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let (is_answer, is_truncated, code) = (flags & 0x8000 != 0, flags & 0x0200 != 0, flags & 0xf);
    // A server may write the name in other letters (0x20 of some resolvers is not used here), but has to repeat it.
    if bytes[..2] != question[..2] || !is_answer || !echoed.eq_ignore_ascii_case(asked) {
        return None;
    }
    match code {
        0 if is_truncated => return Some(Answer::Truncated),
        0 => {}
        // NXDOMAIN.
        3 => return Some(Answer::Addresses(vec![], NOTHING_LASTS)),
        _ => return None,
    }
    let count = u16::from_be_bytes([bytes[6], bytes[7]]);
    let mut rest = &bytes[HEADER + asked.len()..];
    let (mut found, mut lasts) = (vec![], u32::MAX);
    for _ in 0..count {
        let record = &rest[skip_name(rest)?..];
        let (head, data) = record.split_at_checked(10)?;
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let (data, behind) = data.split_at_checked(length)?;
        rest = behind;
        if head[2..4] != [0, 1] {
            continue;
        }
        // Names that this one is another name for (CNAME) bound its time as well.
        lasts = lasts.min(u32::from_be_bytes([head[4], head[5], head[6], head[7]]));
        if head[..2] == [0, kind as u8] {
            found.push(address(kind, data)?);
        }
    }
    let lasts = if found.is_empty() { NOTHING_LASTS } else { lasts };
    Some(Answer::Addresses(found, lasts))
}

fn address(kind: Kind, data: &[u8]) -> Option<IpAddr> {
    match kind {
        Kind::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
        Kind::Aaaa => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
    }
}

/// How many bytes a name takes here: its labels, or those before a pointer, which is not followed.
fn skip_name(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return bytes.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_ingress_balance::chance::Chance;

    /// An answer to this question with these records: type, seconds, data.
    fn response(question: &[u8], flags: u16, records: &[(u8, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = question.to_vec();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[7] = u8::try_from(records.len()).unwrap();
        for (kind, seconds, data) in records {
            bytes.extend([0xc0, 12, 0, *kind, 0, 1]);
            bytes.extend(seconds.to_be_bytes());
            bytes.extend([0, u8::try_from(data.len()).unwrap()]);
            bytes.extend(*data);
        }
        bytes
    }

    #[test]
    fn a_question_is_what_rfc_1035_has_in_its_pictures() {
        let bytes = question(0x1234, "auth.example.com", Kind::Aaaa).unwrap();
        assert_eq!(
            bytes,
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04auth\x07example\x03com\0\0\x1c\0\x01"
        );
        let long = "a".repeat(64);
        for bad in ["", ".", "a..b", "a.", &long, &"a.".repeat(130)] {
            assert_eq!(question(1, bad, Kind::A), None, "{bad}");
        }
    }

    #[test]
    fn addresses_behind_other_names_are_found_and_the_shortest_time_counts() {
        let asked = question(7, "auth.example.com", Kind::A).unwrap();
        let bytes = response(
            &asked,
            0x8180,
            &[(5, 20, b"\x01x\0"), (1, 300, &[192, 0, 2, 1]), (1, 60, &[192, 0, 2, 2])],
        );
        let found = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(answer(&asked, &bytes, Kind::A), Some(Answer::Addresses(found, 20)));
        let none = Some(Answer::Addresses(vec![], NOTHING_LASTS));
        assert_eq!(answer(&asked, &response(&asked, 0x8183, &[]), Kind::A), none);
        assert_eq!(answer(&asked, &response(&asked, 0x8180, &[]), Kind::A), none);
        assert_eq!(
            answer(&asked, &response(&asked, 0x8380, &[]), Kind::A),
            Some(Answer::Truncated)
        );
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_none() {
        let asked = question(7, "auth.example.com", Kind::A).unwrap();
        let right = response(&asked, 0x8180, &[(1, 60, &[192, 0, 2, 1])]);
        assert!(answer(&asked, &right, Kind::A).is_some());
        let mut other_id = right.clone();
        other_id[1] = 8;
        let mut other_name = right.clone();
        other_name[14] = b'x';
        let failed = response(&asked, 0x8182, &[]);
        let query = response(&asked, 0x0100, &[]);
        let short = response(&asked, 0x8180, &[(1, 60, &[192, 0, 2])]);
        for bad in [&other_id, &other_name, &failed, &query, &short] {
            assert_eq!(answer(&asked, bad, Kind::A), None, "{bad:?}");
        }
        // Cut anywhere, or with any byte changed: no panic, and never an address that nobody sent.
        for end in 0..right.len() {
            assert_eq!(answer(&asked, &right[..end], Kind::A), None, "{end}");
        }
        let chance = Chance::new(7);
        for _ in 0..20_000 {
            let mut bytes = right.clone();
            for _ in 0..=chance.below(4) {
                let at = chance.below(bytes.len() as u64) as usize;
                bytes[at] = chance.below(256) as u8;
            }
            let _ = answer(&asked, &bytes, Kind::A);
        }
    }
}
