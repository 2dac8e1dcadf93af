//! Tables of routes that differ little from those before: what is the same in both is neither encoded nor decoded again.
//! There may be thousands of routes in a table, and one of them changes at a time.
//!
//! A table is taken apart by its bytes: what it says of itself, its virtual hosts, and each of those the same way. What
//! comes out is what [`route`](super::route) makes of the whole.

use super::wire_order::{Field, ROUTE, ROUTES, VIRTUAL_HOST, ordered};
use super::{Decoder, RoutesProto, route};
use model::route::{Route, RouteConfiguration, VirtualHost};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use std::collections::HashMap;

/// Number of the field that holds the virtual hosts of a table.
const HOSTS: u32 = 2;
/// Number of the field that holds the routes of a virtual host.
const HOST_ROUTES: u32 = 3;

/// A message without one of its repeated fields, and what that field holds.
struct Parts<'b> {
    rest: Vec<u8>,
    items: Vec<&'b [u8]>,
}

impl<'b> Parts<'b> {
    /// Takes the items of field `number` out of `message`; `None` when it cannot be read.
    fn of(message: &'b [u8], number: u32) -> Option<Self> {
        let mut parts = Self { rest: Vec::new(), items: Vec::new() };
        let mut left = message;
        while !left.is_empty() {
            let field = Field::first(left)?;
            let (whole, after) = left.split_at_checked(field.end)?;
            match field.content_at.filter(|_| field.number == u64::from(number)) {
                Some(at) => parts.items.push(whole.get(at..)?),
                None => parts.rest.extend_from_slice(whole),
            }
            left = after;
        }
        Some(parts)
    }
}

/// Appends a length-delimited field.
fn put(number: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// How many items two lists have in common at their beginnings and, of the rest, at their ends.
fn common<A, B>(old: &[A], new: &[B], same: impl Fn(&A, &B) -> bool) -> (usize, usize) {
    let first = old.iter().zip(new).take_while(|(a, b)| same(a, b)).count();
    let most = old.len().min(new.len()) - first;
    let last = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(a, b)| same(a, b)).count();
    (first, last)
}

/// The value of the table's `Any`. What is as in `before`, a table and its bytes, is copied from there.
pub(crate) fn encode(table: &RouteConfiguration, before: Option<(&RouteConfiguration, &[u8])>) -> Vec<u8> {
    let parts = before.and_then(|(old, bytes)| Some((old, Parts::of(bytes, HOSTS)?)));
    let parts = parts.filter(|(old, parts)| old.virtual_hosts.len() == parts.items.len());
    let hosts = parts.iter().flat_map(|(old, parts)| old.virtual_hosts.iter().zip(&parts.items));
    let known: HashMap<&str, (&VirtualHost, &[u8])> =
        hosts.map(|(host, bytes)| (host.name.as_str(), (host, *bytes))).collect();
    let mut out = ordered(&route::encode_frame(table).encode_to_vec(), &ROUTES);
    for host in &table.virtual_hosts {
        put(HOSTS, &encode_host(host, known.get(host.name.as_str()).copied()), &mut out);
    }
    out
}

pub(crate) fn encode_host(host: &VirtualHost, before: Option<(&VirtualHost, &[u8])>) -> Vec<u8> {
    let parts = before.and_then(|(old, bytes)| Some((&old.routes[..], Parts::of(bytes, HOST_ROUTES)?)));
    let (old, known) = match &parts {
        Some((old, parts)) if old.len() == parts.items.len() => (*old, &parts.items[..]),
        _ => (&[][..], &[][..]),
    };
    let (first, last) = common(old, &host.routes, |a, b| a == b);
    let mut out = ordered(&route::encode_host_frame(host).encode_to_vec(), &VIRTUAL_HOST);
    let changed = host.routes.len() - last;
    known.iter().take(first).for_each(|bytes| put(HOST_ROUTES, bytes, &mut out));
    for route in host.routes.iter().take(changed).skip(first) {
        put(HOST_ROUTES, &encode_route(route), &mut out);
    }
    known.iter().skip(known.len() - last).for_each(|bytes| put(HOST_ROUTES, bytes, &mut out));
    out
}

fn encode_route(route: &Route) -> Vec<u8> {
    ordered(&route::encode_route(route).encode_to_vec(), &ROUTE)
}

/// The table in `bytes`, with what is as in `before`, a table and its bytes, taken from there. `None` where it has to be
/// decoded as a whole, be it to learn what is wrong with it.
pub(crate) fn decode(
    decoder: &Decoder<'_>,
    bytes: &[u8],
    before: (&RouteConfiguration, &[u8]),
) -> Option<RouteConfiguration> {
    let (old, old_bytes) = before;
    let (new, known) = (Parts::of(bytes, HOSTS)?, Parts::of(old_bytes, HOSTS)?);
    // What a table says of itself may be about every route.
    if new.rest != known.rest || old.virtual_hosts.len() != known.items.len() {
        return None;
    }
    let mut reduced = new.rest;
    let mut plans = Vec::with_capacity(new.items.len());
    // Where hosts came or went, those behind are at other places.
    let (_, last) = common(&known.items, &new.items, |a, b| a == b);
    let end = new.items.len() - last;
    for (at, host) in new.items.iter().enumerate() {
        let place = if at < end { at } else { known.items.len() - (new.items.len() - at) };
        let plan = Plan::of(host, known.items.get(place).zip(old.virtual_hosts.get(place)))?;
        if let Plan::Parts { reduced: host, .. } = &plan {
            put(HOSTS, host, &mut reduced);
        }
        plans.push(plan);
    }
    let mut table = decoder.routes(&RoutesProto::decode(reduced.as_slice()).ok()?).ok()?;
    let mut decoded = std::mem::take(&mut table.virtual_hosts).into_iter();
    for plan in plans {
        table.virtual_hosts.push(match plan {
            Plan::Whole(old) => old.clone(),
            Plan::Parts { first, last, .. } => {
                let mut host = decoded.next()?;
                let changed = std::mem::take(&mut host.routes);
                host.routes.reserve_exact(first.len() + changed.len() + last.len());
                host.routes.extend_from_slice(first);
                host.routes.extend(changed);
                host.routes.extend_from_slice(last);
                host
            }
        });
    }
    Some(table)
}

/// What is to be made of a virtual host.
enum Plan<'o> {
    /// It is this one.
    Whole(&'o VirtualHost),
    /// It is decoded without the routes that are the same, which come before and after what is decoded.
    Parts { reduced: Vec<u8>, first: &'o [Route], last: &'o [Route] },
}

impl<'o> Plan<'o> {
    fn of(host: &[u8], before: Option<(&&[u8], &'o VirtualHost)>) -> Option<Self> {
        if let Some((_, old)) = before.filter(|(bytes, _)| **bytes == host) {
            return Some(Self::Whole(old));
        }
        let new = Parts::of(host, HOST_ROUTES)?;
        let known = before.and_then(|(bytes, old)| Some((Parts::of(bytes, HOST_ROUTES)?, &old.routes[..])));
        // What a host says of itself may be about every route.
        let known = known.filter(|(known, old)| known.rest == new.rest && known.items.len() == old.len());
        let Some((known, old)) = known else {
            return Some(Self::Parts { reduced: host.to_vec(), first: &[], last: &[] });
        };
        let (first, last) = common(&known.items, &new.items, |a, b| a == b);
        let mut reduced = new.rest;
        for route in new.items.iter().take(new.items.len() - last).skip(first) {
            put(HOST_ROUTES, route, &mut reduced);
        }
        Some(Self::Parts { reduced, first: old.get(..first)?, last: old.get(old.len() - last..)? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::route_strategies::routes;
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8]) -> RouteConfiguration {
        Decoder::without_files().routes(&RoutesProto::decode(bytes).unwrap()).unwrap()
    }

    /// A table, and the same after some routes and hosts went, moved or came.
    fn two() -> impl Strategy<Value = (RouteConfiguration, RouteConfiguration)> {
        (routes(), routes(), any::<[u8; 4]>()).prop_map(|(old, other, [at, how, from, host])| {
            let mut new = old.clone();
            let pick = |n: u8, length: usize| usize::from(n).checked_rem(length);
            let donor = other.virtual_hosts.iter().flat_map(|host| &host.routes).next().cloned();
            if let Some(host) =
                pick(host, new.virtual_hosts.len()).and_then(|at| new.virtual_hosts.get_mut(at))
            {
                let routes = &mut host.routes;
                let length = routes.len();
                let place = pick(at, length + 1).unwrap_or_default();
                match (how % 5, donor, pick(from, routes.len())) {
                    (0, Some(donor), _) => routes.insert(place, donor),
                    (1, _, Some(from)) => drop(routes.remove(from)),
                    (2, _, Some(from)) => routes.swap(from, place.min(length - 1)),
                    (3, Some(donor), Some(from)) => routes[from] = donor,
                    _ => host.attempt_count_in_request = !host.attempt_count_in_request,
                }
            } else {
                new.virtual_hosts.extend(other.virtual_hosts);
            }
            (old, new)
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_and_decoded_after_another_is_as_from_scratch((old, new) in two()) {
            let bytes = encode(&old, None);
            prop_assert_eq!(&decoded(&bytes), &old);
            let next = encode(&new, Some((&old, &bytes)));
            prop_assert_eq!(&next, &encode(&new, None));
            let after = decode(&Decoder::without_files(), &next, (&old, &bytes));
            prop_assert_eq!(after.unwrap_or_else(|| decoded(&next)), new);
        }
    }

    #[test]
    fn bytes_that_cannot_be_read_are_left_to_the_whole() {
        let old = RouteConfiguration::default();
        let decoder = Decoder::without_files();
        for broken in [&b"\x12\x05ab"[..], b"\xff", b"\x12\x02\x1a\x09"] {
            assert!(decode(&decoder, broken, (&old, b"")).is_none());
        }
    }
}
