//! From what an asker says of the holder to the holder itself.

use std::path::Path;

use hf_mem_core::report::Problem;
use hf_mem_core::report::lease::Holder as Named;
use hf_mem_core::report::problem::Reason;

use crate::api::peer::Peer;
use crate::leases::holder::{WatchedProcess, check_owner, counts_as_here, watch};
use crate::leases::lease::Holder;

/// The holder, and its process to be watched if it is one.
pub(super) fn resolve(
    proc_root: &Path,
    peer: Peer,
    named: Option<&Named>,
) -> Result<(Holder, Option<WatchedProcess>), Problem> {
    let pid = match named {
        Some(Named::Name(name)) if name.trim().is_empty() => {
            return Err(Problem::new(Reason::Usage, "the holder's name is empty"));
        }
        Some(Named::Name(name)) => return Ok((Holder::named(name.trim()), None)),
        Some(Named::Pid(pid)) => {
            // A number of another namespace would be some other process here.
            if !counts_as_here(proc_root, visible(peer)?)? {
                let detail = format!(
                    "process {pid} is as the asker's container numbers it, which says nothing of it out here"
                );
                return Err(Problem::new(Reason::Usage, detail).hint(
                    "name a holder ({\"name\": \"...\"}; `fits --reserve --holder NAME`), or leave it out: the asking \
                     process then holds the lease, as under `run`",
                ));
            }
            *pid
        }
        None => visible(peer)?,
    };

    let watched = watch(proc_root, pid)?;

    // After the pidfd, so that the owner is that of the process which is watched, or of none. The
    // connecting process too: its pid may have been used anew since it connected.
    check_owner(proc_root, pid, peer.uid)?;
    Ok((Holder::process(watched.identity), Some(watched)))
}

/// The asking process, where it is one of those that can be seen from here.
fn visible(peer: Peer) -> Result<u32, Problem> {
    peer.pid.ok_or_else(|| {
        Problem::new(Reason::Usage, "the asking process is not visible from here, so it cannot hold a lease").hint(
            "name a holder ({\"name\": \"...\"}; `fits --reserve --holder NAME`), or let the daemon see the host's \
             processes where it runs in a container (hostPID)",
        )
    })
}
