//! Which exchanges a log line or a mapped answer is for (`envoy.config.accesslog.v3.AccessLogFilter`). What is known of
//! an exchange, the one who asks says through [`ExchangeFacts`].

use crate::field::FieldName;
use crate::format::Template;
use crate::fraction::Fraction;
use crate::header::HeaderMatch;

/// A condition on an exchange.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFilter {
    /// On its status; 0 where none was sent.
    Status(Comparison),
    /// On how long it took, in milliseconds.
    Duration(Comparison),
    /// It was no health check that was answered here.
    NotHealthCheck,
    /// A share of exchanges.
    Share(Fraction),
    /// All of these hold.
    All(Vec<LogFilter>),
    /// One of these holds.
    Any(Vec<LogFilter>),
    /// On a header of the request.
    Header(HeaderMatch),
    /// It has one of these response flags; where none is named, any at all.
    Flags(Vec<String>),
    /// On its gRPC status.
    Grpc {
        /// Statuses by number.
        statuses: Vec<u32>,
        /// None of them, instead of one of them.
        exclude: bool,
    },
}

/// A comparison with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// How it is compared.
    pub relation: Relation,
    /// With what.
    pub value: u32,
}

/// How two numbers stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// Not below.
    AtLeast,
    /// Not above.
    AtMost,
}

impl Comparison {
    /// Whether `number` stands to the value as is wanted.
    pub fn holds(self, number: u64) -> bool {
        let value = u64::from(self.value);
        match self.relation {
            Relation::Equal => number == value,
            Relation::NotEqual => number != value,
            Relation::AtLeast => number >= value,
            Relation::AtMost => number <= value,
        }
    }
}

/// What is known of an exchange.
pub trait ExchangeFacts {
    /// Its status; 0 where none was sent.
    fn status(&self) -> u16;
    /// How long it took, or has taken until now, in milliseconds.
    fn duration(&self) -> u64;
    /// Its response flags, separated by commas; `-` for none.
    fn flags(&self) -> &str;
    /// Its gRPC status, if it said one.
    fn grpc_status(&self) -> Option<u32>;
    /// Whether a condition on the request's headers holds.
    fn has_header(&self, condition: &HeaderMatch) -> bool;
    /// It is a health check that was answered here.
    fn is_health_check(&self) -> bool;
    /// Any 64 random bits.
    fn random(&self) -> u64;
}

impl LogFilter {
    /// Whether the condition holds.
    pub fn holds(&self, facts: &dyn ExchangeFacts) -> bool {
        match self {
            Self::Status(comparison) => comparison.holds(facts.status().into()),
            Self::Duration(comparison) => comparison.holds(facts.duration()),
            Self::NotHealthCheck => !facts.is_health_check(),
            Self::Share(share) => share.takes(facts.random()),
            Self::All(filters) => filters.iter().all(|filter| filter.holds(facts)),
            Self::Any(filters) => filters.iter().any(|filter| filter.holds(facts)),
            Self::Header(condition) => facts.has_header(condition),
            Self::Flags(wanted) if wanted.is_empty() => !matches!(facts.flags(), "-" | ""),
            Self::Flags(wanted) => {
                facts.flags().split(',').any(|flag| wanted.iter().any(|wanted| wanted == flag))
            }
            Self::Grpc { statuses, exclude } => {
                let status = facts.grpc_status().unwrap_or_else(|| grpc_status_of(facts.status()));
                statuses.contains(&status) != *exclude
            }
        }
    }

    /// The request headers it looks at.
    pub fn headers<'f>(&'f self, found: &mut Vec<&'f FieldName>) {
        match self {
            Self::Header(condition) => found.push(&condition.name),
            Self::All(filters) | Self::Any(filters) => {
                filters.iter().for_each(|filter| filter.headers(found));
            }
            _ => {}
        }
    }
}

/// The gRPC status for an HTTP status (gRPC, "HTTP to gRPC Status Code Mapping").
pub fn grpc_status_of(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// What a log line looks like.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFormat {
    /// Text; brings its own end of line.
    Text(Template),
    /// A JSON object with these keys, in this order.
    Json(Vec<(String, Template)>),
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failed;
    impl ExchangeFacts for Failed {
        fn status(&self) -> u16 {
            503
        }
        fn duration(&self) -> u64 {
            7
        }
        fn flags(&self) -> &str {
            "UF,URX"
        }
        fn grpc_status(&self) -> Option<u32> {
            None
        }
        fn has_header(&self, _: &HeaderMatch) -> bool {
            false
        }
        fn is_health_check(&self) -> bool {
            false
        }
        fn random(&self) -> u64 {
            50
        }
    }

    #[test]
    fn conditions_are_joined_and_compared() {
        let status = |relation, value| LogFilter::Status(Comparison { relation, value });
        let flags = |flags: &[&str]| LogFilter::Flags(flags.iter().map(|f| (*f).to_owned()).collect());
        assert!(status(Relation::AtLeast, 500).holds(&Failed));
        assert!(!LogFilter::Duration(Comparison { relation: Relation::AtMost, value: 6 }).holds(&Failed));
        assert!(flags(&[]).holds(&Failed) && flags(&["URX"]).holds(&Failed) && !flags(&["U"]).holds(&Failed));
        let all = vec![status(Relation::NotEqual, 200), flags(&["DC"])];
        assert!(!LogFilter::All(all.clone()).holds(&Failed) && LogFilter::Any(all).holds(&Failed));
        assert!(!LogFilter::Share(Fraction { numerator: 50, denominator: 100 }).holds(&Failed));
        assert!(LogFilter::Grpc { statuses: vec![14], exclude: false }.holds(&Failed));
        assert!(!LogFilter::Grpc { statuses: vec![14], exclude: true }.holds(&Failed));
    }
}
