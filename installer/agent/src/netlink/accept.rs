//! Writes rules that accept into chains of nftables, as `nft` would write them, and deletes others in the same transaction.

use super::nft::{self, Rule, Table};
use super::uapi::*;
use landfall_core::packet_filter::accept::{Accept, Peers, Protocol};
use landfall_netlink::{Body, NLM_F_APPEND, NLM_F_CREATE};
use std::io;
use std::net::Ipv4Addr;

/// Kind of a comment among a rule's user data (libnftnl, `NFTNL_UDATA_RULE_COMMENT`).
const UDATA_COMMENT: u8 = 0;
/// Longest comment that nft reads (`NFTNL_UDATA_COMMENT_MAXLEN`); ours have 60 characters.
const LONGEST_COMMENT: usize = 128;
/// nft's numbers for types of set keys, by which it prints them (nft, `enum datatypes`).
const TYPE_IPV4_ADDR: u32 = 7;
/// See [`TYPE_IPV4_ADDR`].
const TYPE_INET_SERVICE: u32 = 13;
/// Where addresses and ports lie in their headers (RFC 791, 9293, 768).
const SOURCE_ADDRESS: u32 = 12;
const DESTINATION_ADDRESS: u32 = 16;
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;
/// `IFNAMSIZ`.
const INTERFACE_NAME: usize = 16;
/// Bits of connection tracking's states established and related (nf_conntrack_common.h, `NF_CT_STATE_BIT`).
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;

/// Rules for one place.
#[derive(Debug)]
pub struct Placed<'a> {
    /// The table.
    pub table: Table,
    /// The chain.
    pub chain: &'a str,
    /// The handle of the rule in front of which they go; `None`: to the end.
    pub before: Option<u64>,
    /// What they accept, one rule each.
    pub accept: Vec<&'a Accept>,
    /// Their comment.
    pub comment: String,
}

/// Writes and deletes rules, all or none.
pub fn replace(placed: &[Placed], delete: &[Rule]) -> io::Result<()> {
    let mut batch = Batch::default();
    for place in placed {
        for accept in &place.accept {
            batch.rule(place, accept);
        }
    }
    batch.messages.extend(delete.iter().map(nft::deletion));
    nft::transaction(&batch.messages)
}

#[derive(Default)]
struct Batch {
    messages: Vec<(u16, u16, Body)>,
    /// How many sets there are so far; within a transaction they are known by number.
    sets: u32,
}

impl Batch {
    fn rule(&mut self, place: &Placed, accept: &Accept) {
        let expressions = self.expressions(&place.table, accept);
        let mut flags = NLM_F_CREATE;
        let mut body = nft::fixed(place.table.family)
            .with_text(NFTA_RULE_TABLE, &place.table.name)
            .with_text(NFTA_RULE_CHAIN, place.chain)
            .with_nested(NFTA_RULE_EXPRESSIONS, expressions)
            .with(NFTA_RULE_USERDATA, &user_data(&place.comment));
        match place.before {
            Some(handle) => body = body.with(NFTA_RULE_POSITION, &handle.to_be_bytes()),
            None => flags |= NLM_F_APPEND,
        }
        self.messages.push((NFT_MSG_NEWRULE, flags, body));
    }

    fn expressions(&mut self, table: &Table, accept: &Accept) -> Body {
        let mut list = Expressions::default();
        for (key, link) in [(NFT_META_IIFNAME, &accept.through), (NFT_META_OIFNAME, &accept.out_of)] {
            if let Some(link) = link {
                let mut name = link.as_bytes().to_vec();
                name.resize(INTERFACE_NAME, 0);
                list.meta(key);
                list.equals(&name);
            }
        }
        let has_addresses = accept.from != Peers::Any || accept.to != Peers::Any;
        if has_addresses && table.family == "inet" {
            list.meta(NFT_META_NFPROTO);
            list.equals(&[NFPROTO_IPV4]);
        }
        for (offset, peers) in [(SOURCE_ADDRESS, &accept.from), (DESTINATION_ADDRESS, &accept.to)] {
            match peers {
                Peers::Any => {}
                Peers::Addresses(addresses) => {
                    let keys: Vec<Vec<u8>> = addresses.iter().map(|a| a.octets().to_vec()).collect();
                    list.payload(NFT_PAYLOAD_NETWORK_HEADER, offset, 4);
                    self.one_of(&mut list, table, TYPE_IPV4_ADDR, &keys);
                }
                Peers::Network(network) => {
                    list.payload(NFT_PAYLOAD_NETWORK_HEADER, offset, 4);
                    list.masked(&Ipv4Addr::octets(&network.netmask()));
                    list.equals(&network.address.octets());
                }
            }
        }
        if let Some(protocol) = accept.protocol {
            list.meta(NFT_META_L4PROTO);
            list.equals(&[match protocol {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
            }]);
        }
        for (offset, ports) in [(SOURCE_PORT, &accept.source_ports), (DESTINATION_PORT, &accept.ports)] {
            if !ports.is_empty() {
                let keys: Vec<Vec<u8>> = ports.iter().map(|port| port.to_be_bytes().to_vec()).collect();
                list.payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2);
                self.one_of(&mut list, table, TYPE_INET_SERVICE, &keys);
            }
        }
        if accept.established {
            let key = Body::default()
                .with(NFTA_CT_DREG, &NFT_REG_1.to_be_bytes())
                .with(NFTA_CT_KEY, &NFT_CT_STATE.to_be_bytes());
            list.add("ct", key);
            list.masked(&ESTABLISHED_OR_RELATED.to_ne_bytes());
            list.compare(NFT_CMP_NEQ, &[0; 4]);
        }
        list.accept();
        list.0
    }

    /// Asks whether what was loaded is one of `keys`: by comparison, or by a set without a name.
    fn one_of(&mut self, list: &mut Expressions, table: &Table, key_type: u32, keys: &[Vec<u8>]) {
        if let [only] = keys {
            list.equals(only);
            return;
        }
        self.sets += 1;
        let id = self.sets.to_be_bytes();
        // The kernel puts a number in place of %d.
        let name = "__set%d";
        let length = keys.first().map_or(0, Vec::len) as u32;
        let size = Body::default().with(NFTA_SET_DESC_SIZE, &(keys.len() as u32).to_be_bytes());
        let set = nft::fixed(table.family)
            .with_text(NFTA_SET_TABLE, &table.name)
            .with_text(NFTA_SET_NAME, name)
            .with(NFTA_SET_FLAGS, &(NFT_SET_ANONYMOUS | NFT_SET_CONSTANT).to_be_bytes())
            .with(NFTA_SET_KEY_TYPE, &key_type.to_be_bytes())
            .with(NFTA_SET_KEY_LEN, &length.to_be_bytes())
            .with(NFTA_SET_ID, &id)
            .with_nested(NFTA_SET_DESC, size);
        self.messages.push((NFT_MSG_NEWSET, NLM_F_CREATE, set));
        let mut elements = Body::default();
        for key in keys {
            let key = Body::default().with(NFTA_DATA_VALUE, key);
            let element = Body::default().with_nested(NFTA_SET_ELEM_KEY, key);
            elements = elements.with_nested(NFTA_LIST_ELEM, element);
        }
        let elements = nft::fixed(table.family)
            .with_text(NFTA_SET_ELEM_LIST_TABLE, &table.name)
            .with_text(NFTA_SET_ELEM_LIST_SET, name)
            .with(NFTA_SET_ELEM_LIST_SET_ID, &id)
            .with_nested(NFTA_SET_ELEM_LIST_ELEMENTS, elements);
        self.messages.push((NFT_MSG_NEWSETELEM, NLM_F_CREATE, elements));
        let lookup = Body::default()
            .with_text(NFTA_LOOKUP_SET, name)
            .with(NFTA_LOOKUP_SREG, &NFT_REG_1.to_be_bytes())
            .with(NFTA_LOOKUP_SET_ID, &id);
        list.add("lookup", lookup);
    }
}

/// The expressions of a rule. Each loads register 1, changes it, or compares it.
#[derive(Default)]
struct Expressions(Body);

impl Expressions {
    fn add(&mut self, name: &str, data: Body) {
        let expression = Body::default()
            .with_text(NFTA_EXPR_NAME, name)
            .with_nested(NFTA_EXPR_DATA, data);
        self.0 = std::mem::take(&mut self.0).with_nested(NFTA_LIST_ELEM, expression);
    }

    fn meta(&mut self, key: u32) {
        let data = Body::default()
            .with(NFTA_META_KEY, &key.to_be_bytes())
            .with(NFTA_META_DREG, &NFT_REG_1.to_be_bytes());
        self.add("meta", data);
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        let data = Body::default()
            .with(NFTA_PAYLOAD_DREG, &NFT_REG_1.to_be_bytes())
            .with(NFTA_PAYLOAD_BASE, &base.to_be_bytes())
            .with(NFTA_PAYLOAD_OFFSET, &offset.to_be_bytes())
            .with(NFTA_PAYLOAD_LEN, &length.to_be_bytes());
        self.add("payload", data);
    }

    fn masked(&mut self, mask: &[u8]) {
        let value = |bytes: &[u8]| Body::default().with(NFTA_DATA_VALUE, bytes);
        let data = Body::default()
            .with(NFTA_BITWISE_SREG, &NFT_REG_1.to_be_bytes())
            .with(NFTA_BITWISE_DREG, &NFT_REG_1.to_be_bytes())
            .with(NFTA_BITWISE_LEN, &(mask.len() as u32).to_be_bytes())
            .with_nested(NFTA_BITWISE_MASK, value(mask))
            .with_nested(NFTA_BITWISE_XOR, value(&vec![0; mask.len()]));
        self.add("bitwise", data);
    }

    fn equals(&mut self, value: &[u8]) {
        self.compare(NFT_CMP_EQ, value);
    }

    fn compare(&mut self, operator: u32, value: &[u8]) {
        let data = Body::default()
            .with(NFTA_CMP_SREG, &NFT_REG_1.to_be_bytes())
            .with(NFTA_CMP_OP, &operator.to_be_bytes())
            .with_nested(NFTA_CMP_DATA, Body::default().with(NFTA_DATA_VALUE, value));
        self.add("cmp", data);
    }

    fn accept(&mut self) {
        let verdict = Body::default().with(NFTA_VERDICT_CODE, &NF_ACCEPT.to_be_bytes());
        let data = Body::default()
            .with(NFTA_IMMEDIATE_DREG, &NFT_REG_VERDICT.to_be_bytes())
            .with_nested(
                NFTA_IMMEDIATE_DATA,
                Body::default().with_nested(NFTA_DATA_VERDICT, verdict),
            );
        self.add("immediate", data);
    }
}

/// A comment as nft keeps it: kind, length and text with a zero byte.
fn user_data(comment: &str) -> Vec<u8> {
    let text: Vec<u8> = comment.bytes().take(LONGEST_COMMENT).chain([0]).collect();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [vec![UDATA_COMMENT, length], text].concat()
}
