//! Features of links, as `ethtool -k` and `ethtool -K` read and set them, over generic netlink (Documentation/networking/ethtool-netlink.rst).
//! Reading needs Linux 5.6, setting 5.8; older kernels answer `ENOENT` or `EOPNOTSUPP`.

use super::uapi::{
    CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY, ETHTOOL_A_BITSET_BIT_NAME,
    ETHTOOL_A_BITSET_BIT_VALUE, ETHTOOL_A_BITSET_BITS, ETHTOOL_A_BITSET_BITS_BIT, ETHTOOL_A_FEATURES_ACTIVE,
    ETHTOOL_A_FEATURES_HEADER, ETHTOOL_A_FEATURES_WANTED, ETHTOOL_A_HEADER_DEV_INDEX, ETHTOOL_MSG_FEATURES_GET,
    ETHTOOL_MSG_FEATURES_SET, GENL_ID_CTRL, GENLMSG_LEN,
};
use landfall_netlink::{Body, Netlink, Subsystem, attribute, attributes, text_of};
use std::io;

/// The feature that lets the card make checksums of all protocols; without it the kernel makes them.
pub const TX_CHECKSUM: &str = "tx-checksum-ip-generic";

/// Command and version, then two bytes that mean nothing.
fn head(command: u8) -> Body {
    Body::new(&[command, 1, 0, 0])
}

fn family(netlink: &mut Netlink) -> io::Result<u16> {
    let asked = head(CTRL_CMD_GETFAMILY).with_text(CTRL_ATTR_FAMILY_NAME, "ethtool");
    let answer = netlink.request(GENL_ID_CTRL, 0, &asked)?;
    let number = answer.and_then(|message| {
        let bytes = attribute(message.body.get(GENLMSG_LEN..)?, CTRL_ATTR_FAMILY_ID)?;
        Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
    });
    number.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel does not say its number for ethtool",
        )
    })
}

fn link(index: u32) -> Body {
    Body::default().with(ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes())
}

/// Says whether a feature of a link is on. One that the link does not have is off.
pub fn has_feature(index: u32, feature: &str) -> io::Result<bool> {
    let mut netlink = Netlink::open(Subsystem::Generic)?;
    let family = family(&mut netlink)?;
    let asked = head(ETHTOOL_MSG_FEATURES_GET).with_nested(ETHTOOL_A_FEATURES_HEADER, link(index));
    let answer = netlink.request(family, 0, &asked)?;
    let active = answer.as_ref().and_then(|message| {
        let active = attribute(message.body.get(GENLMSG_LEN..)?, ETHTOOL_A_FEATURES_ACTIVE)?;
        attribute(active, ETHTOOL_A_BITSET_BITS)
    });
    // What is active is a list of what is on.
    let mut bits = attributes(active.unwrap_or_default()).filter(|(kind, _)| *kind == ETHTOOL_A_BITSET_BITS_BIT);
    Ok(bits.any(|(_, bit)| text_of(bit, ETHTOOL_A_BITSET_BIT_NAME).as_deref() == Some(feature)))
}

/// Turns a feature of a link on or off, and what depends on it with it. That the kernel took it is seen by [`has_feature`].
pub fn set_feature(index: u32, feature: &str, on: bool) -> io::Result<()> {
    let mut netlink = Netlink::open(Subsystem::Generic)?;
    let family = family(&mut netlink)?;
    let mut bit = Body::default().with_text(ETHTOOL_A_BITSET_BIT_NAME, feature);
    if on {
        bit = bit.with(ETHTOOL_A_BITSET_BIT_VALUE, &[]);
    }
    let bits = Body::default().with_nested(ETHTOOL_A_BITSET_BITS_BIT, bit);
    let wanted = Body::default().with_nested(ETHTOOL_A_BITSET_BITS, bits);
    let asked = head(ETHTOOL_MSG_FEATURES_SET)
        .with_nested(ETHTOOL_A_FEATURES_HEADER, link(index))
        .with_nested(ETHTOOL_A_FEATURES_WANTED, wanted);
    netlink.request(family, 0, &asked).map(|_| ())
}
