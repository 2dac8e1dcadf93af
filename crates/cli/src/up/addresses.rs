//! Where the parts of a mesh listen: a loopback address for each replica, private ports for applications and admin
//! pages. Two meshes on one machine share nothing: each claims a block of addresses of its own.
//!
//! Nothing here is held open but the claim, so another program may take a port between its choice and its use; ports are
//! chosen outside of the range from which clients get theirs, which makes that unlikely.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Blocks are 127.FIRST_BLOCK.0.0/16 and up; lower ones are in use by others on many systems.
const FIRST_BLOCK: u8 = 16;
const BLOCKS: u8 = 224;
/// Private ports, below those that Linux gives to clients (32768 and up).
const PRIVATE_PORTS: std::ops::Range<u16> = 20000..32000;
/// The port that stands for the claim of a block.
const CLAIM_PORT: u16 = 15999;

/// The addresses of one mesh.
#[derive(Debug)]
pub(super) struct Addresses {
    block: [u8; 2],
    /// Whoever listens here has the block; nobody need where the whole network is ours.
    claim: Option<TcpListener>,
    replicas: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
    next_port: u16,
}

/// No address or port is left.
#[derive(Debug)]
pub(super) enum AddressError {
    /// Every block is claimed, or loopback addresses other than 127.0.0.1 cannot be used here.
    Block(Option<io::Error>),
    /// The block is full.
    Full,
    /// No private port is free.
    Ports,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(Some(error)) => {
                write!(f, "no loopback addresses for this mesh: 127.16.0.0 and up cannot be used: {error}")
            }
            Self::Block(None) => write!(f, "no loopback addresses for this mesh"),
            Self::Full => write!(f, "all loopback addresses of this mesh are taken"),
            Self::Ports => {
                write!(f, "no port from {} to {} is free", PRIVATE_PORTS.start, PRIVATE_PORTS.end)
            }
        }
    }
}

impl std::error::Error for AddressError {}

impl Addresses {
    /// Claims a block; the same `seed` gets the same one while nobody else has it.
    pub(super) fn claim(seed: &str) -> Result<Self, AddressError> {
        let start = fingerprint(seed);
        let mut last = None;
        for step in 0..u64::from(BLOCKS) {
            let block = FIRST_BLOCK + (start.wrapping_add(step) % u64::from(BLOCKS)) as u8;
            match TcpListener::bind((Ipv4Addr::new(127, block, 255, 254), CLAIM_PORT)) {
                Ok(claim) => {
                    let spread = u16::from(block - FIRST_BLOCK) * 53;
                    return Ok(Self {
                        block: [127, block],
                        claim: Some(claim),
                        replicas: HashSet::new(),
                        ports: HashSet::new(),
                        next_port: PRIVATE_PORTS.start + spread,
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(AddressError::Block(last))
    }

    /// All addresses of a network that is ours alone, which begin with `block`.
    pub(super) fn of_our_own(block: [u8; 2]) -> Self {
        // The first is the network's own end.
        let replicas = HashSet::from([Ipv4Addr::new(block[0], block[1], 0, 1)]);
        Self { block, claim: None, replicas, ports: HashSet::new(), next_port: PRIVATE_PORTS.start }
    }

    /// An address of its own for `name`; the same one for the same name while it is free.
    pub(super) fn address(&mut self, name: &str) -> Result<Ipv4Addr, AddressError> {
        // 255 is left for the claim, 0 and 255 at the end look like networks to some programs.
        const PLACES: u64 = 255 * 254;
        let (start, [a, b]) = (fingerprint(name), self.block);
        for step in 0..PLACES {
            let place = start.wrapping_add(step) % PLACES;
            let address = Ipv4Addr::new(a, b, (place / 254) as u8, (place % 254) as u8 + 1);
            if self.replicas.insert(address) {
                return Ok(address);
            }
        }
        Err(AddressError::Full)
    }

    /// Gives an address back.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.replicas.remove(&address);
    }

    /// A port of 127.0.0.1 on which nobody listens.
    pub(super) fn port(&mut self) -> Result<u16, AddressError> {
        for _ in PRIVATE_PORTS {
            let port = self.next_port;
            self.next_port = if port + 1 < PRIVATE_PORTS.end { port + 1 } else { PRIVATE_PORTS.start };
            if !self.ports.contains(&port) && is_free(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
                self.ports.insert(port);
                return Ok(port);
            }
        }
        Err(AddressError::Ports)
    }

    /// Gives a port back.
    pub(super) fn release_port(&mut self, port: u16) {
        self.ports.remove(&port);
    }

    /// Whether a replica could listen on `port`: nobody has it on all addresses, and one may.
    pub(super) fn try_port(&self, port: u16) -> io::Result<()> {
        let [a, b] = self.block;
        match self.claim {
            Some(_) => TcpListener::bind((Ipv4Addr::new(a, b, 255, 253), port)).map(drop),
            // Each has a network of its own, with all ports.
            None => Ok(()),
        }
    }
}

/// Whether one could listen at `address` now.
pub(super) fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// A hash that is the same in every run (FNV-1a).
pub(super) fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_meshes_of_one_seed_share_no_address() {
        let mut one = Addresses::claim("two_meshes").unwrap();
        let mut other = Addresses::claim("two_meshes").unwrap();
        assert_ne!(one.block, other.block);
        assert_ne!(one.address("a").unwrap(), other.address("a").unwrap());
    }

    #[test]
    fn a_name_has_one_address_until_it_gives_it_back() {
        let mut addresses = Addresses::claim("one_name").unwrap();
        let first = addresses.address("a").unwrap();
        assert_ne!(addresses.address("a").unwrap(), first);
        addresses.release(first);
        assert_eq!(addresses.address("a").unwrap(), first);
        assert!(first.is_loopback() && first.octets()[3] != 0 && first.octets()[3] != 255);
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let mut addresses = Addresses::claim("ports").unwrap();
        let first = addresses.port().unwrap();
        let _used = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        addresses.release_port(first);
        addresses.next_port = first;
        assert_ne!(addresses.port().unwrap(), first);
    }

    #[test]
    fn a_port_taken_on_all_addresses_is_not_free_for_replicas() {
        let addresses = Addresses::claim("wildcard").unwrap();
        let everywhere = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let refused = addresses.try_port(everywhere.local_addr().unwrap().port()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }
}
