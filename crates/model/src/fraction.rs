//! A share of many, such as of requests.

/// A share, as numerator over denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// Parts.
    pub numerator: u32,
    /// Of: 100, 10 000 or 1 000 000.
    pub denominator: u32,
}

impl Fraction {
    /// All of them.
    pub const ALL: Self = Self { numerator: 100, denominator: 100 };

    /// Whether `random` (any 64 random bits) falls into the share.
    pub fn takes(self, random: u64) -> bool {
        random % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }

    /// The same denominator with at most this many parts.
    pub fn at_most(self, numerator: u32) -> Self {
        Self { numerator: self.numerator.min(numerator), ..self }
    }
}
