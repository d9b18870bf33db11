//! Numbers of `include/uapi/linux/netlink.h`, under the names that they have there.

/// A request.
pub const NLM_F_REQUEST: u16 = 0x01;
/// An answer is wanted, also when all is well.
pub const NLM_F_ACK: u16 = 0x04;
/// A list is wanted.
pub const NLM_F_DUMP: u16 = 0x300;
/// What is there already is an error.
pub const NLM_F_EXCL: u16 = 0x200;
/// What is not there is made.
pub const NLM_F_CREATE: u16 = 0x400;
/// What is made goes behind the others.
pub const NLM_F_APPEND: u16 = 0x800;
pub const NLMSG_ERROR: u16 = 0x2;
pub const NLMSG_DONE: u16 = 0x3;
/// Size of `struct nlmsghdr`.
pub const NLMSG_HDRLEN: usize = 16;
/// Size of `struct nlattr`.
pub const NLA_HDRLEN: usize = 4;
pub const NLA_F_NESTED: u16 = 1 << 15;
pub const NLA_TYPE_MASK: u16 = 0x3fff;
