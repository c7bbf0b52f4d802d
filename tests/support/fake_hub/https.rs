//! The fake Hub over TLS, with HTTP/2 if the client supports it, and a proxy in front of it.
//!
//! A private CA signed its certificate (`tls/ca.pem`), for `localhost`, `hub.test`, `store.test`
//! and 127.0.0.1.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Mutex;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/support/fake_hub/tls")
        .join(name)
}

/// Returns the CA that signed the Hub's certificate.
pub(crate) fn ca() -> PathBuf {
    file("ca.pem")
}

fn acceptor() -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(file("hub.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(file("hub.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions();
    let config = config
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    let mut config = config.expect("a configuration");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

    TlsAcceptor::from(Arc::new(config))
}

impl FakeHub {
    /// Starts the Hub as `https://HUB:port` and its store as `https://STORE:port`, both on
    /// loopback.
    pub(crate) async fn start_secure(
        [hub_name, store_name]: [&str; 2],
        script: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let store = TcpListener::bind("127.0.0.1:0").await.expect("bound");

        let address_of = |name: &str, listener: &TcpListener| {
            format!(
                "https://{name}:{}",
                listener.local_addr().expect("bound").port()
            )
        };

        let endpoint = address_of(hub_name, &hub);
        let shared = Shared::new(address_of(store_name, &store), script);
        let acceptor = acceptor();
        for (listener, is_store) in [(hub, false), (store, true)] {
            let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                    tokio::spawn(async move {
                        // A client that does not know the CA disconnects here.
                        let Ok(stream) = acceptor.accept(stream).await else {
                            return;
                        };

                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                            return serve(stream, is_store, shared).await;
                        }

                        let answer = |request| serve_http2(request, is_store, Arc::clone(&shared));
                        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = http
                            .serve_connection(TokioIo::new(stream), service_fn(answer))
                            .await;
                    });
                }
            });
        }

        Self { endpoint, shared }
    }
}

async fn serve_http2(
    request: hyper::Request<Incoming>,
    store: bool,
    shared: Arc<Shared>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let target = request
        .uri()
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    let header_line = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        format!("{name}: {}\r\n", value.to_str().unwrap_or_default())
    };

    let head = format!(
        "{} {target} HTTP/2\r\n{}",
        request.method(),
        request
            .headers()
            .iter()
            .map(header_line)
            .collect::<String>()
    );

    let _ = request.into_body().collect().await;
    let reply = shared.decide(store, target, head, true);
    let mut response = hyper::Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }

    Ok(response.body(Full::from(reply.body)).expect("a response"))
}

/// A proxy that connects every host name to the same port on loopback.
pub(crate) struct Proxy {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts the proxy. `password` is the `Proxy-Authorization` that it requires.
    pub(crate) async fn start(password: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connect(stream, password, Arc::clone(&seen)));
            }
        });

        Self { address, heads }
    }

    /// Returns the heads of all requests to it.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("locked").clone()
    }
}

async fn connect(mut stream: TcpStream, password: Option<&str>, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }

    let head = String::from_utf8(head).expect("UTF-8");
    heads.lock().expect("locked").push(head.clone());
    let knows = password.is_none_or(|password| head.contains(&format!("Basic {password}\r\n")));

    let port = head
        .split([' ', ':'])
        .nth(2)
        .and_then(|port| port.parse().ok());
    let (true, Some(port)) = (knows, port) else {
        let refusal =
            b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(refusal).await;
        return;
    };

    let port: u16 = port;
    let Ok(mut target) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };

    if stream
        .write_all(b"HTTP/1.1 200 Connected\r\n\r\n")
        .await
        .is_ok()
    {
        let _ = copy_bidirectional(&mut stream, &mut target).await;
    }
}
