//! Networks in CIDR notation.

use std::net::IpAddr;

/// A network in CIDR notation; bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads one from the command line.
    pub fn argument(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| "an address or a network such as 10.0.0.0/8 is needed".to_owned())
    }

    /// Reads `10.0.0.0/8` or a single address. One of IPv4 addresses within IPv6 (`::ffff:10.0.0.0/104`) is that of the IPv4 addresses, as
    /// which clients are compared; a wider one is none. `None` when it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|p| *p <= longest)?
            }
            Some(_) => return None,
            None => longest,
        };
        let (address, prefix) = match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => (v4.into(), prefix.checked_sub(96)?),
                None => (address, prefix),
            },
            IpAddr::V4(_) => (address, prefix),
        };
        Some(Self {
            address: masked(address, prefix),
            prefix,
        })
    }

    /// Whether an address lies within.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_compared_by_prefix() {
        let within = |network: &str, address: &str| Network::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(within("10.1.2.3/8", "10.255.0.1"));
        assert!(!within("10.0.0.0/9", "10.128.0.0"));
        assert!(within("0.0.0.0/0", "1.2.3.4"));
        assert!(!within("0.0.0.0/0", "::1"));
        assert!(within("fd00::/8", "fdff::1"));
        assert!(within("1.2.3.4", "1.2.3.4") && !within("1.2.3.4", "1.2.3.5"));
        assert!(within("::ffff:10.1.2.3/104", "10.255.0.1") && within("::ffff:1.2.3.4", "1.2.3.4"));
        assert!(!within("::ffff:10.1.2.3/104", "11.0.0.1") && !within("::ffff:10.0.0.0/104", "::1"));
        for bad in [
            "",
            // Neither all addresses nor those of IPv4.
            "::ffff:10.0.0.0/95",
            "::ffff:10.0.0.0/8",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "a/8",
            "10.0.0/8",
            "::/129",
        ] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
