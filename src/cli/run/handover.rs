//! Handover of the lease's id from the process that becomes the command to its supervisor.
//!
//! The daemon's list of leases cannot identify the lease: it has the holder's pid in the daemon's
//! pid namespace, which differs in a container. A socket in the abstract namespace leaves no file,
//! and the kernel reports the pid of the peer.

use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, SystemTime};

use tokio::net::UnixListener as Listener;
use tokio::sync::mpsc;

/// The maximum length of an id, which has some dozen bytes.
const MAX_ID_BYTES: u64 = 128;
/// The time limit for reading an id, which the peer writes right after it connects.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The supervisor's end: listens for the lease's id.
#[derive(Debug)]
pub(super) struct LeaseIdListener {
    name: String,
    listener: Listener,
}

impl LeaseIdListener {
    /// Opens a listener. Needs an async runtime.
    pub(super) fn open() -> io::Result<Self> {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let name = format!(
            "hf-mem-probe-run-{}-{}",
            std::process::id(),
            since.as_nanos()
        );

        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;

        Ok(Self {
            name,
            listener: Listener::from_std(listener)?,
        })
    }

    /// Returns the socket's name for [`send_lease_id`].
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Listens for the id that the process `child` sends. Ignores other processes.
    pub(super) fn listen(self, child: u32) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                let is_child = stream
                    .peer_cred()
                    .is_ok_and(|peer| peer.pid() == i32::try_from(child).ok());
                // The read is bounded in time and bytes, so that it can block.
                if let (true, Ok(stream)) = (is_child, stream.into_std())
                    && let Ok(Ok(id)) = tokio::task::spawn_blocking(move || read_id(&stream)).await
                {
                    // A closed channel means that the command has already ended.
                    let _ended = sender.send(id).await;
                    return;
                }
            }
        });

        receiver
    }
}

fn read_id(stream: &UnixStream) -> io::Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut id = String::new();
    stream.take(MAX_ID_BYTES).read_to_string(&mut id)?;
    Ok(id)
}

/// Sends the lease's id to the listener `name`. Does not wait until the listener reads it.
pub(super) fn send_lease_id(name: &str, id: &str) -> io::Result<()> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?.write_all(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// The variable with the listener's name for the child.
    const LISTENER: &str = "HF_MEM_PROBE_TEST_LISTENER";

    /// The child's side: waits for the end of its input, then sends an id. Does nothing without
    /// the variable.
    #[test]
    #[ignore = "started by the test below"]
    fn child() {
        let Ok(name) = std::env::var(LISTENER) else {
            return;
        };
        io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
        send_lease_id(&name, "of the child").unwrap();
    }

    #[tokio::test]
    async fn only_child_is_heard() {
        let listener = LeaseIdListener::open().unwrap();
        let name = listener.name().to_owned();
        let (_, module) = module_path!().split_once("::").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", &format!("{module}::child")])
            .env(LISTENER, &name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();

        let mut ids = listener.listen(child.id());

        // Connections are accepted in order: this one comes first, and is not the child's.
        send_lease_id(&name, "of another").unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert_eq!(ids.recv().await.as_deref(), Some("of the child"));
        send_lease_id(&name, "too late").unwrap_err();
    }
}
