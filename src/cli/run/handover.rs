//! The lease's id, from the process that becomes the command to the one that renews the lease.
//!
//! The daemon's list of leases cannot tell it: there a holder's pid is as the daemon numbers
//! processes, which in a container is another number than ours. A socket in the abstract namespace
//! leaves no file, and the kernel says who connected.

use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, SystemTime};

use tokio::net::UnixListener as Listener;
use tokio::sync::mpsc;

/// Ids are some dozen bytes.
const LONGEST_ID: u64 = 128;
/// How long one that connected may take to say an id: it was written before it could be accepted.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the id is waited for.
#[derive(Debug)]
pub(super) struct LeaseIdListener {
    name: String,
    listener: Listener,
}

impl LeaseIdListener {
    /// Opens one. Needs a runtime.
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

    /// What [`tell`] needs to reach it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Listens for the id that the process `child` says; nobody else is heard.
    pub(super) fn listen(self, child: u32) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                let of_child = stream
                    .peer_cred()
                    .is_ok_and(|peer| peer.pid() == i32::try_from(child).ok());
                // Both ends of the reading are bounded, so that it may block.
                if let (true, Ok(stream)) = (of_child, stream.into_std())
                    && let Ok(Ok(id)) = tokio::task::spawn_blocking(move || heard(&stream)).await
                {
                    // Where nobody wants to know any more, the command has ended.
                    let _ended = sender.send(id).await;
                    return;
                }
            }
        });

        receiver
    }
}

fn heard(stream: &UnixStream) -> io::Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut id = String::new();
    stream.take(LONGEST_ID).read_to_string(&mut id)?;
    Ok(id)
}

/// Tells the ear of this name the id of the lease. Does not wait until it is heard.
pub(super) fn tell(name: &str, id: &str) -> io::Result<()> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?.write_all(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Where the child finds the ear's name.
    const EAR: &str = "HF_MEM_PROBE_TEST_EAR";

    /// The child's side: waits for its input to end, and tells. Does nothing unless it is told
    /// whom.
    #[test]
    #[ignore = "started by the test below"]
    fn child() {
        let Ok(name) = std::env::var(EAR) else { return };
        io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
        tell(&name, "of the child").unwrap();
    }

    #[tokio::test]
    async fn only_the_child_is_heard() {
        let ear = LeaseIdListener::open().unwrap();
        let name = ear.name().to_owned();
        let (_, module) = module_path!().split_once("::").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", &format!("{module}::child")])
            .env(EAR, &name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();

        let mut told = ear.listen(child.id());

        // Connections are accepted in their order: this one comes first, and is not the child's.
        tell(&name, "of another").unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert_eq!(told.recv().await.as_deref(), Some("of the child"));
        tell(&name, "too late").unwrap_err();
    }
}
