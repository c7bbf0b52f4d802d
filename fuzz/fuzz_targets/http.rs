//! Bytes from a client, through the real server and service, give an answer, a problem or a closed
//! connection, and never a panic.
//!
//! libFuzzer's panic hook aborts the process before the server catches the panic.
//!
//! The first byte determines the meaning of the rest: a body for one of the routes, or all bytes of
//! the connection.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hf_mem_probe::admission::server_limits::ServerLimits;
use hf_mem_probe::config::{Config, LogConfig};
use hf_mem_probe::daemon::{Parts, log};
use hf_mem_probe::metrics::Metrics;
use hf_mem_probe::server::routes::App;
use hf_mem_probe::server::serve;
use hf_mem_probe::service::HostService;
use libfuzzer_sys::fuzz_target;

/// Routes that take a body.
const ROUTES: [&str; 4] = [
    "/v1/fits",
    "/v1/estimates",
    "/v1/leases",
    "/v1/leases/a-1/renew",
];

static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let path = folder.join("api.sock");
    let bind_path = path.clone();
    let (ready, wait) = std::sync::mpsc::channel();

    std::thread::spawn(move || {
        let mut config = Config::default();

        // Two small devices are enough: a plan for eight takes longer and covers no more code.
        config.devices.declared = Some("1x80GiB,1x24GiB".to_owned());
        config.hub.offline = true;
        config.hub.cache_directory = folder.clone();
        config.leases.state_directory = folder;

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let metrics = Arc::new(Metrics::default());
            let log_config = LogConfig {
                filter: "off".to_owned(),
                ..LogConfig::default()
            };
            let log = log::start(&log_config).expect("a log");
            let limits = ServerLimits::new(&config.socket, Duration::from_secs(1));
            let parts = Parts {
                config,
                metrics: Arc::clone(&metrics),
                log,
            };
            let service = HostService::new(parts, None).expect("a service");

            let (_stop, stopping) = tokio::sync::watch::channel(false);
            let listener = tokio::net::UnixListener::bind(bind_path).expect("a socket");
            ready.send(()).expect("the fuzz target waits");

            let app = App::new(Arc::new(service), metrics, limits, stopping);
            serve(listener, app, std::future::pending())
                .await
                .expect("the server never stops");
        });
    });

    wait.recv().expect("a server");
    path
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };

    let mut client = UnixStream::connect(&*SOCKET).expect("the server listens");
    let route = ROUTES.get(usize::from(*kind) % (ROUTES.len() + 1));
    let head = route.map_or_else(String::new, |route| {
        format!(
            "POST {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            rest.len()
        )
    });

    // The server can close the connection before it has read everything.
    let sent = client
        .write_all(head.as_bytes())
        .and_then(|()| client.write_all(rest));
    if route.is_none() {
        let _ = client.shutdown(std::net::Shutdown::Write);
    }

    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    if route.is_some() && sent.is_ok() && read.is_ok() {
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 "), "{text}");
        assert!(!text.starts_with("HTTP/1.1 500"), "{text}");
    }
});
