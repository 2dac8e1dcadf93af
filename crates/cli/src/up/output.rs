//! What people see of a running mesh: lines of all its processes, each with the name of who said it. Written by a thread
//! of its own, so that a terminal that stops reading never stops the supervisor; lines beyond its patience are counted.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Lines that wait for the terminal.
const WAITING_LINES: usize = 4096;
/// A longer line is shown in pieces.
const LONGEST_LINE: usize = 16 * 1024;
/// Readable on light and dark terminals; control and ieum itself are not coloured.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Who says something.
#[derive(Clone, Debug)]
pub(super) struct Label {
    name: String,
    colour: Option<u8>,
}

impl Label {
    /// A coloured name; the same name has the same colour.
    pub(super) fn coloured(name: &str, of: &str) -> Self {
        let at = super::addresses::fingerprint(of) % COLOURS.len() as u64;
        Label { name: name.to_owned(), colour: COLOURS.get(at as usize).copied() }
    }

    /// A name without colour.
    pub(super) fn plain(name: &str) -> Self {
        Label { name: name.to_owned(), colour: None }
    }
}

/// Prints to stderr.
#[derive(Clone, Debug)]
pub(super) struct Printer {
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
    colours: bool,
}

/// Ends when every [`Printer`] is gone and all is printed.
pub(super) struct Printing(Receiver<()>);

impl Printing {
    /// Waits for the last line, but not for a terminal that does not read.
    pub(super) fn finish(self) {
        let _ = self.0.recv_timeout(Duration::from_secs(1));
    }
}

impl Printer {
    /// Starts the thread that prints.
    pub(super) fn start() -> (Self, Printing) {
        let (lines, taken) = sync_channel(WAITING_LINES);
        let (done, end) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let missed = lost.clone();
        std::thread::spawn(move || {
            print_all(&taken, &missed);
            let _ = done.send(());
        });
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        (Printer { lines, lost, colours }, Printing(end))
    }

    /// A line of a process.
    pub(super) fn line(&self, label: &Label, text: &str) {
        let Label { name, .. } = label;
        self.send(match label.colour.filter(|_| self.colours) {
            Some(colour) => format!("\x1b[{colour}m[{name}]\x1b[0m {text}\n"),
            None => format!("[{name}] {text}\n"),
        });
    }

    /// A line of our own.
    pub(super) fn say(&self, text: &str) {
        self.send(format!("{text}\n"));
    }

    fn send(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prints what `source` says, line by line, until it ends.
    pub(super) async fn relay(self, label: Label, mut source: impl AsyncRead + Unpin) {
        let mut pending = Vec::new();
        let mut buffer = vec![0; 8 * 1024];
        loop {
            let count = match source.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            pending.extend(buffer.iter().take(count));
            while let Some(line) = take_line(&mut pending) {
                self.line(&label, &line);
            }
        }
        if !pending.is_empty() {
            self.line(&label, &String::from_utf8_lossy(&pending));
        }
    }
}

/// Takes a whole line off the front, or what is too long to wait for its end.
fn take_line(pending: &mut Vec<u8>) -> Option<String> {
    let end = pending.iter().position(|byte| *byte == b'\n');
    let (length, skipped) = match end {
        Some(end) if end <= LONGEST_LINE => (end, 1),
        _ if pending.len() > LONGEST_LINE => (LONGEST_LINE, 0),
        _ => return None,
    };
    let rest = pending.split_off(length + skipped);
    let line = std::mem::replace(pending, rest);
    let line = line.get(..length).unwrap_or(&line);
    Some(String::from_utf8_lossy(line).trim_end_matches('\r').to_owned())
}

fn print_all(lines: &Receiver<String>, lost: &AtomicU64) {
    let mut out = std::io::stderr();
    for line in lines {
        // Nobody may be there to read any more; the mesh goes on.
        let _ = out.write_all(line.as_bytes());
        let missed = lost.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let _ = writeln!(out, "({missed} lines were not shown: the terminal did not keep up)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_whole_and_endless_ones_in_pieces() {
        let mut pending = b"one\r\ntwo\nthr".to_vec();
        assert_eq!(take_line(&mut pending).as_deref(), Some("one"));
        assert_eq!(take_line(&mut pending).as_deref(), Some("two"));
        assert_eq!(take_line(&mut pending), None);
        assert_eq!(pending, b"thr");
        let mut pending = vec![b'x'; LONGEST_LINE + 5];
        assert_eq!(take_line(&mut pending).map(|line| line.len()), Some(LONGEST_LINE));
        assert_eq!(pending.len(), 5);
    }

    #[test]
    fn a_name_keeps_its_colour() {
        assert_eq!(Label::coloured("a", "a").colour, Label::coloured("a proxy", "a").colour);
        assert_eq!(Label::plain("control").colour, None);
    }
}
