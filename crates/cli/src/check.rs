//! `ieum check`: everything wrong with configuration, found offline, shown with the lines it is about.
//! What counts as wrong is for `api` and `control`; this prints.

use api::{Diagnostic, Severity};
use clap::Args;
use control::references;
use control::source::{self, SourceFile};
use control::store::Store;
use control::translate::translate;
use control::world::World;
use miette::{GraphicalReportHandler, LabeledSpan, MietteDiagnostic, NamedSource, Report};
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Check Istio, Kubernetes and LocalMesh YAML without running anything.
///
/// Reads every .yaml, .yml and .json below the given paths, reports what is wrong and what would be right.
/// Exit code: 0 nothing wrong (warnings allowed), 1 errors, 2 usage or an unreadable path.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ieum check manifests/\n  ieum check --json a.yaml b.yaml | jq .diagnostics"
)]
pub(crate) struct Check {
    /// Files or folders.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Warnings count as errors for the exit code.
    #[arg(long)]
    strict: bool,
}

impl Check {
    pub(crate) fn run(self) -> ExitCode {
        let (files, unreadable) = source::read(&self.paths);
        for error in &unreadable {
            eprintln!("error: {error}");
        }
        let mut store = Store::default();
        let mut diagnostics = store.update(&files).diagnostics;
        let objects: Vec<_> = store.objects().cloned().collect();
        diagnostics.extend(references::check(&objects));
        diagnostics.extend(translate(&World::of(&objects)).1);
        diagnostics.sort();
        let resources = objects.len();
        match self.json {
            true => println!("{}", as_json(&diagnostics, files.len(), resources)),
            false => print_text(&diagnostics, &files, resources),
        }
        let fatal = |d: &Diagnostic| d.is_error() || (self.strict && d.severity == Severity::Warning);
        if !unreadable.is_empty() {
            ExitCode::from(2)
        } else if diagnostics.iter().any(fatal) {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        }
    }
}

fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics.iter().filter(|d| d.severity == severity).count()
}

fn as_json(diagnostics: &[Diagnostic], files: usize, resources: usize) -> serde_json::Value {
    let list: Vec<_> = diagnostics
        .iter()
        .map(|d| {
            json!({
                "severity": d.severity.as_str(), "resource": d.resource, "file": &*d.file, "line": d.line,
                "column": d.column, "field": d.field, "message": d.message, "help": d.help,
            })
        })
        .collect();
    json!({
        "files": files, "resources": resources, "diagnostics": list,
        "errors": count(diagnostics, Severity::Error), "warnings": count(diagnostics, Severity::Warning),
    })
}

fn print_text(diagnostics: &[Diagnostic], files: &[SourceFile], resources: usize) {
    let texts: HashMap<&str, &Arc<str>> = files.iter().map(|f| (&*f.name, &f.text)).collect();
    let printer = GraphicalReportHandler::new();
    for diagnostic in diagnostics {
        let mut out = String::new();
        let report = report(diagnostic, texts.get(&*diagnostic.file).copied());
        // Writing to a string cannot fail; if drawing did, the one-line form says the same.
        match printer.render_report(&mut out, report.as_ref()) {
            Ok(()) => println!("{out}"),
            Err(_) => println!("{diagnostic}"),
        }
    }
    println!(
        "{}, {}: {}, {}",
        counted(files.len(), "file"),
        counted(resources, "resource"),
        counted(count(diagnostics, Severity::Error), "error"),
        counted(count(diagnostics, Severity::Warning), "warning")
    );
}

fn counted(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

fn report(diagnostic: &Diagnostic, text: Option<&Arc<str>>) -> Report {
    let severity = match diagnostic.severity {
        Severity::Error => miette::Severity::Error,
        Severity::Warning => miette::Severity::Warning,
        Severity::Info => miette::Severity::Advice,
    };
    let place = [diagnostic.resource.as_str(), diagnostic.field.as_str()];
    let place: Vec<&str> = place.into_iter().filter(|p| !p.is_empty()).collect();
    let prefix = if place.is_empty() { String::new() } else { format!("{}: ", place.join(": ")) };
    let mut drawn = MietteDiagnostic::new(format!("{prefix}{}", diagnostic.message)).with_severity(severity);
    drawn.help = diagnostic.help.clone();
    let span = text.and_then(|text| Some((text, span(text, diagnostic.line, diagnostic.column)?)));
    match span {
        Some((text, (offset, length))) => {
            drawn.labels = Some(vec![LabeledSpan::at(offset..offset + length, "here")]);
            Report::new(drawn).with_source_code(NamedSource::new(&*diagnostic.file, text.to_string()))
        }
        None => {
            drawn.message = format!("{}: {}", diagnostic.file, drawn.message);
            Report::new(drawn)
        }
    }
}

/// Byte offset and length, from line and column to the end of the line without trailing blanks.
fn span(text: &str, line: u32, column: u32) -> Option<(usize, usize)> {
    let index = (line as usize).checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(index).map(str::len).sum();
    let content = text.split_inclusive('\n').nth(index)?.trim_end();
    let skipped = match column {
        0 => content.len() - content.trim_start().len(),
        column => content.char_indices().nth(column as usize - 1).map_or(content.len(), |(at, _)| at),
    };
    Some((start + skipped, content.len() - skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_covers_the_rest_of_its_line_and_survives_lines_that_are_not_there() {
        let text = "a: 1\n  bé: 2  \n";
        assert_eq!(span(text, 2, 3), Some((7, 6)));
        assert_eq!(span(text, 2, 0), Some((7, 6)));
        assert_eq!(span(text, 2, 99), Some((13, 0)));
        assert_eq!(span(text, 9, 1), None);
        assert_eq!(span(text, 0, 0), None);
    }
}
