//! A listener's beginning and end, so that neither costs a client its connection.
//!
//! There are three ways to come by one. *Alone*: the address is ours; who connects before we are ready waits, and when we
//! leave nobody takes over. *Shared* (`SO_REUSEPORT`): another process listens there, too, before us and after us, and the
//! kernel shares out the connections. *Inherited* (systemd's socket activation): the socket outlives us, and who connects
//! while there is no process waits in it.
//!
//! The kernel resets connections that wait in a socket when it is closed, so what waits is taken first. With a shared
//! address that is not enough, since new ones come in between: they are first led past us, by a filter that drops what
//! begins a connection (SYN). Its client repeats it a second later and then finds the other process. A program that leads
//! it there at once (`SO_ATTACH_REUSEPORT_EBPF`) would need `unsafe`.

use super::worker::Workers;
use socket2::{SockFilter, SockRef, Socket};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Connections that may wait to be taken.
const BACKLOG: i32 = 4096;
/// Until it is tried again to take one, where that was not possible.
const PAUSE: Duration = Duration::from_millis(20);
/// How long connections that have been begun may take to be made, after new ones are led elsewhere: a round trip.
const HALF_OPEN: Duration = Duration::from_millis(300);
/// Drops TCP segments with SYN and without ACK, lets all others pass. What a socket's filter sees begins with the TCP header.
const NO_SYN: [SockFilter; 5] = [
    // Load the byte with the flags; of them keep ACK and SYN.
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    // SYN alone: go on; else skip one.
    SockFilter::new(0x15, 0, 1, 0x02),
    // Nothing of it passes; all of it passes.
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Sockets that were opened before this process.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For the API.
    pub api: Option<TcpListener>,
    /// For the operator.
    pub admin: Option<TcpListener>,
}

impl Inherited {
    /// What systemd has handed over (`LISTEN_FDS`): the first socket is the API's, a second the operator's. Called once, and
    /// before there are other threads: it takes the variables out of the environment.
    ///
    /// # Errors
    /// There are others than that.
    pub fn from_environment() -> Result<Self, String> {
        let mut sockets = listenfd::ListenFd::from_env();
        if sockets.len() > 2 {
            return Err(format!(
                "{} sockets were handed over (LISTEN_FDS); it takes one for the API, and perhaps a second for the operator",
                sockets.len()
            ));
        }
        let mut take = |index| {
            let taken = sockets.take_tcp_listener(index);
            taken.map_err(|error| format!("socket {} that was handed over (LISTEN_FDS): {error}", index + 1))
        };
        Ok(Self { api: take(0)?, admin: take(1)? })
    }
}

/// How it was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Alone,
    Shared,
    Inherited,
}

/// An address that is ours, or will be when we listen.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    way: Way,
}

/// Binds to an address, alone or with others; or takes the socket that is there already, whatever its address.
///
/// # Errors
/// The address is taken or not ours.
pub fn bind(address: SocketAddr, shared: bool, inherited: Option<TcpListener>) -> Result<Bound, String> {
    let fail = |error: io::Error| format!("cannot listen on {address}: {error}");
    if let Some(listener) = inherited {
        let socket = Socket::from(listener);
        socket.set_nonblocking(true).map_err(fail)?;
        return Ok(Bound { socket, way: Way::Inherited });
    }
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        if !shared {
            socket.listen(BACKLOG)?;
        }
        Ok(socket)
    };
    Ok(Bound { socket: open().map_err(fail)?, way: if shared { Way::Shared } else { Way::Alone } })
}

impl Bound {
    /// Where it is.
    ///
    /// # Errors
    /// It is no address of the internet.
    pub fn address(&self) -> Result<SocketAddr, String> {
        let address = self.socket.local_addr().map_err(|error| error.to_string())?;
        address.as_socket().ok_or_else(|| "a listener's socket has no internet address".to_owned())
    }

    /// Another process may be serving this address: it should go on until we can.
    pub fn is_shared(&self) -> bool {
        self.way == Way::Shared
    }

    /// From now on connections come here.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(self) -> Result<Listener, String> {
        let way = self.way;
        let open = || {
            if way == Way::Shared {
                self.socket.listen(BACKLOG)?;
            }
            tokio::net::TcpListener::from_std(self.socket.into())
        };
        let socket = open().map_err(|error: io::Error| format!("cannot listen: {error}"))?;
        Ok(Listener { socket, way })
    }
}

/// A socket that connections come to.
#[derive(Debug)]
pub struct Listener {
    socket: tokio::net::TcpListener,
    way: Way,
}

impl Listener {
    /// The next connection.
    ///
    /// # Errors
    /// The system's: too few file descriptors, mostly.
    pub async fn next(&self) -> io::Result<tokio::net::TcpStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }

    /// Takes connections until `stop`, and gives each to the worker that has the fewest; then leaves.
    pub async fn serve(self, workers: &Workers, stop: CancellationToken) {
        self.take_until(workers, stop.cancelled()).await;
        if self.way == Way::Inherited {
            // Who waits is our successor's.
            return;
        }
        if self.way == Way::Shared {
            if let Err(error) = SockRef::from(&self.socket).attach_filter(&NO_SYN) {
                tracing::warn!(%error, "new connections cannot be led elsewhere; some may be reset");
            }
            self.take_until(workers, tokio::time::sleep(HALF_OPEN)).await;
        }
        let Ok(socket) = self.socket.into_std() else { return };
        while let Ok((stream, _)) = socket.accept() {
            if stream.set_nonblocking(true).is_ok() {
                workers.give(stream);
            }
        }
    }

    async fn take_until(&self, workers: &Workers, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let (mut failures, mut full) = (Often::new(Duration::from_secs(1)), Often::new(Duration::from_secs(60)));
        loop {
            let next = async {
                while workers.are_full() {
                    if full.again(Instant::now()).is_some() {
                        tracing::warn!(open = workers.open(), "there are as many connections as may be; new ones wait");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                self.next().await
            };
            let taken = tokio::select! {
                taken = next => taken,
                () = stop.as_mut() => return,
            };
            match taken.and_then(tokio::net::TcpStream::into_std) {
                Ok(stream) => workers.give(stream),
                Err(error) => {
                    // Out of file descriptors, mostly: some will be closed soon.
                    if let Some(times) = failures.again(Instant::now()) {
                        tracing::warn!(%error, times, "a connection could not be taken");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// What may happen many times a second, and is said once in a while.
#[derive(Debug)]
struct Often {
    pause: Duration,
    /// Since it was last said.
    times: u64,
    said: Option<Instant>,
}

impl Often {
    fn new(pause: Duration) -> Self {
        Self { pause, times: 0, said: None }
    }

    /// It has happened again: how many times it did, where that is to be said now.
    fn again(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        if self.said.is_some_and(|said| now.duration_since(said) < self.pause) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_said_once_in_a_while() {
        let (mut often, began) = (Often::new(Duration::from_secs(1)), Instant::now());
        let said = [0, 20, 40, 999, 1000, 1020, 5000].map(|at| often.again(began + Duration::from_millis(at)));
        assert_eq!(said, [Some(1), None, None, None, Some(4), None, Some(2)]);
    }
}
