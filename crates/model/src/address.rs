//! Ranges of IP addresses.

use std::net::IpAddr;

/// Addresses that share their first bits (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// Any address in it.
    pub address: IpAddr,
    /// Number of bits shared.
    pub prefix_length: u8,
}

impl AddressRange {
    /// Whether `address` is in it. Families never mix.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (mine, theirs, width) = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128u32),
            _ => return false,
        };
        let ignored = width.saturating_sub(u32::from(self.prefix_length));
        mine.checked_shr(ignored) == theirs.checked_shr(ignored)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_range_never_mixes_families_and_knows_its_edges() {
        let range =
            |text: &str, prefix_length| AddressRange { address: text.parse().unwrap(), prefix_length };
        assert!(range("10.1.0.0", 16).contains(IpAddr::from([10, 1, 2, 3])));
        assert!(!range("10.1.0.0", 16).contains(IpAddr::from([10, 2, 2, 3])));
        assert!(range("0.0.0.0", 0).contains(IpAddr::from([8, 8, 8, 8])));
        assert!(!range("::", 0).contains(IpAddr::from([8, 8, 8, 8])));
        assert!(range("10.1.2.3", 32).contains(IpAddr::from([10, 1, 2, 3])));
    }
}
