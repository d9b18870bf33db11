//! Routes that flannel's host-gw makes over other members to the pods there, and leaves when it ends.

use crate::netlink::route;
use landfall_core::action::Claims;
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::facts::Route;
use landfall_core::spec::Cidr;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

fn is_inside(route: &Route, networks: &[Cidr]) -> bool {
    let destination = route.destination;
    networks
        .iter()
        .any(|network| destination.prefix > network.prefix && network.contains(destination.address))
}

/// Returns where routes into the claimed networks lead that are there already.
pub(super) fn prior(claims: &Claims) -> io::Result<Vec<Cidr>> {
    if claims.routed_networks.is_empty() {
        return Ok(vec![]);
    }
    let routes = route::routes()?;
    let inside = routes.iter().filter(|route| is_inside(route, &claims.routed_networks));
    Ok(inside.map(|route| route.destination).collect())
}

/// Takes away routes into the claimed networks over members of the cluster. Returns a line for each that stays: it leads elsewhere.
pub(super) fn remove(claims: &Claims, records: &[ClusterRecord]) -> io::Result<Vec<String>> {
    let mut notes = Vec::new();
    if claims.routed_networks.is_empty() {
        return Ok(notes);
    }
    let members: BTreeSet<IpAddr> = records
        .iter()
        .flat_map(|record| record.members.values().map(|member| member.address))
        .collect();
    for found in route::routes()? {
        let Some(gateway) = found.gateway.filter(|_| is_inside(&found, &claims.routed_networks)) else {
            continue;
        };
        if claims.prior_routes.contains(&found.destination) {
            continue;
        }
        if members.contains(&IpAddr::V4(gateway)) {
            route::remove_route(&found)?;
        } else {
            notes.push(format!(
                "the route to {} stays: {gateway} is no member of the cluster",
                found.destination
            ));
        }
    }
    Ok(notes)
}
