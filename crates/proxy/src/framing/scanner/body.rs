//! The steps through a body: counted bytes, chunks, trailers.

use super::{At, HEAD_FIELDS, Scanner, break_or};
use crate::framing::bytes::{run_of_token, run_of_value};
use crate::framing::rule::Rule;

/// Most digits of a chunk's size, leading zeros included.
const CHUNK_DIGITS: u8 = 16;
/// Most bytes of a chunk's extension, which nobody reads.
const CHUNK_EXTENSION: u32 = 1024;

impl Scanner {
    /// Takes some of `bytes`, which is not empty.
    pub(super) fn step_body(&mut self, bytes: &[u8]) -> Result<usize, Rule> {
        let Some(&first) = bytes.first() else { return Ok(0) };
        match self.at {
            At::Sized(left) => {
                let taken = (bytes.len() as u64).min(left);
                self.at = At::Sized(left - taken);
                if taken == left {
                    self.end_request();
                }
                Ok(taken as usize)
            }
            At::TrailerStart | At::TrailerName { .. } | At::TrailerValue | At::TrailerLf | At::TrailersLf => {
                self.step_trailer(bytes, first)
            }
            _ => self.step_chunk(bytes, first),
        }
    }

    fn step_chunk(&mut self, bytes: &[u8], first: u8) -> Result<usize, Rule> {
        match self.at {
            At::ChunkSize { size, digits } => match (first as char).to_digit(16) {
                Some(_) if digits == CHUNK_DIGITS => Err(Rule::ChunkSize),
                Some(digit) => {
                    let size = (size << 4) | u64::from(digit);
                    self.go(At::ChunkSize { size, digits: digits + 1 }, 1)
                }
                None if digits == 0 => Err(break_or(first, Rule::ChunkSize)),
                None if first == b'\r' => self.go(At::ChunkSizeLf(size), 1),
                None if first == b';' => self.go(At::ChunkExtension { size, length: 0 }, 1),
                None => Err(break_or(first, Rule::ChunkSize)),
            },
            At::ChunkExtension { size, length } => {
                let room = (CHUNK_EXTENSION - length) as usize;
                let taken = run_of_value(bytes).min(room);
                match first {
                    _ if taken > 0 => {
                        self.go(At::ChunkExtension { size, length: length + taken as u32 }, taken)
                    }
                    b'\r' => self.go(At::ChunkSizeLf(size), 1),
                    other => Err(break_or(other, Rule::ChunkSize)),
                }
            }
            At::ChunkSizeLf(0) => {
                self.size = 0;
                self.head.fields = 0;
                self.line_feed(first, At::TrailerStart)
            }
            At::ChunkSizeLf(size) => self.line_feed(first, At::Chunk(size)),
            At::Chunk(left) => {
                let taken = (bytes.len() as u64).min(left);
                let next = if taken == left { At::ChunkCr } else { At::Chunk(left - taken) };
                self.go(next, taken as usize)
            }
            At::ChunkCr if first == b'\r' => self.go(At::ChunkLf, 1),
            At::ChunkLf if first == b'\n' => self.go(At::ChunkSize { size: 0, digits: 0 }, 1),
            _ => Err(Rule::ChunkEnd),
        }
    }

    fn step_trailer(&mut self, bytes: &[u8], first: u8) -> Result<usize, Rule> {
        match self.at {
            At::TrailerStart => match first {
                b'\r' => self.go(At::TrailersLf, 1),
                b' ' | b'\t' => Err(Rule::FoldedHeader),
                _ if self.head.fields == HEAD_FIELDS => Err(Rule::HeadFields),
                _ => {
                    self.head.fields += 1;
                    self.go(At::TrailerName { empty: true }, 0)
                }
            },
            At::TrailerName { empty } => match run_of_token(bytes) {
                0 if first == b':' && !empty => self.go(At::TrailerValue, 1),
                0 => Err(break_or(first, Rule::HeaderName)),
                taken => self.go(At::TrailerName { empty: false }, taken),
            },
            At::TrailerValue => match run_of_value(bytes) {
                0 if first == b'\r' => self.go(At::TrailerLf, 1),
                0 => Err(break_or(first, Rule::ControlByte)),
                taken => self.go(At::TrailerValue, taken),
            },
            At::TrailerLf => self.line_feed(first, At::TrailerStart),
            _ => {
                let taken = self.line_feed(first, At::TrailersLf)?;
                self.end_request();
                Ok(taken)
            }
        }
    }
}
