//! Consistent hashing: the same key leads to the same endpoint, and few keys move when endpoints come or go.
//! Tables are laid out as Envoy lays them out, so that both lead a key to the same place.

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

/// XXH64 of `bytes`.
pub fn xx_hash(bytes: &[u8], seed: u64) -> u64 {
    let [p1, p2, p3, p4, p5] = PRIMES;
    let (stripes, rest) = bytes.as_chunks::<32>();
    let mut hash = match stripes {
        [] => seed.wrapping_add(p5),
        _ => {
            let mut lanes =
                [seed.wrapping_add(p1).wrapping_add(p2), seed.wrapping_add(p2), seed, seed.wrapping_sub(p1)];
            for stripe in stripes {
                for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
                    *lane = round(*lane, u64::from_le_bytes(*word));
                }
            }
            let [a, b, c, d] = lanes;
            let sum = a.rotate_left(1).wrapping_add(b.rotate_left(7)).wrapping_add(c.rotate_left(12));
            let merge = |hash: u64, lane: u64| (hash ^ round(0, lane)).wrapping_mul(p1).wrapping_add(p4);
            lanes.into_iter().fold(sum.wrapping_add(d.rotate_left(18)), merge)
        }
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash ^= round(0, u64::from_le_bytes(*word));
        hash = hash.rotate_left(27).wrapping_mul(p1).wrapping_add(p4);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(p1);
        hash = hash.rotate_left(23).wrapping_mul(p2).wrapping_add(p3);
    }
    for byte in rest {
        hash ^= u64::from(*byte).wrapping_mul(p5);
        hash = hash.rotate_left(11).wrapping_mul(p1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(p2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(p3);
    hash ^ (hash >> 32)
}

fn round(lane: u64, word: u64) -> u64 {
    let [p1, p2, ..] = PRIMES;
    lane.wrapping_add(word.wrapping_mul(p2)).rotate_left(31).wrapping_mul(p1)
}

/// MurmurHash64A with the seed of GCC's `std::hash`.
fn murmur_hash(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xc70f_6907;
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |value: u64| value ^ (value >> 47);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    for word in words {
        let data = mix(u64::from_le_bytes(*word).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
        hash = (hash ^ data).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let data = rest.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        hash = (hash ^ data).wrapping_mul(FACTOR);
    }
    mix(mix(hash).wrapping_mul(FACTOR))
}

/// What a ring is like (`RingHashLbConfig`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingShape {
    /// At least so many places.
    pub minimum: u64,
    /// At most so many.
    pub maximum: u64,
    /// How places are found; requests are hashed in one way only.
    pub hash: PlaceHash,
}

/// How an endpoint's places on a ring are found (`HashFunction`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlaceHash {
    /// XXH64.
    #[default]
    Xx,
    /// MurmurHash2 of 64 bits, as in the standard library of GCC.
    Murmur2,
}

impl PlaceHash {
    fn of(self, name: &[u8]) -> u64 {
        match self {
            Self::Xx => xx_hash(name, 0),
            Self::Murmur2 => murmur_hash(name),
        }
    }
}

impl Default for RingShape {
    fn default() -> Self {
        Self { minimum: 1024, maximum: 8 << 20, hash: PlaceHash::Xx }
    }
}

/// Size of a Maglev table unless said otherwise; sizes are prime.
pub const MAGLEV_SIZE: u32 = 65_537;

/// An endpoint that takes part: what it is hashed by, and its share of the whole, above 0.
pub(super) type Member<'m> = (&'m str, f64);

/// A ring of hashes (Ketama).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ring(Vec<(u64, u32)>);

impl Ring {
    pub(super) fn new(members: &[Member<'_>], shape: RingShape) -> Self {
        let least = members.iter().map(|(_, share)| *share).fold(f64::INFINITY, f64::min);
        if !least.is_finite() || least <= 0.0 {
            return Self::default();
        }
        // So large that the lightest has a whole number of places, if that is allowed.
        let scale = ((least * shape.minimum as f64).ceil() / least).min(shape.maximum as f64);
        let mut places = Vec::with_capacity(scale.ceil() as usize);
        let (mut placed, mut wanted) = (0.0, 0.0);
        for (at, (key, share)) in members.iter().enumerate() {
            let mut name = format!("{key}_");
            let stem = name.len();
            wanted += scale * share;
            let mut number = 0_u64;
            while placed < wanted {
                name.truncate(stem);
                name.push_str(&number.to_string());
                places.push((shape.hash.of(name.as_bytes()), at as u32));
                number += 1;
                placed += 1.0;
            }
        }
        places.sort_unstable();
        Self(places)
    }

    /// The member at `hash`; at further attempts the places after it are taken.
    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<usize> {
        let at = self.0.partition_point(|(place, _)| *place < hash);
        let at = (at + attempt as usize).checked_rem(self.0.len())?;
        self.0.get(at).map(|(_, member)| *member as usize)
    }
}

/// A table as large as a prime in which each member has its share of places (Maglev).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Maglev(Vec<u32>);

/// A member on its way through the table.
struct Walker {
    offset: u64,
    skip: u64,
    next: u64,
    weight: f64,
    target: f64,
}

const FREE: u32 = u32::MAX;

impl Maglev {
    pub(super) fn new(members: &[Member<'_>], size: u32) -> Self {
        let most = members.iter().map(|(_, share)| *share).fold(0.0, f64::max);
        if most <= 0.0 || size < 2 {
            return Self::default();
        }
        let length = u64::from(size);
        let walker = |(key, share): &Member<'_>| Walker {
            offset: xx_hash(key.as_bytes(), 0) % length,
            skip: xx_hash(key.as_bytes(), 1) % (length - 1) + 1,
            next: 0,
            weight: *share,
            target: 0.0,
        };
        let mut walkers: Vec<Walker> = members.iter().map(walker).collect();
        let mut table = vec![FREE; size as usize];
        let mut left = length;
        let mut turn = 1.0;
        while left > 0 {
            for (at, walker) in walkers.iter_mut().enumerate() {
                // The heaviest takes a place each turn, one half as heavy every other turn.
                if left == 0 || turn * walker.weight < walker.target {
                    continue;
                }
                walker.target += most;
                walker.take(&mut table, at as u32, length);
                left -= 1;
            }
            turn += 1.0;
        }
        Self(table)
    }

    /// The member at `hash`; another one, most likely, at further attempts.
    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<usize> {
        let hash = match attempt {
            0 => hash,
            n => hash ^ (u64::MAX - u64::from(n) + 1),
        };
        let at = hash.checked_rem(self.0.len() as u64)?;
        self.0.get(at as usize).map(|member| *member as usize)
    }
}

impl Walker {
    /// Takes the next free place of this member's own order. There is one: the size is prime, so the order visits all.
    fn take(&mut self, table: &mut [u32], member: u32, length: u64) {
        for _ in 0..length {
            let at = (self.offset + self.skip * self.next) % length;
            self.next += 1;
            if let Some(place @ &mut FREE) = table.get_mut(at as usize) {
                *place = member;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_xxh64() {
        // From the algorithm's own test vectors.
        assert_eq!(xx_hash(b"", 0), 0xEF46_DB37_51D8_E999);
        assert_eq!(xx_hash(b"a", 0), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xx_hash(b"abc", 0), 0x44BC_2CF5_AD77_0999);
        let long = b"Call me Ishmael. Some years ago--never mind how long precisely-";
        assert_eq!(xx_hash(long, 0), 0x02A2_E854_70D6_FD96);
    }

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.{}.{}:80", n / 256, n % 256)).collect()
    }

    fn members<'k>(keys: &'k [String], weight: impl Fn(usize) -> f64) -> Vec<Member<'k>> {
        let sum: f64 = (0..keys.len()).map(&weight).sum();
        keys.iter().enumerate().map(|(at, key)| (key.as_str(), weight(at) / sum)).collect()
    }

    type Pick = Box<dyn Fn(u64) -> usize>;

    fn both(members: &[Member<'_>]) -> [Pick; 2] {
        let ring = Ring::new(members, RingShape { minimum: 16_384, ..RingShape::default() });
        let maglev = Maglev::new(members, MAGLEV_SIZE);
        [
            Box::new(move |hash| ring.pick(hash, 0).unwrap()),
            Box::new(move |hash| maglev.pick(hash, 0).unwrap()),
        ]
    }

    fn hash(n: u64) -> u64 {
        xx_hash(&n.to_le_bytes(), 0)
    }

    #[test]
    fn an_empty_table_leads_nowhere() {
        assert_eq!(Ring::new(&[], RingShape::default()).pick(1, 0), None);
        assert_eq!(Maglev::new(&[], MAGLEV_SIZE).pick(1, 0), None);
    }

    #[test]
    fn a_ring_has_its_least_size_and_every_member_a_whole_number_of_places() {
        let keys = keys(3);
        let ring = Ring::new(&members(&keys, |_| 1.0), RingShape::default());
        assert_eq!(ring.0.len(), 1026);
        let small =
            Ring::new(&members(&keys, |_| 1.0), RingShape { minimum: 1, maximum: 2, ..RingShape::default() });
        assert_eq!(small.0.len(), 2);
    }

    #[test]
    fn weights_are_shares_of_keys() {
        let keys = keys(3);
        for pick in both(&members(&keys, |at| if at == 0 { 2.0 } else { 1.0 })) {
            let mut hits = [0_u32; 3];
            (0..40_000).for_each(|n| hits[pick(hash(n))] += 1);
            assert!(hits[0].abs_diff(20_000) < 2_000, "{hits:?}");
            assert!(hits[1].abs_diff(10_000) < 1_500, "{hits:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn removing_one_of_n_endpoints_moves_about_its_share_of_keys(
            count in 2usize..24, gone in any::<prop::sample::Index>(),
        ) {
            const KEYS: u64 = 10_000;
            let keys = keys(count);
            let gone = gone.index(count);
            let mut fewer = keys.clone();
            fewer.remove(gone);
            let share = KEYS / count as u64;
            let before = both(&members(&keys, |_| 1.0));
            let after = both(&members(&fewer, |_| 1.0));
            for (before, after) in before.iter().zip(&after) {
                let (mut moved, mut orphans) = (0, 0);
                for n in 0..KEYS {
                    let at = before(hash(n));
                    orphans += u64::from(at == gone);
                    moved += u64::from(keys[at] != fewer[after(hash(n))]);
                }
                prop_assert!(orphans.abs_diff(share) < share / 3 + KEYS / 100);
                // The size stays, so that those who are left get new places, which take some keys from each other.
                prop_assert!(moved < orphans + share + KEYS / 100, "{moved} moved, {orphans} orphans");
            }
        }
    }
}
