//! Cuts a stream at its document markers, so that one broken document leaves its neighbours alone.
//!
//! A line that begins with `---` or `...` at column 0 is a marker wherever it stands: YAML forbids it even inside block
//! and quoted scalars. So the cut needs no parsing.

/// The text of one document, its `---` line included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The text.
    pub text: &'a str,
    /// Line of the file on which the text begins, from 1.
    pub line: u32,
}

/// The documents of a stream, those without content left out.
pub fn split(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut start_line = 1;
    let mut content = false;
    let mut at = 0;
    for (line, row) in (1_u32..).zip(text.split_inclusive('\n')) {
        let next = at + row.len();
        if is_marker(row, "---") {
            if content {
                chunks.push(Chunk { text: &text[start..at], line: start_line });
            }
            (start, start_line) = (at, line);
            content = has_content(row.get(3..).unwrap_or_default());
        } else if is_marker(row, "...") {
            if content {
                chunks.push(Chunk { text: &text[start..at], line: start_line });
            }
            (start, start_line) = (next, line.saturating_add(1));
            content = false;
        } else if !content && row.starts_with('%') {
            // A directive (`%YAML 1.2`) tells us nothing, and alone before a marker it would be an error.
            (start, start_line) = (next, line.saturating_add(1));
        } else {
            content |= has_content(row);
        }
        at = next;
    }
    if content {
        chunks.push(Chunk { text: &text[start..], line: start_line });
    }
    chunks
}

fn is_marker(row: &str, marker: &str) -> bool {
    row.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(row: &str) -> bool {
    let row = row.trim();
    !row.is_empty() && !row.starts_with('#')
}
