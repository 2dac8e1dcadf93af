//! HTTP/1 framing: which bytes are one request and which the next. What two parties could read in two ways is refused
//! here, before the parser sees it: line ends that are none, lengths that contradict each other, folded lines, control
//! bytes. Parsing itself is hyper's work; what a proper request means is `request`'s.

mod ledger;
mod link;
mod head;
mod rule;
mod scanner;
mod bytes;

pub(crate) use ledger::Ledger;
pub(crate) use link::{Begin, Hold};
pub use rule::Rule;

#[cfg(test)]
mod tests;
