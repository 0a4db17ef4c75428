//! One address of a backend, and how to open a connection to it.

use super::pool;
use super::standing::Standing;
use crate::canon::Listed;
use crate::trust::{self, Authorities};
use arc_swap::ArcSwapOption;
use http::HeaderValue;
use http::uri::Uri;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, pki_types::ServerName};
use tokio_util::either::Either;

/// A target: an address under the name it has in the books.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `gpu/0`: backend name and index of the address; `gpu/10.0.0.5` where it was found by a name, with its port if that is
    /// not the name's.
    pub label: Arc<str>,
    pub(super) address: Arc<Address>,
}

/// Where a backend listens. Configurations that agree on it share it, and with it its connections.
#[derive(Debug)]
pub struct Address {
    /// Distinguishes pools; never reused.
    pub(super) id: usize,
    /// What it is recognized by in every process.
    pub(super) key: u64,
    /// Requests it has and has not finished.
    pub(super) in_flight: AtomicUsize,
    /// How it stands with us.
    pub(super) standing: Standing,
    /// The models it lists, where that is known.
    pub(super) list: ArcSwapOption<Vec<Listed>>,
    /// No configuration names it any more: nothing is kept for it.
    pub(super) gone: AtomicBool,
    pub(super) host: HeaderValue,
    /// Path before `/v1`.
    pub(super) prefix: String,
    name: String,
    port: u16,
    tls: Option<Tls>,
    pub(super) http2: bool,
}

/// What `https://` needs beyond a connection.
#[derive(Debug)]
struct Tls {
    name: ServerName<'static>,
    /// Authorities of the backend's own, instead of the public ones.
    private: Option<Arc<ClientConfig>>,
}

impl Address {
    /// Reads an address from the configuration. `private`: authorities for its certificate instead of the public ones.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(url: &str, http2: bool, private: Option<&Authorities>) -> Result<Self, String> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let shown = shown(url);
        let uri: Uri = url.parse().map_err(|error| format!("{shown} is no URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{shown} must begin with http:// or https://")),
        };
        let name = uri.host().ok_or_else(|| format!("{shown} names no host"))?.trim_matches(['[', ']']).to_owned();
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(format!("{shown} must have neither credentials nor a query; the key goes into `key`"));
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        if prefix.ends_with("/v1") {
            return Err(format!("`{url}` must be the base address, without `/v1`"));
        }
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            key: pool::of(url),
            in_flight: AtomicUsize::new(0),
            standing: Standing::default(),
            list: ArcSwapOption::empty(),
            gone: AtomicBool::new(false),
            host: HeaderValue::from_str(host).map_err(|error| format!("`{url}`: {error}"))?,
            prefix,
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls: if tls {
                let name = ServerName::try_from(name.clone()).map_err(|error| format!("`{url}`: {error}"))?;
                Some(Tls { name, private: private.map(|private| private.tls.clone()) })
            } else {
                None
            },
            name,
            http2,
        })
    }

    /// The same by one of the addresses that its name stands for, and what that is called: connections go there, and all else
    /// is the name's.
    pub(super) fn at(self, at: SocketAddr, called: &str) -> Self {
        Self { name: at.ip().to_string(), port: at.port(), key: pool::of(&format!("{}/{called}", self.key)), ..self }
    }

    /// What a request for this path is addressed to: all of it in HTTP/2, the path in HTTP/1.1.
    pub(super) fn uri(&self, path: &'static str) -> Uri {
        let uri = if self.http2 {
            Uri::builder()
                .scheme(if self.tls.is_some() { "https" } else { "http" })
                .authority(self.host.as_bytes())
                .path_and_query(format!("{}{path}", self.prefix))
                .build()
        } else if self.prefix.is_empty() {
            Ok(Uri::from_static(path))
        } else {
            format!("{}{path}", self.prefix).parse().map_err(Into::into)
        };
        uri.expect("the address and the path were read before")
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, limit: Duration) -> io::Result<Stream> {
        let open = async {
            let stream = TcpStream::connect((self.name.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            // A whole reply may take as long as it takes; a peer that is gone must still be noticed.
            let alive =
                socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
            socket2::SockRef::from(&stream).set_tcp_keepalive(&alive)?;
            match &self.tls {
                None => Ok(Either::Left(stream)),
                Some(tls) => {
                    let config = tls.private.clone().unwrap_or_else(|| trust::public(self.http2));
                    let connector = tokio_rustls::TlsConnector::from(config);
                    Ok(Either::Right(Box::new(connector.connect(tls.name.clone(), stream).await?)))
                }
            }
        };
        tokio::time::timeout(limit, open)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the connection was not made in time")))
    }
}

/// An address for what is said of it: a password or a key may be in one that is refused, at whatever place it is not understood.
pub(super) fn shown(url: &str) -> String {
    if url.contains(['@', '?']) { "this address".to_owned() } else { format!("`{url}`") }
}

/// A connection to a backend, plain or TLS.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_a_reason() {
        let read = |url: &str| Address::read(url, false, None);
        let good = read("http://10.0.0.5:8000/base/").unwrap();
        assert_eq!(
            (good.name.as_str(), good.port, good.prefix.as_str(), good.host.to_str().unwrap()),
            ("10.0.0.5", 8000, "/base", "10.0.0.5:8000")
        );
        assert_eq!(read("https://api.example.com").unwrap().port, 443);
        assert_eq!(read("http://[::1]:1").unwrap().name, "::1");
        for (url, why) in [
            ("ftp://x", "http://"),
            ("http://u:hunter2@x", "credentials"),
            ("http://u:hunter2 @x", "is no URL"),
            ("postgres://u:hunter2@x", "http://"),
            ("http://x/v1", "without `/v1`"),
            ("http://", ""),
            ("http://x?k=hunter2", "query"),
        ] {
            let error = read(url).err().unwrap();
            assert!(error.contains(why) && !error.contains("hunter2"), "{url}: {error}");
        }
    }
}
