//! One address of a backend, and how to open a connection to it.

use http::HeaderValue;
use http::uri::Uri;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::ServerName};

/// Where a backend listens.
#[derive(Debug)]
pub struct Endpoint {
    /// Distinguishes pools; never reused.
    pub(super) id: usize,
    /// `gpu/0`: backend name and index of the address.
    pub label: Arc<str>,
    /// Requests it has and has not finished.
    pub(super) in_flight: AtomicUsize,
    pub(super) host: HeaderValue,
    /// Path before `/v1`.
    pub(super) prefix: String,
    name: String,
    port: u16,
    tls: Option<ServerName<'static>>,
    pub(super) http2: bool,
}

impl Endpoint {
    /// Reads an address from the configuration.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(url: &str, label: Arc<str>, http2: bool) -> Result<Self, String> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let uri: Uri = url.parse().map_err(|error| format!("`{url}` is no address: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("`{url}` must begin with http:// or https://")),
        };
        let name = uri.host().ok_or_else(|| format!("`{url}` names no host"))?.trim_matches(['[', ']']).to_owned();
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(format!("`{url}` must have neither credentials nor a query; the key goes into `key`"));
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        if prefix.ends_with("/v1") {
            return Err(format!("`{url}` must be the base address, without `/v1`"));
        }
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            label,
            in_flight: AtomicUsize::new(0),
            host: HeaderValue::from_str(host).map_err(|error| format!("`{url}`: {error}"))?,
            prefix,
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls: if tls {
                Some(ServerName::try_from(name.clone()).map_err(|error| format!("`{url}`: {error}"))?)
            } else {
                None
            },
            name,
            http2,
        })
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
                None => Ok(Stream::Plain(stream)),
                Some(name) => {
                    let connector = tokio_rustls::TlsConnector::from(tls_config(self.http2));
                    Ok(Stream::Tls(Box::new(connector.connect(name.clone(), stream).await?)))
                }
            }
        };
        tokio::time::timeout(limit, open)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the connection was not made in time")))
    }
}

/// A connection to a backend.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

fn tls_config(http2: bool) -> Arc<ClientConfig> {
    static CONFIGS: [OnceLock<Arc<ClientConfig>>; 2] = [OnceLock::new(), OnceLock::new()];
    let build = || {
        let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the default TLS versions");
        let mut config = versions.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Arc::new(config)
    };
    CONFIGS[usize::from(http2)].get_or_init(build).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_a_reason() {
        let read = |url: &str| Endpoint::read(url, "b/0".into(), false);
        let good = read("http://10.0.0.5:8000/base/").unwrap();
        assert_eq!(
            (good.name.as_str(), good.port, good.prefix.as_str(), good.host.to_str().unwrap()),
            ("10.0.0.5", 8000, "/base", "10.0.0.5:8000")
        );
        assert_eq!(read("https://api.example.com").unwrap().port, 443);
        assert_eq!(read("http://[::1]:1").unwrap().name, "::1");
        for (url, why) in [
            ("ftp://x", "http://"),
            ("http://u:p@x", "credentials"),
            ("http://x/v1", "without `/v1`"),
            ("http://", ""),
            ("http://x?k=1", "query"),
        ] {
            assert!(read(url).unwrap_err().contains(why), "{url}");
        }
    }
}
