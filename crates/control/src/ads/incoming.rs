//! A client's requests, read from the body of a gRPC call. A stream is silent for hours after a few large requests, so no
//! buffer outlives what it held; tonic's own reader keeps its largest.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::body::Body;

/// Largest request read, in bytes.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Whether it is compressed, and how long it is.
const HEAD: usize = 5;

/// The requests of one stream.
pub(super) struct Requests<R> {
    body: Body,
    buffer: BytesMut,
    requests: PhantomData<fn() -> R>,
}

impl<R: Message + Default> Requests<R> {
    /// The requests in this body.
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), requests: PhantomData }
    }

    /// The next request; `None` when the client has ended. Nothing is lost when it is not waited for to its end.
    pub(super) async fn message(&mut self) -> Result<Option<R>, Status> {
        loop {
            if let Some(request) = take(&mut self.buffer)? {
                return Ok(Some(request));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(error),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::internal("the last request was cut off")),
            }
        }
    }
}

/// Takes the first message out of the buffer, if it is there to its end.
#[allow(clippy::result_large_err)]
fn take<R: Message + Default>(buffer: &mut BytesMut) -> Result<Option<R>, Status> {
    let Some((&[compressed, a, b, c, d], rest)) = buffer.split_first_chunk::<HEAD>() else { return Ok(None) };
    if compressed != 0 {
        return Err(Status::unimplemented("compressed requests are not read"));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MAX_REQUEST_BYTES {
        let text = format!("a request has {length} bytes; at most {MAX_REQUEST_BYTES} are read");
        return Err(Status::resource_exhausted(text));
    }
    let Some(message) = rest.get(..length) else { return Ok(None) };
    let request = R::decode(message)
        .map_err(|error| Status::invalid_argument(format!("a request cannot be read: {error}")))?;
    buffer.advance(HEAD + length);
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
    Ok(Some(request))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

    fn framed(type_url: &str) -> Vec<u8> {
        let message =
            DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..Default::default() }.encode_to_vec();
        [&[0, 0, 0, 0, message.len() as u8][..], &message].concat()
    }

    fn next(buffer: &mut BytesMut) -> Result<Option<String>, Status> {
        take::<DeltaDiscoveryRequest>(buffer).map(|request| request.map(|request| request.type_url))
    }

    #[test]
    fn requests_are_read_wherever_the_bytes_are_cut() {
        let whole = [framed("a"), framed("bc")].concat();
        for cut in 0..=whole.len() {
            let (first, second) = whole.split_at(cut);
            let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
            for part in [first, second] {
                buffer.extend_from_slice(part);
                while let Some(request) = next(&mut buffer).unwrap() {
                    read.push(request);
                }
            }
            assert_eq!((read, buffer.capacity()), (vec!["a".to_owned(), "bc".to_owned()], 0), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (bytes, code) in [
            (&[1, 0, 0, 0, 0][..], tonic::Code::Unimplemented),
            (&[0, 0xff, 0, 0, 0], tonic::Code::ResourceExhausted),
            (&[0, 0, 0, 0, 1, 0xff], tonic::Code::InvalidArgument),
        ] {
            assert_eq!(next(&mut BytesMut::from(bytes)).unwrap_err().code(), code, "{bytes:?}");
        }
    }
}
