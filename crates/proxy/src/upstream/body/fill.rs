//! A body read to its end before anything of it is sent, where that is configured.

use super::{Replay, Shared};
use bytes::Bytes;
use http_body::{Body, Frame};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

/// Why a body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillError {
    /// It is larger than allowed.
    TooLarge,
    /// The client broke it off.
    Broken,
}

impl Replay {
    /// Reads the whole body, of at most `max` bytes, and keeps it.
    pub async fn fill(&self, max: u64) -> Result<(), FillError> {
        loop {
            let frame = std::future::poll_fn(|cx| {
                let mut shared = self.shared.borrow_mut();
                if shared.ended {
                    return Poll::Ready(None);
                }
                match shared.source.as_mut() {
                    Some(source) => Pin::new(source).poll_frame(cx).map(Some),
                    None => Poll::Ready(None),
                }
            });
            let Some(frame) = frame.await else { return Ok(()) };
            let mut shared = self.shared.borrow_mut();
            match frame {
                Some(Ok(frame)) => self.take(&mut shared, frame, max)?,
                None => {
                    shared.end();
                    self.tally.ended.set(Some(Instant::now()));
                }
                Some(Err(_)) => {
                    shared.failed = true;
                    return Err(FillError::Broken);
                }
            }
        }
    }

    fn take(&self, shared: &mut Shared, frame: Frame<Bytes>, max: u64) -> Result<(), FillError> {
        match frame.into_data() {
            Ok(data) => {
                let bytes = self.tally.bytes.get() + data.len() as u64;
                self.tally.bytes.set(bytes);
                if bytes > max {
                    return Err(FillError::TooLarge);
                }
                shared.kept_bytes += data.len();
                shared.feeds.iter().for_each(|feed| feed.push(&data));
                shared.kept.push(data);
            }
            Err(frame) => shared.trailers = frame.into_trailers().ok(),
        }
        Ok(())
    }
}
