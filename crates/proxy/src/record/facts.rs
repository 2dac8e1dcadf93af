//! An exchange as conditions of access logs and of mapped answers see it.

use super::view::View;
use model::header::HeaderMatch;
use model::log_filter::ExchangeFacts;
use std::hash::{BuildHasher, RandomState};

impl ExchangeFacts for View<'_> {
    fn status(&self) -> u16 {
        self.exchange.status
    }

    fn duration(&self) -> u64 {
        self.end.saturating_duration_since(self.exchange.start).as_millis() as u64
    }

    fn flags(&self) -> &str {
        self.exchange.flags
    }

    fn grpc_status(&self) -> Option<u32> {
        self.exchange.grpc_status
    }

    fn has_header(&self, condition: &HeaderMatch) -> bool {
        match self.messages {
            Some(messages) => condition.matches(messages.request),
            // Of a request that is gone, the values are kept that a log asks for.
            None => condition.matches_value(self.request(&condition.name).as_deref()),
        }
    }

    fn is_health_check(&self) -> bool {
        self.exchange.is_health_check
    }

    fn random(&self) -> u64 {
        RandomState::new().hash_one(self.exchange.start)
    }
}
