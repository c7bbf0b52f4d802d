//! Resolves the holder that a client names.

use std::path::Path;

use hf_mem_core::report::Problem;
use hf_mem_core::report::lease::Holder as RequestedHolder;
use hf_mem_core::report::problem::Reason;

use crate::api::peer::Peer;
use crate::leases::holder::{WatchedProcess, check_owner, is_in_host_pid_namespace, watch};
use crate::leases::lease::Holder;

/// Returns the holder, and its process to watch if the holder is a process.
pub(super) fn resolve(
    proc_root: &Path,
    peer: Peer,
    requested: Option<&RequestedHolder>,
) -> Result<(Holder, Option<WatchedProcess>), Problem> {
    let pid = match requested {
        Some(RequestedHolder::Name(name)) if name.trim().is_empty() => {
            return Err(Problem::new(Reason::Usage, "the holder's name is empty"));
        }
        Some(RequestedHolder::Name(name)) => return Ok((Holder::named(name.trim()), None)),
        Some(RequestedHolder::Pid(pid)) => {
            // A pid of another namespace would name some other process here.
            if !is_in_host_pid_namespace(proc_root, host_pid(peer)?)? {
                let detail = format!(
                    "process {pid} is a pid of the requester's container, which the host does \
                     not know"
                );
                return Err(Problem::new(Reason::Usage, detail).hint(
                    "name a holder ({\"name\": \"...\"}; `fits --reserve --holder NAME`), or omit \
                     it: the requesting process then holds the lease, as under `run`",
                ));
            }
            *pid
        }
        None => host_pid(peer)?,
    };

    let watched = watch(proc_root, pid)?;

    // Check after opening the pidfd, so that the owner is that of the watched process or of none.
    // Check the connecting process too: its pid may have been reused since it connected.
    check_owner(proc_root, pid, peer.uid)?;
    Ok((Holder::process(watched.identity), Some(watched)))
}

/// The requesting process, if the daemon's PID namespace contains it.
fn host_pid(peer: Peer) -> Result<u32, Problem> {
    peer.pid.ok_or_else(|| {
        Problem::new(
            Reason::Usage,
            "the daemon cannot see the requesting process, so it cannot hold a lease",
        )
        .hint(
            "name a holder ({\"name\": \"...\"}; `fits --reserve --holder NAME`), or, if \
             the daemon runs in a container, let it see the host's processes (hostPID)",
        )
    })
}
