//! Access logs as compiled: where the lines go, what they look like, what must be kept for them.
//! Writing them is `writer`'s.

use super::kept::Wanted;
use super::sink::{Sink, Sinks};
use super::view::{View, write_json_text, write_json_value};
use model::format::{Command, Template};
use model::listener::{AccessLog, LogFormat};
use model::log_filter::LogFilter;
use model::metadata::Value;
use std::io::Write;
use std::sync::Arc;

/// The logs of one recorder.
pub(super) struct Logs {
    pub(super) wanted: Wanted,
    pub(super) outputs: Vec<Output>,
}

/// One log.
pub(super) struct Output {
    pub(super) sink: Arc<Sink>,
    line: Line,
    filter: Option<LogFilter>,
    omit_empty: bool,
}

enum Line {
    Text(Template),
    /// Keys come with quotes and colon.
    Json(Vec<(Vec<u8>, Template)>),
}

impl Logs {
    /// `None` when there are none.
    pub(super) fn compile(logs: &[AccessLog], sinks: &Sinks) -> Option<Self> {
        if logs.is_empty() {
            return None;
        }
        let mut wanted = Wanted::default();
        let outputs = logs.iter().map(|log| {
            let line = match &log.format {
                LogFormat::Text(template) => {
                    wanted.add(template);
                    Line::Text(template.clone())
                }
                LogFormat::Json(fields) => Line::Json(
                    fields
                        .iter()
                        .map(|(key, template)| {
                            wanted.add(template);
                            let mut text = Vec::new();
                            write_json_text(key.as_bytes(), &mut text);
                            text.push(b':');
                            (text, template.clone())
                        })
                        .collect(),
                ),
            };
            if let Some(filter) = &log.filter {
                wanted.add_condition(filter);
            }
            let (filter, omit_empty) = (log.filter.clone(), log.omit_empty);
            Output { sink: sinks.sink(&log.path), line, filter, omit_empty }
        });
        let outputs = outputs.collect();
        Some(Self { wanted, outputs })
    }
}

impl Output {
    /// Whether it has a line for such an exchange.
    pub(super) fn takes(&self, view: &View<'_>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.holds(view))
    }

    /// Appends the line.
    pub(super) fn write(&self, view: &View<'_>, out: &mut Vec<u8>) {
        match &self.line {
            Line::Text(template) => template.write(view, if self.omit_empty { "" } else { "-" }, out),
            Line::Json(fields) => {
                out.push(b'{');
                let mut is_first = true;
                for (key, template) in fields {
                    let start = out.len();
                    if !is_first {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    let value_at = out.len();
                    write_json_field(template, view, out);
                    if self.omit_empty && out.get(value_at..) == Some(b"null") {
                        out.truncate(start);
                    } else {
                        is_first = false;
                    }
                }
                out.extend_from_slice(b"}\n");
            }
        }
    }
}

/// A field that is nothing but one command keeps its type, and is `null` without a value.
fn write_json_field(template: &Template, view: &View<'_>, out: &mut Vec<u8>) {
    let Some((command, max_length)) = template.as_command() else {
        let mut text = Vec::new();
        template.write(view, "-", &mut text);
        return write_json_text(&text, out);
    };
    match command {
        Command::Metadata { scope, namespace, key } => {
            match view.metadata(*scope, namespace, key) {
                Some(Value::String(text)) => {
                    let length = text.len().min(max_length.unwrap_or(usize::MAX));
                    write_json_text(text.as_bytes().get(..length).unwrap_or_default(), out);
                }
                Some(value) => write_json_value(&value, out),
                None => out.extend_from_slice(b"null"),
            }
            return;
        }
        Command::Simple(simple) => {
            if let Some(number) = view.number(*simple) {
                let written = write!(out, "{number}");
                debug_assert!(written.is_ok(), "a Vec takes everything");
                return;
            }
        }
        _ => {}
    }
    let mut text = Vec::new();
    if !model::format::Facts::write(view, command, &mut text) {
        return out.extend_from_slice(b"null");
    }
    text.truncate(max_length.unwrap_or(usize::MAX));
    write_json_text(&text, out);
}
