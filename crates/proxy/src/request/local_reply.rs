//! What answers of our own are made to look like, where that is configured (`local_reply_config`). Which answers, and
//! how, is said in `model::local_reply`.

use super::Stage;
use super::answer::Answer;
use super::edits::apply_fields;
use crate::record::Exchange;
use bytes::Bytes;
use http::HeaderName;
use http::header::CONTENT_TYPE;
use model::format::{Command, Facts, Simple, Template};
use model::header::RequestHead;
use model::listener::LogFormat;
use model::local_reply::BodyFormat;
use model::log_filter::grpc_status_of;
use std::io::Write;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What is known of an exchange, and the text of its answer.
struct Replying<'r, F> {
    facts: F,
    text: &'r [u8],
}

impl<F: Facts> Facts for Replying<'_, F> {
    fn write(&self, command: &Command, out: &mut Vec<u8>) -> bool {
        match command {
            Command::Simple(Simple::LocalReplyBody) => {
                out.extend_from_slice(self.text);
                true
            }
            command => self.facts.write(command, out),
        }
    }
}

impl Stage<'_> {
    /// Changes an answer of our own as configured.
    pub(super) fn map_reply(&self, exchange: &mut Exchange, answer: &mut Answer) {
        let replies = &self.http.manager.local_replies;
        if replies.is_empty() || exchange.details == "cors_response" {
            return;
        }
        let Some(head) = self.quotable() else { return };
        exchange.status = answer.code();
        let mapper = replies.mapper(&exchange.conditions(&head));
        let is_grpc = answer.headers_mut().get(CONTENT_TYPE).is_some_and(|v| v == "application/grpc");
        let mut text = match is_grpc {
            true => answer.headers_mut().get(GRPC_MESSAGE).map(|m| Bytes::copy_from_slice(m.as_bytes())),
            false => Some(answer.body().clone()),
        };
        if let Some(mapper) = mapper {
            if let Some(body) = &mapper.body {
                text = Some(body.clone().into());
            }
            for edit in &mapper.headers {
                let value = {
                    let facts = exchange.facts(&head, Some(answer.headers_mut()));
                    filled(&edit.value, &facts)
                };
                apply_fields(edit, value.as_deref(), answer.headers_mut());
            }
            if let Some(status) = mapper.status {
                exchange.status = status;
                match is_grpc {
                    true => answer.set(GRPC_STATUS, grpc_status_of(status).to_string().as_bytes()),
                    false => answer.set_status(status),
                }
            }
        }
        let format = mapper.and_then(|mapper| mapper.format.as_ref()).or(replies.format.as_ref());
        let text = text.unwrap_or_default();
        let body = match format {
            Some(format) => formatted(exchange, &head, answer, format, &text),
            None => text,
        };
        self.put(answer, body, format, is_grpc);
    }

    fn put(&self, answer: &mut Answer, body: Bytes, format: Option<&BodyFormat>, is_grpc: bool) {
        if is_grpc {
            return answer.set(GRPC_MESSAGE, percent_encoded(&body).as_bytes());
        }
        let is_changed = body != *answer.body();
        match (body.is_empty(), format) {
            (true, _) => drop(answer.headers_mut().remove(CONTENT_TYPE)),
            (false, Some(format)) => answer.set(CONTENT_TYPE, format.content_type().as_bytes()),
            (false, None) if is_changed => answer.set(CONTENT_TYPE, b"text/plain"),
            (false, None) => {}
        }
        answer.set_body(body);
    }
}

fn filled(template: &Template, facts: &dyn Facts) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    template.write(facts, "", &mut out);
    Some(out)
}

fn formatted(
    exchange: &Exchange,
    head: &RequestHead<'_>,
    answer: &mut Answer,
    format: &BodyFormat,
    text: &[u8],
) -> Bytes {
    let facts = Replying { facts: exchange.facts(head, Some(answer.headers_mut())), text };
    body_of(format, &facts).into()
}

/// A body in this format.
pub(super) fn body_of(format: &BodyFormat, facts: &dyn Facts) -> Vec<u8> {
    let mut out = Vec::new();
    match &format.format {
        LogFormat::Text(template) => {
            template.write(facts, if format.omit_empty { "" } else { "-" }, &mut out);
        }
        LogFormat::Json(fields) => {
            let mut object = serde_json::Map::new();
            for (key, template) in fields {
                let value = json_value(template, facts);
                if !(format.omit_empty && value.is_null()) {
                    object.insert(key.clone(), value);
                }
            }
            let written = write!(out, "{}", serde_json::Value::Object(object));
            debug_assert!(written.is_ok(), "a Vec takes everything");
            out.push(b'\n');
        }
    }
    out
}

/// A value that is nothing but one command keeps its type, and is `null` where there is none.
fn json_value(template: &Template, facts: &dyn Facts) -> serde_json::Value {
    let mut text = Vec::new();
    let Some((command, max)) = template.as_command() else {
        template.write(facts, "-", &mut text);
        return String::from_utf8_lossy(&text).into_owned().into();
    };
    if !facts.write(command, &mut text) {
        return serde_json::Value::Null;
    }
    text.truncate(max.unwrap_or(usize::MAX));
    let text = String::from_utf8_lossy(&text).into_owned();
    let is_number = matches!(
        command,
        Command::Simple(
            Simple::ResponseCode
                | Simple::BytesReceived
                | Simple::BytesSent
                | Simple::Duration
                | Simple::ResponseDuration
                | Simple::RequestDuration
                | Simple::UpstreamRequestAttemptCount
                | Simple::DownstreamLocalPort
                | Simple::ConnectionId
        )
    );
    match text.parse::<u64>() {
        Ok(number) if is_number => number.into(),
        _ => text.into(),
    }
}

/// As `grpc-message` wants it (gRPC over HTTP/2, "Responses").
fn percent_encoded(text: &[u8]) -> String {
    let mut out = String::new();
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'%' => out.push(char::from(*byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
