//! What the agent asks of the kernel over netlink: links, addresses and routes ([`route`]), features of links ([`ethtool`]), nftables ([`nft`]; rules
//! that accept: [`accept`]). Messages are built and read here; nothing else in the crate knows their layout.

pub mod accept;
pub mod ethtool;
pub mod namespaces;
pub mod nft;
pub mod route;
mod uapi;
