//! Bytes passed both ways between two streams, half-closed ends included. Memory is held only for bytes that the other
//! side has not taken yet: a connection on which nothing happens has no buffer. Where much comes at once, and neither side
//! is in TLS, the kernel moves it.

use super::splice::Pipe;
use crate::stream::Bare;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes moved at once.
const ROOM: usize = 128 * 1024;

/// What comes at once is much from here on.
const MUCH: usize = 32 * 1024;

/// How a passage ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Both sides are done.
    Done,
    /// Nothing moved for too long.
    Idle,
    /// The client's side broke.
    Client(io::Error),
    /// The endpoint's side broke.
    Endpoint(io::Error),
}

/// Two streams whose bytes are passed to each other.
pub(super) struct Passage<A, B> {
    client: A,
    endpoint: B,
    up: Half,
    down: Half,
    moved_at: Instant,
    counted: (u64, u64),
}

/// One direction.
#[derive(Default)]
struct Half {
    /// Bytes that were read and not taken yet, from `at` on.
    left: Vec<u8>,
    at: usize,
    bytes: u64,
    /// Bytes that the kernel has of it.
    pipe: Option<Pipe>,
    /// Much came at once.
    is_much: bool,
    needs_flush: bool,
    is_read: bool,
    is_done: bool,
}

/// Which side of a direction broke.
enum Broken {
    From(io::Error),
    To(io::Error),
}

impl<A, B> Passage<A, B>
where
    A: AsyncRead + AsyncWrite + Bare + Unpin,
    B: AsyncRead + AsyncWrite + Bare + Unpin,
{
    pub(super) fn new(client: A, endpoint: B) -> Self {
        let moved_at = Instant::now();
        Self { client, endpoint, up: Half::default(), down: Half::default(), moved_at, counted: (0, 0) }
    }

    /// Bytes from the client, and to it.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.up.bytes, self.down.bytes)
    }

    /// Passes bytes until the end, or until it is time to report: then `None`.
    pub(super) async fn run(&mut self, idle: Option<Duration>, report: Duration) -> Option<Ended> {
        let mut wait = report;
        if let Some(idle) = idle {
            wait = wait.min(idle.saturating_sub(self.moved_at.elapsed()));
        }
        let passing = std::future::poll_fn(|cx| self.poll(cx));
        if let Ok(ended) = tokio::time::timeout(wait, passing).await {
            return Some(ended);
        }
        // The clock is not asked for each piece: it is accurate to one report.
        let bytes = self.bytes();
        if std::mem::replace(&mut self.counted, bytes) != bytes {
            self.moved_at = Instant::now();
        }
        idle.is_some_and(|idle| self.moved_at.elapsed() >= idle).then_some(Ended::Idle)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let up = self.up.poll(cx, &mut self.client, &mut self.endpoint);
        let down = self.down.poll(cx, &mut self.endpoint, &mut self.client);
        match (up, down) {
            (Poll::Ready(Err(Broken::From(error))), _) | (_, Poll::Ready(Err(Broken::To(error)))) => {
                Poll::Ready(Ended::Client(error))
            }
            (Poll::Ready(Err(Broken::To(error))), _) | (_, Poll::Ready(Err(Broken::From(error)))) => {
                Poll::Ready(Ended::Endpoint(error))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Done),
            _ => Poll::Pending,
        }
    }
}

impl Half {
    fn poll<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<Result<(), Broken>>
    where
        F: AsyncRead + Bare + Unpin,
        T: AsyncWrite + Bare + Unpin,
    {
        loop {
            if self.is_done {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_left(cx, to)).map_err(Broken::To)?;
            if let (true, Some(from), Some(to)) = (self.splices(), from.bare(), to.bare()) {
                ready!(self.poll_splice(cx, from, to))?;
                continue;
            }
            if self.is_read {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Broken::To)?;
                self.is_done = true;
                continue;
            }
            let mut room = [const { MaybeUninit::uninit() }; ROOM];
            let mut buf = ReadBuf::uninit(&mut room);
            match Pin::new(&mut *from).poll_read(cx, &mut buf) {
                Poll::Ready(outcome) => outcome.map_err(Broken::From)?,
                Poll::Pending => {
                    if self.needs_flush {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broken::To)?;
                        self.needs_flush = false;
                    }
                    return Poll::Pending;
                }
            }
            let bytes = buf.filled();
            self.is_read = bytes.is_empty();
            self.is_much = bytes.len() >= MUCH;
            self.bytes += bytes.len() as u64;
            self.offer(cx, to, bytes).map_err(Broken::To)?;
        }
    }

    /// Whether the kernel has bytes of it, or is to move the next.
    fn splices(&self) -> bool {
        self.pipe.is_some() || (self.is_much && !self.is_read)
    }

    /// Lets the kernel move what there is.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
    ) -> Poll<Result<(), Broken>> {
        let mut pipe = match self.pipe.take().map_or_else(Pipe::take, Ok) {
            Ok(pipe) => pipe,
            // There are too many descriptors: bytes are copied.
            Err(_) => {
                self.is_much = false;
                return Poll::Ready(Ok(()));
            }
        };
        loop {
            match pipe.poll_drain(cx, to) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::To(error))),
                Poll::Pending => {
                    self.pipe = Some(pipe);
                    return Poll::Pending;
                }
            }
            // Little is copied in less time than it is moved.
            if self.is_read || !self.is_much {
                pipe.give_back();
                return Poll::Ready(Ok(()));
            }
            match pipe.poll_fill(cx, from) {
                Poll::Ready(Ok(count)) => {
                    self.bytes += count as u64;
                    self.is_read = count == 0;
                    self.is_much = count >= MUCH;
                }
                // A socket of a kind that the kernel moves nothing from.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.is_much = false;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::From(error))),
                Poll::Pending => {
                    pipe.give_back();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes `bytes`, and keeps what is not taken.
    fn offer<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut T,
        mut bytes: &[u8],
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(taken)) => bytes = bytes.get(taken..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.left = bytes.to_vec();
                    self.at = 0;
                    break;
                }
            }
            self.needs_flush = true;
        }
        Ok(())
    }

    /// Writes what was not taken before.
    fn poll_left<T: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut T) -> Poll<io::Result<()>> {
        while let Some(rest) = self.left.get(self.at..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *to).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.at += taken,
            }
            self.needs_flush = true;
        }
        self.left = Vec::new();
        self.at = 0;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;

    impl Bare for DuplexStream {
        fn bare(&self) -> Option<&TcpStream> {
            None
        }
    }

    impl Bare for TcpStream {
        fn bare(&self) -> Option<&TcpStream> {
            Some(self)
        }
    }

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (connected.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn what_the_kernel_moves_arrives_whole_whoever_is_slow() {
        let ((mut client, ours), (theirs, mut endpoint)) = tokio::join!(connected(), connected());
        let mut passage = Passage::new(ours, theirs);
        let pattern = |seed: usize, length: usize| -> Vec<u8> {
            (0..length).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed) as u8).collect()
        };
        let (up, down) = (pattern(1, 9_000_001), pattern(2, 5_000_003));
        let talk = async {
            let (mut client_reads, mut client_writes) = client.split();
            let (mut endpoint_reads, mut endpoint_writes) = endpoint.split();
            let ask = async {
                client_writes.write_all(&up).await.unwrap();
                client_writes.shutdown().await.unwrap();
            };
            let answer = async {
                // Little, then much, then little again.
                for part in
                    [&down[..10], &down[10..4_000_000], &down[4_000_000..4_000_009], &down[4_000_009..]]
                {
                    endpoint_writes.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                endpoint_writes.shutdown().await.unwrap();
            };
            let (mut heard_up, mut heard_down) = (Vec::new(), Vec::new());
            let hear_up = async {
                let mut some = [0; 5_000];
                loop {
                    match endpoint_reads.read(&mut some).await.unwrap() {
                        0 => break,
                        count => heard_up.extend_from_slice(&some[..count]),
                    }
                    tokio::task::yield_now().await;
                }
            };
            let hear_down = client_reads.read_to_end(&mut heard_down);
            let ((), (), (), count) = tokio::join!(ask, answer, hear_up, hear_down);
            count.unwrap();
            (heard_up, heard_down)
        };
        let (ended, (heard_up, heard_down)) =
            tokio::join!(passage.run(None, Duration::from_secs(3600)), talk);
        assert!(matches!(ended, Some(Ended::Done)));
        assert_eq!(passage.bytes(), (9_000_001, 5_000_003));
        assert!(heard_up == up && heard_down == down);
    }

    fn passage(buffer: usize) -> (DuplexStream, DuplexStream, Passage<DuplexStream, DuplexStream>) {
        let (client, ours) = duplex(buffer);
        let (theirs, endpoint) = duplex(buffer);
        (client, endpoint, Passage::new(ours, theirs))
    }

    #[tokio::test(start_paused = true)]
    async fn one_side_may_close_and_still_hear_the_other() {
        let (mut client, mut endpoint, mut passage) = passage(7);
        let up = vec![b'a'; 100_000];
        let down = vec![b'b'; 50_000];
        let talk = async {
            let ask = async {
                client.write_all(&up).await.unwrap();
                client.shutdown().await.unwrap();
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let answer = async {
                let mut heard = Vec::new();
                endpoint.read_to_end(&mut heard).await.unwrap();
                endpoint.write_all(&down).await.unwrap();
                endpoint.shutdown().await.unwrap();
                heard
            };
            tokio::join!(ask, answer)
        };
        let (ended, (to_client, to_endpoint)) =
            tokio::join!(passage.run(None, Duration::from_secs(3600)), talk);
        assert!(matches!(ended, Some(Ended::Done)));
        assert_eq!(passage.bytes(), (100_000, 50_000));
        assert!(to_client == down && to_endpoint == up);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_only_where_that_is_limited() {
        let (_client, _endpoint, mut passage) = passage(64);
        let report = Duration::from_secs(10);
        assert!(passage.run(None, report).await.is_none());
        let idle = Some(Duration::from_secs(25));
        let start = Instant::now();
        let ended = loop {
            if let Some(ended) = passage.run(idle, report).await {
                break ended;
            }
        };
        assert!(matches!(ended, Ended::Idle));
        assert!(start.elapsed() <= Duration::from_secs(25));
    }
}
