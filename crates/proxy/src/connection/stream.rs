//! A client's bytes: those that were read to find out what they are, then the rest; in TLS or not.

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub(crate) use crate::stream::Prefixed;

/// A client's bytes, in TLS or not.
pub(crate) type Stream = crate::stream::Stream<TlsStream<Prefixed<TcpStream>>>;
