//! A single reading without a sampling thread.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use hf_mem_core::device::Snapshot;

use crate::devices::error::DevicesError;
use crate::devices::nvml::{NvmlOptions, NvmlReader, sleeping_snapshot};

/// Opens the driver's library, reads the devices once and closes it, within `deadline`.
///
/// A thread that the driver blocks is left behind until the process ends.
pub fn read_once(options: &NvmlOptions, deadline: Duration) -> Result<Snapshot, DevicesError> {
    let (sender, receiver) = sync_channel(1);
    let options = options.clone();
    std::thread::Builder::new()
        .name("devices".to_owned())
        .spawn(move || {
            let outcome = sleeping_snapshot(&options).map_or_else(
                || NvmlReader::open(&options).and_then(|mut reader| reader.read()),
                Ok,
            );
            // After the deadline the receiver no longer exists.
            let _ = sender.send(outcome);
        })
        .map_err(|error| reading_failed(error.to_string()))?;

    match receiver.recv_timeout(deadline) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(DevicesError::Overdue {
            doing: "reading the devices",
            waited: deadline,
        }),
        Err(RecvTimeoutError::Disconnected) => Err(reading_failed(
            "the reading thread ended without an answer".to_owned(),
        )),
    }
}

fn reading_failed(message: String) -> DevicesError {
    DevicesError::Driver {
        call: "reading the devices",
        message,
    }
}
