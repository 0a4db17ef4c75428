//! `tidegate health`
//!
//! For containers above all: an image that holds this program alone has nothing else to ask with.

use super::From;
use crate::{admin, config, trust};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// All of it is done within this, or there is no answer.
const LIMIT: Duration = Duration::from_secs(3);
/// More bytes than this are not the answer of a gateway.
const LONGEST: usize = 64 << 10;

/// Ask the gateway that runs here whether it takes requests; exits with 1 if it does not, or gives no answer within 3 seconds.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate health --config /etc/tidegate/tidegate.toml\n  tidegate health --live --admin 127.0.0.1:9091"
)]
pub(super) struct Health {
    #[command(flatten)]
    from: From,
    /// Address of the operator's listener, where `serve` was given another than the configuration's.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Ask whether the process answers (/livez), not whether it takes requests (/readyz).
    #[arg(long)]
    live: bool,
}

impl Health {
    pub fn run(self) -> Result<(), String> {
        let operator = self.operator()?;
        let address = here(operator.listen);
        let tls = match operator.tls {
            None => false,
            Some(files) if files.client_ca.is_none() => true,
            Some(_) => {
                return Err(format!(
                    "{address} wants a certificate of who asks (`client_ca` in [admin.tls]), and this command has none: ask with one that has, such as curl --cert"
                ));
            }
        };
        let path = if self.live { "/livez" } else { "/readyz" };
        let asked = async { tokio::time::timeout(LIMIT, ask(address, tls, path)).await };
        let answer = super::runtime()?.block_on(asked);
        let line = answer.unwrap_or_else(|_| Err(format!("no answer from {address} within {} s", LIMIT.as_secs())))?;
        super::print(&format!("{line}\n"));
        Ok(())
    }

    fn operator(&self) -> Result<admin::Config, String> {
        let overrides = self.admin.map(|listen| ("admin.listen".to_owned(), listen.to_string()));
        match (config::operator(self.from.file().as_deref(), overrides.as_slice()), self.admin) {
            (Ok(operator), _) => Ok(operator),
            // The gateway that runs does not mind what has become of the file.
            (Err(_), Some(listen)) => Ok(admin::Config { listen, ..admin::Config::default() }),
            (Err(problems), None) => Err(super::explain(&problems)),
        }
    }
}

/// Where a listener of this address is reached on its own machine.
fn here(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// What the listener says, in a line; an error if that is bad news, or nothing.
async fn ask(address: SocketAddr, tls: bool, path: &str) -> Result<String, String> {
    let socket = TcpStream::connect(address).await.map_err(|error| format!("nobody answers at {address}: {error}"))?;
    if !tls {
        return exchange(socket, address, path).await;
    }
    let connector = tokio_rustls::TlsConnector::from(trust::own());
    let stream = connector.connect(address.ip().into(), socket).await;
    exchange(stream.map_err(|error| format!("no TLS with {address}: {error}"))?, address, path).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: SocketAddr,
    path: &str,
) -> Result<String, String> {
    let broken = |error: hyper::Error| format!("no answer from {address}: {error}");
    let request = Request::get(path).header(header::HOST, address.to_string()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the runtime.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    let body = Limited::new(body, LONGEST).collect().await;
    let body = body.map_err(|error| format!("no answer from {address}: {error}"))?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    let line = text.lines().next().unwrap_or_default();
    match head.status {
        StatusCode::OK => Ok(line.to_owned()),
        StatusCode::SERVICE_UNAVAILABLE => Err(line.to_owned()),
        status => Err(format!("{address} answered {status}: {line}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_all_addresses_is_asked_on_the_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("10.0.0.5:9090", "10.0.0.5:9090"),
            ("[fd00::5]:9090", "[fd00::5]:9090"),
        ] {
            assert_eq!(here(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
