//! What log lines need of messages that will be gone when they are written: copied, so that no read buffer is held.

use super::exchange::RequestRecord;
use http::{HeaderMap, HeaderName};
use model::field::FieldName;
use model::format::{Command, Simple, Template};
use model::header::joined;
use model::log_filter::LogFilter;

/// A longer value is cut.
const LONGEST_VALUE: usize = 8 * 1024;

/// Which values are kept, found out when the configuration is compiled.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    request: Vec<FieldName>,
    response: Vec<HeaderName>,
    trailers: Vec<HeaderName>,
    pub(super) trace_id: bool,
}

impl Wanted {
    pub(super) fn add(&mut self, template: &Template) {
        for command in template.commands() {
            match command {
                Command::QueryParameter(_) if !self.request.contains(&FieldName::Path) => {
                    self.request.push(FieldName::Path);
                }
                Command::RequestHeader(name, other) | Command::RequestHeaderWithoutQuery(name, other) => {
                    for name in Some(name).into_iter().chain(other) {
                        // Our own, and nothing to be believed when a client sends it: the path kept is the original.
                        if name.as_str() != "x-envoy-original-path" && !self.request.contains(name) {
                            self.request.push(name.clone());
                        }
                    }
                }
                Command::ResponseHeader(name, other) => {
                    for name in Some(name).into_iter().chain(other) {
                        push_field(&mut self.response, name);
                    }
                }
                Command::ResponseTrailer(name) => push_field(&mut self.trailers, name),
                Command::Simple(Simple::TraceId) => self.trace_id = true,
                _ => {}
            }
        }
    }
}

impl Wanted {
    /// What a condition looks at.
    pub(super) fn add_condition(&mut self, filter: &LogFilter) {
        let mut names = Vec::new();
        filter.headers(&mut names);
        for name in names {
            if !self.request.contains(name) {
                self.request.push(name.clone());
            }
        }
    }
}

fn push_field(names: &mut Vec<HeaderName>, name: &FieldName) {
    if let FieldName::Field(name) = name
        && !names.contains(name)
    {
        names.push(name.clone());
    }
}

/// Kept values: bytes, and where in them each wanted value is.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// The request's id, then the wanted values of request, response and trailers.
    spans: Vec<Option<(u32, u32)>>,
}

impl Kept {
    pub(super) fn of_request(wanted: &Wanted, request: &RequestRecord<'_>) -> Self {
        let mut kept = Self { bytes: Vec::with_capacity(256), spans: Vec::new() };
        kept.spans.reserve_exact(1 + wanted.request.len() + wanted.response.len() + wanted.trailers.len());
        kept.push(Some(request.id.as_bytes()));
        for name in &wanted.request {
            match name {
                FieldName::Method => kept.push(Some(request.method.as_str().as_bytes())),
                FieldName::Scheme => kept.push(Some(request.scheme.as_bytes())),
                FieldName::Authority => kept.push(Some(request.authority.as_bytes())),
                FieldName::Path => kept.push(Some(request.target.as_bytes()).filter(|t| !t.is_empty())),
                FieldName::Field(name) if *name == "x-request-id" => kept.push(Some(request.id.as_bytes())),
                FieldName::Field(name) => kept.push(joined(request.headers, name).as_deref()),
            }
        }
        kept
    }

    /// Keeps the wanted fields of the final answer.
    pub(super) fn add_response(&mut self, wanted: &Wanted, headers: &HeaderMap) {
        self.spans.resize(1 + wanted.request.len(), None);
        for name in &wanted.response {
            self.push(joined(headers, name).as_deref());
        }
    }

    /// Keeps the wanted trailers.
    pub(super) fn add_trailers(&mut self, wanted: &Wanted, trailers: &HeaderMap) {
        self.spans.resize(1 + wanted.request.len() + wanted.response.len(), None);
        for name in &wanted.trailers {
            self.push(joined(trailers, name).as_deref());
        }
    }

    fn push(&mut self, value: Option<&[u8]>) {
        let span = value.map(|value| {
            let start = self.bytes.len();
            let value = value.get(..LONGEST_VALUE).unwrap_or(value);
            self.bytes.extend_from_slice(value);
            (start as u32, self.bytes.len() as u32)
        });
        self.spans.push(span);
    }

    fn value(&self, at: usize) -> Option<&[u8]> {
        let (start, end) = (*self.spans.get(at)?)?;
        self.bytes.get(start as usize..end as usize)
    }

    /// The request's id.
    pub(super) fn id(&self) -> Option<&str> {
        std::str::from_utf8(self.value(0)?).ok().filter(|id| !id.is_empty())
    }

    pub(super) fn request(&self, wanted: &Wanted, name: &FieldName) -> Option<&[u8]> {
        let at = wanted.request.iter().position(|n| n == name)?;
        self.value(1 + at)
    }

    pub(super) fn response(&self, wanted: &Wanted, name: &FieldName) -> Option<&[u8]> {
        let FieldName::Field(name) = name else { return None };
        let at = wanted.response.iter().position(|n| n == name)?;
        self.value(1 + wanted.request.len() + at)
    }

    pub(super) fn trailer(&self, wanted: &Wanted, name: &FieldName) -> Option<&[u8]> {
        let FieldName::Field(name) = name else { return None };
        let at = wanted.trailers.iter().position(|n| n == name)?;
        self.value(1 + wanted.request.len() + wanted.response.len() + at)
    }
}
