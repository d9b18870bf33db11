//! Links, addresses and routes of this network namespace.

use super::uapi::{
    AF_INET, AF_INET6, IFA_ADDRESS, IFA_F_PERMANENT, IFA_FLAGS, IFA_LOCAL, IFADDRMSG_LEN, IFF_UP, IFI_FLAGS, IFI_INDEX,
    IFINFOMSG_LEN, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, RT_SCOPE_LINK, RT_SCOPE_NOWHERE,
    RT_TABLE_MAIN, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PREFSRC, RTA_TABLE, RTM_DELLINK, RTM_DELROUTE, RTM_GETADDR,
    RTM_GETLINK, RTM_GETROUTE, RTM_NEWLINK, RTM_NEWROUTE, RTMSG_LEN, RTN_UNICAST, RTPROT_STATIC,
};
use landfall_core::facts::{InterfaceAddress, PeerRoute, Route};
use landfall_core::spec::Cidr;
use landfall_netlink::{Body, NLM_F_CREATE, NLM_F_EXCL, Netlink, Subsystem, attribute, text_of, u32_at};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The bridge it belongs to.
    pub master: Option<u32>,
    /// What makes links of its sort, for instance `bridge`; empty for hardware and the loopback.
    pub kind: String,
    /// Whether an administrator has set it up.
    pub is_up: bool,
    /// Size of the largest packet, in bytes.
    pub mtu: u32,
}

/// Lists all links.
pub fn links() -> io::Result<Vec<Link>> {
    let mut netlink = Netlink::open(Subsystem::Route)?;
    let list = netlink.dump(RTM_GETLINK, &Body::new(&[0; IFINFOMSG_LEN]))?;
    let links = list.iter().filter(|m| m.kind == RTM_NEWLINK).filter_map(|message| {
        let attributes = message.body.get(IFINFOMSG_LEN..)?;
        Some(Link {
            index: u32_at(&message.body, IFI_INDEX)?,
            name: text_of(attributes, IFLA_IFNAME)?,
            master: attribute(attributes, IFLA_MASTER).and_then(|v| u32_at(v, 0)),
            kind: attribute(attributes, IFLA_LINKINFO)
                .and_then(|info| text_of(info, IFLA_INFO_KIND))
                .unwrap_or_default(),
            is_up: u32_at(&message.body, IFI_FLAGS)? & IFF_UP != 0,
            mtu: attribute(attributes, IFLA_MTU).and_then(|v| u32_at(v, 0)).unwrap_or(0),
        })
    });
    Ok(links.collect())
}

/// Deletes a link by number; one that is gone is fine.
pub fn delete_link(index: u32) -> io::Result<()> {
    let mut fixed = [0u8; IFINFOMSG_LEN];
    fixed[IFI_INDEX..IFI_INDEX + 4].copy_from_slice(&index.to_ne_bytes());
    let mut netlink = Netlink::open(Subsystem::Route)?;
    match netlink.request(RTM_DELLINK, 0, &Body::new(&fixed)) {
        Err(error) if error.raw_os_error() != Some(Errno::NODEV.raw_os_error()) => Err(error),
        _ => Ok(()),
    }
}

fn names() -> io::Result<BTreeMap<u32, String>> {
    Ok(links()?.into_iter().map(|l| (l.index, l.name)).collect())
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

/// Lists IPv4 addresses.
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let names = names()?;
    let mut fixed = [0u8; IFADDRMSG_LEN];
    fixed[0] = AF_INET;
    let list = Netlink::open(Subsystem::Route)?.dump(RTM_GETADDR, &Body::new(&fixed))?;
    let addresses = list.iter().filter_map(|message| {
        let attributes = message.body.get(IFADDRMSG_LEN..)?;
        let address = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
        Some(InterfaceAddress {
            interface: names.get(&u32_at(&message.body, 4)?)?.clone(),
            address: ipv4(address)?,
            prefix: *message.body.get(1)?,
            is_leased: is_leased(&message.body, attributes),
        })
    });
    Ok(addresses.collect())
}

/// Says whether the kernel forgets an address by itself: it has a lifetime, as DHCP clients give it.
fn is_leased(body: &[u8], attributes: &[u8]) -> bool {
    let flags = attribute(attributes, IFA_FLAGS).and_then(|flags| u32_at(flags, 0));
    // Kernels before 3.14 have the lowest eight flags in the message's fixed part alone.
    let flags = flags.or_else(|| body.get(2).map(|flags| u32::from(*flags)));
    flags.is_some_and(|flags| flags & IFA_F_PERMANENT == 0)
}

struct RawRoute {
    route: Route,
    protocol: u8,
    scope: u8,
}

fn raw_routes() -> io::Result<Vec<RawRoute>> {
    let names = names()?;
    let mut fixed = [0u8; RTMSG_LEN];
    fixed[0] = AF_INET;
    let list = Netlink::open(Subsystem::Route)?.dump(RTM_GETROUTE, &Body::new(&fixed))?;
    let routes = list.iter().filter_map(|message| {
        let (head, attributes) = message.body.split_at_checked(RTMSG_LEN)?;
        let table = attribute(attributes, RTA_TABLE)
            .and_then(|v| u32_at(v, 0))
            .unwrap_or(u32::from(head[4]));
        if table != u32::from(RT_TABLE_MAIN) || head[7] != RTN_UNICAST {
            return None;
        }
        let address = match attribute(attributes, RTA_DST) {
            Some(bytes) => ipv4(bytes)?,
            None => Ipv4Addr::UNSPECIFIED,
        };
        let interface = attribute(attributes, RTA_OIF).and_then(|v| u32_at(v, 0));
        let interface = interface
            .and_then(|index| names.get(&index).cloned())
            .unwrap_or_default();
        Some(RawRoute {
            route: Route {
                destination: Cidr {
                    address,
                    prefix: head[1],
                },
                interface,
                gateway: attribute(attributes, RTA_GATEWAY).and_then(ipv4),
            },
            protocol: head[5],
            scope: head[6],
        })
    });
    Ok(routes.collect())
}

/// Lists the IPv4 routes of the main table.
pub fn routes() -> io::Result<Vec<Route>> {
    Ok(raw_routes()?.into_iter().map(|r| r.route).collect())
}

/// Returns how the kernel would reach an address; `None` when it could not.
pub fn route_to(peer: IpAddr) -> io::Result<Option<PeerRoute>> {
    let (family, bytes) = match peer {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    let mut fixed = [0u8; RTMSG_LEN];
    fixed[0] = family;
    fixed[1] = (bytes.len() * 8) as u8;
    let answer = Netlink::open(Subsystem::Route)?.request(RTM_GETROUTE, 0, &Body::new(&fixed).with(RTA_DST, &bytes));
    let Ok(Some(message)) = answer else { return Ok(None) };
    let attributes = message.body.get(RTMSG_LEN..).unwrap_or_default();
    let source = attribute(attributes, RTA_PREFSRC).and_then(|v| match v.len() {
        4 => ipv4(v).map(IpAddr::V4),
        _ => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(v).ok()?))),
    });
    let index = attribute(attributes, RTA_OIF).and_then(|v| u32_at(v, 0));
    let (Some(source), Some(index)) = (source, index) else {
        return Ok(None);
    };
    let interface = names()?.remove(&index).unwrap_or_default();
    Ok(Some(PeerRoute { source, interface }))
}

/// Says whether our route stands exactly as [`add_link_route`] makes it.
pub fn has_link_route(network: &Cidr, interface: &str) -> io::Result<bool> {
    Ok(raw_routes()?.iter().any(|r| {
        r.route.destination == *network
            && r.route.interface == interface
            && r.scope == RT_SCOPE_LINK
            && r.protocol == RTPROT_STATIC
            && r.route.gateway.is_none()
    }))
}

fn link_route(network: &Cidr, index: u32) -> Body {
    let fixed = [
        AF_INET,
        network.prefix,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        RT_SCOPE_LINK,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    Body::new(&fixed)
        .with(RTA_DST, &network.address.octets())
        .with(RTA_OIF, &index.to_ne_bytes())
}

fn index_of(interface: &str) -> io::Result<u32> {
    let link = links()?.into_iter().find(|l| l.name == interface);
    link.map(|l| l.index)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no link {interface}")))
}

/// Adds a route for `network` straight out of `interface`; one that stands already is fine, another one to the same network an error.
pub fn add_link_route(network: &Cidr, interface: &str) -> io::Result<()> {
    if has_link_route(network, interface)? {
        return Ok(());
    }
    let body = link_route(network, index_of(interface)?);
    Netlink::open(Subsystem::Route)?
        .request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &body)
        .map(|_| ())
}

/// Removes the route that [`add_link_route`] made, and no other; one that is gone is fine.
pub fn remove_link_route(network: &Cidr, interface: &str) -> io::Result<()> {
    if !has_link_route(network, interface)? {
        return Ok(());
    }
    let body = link_route(network, index_of(interface)?);
    match Netlink::open(Subsystem::Route)?.request(RTM_DELROUTE, 0, &body) {
        Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => Err(error),
        _ => Ok(()),
    }
}

/// Removes a route over a router, as [`routes`] lists it; one that is gone is fine.
pub fn remove_route(route: &Route) -> io::Result<()> {
    let index = index_of(&route.interface)?;
    // No scope, protocol or type: the kernel then takes the route that has the rest.
    let fixed = [
        AF_INET,
        route.destination.prefix,
        0,
        0,
        RT_TABLE_MAIN,
        0,
        RT_SCOPE_NOWHERE,
        0,
        0,
        0,
        0,
        0,
    ];
    let mut body = Body::new(&fixed)
        .with(RTA_DST, &route.destination.address.octets())
        .with(RTA_OIF, &index.to_ne_bytes());
    if let Some(gateway) = route.gateway {
        body = body.with(RTA_GATEWAY, &gateway.octets());
    }
    match Netlink::open(Subsystem::Route)?.request(RTM_DELROUTE, 0, &body) {
        Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => Err(error),
        _ => Ok(()),
    }
}
