//! A problem in a resource, said so that its author can fix it: where, what is wrong, what would be right.
//!
//! `control` uses the same type for problems that need more than one resource to see. Printing with source snippets is
//! the CLI's business.

use std::fmt;
use std::sync::Arc;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The resource is not used; its last good version stays in force.
    Error,
    /// The resource is used, but probably not as its author thinks.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// `error`, `warning` or `info`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One problem at one place. Orders by place first, so that a sorted list reads like the files do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic {
    /// The file as the caller named it.
    pub file: Arc<str>,
    /// Line in the file, from 1; 0 when the problem is the file as a whole.
    pub line: u32,
    /// Column in characters, from 1; 0 when only the line is known.
    pub column: u32,
    /// How bad it is.
    pub severity: Severity,
    /// `VirtualService default/reviews`; empty when the text could not be read far enough to know.
    pub resource: String,
    /// `spec.http[0].timeout`; empty when the problem is the resource as a whole.
    pub field: String,
    /// What is wrong, naming the value.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem at a line of a file, of no resource and no field yet.
    pub fn new(severity: Severity, file: Arc<str>, line: u32, message: impl Into<String>) -> Self {
        Self {
            file,
            line,
            column: 0,
            severity,
            resource: String::new(),
            field: String::new(),
            message: message.into(),
            help: None,
        }
    }

    /// The same problem with advice on what would be right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same problem, of a resource.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = resource.into();
        self
    }

    /// The same problem, at a field path.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// The same problem, at a column from 1.
    #[must_use]
    pub fn column(mut self, column: u32) -> Self {
        self.column = column;
        self
    }

    /// Whether it keeps its resource from being used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `file:line:column: error: VirtualService default/reviews: spec.hosts: is empty (help)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.line > 0 && self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": {}: ", self.severity)?;
        if !self.resource.is_empty() {
            write!(f, "{}: ", self.resource)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}
