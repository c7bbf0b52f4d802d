//! The optional simulated Hub that serves the corpus of real model metadata.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running simulated Hub. It stops when dropped.
pub(crate) struct LookAlike {
    child: Child,
    pub(crate) endpoint: String,
    pub(crate) corpus: PathBuf,
}

impl LookAlike {
    /// Starts the Hub. Returns `None` and prints why if there is no corpus or no Python.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/hub");
        if !corpus.join("serve.py").exists() {
            println!("skipped: there is no corpus at ../shared/hub");
            return None;
        }

        let folder = tempfile::tempdir().expect("a temporary folder");
        let ready = folder.path().join("ready");
        let child = Command::new("python3")
            .arg(corpus.join("serve.py"))
            .args(["--port", "0", "--quiet", "--ready-file"])
            .arg(&ready)
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();

        let Ok(child) = child else {
            println!("skipped: cannot start python3");
            return None;
        };

        let mut look_alike = Self {
            child,
            endpoint: String::new(),
            corpus,
        };

        let begun = Instant::now();
        let port = loop {
            if let Some(port) = std::fs::read_to_string(&ready)
                .ok()
                .filter(|port| !port.is_empty())
            {
                break port;
            }

            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "the simulated Hub does not start"
            );
            assert!(
                look_alike.child.try_wait().expect("a child").is_none(),
                "the simulated Hub ended at once"
            );
            std::thread::yield_now();
        };

        look_alike.endpoint = format!("http://127.0.0.1:{port}");
        Some(look_alike)
    }
}

impl Drop for LookAlike {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
