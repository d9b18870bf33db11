//! Userdata as nft 1.0.6 and nft 1.1.3 wrote it on 2026-12-01, for sets and maps of kube-proxy's and for others; and one set in the kernel.

use super::*;
use landfall_netlink::NLM_F_CREATE;

/// What was made, the userdata of nft 1.0.6, and that of nft 1.1.3. With each pair where the second differs, nft 1.0.6 crashed on the second,
/// but for the set of two addresses.
const RECORDED: [(&str, &str, &str); 6] = [
    ("type ifname", "000401000000", "0004010000000308000404000000 0100"),
    (
        "type ipv4_addr; comment \"IPs\"",
        "000402000000070449507300",
        "00040200000003080004040000000100070449507300",
    ),
    (
        "type inet_proto . inet_service : verdict",
        "0004000000000104000000000308 00040d0000000100 060400000000",
        "000400000000010400000000 0312 00040d000000010a00000004040000000100 0408 0004040000000100 060400000000",
    ),
    (
        "type ipv4_addr . ipv4_addr; comment \"h\"",
        "000400000000 0308 00040d0000000100 07026800",
        "000400000000 0312 00040d000000010a00000004040000000100 07026800",
    ),
    (
        "typeof tcp dport",
        "000402000000 0314 000407000000010c000408000000010402000000",
        "000402000000 0314 000407000000010c000408000000010402000000",
    ),
    (
        "the map of numgen vmap",
        "000401000000 010400000000 0408 0004010000000100 060400000000",
        "000401000000 010400000000 0308 0004040000000100 0408 0004010000000100 060400000000",
    ),
];

/// Two addresses as a key: nft 1.0.6 reads what nft 1.1.3 writes of them.
const READ_BY_BOTH: [&str; 2] = ["type ipv4_addr . ipv4_addr; comment \"h\"", "typeof tcp dport"];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| *digit != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn userdata_that_an_older_nft_cannot_read_is_told_from_the_rest() {
    for (made, older, newer) in RECORDED {
        assert!(!is_newer(&bytes(older)), "{made}, by nft 1.0.6");
        assert_eq!(
            is_newer(&bytes(newer)),
            !READ_BY_BOTH.contains(&made),
            "{made}, by nft 1.1.3"
        );
        let newer = bytes(newer);
        for cut in 0..newer.len() {
            is_newer(&newer[..cut]);
        }
    }
}

/// Makes a set in a table of its own.
fn make_set(table: &str, userdata: &[u8]) {
    // linux/netfilter/nfnetlink.h, nf_tables.h
    const NFNL_MSG_BATCH_BEGIN: u16 = 16;
    const NFNL_MSG_BATCH_END: u16 = 17;
    const NFT_MSG_NEWTABLE: u16 = 0;
    const NFT_MSG_NEWSET: u16 = 9;
    const NFPROTO_INET: u8 = 1;
    let message = |kind, body: Body| (NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_CREATE, body);
    let start = || Body::new(&[NFPROTO_INET, 0, 0, 0]).with_text(1, table);
    let set = start()
        .with_text(2, "links")
        .with(4, &41u32.to_be_bytes())
        .with(5, &16u32.to_be_bytes())
        .with(10, &1u32.to_be_bytes())
        .with(NFTA_SET_USERDATA, userdata);
    let messages = [message(NFT_MSG_NEWTABLE, start()), message(NFT_MSG_NEWSET, set)];
    let mark = Body::new(&[0, 0, 0, NFNL_SUBSYS_NFTABLES as u8]);
    Netlink::open(Subsystem::Netfilter)
        .unwrap()
        .transaction((NFNL_MSG_BATCH_BEGIN, &mark), &messages, (NFNL_MSG_BATCH_END, &mark))
        .unwrap();
}

#[test]
fn the_kernel_is_asked_for_sets_of_all_tables() {
    #[expect(
        deprecated,
        reason = "only this thread's own network namespace is left, and no descriptor is shared"
    )]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("this test needs root");
    let [(_, older, newer), ..] = RECORDED;
    assert!(!has_newer_sets().unwrap(), "there is no set");
    make_set("one", &bytes(older));
    assert!(!has_newer_sets().unwrap());
    make_set("other", &bytes(newer));
    assert!(has_newer_sets().unwrap());
}
