//! A small Hub for tests that can fail in every way a real one does, down to the bytes on the wire.
#![allow(dead_code, reason = "shared by test binaries, each using a part")]

pub(crate) mod https;
pub(crate) mod repositories;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// The commit of the one repository.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Whether the file store received it instead of the Hub itself.
    pub(crate) store: bool,
    /// Path and query.
    pub(crate) target: String,
    /// The whole head, for searching.
    pub(crate) head: String,
    /// The address of the file store.
    pub(crate) store_endpoint: String,
    /// Whether it came over HTTP/2.
    pub(crate) multiplexed: bool,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

/// The response to a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Closes the connection after so many bytes of the body.
    pub(crate) cut_after: Option<usize>,
    /// Stops sending after so many bytes of the body, with the connection open.
    pub(crate) stall_after: Option<usize>,
    /// Closes the connection without a response.
    pub(crate) drop: bool,
    /// Never responds.
    pub(crate) silent: bool,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Returns the response to a request; `None` means that of the well-behaved Hub.
type Script = Box<dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync>;

/// A running fake Hub.
pub(crate) struct FakeHub {
    pub(crate) endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    store: String,
    script: Script,
    seen: Mutex<Vec<Request>>,
    connections: AtomicUsize,
}

impl Shared {
    fn new(
        store: String,
        script: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (seen, connections) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self {
            store,
            script: Box::new(script),
            seen,
            connections,
        })
    }

    /// Records a request and returns the response.
    fn decide(&self, store: bool, target: String, head: String, multiplexed: bool) -> Reply {
        let request = Request {
            store,
            target,
            head,
            store_endpoint: self.store.clone(),
            multiplexed,
        };

        let before = {
            let mut seen = self.seen.lock().expect("locked");
            seen.push(request.clone());
            seen.len() - 1
        };

        (self.script)(&request, before).unwrap_or_else(|| well_behaved(&request, &self.store))
    }
}

impl FakeHub {
    /// Starts a Hub with the repository `a/b`. `script` receives each request and the number of
    /// earlier ones.
    pub(crate) async fn start(
        script: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let store = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address_of = |listener: &TcpListener| {
            format!("http://{}", listener.local_addr().expect("an address"))
        };

        let endpoint = address_of(&hub);
        let shared = Shared::new(address_of(&store), script);
        for (listener, is_store) in [(hub, false), (store, true)] {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(serve(stream, is_store, Arc::clone(&shared)));
                }
            });
        }

        Self { endpoint, shared }
    }

    /// Returns all requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.seen.lock().expect("locked").clone()
    }

    /// Returns the number of connections so far, to Hub and store together.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, store: bool, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }

    let head = String::from_utf8(head).expect("UTF-8");
    let target = head.split(' ').nth(1).expect("a target").to_owned();
    let reply = shared.decide(store, target, head, false);

    // Some tests drop the client before everything is written.
    let _ = send(&mut stream, reply).await;
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> std::io::Result<()> {
    if reply.drop {
        return Ok(());
    }

    if reply.silent {
        std::future::pending::<()>().await;
    }

    let mut lines = vec![
        format!("HTTP/1.1 {} x", reply.status),
        "connection: close".into(),
    ];
    if !reply
        .headers
        .iter()
        .any(|(name, _)| name == "content-length")
    {
        lines.push(format!("content-length: {}", reply.body.len()));
    }

    lines.extend(
        reply
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}")),
    );

    stream
        .write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes())
        .await?;
    let until = reply
        .cut_after
        .or(reply.stall_after)
        .unwrap_or(reply.body.len());
    stream.write_all(&reply.body[..until]).await?;
    stream.flush().await?;

    if reply.stall_after.is_some() {
        std::future::pending::<()>().await;
    }

    Ok(())
}

/// The response of a Hub without faults: model API, files by redirect to the store, ranges.
pub(crate) fn well_behaved(request: &Request, store: &str) -> Reply {
    let path = request.target.split('?').next().expect("a path");
    if path == "/api/models" {
        return Reply::ok(r#"[{"id": "a/b"}, {"id": "a/bc"}]"#);
    }

    if path.starts_with("/api/models/a/b/revision/") {
        let length = weights().len();
        return Reply::ok(format!(
            r#"{{"id": "a/b", "sha": "{COMMIT}", "gated": false, "private": false,
                "siblings": [{{"rfilename": "config.json", "size": 2}}, {{"rfilename": "model.safetensors", "size": {length}}}]}}"#
        ));
    }

    if path.ends_with("/config.json") {
        return Reply::ok("{}");
    }

    if path.ends_with("/model.safetensors") {
        if !request.store {
            return Reply::status(302).with(
                "location",
                format!("{store}{path}?Signature=secret-signature"),
            );
        }
        return ranged(&weights(), request);
    }

    Reply::status(404).with("x-error-code", "RepoNotFound")
}

/// Returns the requested range of `bytes`.
pub(crate) fn ranged(bytes: &[u8], request: &Request) -> Reply {
    let Some((first, last)) = request.range() else {
        return Reply::ok(bytes);
    };

    let last = last.min(bytes.len() - 1);
    let part = bytes[first..=last].to_vec();

    Reply {
        status: 206,
        body: part,
        ..Reply::default()
    }
    .with(
        "content-range",
        format!("bytes {first}-{last}/{}", bytes.len()),
    )
}

/// Returns a weight file: one tensor of 1 MiB behind a header.
pub(crate) fn weights() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[512,512],"data_offsets":[0,1048576]}}      "#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + (1 << 20), 0);
    bytes
}
