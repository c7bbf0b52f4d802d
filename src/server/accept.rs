//! Sorts the errors of `accept` by what the accept loop does about them (accept(2)).

use std::io;
use std::time::Duration;

/// The meaning of an `accept` error for the accept loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptFault {
    /// This caller has gone. The loop accepts the next one at once.
    CallerGone,
    /// The process has no descriptors or memory left. The loop pauses, so that it does not spin.
    Exhausted,
    /// The listener itself is broken.
    Fatal,
}

/// The pause after an [`AcceptFault::Exhausted`].
pub(super) const BACK_OFF: Duration = Duration::from_millis(100);

pub(super) fn classify(error: &io::Error) -> AcceptFault {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNABORTED | Errno::INTR | Errno::AGAIN | Errno::PERM) => {
            AcceptFault::CallerGone
        }
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => AcceptFault::Exhausted,
        _ => AcceptFault::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn only_broken_listener_is_fatal() {
        for (errno, expected) in [
            (Errno::CONNABORTED, AcceptFault::CallerGone),
            (Errno::MFILE, AcceptFault::Exhausted),
            (Errno::BADF, AcceptFault::Fatal),
            (Errno::INVAL, AcceptFault::Fatal),
        ] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            assert_eq!(classify(&error), expected, "{errno}");
        }
    }
}
