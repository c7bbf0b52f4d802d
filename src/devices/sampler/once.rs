//! One reading without a daemon.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use hf_mem_core::device::Snapshot;

use crate::devices::error::DevicesError;
use crate::devices::nvml::{NvmlOptions, NvmlReader, all_asleep};

/// Opens the driver's library, reads once, closes it; waits no longer than `deadline`. A thread
/// that the driver blocks is left behind, for the process's end to take along.
pub fn read_once(options: &NvmlOptions, deadline: Duration) -> Result<Snapshot, DevicesError> {
    let (sender, receiver) = sync_channel(1);
    let options = options.clone();
    let read = move || {
        let outcome = all_asleep(&options).map_or_else(
            || NvmlReader::open(&options).and_then(|mut reader| reader.read()),
            Ok,
        );
        // Nobody listens any more when the deadline has passed.
        let _ = sender.send(outcome);
    };

    let thread = std::thread::Builder::new()
        .name("devices".to_owned())
        .spawn(read);
    let failed = |message: String| DevicesError::Driver {
        call: "reading the devices",
        message,
    };

    thread.map_err(|error| failed(error.to_string()))?;
    match receiver.recv_timeout(deadline) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(DevicesError::Overdue {
            doing: "reading the devices",
            waited: deadline,
        }),
        Err(RecvTimeoutError::Disconnected) => Err(failed(
            "the reading thread ended without an answer".to_owned(),
        )),
    }
}
