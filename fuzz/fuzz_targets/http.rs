//! Bytes from a caller, through the real server and the real program behind it: an answer, a
//! problem or a closed connection; never a panic, which libFuzzer's hook turns into an abort before
//! the server's own net catches it.
//!
//! The first byte says what the rest is: a body for one of the routes, or the whole of what goes
//! over the wire.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hf_mem_probe::admission::limits::Limits;
use hf_mem_probe::server::routes::App;
use hf_mem_probe::server::serve;
use hf_mem_probe::config::{Config, LogConfig};
use hf_mem_probe::service::HostService;
use hf_mem_probe::daemon::{Parts, log};
use hf_mem_probe::metrics::Metrics;
use libfuzzer_sys::fuzz_target;

/// Routes that take a body.
const ROUTES: [&str; 4] = ["/v1/fits", "/v1/estimates", "/v1/leases", "/v1/leases/a-1/renew"];

static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let path = folder.join("api.sock");
    let own = path.clone();
    let (ready, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut config = Config::default();
        // Two small devices: a plan for eight takes longer and shows no more.
        config.devices.declared = Some("1x80GiB,1x24GiB".to_owned());
        config.hub.offline = true;
        config.hub.cache_directory = folder.clone();
        config.leases.state_directory = folder;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let metrics = Arc::new(Metrics::default());
            let log = log::start(&LogConfig { filter: "off".to_owned(), ..LogConfig::default() }).expect("a log");
            let limits = Limits::new(&config.socket, Duration::from_secs(1));
            let program = HostService::new(Parts { config, metrics: Arc::clone(&metrics), log }, None).expect("a program");
            let (_stop, stopping) = tokio::sync::watch::channel(false);
            let listener = tokio::net::UnixListener::bind(own).expect("a socket");
            ready.send(()).expect("somebody waits");
            let app = App::new(Arc::new(program), metrics, limits, stopping);
            serve(listener, app, std::future::pending()).await.expect("a server that goes on");
        });
    });
    wait.recv().expect("a server");
    path
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let mut caller = UnixStream::connect(&*SOCKET).expect("the server listens");
    let route = ROUTES.get(usize::from(*kind) % (ROUTES.len() + 1));
    let head = route.map_or_else(String::new, |route| {
        format!(
            "POST {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            rest.len()
        )
    });
    // The server may close before it has read everything: that is an answer too.
    let sent = caller.write_all(head.as_bytes()).and_then(|()| caller.write_all(rest));
    if route.is_none() {
        let _ = caller.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    let read = caller.read_to_end(&mut answer);
    if route.is_some() && sent.is_ok() && read.is_ok() {
        assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
        assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&answer));
    }
});
