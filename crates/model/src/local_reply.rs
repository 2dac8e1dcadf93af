//! What answers of the proxy's own are made to look like (`LocalReplyConfig`). Making them is the proxy's.

use crate::header::HeaderEdit;
use crate::log_filter::{ExchangeFacts, LogFilter, LogFormat};

/// Changes to answers of the proxy's own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LocalReplies {
    /// The first one whose condition holds is applied.
    pub mappers: Vec<ReplyMapper>,
    /// What bodies look like where the mapper does not say; `None` leaves them as they are.
    pub format: Option<BodyFormat>,
}

/// A change of some answers.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyMapper {
    /// Which.
    pub filter: LogFilter,
    /// Their status.
    pub status: Option<u16>,
    /// Their text, before it is put into a format.
    pub body: Option<Vec<u8>>,
    /// What their bodies look like.
    pub format: Option<BodyFormat>,
    /// Headers put in.
    pub headers: Vec<HeaderEdit>,
}

/// What a body looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyFormat {
    /// Text or JSON; the command `LOCAL_REPLY_BODY` is the text of the answer.
    pub format: LogFormat,
    /// `content-type`; empty for that of the format.
    pub content_type: String,
    /// A command without a value is left out, instead of being `-` or `null`.
    pub omit_empty: bool,
}

impl BodyFormat {
    /// The `content-type` of a body.
    pub fn content_type(&self) -> &str {
        match (self.content_type.as_str(), &self.format) {
            ("", LogFormat::Json(_)) => "application/json",
            ("", LogFormat::Text(_)) => "text/plain",
            (told, _) => told,
        }
    }
}

impl LocalReplies {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.mappers.is_empty() && self.format.is_none()
    }

    /// The mapper for an answer.
    pub fn mapper(&self, facts: &dyn ExchangeFacts) -> Option<&ReplyMapper> {
        self.mappers.iter().find(|mapper| mapper.filter.holds(facts))
    }
}
