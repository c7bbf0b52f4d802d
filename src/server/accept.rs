//! Errors of `accept`, sorted by what to do about them (accept(2)).

use std::io;
use std::time::Duration;

/// What an error of `accept` means for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptFault {
    /// This caller is gone; the next one may be served at once.
    Passing,
    /// Descriptors or memory ran out; trying again at once would only burn the processor.
    Exhausted,
    /// The listener itself is broken.
    Final,
}

/// Pause after an [`AcceptFault::Exhausted`].
pub(super) const BACK_OFF: Duration = Duration::from_millis(100);

pub(super) fn fault(error: &io::Error) -> AcceptFault {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNABORTED | Errno::INTR | Errno::AGAIN | Errno::PERM) => AcceptFault::Passing,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => AcceptFault::Exhausted,
        _ => AcceptFault::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_listener_ends_the_loop() {
        let of =
            |errno: rustix::io::Errno| fault(&io::Error::from_raw_os_error(errno.raw_os_error()));
        assert_eq!(of(rustix::io::Errno::CONNABORTED), AcceptFault::Passing);
        assert_eq!(of(rustix::io::Errno::MFILE), AcceptFault::Exhausted);
        assert_eq!(of(rustix::io::Errno::BADF), AcceptFault::Final);
        assert_eq!(of(rustix::io::Errno::INVAL), AcceptFault::Final);
    }
}
